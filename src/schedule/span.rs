use std::ops::Add;

/// A time that is not known exactly: its mean and its variance.
///
/// Units: seconds, seconds squared. Neither is ever negative or not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    mean_s: f64,
    variance_s2: f64,
}

/// No time is longer: about a century, far past any work, and small enough for sums of millions to stay finite.
const LONGEST_S: f64 = 3e9;

// === impl Span ===

impl Span {
    /// A time of so many seconds on average, give or take `sd_s`; what is odd (negative, not a number) counts as 0.
    pub fn new(mean_s: f64, sd_s: f64) -> Self {
        let sd_s = sane(sd_s);
        Span {
            mean_s: sane(mean_s),
            variance_s2: sd_s * sd_s,
        }
    }

    /// Its mean.
    pub fn mean_s(&self) -> f64 {
        self.mean_s
    }

    /// So much of it, 0.0 to 1.0, as if it were made of many parts.
    pub fn part(self, share: f64) -> Span {
        let share = share.clamp(0.0, 1.0);
        Span {
            mean_s: self.mean_s * share,
            variance_s2: self.variance_s2 * share,
        }
    }

    /// Its standard deviation.
    pub fn sd_s(&self) -> f64 {
        self.variance_s2.sqrt()
    }
}

impl Add for Span {
    type Output = Span;

    /// One after the other; times of different work are taken to be independent, so variances add up.
    fn add(self, other: Span) -> Span {
        Span {
            mean_s: self.mean_s + other.mean_s,
            variance_s2: self.variance_s2 + other.variance_s2,
        }
    }
}

impl std::iter::Sum for Span {
    fn sum<I: Iterator<Item = Span>>(spans: I) -> Span {
        spans.fold(Span::default(), Add::add)
    }
}

fn sane(seconds: f64) -> f64 {
    if seconds.is_nan() {
        0.0
    } else {
        seconds.clamp(0.0, LONGEST_S)
    }
}
