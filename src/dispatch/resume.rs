//! A gateway that comes back takes up what it left: jobs that wait get their tickets again, attempts that a backend keeps
//! by a handle get their slots back before anything is granted, and the others are asked for or begin again.

use super::attempt::{self, Work};
use super::lease::Lease;
use super::runner::{Active, Runner};
use super::{Dispatch, Shared, now};
use crate::config::plan::OnUnknown;
use crate::fleet::End;
use crate::jobs::Came;
use crate::schedule::{self, TicketId};
use crate::store::{AttemptRecord, Changed, Ended, JobRecord, Next, StoreError};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tabane_api::{Found, JobState, RunError};
use tokio::time::sleep;

/// How many jobs are read at once.
const PAGE: usize = 1_000;

/// How long a backend is asked whether it has some work, while it cannot be reached.
const ASK_FOR: u32 = 60;

// === impl Dispatch ===

impl Dispatch {
    /// Takes up all jobs that are not over. To be called once, after a plan was installed and before anything is granted.
    ///
    /// Errors: the store cannot be read.
    pub async fn resume_jobs(&self) -> Result<usize, StoreError> {
        let Some(runner) = self.0.runner.get() else {
            return Ok(0);
        };
        let times = runner.jobs.store().learned().await?;
        let unread = self.0.core.lock().rooms.times.import(times);
        if unread > 0 {
            tracing::warn!(
                unread,
                "some learned times cannot be read; they are learned anew"
            );
        }
        self.read_shortages().await;
        let (mut after, mut count) = (0, 0);
        loop {
            let page = runner.jobs.store().unfinished(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(count);
            };
            after = last.seq;
            count += page.len();
            for job in page {
                runner.jobs.count_in(&job);
                match job.state {
                    JobState::Queued => self.0.enqueue(&job),
                    _ => self.take_up(job).await?,
                }
            }
        }
    }

    /// Takes up a job that was at work when the gateway went down.
    async fn take_up(&self, job: JobRecord) -> Result<(), StoreError> {
        let Some(runner) = self.0.runner.get() else {
            return Ok(());
        };
        let attempts = runner.jobs.store().attempts(&job.id).await?;
        let Some(attempt) = attempts.into_iter().next_back() else {
            self.begin_again(job, None, "lost", "its attempt is not on record");
            return Ok(());
        };
        let on = Some(attempt.endpoint.clone());
        // The slot is the GPU's: whatever the node still does of it, nothing else is given to it first.
        let Some(lease) = self.0.occupied(runner, &job, &attempt) else {
            let endpoint = &attempt.endpoint;
            let why = format!("its service or its endpoint `{endpoint}` has left the file");
            match attempt.submitting || attempt.handle.is_some() {
                true => self.nobody_knows(job, on, why),
                false => self.begin_again(job, on, "lost", &why),
            }
            return Ok(());
        };
        if attempt.handle.is_none() && !attempt.submitting {
            // The request ended with the gateway's connection; the node may not have noticed yet.
            lease.end(End::Aborted { began: true });
            self.begin_again(job, on, "gateway_restarted", "the gateway went down");
            return Ok(());
        }
        tracing::info!(job = %job.id, endpoint = %attempt.endpoint, "a job that was at work is taken up again");
        let work = Work {
            shared: self.0.clone(),
            active: Active::new(runner),
            job,
            handle: attempt.handle,
        };
        match &work.handle {
            Some(_) => tokio::spawn(work.run(lease)),
            None => tokio::spawn(work.find(lease)),
        };
        Ok(())
    }

    /// The attempt came to nothing, and that is nobody's fault.
    fn begin_again(
        &self,
        job: JobRecord,
        endpoint: Option<Arc<str>>,
        outcome: &'static str,
        why: &str,
    ) {
        let next = Next::Again {
            not_before: None,
            counts: false,
        };
        self.settle(job, endpoint, outcome, why.to_owned(), next);
    }

    /// A backend may be at work on it, and cannot be asked any more.
    fn nobody_knows(&self, job: JobRecord, endpoint: Option<Arc<str>>, why: String) {
        let world = self.world();
        let service = world.and_then(|world| world.service(&job.service).cloned());
        let on_unknown = service.map_or(OnUnknown::Fail, |s| s.plan.jobs.on_unknown);
        let next = match on_unknown {
            OnUnknown::Fail => Next::Over(JobState::Dead, None),
            OnUnknown::Resubmit => Next::Again {
                not_before: None,
                counts: true,
            },
        };
        self.settle(job, endpoint, "unknown", why, next);
    }

