//! What the kind `comfyui` adds to a server: simulated servers behind the gateway, and one asked directly, in turn.
//!
//! Servers, clients and the gateway share the machine, and the first two one process: both ends of a frame are on one clock.

mod ask;
mod bulk;
mod farm;
mod frames;
mod lists;
mod pairs;
mod prompt;
mod view;

use crate::Comfyui;
use anyhow::Result;
use farm::Farm;
use std::fs;
use std::time::Duration;
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Spec, Version};

/// Servers behind the gateway, but for frames.
const NODES: usize = 4;

pub async fn run(args: &Comfyui) -> Result<()> {
    let does = |part: &str| args.only.iter().any(|only| only == part);
    busy("at the beginning")?;
    if does("prompt") || does("view") || does("lists") {
        asked(args, does).await?;
    }
    if does("frames") {
        frames::run(args).await?;
    }
    if does("bulk") {
        bulk::run(args).await?;
    }
    busy("in the end")
}

/// What is asked of an idle farm, and of one that works with prompts waiting.
async fn asked(args: &Comfyui, does: impl Fn(&str) -> bool) -> Result<()> {
    let alone = ComfyNode::start(spec("alone")).await?;
    let mut nodes = Vec::new();
    for i in 0..NODES {
        nodes.push(ComfyNode::start(spec(&format!("node-{i}"))).await?);
    }
    let farm = Farm::start(&args.tabane, nodes).await?;
    if does("prompt") {
        prompt::idle(args, &farm, &alone).await?;
    }
    if does("view") {
        view::run(args, &farm, &alone).await?;
    }
    if does("lists") {
        lists::fill(&farm, &alone).await?;
    }
    if does("prompt") || does("lists") {
        let work = prompt::Waiting::begin(&farm, &alone).await?;
        if does("prompt") {
            prompt::waiting(args, &farm, &alone).await?;
        }
        if does("lists") {
            lists::run(args, &farm, &alone).await?;
        }
        work.end();
    }
    farm.end().await
}

/// A server that does its work at once.
fn spec(name: &str) -> Spec {
    let knobs = ComfyKnobs {
        step_ms: 0,
        ..ComfyKnobs::default()
    };
    Spec::named(name).version(Version::LATE).knobs(knobs)
}

/// Who else is at work here spoils the figures.
fn busy(when: &str) -> Result<()> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    println!("load average {when}: {}", load.join(" "));
    println!();
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
