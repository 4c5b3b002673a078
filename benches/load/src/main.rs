//! Measures the gateway beside its peers in the same run, and storms it with reloads.

mod client;
mod comfyui;
mod compare;
mod gateway;
mod jobs;
mod llm;
mod machine;
mod node;
mod peer;
mod process;
mod reload;
mod rivals;
mod schedule;
mod storm;
mod table;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// This executable is also the minimal Pingora proxy with the gateway's allocator, beside the one with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load benches: tabane, a minimal Pingora proxy, nginx and HAProxy in turn, in front of the same nodes.
#[derive(Parser)]
#[command(name = "tabane-load", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure CPU, latency, bulk and memory of all that are installed, and reloads; print one table
    Compare(Compare),
    /// 200 reloads a minute under load, sockets, streams and slow uploads; fails if any of them is harmed
    Storm(Storm),
    /// Durable submissions beside the disk's own rate, and what a backlog costs
    Jobs(Jobs),
    /// The same jobs through the gateway with time running faster and on virtual time, which have to agree
    Schedule(Schedule),
    /// Chats in front of simulated engines, beside other routers: time to the first token, whole answers, CPU
    Llm(llm::Llm),
    /// Simulated engines; prints their ports
    #[command(hide = true)]
    Engines {
        /// Which
        farm: llm::Farm,
    },
    /// What the kind `comfyui` adds to a simulated server: prompts, images, frames, large files
    Comfyui(Comfyui),
    /// Nodes that answer at once; prints their ports
    #[command(hide = true)]
    Node {
        /// How many
        n: usize,
    },
    /// The minimal Pingora proxy
    #[command(hide = true)]
    Peer {
        /// Where it listens
        listen: SocketAddr,
        /// The ports of its nodes
        nodes: Vec<u16>,
    },
}

/// What `compare` measures.
const PARTS: [&str; 5] = ["cpu", "latency", "bulk", "memory", "reload"];

/// What `compare` measures, and for how long.
#[derive(Args)]
struct Compare {
    /// The gateway's executable
    #[arg(long)]
    tabane: PathBuf,
    /// How often everything is measured in turn; the table shows medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of each measurement; CPU time is counted in hundredths of a second
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_parser = PARTS, default_values = PARTS)]
    only: Vec<String>,
}

/// How long the storm blows, and how hard.
#[derive(Args)]
struct Storm {
    /// The gateway's executable
    #[arg(long)]
    tabane: PathBuf,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// In all, evenly spread
    #[arg(long, default_value_t = 200)]
    reloads: u32,
}

/// How many jobs wait at most, and how long a rate is measured.
#[derive(Args)]
struct Jobs {
    /// The gateway's executable
    #[arg(long)]
    tabane: PathBuf,
    /// How many wait in the end
    #[arg(long, default_value_t = 100_000)]
    backlog: usize,
    /// Of each measurement
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// Which jobs, on which pool, by which policies.
#[derive(Args)]
struct Schedule {
    /// The gateway's executable
    #[arg(long)]
    tabane: PathBuf,
    /// A table of nodes, classes and times
    #[arg(long, default_value = "benches/data/pool8.yaml")]
    pool: PathBuf,
    /// By name, several with commas between
    #[arg(long, value_delimiter = ',', default_values = ["least_loaded", "fastest", "match"])]
    policies: Vec<String>,
    /// Of what the pool can do at most
    #[arg(long, default_value_t = 0.7)]
    load: f64,
    /// In each run
    #[arg(long, default_value_t = 600)]
    jobs: usize,
    /// Another trace for each
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// How much faster time runs before the gateway
    #[arg(long, default_value_t = 50.0)]
    faster: f64,
}

/// What `comfyui` measures.
const COMFYUI: [&str; 5] = ["prompt", "view", "lists", "frames", "bulk"];

/// What of the kind `comfyui` is measured, and how hard.
#[derive(Args)]
struct Comfyui {
    /// The gateway's executable
    #[arg(long)]
    tabane: PathBuf,
    /// How often each thing is asked
    #[arg(long, default_value_t = 500)]
    samples: u64,
    /// Nodes that send previews at the same time
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// Sockets of clients that only listen
    #[arg(long, default_value_t = 1000)]
    sockets: usize,
    /// How often previews are measured, through the gateway and directly
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each of these times
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_parser = COMFYUI, default_values = COMFYUI)]
    only: Vec<String>,
}

fn main() -> Result<()> {
    match Cli::parse().what {
        // Pingora's server has runtimes of its own.
        What::Peer { listen, nodes } => peer::run(listen, &nodes),
        What::Node { n } => runtime()?.block_on(node::run(n)),
        What::Llm(args) => runtime()?.block_on(llm::run(&args)),
        What::Engines { farm } => runtime()?.block_on(llm::serve(farm)),
        What::Compare(args) => runtime()?.block_on(async {
            let mut table = table::Table::default();
            compare::run(&args, &mut table).await?;
            if args.only.iter().any(|part| part == "reload") {
                reload::run(&args.tabane, &mut table).await?;
            }
            print!("{table}");
            Ok(())
        }),
        What::Comfyui(args) => runtime()?.block_on(comfyui::run(&args)),
        What::Jobs(args) => runtime()?.block_on(jobs::run(&args)),
        What::Schedule(args) => runtime()?.block_on(schedule::run(&args)),
        What::Storm(args) => runtime()?.block_on(storm::run(&args)),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}
