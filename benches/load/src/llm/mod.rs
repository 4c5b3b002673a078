//! Chats in front of simulated engines of unequal speed, by way of the gateway and of its peers in turn.
//!
//! Sessions come whenever they come (Poisson), each of several turns that carry all that was said before; half of the machines'
//! use is in what of that they have computed already. Every router gets the same sessions, and engines that have just started.

mod cost;
mod engines;
mod quick;
mod router;
mod sessions;
mod talk;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use engines::Engines;
pub use engines::serve;
use router::Router;
use std::path::PathBuf;
use std::time::Duration;
use talk::Measured;

/// What is measured, and for how long.
#[derive(Args)]
pub struct Llm {
    /// The gateway's executable
    #[arg(long)]
    tabane: PathBuf,
    /// The executable of smg, the peer; without it, only the gateway is measured
    #[arg(long, env = "SMG")]
    smg: Option<PathBuf>,
    /// Each with sessions of its own; the table shows medians, and from where to where they went
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// How long sessions come that are measured
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// How long sessions come before: routers learn
    #[arg(long, default_value_t = 10.0)]
    before: f64,
    /// Sessions a second
    #[arg(long, value_delimiter = ',', default_values = ["5", "9"])]
    rates: Vec<f64>,
    /// In front of which engines
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["unequal", "equal"])]
    engines: Vec<Farm>,
    /// Only this: `cost`, `chats`
    #[arg(long, value_delimiter = ',', value_parser = ["cost", "chats"], default_values = ["cost", "chats"])]
    parts: Vec<String>,
    /// How many prompts, each another, memory is measured after; 0: it is not
    #[arg(long, default_value_t = 200_000)]
    prompts: usize,
    /// Only these routers
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Four engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Farm {
    /// One fast, two middling, one slow
    Unequal,
    /// Four middling ones
    Equal,
    /// Two that answer at once, for what routers cost
    #[value(hide = true)]
    Quick,
}

/// Measures all of it, and prints a table for each farm and rate.
pub async fn run(args: &Llm) -> Result<()> {
    let mut routers = vec![Router::Tabane(args.tabane.clone())];
    if let Some(smg) = &args.smg {
        routers.extend(router::POLICIES.map(|policy| Router::Smg(smg.clone(), policy)));
    } else {
        eprintln!("smg is left out: --smg or SMG says where it is (pip install smg)");
    }
    routers.retain(|router| args.only.is_empty() || args.only.contains(&router.name()));
    let has = |part: &str| args.parts.iter().any(|known| known == part);
    if has("cost") {
        cost::run(args, &routers).await?;
    }
    for farm in args.engines.iter().filter(|_| has("chats")) {
        for rate in &args.rates {
            let mut table = Vec::new();
            for seed in 1..=args.seeds {
                for (n, router) in routers.iter().enumerate() {
                    let measured = one(args, *farm, *rate, seed, router).await;
                    let measured = measured.with_context(|| router.name())?;
                    eprintln!(
                        "{farm:?} {rate}/s seed {seed} {}: {measured}",
                        router.name()
                    );
                    if table.len() <= n {
                        table.push((router.name(), Vec::new()));
                    }
                    table[n].1.push(measured);
                }
            }
            print(*farm, *rate, &table);
        }
    }
    Ok(())
}

async fn one(args: &Llm, farm: Farm, rate: f64, seed: u64, router: &Router) -> Result<Measured> {
    let engines = Engines::start(farm).await?;
    let running = router.start(&engines.ports).await?;
    let (before, measured) = (
        Duration::from_secs_f64(args.before),
        Duration::from_secs_f64(args.seconds),
    );
    let sessions = sessions::draw(seed, rate, before + measured);
    let cpu = running.tree()?.cpu()?;
    let mut talked = talk::all(running.address, sessions, before).await?;
    talked.cpu = running.tree()?.cpu()?.saturating_sub(cpu);
    talked.memory = running.tree()?.memory()?;
    running.end().await?;
    engines.end().await?;
    Ok(talked)
}

/// Medians over the seeds, with the lowest and the highest.
fn print(farm: Farm, rate: f64, table: &[(String, Vec<Measured>)]) {
    type Row = (&'static str, &'static str, fn(&Measured) -> f64);
    let rows: [Row; 9] = [
        ("first token, median", "s", |m| m.first_s(0.5)),
        ("first token, p95", "s", |m| m.first_s(0.95)),
        ("first token, p99", "s", |m| m.first_s(0.99)),
        ("whole answer, mean", "s", Measured::whole_mean_s),
        ("whole answer, p99", "s", |m| m.whole_s(0.99)),
        ("prompts computed before", "%", |m| 100.0 * m.hit()),
        ("requests that failed", "", |m| m.failed as f64),
        ("CPU a request", "ms", Measured::cpu_ms),
        ("memory", "MB", |m| m.memory as f64 / 1e6),
    ];
    println!("\n{farm:?} engines, {rate} sessions a second\n");
    let names: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
    println!(
        "| | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (name, unit, of) in rows {
        let cells = table.iter().map(|(_, measured)| {
            let mut values: Vec<f64> = measured.iter().map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            let (low, high) = (values[0], values[values.len() - 1]);
            format!(
                "{:.3} {unit} ({low:.3} to {high:.3})",
                values[values.len() / 2]
            )
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
