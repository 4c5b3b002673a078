//! The rooms of floor 2, and where they meet: pure, on any clock, so that what is simulated is what is done.

use super::pools::Pools;
use super::room::{FleetRoom, lacks, share};
use super::times::Times;
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
            decided: VecDeque::new(),
        }
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
    pub fn schedule(&mut self, event: schedule::Event, now: Instant) -> Vec<schedule::Action> {
        self.times.refresh();
        let mut room = FleetRoom {
            fleet: &mut self.fleet,
            pools: &self.pools,
            times: &mut self.times,
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
        if let Some((seconds, slots)) = held {
            let of = self.fleet.get(endpoint).map_or(1, fleet::Endpoint::slots);
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
    pub fn regroup(&mut self, now: Instant) {
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
