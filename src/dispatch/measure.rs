//! How the store of jobs fares, for `/metrics`.

use super::Dispatch;
use crate::store::{Moment, StoreError};
use crate::telemetry::{Filled, JobCounts, JobsGauge};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(10);

/// A census reads all jobs. Of a large store it is taken less often, so that it costs at most one part in so many of the
/// time.
const SHARE: u32 = 20;

// === impl Dispatch ===

impl Dispatch {
    /// Asks the store how it fares, again and again. Runs for ever.
    pub async fn watch_jobs(&self) {
        loop {
            let began = Instant::now();
            self.measure_jobs().await;
            sleep(EVERY.max(began.elapsed() * SHARE)).await;
        }
    }

    /// Asks the store how it fares, once.
    pub async fn measure_jobs(&self) {
        match self.measured().await {
            Ok(Some(gauge)) => self.metrics().jobs().measured(gauge),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "jobs cannot be counted"),
        }
    }

    async fn measured(&self) -> Result<Option<JobsGauge>, StoreError> {
        let (Some(jobs), Some(world)) = (self.jobs(), self.world()) else {
            return Ok(None);
        };
        let counts = JobCounts::of(jobs.store().census().await?);
        let store = jobs.store().gauge().await?;
        let now = jobs.now();
        let age = |written: Moment| now.0.saturating_sub(written.0);
        let oldest = store.oldest_letter.map(age).unwrap_or_default();
        let limits = world.plan.limits;
        Ok(Some(JobsGauge {
            jobs: counts,
            letters: store.letters,
            oldest_letter: Duration::from_millis(u64::try_from(oldest).unwrap_or_default()),
            job_bytes: Filled {
                used: jobs.blobs().used(),
                most: limits.job_bytes,
            },
            database_bytes: Filled {
                used: store.database_bytes,
                most: limits.database_bytes,
            },
        }))
    }
}
