//! Who waits, and who is next.
//!
//! No IO, no clock; chance only as it was given. `apply(event, room, now)` changes the state and says who got
//! what. Who could serve is asked of the [`Room`], at the moment a slot is given: whoever waits sees a node
//! that came a moment ago.
//!
//! Rules.
//! - Pools that share nodes, directly or by others, are one *domain*. In each, what is interactive goes first; then the
//!   tenant that has had the least of its nodes, by its weight (`tenants.rs`).
//! - Of one tenant, the more urgent first; of the equally urgent, whoever holds a connection goes before what is stored;
//!   then who came first, or was accepted first. A policy that matches (`matching.rs`) takes urgency for a weight, and keeps
//!   this order within a class.
//! - Tickets that want the same thing stand in one *lane*. Only the heads of lanes are tried, in that order,
//!   so that one who waits for a certain node (a session, a strict hash) does not hold up the others, and a
//!   thousand who wait cost as much as one.
//! - A newcomer stands in its lane before anything is given: it overtakes nobody who could have had its slot.
//! - A policy may name an endpoint that is full: then the ticket waits for that one, for no longer than its service's
//!   patience where it is matched.
//! - At most `queue.max` tickets of a service wait with a connection; the next is refused and told when to come
//!   back. Stored ones are never refused: they were bounded when they were accepted.

mod ask;
mod assign;
mod decision;
mod estimator;
mod eta;
mod lanes;
mod learned;
mod line;
mod matching;
mod pass;
mod policies;
mod queue;
mod rate;
mod residency;
mod room;
mod rows;
mod span;
mod speeds;
mod tenants;
mod ticket;
mod turns;
mod worth;

pub use decision::{Considered, Decision, How};
pub use estimator::{ClassKey, Estimate, Estimator, Row};
pub use eta::{Eta, remaining};
pub use policies::register;
pub use residency::Residency;
pub use room::Room;
#[cfg(test)]
pub(crate) use rows::CHECKED;
pub use span::Span;
pub use ticket::{AskedAs, PoolId, QueueLimits, Share, Ticket, TicketId, Turn, WaitingView};

use pass::Pass;
use queue::{Band, Queue, Service};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{Draw, EndpointId, Refusal, Urgency};
use worth::Worth;

/// While one waits beside a free slot, everyone is looked at again after this long: what it waits for may be overdue.
const AGAIN: Duration = Duration::from_secs(1);

/// So many tenants are kept in mind in each domain when they wait for nothing.
const REMEMBERED: usize = 10_000;

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
    /// What was granted before the gateway went down is at work still.
    Resumed {
        /// Whose work it is, from now on.
        ticket: TicketId,
        /// Where.
        pool: PoolId,
        /// Whose.
        tenant: Arc<str>,
        /// As in [`Share`].
        weight: u32,
        /// How many slots it holds.
        slots: u32,
    },
    /// What was granted ended after so many node-seconds.
    Ended(TicketId, f64),
    /// Which domain each pool belongs to; one that is not named belongs to 0.
    Domains(HashMap<PoolId, u32>),
    /// There may be room that was not there before, or time has passed.
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

/// Someone waits for an endpoint whose card another service holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Who.
    pub ticket: TicketId,
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Since when it waits.
    pub since: Instant,
    /// Whether a person waits for it.
    pub interactive: bool,
    /// How long it may be made to wait for it.
    pub patience: Duration,
}

/// Everyone who waits.
pub struct Schedule {
    domains: HashMap<PoolId, u32>,
    queues: BTreeMap<u32, Queue>,
    /// Where each ticket waits.
    waiting: HashMap<TicketId, (u32, Band, Arc<str>)>,
    /// What is at work, until it ends.
    charges: HashMap<TicketId, Charge>,
    /// Slots at work, by tenant.
    at_work: HashMap<Arc<str>, u32>,
    /// Since when one waits beside a free slot.
    held_back: HashMap<TicketId, Instant>,
    /// Who waits for each service, and how fast it is served.
    services: HashMap<Arc<str>, Service>,
    /// By domain, after its last pass.
    wants: BTreeMap<u32, Vec<Want>>,
    decisions: Vec<Decision>,
    look_again: Option<Instant>,
    worth: Worth,
    draw: Box<dyn Draw + Send>,
}

