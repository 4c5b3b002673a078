//! Jobs that wait for a node. Each has a ticket in the one schedule, beside those whose clients hold a connection; when
//! its turn comes, an attempt begins (`attempt.rs`).
//!
//! A ticket is small and can be made again from the store, so all that wait have one, and a restart takes them all up.

use super::waiters::{Tell, Waiter};
use super::{Dispatch, Lease, Shared, World, attempt, now};
use crate::fleet::End;
use crate::jobs::{Jobs, Standing};
use crate::schedule::{self, AskedAs, QueueLimits, Share, Ticket, TicketId, Turn};
use crate::store::{JobId, JobRecord, Moment};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Refusal, Urgency};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// So many failures in a row set a node aside for a class (Flamenco's `BlocklistThreshold`).
const ASIDE_AFTER: u32 = 3;

/// For so long: whatever ailed it may have been mended.
const ASIDE_FOR_MS: i64 = 3_600_000;

/// How many classes on endpoints are counted at most.
const MOST_COUNTED: usize = 10_000;

/// What runs jobs.
pub(super) struct Runner {
    pub(super) jobs: Jobs,
    runtime: Handle,
    phase: watch::Sender<Phase>,
    /// Jobs that wait for a time, not for a node.
    delayed: Mutex<BTreeSet<(Moment, JobId)>>,
    /// Jobs whose service the file does not have now.
    parked: Mutex<HashSet<JobId>>,
    failures: Mutex<HashMap<ClassOn, Failures>>,
    /// Attempts under way, to the moment their end is written down.
    active: AtomicUsize,
    /// Rung when something was delayed.
    pub(super) wake: Notify,
}

/// How many in a row, and when the last was.
type Failures = (u32, Moment);

/// A service's class of jobs on an endpoint.
type ClassOn = (Arc<str>, Arc<str>, Arc<str>);

/// How far the gateway is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It is not.
    Open,
    /// Nothing begins; what a node keeps working on by itself is let go of.
    Closing,
    /// Everything is let go of.
    Over,
}

/// An attempt is under way while this is there.
pub(super) struct Active(Arc<Runner>);

// === impl Dispatch ===

impl Dispatch {
    /// From now on requests can be accepted for later. Called once, within the runtime.
    pub fn run_jobs(&self, jobs: Jobs) {
        let shared = Arc::downgrade(&self.0);
        jobs.listen(Box::new(move |job| {
            if let Some(shared) = shared.upgrade() {
                shared.job_changed(job);
            }
        }));
        let runner = Runner {
            jobs,
            runtime: Handle::current(),
            phase: watch::channel(Phase::Open).0,
            delayed: Mutex::default(),
            parked: Mutex::default(),
            failures: Mutex::default(),
            active: AtomicUsize::new(0),
            wake: Notify::new(),
        };
        let _ = self.0.runner.set(Arc::new(runner));
    }

    /// The jobs; `None` where there is no store for them.
    pub fn jobs(&self) -> Option<&Jobs> {
        self.0.runner.get().map(|runner| &runner.jobs)
    }

    /// A job waits for a node from now on, or for its time.
    pub fn enqueue(&self, job: &JobRecord) {
        self.0.enqueue(job);
    }

    /// A job does not wait any more. One that is at work is not touched.
    pub fn withdraw(&self, job: &str) {
        self.0.withdraw(job);
    }

    /// The urgency of a job that waits has changed.
    pub fn reprioritise(&self, job: &str, urgency: Urgency) {
        self.0.turn(|core, now, out| {
            if let Some(&ticket) = core.jobs.get(job) {
                core.schedule(schedule::Event::Moved(ticket, urgency), now, out);
            }
        });
    }

    /// Where a job that waits stands.
    pub fn standing(&self, job: &JobRecord) -> Standing {
        let mut core = self.0.core.lock();
        let Some(waiter) = core.jobs.get(&job.id).and_then(|id| core.waiters.get(id)) else {
            drop(core);
            let parked = self.0.runner.get().is_some_and(|r| r.is_parked(&job.id));
            return Standing {
                stuck: parked.then(|| format!("there is no service `{}` now", job.service)),
                ..Standing::default()
            };
        };
        let pool = waiter.service.pool;
        let before = core.rooms.schedule.before(core.jobs[&job.id]);
        let own = core.rooms.expected(&job.service, pool, &job.need);
        Standing {
            position: before.map(|(position, _)| position),
            eta_s: before
                .and_then(|(_, before)| core.rooms.eta(pool, before, own, now()))
                .map(|eta| (eta.p50_s, eta.p90_s)),
            stuck: core.rooms.nobody_fits(pool, &job.need),
        }
    }

    /// Nothing begins from here on.
    pub(super) fn close_jobs(&self) {
        let Some(runner) = self.0.runner.get() else {
            return;
        };
        // Their tickets leave in the same moment: with each slot that comes free, one would be granted and given back.
        self.0.turn(|core, now, out| {
            runner.phase.send_replace(Phase::Closing);
            for (_, ticket) in std::mem::take(&mut core.jobs) {
                core.waiters.remove(&ticket);
                core.schedule(schedule::Event::Left(ticket), now, out);
            }
        });
    }

