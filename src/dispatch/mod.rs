//! One request's journey from head to outcome, and the World it sees.
//!
//! Fleet (who can work) and schedule (who waits, who is next) do no IO and do not know each other; they
//! meet here, under one short mutex. `apply` runs on the caller's thread; only a ticket that has to wait
//! uses a channel. What an `apply` asks for (wake a ticket, end leases, tell the operator) is done after
//! the lock is open again, because a lease that finds nobody waiting takes the lock once more to go back.

mod attempt;
mod budget;
mod clockwork;
mod core;
mod explain;
mod fit;
mod hooks;
mod hopeless;
mod host;
mod journey;
mod lease;
mod measure;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
mod pools;
mod resume;
mod room;
mod rooms;
mod route;
mod runner;
mod scale;
mod sharing;
mod shortages;
mod spending;
#[cfg(test)]
mod tests;
mod times;
mod upstream;
mod usage;
mod view;
mod waiters;
mod world;

pub use explain::{CandidateView, Explanation, Question};
pub use fit::{Lack, Miss};
pub use journey::{Journey, Step};
pub use lease::{Lease, Revocation};
pub use pools::Pools;
pub use rooms::{Over, Rooms};
pub use route::normalise;
pub use scale::ScaleView;
pub use times::Times;
pub use upstream::Upstream;
pub use usage::day;
pub use view::{NodeView, PoolView, ServiceView};
pub use world::{ListenerKey, LiveService, World, listener_keys};

use self::core::{Core, Outbox};
use crate::config::plan::Plan;
use crate::fleet::{self, End};
use crate::schedule::{self, Schedule};
use crate::store::{Marks, StoreError};
use crate::telemetry::{Event, Events, Metrics};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use runner::Runner;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, NodeClient, ProbeError, Stopped, Vitals};
use tokio::sync::{Notify, watch};
use waiters::{Tell, Waiters};

/// The gateway's middle: a handle, cheap to clone.
#[derive(Clone)]
pub struct Dispatch(Arc<Shared>);

/// Makes the clients by which kinds talk to nodes. The edge has one; dispatch does no IO of its own.
pub trait Clients: Send + Sync + 'static {
    /// A client for this endpoint.
    fn client(&self, upstream: &Arc<Upstream>) -> Arc<dyn NodeClient>;
}

/// What dispatch is given to work with.
pub struct Means {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is told.
    pub events: Events,
    /// Which nodes an operator drained.
    pub marks: Marks,
    /// How kinds talk to nodes.
    pub clients: Arc<dyn Clients>,
}

struct Shared {
    core: Mutex<Core>,
    /// Empty until the first plan is installed.
    world: ArcSwap<Option<Arc<World>>>,
    means: Means,
    tickets: AtomicU64,
    /// Set when no new work is taken.
    closing: AtomicBool,
    /// Set when what was taken gets no node any more either.
    over: AtomicBool,
    /// Runs jobs, where there is a store for them.
    runner: OnceLock<Arc<Runner>>,
    /// What answers used.
    used: usage::Used,
    /// Rung when the next due time may have changed.
    due: Notify,
    /// Counts what the prober has to look at: endpoints that came, went or moved.
    membership: watch::Sender<u64>,
}

// === impl Dispatch ===

impl Dispatch {
    /// A gateway without a world: it refuses everything until [`Dispatch::install`].
    pub fn new(means: Means) -> Self {
        let draw = StdRng::from_rng(&mut rand::rng());
        let mut rooms = Rooms::new(Schedule::new(Box::new(draw)));
        for node in means.marks.all() {
            rooms.fleet.apply(
                fleet::Event::Drain {
                    node: node.as_str().into(),
                    on: true,
                },
                now(),
            );
        }
        Dispatch(Arc::new(Shared {
            core: Mutex::new(Core {
                rooms,
                upstreams: HashMap::new(),
                kinds: HashMap::new(),
                moved: Vec::new(),
                waiters: Waiters::default(),
                jobs: HashMap::new(),
            }),
            world: ArcSwap::from_pointee(None),
            means,
            tickets: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
            runner: OnceLock::new(),
            used: usage::Used::default(),
            due: Notify::new(),
            membership: watch::channel(0).0,
        }))
    }

