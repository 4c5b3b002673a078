//! Waiting for something to happen to a job.

use super::{Wire, unavailable};
use crate::jobs::{Jobs, Note};
use crate::store::JobRecord;
use std::time::Duration;
use tabane_api::Refusal;
use tokio::time::{Instant, timeout_at};

/// How often it is looked whether waiting still makes sense.
const LOOK: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its end.
    Over,
    /// Another state.
    Change,
}

impl Wire {
    /// Waits, at most so long; the job as it is then.
    pub(super) async fn until(
        &self,
        jobs: &Jobs,
        job: JobRecord,
        most: Duration,
        what: Wait,
    ) -> Result<JobRecord, Refusal> {
        let before = job.state;
        let deadline = Instant::now() + most;
        // Listen first, look then: what happens in between is not missed.
        let mut following = jobs.follow(&job.id);
        let mut job = reread(jobs, job).await?;
        loop {
            let done = job.state.is_over() || (what == Wait::Change && job.state != before);
            if done || self.dispatch.is_closing() {
                return Ok(job);
            }
            // A gateway that goes down is noticed within a second.
            let look = deadline.min(Instant::now() + LOOK);
            match timeout_at(look, following.next()).await {
                Err(_) if look < deadline => {}
                Err(_) => return reread(jobs, job).await,
                Ok(Some(Note::Changed(changed))) => job = (*changed).clone(),
                Ok(Some(_)) => {}
                Ok(None) => job = reread(jobs, job).await?,
            }
        }
    }
}

/// The job as it is now; as it was when it was deleted meanwhile.
async fn reread(jobs: &Jobs, job: JobRecord) -> Result<JobRecord, Refusal> {
    let now = jobs
        .store()
        .find(None, &job.id)
        .await
        .map_err(unavailable)?;
    Ok(now.unwrap_or(job))
}
