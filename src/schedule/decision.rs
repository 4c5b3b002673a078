use super::ticket::{AskedAs, Ticket, TicketId};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Terms};

/// Why a ticket got the endpoint it got.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whose.
    pub ticket: TicketId,
    /// By what its owner may ask about it.
    pub asked_as: AskedAs,
    /// The service it is for.
    pub service: Arc<str>,
    /// What its kind calls such requests.
    pub class: Arc<str>,
    /// Who asked.
    pub tenant: Arc<str>,
    /// How long it had waited, over all its attempts.
    pub waited: Duration,
    /// Who could not serve it then, and why; empty where nobody looked.
    pub unfit: Vec<(EndpointId, String)>,
    /// When.
    pub at: Instant,
    /// What it got.
    pub endpoint: EndpointId,
    /// By which rule.
    pub how: How,
    /// What there was to choose from, with what each would have cost; of many, the 32 cheapest.
    pub considered: Vec<Considered>,
}

impl Decision {
    /// A ticket got an endpoint. Whoever was considered is not among the unfit, whatever there is against it.
    pub(super) fn of(
        ticket: &Ticket,
        at: Instant,
        endpoint: EndpointId,
        how: How,
        considered: Vec<Considered>,
        mut unfit: Vec<(EndpointId, String)>,
    ) -> Self {
        unfit.retain(|(id, _)| considered.iter().all(|c| c.endpoint != *id));
        Decision {
            ticket: ticket.id,
            asked_as: ticket.asked_as.clone(),
            service: ticket.service.clone(),
            class: ticket.need.class.clone(),
            tenant: ticket.need.tenant.clone(),
            waited: at.saturating_duration_since(ticket.since),
            unfit,
            at,
            endpoint,
            how,
            considered,
        }
    }
}

/// By which rule an endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum How {
    /// The policy picked it, by load or by cost.
    Picked,
    /// One that came after it, and is like it, would have gone there; who came first goes first.
    InTurn,
    /// It was matched with all who wait.
    Matched {
        /// How many are planned to follow it on its slot.
        behind: usize,
    },
    /// Nothing like it ever ran: one goes first, so that it is known how long the others take.
    New,
    /// It loses most by waiting: weight × age / seconds here.
    MostLost {
        /// That figure.
        loss: f64,
    },
    /// It had waited beside a free slot for as long as it may.
    OutOfPatience,
}

/// So many of what was considered are kept for each decision: the cheapest, and what was chosen.
const KEPT: usize = 32;

/// Of all that was considered, what is kept: decisions are kept by the thousand, and pools may be as large.
pub(super) fn worth_keeping(mut all: Vec<Considered>, chosen: EndpointId) -> Vec<Considered> {
    if all.len() > KEPT {
        let cost = |c: &Considered| (c.endpoint != chosen, c.terms.total_s());
        all.select_nth_unstable_by(KEPT - 1, |a, b| {
            let (a, b) = (cost(a), cost(b));
            a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1))
        });
        all.truncate(KEPT);
        all.sort_unstable_by_key(|c| c.endpoint);
        all.shrink_to_fit();
    }
    all
}

/// An endpoint that was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Considered {
    /// Which.
    pub endpoint: EndpointId,
    /// What it would have cost, in seconds. Where each goes in turn, its wait counts those who were to go before it.
    pub terms: Terms,
    /// Whether the work could have begun there at once.
    pub room: bool,
}
