//! Who waits, and who is next.
//!
//! No IO, no clock; chance only as it was given. `apply(event, room, now)` changes the state and says who got
//! what. Who could serve is asked of the [`Room`], at the moment a slot is given: whoever waits sees a node
//! that came a moment ago.
//!
//! Rules.
//! - The more urgent first, across all services: they may share endpoints. Of the equally urgent, whoever holds
//!   a connection goes before what is stored; then who came first, or was accepted first.
//! - Tickets that want the same thing stand in one *lane*. Only the heads of lanes are tried, in that order,
//!   so that one who waits for a certain node (a session, a strict hash) does not hold up the others, and a
//!   thousand who wait cost as much as one.
//! - A newcomer stands in its lane before anything is given: it overtakes nobody who could have had its slot.
//! - A policy may name an endpoint that is full: then the ticket waits for that one.
//! - At most `queue.max` tickets of a service wait with a connection; the next is refused and told when to come
//!   back. Stored ones are never refused: they were bounded when they were accepted.

mod estimator;
mod eta;
mod lanes;
mod learned;
mod line;
mod policies;
mod rate;
mod span;
mod ticket;
mod wants;

pub use estimator::{ClassKey, Estimate, Estimator};
pub use eta::{Eta, remaining};
pub use policies::register;
pub use span::Span;
pub use ticket::{PoolId, QueueLimits, Share, Ticket, TicketId, Turn, WaitingView};
pub use wants::Want;

use lanes::Lanes;
use line::Line;
use rate::Rate;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;
use tabane_api::{Candidate, Draw, EndpointId, Refusal, Urgency};

/// Who could serve, and the taking of slots. Dispatch has one, over the fleet.
pub trait Room {
    /// Puts everyone into `into` who is usable and fit for the ticket, with room or without.
    fn candidates<'a>(&'a self, ticket: &Ticket, into: &mut Vec<Candidate<'a>>);

    /// Takes the slots of the ticket's need, and its work begins there; `false` when they do not fit.
    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> bool;
}

/// What happened.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each request and moved once: a box would cost an allocation"
)]
pub enum Event {
    /// Someone asks.
    Arrived(Ticket),
    /// Someone who waits left, or waited too long.
    Left(TicketId),
    /// Someone who waits is more or less urgent from now on; its turn among its new equals is that of before.
    Moved(TicketId, Urgency),
    /// There may be room that was not there before.
    Freed,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The ticket's slots are taken on this endpoint.
    Grant(TicketId, EndpointId),
    /// The ticket is refused.
    Refuse(TicketId, Refusal),
}

/// Everyone who waits.
pub struct Schedule {
    lanes: Lanes,
    /// Who waits for each service, and how fast it is served.
    services: HashMap<Arc<str>, Service>,
    draw: Box<dyn Draw + Send>,
}

#[derive(Debug, Default)]
struct Service {
    /// How many hold a connection.
    held: usize,
    line: Line,
    rate: Rate,
}

/// What a try came to.
enum Tried {
    Granted(EndpointId),
    Waits,
    Broken(Refusal),
}

// === impl Schedule ===

impl Schedule {
    /// Nobody waits. `draw` is all the chance that policies get.
    pub fn new(draw: Box<dyn Draw + Send>) -> Self {
        Schedule {
            lanes: Lanes::default(),
            services: HashMap::new(),
            draw,
        }
    }