    /// Puts a checked plan to work: one swap. Endpoints that did not change keep leases, health and drain
    /// mark; those that left drain; whoever waits sees the new ones at once.
    ///
    /// Errors: what a kind or policy has against its block; the old world then stays.
    pub fn install(&self, plan: Plan) -> Result<Arc<World>, Vec<String>> {
        let shared = &self.0;
        let prior = self.world();
        // A plugin's constructor runs in here: not under the lock.
        let pool_id = |name: &Arc<str>| shared.core.lock().rooms.pools.id(name);
        let world = World::build(plan, prior.as_deref(), &pool_id, &shared.means.metrics)?;
        let world = Arc::new(world);
        shared.turn(|core, now, out| {
            // Whoever waits is served by the new pools, so these come first.
            let actions = core.rooms.install(&world.plan, now);
            core.place_upstreams(&world);
            core.refuse_hopeless(now, out);
            core.match_waiting(now, out);
            out.fleet.extend(actions);
            shared.world.store(Arc::new(Some(world.clone())));
        });
        shared.membership.send_modify(|count| *count += 1);
        self.open_kinds(&world, prior.as_deref());
        self.jobs_follow(&world);
        for gone in prior.iter().flat_map(|prior| &prior.services) {
            if world.service(&gone.plan.name).is_none() {
                shared.means.metrics.forget_service(&gone.plan.name);
            }
        }
        Ok(world)
    }

    /// The world of now; `None` before the first plan.
    pub fn world(&self) -> Option<Arc<World>> {
        Option::clone(&self.0.world.load())
    }

