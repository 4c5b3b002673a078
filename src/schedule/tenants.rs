//! Whose turn it is: what each tenant has had of the nodes, by its weight.

use std::collections::HashMap;
use std::sync::Arc;

/// How many node-seconds each tenant has had, divided by its weight: whoever has had least goes first.
///
/// One who comes back after having had nothing to ask for is lifted to the least of those who wait: time in which it asked
/// for nothing is not saved up, and whoever used what nobody wanted owes nothing for it.
/// Source: the virtual token counter (Sheng et al., OSDI 2024), with node-seconds for tokens.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    had: HashMap<Arc<str>, f64>,
    /// What the last who was served had had before: where one is lifted to when nobody waits.
    floor: f64,
}

// === impl Ledger ===

impl Ledger {
    /// What a tenant has had.
    pub(super) fn had(&self, tenant: &str) -> f64 {
        self.had.get(tenant).copied().unwrap_or(self.floor)
    }

    /// A tenant asks, and had nothing to ask for before. `waiting`: those who wait.
    pub(super) fn comes<'a>(
        &mut self,
        tenant: &Arc<str>,
        waiting: impl Iterator<Item = &'a Arc<str>>,
    ) {
        let least = waiting.map(|other| self.had(other)).min_by(f64::total_cmp);
        let lifted = least.unwrap_or(self.floor);
        let had = self.had.entry(tenant.clone()).or_insert(lifted);
        *had = had.max(lifted);
    }

    /// A tenant is served: it has had as much as its work is expected to take.
    pub(super) fn charge(&mut self, tenant: &Arc<str>, node_s: f64, weight: u32) {
        let floor = self.floor;
        let had = self.had.entry(tenant.clone()).or_insert(floor);
        self.floor = self.floor.max(*had);
        *had += node_s / f64::from(weight.max(1));
    }

    /// Its work took this much more, or less, than was expected.
    pub(super) fn correct(&mut self, tenant: &str, node_s: f64, weight: u32) {
        if let Some(had) = self.had.get_mut(tenant) {
            *had += node_s / f64::from(weight.max(1));
        }
    }

    /// Forgets those who are not to be kept and have had no more than one who would come now.
    pub(super) fn forget(&mut self, keep: impl Fn(&str) -> bool) {
        let floor = self.floor;
        self.had.retain(|tenant, had| *had > floor || keep(tenant));
    }

    pub(super) fn len(&self) -> usize {
        self.had.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_asked_for_nothing_is_lifted_and_never_credited() {
        let mut ledger = Ledger::default();
        let (busy, idle): (Arc<str>, Arc<str>) = ("busy".into(), "idle".into());
        ledger.comes(&busy, [].iter());
        for _ in 0..100 {
            ledger.charge(&busy, 10.0, 1);
        }
        ledger.comes(&idle, [busy.clone()].iter());
        assert_eq!(ledger.had("idle"), 1000.0);
        ledger.charge(&idle, 10.0, 2);
        assert_eq!(ledger.had("idle"), 1005.0, "by its weight");
        // Nobody waits: it comes to where things stand.
        ledger.comes(&"new".into(), [].iter());
        assert_eq!(ledger.had("new"), 1000.0);
        ledger.comes(&busy, ["new".into()].iter());
        assert_eq!(ledger.had("busy"), 1000.0, "what was had stays");
        ledger.correct("busy", -4.0, 1);
        assert_eq!(ledger.had("busy"), 996.0);
        ledger.forget(|_| false);
        assert_eq!(ledger.len(), 1, "{ledger:?}");
    }
}
