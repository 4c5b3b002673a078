use std::time::{Duration, Instant};

/// The advice when nothing was served yet: nobody knows, so not soon and not late.
pub(super) const UNKNOWN: Duration = Duration::from_secs(5);
/// No advice is sooner: whoever was refused should not come back at once.
pub(super) const SOONEST: Duration = Duration::from_secs(1);

/// How much of the past counts: a pool's pace changes with its nodes, within minutes.
const MEMORY: f64 = 16.0;

/// How fast a service is served: an exponentially weighted mean of the time between two grants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    last: Option<Instant>,
    /// Seconds between two grants.
    between: Option<f64>,
}

// === impl Rate ===

impl Rate {
    /// A ticket was served.
    pub(super) fn count(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let gap = now.saturating_duration_since(last).as_secs_f64();
            self.between = Some(
                self.between
                    .map_or(gap, |mean| mean + (gap - mean) / MEMORY),
            );
        }
        self.last = Some(now);
    }

    /// How long until so many are served.
    pub(super) fn time_for(&self, tickets: usize, now: Instant) -> Duration {
        let (Some(between), Some(last)) = (self.between, self.last) else {
            return UNKNOWN;
        };
        // A pool that has stood still for long is slower than its mean says.
        let still = now.saturating_duration_since(last).as_secs_f64();
        Duration::try_from_secs_f64(between.max(still) * tickets as f64).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_tickets_before() {
        let mut now = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.time_for(3, now), UNKNOWN);
        for _ in 0..50 {
            rate.count(now);
            now += Duration::from_secs(2);
        }
        let time = rate.time_for(10, now).as_secs_f64();
        assert!((19.9..20.1).contains(&time), "{time}");
        assert!(rate.time_for(1, now + Duration::from_secs(60)) >= Duration::from_secs(60));
    }
}
