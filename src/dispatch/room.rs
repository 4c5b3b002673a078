use super::fit;
use super::pools::Pools;
use super::shortages::Shortages;
use super::spending::{self, Spending, Unpaid};
use super::times::Times;
use crate::fleet::{Endpoint, Fleet};
use crate::schedule::{PoolId, Room, Row, Ticket};
use rustc_hash::FxHashMap;
use std::cell::{Ref, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use tabane_api::{Candidate, EndpointId, Mode, Need, Terms};

/// Where fleet and schedule meet: who could serve a ticket at what cost, and the taking of a slot.
pub(super) struct FleetRoom<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) pools: &'a Pools,
    pub(super) times: &'a mut Times,
    pub(super) spending: &'a mut Spending,
    pub(super) shortages: &'a Shortages,
    /// When slots are free, where that was asked: by many who wait, and it is long to work out.
    pub(super) slots: RefCell<FxHashMap<EndpointId, Vec<f64>>>,
    pub(super) now: Instant,
}

impl Room for FleetRoom<'_> {
    fn candidates<'b>(&'b self, ticket: &Ticket, into: &mut Vec<Candidate<'b>>) {
        let one = self.one(ticket);
        into.extend(self.pools.members(ticket.pool).iter().filter_map(one));
        self.within_means(ticket, into);
        // An endpoint that failed this request is passed over only while there is another: a pool of one
        // is tried again rather than given up.
        if !ticket.excluded.is_empty() && into.iter().any(|c| !ticket.excluded.contains(&c.id)) {
            into.retain(|c| !ticket.excluded.contains(&c.id));
        }
    }

    fn candidate<'b>(&'b self, ticket: &Ticket, endpoint: EndpointId) -> Option<Candidate<'b>> {
        let mut members = self.pools.members(ticket.pool).iter();
        let member = members.find(|(id, _)| *id == endpoint)?;
        self.one(ticket)(member)
    }

    fn is_steady(&self, ticket: &Ticket) -> bool {
        // Money that is spent, and cards that change hands, change others; and one that failed is looked at again when the
        // last other one is gone.
        !self.fleet.shares() && !spending::is_limited(&ticket.price) && ticket.excluded.is_empty()
    }

    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> Option<f64> {
        let need = &ticket.need;
        // Those who were looked at together with it may have spent what it was to be paid from.
        let unpaid = self.unpaid(ticket, self.fleet.get(endpoint)?, 1);
        if unpaid.is_some() || !self.fleet.take(endpoint, need.slots, self.now) {
            return None;
        }
        self.slots.get_mut().remove(&endpoint);
        if need.interactive && need.slots > 0 {
            self.fleet.serves_person(endpoint, self.now);
        }
        let endpoint = self.fleet.get(endpoint)?;
        if need.slots == 0 {
            return Some(0.0);
        }
        let row = self.times.row(&ticket.service, need);
        let mut candidate = endpoint.candidate(1);
        candidate.terms = self.times.terms(row, need, &candidate, &ticket.price);
        let usd = spending::usd(ticket, &candidate);
        let node_s = share(need.slots, endpoint.slots()) * candidate.terms.occupied_s();
        self.times
            .began(ticket.id, &ticket.service, need, endpoint, usd, self.now);
        tell_granted(ticket, endpoint.id(), self.now);
        self.spending.spend(&ticket.service, usd, self.now);
        Some(node_s)
    }

    fn unfit(&self, ticket: &Ticket) -> Vec<(EndpointId, String)> {
        let members = self.pools.members(ticket.pool);
        let most = match ticket.policy.mode() {
            // Forwarded requests come by the thousand each second.
            Mode::Load => LOOKED_AT_BY_LOAD,
            _ => LOOKED_AT,
        };
        if members.len() > most {
            return Vec::new();
        }
        let looked = members.iter().filter_map(|(id, weight)| {
            let endpoint = self.fleet.get(*id)?;
            Some((*id, self.why_not(ticket, endpoint, *weight)?))
        });
        looked.collect()
    }

    fn has_room(&self, pool: PoolId) -> bool {
        let members = self.pools.members(pool).iter();
        let mut usable = members
            .filter_map(|(id, _)| self.fleet.get(*id))
            .filter(|endpoint| endpoint.is_usable());
        usable.any(|endpoint| endpoint.used() < endpoint.slots())
    }

    fn is_new(&self, ticket: &Ticket) -> bool {
        self.times.is_new(&ticket.service, &ticket.need)
    }

    fn slots(&self, endpoint: &Candidate<'_>) -> Vec<f64> {
        self.slots_of(endpoint).clone()
    }
}

