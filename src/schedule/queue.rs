use super::lanes::Lanes;
use super::line::Line;
use super::rate::Rate;
use super::tenants::Ledger;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is interactive goes before all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Band {
    Interactive,
    Rest,
}

/// Those who wait in one domain.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) bands: [BTreeMap<Arc<str>, Lanes>; 2],
    pub(super) ledger: Ledger,
}

#[derive(Debug, Default)]
pub(super) struct Service {
    /// How many hold a connection.
    pub(super) held: usize,
    /// By tenant: each has its own line, since they take turns.
    pub(super) lines: BTreeMap<Arc<str>, (Line, u32)>,
    pub(super) rate: Rate,
}

// === impl Queue ===

impl Queue {
    pub(super) fn band(&mut self, band: Band) -> &mut BTreeMap<Arc<str>, Lanes> {
        &mut self.bands[band as usize]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bands.iter().all(BTreeMap::is_empty)
    }

    pub(super) fn waits(&self, tenant: &str) -> bool {
        self.bands.iter().any(|band| band.contains_key(tenant))
    }
}

// === impl Service ===

impl Service {
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.values().map(|(line, _)| line)
    }
}