    /// Lets something happen.
    pub fn apply(&mut self, event: Event, room: &mut dyn Room, now: Instant) -> Vec<Action> {
        match event {
            Event::Arrived(ticket) => self.arrived(ticket, room, now),
            Event::Left(id) => {
                self.remove(id);
                Vec::new()
            }
            // Room for it is no more than there was: whoever it overtakes waits as it does.
            Event::Moved(id, urgency) => {
                if let Some(mut ticket) = self.remove(id) {
                    ticket.need.urgency = urgency;
                    self.insert(ticket);
                }
                Vec::new()
            }
            Event::Freed => self.serve(room, now),
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lanes.len()
    }

    /// How many of a service wait with a connection.
    pub fn waiting_in(&self, service: &str) -> usize {
        self.services.get(service).map_or(0, |service| service.held)
    }

    /// How many of a service wait that are stored.
    pub fn stored_in(&self, service: &str) -> usize {
        let service = self.services.get(service);
        service.map_or(0, |service| service.line.len().saturating_sub(service.held))
    }

    /// How many of the same service stand before a ticket; `None` when it does not wait.
    pub fn rank(&self, id: TicketId) -> Option<usize> {
        Some(self.before(id)?.0)
    }

    /// How many of the same service stand before a ticket, and the time their work is expected to take, one after
    /// the other; `None` when it does not wait.
    pub fn before(&self, id: TicketId) -> Option<(usize, Span)> {
        let ticket = self.lanes.get(id)?;
        let service = self.services.get(&ticket.service)?;
        Some(service.line.before(ticket.place()))
    }

    /// The time that the work of all who wait for a service is expected to take, one after the other.
    pub fn backlog(&self, service: &str) -> Span {
        let service = self.services.get(service);
        service.map_or(Span::default(), |service| service.line.total())
    }

    /// The first so many of those who wait, in the order they would be served if all wanted the same.
    pub fn snapshot(&self, most: usize) -> Vec<WaitingView> {
        self.lanes
            .first(most)
            .into_iter()
            .enumerate()
            .map(|(position, ticket)| ticket.view(position))
            .collect()
    }

    fn arrived(&mut self, ticket: Ticket, room: &mut dyn Room, now: Instant) -> Vec<Action> {
        if self.lanes.len() == 0 {
            match attempt(&ticket, room, &mut *self.draw) {
                Tried::Granted(endpoint) => {
                    self.granted(&ticket, now);
                    return vec![Action::Grant(ticket.id, endpoint)];
                }
                Tried::Broken(why) => return vec![Action::Refuse(ticket.id, why)],
                Tried::Waits => return self.wait(ticket, now).into_iter().collect(),
            }
        }
        let (id, service, queue) = (ticket.id, ticket.service.clone(), ticket.queue);
        let stored = ticket.is_stored();
        self.insert(ticket);
        let mut actions = self.serve(room, now);
        let waits = !stored && self.lanes.contains(id);
        let waiting = self.waiting_in(&service);
        if waits && waiting > queue.max {
            self.remove(id);
            actions.push(Action::Refuse(
                id,
                self.full(&service, waiting - 1, queue, now),
            ));
        }
        actions
    }

    /// Puts a ticket that found no room into the queue, or refuses it.
    fn wait(&mut self, ticket: Ticket, now: Instant) -> Option<Action> {
        let waiting = self.waiting_in(&ticket.service);
        if waiting >= ticket.queue.max && !ticket.is_stored() {
            return Some(Action::Refuse(
                ticket.id,
                self.full(&ticket.service, waiting, ticket.queue, now),
            ));
        }
        self.insert(ticket);
        None
    }

    fn full(
        &self,
        service: &Arc<str>,
        waiting: usize,
        queue: QueueLimits,
        now: Instant,
    ) -> Refusal {
        let retry_after = self
            .services
            .get(service)
            .map(|service| service.rate.time_for(waiting + 1, now));
        let retry_after = retry_after
            .unwrap_or(rate::UNKNOWN)
            .min(queue.max_wait)
            .max(rate::SOONEST);
        Refusal::QueueFull {
            service: service.to_string(),
            waiting,
            retry_after,
        }
    }

    /// Gives what is free to the heads of lanes, the first in order first, until nobody's turn comes to anything.
    fn serve(&mut self, room: &mut dyn Room, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        // A lane whose head found no room is passed over: its place is behind us, and whoever stands behind
        // it wants the same. A lane whose head was served shows the next, whose place lies ahead.
        let mut last = None;
        while let Some(ticket) = self.lanes.next_head(last) {
            last = Some(ticket.place());
            let id = ticket.id;
            match attempt(ticket, room, &mut *self.draw) {
                Tried::Granted(endpoint) => {
                    if let Some(ticket) = self.remove(id) {
                        self.granted(&ticket, now);
                    }
                    actions.push(Action::Grant(id, endpoint));
                }
                Tried::Broken(why) => {
                    self.remove(id);
                    actions.push(Action::Refuse(id, why));
                }
                Tried::Waits => {}
            }
        }
        actions
    }

    fn granted(&mut self, ticket: &Ticket, now: Instant) {
        self.service(&ticket.service).rate.count(now);
    }

    fn insert(&mut self, ticket: Ticket) {
        let service = self.service(&ticket.service);
        service.held += usize::from(!ticket.is_stored());
        service.line.insert(ticket.place(), ticket.expected);
        self.lanes.insert(ticket);
    }

    fn remove(&mut self, id: TicketId) -> Option<Ticket> {
        let ticket = self.lanes.remove(id)?;
        let service = self.service(&ticket.service);
        service.held = service
            .held
            .saturating_sub(usize::from(!ticket.is_stored()));
        service.line.remove(ticket.place());
        Some(ticket)
    }

    fn service(&mut self, name: &Arc<str>) -> &mut Service {
        if !self.services.contains_key(name) {
            // Services come from the plan, so there are few; those that reloads took away are dropped here.
            if self.services.len() >= 4096 {
                self.services.retain(|_, service| !service.line.is_empty());
            }
            self.services.insert(name.clone(), Service::default());
        }
        self.services.entry(name.clone()).or_default()
    }
}

/// Has a ticket's policy choose, and takes what it chose.
fn attempt(ticket: &Ticket, room: &mut dyn Room, draw: &mut dyn Draw) -> Tried {
    let broken = |what: &str| {
        let why = format!("the policy of service `{}` {what}", ticket.service);
        Tried::Broken(Refusal::Internal(why))
    };
    let picked = {
        let mut among = Vec::with_capacity(16);
        room.candidates(ticket, &mut among);
        if among.is_empty() {
            return Tried::Waits;
        }
        // The one place where a plugin's code runs under the lock: its panic must not leave a ticket in two places.
        let picked = catch_unwind(AssertUnwindSafe(|| {
            ticket.policy.pick(&ticket.need, &among, draw)
        }));
        match picked {
            Ok(None) => return Tried::Waits,
            Ok(Some(index)) => match among.get(index) {
                Some(candidate) if candidate.has_room(&ticket.need) => candidate.id,
                Some(_) => return Tried::Waits,
                None => return broken("picked nobody's number"),
            },
            Err(_) => return broken("panicked"),
        }
    };
    if room.take(picked, ticket) {
        Tried::Granted(picked)
    } else {
        Tried::Waits
    }
}

#[cfg(test)]
mod tests;
