//! What each policy is worth, on virtual time: the gateway's own rooms, which learn from a cold start, over the pools of
//! `benches/data`. Then how long a decision takes, by the clock.
//!
//! All of it with `make bench-schedule`; a part with, for example,
//! `cargo bench --profile bench-fast --bench schedule -- --pool pool8 --policy 'least_loaded;match' --trace poisson:0.7 --seeds 5`

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use tabane::schedule::register;
use tabane::simulate::{
    Change, Farm, GroupReport, Options, Report, Setup, Shape, Stats, Table, Trace, What,
};
use tabane_api::Registry;

const POOLS: &str = "pool8,identical8,ratios8,studio16";
const POLICIES: &str = "round_robin;least_loaded;fastest;match";
/// More than can be done, to see how much is; work in bursts; a node lost or added at half time, at 0.7.
const TRACES: &str = "poisson:0.5,poisson:0.7,poisson:0.85,poisson:0.95,poisson:1.5,bursts:0.7,batch:1500,flood,lost:0.7,added:0.7";
/// Jobs that are not counted where work goes on: times are learned in them.
const LEARNING: usize = 1000;
/// What others are compared with.
const PLAIN: &str = "least_loaded";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    match bench(&Args(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

struct Args(Vec<String>);

impl Args {
    fn value<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        let at = self.0.iter().position(|arg| arg == name);
        at.and_then(|at| self.0.get(at + 1))
            .map_or(default, String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.value(name, "") {
            "" => Ok(default),
            typed => typed
                .parse()
                .map_err(|_| format!("{name} {typed}: not a number")),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|arg| arg == name)
    }
}

fn bench(args: &Args) -> Result<(), String> {
    let registry = register(Registry::default());
    if !args.has("--decisions") {
        for pool in args.value("--pool", POOLS).split(',') {
            let table = read(pool)?;
            for trace in args.value("--trace", TRACES).split(',') {
                compare(args, &registry, pool, &table, trace)?;
            }
        }
    }
    if args.has("--decisions") || args.0.is_empty() {
        decisions(args, &registry)?;
    }
    Ok(())
}

fn read(pool: &str) -> Result<Table, String> {
    let file = match pool.contains('/') {
        true => pool.to_owned(),
        false => format!("{}/benches/data/{pool}.yaml", env!("CARGO_MANIFEST_DIR")),
    };
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    Table::read(&text).map_err(|why| format!("{file}: {why}"))
}

// === what policies are worth ===

/// One trace on one pool, by all policies.
fn compare(
    args: &Args,
    registry: &Registry,
    pool: &str,
    table: &Table,
    trace: &str,
) -> Result<(), String> {
    let seeds: u64 = args.number("--seeds", 5)?;
    let mut rows: Vec<(&str, Vec<Report>)> = Vec::new();
    for policy in args.value("--policy", POLICIES).split(';') {
        let setup = match Setup::of_table(table, registry, policy) {
            Ok(setup) => setup,
            Err(why) => {
                println!("{pool}, {policy}: skipped: {why}");
                continue;
            }
        };
        rows.push((
            policy,
            in_parallel(seeds, &|seed| one(args, &setup, trace, seed))?,
        ));
    }
    let mut out = String::new();
    let _ = writeln!(out, "\n{pool}, {trace}, median of {seeds} seeds");
    let _ = writeln!(
        out,
        "{:30} {:>32} {:>41}   to {PLAIN}",
        "", "seconds of wait: mean p50 p95 p99", "until the end: mean p50 p95 p99 max"
    );
    let plain = rows
        .iter()
        .find(|(policy, _)| *policy == PLAIN)
        .map(|(_, reports)| reports);
    for (policy, reports) in &rows {
        let to = |of: &dyn Fn(&Report) -> f64| match plain {
            Some(plain) => format!("{:5.2}", median(plain, of) / median(reports, of)),
            None => "-".into(),
        };
        let _ = write!(
            out,
            "{policy:30}{} | mean x{} p95 x{} | loads/job {:.3}  USD/job {:.4}",
            times(reports, &|r| (r.wait, r.latency)),
            to(&|r| r.latency.mean),
            to(&|r| r.latency.p95),
            median(reports, &|r| r.loads_per_job),
            median(reports, &|r| r.usd_per_job),
        );
        let of_bound: [fn(&Report) -> Option<f64>; 2] =
            [|r| r.throughput_of_bound, |r| r.makespan_of_bound];
        for (of, what) in of_bound.into_iter().zip(["throughput/LP", "makespan/LP"]) {
            if reports.iter().all(|report| of(report).is_some()) {
                let share = median(reports, &|r| of(r).unwrap_or_default());
                let _ = write!(out, "  {what} {share:.3}");
            }
        }
        let all = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
        let _ = writeln!(
            out,
            "  lost {} doubled {}",
            all(|r| r.lost),
            all(|r| r.doubled)
        );
        let groups = |report: &Report| -> Vec<GroupReport> {
            let classes = report.classes.iter().filter(|_| args.has("--classes"));
            report.tenants.iter().chain(classes).cloned().collect()
        };
        for GroupReport { name, .. } in reports.first().map(groups).unwrap_or_default() {
            let of_group = |report: &Report| {
                let found = groups(report).into_iter().find(|group| group.name == name);
                found.map_or_else(Default::default, |group| (group.wait, group.latency))
            };
            let _ = writeln!(out, "  {name:28}{}", times(reports, &of_group));
        }
    }
    print!("{out}");
    Ok(())
}

/// Waits and times until the end, each as the median of all seeds.
fn times(reports: &[Report], of: &dyn Fn(&Report) -> (Stats, Stats)) -> String {
    let parts: [fn(&Stats) -> f64; 5] = [|s| s.mean, |s| s.p50, |s| s.p95, |s| s.p99, |s| s.max];
    let mut out = String::new();
    for part in &parts[..4] {
        let _ = write!(out, " {:7.1}", median(reports, &|r| part(&of(r).0)));
    }
    out.push_str(" |");
    for part in parts {
        let _ = write!(out, " {:7.1}", median(reports, &|r| part(&of(r).1)));
    }
    out
}

/// One run.
fn one(args: &Args, setup: &Setup, trace: &str, seed: u64) -> Result<Report, String> {
    let jobs = args.number("--jobs", 20_000)?;
    let (what, number) = trace.split_once(':').unwrap_or((trace, "0"));
    let load: f64 = number
        .parse()
        .map_err(|_| format!("{trace}: not a number"))?;
    let options = Options {
        seed,
        told_sizes: args.has("--told"),
        stopwatch: false,
    };
    let draw = |shape, jobs, setup: &Setup| Trace::draw(shape, setup, jobs, seed);
    let (trace, setup, changes, skip) = match what {
        "poisson" => (
            draw(Shape::Poisson(load), jobs, setup)?,
            setup.clone(),
            None,
            LEARNING,
        ),
        "bursts" => (
            draw(Shape::Bursts(load), jobs, setup)?,
            setup.clone(),
            None,
            LEARNING,
        ),
        "batch" => (
            draw(Shape::Batch, load as usize, setup)?,
            setup.clone(),
            None,
            0,
        ),
        "flood" => (draw(Shape::Flood, jobs, setup)?, setup.clone(), None, 0),
        // The first node of the table, and one more like it.
        "lost" | "added" => {
            let trace = draw(Shape::Poisson(load), jobs, setup)?;
            let first = setup.plan.nodes[0].facts.name.to_string();
            let mut setup = setup.clone();
            let (node, what) = match what {
                "lost" => (first, What::Lost),
                _ => {
                    setup.add("added", &first)?;
                    ("added".into(), What::Added)
                }
            };
            let at_s = trace.last_s() / 2.0;
            (trace, setup, Some(Change { at_s, node, what }), LEARNING)
        }
        _ => return Err(format!("{trace}: one of {TRACES}")),
    };
    let changes: Vec<Change> = changes.into_iter().collect();
    let outcome = Farm::run(&setup, &trace, &changes, options)?;
    Ok(Report::of(
        &setup,
        &trace,
        &outcome,
        skip.min(trace.arrivals.len()),
    ))
}

/// Every seed, on as many threads as there are processors; in the order of seeds.
fn in_parallel(
    seeds: u64,
    run: &(dyn Fn(u64) -> Result<Report, String> + Sync),
) -> Result<Vec<Report>, String> {
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let some = || {
        let taken = std::iter::from_fn(|| {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            (seed <= seeds).then(|| Ok((seed, run(seed)?)))
        });
        taken.collect::<Result<Vec<_>, String>>()
    };
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        for thread in running {
            done.extend(thread.join().map_err(|_| "a run panicked")??);
        }
        Ok::<(), String>(())
    })?;
    done.sort_by_key(|(seed, _)| *seed);
    Ok(done.into_iter().map(|(_, report)| report).collect())
}

