//! Latencies, as Prometheus counts them.

use super::batch::Wrote;
use std::collections::HashMap;
use std::time::Duration;

/// The bounds of vLLM's own, seconds.
const FIRST: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const BETWEEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const WHOLE: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

#[derive(Clone)]
pub(crate) struct Histogram {
    pub(crate) bounds: &'static [f64],
    /// How many were at most that long, for each bound.
    pub(crate) at_most: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

/// How long requests waited for what.
#[derive(Clone)]
pub(crate) struct Latencies {
    pub(crate) first: Histogram,
    pub(crate) between: Histogram,
    pub(crate) whole: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    /// When the last token of each that is at work was written.
    last: HashMap<u64, Duration>,
}

// === impl Histogram ===

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Histogram {
            bounds,
            at_most: vec![0; bounds.len()],
            count: 0,
            sum: 0.0,
        }
    }

    fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bound, count) in self.bounds.iter().zip(&mut self.at_most) {
            *count += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

// === impl Latencies ===

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            first: Histogram::new(FIRST),
            between: Histogram::new(BETWEEN),
            whole: Histogram::new(WHOLE),
            queue: Histogram::new(WHOLE),
            prefill: Histogram::new(WHOLE),
            decode: Histogram::new(WHOLE),
            last: HashMap::new(),
        }
    }
}

impl Latencies {
    pub(crate) fn note(&mut self, wrote: &Wrote) {
        let times = wrote.times;
        match self.last.insert(wrote.id, times.wrote) {
            Some(before) if wrote.at > 0 => self.between.note(times.wrote - before),
            _ => self.first.note(times.read - times.came),
        }
        if wrote.last {
            self.last.remove(&wrote.id);
            self.whole.note(times.wrote - times.came);
            self.queue.note(times.began - times.came);
            self.prefill.note(times.read - times.began);
            self.decode.note(times.wrote - times.read);
        }
    }

    /// A request was taken out.
    pub(crate) fn forget(&mut self, id: u64) {
        self.last.remove(&id);
    }
}
