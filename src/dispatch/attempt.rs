//! One attempt at a job: from the lease to the line in the store that says how it ended.
//!
//! Whatever happens, the slot is given back, and the job is over, waits again, or belongs to a later attempt. An
//! attempt whose end cannot be written is not over: the store is asked until it answers, or the gateway goes down.

use super::lease::Lease;
use super::runner::{Active, Phase, Runner};
use super::world::LiveService;
use super::{Shared, World};
use crate::fleet::{End, Failure};
use crate::jobs::{self, After, Blame, Came, Jobs, KeepError, Reporter, Rules};
use crate::store::{Changed, Ended, JobId, JobRecord, Kept, Next, ResultHead, StoreError};
use futures::FutureExt;
use http::Uri;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Attempt, JobState, NodeClient, NodeError, RunError, Stop, Stopped};
use tokio::time::{sleep, timeout};

/// An attempt is called running when its node has been at it for so long without an answer: most requests of a second
/// are over by then, and need not be written twice.
const STARTING: Duration = Duration::from_secs(1);

/// How long a node may take to hear that it should stop.
const CANCEL: Duration = Duration::from_secs(20);

/// How long until a store that did not answer is asked again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// An attempt under way, with all it needs.
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) active: Active,
    pub(super) job: JobRecord,
    /// What its backend calls it, when it is taken up again.
    pub(super) handle: Option<Arc<str>>,
}

/// A job's turn has come.
pub(super) async fn begin(shared: Arc<Shared>, active: Active, lease: Lease, job: JobId) {
    let runner = active.runner().clone();
    match runner.jobs.start(&job, &lease.upstream().name).await {
        Ok(Changed::Now(record)) => {
            let work = Work {
                shared,
                active,
                job: *record,
                handle: None,
            };
            work.run(lease).await;
        }
        // Taken back in this very moment, or too late; if it waits all the same, it is looked at again.
        Ok(Changed::Stale) => {
            lease.end(End::Unused);
            runner.delay(job, runner.jobs.now().after(STORE_AGAIN));
        }
        Err(error) => {
            tracing::error!(%job, %error, "a job cannot start; it is tried again");
            // The slot is kept meanwhile: all that wait would else be granted and given back in no time, again and again.
            sleep(STORE_AGAIN).await;
            lease.end(End::Unused);
            runner.delay(job, runner.jobs.now().after(STORE_AGAIN));
        }
    }
}

// === impl Work ===

impl Work {
    /// Runs the attempt to its end.
    pub(super) async fn run(self, mut lease: Lease) {
        let runner = self.active.runner().clone();
        let service = self.service(&lease);
        let client = self.shared.means.clients.client(lease.upstream());
        let running = Arc::new(runner.jobs.running(&self.job));
        let report = Reporter::new(
            runner.jobs.clone(),
            self.job.id.clone(),
            running.clone(),
            self.handle.clone(),
        );
        let mut attempt = match self.attempt(&runner.jobs, &service).await {
            Ok(attempt) => attempt,
            Err(error) => {
                let why = format!("its request cannot be read back: {error}");
                let came = Came::Error(RunError::Node(NodeError::BadRequest(why)));
                return self.close(lease, &service, came, false).await;
            }
        };
        let came = {
            let mut revocation = lease.revocation();
            let run = run(
                &runner.jobs,
                &service,
                &attempt,
                &*client,
                &report,
                &mut lease,
            );
            let mut run = pin!(run);
            tokio::select! {
                biased;
                () = running.stopped() => Some(Came::Stopped(Stop::Cancel)),
                () = revocation.wait() => Some(Came::Revoked),
                () = detached(&runner, &report) => None,
                () = sleep(self.left(&runner.jobs, &service)) => Some(Came::Stopped(Stop::Timeout)),
                came = &mut run => Some(came),
                () = self.called_running(&runner.jobs) => None,
            }
        };
        report.flush().await;
        if report.is_untypical() {
            lease.is_untypical();
        }
        let Some(came) = came else {
            // The gateway goes down, and the node works on.
            return lease.end(End::Unused);
        };
        // What runs no more can still be stopped by its name.
        attempt.handle = report.handle();
        let idle = match &came {
            Came::Stopped(why) => self.stop(&service, &attempt, &*client, *why).await,
            _ => false,
        };
        drop(running);
        self.close(lease, &service, came, idle).await;
    }

