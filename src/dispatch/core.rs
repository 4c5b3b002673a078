//! What stands behind the one lock: fleet, schedule, and what joins them.

use super::rooms::{Over, Rooms};
use super::upstream::Upstream;
use super::waiters::{Tell, Waiter, Waiters};
use super::world::{LiveService, World};
use crate::fleet;
use crate::schedule::{self, TicketId};
use crate::store::JobId;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tabane_api::{EndpointId, Refusal};

/// Fleet and schedule under one lock.
pub(super) struct Core {
    pub(super) rooms: Rooms,
    pub(super) upstreams: HashMap<EndpointId, Arc<Upstream>>,
    /// The services whose kinds look after them, kept until an endpoint is gone: one that leaves is asked to let go.
    pub(super) kinds: HashMap<EndpointId, Arc<LiveService>>,
    /// Those that a file moved away from, for as long as requests keep them.
    pub(super) moved: Vec<Weak<Upstream>>,
    pub(super) waiters: Waiters,
    /// The tickets of jobs that wait.
    pub(super) jobs: HashMap<JobId, TicketId>,
}

/// What is left to do when the lock is open again.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) fleet: Vec<fleet::Action>,
    pub(super) verdicts: Vec<(Waiter, Result<Arc<Upstream>, Refusal>)>,
}

// === impl Core ===

impl Core {
    pub(super) fn apply(&mut self, event: fleet::Event, now: Instant, out: &mut Outbox) {
        let (actions, given) = self.rooms.apply(event, now);
        self.deliver(given, out);
        out.fleet.extend(actions);
    }

    pub(super) fn tick(&mut self, now: Instant, out: &mut Outbox) {
        let (actions, given) = self.rooms.tick(now);
        self.deliver(given, out);
        out.fleet.extend(actions);
    }

    pub(super) fn ended(&mut self, over: &Over<'_>, now: Instant, out: &mut Outbox) {
        let (actions, given) = self.rooms.ended(over, now);
        self.deliver(given, out);
        out.fleet.extend(actions);
    }

    pub(super) fn match_waiting(&mut self, now: Instant, out: &mut Outbox) {
        if self.rooms.schedule.waiting() > 0 {
            self.schedule(schedule::Event::Freed, now, out);
        }
    }

    /// Applies an event and puts the verdicts of those who wait into the outbox; returns those of tickets without a waiter.
    pub(super) fn schedule(
        &mut self,
        event: schedule::Event,
        now: Instant,
        out: &mut Outbox,
    ) -> Vec<schedule::Action> {
        let (actions, given) = self.rooms.schedule(event, now);
        out.fleet.extend(actions);
        self.deliver(given, out)
    }

    /// Puts the verdicts of those who wait into the outbox; returns those of tickets without a waiter.
    fn deliver(
        &mut self,
        mut actions: Vec<schedule::Action>,
        out: &mut Outbox,
    ) -> Vec<schedule::Action> {
        actions.retain(|action| {
            let id = match action {
                schedule::Action::Grant(id, _) | schedule::Action::Refuse(id, _) => id,
            };
            let Some(waiter) = self.waiters.remove(id) else {
                return true;
            };
            if let Tell::Job(job) = &waiter.tell {
                self.jobs.remove(job);
            }
            let verdict = verdict(&self.upstreams, action);
            out.verdicts.push((waiter, verdict));
            false
        });
        actions
    }

    /// What came of a ticket that is not waited for.
    pub(super) fn granted(&self, action: &schedule::Action) -> Result<Arc<Upstream>, Refusal> {
        verdict(&self.upstreams, action)
    }

    /// All that leases may be out for: the endpoints as they are, and as they were before a file moved them.
    pub(super) fn all_upstreams(&self) -> Vec<Arc<Upstream>> {
        let moved = self.moved.iter().filter_map(Weak::upgrade);
        self.upstreams.values().cloned().chain(moved).collect()
    }

    /// Gives every endpoint of the fleet its upstream, and remembers whose kind looks after it.
    pub(super) fn place_upstreams(&mut self, world: &World) {
        for endpoint in &world.plan.endpoints {
            let id = self.rooms.fleet.by_name(&endpoint.name);
            if let (Some(id), Some(service)) = (id, endpoint.probed_by) {
                self.kinds.insert(id, world.services[service].clone());
            }
        }
        for endpoint in self.rooms.fleet.all() {
            // Where the fleet has it: one that leaves stays where it was, wherever the file puts its name.
            let (id, target) = (endpoint.id(), endpoint.target());
            let known = self.upstreams.get(&id);
            if known.is_none_or(|known| known.target != *target) {
                let new = Upstream::new(id, endpoint.name().clone(), target.clone());
                if let Some(old) = self.upstreams.insert(id, Arc::new(new)) {
                    self.moved.retain(|moved| moved.strong_count() > 0);
                    self.moved.push(Arc::downgrade(&old));
                }
            }
        }
    }
}

fn verdict(
    upstreams: &HashMap<EndpointId, Arc<Upstream>>,
    action: &schedule::Action,
) -> Result<Arc<Upstream>, Refusal> {
    match action {
        schedule::Action::Refuse(_, why) => Err(why.clone()),
        schedule::Action::Grant(_, endpoint) => upstreams
            .get(endpoint)
            .cloned()
            .ok_or_else(|| Refusal::Internal("the endpoint left while it was granted".into())),
    }
}
