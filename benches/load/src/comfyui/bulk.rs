//! Large files: how much memory the gateway has at most while they go through it.

use super::ask::get;
use super::farm::Farm;
use super::spec;
use crate::Comfyui;
use crate::process::Tree;
use anyhow::Result;
use futures::future::try_join_all;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};
use tabane_sim::comfy::ComfyNode;
use tokio::time::sleep;

const UPLOAD: u64 = 100_000_000;
const FILE: u64 = 200_000_000;
const MOST_MB: f64 = 32.0;

pub async fn run(args: &Comfyui) -> Result<()> {
    let node = ComfyNode::start(spec("bulk")).await?;
    let farm = Farm::start(&args.tabane, vec![node]).await?;
    let gateway = farm.gateway.running.tree()?;
    sleep(Duration::from_secs(1)).await;
    println!("| memory of the gateway | before | at most | more | budget | |");
    println!("|---|---|---|---|---|---|");

    let memory = Memory::of(gateway)?;
    farm.connect().await?.upload("one.bin", UPLOAD).await?;
    memory.print("an upload of 100 MB", UPLOAD)?;

    for (what, times) in [("four of them at once", 1), ("and so five times more", 5)] {
        let memory = Memory::of(gateway)?;
        for round in 0..times {
            let four = (0..4).map(|i| {
                let (farm, name) = (&farm, format!("{times}-{round}-{i}.bin"));
                async move { farm.connect().await?.upload(&name, UPLOAD).await }
            });
            try_join_all(four).await?;
        }
        memory.print(what, times * 4 * UPLOAD)?;
    }

    big(&farm)?;
    let path = "/view?filename=big.bin&type=input";
    let ranges = [
        ("`/view` of 200 MB", "", 200, FILE),
        (
            "the same by `Range`, all of it",
            "Range: bytes=0-\r\n",
            206,
            FILE,
        ),
        (
            "100 MB from its middle",
            "Range: bytes=50000000-149999999\r\n",
            206,
            FILE / 2,
        ),
    ];
    for (what, range, wants, length) in ranges {
        let memory = Memory::of(gateway)?;
        let mut connection = farm.connect().await?;
        connection.ask(&get(path, range), wants).await?;
        memory.print(what, length)?;
    }
    let memory = Memory::of(gateway)?;
    let eight = (0..8).map(|_| async {
        let mut connection = farm.connect().await?;
        connection.ask(&get(path, "Range: bytes=0-\r\n"), 206).await
    });
    try_join_all(eight).await?;
    memory.print("eight of 200 MB at once", 8 * FILE)?;
    println!();
    farm.end().await
}

/// A file as if it had been uploaded.
fn big(farm: &Farm) -> Result<()> {
    let folder = farm.folder("input");
    std::fs::create_dir_all(&folder)?;
    let mut file = File::create(folder.join("big.bin"))?;
    let piece: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 / 8) as u8).collect();
    for _ in 0..FILE / 1_000_000 {
        file.write_all(&piece)?;
    }
    Ok(())
}

/// From here on, how much there is at most.
struct Memory {
    of: Tree,
    before: u64,
    since: Instant,
}

// === impl Memory ===

impl Memory {
    fn of(of: Tree) -> Result<Self> {
        let before = of.forget_peak()?;
        Ok(Memory {
            of,
            before,
            since: Instant::now(),
        })
    }

    fn print(self, what: &str, bytes: u64) -> Result<()> {
        let took = self.since.elapsed();
        let peak = self.of.peak()?;
        let [before, most] = [self.before, peak].map(|bytes| bytes as f64 / 1e6);
        println!(
            "| {what} | {before:.1} MB | {most:.1} MB | {:.1} MB | {MOST_MB:.0} MB | {:.0} MB/s |",
            most - before,
            bytes as f64 / 1e6 / took.as_secs_f64(),
        );
        Ok(())
    }
}
