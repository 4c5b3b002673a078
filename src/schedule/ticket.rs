use super::span::Span;
use crate::config::plan::PricePlan;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, Policy, Service, Urgency};

/// Names a ticket; of two that came in the same instant, the lower came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub u64);

/// Names a pool for as long as the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// Whose turn is first among the equally urgent: whoever holds a connection, since a person may be looking at it;
/// then what was accepted for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// A client holds its connection since then. A second attempt keeps its turn.
    Held(Instant),
    /// A job, by its number in the order of acceptance, which restarts do not change.
    Stored(i64),
}

/// How many who hold a connection may wait, and how long. What is stored has no bound here: it was bounded when it
/// was accepted, and refusing it now would break a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// How many of the service at once.
    pub max: usize,
    /// How long each: bounds the advice when to come back.
    pub max_wait: Duration,
}

/// What a tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its weight against others, 1.. .
    pub weight: u32,
    /// How many slots its work may take at once; `None`: as many as there are.
    pub most: Option<u32>,
}

impl Default for Share {
    fn default() -> Self {
        Share {
            weight: 1,
            most: None,
        }
    }
}

/// Someone waiting for a need to be met.
#[derive(Clone)]
pub struct Ticket {
    /// Its number.
    pub id: TicketId,
    /// The service it is for.
    pub service: Arc<str>,
    /// Where that service's endpoints are.
    pub pool: PoolId,
    /// What it needs.
    pub need: Need,
    /// Who chooses for it: the policy of the world it began with.
    pub policy: Arc<dyn Policy>,
    /// What knows its API, and what more a need costs there; `None`: learned times alone count.
    pub kind: Option<Arc<dyn Service>>,
    /// What its service may spend.
    pub price: PricePlan,
    /// Endpoints that failed it before.
    pub excluded: Vec<EndpointId>,
    /// Endpoints that others with its needs may get, and it may not: it is too large for them, or its class is. Who has
    /// others of these stands in another lane.
    pub barred: Vec<EndpointId>,
    /// Its turn among the equally urgent.
    pub turn: Turn,
    /// Since when it waits, over all its attempts.
    pub since: Instant,
    /// How long it was expected to wait when it came, seconds; 0 where nobody asked.
    pub before_s: f64,
    /// Its tenant's share, and how many slots that one may have at once.
    pub share: Share,
    /// How long it may be made to wait, beside an endpoint that is free, for a better one.
    pub patience: Duration,
    /// How long its work is expected to take; nothing where nobody knows.
    pub expected: Span,
    /// The bounds of its service's queue.
    pub queue: QueueLimits,
}

/// A ticket as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct WaitingView {
    /// The ticket's number.
    pub ticket: u64,
    /// The service it is for.
    pub service: String,
    /// What the kind calls such a request.
    pub class: String,
    /// 0 (first) to 7 (last).
    pub urgency: u8,
    /// How many stand before it, over all services.
    pub position: usize,
    /// Whether it is a job that was accepted for later; else a client holds its connection.
    pub stored: bool,
}

/// A ticket's place: the more urgent first, then by turn.
pub(super) type Place = (Urgency, Turn, TicketId);

// === impl Ticket ===

impl Ticket {
    pub(super) fn place(&self) -> Place {
        (self.need.urgency, self.turn, self.id)
    }

    pub(super) fn is_stored(&self) -> bool {
        matches!(self.turn, Turn::Stored(_))
    }

    pub(super) fn view(&self, position: usize) -> WaitingView {
        WaitingView {
            ticket: self.id.0,
            service: self.service.to_string(),
            class: self.need.class.to_string(),
            urgency: self.need.urgency.value(),
            position,
            stored: self.is_stored(),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket {} of {}", self.id.0, self.service)
    }
}
