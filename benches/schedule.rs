//! What each policy is worth, on virtual time: the gateway's own rooms over pools of `benches/data`.
//!
//! `cargo bench --profile bench-fast --bench schedule -- --pool pool8 --policy least_loaded --load 0.7 --seeds 5`

use std::process::ExitCode;
use tabane::schedule::register;
use tabane::simulate::{Farm, Options, Report, Setup, Shape, Table, Trace};
use tabane_api::Registry;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let value = |name: &str, default: &str| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1))
            .cloned()
            .unwrap_or(default.into())
    };
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/data");
    let registry = register(Registry::default());
    let jobs: usize = value("--jobs", "20000").parse().expect("a number");
    let seeds: u64 = value("--seeds", "5").parse().expect("a number");
    let options = Options {
        told_sizes: args.iter().any(|a| a == "--told"),
        ..Options::default()
    };
    println!(
        "pool       policy       shape      load   mean   p50    p95    p99    max   | wait mean p95  loads/job  makespan lost  median of {seeds} seeds, ms CPU"
    );
    for pool in value("--pool", "pool8").split(',') {
        let text = std::fs::read_to_string(format!("{dir}/{pool}.yaml")).expect("a pool");
        let table = Table::read(&text).expect("a table");
        for policy in value("--policy", "least_loaded").split(';') {
            let setup = match Setup::of_table(&table, &registry, policy) {
                Ok(setup) => setup,
                Err(why) => {
                    println!("{pool} {policy}: skipped: {why}");
                    continue;
                }
            };
            for load in value("--load", "0.7").split(',') {
                let load: f64 = load.parse().expect("a number");
                let shape = match value("--shape", "poisson").as_str() {
                    "poisson" => Shape::Poisson(load),
                    "bursts" => Shape::Bursts(load),
                    "batch" => Shape::Batch,
                    "flood" => Shape::Flood,
                    other => panic!("no shape {other}"),
                };
                let skip = if matches!(shape, Shape::Poisson(_) | Shape::Bursts(_)) {
                    1000
                } else {
                    0
                };
                let began = std::time::Instant::now();
                let reports: Vec<Report> = (1..=seeds)
                    .map(|seed| {
                        let trace = Trace::draw(shape, &setup, jobs, seed).expect("a trace");
                        let options = Options { seed, ..options };
                        let outcome = Farm::run(&setup, &trace, &[], options).expect("a run");
                        Report::of(&setup, &trace, &outcome, skip)
                    })
                    .collect();
                let took = began.elapsed().as_millis();
                let median = |of: &dyn Fn(&Report) -> f64| {
                    let mut all: Vec<f64> = reports.iter().map(of).collect();
                    all.sort_by(f64::total_cmp);
                    all[all.len() / 2]
                };
                println!(
                    "{pool:10} {policy:12} {:9} {load:5} {:6.0} {:6.0} {:6.0} {:6.0} {:6.0} | {:6.0} {:6.0} {:8.3} {:8.0} {:3.0} {took:6}",
                    value("--shape", "poisson"),
                    median(&|r| r.latency.mean),
                    median(&|r| r.latency.p50),
                    median(&|r| r.latency.p95),
                    median(&|r| r.latency.p99),
                    median(&|r| r.latency.max),
                    median(&|r| r.wait.mean),
                    median(&|r| r.wait.p95),
                    median(&|r| r.loads_per_job),
                    median(&|r| r.makespan_s),
                    median(&|r| (r.lost + r.doubled) as f64)
                );
            }
        }
    }
    ExitCode::SUCCESS
}
