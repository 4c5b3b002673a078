//! How slowly a client may send a body, or take an answer.

use bytes::Bytes;
use pingora::{Error, ErrorType, Result};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Patience with a client that sends a body, or is sent one.
///
/// It starts with `most`; waiting uses it up, and every byte that comes earns some back, at `rate` bytes a
/// second. So a client may stop for a while, and none can hold a request for ever by sending a byte now and
/// then. Only the time is counted in which the gateway waited for the client: a slow node is not its fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    left: Duration,
    most: Duration,
    /// Bytes per second; 0: any byte earns all of it back.
    rate: u64,
}

/// Charges the time of one wait, also of one that was given up.
struct Wait<'a> {
    pace: &'a mut Pace,
    since: Instant,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(most: Duration, rate: u64) -> Self {
        Pace {
            left: most,
            most,
            rate,
        }
    }

    /// Waits for a piece of a body. Dropping the future is as good as having waited that long.
    ///
    /// Errors: what `read` has, and `ReadTimedout` when the patience is used up.
    pub(super) async fn keep(
        &mut self,
        read: impl Future<Output = Result<Option<Bytes>>>,
    ) -> Result<Option<Bytes>> {
        let patience = self.left;
        let wait = Wait {
            since: Instant::now(),
            pace: &mut *self,
        };
        let read = timeout(patience, read).await;
        drop(wait);
        let Ok(read) = read else {
            let why = "the client sends its body too slowly";
            return Err(Error::explain(ErrorType::ReadTimedout, why).into_down());
        };
        if let Ok(Some(bytes)) = &read {
            self.earn(bytes.len() as u64);
        }
        read
    }

    /// How long it may still be waited for.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// It was waited for.
    pub(super) fn spend(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// So many bytes went their way.
    pub(super) fn earn(&mut self, bytes: u64) {
        let earned = match self.rate {
            0 => self.most,
            rate => Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / rate)),
        };
        self.left = self.left.saturating_add(earned).min(self.most);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.pace.spend(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::sleep;

    const MOST: Duration = Duration::from_secs(10);

    /// How long a client lasts that sends `bytes` every `every`, up to an hour.
    async fn lasts(rate: u64, bytes: usize, every: Duration) -> Duration {
        let mut pace = Pace::new(MOST, rate);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3600) {
            let read = async {
                sleep(every).await;
                Ok(Some(Bytes::from(vec![0; bytes])))
            };
            if pace.keep(read).await.is_err() {
                break;
            }
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_drips_is_cut_and_one_that_pauses_is_not() {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        assert!(lasts(1000, 1, second).await < Duration::from_secs(12));
        assert!(lasts(1000, 1000, second).await >= hour, "just fast enough");
        assert!(lasts(1000, 9500, 9 * second).await >= hour, "it pauses");
        assert_eq!(
            lasts(1000, 1 << 20, 11 * second).await,
            MOST,
            "a pause too long"
        );
        assert!(lasts(0, 1, 9 * second).await >= hour, "any rate is fine");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_that_are_given_up_count_too_and_a_slow_node_does_not() {
        let mut pace = Pace::new(MOST, 1000);
        for _ in 0..9 {
            let wait = timeout(Duration::from_secs(1), pace.keep(pending())).await;
            assert!(wait.is_err(), "given up from outside");
            sleep(Duration::from_secs(100)).await;
        }
        let began = Instant::now();
        let error = pace.keep(pending()).await.expect_err("nothing is left");
        assert_eq!(*error.etype(), ErrorType::ReadTimedout);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
