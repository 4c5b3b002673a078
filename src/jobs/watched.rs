//! What operators see of jobs: counted, and told as it happens.

use crate::store::{ArrayRecord, JobId, JobRecord, Moment};
use crate::telemetry::{Event, Events, Metrics};
use std::sync::Arc;
use std::time::Duration;

/// Counts and tells what happens to jobs.
pub(super) struct Watched {
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Events,
}

// === impl Watched ===

impl Watched {
    /// A job was taken in.
    pub(super) fn accepted(&self, job: &JobRecord) {
        self.taken_in(&job.id, &job.service, &job.tenant, 1);
    }

    /// An array was taken in: one event, however many jobs.
    pub(super) fn accepted_array(&self, array: &ArrayRecord, jobs: usize) {
        self.taken_in(&array.id, &array.service, &array.tenant, jobs);
    }

    fn taken_in(&self, id: &JobId, service: &str, tenant: &str, jobs: usize) {
        self.metrics.jobs().accepted(service, jobs);
        self.events.send(Event::JobAccepted {
            job: id.to_string(),
            service: service.to_owned(),
            tenant: tenant.to_owned(),
            jobs,
        });
    }

    /// An attempt began.
    pub(super) fn started(&self, job: &JobRecord, endpoint: &str) {
        if job.attempt == 1
            && let Some(started) = job.started
        {
            let waited = span(job.accepted, started);
            self.metrics.jobs().waited(&job.service, waited);
        }
        self.events.send(Event::JobStarted {
            job: job.id.to_string(),
            service: job.service.to_string(),
            endpoint: endpoint.to_owned(),
            attempt: job.attempt,
        });
    }

    /// An attempt ended; this is the job after it.
    pub(super) fn ended(&self, job: &JobRecord, outcome: &str) {
        let metrics = self.metrics.jobs();
        metrics.attempt(&job.service, outcome);
        if matches!(outcome, "succeeded" | "failed")
            && let (Some(started), Some(ended)) = (job.started, job.ended)
        {
            metrics.ran(&job.service, span(started, ended));
        }
    }

    /// A job is over, with an attempt that was at work on this endpoint, or with none.
    pub(super) fn over(&self, job: &JobRecord, endpoint: Option<&str>) {
        self.metrics.jobs().finished(&job.service, job.state);
        self.events.send(Event::JobFinished {
            job: job.id.to_string(),
            service: job.service.to_string(),
            state: job.state.word(),
            endpoint: endpoint.map(str::to_owned),
        });
    }
}

/// From then to then; nothing where the clock was set back in between.
fn span(from: Moment, to: Moment) -> Duration {
    let ms = to.0.saturating_sub(from.0);
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}
