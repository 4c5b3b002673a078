//! What front ends ask for all the time: `/queue`, `/history` and `/api/jobs`.

use super::ask::{get, new_id, over, remaining, sampled, submission};
use super::farm::Farm;
use super::pairs::{Pairs, head};
use crate::Comfyui;
use crate::client::Connection;
use anyhow::Result;
use std::time::Instant;
use tabane_sim::comfy::ComfyNode;

/// How many are over.
const PAST: u64 = 1000;

const PATHS: [(&str, u64); 6] = [
    ("/queue", 1),
    ("/history?max_items=64", 1),
    ("/history", 10),
    ("/api/jobs", 1),
    ("/api/jobs?status=in_progress,pending&limit=200&offset=0", 1),
    (
        "/api/jobs?status=completed,failed,cancelled&limit=64&offset=0",
        1,
    ),
];

/// Puts so many into the history.
pub async fn fill(farm: &Farm, alone: &ComfyNode) -> Result<()> {
    for address in [farm.address(), alone.addr()] {
        let mut connection = Connection::open(address).await?;
        let began = Instant::now();
        let mut last = String::new();
        for seed in 0..PAST {
            last = new_id();
            let request = submission(&last, "bench", &sampled(100_000 + seed, 2));
            connection.ask(&request, 200).await?;
        }
        remaining(&mut connection, |remaining| remaining == 0).await?;
        over(&mut connection, &last).await?;
        let rate = PAST as f64 / began.elapsed().as_secs_f64();
        let who = if address == farm.address() {
            format!("{} servers behind tabane", farm.nodes.len())
        } else {
            "one server directly".into()
        };
        println!("{PAST} prompts that take no time: {rate:.0} a second, {who}");
    }
    println!();
    Ok(())
}

pub async fn run(args: &Comfyui, farm: &Farm, alone: &ComfyNode) -> Result<()> {
    let mut ends = [farm.connect().await?, Connection::open(alone.addr()).await?];
    head();
    for (path, takes) in PATHS {
        let request = get(path, "");
        let mut pairs = Pairs::default();
        for _ in 0..args.samples / takes {
            for (times, connection) in pairs.each().into_iter().zip(&mut ends) {
                let began = Instant::now();
                connection.ask(&request, 200).await?;
                times.push(began.elapsed());
            }
        }
        pairs.print(&format!("`GET {path}`"), "");
    }
    println!();
    println!("with 200 waiting and {PAST} or more in the history");
    println!();
    Ok(())
}