    /// Attempts are let go of: those that a node can be asked for again are taken up after the next start.
    pub(super) fn detach_jobs(&self) {
        if let Some(runner) = self.0.runner.get() {
            runner.phase.send_replace(Phase::Over);
        }
    }

    /// A new world: jobs that wait do so by its pools and policies, and those whose service came back wait again.
    pub(super) fn jobs_follow(&self, world: &World) {
        let Some(runner) = self.0.runner.get() else {
            return;
        };
        for service in &world.services {
            self.metrics().jobs().add_service(&service.plan.name);
        }
        self.0.ask_anew(|waiter| {
            let was = &waiter.service;
            let is = world.service(&was.plan.name);
            is.is_none_or(|is| !Arc::ptr_eq(&was.policy, &is.policy) || was.pool != is.pool)
        });
        let stuck = self.0.core.lock().stuck();
        for ((service, class), (jobs, why)) in stuck {
            tracing::warn!(%service, %class, jobs, %why,
                "jobs wait for what no node of the file has; they go on waiting, for another file or for somebody to cancel them");
        }
        let parked = std::mem::take(&mut *runner.parked.lock());
        let now = runner.jobs.now();
        let mut delayed = runner.delayed.lock();
        delayed.extend(parked.into_iter().map(|job| (now, job)));
        drop(delayed);
        runner.wake.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn enqueue(self: &Arc<Self>, job: &JobRecord) {
        let Some(runner) = self.runner.get() else {
            return;
        };
        if *runner.phase.borrow() != Phase::Open {
            return;
        }
        if let Some(not_before) = job.not_before.filter(|at| *at > runner.jobs.now()) {
            runner.delay(job.id.clone(), not_before);
            return;
        }
        let id = TicketId(self.tickets.fetch_add(1, Ordering::Relaxed));
        let aside = runner.set_aside(job);
        let hopeless = self.turn(|core, now, out| {
            if core.jobs.contains_key(&job.id) {
                return None;
            }
            // Under the lock, as a reload puts its world in place: no ticket is made of one that is gone.
            let world = Option::clone(&self.world.load());
            let share = world
                .as_ref()
                .map_or_else(Share::default, |w| w.share(&job.tenant));
            let service = world.and_then(|world| world.service(&job.service).cloned());
            let Some(service) = service else {
                runner.parked.lock().insert(job.id.clone());
                return None;
            };
            // What no endpoint could ever serve goes on waiting.
            let never = core.never(&service, &job.need, share);
            if never.is_none()
                && let Some(why) = core.not_today(&service, &job.need, share, now)
            {
                return Some(why);
            }
            let by_name = |name: &Arc<str>| core.rooms.fleet.by_name(name);
            let failed: Vec<EndpointId> = job.failed_on.iter().filter_map(by_name).collect();
            let mut excluded: Vec<EndpointId> = aside.iter().filter_map(by_name).collect();
            excluded.extend(&failed);
            let members = core.rooms.pools.members(service.pool);
            // One that failed others of the class is better than one that failed this job.
            if members.iter().all(|(id, _)| excluded.contains(id)) {
                excluded = failed;
            }
            excluded.sort_unstable();
            excluded.dedup();
            let expected = core
                .rooms
                .expected(&service.plan.name, service.pool, &job.need);
            let ticket = Ticket {
                id,
                asked_as: AskedAs::Job(job.id.clone()),
                service: service.plan.name.clone(),
                pool: service.pool,
                need: job.need.clone(),
                policy: service.policy.clone(),
                kind: Some(service.kind.clone()),
                price: service.plan.price,
                excluded,
                turn: Turn::Stored(job.seq),
                since: runner.since(job, now),
                before_s: 0.0,
                barred: Vec::new(),
                share,
                patience: service.plan.patience,
                expected,
                queue: QueueLimits {
                    max: usize::MAX,
                    max_wait: Duration::MAX,
                },
            };
            let waiter = Waiter {
                tell: Tell::Job(job.id.clone()),
                ticket: id,
                service: service.clone(),
                need: job.need.clone(),
            };
            core.waiters.insert(waiter);
            core.jobs.insert(job.id.clone(), id);
            core.schedule(schedule::Event::Arrived(ticket), now, out);
            None
        });
        if let Some(why) = hopeless {
            self.give_up(runner, job.id.clone(), &why);
        }
    }

    pub(super) fn withdraw(self: &Arc<Self>, job: &str) {
        self.turn(|core, now, out| {
            if let Some(ticket) = core.jobs.remove(job) {
                core.waiters.remove(&ticket);
                core.schedule(schedule::Event::Left(ticket), now, out);
            }
        });
        if let Some(runner) = self.runner.get() {
            runner.parked.lock().remove(job);
        }
    }

    /// A job's ticket was granted, or cannot be.
    pub(super) fn turn_came(self: &Arc<Self>, job: JobId, verdict: Result<Lease, Refusal>) {
        let Some(runner) = self.runner.get() else {
            return;
        };
        match verdict {
            Ok(lease) if *runner.phase.borrow() == Phase::Open => {
                let active = Active::new(runner);
                let run = attempt::begin(self.clone(), active, lease, job);
                runner.runtime.spawn(run);
            }
            Ok(lease) => lease.end(End::Unused),
            Err(why) => {
                tracing::error!(%job, %why, "a job cannot be given a node; it is tried again");
                runner.delay(job, runner.jobs.now().after(Duration::from_secs(10)));
            }
        }
    }

    /// An attempt at a job of this class ended on this endpoint.
    pub(super) fn class_ended(
        self: &Arc<Self>,
        job: &JobRecord,
        endpoint: &Arc<str>,
        failed: bool,
    ) {
        let Some(runner) = self.runner.get() else {
            return;
        };
        let on = (
            job.service.clone(),
            job.need.class.clone(),
            endpoint.clone(),
        );
        let mut failures = runner.failures.lock();
        let (before, _) = failures.get(&on).copied().unwrap_or_default();
        let moved = match failed {
            true => {
                // Classes come from requests. Those that were set aside are few; the others can be counted anew.
                if failures.len() >= MOST_COUNTED {
                    let lifted = runner.jobs.now().0.saturating_sub(ASIDE_FOR_MS);
                    failures.retain(|_, (count, at)| *count >= ASIDE_AFTER && at.0 > lifted);
                }
                failures.insert(on, (before + 1, runner.jobs.now()));
                before + 1 == ASIDE_AFTER
            }
            false => {
                failures.remove(&on);
                before >= ASIDE_AFTER
            }
        };
        drop(failures);
        if moved && failed {
            tracing::warn!(endpoint = %endpoint, service = %job.service, class = %job.need.class,
                "an endpoint failed {ASIDE_AFTER} jobs of this class in a row; others are asked first");
        }
        if moved {
            self.ask_anew(|waiter| {
                waiter.service.plan.name == job.service && waiter.need.class == job.need.class
            });
        }
    }

    /// Jobs that wait give their tickets up and get new ones: by another world, or after others were set aside.
    pub(super) fn ask_anew(self: &Arc<Self>, which: impl Fn(&Waiter) -> bool) {
        let Some(runner) = self.runner.get() else {
            return;
        };
        let jobs: Vec<JobId> = {
            let core = self.core.lock();
            let asked = |ticket: &TicketId| core.waiters.get(ticket).is_some_and(&which);
            let jobs = core.jobs.iter().filter(|(_, ticket)| asked(ticket));
            jobs.map(|(job, _)| job.clone()).collect()
        };
        let now = runner.jobs.now();
        for job in jobs {
            self.withdraw(&job);
            runner.delay(job, now);
        }
    }
}

// === impl Runner ===

impl Runner {
    /// A job waits until then.
    pub(super) fn delay(&self, job: JobId, until: Moment) {
        self.delayed.lock().insert((until, job));
        self.wake.notify_one();
    }

