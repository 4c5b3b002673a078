//! The rooms of floor 2, and where they meet: pure, on any clock, so that what is simulated is what is done.

use super::pools::Pools;
use super::room::{FleetRoom, lacks};
use super::times::Times;
use crate::config::plan::Plan;
use crate::fleet::{self, Fleet};
use crate::schedule::{self, PoolId, Schedule};
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need};

/// Who can work, who waits, which endpoints each pool has, and how long work takes.
pub struct Rooms {
    /// Who can work.
    pub fleet: Fleet,
    /// Who waits.
    pub schedule: Schedule,
    /// The pools of now.
    pub pools: Pools,
    /// Learned times, and the work they are held against.
    pub times: Times,
}

// === impl Rooms ===

impl Rooms {
    /// Nobody can work, and nobody waits.
    pub fn new(schedule: Schedule) -> Self {
        Rooms {
            fleet: Fleet::new(),
            schedule,
            pools: Pools::default(),
            times: Times::default(),
        }
    }

    /// Puts a plan in place of the one before: its endpoints, its pools, its weights. Who waits is to look again.
    pub fn install(&mut self, plan: &Plan, now: Instant) -> Vec<fleet::Action> {
        let actions = self.fleet.apply(fleet::Event::Plan(specs(plan)), now);
        let ids: Vec<Option<EndpointId>> = plan
            .endpoints
            .iter()
            .map(|e| self.fleet.by_name(&e.name))
            .collect();
        let pools: Vec<_> = plan
            .pools
            .iter()
            .map(|pool| {
                let members = pool.members.iter();
                let members = members.filter_map(|m| Some((ids[m.endpoint]?, m.weight)));
                (self.pools.id(&pool.name), members.collect())
            })
            .collect();
        self.pools.replace(pools);
        self.times.weigh(plan);
        actions
    }

    /// Lets something happen to the fleet, and gives what comes free to those who wait.
    pub fn apply(
        &mut self,
        event: fleet::Event,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let actions = self.fleet.apply(event, now);
        let freed = actions.contains(&fleet::Action::Freed);
        let given = match freed && self.schedule.waiting() > 0 {
            true => self.schedule(schedule::Event::Freed, now),
            false => Vec::new(),
        };
        (actions, given)
    }

    /// Lets something happen to those who wait.
    pub fn schedule(&mut self, event: schedule::Event, now: Instant) -> Vec<schedule::Action> {
        let mut room = FleetRoom {
            fleet: &mut self.fleet,
            pools: &self.pools,
            times: &mut self.times,
            now,
        };
        self.schedule.apply(event, &mut room, now)
    }

    /// Why no endpoint of the pool could ever serve a need; `None` when one could, or when there is none at all.
    pub fn nobody_fits(&self, pool: PoolId, need: &Need) -> Option<String> {
        let members = self.pools.members(pool).iter();
        let mut nodes = members
            .filter_map(|(id, _)| self.fleet.get(*id))
            .map(fleet::Endpoint::node);
        let first = lacks(need, nodes.next()?)?;
        nodes
            .all(|node| lacks(need, node).is_some())
            .then_some(first)
    }
}

/// The fleet's view of a plan.
fn specs(plan: &Plan) -> Vec<fleet::Spec> {
    // A removed node may go on for as long as the most patient of the services that use it says.
    let mut drains = vec![Duration::ZERO; plan.endpoints.len()];
    for service in &plan.services {
        for member in &plan.pools[service.pool].members {
            drains[member.endpoint] = drains[member.endpoint].max(service.drain);
        }
    }
    // An endpoint that no pool holds is nobody's business; `check` has warned of it.
    plan.endpoints
        .iter()
        .zip(drains)
        .filter_map(|(endpoint, drain)| {
            Some(fleet::Spec {
                name: endpoint.name.clone(),
                node: plan.nodes[endpoint.node].facts.clone(),
                target: endpoint.target.clone(),
                slots: endpoint.slots,
                drained: plan.nodes[endpoint.node].drained,
                health: plan.services[endpoint.probed_by?].health,
                drain,
            })
        })
        .collect()
}