/// Of larger pools, who does not fit is not noted.
const LOOKED_AT: usize = 64;
/// The same where the policy goes by load.
const LOOKED_AT_BY_LOAD: usize = 16;

/// When a slot that cools is taken to be free.
const COOLING_S: f64 = 1.0;

impl FleetRoom<'_> {
    /// A member of a ticket's pool as a candidate; `None`: it is not usable, or does not fit.
    fn one<'b, 't>(
        &'b self,
        ticket: &'t Ticket,
    ) -> impl Fn(&(EndpointId, u32)) -> Option<Candidate<'b>> {
        let need = &ticket.need;
        let asks = ticket.policy.mode() != Mode::Load && need.slots > 0;
        let row = asks.then(|| self.times.row(&ticket.service, need));
        let short = self.shortages.of(&ticket.service, need);
        move |&(id, weight)| {
            let endpoint = self.fleet.get(id).filter(|e| e.is_usable())?;
            let spared = short.is_none_or(|short| short.spares(&endpoint.node().name, self.now));
            if !spared || !fit::fits(need, endpoint) || lacks_of_kind(ticket, id).is_some() {
                return None;
            }
            let mut candidate = endpoint.candidate(weight);
            if let Some(row) = row {
                self.price(ticket, row, endpoint, &mut candidate);
            }
            Some(candidate)
        }
    }

    /// When the slots of an endpoint are free, seconds from now, soonest first.
    fn slots_of(&self, endpoint: &Candidate<'_>) -> Ref<'_, Vec<f64>> {
        let id = endpoint.id;
        if !self.slots.borrow().contains_key(&id) {
            let mut slots = vec![0.0; endpoint.slots.saturating_sub(endpoint.used) as usize];
            slots.extend(self.times.frees(id, self.now));
            // What cools is free soon, and nobody knows when.
            slots.resize(endpoint.slots as usize, COOLING_S);
            slots.sort_unstable_by(f64::total_cmp);
            self.slots.borrow_mut().insert(id, slots);
        }
        Ref::map(self.slots.borrow(), |all| &all[&id])
    }

    /// Takes those out that have a price and are not to be paid for now.
    fn within_means(&self, ticket: &Ticket, among: &mut Vec<Candidate<'_>>) {
        if ticket.need.slots == 0 || among.iter().all(|c| c.node.usd_per_hour <= 0.0) {
            return;
        }
        let row = self.times.row(&ticket.service, &ticket.need);
        let spent_usd = self.spending.in_last_hour(&ticket.service, self.now);
        let free = among.iter().filter(|c| c.node.usd_per_hour <= 0.0);
        let soonest_s = free
            .map(|c| self.wait_s(c, &ticket.need))
            .min_by(f64::total_cmp);
        among.retain(|candidate| {
            let mut priced = *candidate;
            if let (true, Some(endpoint)) = (
                priced.terms == Terms::default(),
                self.fleet.get(candidate.id),
            ) {
                self.price(ticket, row, endpoint, &mut priced);
            }
            spending::forbids(ticket, &priced, soonest_s, spent_usd, self.now).is_none()
        });
    }

    /// Why an endpoint is no candidate for a ticket; `None`: it is one.
    pub(super) fn why_not(
        &self,
        ticket: &Ticket,
        endpoint: &Endpoint,
        weight: u32,
    ) -> Option<String> {
        if !endpoint.is_usable() {
            return Some(format!("it is {}", endpoint.state().word()));
        }
        let need = &ticket.need;
        let short = self.shortages.of(&ticket.service, need);
        let short = short.and_then(|s| s.lack(&need.class, &endpoint.node().name, self.now));
        if let Some(lack) = fit::lacks(need, endpoint).chain(short).next() {
            return Some(format!("it {lack}"));
        }
        if let Some(lack) = lacks_of_kind(ticket, endpoint.id()) {
            return Some(format!("it {lack}"));
        }
        if let Some(unpaid) = self.unpaid(ticket, endpoint, weight) {
            return Some(unpaid.to_string());
        }
        let failed = ticket.excluded.contains(&endpoint.id());
        failed.then(|| "it failed this before".into())
    }

    /// Why an endpoint with a price is not to be paid for now; `None`: it may be, or has none.
    fn unpaid(&self, ticket: &Ticket, endpoint: &Endpoint, weight: u32) -> Option<Unpaid> {
        if endpoint.node().usd_per_hour <= 0.0 || ticket.need.slots == 0 {
            return None;
        }
        let row = self.times.row(&ticket.service, &ticket.need);
        let mut candidate = endpoint.candidate(weight);
        self.price(ticket, row, endpoint, &mut candidate);
        let spent_usd = self.spending.in_last_hour(&ticket.service, self.now);
        let soonest_s = self.soonest_unpaid_s(ticket);
        spending::forbids(ticket, &candidate, soonest_s, spent_usd, self.now)
    }

    /// When an endpoint without a price could take a ticket; `None`: none is there.
    fn soonest_unpaid_s(&self, ticket: &Ticket) -> Option<f64> {
        let members = self.pools.members(ticket.pool).iter();
        let short = self.shortages.of(&ticket.service, &ticket.need);
        let unpaid = members.filter_map(|(id, weight)| {
            let endpoint = self.fleet.get(*id).filter(|e| e.is_usable())?;
            let spared = short.is_none_or(|short| short.spares(&endpoint.node().name, self.now));
            let fits = endpoint.node().usd_per_hour <= 0.0
                && fit::fits(&ticket.need, endpoint)
                && lacks_of_kind(ticket, *id).is_none();
            (spared && fits).then(|| self.wait_s(&endpoint.candidate(*weight), &ticket.need))
        });
        unpaid.min_by(f64::total_cmp)
    }

    /// Until the need's slots are free, seconds.
    fn wait_s(&self, candidate: &Candidate<'_>, need: &Need) -> f64 {
        if candidate.has_room(need) {
            return 0.0;
        }
        let slots = self.slots_of(candidate);
        let last = (need.slots as usize).min(slots.len());
        last.checked_sub(1).map_or(0.0, |last| slots[last])
    }

    /// Puts a candidate's terms in place.
    fn price(
        &self,
        ticket: &Ticket,
        row: Row<'_>,
        endpoint: &Endpoint,
        candidate: &mut Candidate<'_>,
    ) {
        let need = &ticket.need;
        let mut terms = self.times.terms(row, need, candidate, &ticket.price);
        terms.wait_s = self.wait_s(candidate, need);
        if let Some(kind) = &ticket.kind {
            let own = AssertUnwindSafe(|| kind.terms(need, candidate, endpoint.vitals(), terms));
            terms = catch_unwind(own).unwrap_or_else(|_| {
                panicked(ticket, "what a need costs");
                terms
            });
        }
        candidate.terms = terms;
    }
}

