//! The same jobs twice: through the gateway itself, in front of nodes that take as long as a table says with time running
//! faster, and on virtual time. What `make bench-schedule` prints is worth as much as these two agree.

use crate::client::Connection;
use crate::gateway::Gateway;
use crate::machine::{CLASS, Clock, JOB, Machine, Runs, SIZE};
use crate::{Schedule, client};
use anyhow::{Context, Result, anyhow, ensure};
use futures::future::try_join_all;
use parking_lot::Mutex;
use std::fs;
use std::sync::Arc;
use std::time::Instant;
use tabane::schedule::register;
use tabane::simulate::{Class, Farm, Options, Outcome, Report, Run, Setup, Shape, Table, Trace};
use tabane_api::Registry;

pub async fn run(args: &Schedule) -> Result<()> {
    let table = fs::read_to_string(&args.pool)
        .with_context(|| format!("cannot read {}", args.pool.display()))?;
    let table = Table::read(&table).map_err(|why| anyhow!("{}: {why}", args.pool.display()))?;
    println!(
        "{} jobs at {} of what the pool can do, a second in {} ms; all are counted, also those that times are learned from",
        args.jobs,
        args.load,
        1000.0 / args.faster
    );
    println!();
    println!(
        "| policy | seed | | wait mean | p50 | p95 | latency mean | p95 | all done | loads/job |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for policy in &args.policies {
        let registry = register(Registry::default());
        let setup = Setup::of_table(&table, &registry, policy).map_err(anyhow::Error::msg)?;
        for seed in 1..=args.seeds {
            let trace = Trace::draw(Shape::Poisson(args.load), &setup, args.jobs, seed);
            let trace = trace.map_err(anyhow::Error::msg)?;
            let options = Options {
                seed,
                ..Options::default()
            };
            let virtually = Farm::run(&setup, &trace, &[], options).map_err(anyhow::Error::msg)?;
            let really = really(args, policy, &setup, &trace).await?;
            let reports = [virtually, really].map(|outcome| {
                let report = Report::of(&setup, &trace, &outcome, 0);
                (report, outcome.end_s)
            });
            for ((report, end_s), how) in reports.iter().zip(["virtual", "gateway"]) {
                println!(
                    "| {policy} | {seed} | {how} | {:.1} s | {:.1} s | {:.1} s | {:.1} s | {:.1} s | {end_s:.0} s | {:.3} |",
                    report.wait.mean,
                    report.wait.p50,
                    report.wait.p95,
                    report.latency.mean,
                    report.latency.p95,
                    report.loads_per_job,
                );
                ensure!(
                    (report.lost, report.doubled) == (0, 0),
                    "lost {}, done twice {}",
                    report.lost,
                    report.doubled
                );
            }
        }
    }
    Ok(())
}

/// The trace through a gateway; times are the clock's.
async fn really(args: &Schedule, policy: &str, setup: &Setup, trace: &Trace) -> Result<Outcome> {
    let clock = Clock {
        base: Instant::now(),
        faster: args.faster,
    };
    let runs: Runs = Arc::new(Mutex::new(vec![Run::default(); trace.arrivals.len()]));
    let names = (0..setup.classes.len()).map(|i| i.to_string());
    let classes = setup.classes.iter().zip(names);
    let classes: Arc<[Class]> = classes
        .map(|(class, name)| Class {
            name: name.into(),
            ..class.clone()
        })
        .collect();
    let mut machines = Vec::new();
    for (i, endpoint) in setup.plan.endpoints.iter().enumerate() {
        let vram = setup.plan.nodes[endpoint.node].facts.vram_mib;
        machines.push(Machine::start(i, vram, classes.clone(), clock, runs.clone()).await?);
    }
    let text = config(policy, &machines, args.faster);
    let gateway = Gateway::start_with(&args.tabane, "/health", move |_| text.clone()).await?;
    let to = gateway.running.address;
    let zero_s = clock.now_s();
    let all = trace.arrivals.iter().enumerate().map(|(job, arrival)| {
        let request = format!(
            "POST /work HTTP/1.1\r\nHost: bench\r\n{JOB}: {job}\r\n{CLASS}: {}\r\n{SIZE}: {}\r\nContent-Length: 0\r\n\r\n",
            arrival.class,
            arrival.size * arrival.luck,
        );
        let due = clock.at(zero_s + arrival.at_s);
        client::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            let mut connection = Connection::open(to).await?;
            connection.ask(request.as_bytes(), 200).await
        })
    });
    try_join_all(all).await?;
    gateway.running.end().await?;
    let mut runs = std::mem::take(&mut *runs.lock());
    for run in &mut runs {
        run.begin_s -= zero_s;
        run.end_s = run.end_s.map(|end_s| end_s - zero_s);
    }
    Ok(Outcome {
        busy_s: vec![0.0; setup.plan.endpoints.len()],
        most_at_work: vec![1; setup.plan.endpoints.len()],
        end_s: runs.iter().filter_map(|run| run.end_s).fold(0.0, f64::max),
        runs,
        ..Outcome::default()
    })
}

/// The gateway's file but for its addresses. What it measures in seconds by itself passes as much faster as the clock.
fn config(policy: &str, machines: &[Machine], faster: f64) -> String {
    let nodes: String = machines
        .iter()
        .enumerate()
        .map(|(i, machine)| {
            format!(
                "  n{i}: {{url: \"http://{}\", slots: 1}}\n",
                machine.address
            )
        })
        .collect();
    let pool: Vec<String> = (0..machines.len()).map(|i| format!("n{i}")).collect();
    let patience = (600.0 / faster * 1000.0) as u64;
    format!(
        r#"log: {{access: false}}
limits: {{connections: 20000, connections_per_address: 20000}}
nodes:
{nodes}services:
  work:
    pool: [{}]
    policy: {policy}
    patience: {patience}ms
    queue: {{max: 20000, max_wait: 1h}}
    health: {{interval: 100ms}}
    kind:
      http:
        probe: {{path: /health, models: /models, loaded: /loaded}}
        class: [{{header: {CLASS}}}]
        model: {{header: {CLASS}}}
    routes: [/]
"#,
        pool.join(", ")
    )
}
