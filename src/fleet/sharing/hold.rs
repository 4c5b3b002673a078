use super::wish::Wish;
use crate::config::plan::HoldPlan;
use std::time::{Duration, Instant};
use tabane_api::EndpointId;

/// What an endpoint has of its card.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Nobody knows what it has there: it is to be asked to let go.
    Unknown {
        /// Whether it held the card until now.
        held: bool,
    },
    /// It was asked to let go.
    Asked { held: bool, tries: u32 },
    /// It did not; it is asked again then.
    Failed {
        held: bool,
        tries: u32,
        again: Instant,
    },
    /// It has nothing there.
    Free,
    /// It cannot let go: its memory stays counted.
    Stays,
    /// It may work.
    Holds(Hold),
}

/// An endpoint's turn.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) since: Instant,
    /// When a person was last served.
    pub(super) served: Option<Instant>,
    /// Nobody has had the chance to be served yet: a turn in which nothing was done would be no progress.
    pub(super) fresh: bool,
    /// For whom it makes room.
    pub(super) yields_to: Option<EndpointId>,
}

/// How often one who lets go of nothing is asked until it is no longer waited for.
pub(super) const TRIES: u32 = 3;

// === impl Standing ===

impl Standing {
    pub(super) fn hold(&self) -> Option<&Hold> {
        match self {
            Standing::Holds(hold) => Some(hold),
            _ => None,
        }
    }

    pub(super) fn hold_mut(&mut self) -> Option<&mut Hold> {
        match self {
            Standing::Holds(hold) => Some(hold),
            _ => None,
        }
    }

    /// Whether it is known what it has there.
    pub(super) fn is_settled(&self) -> bool {
        matches!(
            self,
            Standing::Free | Standing::Stays | Standing::Holds { .. }
        )
    }

    pub(super) fn failed(held: bool, tries: u32, now: Instant) -> Self {
        // 1, 2, 4, … 30 s: a server that cannot let go is not worth more.
        let pause = Duration::from_secs(1 << tries.min(5)).min(Duration::from_secs(30));
        Standing::Failed {
            held,
            tries: tries + 1,
            again: now + pause,
        }
    }

    /// The word in the operator's API.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Standing::Unknown { .. } => "unknown",
            Standing::Asked { .. } => "releasing",
            Standing::Failed { .. } => "not_released",
            Standing::Free => "free",
            Standing::Stays => "stays",
            Standing::Holds(Hold {
                yields_to: None, ..
            }) => "holds",
            Standing::Holds(_) => "yields",
        }
    }
}

// === impl Hold ===

impl Hold {
    pub(super) fn new(now: Instant, fresh: bool, interactive: bool) -> Self {
        Hold {
            since: now,
            served: interactive.then_some(now),
            fresh,
            yields_to: None,
        }
    }

    /// Whether it must make room for a wish. `usable`: it could be given work; `idle`: it works on nothing.
    pub(super) fn must_yield(
        &self,
        wish: &Wish,
        plan: HoldPlan,
        usable: bool,
        idle: bool,
        now: Instant,
    ) -> bool {
        if self.fresh || self.yields_to.is_some() {
            return false;
        }
        if !usable && idle {
            return true;
        }
        if wish.interactive && now >= self.batch_from(plan) {
            return true;
        }
        let held = now.saturating_duration_since(self.since);
        held >= plan.min && (idle || held >= plan.max || wish.overdue <= now)
    }

    /// From when it counts as batch: nobody was served for `min` who was waiting for it.
    fn batch_from(&self, plan: HoldPlan) -> Instant {
        self.served.map_or(self.since, |served| served + plan.min)
    }

    /// When time alone may change whether it must yield.
    pub(super) fn due(&self, wish: &Wish, plan: HoldPlan) -> [Instant; 4] {
        [
            self.since + plan.min,
            self.since + plan.max.max(plan.min),
            wish.overdue.max(self.since + plan.min),
            self.batch_from(plan),
        ]
    }
}