/// What an endpoint lacks for a ticket, as its kind knows it.
pub(super) fn lacks_of_kind(ticket: &Ticket, at: EndpointId) -> Option<String> {
    let kind = ticket.kind.as_ref()?;
    let lacks = catch_unwind(AssertUnwindSafe(|| kind.lacks(&ticket.need, at)));
    lacks.unwrap_or_else(|_| {
        panicked(ticket, "what an endpoint lacks");
        Some("cannot be judged: the kind of this service failed over it".into())
    })
}

/// A ticket's kind hears that it got its slots.
fn tell_granted(ticket: &Ticket, at: EndpointId, now: Instant) {
    let Some(kind) = &ticket.kind else { return };
    let told = AssertUnwindSafe(|| kind.granted(&ticket.need, at, now));
    if catch_unwind(told).is_err() {
        panicked(ticket, "a need that is met");
    }
}

/// A kind's panic under the lock must not leave a ticket in two places.
fn panicked(ticket: &Ticket, over: &str) {
    tracing::error!(service = %ticket.service, class = %ticket.need.class,
        "the kind of this service panicked over {over}; the gateway goes on");
}

/// How much of a node so many of its slots are.
pub(super) fn share(slots: u32, of: u32) -> f64 {
    f64::from(slots) / f64::from(of.max(1))
}