    /// Takes no new work from now on: the gateway is going down.
    pub fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.close_jobs();
    }

    /// Ends everything that is at work or waits: requests are answered, sockets are closed with a word.
    pub fn let_go(&self) {
        self.0.over.store(true, Ordering::Release);
        self.detach_jobs();
        let (upstreams, waiters) = self.0.turn(|core, now, out| {
            let waiters = std::mem::take(&mut core.waiters);
            core.jobs.clear();
            // Their tickets leave with them: one left behind would be granted a slot that nobody gives back.
            for id in waiters.keys() {
                core.schedule(schedule::Event::Left(*id), now, out);
            }
            (core.all_upstreams(), waiters)
        });
        drop(waiters);
        for upstream in upstreams {
            upstream.revoke();
        }
        // Sockets that no lease stands behind hear of it this way.
        self.0.membership.send_modify(|count| *count += 1);
    }

    /// Waits until nobody speaks for this service any more: everything at work is ended, or the service has left the file.
    pub async fn silenced(&self, service: &str) {
        let mut membership = self.membership();
        loop {
            let speaks = || {
                self.world()
                    .is_some_and(|world| world.service(service).is_some())
            };
            let over = self.0.over.load(Ordering::Acquire) || !speaks();
            if over || membership.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the gateway goes down and takes no new work.
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Acquire)
    }

    /// Whether new work is taken and some pool could take it.
    pub fn is_ready(&self) -> bool {
        if self.is_closing() || self.world().is_none() {
            return false;
        }
        let core = self.0.core.lock();
        core.rooms
            .fleet
            .all()
            .any(|endpoint| core.rooms.fleet.usable(endpoint.id()))
    }

    /// How many leases are out, at work or passing, and how many attempts of jobs are not written down yet.
    pub fn at_work(&self) -> usize {
        let attempts = self.0.runner.get().map_or(0, |runner| runner.active());
        let core = self.0.core.lock();
        core.rooms
            .fleet
            .all()
            .map(|endpoint| (endpoint.at_work() + endpoint.passing()) as usize)
            .sum::<usize>()
            .max(attempts)
    }

    /// Sets or lifts an operator's drain mark; it is kept over reload and restart.
    ///
    /// `false`: no node of the plan has this name (a mark of one that has left can still be lifted).
    ///
    /// Errors: the mark could not be kept; nothing changed.
    pub fn drain(&self, node: &str, on: bool) -> Result<bool, StoreError> {
        let known = self
            .world()
            .is_some_and(|world| world.plan.nodes.iter().any(|n| &*n.facts.name == node));
        if !known && (on || !self.0.means.marks.all().contains(node)) {
            return Ok(false);
        }
        self.0.means.marks.set(node, on)?;
        self.0.turn(|core, now, out| {
            core.apply(
                fleet::Event::Drain {
                    node: node.into(),
                    on,
                },
                now,
                out,
            )
        });
        self.0.means.events.send(if on {
            Event::NodeDrained { node: node.into() }
        } else {
            Event::NodeUndrained { node: node.into() }
        });
        Ok(true)
    }

    /// What a probe that began at `started` said.
    pub fn probed(
        &self,
        endpoint: EndpointId,
        started: Instant,
        outcome: Result<Vitals, ProbeError>,
    ) {
        self.0.turn(|core, now, out| {
            core.apply(
                fleet::Event::Probed {
                    endpoint,
                    started,
                    outcome,
                },
                now,
                out,
            )
        });
    }

    /// Counts up whenever endpoints came, went or moved.
    pub fn membership(&self) -> watch::Receiver<u64> {
        self.0.membership.subscribe()
    }

    /// Every endpoint that is wanted or still at work, with the service whose kind probes it.
    pub fn upstreams(&self) -> Vec<(Arc<Upstream>, Option<Arc<LiveService>>)> {
        let Some(world) = self.world() else {
            return Vec::new();
        };
        let probed_by: HashMap<&str, usize> = world
            .plan
            .endpoints
            .iter()
            .filter_map(|e| Some((&*e.name, e.probed_by?)))
            .collect();
        let core = self.0.core.lock();
        let of = |upstream: &Arc<Upstream>| {
            probed_by
                .get(&*upstream.name)
                .map(|&i| world.services[i].clone())
        };
        core.upstreams
            .values()
            .map(|upstream| (upstream.clone(), of(upstream)))
            .collect()
    }

    /// How long until an endpoint's next probe.
    pub fn probe_interval(&self, endpoint: EndpointId) -> Duration {
        self.0.core.lock().rooms.fleet.probe_interval(endpoint)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.means.metrics
    }

    /// What is told.
    pub fn events(&self) -> &Events {
        &self.0.means.events
    }

    /// Lets time pass for the fleet: cooling ends, ejections end, drain times run out. Runs for ever.
    pub async fn keep_time(&self) {
        loop {
            let due = self.0.core.lock().rooms.next_due();
            match due {
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => self.0.turn(|core, now, out| core.tick(now, out)),
                    () = self.0.due.notified() => {}
                },
                None => self.0.due.notified().await,
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Does something under the lock, and what follows from it after.
    fn turn<T>(self: &Arc<Self>, act: impl FnOnce(&mut Core, Instant, &mut Outbox) -> T) -> T {
        let mut out = Outbox::default();
        let (done, due_changed) = {
            let mut core = self.core.lock();
            let before = core.rooms.next_due();
            let done = act(&mut core, now(), &mut out);
            (done, core.rooms.next_due() != before)
        };
        if due_changed {
            self.due.notify_one();
        }
        self.carry_out(out);
        done
    }

    fn carry_out(self: &Arc<Self>, out: Outbox) {
        for (waiter, verdict) in out.verdicts {
            let verdict = verdict.map(|upstream| {
                Lease::new(
                    self.clone(),
                    waiter.ticket,
                    upstream,
                    waiter.service,
                    waiter.need,
                )
            });
            let tell = match waiter.tell {
                Tell::Client(tell) => tell,
                Tell::Job(job) => {
                    self.turn_came(job, verdict);
                    continue;
                }
            };
            if let Err(Ok(lease)) = tell.send(verdict) {
                // Whoever waited left between the grant and now: nothing was sent to the node.
                lease.end(End::Unused);
            }
        }
        for action in out.fleet {
            self.tell(action);
        }
    }

    fn tell(self: &Arc<Self>, action: fleet::Action) {
        let name = |id| {
            self.core
                .lock()
                .upstreams
                .get(&id)
                .map(|u| u.name.clone())
                .unwrap_or_default()
        };
        let events = &self.means.events;
        match action {
            fleet::Action::Freed => {}
            fleet::Action::Up(id) => {
                let name = name(id);
                tracing::info!(endpoint = %name, "endpoint is up");
                events.send(Event::endpoint_up(&name));
            }
            fleet::Action::Down(id, why) => {
                let name = name(id);
                tracing::warn!(endpoint = %name, %why, "endpoint is down");
                events.send(Event::endpoint_down(&name, &why.to_string()));
            }
            fleet::Action::Ejected(id, length) => {
                let name = name(id);
                tracing::warn!(endpoint = %name, for_s = length.as_secs_f64(), "endpoint is ejected: its requests failed in a row");
                events.send(Event::endpoint_ejected(&name, length));
            }
            fleet::Action::Revoke(id, why) => {
                let core = self.core.lock();
                let upstreams: Vec<_> = match why {
                    // When an endpoint left, so did all that it was before a file moved it.
                    fleet::Why::Left => {
                        let all = core.all_upstreams().into_iter();
                        all.filter(|upstream| upstream.id == id).collect()
                    }
                    _ => core.upstreams.get(&id).cloned().into_iter().collect(),
                };
                drop(core);
                if let Some(upstream) = upstreams.first() {
                    tracing::warn!(endpoint = %upstream.name, %why, "requests on this endpoint are ended");
                }
                for upstream in upstreams {
                    upstream.revoke();
                }
            }
            fleet::Action::Release(_)
            | fleet::Action::Prove(_)
            | fleet::Action::Held { .. }
            | fleet::Action::NoRoom(_)
            | fleet::Action::Unproven(_) => self.share_card(action),
            fleet::Action::Gone(id) => {
                let gone = {
                    let mut core = self.core.lock();
                    core.kinds.remove(&id);
                    core.upstreams.remove(&id)
                };
                if let Some(upstream) = gone {
                    tracing::info!(endpoint = %upstream.name, "endpoint is gone");
                    self.means.metrics.forget_endpoint(&upstream.name);
                    events.send(Event::endpoint_gone(&upstream.name));
                    self.membership.send_modify(|count| *count += 1);
                }
            }
        }
    }

    fn answered(self: &Arc<Self>, endpoint: EndpointId) {
        self.turn(|core, now, out| core.apply(fleet::Event::Answered { endpoint }, now, out));
    }

    fn ended(self: &Arc<Self>, lease: &Lease, end: End) {
        let (slots, endpoint) = (lease.need().slots, lease.upstream().id);
        let cool_down = lease.service().plan.cool_down;
        self.turn(|core, now, out| {
            let over = Over {
                ticket: lease.ticket(),
                endpoint,
                name: &lease.upstream().name,
                slots,
                end,
                cool_down,
                well: lease.is_learned(),
            };
            core.ended(&over, now, out);
        });
    }

    /// Asks the kind to stop what was broken off, in the background: its slots cool meanwhile.
    fn stop_on_node(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        service: &Arc<LiveService>,
        need: &Need,
    ) {
        upstream.probe_now();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (shared, upstream, service, need) = (
            self.clone(),
            upstream.clone(),
            service.clone(),
            need.clone(),
        );
        runtime.spawn(async move {
            let client = shared.means.clients.client(&upstream);
            match service.kind.stop(&need, &*client).await {
                Ok(Stopped::Idle) => shared.turn(|core, now, out| {
                    core.apply(fleet::Event::Stopped { endpoint: upstream.id, slots: need.slots }, now, out);
                }),
                Ok(Stopped::Unknown) => {}
                Err(error) => tracing::warn!(endpoint = %upstream.name, %error, "cannot stop a request that was broken off; its slot cools"),
            }
        });
    }
}

/// Now, on the clock that tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
