use super::pools::Pools;
use super::times::Times;
use crate::fleet::Fleet;
use crate::schedule::{Room, Ticket};
use std::time::Instant;
use tabane_api::{Candidate, EndpointId, Need, NodeFacts};

/// Where fleet and schedule meet: who could serve a ticket, and the taking of a slot.
pub(super) struct FleetRoom<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) pools: &'a Pools,
    pub(super) times: &'a mut Times,
    pub(super) now: Instant,
}

impl Room for FleetRoom<'_> {
    fn candidates<'b>(&'b self, ticket: &Ticket, into: &mut Vec<Candidate<'b>>) {
        let members = self.pools.members(ticket.pool);
        into.extend(
            members
                .iter()
                .filter_map(|&(id, weight)| self.candidate(id, weight, &ticket.need)),
        );
        // An endpoint that failed this request is passed over only while there is another: a pool of one
        // is tried again rather than given up.
        if !ticket.excluded.is_empty() && into.iter().any(|c| !ticket.excluded.contains(&c.id)) {
            into.retain(|c| !ticket.excluded.contains(&c.id));
        }
    }

    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> bool {
        if !self.fleet.take(endpoint, ticket.need.slots, self.now) {
            return false;
        }
        if ticket.need.interactive {
            self.fleet.serves_person(endpoint, self.now);
        }
        if let Some(endpoint) = self.fleet.get(endpoint) {
            let Ticket {
                id, service, need, ..
            } = ticket;
            self.times.began(*id, service, need, endpoint, self.now);
        }
        true
    }
}

impl FleetRoom<'_> {
    fn candidate(&self, id: EndpointId, weight: u32, need: &Need) -> Option<Candidate<'_>> {
        let endpoint = self.fleet.get(id).filter(|e| e.is_usable())?;
        lacks(need, endpoint.node())
            .is_none()
            .then(|| endpoint.candidate(weight))
    }
}

/// What a node lacks for a need; `None` when it fits.
pub(super) fn lacks(need: &Need, node: &NodeFacts) -> Option<String> {
    if node.vram_mib < need.vram_mib {
        return Some(format!(
            "it needs {} MiB of GPU memory, node `{}` has {}",
            need.vram_mib, node.name, node.vram_mib
        ));
    }
    need.labels
        .iter()
        .find(|(name, value)| node.labels.get(name) != Some(value))
        .map(|(name, value)| {
            format!(
                "it needs the label `{name}: {value}`, which node `{}` does not carry",
                node.name
            )
        })
}
