//! How many nodes a pool would need: for whoever starts and stops them.

use super::rooms::Rooms;
use super::world::World;
use super::{Dispatch, now};
use crate::config::plan::ScalePlan;
use crate::fleet::State;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What an autoscaler is told of a pool: numbers at the top, as KEDA's `metrics-api` reads them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScaleView {
    /// The pool.
    pub pool: String,
    /// How many nodes it should have.
    pub desired: u32,
    /// How many the file gives it.
    pub current: u32,
    /// How many of them take work.
    pub ready: u32,
    /// How many have not answered a probe yet.
    pub booting: u32,
    /// Slot-seconds of work that waits or is under way.
    pub backlog_seconds: f64,
    /// How long those that are ready need for it; 0 when none is.
    pub drain_seconds: f64,
    /// Since when the first of those who wait does, seconds.
    pub oldest_wait_seconds: f64,
    /// How many wait.
    pub waiting: usize,
    /// Whether anything waits or is under way.
    pub active: bool,
}

/// What there is to do, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    /// Slot-seconds of what waits and of what is under way.
    work_s: f64,
    /// Those of what waits.
    queued_s: f64,
    waiting: usize,
    at_work: u32,
    current: u32,
    /// Slots of a node, on average.
    slots: f64,
}

/// How many nodes that asks for.
///
/// Enough that all of it is worked off in `drain_in`; at least one while there is anything, and one more than there are
/// where something waits of which nobody knows how long it takes.
fn desired(load: Load, plan: ScalePlan) -> u32 {
    let active = load.waiting > 0 || load.at_work > 0;
    let each_s = plan.drain_in.as_secs_f64() * load.slots.max(1.0);
    let by_work = (load.work_s / each_s.max(1e-3)).ceil();
    let unknown = load.waiting > 0 && load.queued_s <= 0.0;
    let nodes = match (active, unknown) {
        (false, _) => 0.0,
        (true, true) => by_work.max(f64::from(load.current) + 1.0),
        (true, false) => by_work.max(1.0),
    };
    // A float beyond the range of u32 becomes its end.
    (nodes as u32).clamp(plan.min, plan.max.max(plan.min))
}

// === impl Dispatch ===

impl Dispatch {
    /// What an autoscaler is told of a pool; `None`: there is no such pool.
    pub fn scale(&self, pool: &str) -> Option<ScaleView> {
        let world = self.world()?;
        let mut core = self.0.core.lock();
        scale(&mut core.rooms, &world, pool, now())
    }

    /// How many nodes each pool of a service should have.
    pub fn scales(&self) -> Vec<ScaleView> {
        let Some(world) = self.world() else {
            return Vec::new();
        };
        let mut core = self.0.core.lock();
        let pools = world.plan.pools.iter();
        pools
            .filter_map(|pool| scale(&mut core.rooms, &world, &pool.name, now()))
            .collect()
    }
}

fn scale(rooms: &mut Rooms, world: &World, pool: &str, now: Instant) -> Option<ScaleView> {
    let index = world.plan.pools.iter().position(|p| &*p.name == pool)?;
    let services = || world.services.iter().filter(|s| s.plan.pool == index);
    let first = services().next()?;
    let id = first.pool;
    // Of several services on one pool, the one that is least patient, and the widest bounds.
    let plans = services().map(|service| service.plan.scale);
    let plan = plans.reduce(|a, b| ScalePlan {
        drain_in: a.drain_in.min(b.drain_in),
        min: a.min.max(b.min),
        max: a.max.max(b.max),
    })?;
    let mut nodes: BTreeMap<Arc<str>, (bool, bool)> = BTreeMap::new();
    let (mut slots, mut at_work) = (0, 0);
    for endpoint in rooms
        .pools
        .members(id)
        .iter()
        .filter_map(|(id, _)| rooms.fleet.get(*id))
    {
        let node = nodes.entry(endpoint.node().name.clone()).or_default();
        node.0 |= endpoint.is_usable();
        node.1 |= endpoint.state() == State::Unproven;
        slots += endpoint.slots();
        at_work += endpoint.at_work();
    }
    let ready = nodes.values().filter(|(usable, _)| *usable).count() as u32;
    let booting = nodes
        .values()
        .filter(|(usable, new)| *new && !usable)
        .count() as u32;
    let names: Vec<Arc<str>> = services()
        .map(|service| service.plan.name.clone())
        .collect();
    let waits = |name: &Arc<str>| rooms.schedule.waiting_in(name) + rooms.schedule.stored_in(name);
    let waiting: usize = names.iter().map(waits).sum();
    let oldest = names
        .iter()
        .filter_map(|name| rooms.schedule.oldest(name))
        .min();
    let queued: f64 = names
        .iter()
        .map(|name| rooms.schedule.backlog(name).mean_s())
        .sum();
    let (under_way, ready_slots) = rooms.busy(id, |_| true, now);
    let work_s = queued + under_way.mean_s();
    let load = Load {
        work_s,
        queued_s: queued,
        waiting,
        at_work,
        current: nodes.len() as u32,
        slots: f64::from(slots) / nodes.len().max(1) as f64,
    };
    Some(ScaleView {
        pool: pool.to_owned(),
        desired: desired(load, plan),
        current: load.current,
        ready,
        booting,
        backlog_seconds: work_s,
        drain_seconds: if ready_slots == 0 {
            0.0
        } else {
            work_s / f64::from(ready_slots)
        },
        oldest_wait_seconds: oldest.map_or(0.0, |since| {
            now.saturating_duration_since(since).as_secs_f64()
        }),
        waiting,
        active: waiting > 0 || at_work > 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_nodes_are_wanted_as_work_it_off_in_time() {
        let plan = ScalePlan {
            drain_in: Duration::from_secs(60),
            min: 0,
            max: 5,
        };
        let load = |work_s, waiting, at_work, slots| Load {
            queued_s: work_s,
            work_s,
            waiting,
            at_work,
            current: 2,
            slots,
        };
        for (load, wants) in [
            (load(0.0, 0, 0, 1.0), 0),
            (load(5.0, 0, 1, 1.0), 1),
            (load(60.0, 3, 1, 1.0), 1),
            (load(61.0, 3, 1, 1.0), 2),
            (load(240.0, 9, 1, 2.0), 2),
            (load(1e9, 9, 1, 1.0), 5),
            // Nobody knows how long it takes.
            (load(0.0, 1, 0, 1.0), 3),
        ] {
            assert_eq!(desired(load, plan), wants, "{load:?}");
        }
        let unknown = Load {
            queued_s: 0.0,
            ..load(40.0, 200, 8, 1.0)
        };
        assert_eq!(desired(unknown, plan), 3, "of what waits nothing is known");
        let kept = ScalePlan { min: 2, ..plan };
        assert_eq!(desired(load(0.0, 0, 0, 1.0), kept), 2);
    }
}
