//! What happens to jobs by time alone: they come due again, expire, and are forgotten.

use super::{Dispatch, Shared};
use crate::store::{Moment, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::JobState;
use tokio::time::{Instant, sleep};

/// How often the store is asked who expired.
const TICK: Duration = Duration::from_secs(1);

/// How often what was kept long enough is deleted.
const SWEEP: Duration = Duration::from_secs(30);

/// How often what was learned of times is written.
const LEARN: Duration = Duration::from_secs(60);

/// How many jobs one step touches, so that nothing else waits for it.
const STEP: usize = 500;

// === impl Dispatch ===

impl Dispatch {
    /// Lets time pass for jobs. Runs for ever.
    pub async fn keep_jobs(&self) {
        let Some(runner) = self.0.runner.get() else {
            return;
        };
        let (mut swept, mut learned) = (Instant::now(), Instant::now());
        loop {
            let now = runner.jobs.now();
            if let Err(error) = self.0.pass(now).await {
                tracing::error!(%error, "jobs cannot be looked after");
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.sweep_jobs(now).await;
            }
            if learned.elapsed() >= LEARN {
                learned = Instant::now();
                self.write_times().await;
            }
            let due = runner.next_due().map_or(TICK, |due| {
                let ms = due.0.saturating_sub(runner.jobs.now().0);
                Duration::from_millis(u64::try_from(ms).unwrap_or_default()).min(TICK)
            });
            tokio::select! {
                () = sleep(due) => {}
                () = runner.wake.notified() => {}
            }
        }
    }

    /// Writes what was learned of times, and of GPU memory, since the last call.
    pub async fn write_times(&self) {
        let Some(jobs) = self.jobs() else { return };
        let changed = self.0.core.lock().rooms.times.changed();
        if !changed.is_empty()
            && let Err(error) = jobs.store().learn(changed).await
        {
            tracing::warn!(%error, "what was learned of times cannot be kept");
        }
        self.write_shortages().await;
        self.write_usage().await;
    }

    /// Deletes what was kept long enough.
    pub async fn sweep_jobs(&self, now: Moment) {
        let Some(jobs) = self.jobs() else { return };
        loop {
            match jobs.store().sweep(now, STEP).await {
                Ok(swept) if swept >= STEP => tokio::task::yield_now().await,
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "jobs that were kept long enough cannot be deleted");
                    return;
                }
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Once: whoever is due waits for a node again, whoever should have started expires.
    async fn pass(self: &Arc<Self>, now: Moment) -> Result<(), StoreError> {
        let Some(runner) = self.runner.get() else {
            return Ok(());
        };
        loop {
            let due = runner.due(now, STEP);
            let all = due.len() < STEP;
            for (i, id) in due.iter().enumerate() {
                match runner.jobs.store().find(None, id).await {
                    Ok(Some(job)) if job.state == JobState::Queued => self.enqueue(&job),
                    Ok(_) => {}
                    Err(error) => {
                        for id in &due[i..] {
                            runner.delay(id.clone(), now.after(TICK));
                        }
                        return Err(error);
                    }
                }
            }
            if all {
                break;
            }
        }
        loop {
            let expired = runner.jobs.store().expire(now, STEP).await?;
            for job in &expired {
                self.withdraw(&job.id);
                runner.jobs.tell(job);
            }
            if expired.len() < STEP {
                return Ok(());
            }
        }
    }
}
