//! Whose turn it is: tenants in order, kept so while they are served.

use super::Schedule;
use super::queue::Band;
use super::ticket::Place;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A tenant, and what says when its turn is.
pub(super) type TurnOf = (Had, u32, Option<Place>, Arc<str>);

/// What a tenant has had, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Had(f64);

// === impl Had ===

impl PartialEq for Had {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Had {}

impl PartialOrd for Had {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Had {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

// === impl Schedule ===

impl Schedule {
    /// Whose turn it is, in order: the tenant that has had least first.
    pub(super) fn turns(&self, domain: u32, band: Band) -> BTreeSet<TurnOf> {
        let queue = self.queues.get(&domain).into_iter();
        let tenants = queue.flat_map(|queue| queue.bands[band as usize].keys());
        let turns = tenants.filter_map(|tenant| self.turn_of(domain, band, tenant));
        turns.collect()
    }

    /// Where a tenant stands: by what it has had, of those who have had the same by what it has at work, and then by who
    /// came first. `None`: it waits for nothing.
    pub(super) fn turn_of(&self, domain: u32, band: Band, tenant: &Arc<str>) -> Option<TurnOf> {
        let queue = self.queues.get(&domain)?;
        let lanes = queue.bands[band as usize].get(tenant)?;
        let at_work = self.at_work.get(tenant).copied().unwrap_or(0);
        let had = Had(queue.ledger.had(tenant));
        Some((had, at_work, lanes.first_place(), tenant.clone()))
    }

    /// Whether only one tenant waits.
    pub(super) fn is_alone(&self, domain: u32, band: Band) -> bool {
        let queue = self.queues.get(&domain);
        queue.is_some_and(|queue| queue.bands[band as usize].len() == 1)
    }
}
