//! The rooms of floor 2, and where they meet: pure, on any clock, so that what is simulated is what is done.

use super::pools::Pools;
use super::room::{FleetRoom, lacks};
use super::times::Times;
use crate::fleet::{self, Fleet};
use crate::schedule::{self, PoolId, Schedule};
use std::time::Instant;
use tabane_api::Need;

/// How often a card that changes hands may have others given, in one instant: each time somebody holds who did not, so it
/// comes to an end by itself, long before this.
const TURNS: usize = 64;

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

    /// Lets something happen to the fleet, and gives what comes free to those who wait.
    pub fn apply(
        &mut self,
        event: fleet::Event,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let mut actions = self.fleet.apply(event, now);
        let freed = actions.contains(&fleet::Action::Freed);
        let mut given = Vec::new();
        if freed && self.schedule.waiting() > 0 {
            let (more, to_tickets) = self.schedule(schedule::Event::Freed, now);
            actions.extend(more);
            given = to_tickets;
        }
        (actions, given)
    }

    /// Lets something happen to those who wait. Where cards are shared, those who hold them are told who waits; what comes
    /// of that is given away as well.
    pub fn schedule(
        &mut self,
        event: schedule::Event,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let mut given = self.pass(event, now);
        let mut actions = Vec::new();
        if !self.fleet.shares() {
            return (actions, given);
        }
        for _ in 0..TURNS {
            let wanted = fleet::Event::Wanted(self.wants(now));
            let more = self.fleet.apply(wanted, now);
            let freed = more.contains(&fleet::Action::Freed);
            actions.extend(more);
            if !freed {
                break;
            }
            given.extend(self.pass(schedule::Event::Freed, now));
        }
        (actions, given)
    }

    fn pass(&mut self, event: schedule::Event, now: Instant) -> Vec<schedule::Action> {
        let mut room = FleetRoom {
            fleet: &mut self.fleet,
            pools: &self.pools,
            times: &mut self.times,
            now,
        };
        self.schedule.apply(event, &mut room, now)
    }

    /// Who waits for endpoints that do not hold their card.
    fn wants(&mut self, now: Instant) -> Vec<fleet::Want> {
        let room = FleetRoom {
            fleet: &mut self.fleet,
            pools: &self.pools,
            times: &mut self.times,
            now,
        };
        let wants = self.schedule.wants(&room).into_iter();
        let want = |want: schedule::Want| fleet::Want {
            endpoint: want.endpoint,
            since: want.since,
            interactive: want.interactive,
            patience: want.patience,
        };
        wants.map(want).collect()
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