    /// Tells the node to stop. Whether it said that it did.
    async fn stop(
        &self,
        service: &LiveService,
        attempt: &Attempt,
        client: &dyn NodeClient,
        why: Stop,
    ) -> bool {
        let stop = AssertUnwindSafe(service.kind.cancel(attempt, client, why));
        match timeout(CANCEL, stop.catch_unwind()).await {
            Ok(Ok(Ok(stopped))) => stopped == Stopped::Idle,
            Ok(Ok(Err(error))) => {
                tracing::warn!(job = %self.job.id, %error, "cannot stop a job on its node; its slot cools");
                false
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(job = %self.job.id, "a job was not stopped on its node in time; its slot cools");
                false
            }
        }
    }

    /// The service as it is now, or as it was when the job's ticket was made.
    pub(super) fn service(&self, lease: &Lease) -> Arc<LiveService> {
        let world = Option::clone(&self.shared.world.load());
        world
            .and_then(|world| world.service(&self.job.service).cloned())
            .unwrap_or_else(|| lease.service().clone())
    }

    pub(super) async fn attempt(
        &self,
        jobs: &Jobs,
        service: &LiveService,
    ) -> Result<Attempt, StoreError> {
        let stored = jobs.store().request(&self.job.id).await?;
        let stored = stored.ok_or_else(|| StoreError::Unusable("it is not there".into()))?;
        let world: Option<Arc<World>> = Option::clone(&self.shared.world.load());
        let callback = world.and_then(|world| {
            let base = world.plan.nodes_reach_us_at.clone()?;
            // A call that comes after the attempt's time finds nobody.
            let until = jobs.now().after(self.left(jobs, service));
            let path = jobs.callback_path(&self.job.id, self.job.attempt, until);
            format!("{base}{path}").parse::<Uri>().ok()
        });
        let mut need = self.job.need.clone();
        need.key = None;
        tracing::debug!(job = %self.job.id, service = %service.plan.name, "an attempt begins");
        Ok(Attempt {
            job: self.job.id.clone(),
            number: self.job.attempt,
            need,
            tenant: self.job.tenant.clone(),
            method: self.job.method.clone(),
            uri: self.job.uri.clone(),
            headers: stored.headers,
            body: jobs.content(&stored.body).await?,
            handle: self.handle.clone(),
            callback,
        })
    }

    /// How long the attempt may take from now.
    fn left(&self, jobs: &Jobs, service: &LiveService) -> Duration {
        let most = self.job.timeout_ms.map_or(service.plan.jobs.timeout, |ms| {
            Duration::from_millis(ms.unsigned_abs())
        });
        let started = self.job.started.unwrap_or_else(|| jobs.now());
        let spent = jobs.now().0.saturating_sub(started.0);
        most.saturating_sub(Duration::from_millis(
            u64::try_from(spent).unwrap_or_default(),
        ))
    }

    /// Writes, after a while, that the node works. Never resolves.
    async fn called_running(&self, jobs: &Jobs) {
        if self.job.state == JobState::Starting {
            sleep(STARTING).await;
            let store = jobs.store();
            let changed = store
                .running(&self.job.id, self.job.attempt, jobs.now())
                .await;
            // Stale when the kind's handle said so before.
            if let Err(error) = jobs.told(changed) {
                tracing::warn!(job = %self.job.id, %error, "cannot write that a job runs");
            }
        }
        std::future::pending().await
    }

    /// Gives the slot back, writes the end, and sends the job where it goes. `idle`: the node said that it stopped.
    pub(super) async fn close(
        self,
        mut lease: Lease,
        service: &LiveService,
        came: Came,
        idle: bool,
    ) {
        let runner = self.active.runner().clone();
        let rules = Rules {
            jobs: &service.plan.jobs,
            retry: &service.plan.retry,
        };
        let short = matches!(&came, Came::Error(RunError::OutOfMemory(_)));
        let After {
            ended,
            blame,
            leftover,
        } = jobs::after(came, &self.job, rules, runner.jobs.now());
        let endpoint = lease.upstream().name.clone();
        let failed = !matches!(blame, Blame::None | Blame::Unused | Blame::BrokenOff);
        if short {
            lease.ran_out_of_memory();
        }
        if matches!(&ended, Some(ended) if matches!(ended.next, Next::Over(JobState::Succeeded, _)))
        {
            lease.went_well();
        }
        // The node is free now, whatever the disk takes.
        lease.end(match blame {
            Blame::None => End::Done,
            Blame::BrokenOff if idle => End::Done,
            Blame::BrokenOff => End::Aborted { began: true },
            Blame::Unused => End::Unused,
            Blame::Connect => End::Failed(Failure::Connect),
            Blame::Broke => End::Failed(Failure::Reset),
            Blame::Status => End::Failed(Failure::Status),
            Blame::Silent => End::Failed(Failure::Timeout),
        });
        if let Some(leftover) = leftover {
            runner.jobs.discard(&leftover).await;
        }
        let Some(ended) = ended else { return };
        if (matches!(blame, Blame::None) && !short) || failed {
            self.shared.class_ended(&self.job, &endpoint, failed);
        }
        if let Some(job) = write(&runner, &self.job, Some(&endpoint), ended).await
            && job.state == JobState::Queued
        {
            self.shared.enqueue(&job);
        }
    }
}

