use super::ticket::TicketId;
use serde::Serialize;
use std::time::Instant;
use tabane_api::{EndpointId, Terms};

/// Why a ticket got the endpoint it got.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whose.
    pub ticket: TicketId,
    /// When.
    pub at: Instant,
    /// What it got.
    pub endpoint: EndpointId,
    /// By which rule.
    pub how: How,
    /// What there was to choose from, with what each would have cost.
    pub considered: Vec<Considered>,
}

/// By which rule an endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum How {
    /// The policy picked it, by load or by cost.
    Picked,
    /// It was matched with all who wait.
    Matched {
        /// How many are planned to follow it on its slot.
        behind: usize,
    },
    /// It loses most by waiting: weight × age / seconds here.
    MostLost {
        /// That figure.
        loss: f64,
    },
    /// It had waited beside a free slot for as long as it may.
    OutOfPatience,
}

/// An endpoint that was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Considered {
    /// Which.
    pub endpoint: EndpointId,
    /// What it would have cost, in seconds.
    pub terms: Terms,
    /// Whether the work could have begun there at once.
    pub room: bool,
}
