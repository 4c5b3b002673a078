use std::time::{Duration, Instant};
use tabane_api::EndpointId;

/// Someone waits who could be served by an endpoint that does not hold its card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Want {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Since when.
    pub since: Instant,
    /// Whether a person waits.
    pub interactive: bool,
    /// How long it may be made to wait.
    pub patience: Duration,
}

/// All who want an endpoint, as its card sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Since when the one waits who has waited longest.
    pub(super) since: Instant,
    /// Since when somebody always did: who waits at the head of a lane changes, and may have just come.
    listed: Instant,
    /// Whether a person is among them.
    pub(super) interactive: bool,
    /// When somebody's patience is over.
    pub(super) overdue: Instant,
}

/// Whose turn is first, lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Room was made for it.
    Next,
    /// It has waited longer than it should, and comes before all that has not: else two who are interactive could
    /// take turns for ever while a third waits.
    Overdue,
    /// A person waits.
    Interactive,
    Other,
}

// === impl Wish ===

impl Wish {
    /// Of one who wants it; `before` is what was wished until now.
    pub(super) fn new(want: &Want, before: Option<&Wish>, now: Instant) -> Self {
        let listed = before.map_or(now, |wish| wish.listed);
        let since = want.since.min(listed);
        Wish {
            since,
            listed,
            interactive: want.interactive,
            overdue: since + want.patience,
        }
    }

    /// Another wants it as well.
    pub(super) fn join(&mut self, other: Wish) {
        self.since = self.since.min(other.since);
        self.interactive |= other.interactive;
        self.overdue = self.overdue.min(other.overdue);
    }

    /// Its place among those who wait for the card.
    pub(super) fn place(&self, next: bool, now: Instant) -> impl Ord + use<> {
        let class = match () {
            () if next => Class::Next,
            () if self.overdue <= now => Class::Overdue,
            () if self.interactive => Class::Interactive,
            () => Class::Other,
        };
        (class, self.since)
    }
}