/// What a ticket that was granted is taken to use.
struct Charge {
    /// `None`: pools were regrouped since.
    domain: Option<u32>,
    tenant: Arc<str>,
    weight: u32,
    slots: u32,
    node_s: f64,
}

// === impl Schedule ===

impl Schedule {
    /// Nobody waits. `draw` is all the chance that policies get.
    pub fn new(draw: Box<dyn Draw + Send>) -> Self {
        Schedule {
            domains: HashMap::new(),
            queues: BTreeMap::new(),
            waiting: HashMap::new(),
            charges: HashMap::new(),
            at_work: HashMap::new(),
            held_back: HashMap::new(),
            services: HashMap::new(),
            wants: BTreeMap::new(),
            decisions: Vec::new(),
            look_again: None,
            worth: Worth::default(),
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
                self.change(id, |ticket| ticket.need.urgency = urgency);
                Vec::new()
            }
            Event::Ended(id, node_s) => {
                self.ended(id, node_s);
                Vec::new()
            }
            Event::Domains(domains) => {
                self.regroup(domains);
                Vec::new()
            }
            Event::Resumed {
                ticket,
                pool,
                tenant,
                weight,
                slots,
            } => {
                let charge = Charge {
                    domain: Some(self.domain(pool)),
                    tenant,
                    weight,
                    slots,
                    // Charged when it ends: how much of it was before is not known.
                    node_s: 0.0,
                };
                self.charge(ticket, charge);
                Vec::new()
            }
            Event::Freed => self.serve(room, now),
        }
    }

    fn arrived(&mut self, ticket: Ticket, room: &mut dyn Room, now: Instant) -> Vec<Action> {
        let domain = self.domain(ticket.pool);
        let alone = self.queues.get(&domain).is_none_or(Queue::is_empty);
        if alone && !pass::is_matched(&ticket) && self.may_have_more(&ticket) {
            match pass::attempt(&ticket, room, &mut *self.draw, now) {
                pass::Tried::Granted(decision, node_s) => {
                    let grant = Action::Grant(ticket.id, decision.endpoint);
                    self.decisions.push(decision);
                    self.granted(&ticket, domain, node_s, now);
                    return vec![grant];
                }
                pass::Tried::Broken(why) => return vec![Action::Refuse(ticket.id, why)],
                pass::Tried::Waits(wants) => {
                    let refused = self.wait(ticket, now);
                    if refused.is_none() && !wants.is_empty() {
                        self.wants.insert(domain, wants);
                    }
                    return refused.into_iter().collect();
                }
            }
        }
        let (id, service, queue) = (ticket.id, ticket.service.clone(), ticket.queue);
        let stored = ticket.is_stored();
        self.insert(ticket);
        let mut actions = self.serve_domain(domain, room, now);
        let waits = !stored && self.waiting.contains_key(&id);
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

    /// Gives what is free in all domains.
    fn serve(&mut self, room: &mut dyn Room, now: Instant) -> Vec<Action> {
        self.look_again = None;
        let domains: Vec<u32> = self.queues.keys().copied().collect();
        let serve = |domain| self.serve_domain(domain, room, now);
        domains.into_iter().flat_map(serve).collect()
    }

    /// Gives what is free in a domain: to what is interactive first, and then to the tenant that has had least, one
    /// decision at a time, until nobody's turn comes to anything.
    fn serve_domain(&mut self, domain: u32, room: &mut dyn Room, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut pass = Pass::default();
        for band in [Band::Interactive, Band::Rest] {
            pass.next_band();
            let mut turns = self.turns(domain, band);
            while let Some((.., tenant)) = turns.pop_first() {
                let alone = self.is_alone(domain, band);
                let given = self.turn(domain, band, &tenant, alone, &mut pass, room, now);
                // Whoever got nothing gets nothing more in this pass; whoever did stands further back.
                if !given.is_empty() {
                    turns.extend(self.turn_of(domain, band, &tenant));
                }
                actions.extend(given);
            }
        }
        match pass.wants.is_empty() {
            true => self.wants.remove(&domain),
            false => self.wants.insert(domain, pass.wants),
        };
        actions
    }

    /// A tenant's turn: one decision, or all there are where nobody else waits.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is where a turn stands"
    )]
    fn turn(
        &mut self,
        domain: u32,
        band: Band,
        tenant: &Arc<str>,
        alone: bool,
        pass: &mut Pass,
        room: &mut dyn Room,
        now: Instant,
    ) -> Vec<Action> {
        let Some(lanes) = self
            .queues
            .get(&domain)
            .and_then(|q| q.bands[band as usize].get(tenant))
        else {
            return Vec::new();
        };
        let at_work = self.at_work.get(tenant).copied().unwrap_or(0);
        let turn = pass::Turn {
            tenant,
            lanes,
            at_work,
            alone,
            held_back: &self.held_back,
            now,
        };
        let came = pass.turn(turn, room, &mut *self.draw, &mut self.worth);
        let mut actions = Vec::new();
        for id in came.beside_none {
            self.held_back.remove(&id);
        }
        for id in came.declined {
            self.held_back.entry(id).or_insert(now);
            let again = now + AGAIN;
            self.look_again = Some(self.look_again.map_or(again, |at| at.min(again)));
        }
        for (decision, node_s) in came.granted {
            let id = decision.ticket;
            actions.push(Action::Grant(id, decision.endpoint));
            self.decisions.push(decision);
            if let Some(ticket) = self.remove(id) {
                self.granted(&ticket, domain, node_s, now);
            }
        }
        for (id, why) in came.broken {
            self.remove(id);
            actions.push(Action::Refuse(id, why));
        }
        actions
    }

    fn may_have_more(&self, ticket: &Ticket) -> bool {
        let at_work = self.at_work.get(&ticket.need.tenant).copied().unwrap_or(0);
        pass::may_have(ticket, at_work)
    }

    fn granted(&mut self, ticket: &Ticket, domain: u32, node_s: f64, now: Instant) {
        let tenant = &ticket.need.tenant;
        self.service(&ticket.service).rate.count(now);
        if ticket.need.slots == 0 {
            return;
        }
        let charge = Charge {
            domain: Some(domain),
            tenant: tenant.clone(),
            weight: ticket.share.weight,
            slots: ticket.need.slots,
            node_s,
        };
        self.charge(ticket.id, charge);
    }

    fn charge(&mut self, id: TicketId, charge: Charge) {
        let (tenant, slots) = (&charge.tenant, charge.slots);
        if let Some(domain) = charge.domain {
            let ledger = &mut self.queues.entry(domain).or_default().ledger;
            ledger.charge(tenant, charge.node_s, charge.weight);
        }
        match self.at_work.get_mut(tenant) {
            Some(at_work) => *at_work += slots,
            None => {
                self.at_work.insert(tenant.clone(), slots);
            }
        }
        self.charges.insert(id, charge);
    }

    fn ended(&mut self, id: TicketId, node_s: f64) {
        let Some(charge) = self.charges.remove(&id) else {
            return;
        };
        if let Some(at_work) = self.at_work.get_mut(&charge.tenant) {
            *at_work = at_work.saturating_sub(charge.slots);
            if *at_work == 0 {
                self.at_work.remove(&charge.tenant);
            }
        }
        // What tenants had is counted anew where pools were regrouped meanwhile.
        let queue = charge.domain.and_then(|of| self.queues.get_mut(&of));
        let Some(queue) = queue else { return };
        let more_s = node_s - charge.node_s;
        queue.ledger.correct(&charge.tenant, more_s, charge.weight);
        // Tenants come from keys, and from whoever asks: those who wait for nothing are let go of.
        if queue.ledger.len() > REMEMBERED {
            let bands = &queue.bands;
            let waits = |tenant: &str| bands.iter().any(|band| band.contains_key(tenant));
            queue.ledger.forget(waits);
        }
    }

    fn domain(&self, pool: PoolId) -> u32 {
        self.domains.get(&pool).copied().unwrap_or_default()
    }

    /// Puts everyone into the domains of now. What tenants have had is counted from where they stand.
    fn regroup(&mut self, domains: HashMap<PoolId, u32>) {
        if self.domains == domains {
            return;
        }
        self.domains = domains;
        let ids: Vec<TicketId> = self.waiting.keys().copied().collect();
        let held_back = std::mem::take(&mut self.held_back);
        let tickets: Vec<Ticket> = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        self.queues.clear();
        self.wants.clear();
        self.held_back = held_back;
        for charge in self.charges.values_mut() {
            charge.domain = None;
        }
        for ticket in tickets {
            self.insert(ticket);
        }
    }

    /// Who may not go where has changed: those who wait stand among their equals again.
    pub fn rebar(&mut self, barred: impl Fn(&Ticket) -> Vec<EndpointId>) {
        let all: Vec<TicketId> = self.waiting.keys().copied().collect();
        for id in all {
            let Some(now) = self.ticket(id).map(&barred) else {
                continue;
            };
            if self.ticket(id).is_some_and(|ticket| ticket.barred != now) {
                self.change(id, |ticket| ticket.barred = now);
            }
        }
    }

    /// Changes one who waits: it stands among its new equals, and has waited as long as before.
    fn change(&mut self, id: TicketId, change: impl FnOnce(&mut Ticket)) {
        let held_back = self.held_back.get(&id).copied();
        let Some(mut ticket) = self.remove(id) else {
            return;
        };
        change(&mut ticket);
        self.insert(ticket);
        self.held_back.extend(held_back.map(|since| (id, since)));
    }

    fn insert(&mut self, ticket: Ticket) {
        let service = self.service(&ticket.service);
        service.held += usize::from(!ticket.is_stored());
        let tenant = ticket.need.tenant.clone();
        let line = service.lines.entry(tenant.clone()).or_default();
        line.0.insert(ticket.place(), ticket.expected);
        line.1 = ticket.share.weight;
        let domain = self.domain(ticket.pool);
        let band = match ticket.need.interactive {
            true => Band::Interactive,
            false => Band::Rest,
        };
        let queue = self.queues.entry(domain).or_default();
        if !queue.waits(&tenant) {
            let waiting = queue.bands.iter().flat_map(BTreeMap::keys);
            queue.ledger.comes(&tenant, waiting);
        }
        self.waiting
            .insert(ticket.id, (domain, band, tenant.clone()));
        queue.band(band).entry(tenant).or_default().insert(ticket);
    }

    fn remove(&mut self, id: TicketId) -> Option<Ticket> {
        let (domain, band, tenant) = self.waiting.remove(&id)?;
        self.held_back.remove(&id);
        if let Some(wants) = self.wants.get_mut(&domain) {
            wants.retain(|want| want.ticket != id);
        }
        let waiting = self.queues.get_mut(&domain)?.band(band);
        let lanes = waiting.get_mut(&tenant)?;
        let ticket = lanes.remove(id)?;
        if lanes.len() == 0 {
            waiting.remove(&tenant);
        }
        let service = self.service(&ticket.service);
        service.held = service
            .held
            .saturating_sub(usize::from(!ticket.is_stored()));
        if let Some((line, _)) = service.lines.get_mut(&tenant) {
            line.remove(ticket.place());
            if line.is_empty() {
                service.lines.remove(&tenant);
            }
        }
        Some(ticket)
    }

    fn service(&mut self, name: &Arc<str>) -> &mut Service {
        if !self.services.contains_key(name) {
            // Services come from the plan, so there are few; those that reloads took away are dropped here.
            if self.services.len() >= 4096 {
                self.services.retain(|_, service| !service.lines.is_empty());
            }
            self.services.insert(name.clone(), Service::default());
        }
        self.services.entry(name.clone()).or_default()
    }
}

#[cfg(test)]
mod tests;
