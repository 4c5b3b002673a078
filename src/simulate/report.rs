use super::farm::{Outcome, Run};
use super::setup::Setup;
use super::trace::Trace;
use serde::Serialize;

/// How times are spread, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half are shorter.
    pub p50: f64,
    /// 95 of 100 are shorter.
    pub p95: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What came of a simulation, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Until work begins.
    pub wait: Stats,
    /// Until it ends.
    pub latency: Stats,
    /// When the last work ended, seconds.
    pub makespan_s: f64,
    /// How often a model was loaded, for each job.
    pub loads_per_job: f64,
    /// What a job cost.
    pub usd_per_job: f64,
    /// Jobs that never ended: none.
    pub lost: usize,
    /// Jobs that ended more than once: none.
    pub doubled: usize,
}

// === impl Stats ===

impl Stats {
    /// Of these times.
    pub fn of(mut times: Vec<f64>) -> Stats {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.max(1) - 1).copied().unwrap_or_default()
        };
        Stats {
            count: times.len(),
            mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

// === impl Report ===

impl Report {
    /// Counts all but the first `skip`.
    pub fn of(_setup: &Setup, trace: &Trace, outcome: &Outcome, skip: usize) -> Report {
        let all = || trace.arrivals.iter().zip(&outcome.runs).skip(skip);
        let ended = |run: &Run| run.end_s;
        let wait = all().filter_map(|(arrival, run)| {
            ended(run)?;
            Some(run.begin_s - arrival.at_s)
        });
        let latency = all().filter_map(|(arrival, run)| Some(ended(run)? - arrival.at_s));
        let jobs = all().count().max(1) as f64;
        Report {
            wait: Stats::of(wait.collect()),
            latency: Stats::of(latency.collect()),
            makespan_s: outcome.end_s,
            loads_per_job: all().map(|(_, run)| f64::from(run.loads)).sum::<f64>() / jobs,
            usd_per_job: all().map(|(_, run)| run.usd).sum::<f64>() / jobs,
            lost: all()
                .filter(|(_, run)| run.ended == 0 && run.refused.is_none())
                .count(),
            doubled: all().filter(|(_, run)| run.ended > 1).count(),
        }
    }
}
