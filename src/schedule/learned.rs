use super::span::Span;
use serde::{Deserialize, Serialize};

/// The least share of a new run in what is known: the last ten or so count, so that a node that got slower is
/// believed after a few.
const SHARE: f64 = 0.1;
/// How far off one run may be before anything is known of its spread, as a share of its time.
const DOUBT: f64 = 0.5;

/// What was learned of one class on one endpoint, from runs that went well.
///
/// A run is *cold* when the endpoint has to get ready for the class first (load its model). Cold runs are kept as
/// they were, time and size, and not as what they took beyond warm ones: so the first run, always a cold one,
/// says something before any warm run does, and is put right by the warm one that follows.
///
/// Units: seconds; sizes in the unit of the class. Always finite, never negative.
/// Source: exponentially weighted mean and variance, Finch 2009, with the plain mean of the first ten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Learned {
    /// How many warm runs.
    runs: u64,
    /// Seconds per unit of size of a warm run.
    warm_s: f64,
    /// Their variance.
    variance_s2: f64,
    /// How many cold runs.
    colds: u64,
    /// Seconds that a cold run takes as a whole.
    cold_s: f64,
    /// The size of the cold runs that took them.
    cold_size: f64,
}

// === impl Learned ===

impl Learned {
    /// One more run; `size` and `seconds` are finite and above 0.
    pub(super) fn learn(&mut self, size: f64, seconds: f64, cold: bool) {
        if cold {
            self.colds = self.colds.saturating_add(1);
            let share = share(self.colds);
            self.cold_s += share * (seconds - self.cold_s);
            self.cold_size += share * (size - self.cold_size);
        } else {
            self.runs = self.runs.saturating_add(1);
            let share = share(self.runs);
            let off = seconds / size - self.warm_s;
            self.warm_s += share * off;
            self.variance_s2 = (1.0 - share) * (self.variance_s2 + share * off * off);
        }
    }

    /// Whether a run was warm.
    pub(super) fn was_warm(&self) -> bool {
        self.runs > 0
    }

    /// How many runs it knows, warm and cold.
    pub(super) fn runs(&self) -> u64 {
        self.runs.saturating_add(self.colds)
    }

    /// Seconds per unit of size: of warm runs, or of cold ones as long as there was no other.
    pub(super) fn rate_s(&self) -> f64 {
        if self.runs > 0 {
            self.warm_s
        } else {
            self.cold_s / self.cold_size
        }
    }

    /// What a cold run takes beyond a warm one, seconds; 0 where one of the two is unknown.
    pub(super) fn cold_extra_s(&self) -> f64 {
        if self.runs > 0 && self.colds > 0 {
            (self.cold_s - self.warm_s * self.cold_size).max(0.0)
        } else {
            0.0
        }
    }

    /// The share of its runs that were cold, 0.0 to 1.0.
    pub(super) fn cold_share(&self) -> f64 {
        self.colds as f64 / self.runs().max(1) as f64
    }

    /// How long a warm run of this size takes.
    pub(super) fn warm(&self, size: f64) -> Span {
        spread(
            self.rate_s() * size,
            self.variance_s2 * size * size,
            self.runs,
        )
    }

    /// Whether it could have been learned: what is read back may be from anywhere.
    pub(super) fn is_sound(&self) -> bool {
        let numbers = [self.warm_s, self.variance_s2, self.cold_s, self.cold_size];
        let sound = numbers.iter().all(|n| n.is_finite() && *n >= 0.0);
        sound
            && (self.runs == 0 || self.warm_s > 0.0)
            && (self.colds == 0 || (self.cold_s > 0.0 && self.cold_size > 0.0))
            && self.runs() > 0
            && self.rate_s().is_finite()
    }
}

/// A time with the variance that so many runs showed. With few of them it says little, and none at all with one:
/// then it is as if one more had been off by `DOUBT`.
pub(super) fn spread(mean_s: f64, variance_s2: f64, runs: u64) -> Span {
    let (runs, off) = (runs as f64, DOUBT * mean_s);
    let variance_s2 = (runs * variance_s2 + off * off) / (runs + 1.0);
    Span::new(mean_s, variance_s2.sqrt())
}

fn share(runs: u64) -> f64 {
    (1.0 / runs as f64).max(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn the_mean_is_that_of_the_closed_form() {
        // Run i of n has the weight share(i) × Π over j > i of (1 - share(j)); and the variance is what the
        // same weights give.
        let closed = |values: &[f64]| {
            let weight = |i: usize| {
                let later = (i + 2..=values.len()).map(|j| 1.0 - share(j as u64));
                share(i as u64 + 1) * later.product::<f64>()
            };
            let weighed = |of: &dyn Fn(f64) -> f64| -> f64 {
                values
                    .iter()
                    .enumerate()
                    .map(|(i, v)| weight(i) * of(*v))
                    .sum()
            };
            let mean = weighed(&|v| v);
            (mean, weighed(&|v| (v - mean) * (v - mean)))
        };
        let runs = proptest::collection::vec((0.01f64..100.0, 0.1f64..10.0), 1..60);
        cases::tried(200, runs, |runs| {
            let mut learned = Learned::default();
            for (seconds, size) in &runs {
                learned.learn(*size, *seconds, false);
            }
            let values: Vec<f64> = runs.iter().map(|(seconds, size)| seconds / size).collect();
            let (mean, variance) = closed(&values);
            assert!(near(learned.warm_s, mean), "{} {mean}", learned.warm_s);
            assert!(
                (learned.variance_s2 - variance).abs() <= 1e-9 * (1.0 + mean * mean + variance),
                "{} {variance}",
                learned.variance_s2
            );
        });
    }

    #[test]
    fn a_first_cold_run_is_put_right_by_the_warm_one_after_it() {
        let mut learned = Learned::default();
        learned.learn(2.0, 50.0, true);
        assert_eq!(learned.warm(4.0).mean_s(), 100.0, "all that is known");
        assert_eq!(learned.cold_extra_s(), 0.0);
        learned.learn(1.0, 5.0, false);
        assert_eq!(learned.warm(4.0).mean_s(), 20.0);
        assert_eq!(learned.cold_extra_s(), 40.0);
        assert_eq!(learned.cold_share(), 0.5);
        learned.learn(10.0, 60.0, true);
        assert_eq!(learned.cold_extra_s(), 25.0, "the mean of 40 and 10");
    }

    #[test]
    fn what_few_runs_say_is_doubted() {
        let mut learned = Learned::default();
        let mut before = f64::INFINITY;
        for _ in 0..50 {
            learned.learn(1.0, 8.0, false);
            let sd_s = learned.warm(1.0).sd_s();
            assert!(sd_s > 0.0 && sd_s < before, "{sd_s}");
            before = sd_s;
        }
        assert!(before < 0.6, "{before}");
    }
}
