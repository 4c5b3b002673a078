//! What stands behind the one lock: fleet, schedule, and what joins them.

use super::lease::Lease;
use super::rooms::Rooms;
use super::upstream::Upstream;
use super::world::{LiveService, World};
use crate::config::plan::{HoldPlan, Plan, Sharing};
use crate::fleet;
use crate::schedule::{self, TicketId};
use crate::store::JobId;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, Refusal};
use tokio::sync::oneshot;

/// Fleet and schedule under one lock.
pub(super) struct Core {
    pub(super) rooms: Rooms,
    pub(super) upstreams: HashMap<EndpointId, Arc<Upstream>>,
    /// The services whose kinds look after them, kept until an endpoint is gone: one that leaves is asked to let go.
    pub(super) kinds: HashMap<EndpointId, Arc<LiveService>>,
    /// Those that a file moved away from, for as long as requests keep them.
    pub(super) moved: Vec<Weak<Upstream>>,
    pub(super) waiters: HashMap<TicketId, Waiter>,
    /// The tickets of jobs that wait.
    pub(super) jobs: HashMap<JobId, TicketId>,
}

/// Someone whose ticket waits.
pub(super) struct Waiter {
    pub(super) tell: Tell,
    pub(super) ticket: TicketId,
    pub(super) service: Arc<LiveService>,
    pub(super) need: Need,
}

/// Who is told that a ticket's turn has come.
pub(super) enum Tell {
    /// A client that holds its connection.
    Client(oneshot::Sender<Result<Lease, Refusal>>),
    /// A job: an attempt begins.
    Job(JobId),
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

    /// Gives every endpoint of the world its upstream, and every pool its members.
    pub(super) fn place_members(&mut self, world: &World) {
        let ids: Vec<Option<EndpointId>> = world
            .plan
            .endpoints
            .iter()
            .map(|e| self.rooms.fleet.by_name(&e.name))
            .collect();
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
        for (endpoint, id) in world.plan.endpoints.iter().zip(&ids) {
            if let (Some(id), Some(service)) = (id, endpoint.probed_by) {
                self.kinds.insert(*id, world.services[service].clone());
            }
        }
        let pools: Vec<_> = world
            .plan
            .pools
            .iter()
            .map(|pool| {
                let members = pool
                    .members
                    .iter()
                    .filter_map(|m| Some((ids[m.endpoint]?, m.weight)))
                    .collect();
                (self.rooms.pools.id(&pool.name), members)
            })
            .collect();
        self.rooms.pools.replace(pools);
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

/// The fleet's view of a plan.
pub(super) fn specs(plan: &Plan) -> Vec<fleet::Spec> {
    // A removed node may go on for as long as the most patient of the services that use it says.
    let mut drains = vec![Duration::ZERO; plan.endpoints.len()];
    let mut holds: Vec<Option<HoldPlan>> = vec![None; plan.endpoints.len()];
    for service in &plan.services {
        for member in &plan.pools[service.pool].members {
            drains[member.endpoint] = drains[member.endpoint].max(service.drain);
            let hold = holds[member.endpoint].get_or_insert(service.gpu_hold);
            hold.min = hold.min.max(service.gpu_hold.min);
            hold.max = hold.max.max(service.gpu_hold.max);
        }
    }
    // An endpoint that no pool holds is nobody's business; `check` has warned of it.
    plan.endpoints
        .iter()
        .zip(drains.into_iter().zip(holds))
        .filter_map(|(endpoint, (drain, hold))| {
            let node = &plan.nodes[endpoint.node];
            let claim = |whole| fleet::Claim {
                whole,
                vram_mib: endpoint.vram_mib,
                hold: hold.unwrap_or_default(),
            };
            Some(fleet::Spec {
                name: endpoint.name.clone(),
                node: node.facts.clone(),
                target: endpoint.target.clone(),
                slots: endpoint.slots,
                drained: node.drained,
                health: plan.services[endpoint.probed_by?].health,
                drain,
                claim: match node.sharing {
                    Sharing::Free => None,
                    Sharing::Exclusive => Some(claim(true)),
                    Sharing::Fits => Some(claim(false)),
                },
            })
        })
        .collect()
}
