//! What tabane costs beside its peers: everything is measured in turn, round by round, so that a machine that is
//! slower for a while is slower for all.

use crate::Compare;
use crate::client::{Connection, as_fast_as_it_goes, at_a_rate, open};
use crate::process::Tree;
use crate::rivals::{RIVALS, Rival, Running, nodes};
use crate::table::Table;
use anyhow::{Result, bail};
use rand::rng;
use rand::seq::SliceRandom;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::sleep;

/// Connections at once.
const CROWDS: [usize; 3] = [1, 32, 256];
/// Requests a second over 32 connections: well below what the slowest can do on one core.
const RATE: f64 = 2000.0;
const BULK: u64 = 1 << 30;
const IDLE: usize = 2000;

pub async fn run(args: &Compare, table: &mut Table) -> Result<()> {
    let wants = |part: &str| args.only.iter().any(|only| only == part);
    if !["cpu", "latency", "bulk", "memory"].into_iter().any(wants) {
        return Ok(());
    }
    let (nodes, ports) = nodes(2).await?;
    let mut field = Vec::new();
    for rival in RIVALS {
        match rival.start(&args.tabane, &ports).await {
            Ok(running) => field.push((rival, running)),
            Err(error) if matches!(rival, Rival::Nginx | Rival::Haproxy) => {
                eprintln!("skipped {}: {error:#}", rival.name());
            }
            Err(error) => return Err(error),
        }
    }
    let time = Duration::from_secs_f64(args.seconds);
    let direct = nodes.address;
    let mut measure = Measure { table, time };
    // First of all: memory that a load has left behind would be counted as used already.
    if wants("memory") {
        for (rival, running) in &field {
            measure.idle(*rival, running).await?;
        }
    }
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        // Nobody is always the first.
        field.shuffle(&mut rng());
        if wants("cpu") {
            for crowd in CROWDS {
                for (rival, running) in &field {
                    measure.cpu(*rival, running, crowd).await?;
                }
                if crowd == 1 {
                    measure.alone("no proxy", direct).await?;
                }
            }
        }
        if wants("latency") {
            for (rival, running) in &field {
                measure.rate(rival.name(), running.address).await?;
            }
            measure.rate("no proxy", direct).await?;
        }
        if wants("bulk") {
            for (rival, running) in &field {
                measure.bulk(*rival, running).await?;
            }
        }
    }
    for (_, running) in field {
        running.end().await?;
    }
    nodes.end().await
}

struct Measure<'a> {
    table: &'a mut Table,
    time: Duration,
}

impl Measure<'_> {
    async fn cpu(&mut self, rival: Rival, running: &Running, crowd: usize) -> Result<()> {
        let tree = running.tree()?;
        let connections = open(running.address, crowd).await?;
        let before = tree.cpu()?;
        let times = as_fast_as_it_goes(connections, self.time).await?;
        let cpu = (tree.cpu()? - before).as_secs_f64() * 1e6;
        if times.count() == 0 {
            bail!("{} answered nothing", rival.name());
        }
        let row = format!("CPU a request, {crowd} connections");
        let row = if crowd == 1 {
            "CPU a request, 1 connection"
        } else {
            &row
        };
        self.table
            .add(row, "µs", rival.name(), cpu / times.count() as f64);
        if crowd == 1 {
            self.table
                .add("p50, 1 connection", "µs", rival.name(), times.at(0.5));
        }
        Ok(())
    }

    async fn alone(&mut self, name: &'static str, to: SocketAddr) -> Result<()> {
        let times = as_fast_as_it_goes(open(to, 1).await?, self.time).await?;
        self.table
            .add("p50, 1 connection", "µs", name, times.at(0.5));
        Ok(())
    }

    async fn rate(&mut self, name: &'static str, to: SocketAddr) -> Result<()> {
        let times = at_a_rate(open(to, 32).await?, RATE, self.time).await?;
        let row = |what: &str| format!("{what} at {RATE} requests a second");
        self.table.add(&row("p50"), "µs", name, times.at(0.5));
        self.table.add(&row("p99"), "µs", name, times.at(0.99));
        Ok(())
    }

    async fn bulk(&mut self, rival: Rival, running: &Running) -> Result<()> {
        let tree = running.tree()?;
        let streams = Connection::open(running.address).await?;
        self.bytes(rival, tree, "CPU a GiB, down", streams, true)
            .await?;
        let streams = Connection::open(running.address).await?;
        self.bytes(rival, tree, "CPU a GiB, up", streams, false)
            .await?;
        if let Some(holds) = running.holds {
            let row = "CPU a GiB, up, held on disk first";
            let held = Connection::open(holds).await?;
            self.bytes(rival, tree, row, held, false).await?;
        }
        let peak = tree.peak()? as f64 / 1e6;
        self.table.add("memory at most", "MB", rival.name(), peak);
        Ok(())
    }

    async fn bytes(
        &mut self,
        rival: Rival,
        tree: Tree,
        row: &str,
        mut connection: Connection,
        down: bool,
    ) -> Result<()> {
        let before = tree.cpu()?;
        match down {
            true => connection.get(&format!("/bulk/{BULK}")).await?,
            false => connection.post("/", BULK).await?,
        }
        let ms = (tree.cpu()? - before).as_secs_f64() * 1e3;
        self.table.add(row, "ms", rival.name(), ms);
        Ok(())
    }

    /// What a connection costs that has asked once and is silent now.
    async fn idle(&mut self, rival: Rival, running: &Running) -> Result<()> {
        let tree = running.tree()?;
        let before = tree.memory()?;
        let name = rival.name();
        self.table
            .add("memory at rest", "MB", name, before as f64 / 1e6);
        let connections = open(running.address, IDLE).await?;
        sleep(Duration::from_secs(1)).await;
        let more = tree.memory()?.saturating_sub(before) as f64;
        self.table.add(
            "memory an idle connection",
            "kB",
            name,
            more / IDLE as f64 / 1e3,
        );
        drop(connections);
        Ok(())
    }
}
