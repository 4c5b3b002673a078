//! What can be asked of those who wait.

use super::lanes::Lanes;
use super::line::Line;
use super::span::Span;
use super::ticket::{Ticket, TicketId, WaitingView};
use super::{Band, Decision, Room, Schedule, Want, pass};
use std::time::Instant;
use tabane_api::{Draw, EndpointId};

// === impl Schedule ===

impl Schedule {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many of a service wait with a connection.
    pub fn waiting_in(&self, service: &str) -> usize {
        self.services.get(service).map_or(0, |service| service.held)
    }

    /// How many of a service wait that are stored.
    pub fn stored_in(&self, service: &str) -> usize {
        let service = self.services.get(service);
        service.map_or(0, |service| {
            let all: usize = service.lines().map(Line::len).sum();
            all.saturating_sub(service.held)
        })
    }

    /// How many of a tenant wait for a service.
    pub fn waiting_of(&self, service: &str, tenant: &str) -> usize {
        let lines = self.services.get(service).map(|service| &service.lines);
        let line = lines.and_then(|lines| lines.get(tenant));
        line.map_or(0, |(line, _)| line.len())
    }

    /// How many of the same service are expected to be served before a ticket; `None` when it does not wait.
    pub fn rank(&self, id: TicketId) -> Option<usize> {
        Some(self.before(id)?.0)
    }

    /// How many of the same service are expected to be served before a ticket, and the time their work is expected to
    /// take, one after the other; `None` when it does not wait.
    ///
    /// Those of its own tenant that stand before it, and of each other tenant as much as that one's share is meanwhile.
    pub fn before(&self, id: TicketId) -> Option<(usize, Span)> {
        let ticket = self.ticket(id)?;
        let lines = &self.services.get(&ticket.service)?.lines;
        let (own, weight) = lines.get(&ticket.need.tenant)?;
        let (mut count, mut time) = own.before(ticket.place());
        let (own_count, own_s) = (count, time.mean_s());
        for (tenant, (line, others)) in lines {
            if *tenant == ticket.need.tenant {
                continue;
            }
            let share = f64::from(*others) / f64::from((*weight).max(1));
            let most = ((own_count as f64 * share).floor() as usize).min(line.len());
            let total = line.total();
            let part = match total.mean_s() > 0.0 {
                true => (own_s * share / total.mean_s()).min(1.0),
                false => 0.0,
            };
            count += most;
            time = time + total.part(part);
        }
        Some((count, time))
    }

    /// The time that the work of all who wait for a service is expected to take, one after the other.
    pub fn backlog(&self, service: &str) -> Span {
        let service = self.services.get(service);
        service.map_or(Span::default(), |service| {
            service.lines().map(Line::total).sum()
        })
    }

    /// The first so many of those who wait, in the order they would be served if all wanted the same and were one tenant's.
    pub fn snapshot(&self, most: usize) -> Vec<WaitingView> {
        let mut first: Vec<(Band, &Ticket)> = Vec::new();
        for queue in self.queues.values() {
            for (band, tenants) in [Band::Interactive, Band::Rest]
                .into_iter()
                .zip(&queue.bands)
            {
                let lanes = tenants.values();
                first.extend(lanes.flat_map(|lanes| lanes.first(most)).map(|t| (band, t)));
            }
        }
        first.sort_by_key(|(band, ticket)| (*band, ticket.place()));
        first.truncate(most);
        let views = first.into_iter().enumerate();
        views
            .map(|(position, (_, ticket))| ticket.view(position))
            .collect()
    }

    /// Someone who waits.
    pub fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        let (domain, band, tenant) = self.waiting.get(&id)?;
        self.queues.get(domain)?.bands[*band as usize]
            .get(tenant)?
            .get(id)
    }

    /// Since when the first of those who wait for a service does.
    pub fn oldest(&self, service: &str) -> Option<Instant> {
        let queues = self.queues.values().flat_map(|queue| &queue.bands);
        let lanes = queues.flat_map(|band| band.values());
        // Of one lane, the one that stands first need not be the one that waits longest, but it is near enough.
        let heads = lanes.flat_map(Lanes::heads);
        let of_service = heads.filter(|ticket| *ticket.service == *service);
        of_service.map(|ticket| ticket.since).min()
    }

    /// The first of those who wait that is asked for.
    pub fn find(&self, is_asked: impl Fn(&Ticket) -> bool) -> Option<&Ticket> {
        let queues = self.queues.values().flat_map(|queue| &queue.bands);
        let mut all = queues.flat_map(|band| band.values()).flat_map(Lanes::all);
        all.find(|ticket| is_asked(ticket))
    }

    /// Whether a ticket waits.
    pub fn is_waiting(&self, ticket: TicketId) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// What a ticket would get now if nobody else waited; `None`: it would wait.
    pub fn would(
        &self,
        ticket: &Ticket,
        room: &dyn Room,
        draw: &mut dyn Draw,
        now: Instant,
    ) -> Option<EndpointId> {
        let may = self.may_have_more(ticket);
        may.then(|| pass::alone(ticket, room, draw, now))?
    }

    /// Who waits for a card that another service holds, after the last pass.
    pub fn wants(&self) -> impl Iterator<Item = &Want> {
        self.wants.values().flatten()
    }

    /// What was decided since the last call.
    pub fn decisions(&mut self) -> std::vec::Drain<'_, Decision> {
        self.decisions.drain(..)
    }

    /// When [`Event::Freed`] should come though nothing came free: someone waits beside a free slot.
    pub fn next_due(&self) -> Option<Instant> {
        self.look_again
    }
}
