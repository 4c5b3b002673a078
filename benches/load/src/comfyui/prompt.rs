//! `POST /prompt`: a prompt is on disk before it is answered, so the disk's own time is measured between any two.

use super::ask::{LONG, new_id, over, post, remaining, sampled, submission};
use super::farm::Farm;
use super::ms;
use super::pairs::{Pairs, head};
use crate::Comfyui;
use crate::client::{Connection, Times};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tabane_sim::comfy::{ComfyNode, Saw};
use tokio::time::timeout;

/// How many wait behind those that run.
const WAITING: usize = 200;

/// One after the other, each when the one before is over.
pub async fn idle(args: &Comfyui, farm: &Farm, alone: &ComfyNode) -> Result<()> {
    let mut ends = [farm.connect().await?, Connection::open(alone.addr()).await?];
    let (mut pairs, mut disk) = (Pairs::default(), Disk::open(farm.disk())?);
    for seed in 0..args.samples {
        for (times, connection) in pairs.each().into_iter().zip(&mut ends) {
            let id = new_id();
            let request = submission(&id, "bench", &sampled(seed, 2));
            let began = Instant::now();
            connection.ask(&request, 200).await?;
            times.push(began.elapsed());
            over(connection, &id).await?;
        }
        disk.write()?;
    }
    disk.print("an idle farm", pairs);
    Ok(())
}

/// One after the other, each taken back again before the next.
pub async fn waiting(args: &Comfyui, farm: &Farm, alone: &ComfyNode) -> Result<()> {
    let mut ends = [farm.connect().await?, Connection::open(alone.addr()).await?];
    let (mut pairs, mut disk) = (Pairs::default(), Disk::open(farm.disk())?);
    for seed in 0..args.samples {
        for (times, connection) in pairs.each().into_iter().zip(&mut ends) {
            let id = new_id();
            let request = submission(&id, "bench", &sampled(seed, 2));
            let began = Instant::now();
            connection.ask(&request, 200).await?;
            times.push(began.elapsed());
            let back = post("/queue", &json!({"delete": [id]}));
            connection.ask(&back, 200).await?;
        }
        disk.write()?;
    }
    disk.print(&format!("{WAITING} waiting"), pairs);
    Ok(())
}

/// All servers are at a prompt that does not end, and others wait.
pub struct Waiting<'a>(Vec<&'a ComfyNode>);

// === impl Waiting ===

impl<'a> Waiting<'a> {
    pub async fn begin(farm: &'a Farm, alone: &'a ComfyNode) -> Result<Self> {
        let all: Vec<&ComfyNode> = farm.nodes.iter().chain([alone]).collect();
        for node in &all {
            node.set(|knobs| knobs.hang_at = Some("KSampler".into()));
        }
        let mut ends = [
            (farm.connect().await?, farm.nodes.len()),
            (Connection::open(alone.addr()).await?, 1),
        ];
        for (connection, nodes) in &mut ends {
            for i in 0..*nodes + WAITING {
                let prompt = sampled(1_000_000 + i as u64, 2);
                let request = submission(&new_id(), "bench", &prompt);
                connection.ask(&request, 200).await?;
            }
        }
        let waiting = Waiting(all);
        for node in &waiting.0 {
            let works = |saw: &[Saw]| {
                let all = saw.iter().rev();
                let mut steps = all.filter_map(|saw| match saw {
                    Saw::Started { .. } => Some(true),
                    Saw::Ended { .. } => Some(false),
                    _ => None,
                });
                steps.next() == Some(true)
            };
            let works = timeout(LONG, node.until(works)).await;
            works.context("a server does not begin to work")?;
        }
        for (connection, nodes) in &mut ends {
            let all = (*nodes + WAITING) as u64;
            remaining(connection, |remaining| remaining == all).await?;
        }
        Ok(waiting)
    }

    /// The servers work on.
    pub fn end(self) {
        for node in self.0 {
            node.set(|knobs| knobs.hang_at = None);
        }
    }
}

// === impl Pairs ===

impl Pairs {
    /// Through the gateway, and directly.
    pub fn each(&mut self) -> [&mut Vec<Duration>; 2] {
        [&mut self.through, &mut self.direct]
    }
}

/// What the disk itself takes.
struct Disk {
    file: File,
    times: Vec<Duration>,
}

// === impl Disk ===

impl Disk {
    fn open(folder: &Path) -> Result<Self> {
        Ok(Disk {
            file: File::create(folder.join("fsync"))?,
            times: Vec::new(),
        })
    }

    /// Appends a page, and makes it durable.
    fn write(&mut self) -> Result<()> {
        let began = Instant::now();
        self.file.write_all(&[b'x'; 4096])?;
        self.file.sync_data()?;
        self.times.push(began.elapsed());
        Ok(())
    }

    fn print(self, when: &str, pairs: Pairs) {
        let disk = Times::of(vec![self.times]);
        let [p50, p99] = [0.5, 0.99].map(|share| disk.at(share) / 1e3);
        let most = ms(Duration::from_millis(5)) + p99;
        head();
        pairs.print(
            &format!("`POST /prompt`, {when}"),
            &format!("{most:.2} ms: 5 ms and the disk's"),
        );
        println!();
        println!(
            "the disk: {p50:.2} / {p99:.2} ms to append 4 KiB and make it durable, between any two of them"
        );
        println!();
    }
}