    /// Writes an attempt's end, in the background: a store that is full must not keep the gateway from starting.
    fn settle(
        &self,
        job: JobRecord,
        endpoint: Option<Arc<str>>,
        outcome: &'static str,
        why: String,
        next: Next,
    ) {
        let Some(runner) = self.0.runner.get() else {
            return;
        };
        let (dispatch, active) = (self.clone(), Active::new(runner));
        let ended = Ended {
            outcome,
            error: Some(why),
            next,
        };
        tokio::spawn(async move {
            let written = attempt::write(active.runner(), &job, endpoint.as_deref(), ended).await;
            if let Some(job) = written.filter(|job| job.state == JobState::Queued) {
                dispatch.enqueue(&job);
            }
        });
    }
}

// === impl Shared ===

impl Shared {
    /// The lease of an attempt from before; `None` when its endpoint or service is not in the file any more.
    fn occupied(
        self: &Arc<Self>,
        runner: &Runner,
        job: &JobRecord,
        attempt: &AttemptRecord,
    ) -> Option<Lease> {
        let world = Option::clone(&self.world.load())?;
        let service = world.service(&job.service)?.clone();
        let ticket = TicketId(self.tickets.fetch_add(1, Ordering::Relaxed));
        let upstream = {
            let mut core = self.core.lock();
            let endpoint = core.rooms.fleet.by_name(&attempt.endpoint)?;
            let upstream = core.upstreams.get(&endpoint)?.clone();
            core.rooms
                .fleet
                .occupy(endpoint, job.need.slots, now())
                .then_some(())?;
            let rooms = &mut core.rooms;
            let now = now();
            let age = runner.jobs.now().0.saturating_sub(attempt.started.0);
            let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
            // It has been at work since before: it takes that long, and is over that much sooner.
            let since = now.checked_sub(age).unwrap_or(now);
            if let Some(endpoint) = rooms.fleet.get(endpoint) {
                rooms
                    .times
                    .began(ticket, &job.service, &job.need, endpoint, 0.0, since);
            }
            upstream
        };
        let resumed = schedule::Event::Resumed {
            ticket,
            pool: service.pool,
            tenant: job.need.tenant.clone(),
            weight: world.share(&job.need.tenant).weight,
            slots: job.need.slots,
        };
        self.turn(|core, now, out| core.schedule(resumed, now, out));
        Some(Lease::new(
            self.clone(),
            ticket,
            upstream,
            service,
            job.need.clone(),
        ))
    }
}

// === impl Work ===

impl Work {
    /// The gateway went down while it handed the work over: asks the backend whether it has it.
    async fn find(mut self, lease: Lease) {
        let service = self.service(&lease);
        let client = self.shared.means.clients.client(lease.upstream());
        let runner = self.active.runner().clone();
        let found = match self.attempt(&runner.jobs, &service).await {
            Err(error) => Err(error.to_string()),
            Ok(attempt) => {
                let mut asked = 0;
                loop {
                    let find = AssertUnwindSafe(service.kind.find(&attempt, &*client));
                    match find.catch_unwind().await {
                        Ok(Ok(found)) => break Ok(found),
                        Ok(Err(error)) if asked >= ASK_FOR => break Err(error.to_string()),
                        Ok(Err(_)) => {}
                        Err(_) => break Err("the kind failed on it".into()),
                    }
                    asked += 1;
                    sleep(Duration::from_secs(1)).await;
                }
            }
        };
        let came = match found {
            Ok(Found::Handle(handle)) => {
                let (store, now) = (runner.jobs.store(), runner.jobs.now());
                let kept = store
                    .handle(&self.job.id, self.job.attempt, &handle, now)
                    .await;
                match runner.jobs.told(kept) {
                    Ok(Changed::Now(job)) => {
                        self.job = *job;
                        self.handle = Some(handle);
                        return self.run(lease).await;
                    }
                    Ok(Changed::Stale) => return lease.end(End::Aborted { began: true }),
                    Err(error) => Came::Error(RunError::Unknown(error.to_string())),
                }
            }
            Ok(Found::Nothing) => {
                let why = "the gateway went down before the node took it";
                Came::Error(RunError::Lost(why.into()))
            }
            Ok(Found::CannotTell) => {
                let why = "the gateway went down while it was handed over";
                Came::Error(RunError::Unknown(why.into()))
            }
            Err(why) => Came::Error(RunError::Unknown(why)),
        };
        self.close(lease, &service, came, false).await;
    }
}