    /// Jobs whose time has come, at most so many.
    pub(super) fn due(&self, now: Moment, most: usize) -> Vec<JobId> {
        let mut delayed = self.delayed.lock();
        let mut due = Vec::new();
        while due.len() < most
            && let Some((at, _)) = delayed.first()
            && *at <= now
        {
            due.extend(delayed.pop_first().map(|(_, job)| job));
        }
        due
    }

    /// Since when a job waits, on the clock that the schedule goes by.
    fn since(&self, job: &JobRecord, now: Instant) -> Instant {
        let age = self.jobs.now().0.saturating_sub(job.accepted.0);
        let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        now.checked_sub(age).unwrap_or(now)
    }

    /// Does something in the background.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Whether the file does not have a job's service now.
    fn is_parked(&self, job: &JobId) -> bool {
        self.parked.lock().contains(job)
    }

    /// When the next job's time comes.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.delayed.lock().first().map(|(at, _)| *at)
    }

    /// How far the gateway is on its way down.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// How many attempts are under way.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Endpoints that failed this job's class too often.
    fn set_aside(&self, job: &JobRecord) -> Vec<Arc<str>> {
        let failures = self.failures.lock();
        let lifted = Moment(self.jobs.now().0.saturating_sub(ASIDE_FOR_MS));
        let of_class = failures
            .iter()
            .filter(|((service, class, _), (count, at))| {
                let aside = *count >= ASIDE_AFTER && *at > lifted;
                aside && *service == job.service && *class == job.need.class
            });
        of_class.map(|((_, _, on), _)| on.clone()).collect()
    }
}

// === impl Active ===

impl Active {
    pub(super) fn new(runner: &Arc<Runner>) -> Self {
        runner.active.fetch_add(1, Ordering::AcqRel);
        Active(runner.clone())
    }

    pub(super) fn runner(&self) -> &Arc<Runner> {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
