use super::{Room, Schedule};
use std::time::{Duration, Instant};
use tabane_api::EndpointId;

/// Somebody waits who could be served by an endpoint that does not hold its card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

// === impl Schedule ===

impl Schedule {
    /// Who waits for endpoints that do not hold their card: the heads of lanes, each with all that could serve it.
    pub fn wants(&self, room: &dyn Room) -> Vec<Want> {
        let mut wants = Vec::new();
        let mut last = None;
        while let Some(ticket) = self.lanes.next_head(last) {
            last = Some(ticket.place());
            let mut among = Vec::new();
            room.candidates(ticket, &mut among);
            let without = among.iter().filter(|c| !c.held && ticket.need.slots > 0);
            wants.extend(without.map(|candidate| Want {
                endpoint: candidate.id,
                since: ticket.since,
                interactive: ticket.need.interactive,
                patience: ticket.patience,
            }));
        }
        wants
    }
}