/// Writes the end of an attempt, however long the store takes to be well again; `None`: it is not this attempt's to write.
pub(super) async fn write(
    runner: &Runner,
    job: &JobRecord,
    endpoint: Option<&str>,
    mut ended: Ended,
) -> Option<JobRecord> {
    let mut phase = runner.phase();
    loop {
        let written = runner
            .jobs
            .end(&job.id, job.attempt, endpoint, ended.clone());
        match written.await {
            Ok(Changed::Now(job)) => return Some(*job),
            Ok(Changed::Stale) => return None,
            Err(error) => {
                if matches!(error, StoreError::Full(_)) && move_apart(runner, &mut ended).await {
                    continue;
                }
                tracing::error!(job = %job.id, %error, "cannot write how a job ended; trying again");
            }
        }
        tokio::select! {
            over = phase.wait_for(|phase| *phase == Phase::Over) => {
                drop(over);
                return None;
            }
            () = sleep(STORE_AGAIN) => {}
        }
    }
}

/// A database that is full may have room for a result's row without its body. Whether that was moved out of it.
async fn move_apart(runner: &Runner, ended: &mut Ended) -> bool {
    let Next::Over(_, Some((_, kept))) = &mut ended.next else {
        return false;
    };
    let Kept::Row(bytes) = &*kept else {
        return false;
    };
    match runner.jobs.keep_apart(bytes.clone()).await {
        Ok(apart) => {
            *kept = apart;
            true
        }
        Err(_) => false,
    }
}

/// Runs the kind's part, and keeps what comes of it.
async fn run(
    jobs: &Jobs,
    service: &LiveService,
    attempt: &Attempt,
    client: &dyn NodeClient,
    report: &Reporter,
    lease: &mut Lease,
) -> Came {
    // What the kind made of the answer is its code too, and is asked for piece by piece.
    let run = AssertUnwindSafe(async {
        let done = {
            let mut work = pin!(service.kind.run(attempt, client, report));
            let done = tokio::select! {
                biased;
                done = &mut work => Some(done),
                () = report.freed() => None,
            };
            // Perhaps with its last word: what came of it is still to be read then.
            give_on(lease, report);
            match done {
                Some(done) => done,
                None => work.await,
            }
        };
        let done = match done {
            Ok(done) => done,
            Err(error) => return Came::Error(error),
        };
        lease.answered();
        let (head, body) = done.response.into_parts();
        match jobs.keep_pieces(body).await {
            Ok((kept, length)) => {
                let head = ResultHead::new(head.status, head.headers, length);
                Came::Result(done.verdict, head, kept)
            }
            Err(KeepError::Node(error)) => Came::Error(RunError::Node(error)),
            Err(KeepError::Store(error)) => {
                tracing::error!(job = %attempt.job, %error, "there is no place for a job's result");
                Came::NoRoom(format!("its result cannot be kept: {error}"))
            }
        }
    });
    let came = run.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(job = %attempt.job, service = %service.plan.name,
            "the kind of this service panicked; this attempt fails, the gateway goes on");
        Came::Panicked
    });
    give_on(lease, report);
    came
}

/// Gives the slots on if the node is done with the work, whatever comes of it.
fn give_on(lease: &mut Lease, report: &Reporter) {
    if report.is_freed() {
        if report.is_untypical() {
            lease.is_untypical();
        }
        lease.free();
    }
}

/// Resolves when the gateway lets go of the attempt: at once when its node keeps it by a handle, else at the very end.
async fn detached(runner: &Runner, report: &Reporter) {
    let mut phase = runner.phase();
    loop {
        match *phase.borrow_and_update() {
            Phase::Over => return,
            Phase::Closing if report.is_handed_over() => return,
            _ => {}
        }
        tokio::select! {
            changed = phase.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            // It may be handed over while the gateway closes.
            () = sleep(Duration::from_millis(100)), if *phase.borrow() == Phase::Closing => {}
        }
    }
}
