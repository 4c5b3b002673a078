use super::PoolId;
use super::ticket::Ticket;
use tabane_api::{Candidate, EndpointId};

/// How long a slot is taken of which nothing is known.
const UNKNOWN_S: f64 = 1.0;

/// Who could serve, and the taking of slots. Dispatch has one, over the fleet.
pub trait Room {
    /// Puts everyone into `into` who is usable and fit for the ticket, with room or without, and terms if its policy asks.
    fn candidates<'a>(&'a self, ticket: &Ticket, into: &mut Vec<Candidate<'a>>);

    /// One of those, as it is now.
    fn candidate<'a>(&'a self, ticket: &Ticket, endpoint: EndpointId) -> Option<Candidate<'a>> {
        let mut among = Vec::new();
        self.candidates(ticket, &mut among);
        among.into_iter().find(|one| one.id == endpoint)
    }

    /// Whether what is given away on one endpoint changes nothing of what the ticket could have on others.
    fn is_steady(&self, _ticket: &Ticket) -> bool {
        true
    }

    /// Takes the slots of the ticket's need, and its work begins there. Answers how many node-seconds it is expected to
    /// take; `None` when they do not fit.
    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> Option<f64>;

    /// Who cannot serve the ticket now, and why; nobody where it is not worth the time to look.
    fn unfit(&self, _ticket: &Ticket) -> Vec<(EndpointId, String)> {
        Vec::new()
    }

    /// Whether any endpoint of a pool has a free slot, or could have one if another service let go of its card.
    fn has_room(&self, _pool: PoolId) -> bool {
        true
    }

    /// Whether nothing is known of how long a ticket's class takes anywhere, and nothing is under way that will tell of it or
    /// of another such class of its service.
    fn is_new(&self, _ticket: &Ticket) -> bool {
        false
    }

    /// When the slots of an endpoint are free, seconds from now, soonest first; 0 for those that are.
    fn slots(&self, endpoint: &Candidate<'_>) -> Vec<f64> {
        let free = endpoint.slots.saturating_sub(endpoint.used) as usize;
        let mut slots = vec![0.0; free];
        slots.resize(
            endpoint.slots as usize,
            endpoint.terms.wait_s.max(UNKNOWN_S),
        );
        slots
    }
}
