use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, Policy, Urgency};

/// Names a ticket; of two that came in the same instant, the lower came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub u64);

/// Names a pool for as long as the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// How many may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// How many of the service at once.
    pub max: usize,
    /// How long each: bounds the advice when to come back.
    pub max_wait: Duration,
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
    /// Endpoints that failed it before.
    pub excluded: Vec<EndpointId>,
    /// When the request came: a second attempt keeps its place.
    pub arrived: Instant,
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
    /// When the request came; the admin API shows how long ago.
    #[serde(skip)]
    pub arrived: Instant,
}

/// A ticket's place: the more urgent first, then who came first.
pub(super) type Place = (Urgency, Instant, TicketId);

// === impl Ticket ===

impl Ticket {
    pub(super) fn place(&self) -> Place {
        (self.need.urgency, self.arrived, self.id)
    }

    pub(super) fn view(&self, position: usize) -> WaitingView {
        WaitingView {
            ticket: self.id.0,
            service: self.service.to_string(),
            class: self.need.class.to_string(),
            urgency: self.need.urgency.value(),
            position,
            arrived: self.arrived,
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket {} of {}", self.id.0, self.service)
    }
}