fn median(reports: &[Report], of: &dyn Fn(&Report) -> f64) -> f64 {
    let mut all: Vec<f64> = reports.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

// === how long a decision takes ===

/// Time inside the rooms for each arrival and each end, with 32 classes.
fn decisions(args: &Args, registry: &Registry) -> Result<(), String> {
    println!(
        "\nmicroseconds per decision (an arrival, or an end and what follows of it), 32 classes"
    );
    println!(
        "{:30} {:>7} {:>9} {:>12} {:>8} {:>8} {:>8} {:>10}",
        "", "nodes", "jobs", "trace", "mean", "p50", "p99", "max"
    );
    let part: f64 = args.number("--part", 1.0)?;
    for (nodes, jobs) in [(16, 1_000_000.0), (1000, 20_000.0), (10_000, 2000.0)] {
        let jobs = (jobs * part) as usize;
        for policy in args.value("--policy", POLICIES).split(';') {
            let Ok(setup) = Setup::of_table(&many_classes(), registry, policy) else {
                continue;
            };
            let mut setup = setup;
            for node in setup.plan.nodes.len()..nodes {
                let like = setup.plan.nodes[node % 8].facts.name.to_string();
                setup.add(&format!("n{node}"), &like)?;
            }
            let shapes = [
                ("0.7", Shape::Poisson(0.7), jobs),
                ("0.95", Shape::Poisson(0.95), jobs),
                ("at once", Shape::Batch, jobs / 10),
            ];
            for (name, shape, jobs) in shapes {
                let trace = Trace::draw(shape, &setup, jobs, 1)?;
                let options = Options {
                    seed: 1,
                    told_sizes: false,
                    stopwatch: true,
                };
                let mut took = Farm::run(&setup, &trace, &[], options)?.decided_ns;
                took.sort_unstable();
                let at =
                    |share: f64| f64::from(took[((took.len() - 1) as f64 * share) as usize]) / 1e3;
                let mean =
                    took.iter().map(|ns| f64::from(*ns)).sum::<f64>() / took.len() as f64 / 1e3;
                println!(
                    "{policy:30} {nodes:7} {jobs:9} {name:>12} {mean:8.1} {:8.1} {:8.1} {:10.1}",
                    at(0.5),
                    at(0.99),
                    at(1.0)
                );
            }
        }
    }
    Ok(())
}

/// Eight kinds of cards and 32 classes, each with times of its own.
fn many_classes() -> Table {
    let mut text = "gpus:\n".to_owned();
    for gpu in 0..8 {
        let _ = writeln!(text, "  g{gpu}: {{vram_gib: {}}}", 16 + 8 * gpu);
    }
    let _ = writeln!(text, "nodes: [g0, g1, g2, g3, g4, g5, g6, g7]\nclasses:");
    for class in 0..32 {
        let of_card = |seconds: &dyn Fn(usize) -> usize| {
            let cards = (0..8).map(|gpu| format!("g{gpu}: {}", seconds(gpu)));
            cards.collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(
            text,
            "  c{class}: {{share: 1, vram_gib: {}, cv: 0.5, run: {{{}}}, load: {{{}}}}}",
            4 + class % 12,
            of_card(&|gpu| 3 + class + (class * 7 + gpu * 13) % 40),
            of_card(&|gpu| 3 + (class + gpu) % 10),
        );
    }
    Table::read(&text).expect("written here")
}
