//! The rooms of floor 2, and where they meet: pure, on any clock, so that what is simulated is what is done.

use super::pools::Pools;
use super::room::{FleetRoom, lacks, share};
use super::spending::Spending;
use super::times::{Held, Times};
use crate::config::plan::Plan;
use crate::fleet::{self, End, Fleet};
use crate::schedule::{self, Decision, PoolId, Schedule, TicketId};
use std::collections::VecDeque;
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
    /// What services spend.
    spending: Spending,
    /// What was decided last.
    decided: VecDeque<Decision>,
}

/// So many decisions are kept, for whoever asks why.
const KEPT: usize = 4096;

/// How the work of a ticket ended.
#[derive(Clone, Copy, Debug)]
pub struct Over<'a> {
    /// Whose it was.
    pub ticket: TicketId,
    /// Where.
    pub endpoint: EndpointId,
    /// That one's name.
    pub name: &'a str,
    /// How many slots it held.
    pub slots: u32,
    /// How it ended.
    pub end: End,
    /// How long its slots cool when it was broken off.
    pub cool_down: Duration,
    /// Whether what was asked for was done: how long it took is worth learning.
    pub well: bool,
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
            spending: Spending::default(),
            decided: VecDeque::new(),
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
        self.times.weigh(plan, &self.fleet);
        self.regroup(now);
        actions
    }

    /// Lets something happen to the fleet, and gives what comes free to those who wait.
    pub fn apply(
        &mut self,
        event: fleet::Event,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        if let fleet::Event::Probed {
            endpoint,
            outcome: Ok(vitals),
            ..
        } = &event
        {
            self.times.probed(*endpoint, vitals);
        }
        let actions = self.fleet.apply(event, now);
        for action in &actions {
            if let fleet::Action::Down(endpoint, _) | fleet::Action::Gone(endpoint) = action {
                self.times.emptied(*endpoint);
            }
        }
        let freed = actions.contains(&fleet::Action::Freed);
        let given = match freed && self.schedule.waiting() > 0 {
            true => self.schedule(schedule::Event::Freed, now),
            false => Vec::new(),
        };
        (actions, given)
    }

    /// Lets something happen to those who wait.
    pub fn schedule(&mut self, mut event: schedule::Event, now: Instant) -> Vec<schedule::Action> {
        if let schedule::Event::Arrived(ticket) = &mut event
            && !ticket.price.spill_after.is_zero()
        {
            ticket.before_s = self.unpaid_wait_s(ticket, now);
        }
        self.times.refresh();
        let mut room = FleetRoom {
            fleet: &mut self.fleet,
            pools: &self.pools,
            times: &mut self.times,
            spending: &mut self.spending,
            now,
        };
        let actions = self.schedule.apply(event, &mut room, now);
        self.decided.extend(self.schedule.decisions());
        let surplus = self.decided.len().saturating_sub(KEPT);
        self.decided.drain(..surplus);
        actions
    }

    /// When time alone changes something.
    pub fn next_due(&self) -> Option<Instant> {
        let dues = [self.fleet.next_due(), self.schedule.next_due()];
        dues.into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let (actions, mut given) = self.apply(fleet::Event::Tick, now);
        if self.schedule.next_due().is_some_and(|due| due <= now) {
            given.extend(self.schedule(schedule::Event::Freed, now));
        }
        (actions, given)
    }

    /// A ticket's work is over on an endpoint: what went well is learned from, its tenant is charged, and its slots go back.
    pub fn ended(
        &mut self,
        over: &Over<'_>,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let Over {
            ticket,
            endpoint,
            name,
            slots,
            end,
            cool_down,
            well,
        } = *over;
        let held = self
            .times
            .ended(ticket, (endpoint, name), well && end == End::Done, now);
        if let Some(Held {
            service,
            seconds,
            slots,
            usd,
        }) = held
        {
            let (of, usd_per_hour) = self.fleet.get(endpoint).map_or((1, 0.0), |endpoint| {
                (endpoint.slots(), endpoint.node().usd_per_hour)
            });
            let cost = share(slots, of) * seconds * usd_per_hour / 3600.0;
            self.spending.spend(&service, cost - usd, now);
            self.schedule(
                schedule::Event::Ended(ticket, share(slots, of) * seconds),
                now,
            );
        }
        let event = fleet::Event::Ended {
            endpoint,
            slots,
            end,
            cool_down,
        };
        self.apply(event, now)
    }

    /// Pools that share nodes take turns among the same tenants: which of them belong together.
    fn regroup(&mut self, now: Instant) {
        let domains = self.pools.domains(&self.fleet);
        self.schedule(schedule::Event::Domains(domains), now);
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
