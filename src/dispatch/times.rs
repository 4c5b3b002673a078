//! What is learned of times, and what it says of those who wait.

use super::rooms::Rooms;
use crate::config::plan::Plan;
use crate::config::plan::PricePlan;
use crate::fleet::{Endpoint, Fleet};
use crate::schedule::{
    ClassKey, Estimate, Estimator, Eta, PoolId, Residency, Row, Span, Ticket, TicketId, remaining,
};
use crate::store::LearnedTime;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{Candidate, EndpointId, Need, Terms, Vitals};

/// Of familiar work that is over in a moment, one run in so many is learned from.
const SAMPLE: u64 = 16;
const SHORT: Duration = Duration::from_secs(1);

/// How long work takes of which nothing is known.
const UNKNOWN_S: f64 = 10.0;
/// Work under way is never taken to be over.
const SOON_S: f64 = 1e-3;
/// How long it takes until another service has let go of a card.
const SWITCH_S: f64 = 10.0;
/// A class that never ran on an endpoint is taken to need so much less there than is guessed, so that it is tried.
const HOPE: f64 = 0.2;
/// A class's time on an endpoint is taken to be half of what was learned when so many of its runs for each endpoint of the
/// file went elsewhere since: an endpoint that once was slow is measured again, and few runs go to that.
const STALE: f64 = 500.0;

/// Learned times, and the work under way they are held against.
#[derive(Default)]
pub struct Times {
    pub(super) estimator: Estimator,
    residency: Residency,
    /// By what number the estimator knows each endpoint.
    numbers: FxHashMap<EndpointId, usize>,
    /// How many endpoints a service's work may be measured on, at most.
    endpoints: usize,
    /// Counts what ended, for what is learned from only now and then.
    ended: u64,
    at_work: FxHashMap<EndpointId, Vec<Work>>,
}

/// Work under way on an endpoint.
struct Work {
    ticket: TicketId,
    class: ClassKey,
    size: f64,
    slots: u32,
    /// The endpoint had to get ready for it.
    cold: bool,
    /// What it is expected to cost.
    usd: f64,
    since: Instant,
}

/// What work held.
pub(super) struct Held {
    pub(super) service: Arc<str>,
    pub(super) seconds: f64,
    pub(super) slots: u32,
    /// What it was expected to cost.
    pub(super) usd: f64,
}

// === impl Times ===

impl Times {
    /// A plan was installed: its weights are what is guessed by while nothing is learned.
    pub fn weigh(&mut self, plan: &Plan, fleet: &Fleet) {
        let all = plan.pools.iter().flat_map(|pool| {
            let members = pool.members.iter();
            members.map(|m| (plan.endpoints[m.endpoint].name.clone(), m.weight))
        });
        self.estimator.weigh(all);
        self.numbers.clear();
        for endpoint in fleet.all() {
            let number = self.estimator.number(endpoint.name());
            self.numbers.insert(endpoint.id(), number);
        }
        self.endpoints = plan.endpoints.len();
        // Kept empty between two requests, which come by the thousand; let go of here, where endpoints leave.
        self.at_work.retain(|_, at_work| !at_work.is_empty());
    }

    /// A ticket's work begins on an endpoint. How long it takes is worked out when somebody asks.
    pub fn began(
        &mut self,
        ticket: TicketId,
        service: &Arc<str>,
        need: &Need,
        endpoint: &Endpoint,
        usd: f64,
        now: Instant,
    ) {
        if need.slots == 0 {
            return;
        }
        let (id, card_mib) = (endpoint.id(), endpoint.node().vram_mib);
        let cold = !self.residency.has(id, need.loads());
        self.residency
            .uses(id, need.loads(), need.vram_mib, card_mib);
        self.at_work.entry(id).or_default().push(Work {
            ticket,
            class: key(service, need),
            size: need.size,
            slots: need.slots,
            cold,
            usd,
            since: now,
        });
    }

    /// A ticket's work ended on an endpoint; what went well is learned from. Answers what it held.
    pub(super) fn ended(
        &mut self,
        ticket: TicketId,
        (endpoint, name): (EndpointId, &str),
        well: bool,
        now: Instant,
    ) -> Option<Held> {
        let at_work = self.at_work.get_mut(&endpoint)?;
        let i = at_work.iter().position(|work| work.ticket == ticket)?;
        let work = at_work.swap_remove(i);
        let took = now.saturating_duration_since(work.since);
        let held = Held {
            service: work.class.service.clone(),
            seconds: took.as_secs_f64(),
            slots: work.slots,
            usd: work.usd,
        };
        if !well {
            return Some(held);
        }
        // Requests by the thousand each second need not all be learned from.
        self.ended += 1;
        let one_of_many = took < SHORT && !work.cold && !self.ended.is_multiple_of(SAMPLE);
        if !one_of_many || !self.estimator.is_familiar(&work.class, name) {
            let Work {
                class, size, cold, ..
            } = work;
            self.estimator.learn(&class, name, size, took, cold);
        }
        Some(held)
    }

    /// What a probe says of an endpoint's memory.
    pub(super) fn probed(&mut self, endpoint: EndpointId, vitals: &Vitals) {
        if let Some(loaded) = &vitals.loaded {
            self.residency.told(endpoint, loaded);
        }
    }

    /// An endpoint was restarted, or its card was another's meanwhile: nothing is loaded there.
    pub(super) fn emptied(&mut self, endpoint: EndpointId) {
        self.residency.forget(endpoint);
    }

    /// Works out what is guessed by, where enough was learned since.
    pub(super) fn refresh(&mut self) {
        self.estimator.refresh();
    }

    /// What is known of a ticket's class, for asking of many endpoints.
    pub(super) fn row(&self, service: &Arc<str>, need: &Need) -> Row<'_> {
        self.estimator.row(&key(service, need))
    }

    /// Whether a class never ran, and no other of its service that never did is at work.
    pub(super) fn is_new(&self, service: &Arc<str>, need: &Need) -> bool {
        let under_way = |work: &Work| {
            work.class.service == *service && self.estimator.row(&work.class).is_new()
        };
        self.row(service, need).is_new() && !self.at_work.values().flatten().any(under_way)
    }

    /// What a need costs at an endpoint, by what was learned; without the wait.
    pub(super) fn terms(
        &self,
        row: Row<'_>,
        need: &Need,
        at: &Candidate<'_>,
        price: &PricePlan,
    ) -> Terms {
        let number = self.numbers.get(&at.id).copied().unwrap_or(usize::MAX);
        let estimate = row.estimate(number, need.size);
        // Of what nobody knows anything, the weights of the pool say which endpoint is better.
        let run_s = estimate.map_or(UNKNOWN_S / f64::from(at.weight.max(1)), |e| e.warm_s);
        let load_s = match self.residency.has(at.id, need.loads()) {
            true => 0.0,
            false => estimate.map_or(0.0, |e| e.cold_s),
        };
        let takes_s = run_s + load_s;
        let stale = row.stale(number) as f64 / (STALE * self.endpoints.max(1) as f64);
        let hope = match estimate {
            Some(Estimate { prior: true, .. }) => HOPE.max(stale / (1.0 + stale)),
            Some(_) => stale / (1.0 + stale),
            None => 0.0,
        };
        let usd = takes_s * at.node.usd_per_hour / 3600.0;
        Terms {
            wait_s: 0.0,
            switch_s: if at.held { 0.0 } else { SWITCH_S },
            load_s,
            run_s,
            price_s: price.seconds_per_usd * usd,
            explore_s: -hope * takes_s,
        }
    }

    /// When the slots of an endpoint that are taken come free, seconds from now, soonest first.
    pub(super) fn frees(&self, endpoint: EndpointId, now: Instant) -> Vec<f64> {
        let number = self.numbers.get(&endpoint).copied().unwrap_or(usize::MAX);
        let left = |work: &Work| {
            let row = self.estimator.row(&work.class);
            let expected = row.estimate(number, work.size);
            let expected = expected.map_or(Span::new(UNKNOWN_S, 0.0), |e| e.span(work.cold));
            let elapsed = now.saturating_duration_since(work.since).as_secs_f64();
            remaining(expected, elapsed).mean_s().max(SOON_S)
        };
        let at_work = self.at_work.get(&endpoint).into_iter().flatten();
        let mut frees: Vec<f64> = at_work
            .flat_map(|work| std::iter::repeat_n(left(work), work.slots as usize))
            .collect();
        frees.sort_unstable_by(f64::total_cmp);
        frees
    }

    /// What was learned since the last call.
    pub(super) fn changed(&mut self) -> Vec<LearnedTime> {
        self.estimator.changed_since_export()
    }

    /// Takes up what was learned before; how much of it could not be read.
    pub fn import(&mut self, times: Vec<LearnedTime>) -> usize {
        self.estimator.import(times)
    }
}

// === impl Rooms ===

impl Rooms {
    /// How long work is expected to take on the endpoints of its pool; nothing where nobody knows.
    pub fn expected(&mut self, service: &Arc<str>, pool: PoolId, need: &Need) -> Span {
        let class = key(service, need);
        let Times {
            estimator, numbers, ..
        } = &mut self.times;
        let members = self.pools.members(pool).iter();
        let usable = members
            .filter_map(|(id, _)| self.fleet.get(*id))
            .filter(|endpoint| endpoint.is_usable())
            .map(|endpoint| (numbers.get(&endpoint.id()), endpoint.slots()))
            .filter_map(|(number, slots)| Some((*number?, slots)));
        let expected = estimator.expected(&class, need.size, usable);
        expected.unwrap_or_default()
    }

    /// When a job is expected to be over that has `before` before it; `None` when nobody can say.
    pub fn eta(&mut self, pool: PoolId, before: Span, own: Span, now: Instant) -> Option<Eta> {
        let (at_work, slots) = self.busy(pool, |_| true, now);
        // Without any learned time a sum of nothing would say `at once`.
        if own == Span::default() {
            return None;
        }
        Eta::of_end(before, at_work, slots, own)
    }

    /// Seconds until all that waits for a pool is worked off, with what is at work.
    pub fn backlog_s(&mut self, service: &str, pool: PoolId, now: Instant) -> f64 {
        let (at_work, slots) = self.busy(pool, |_| true, now);
        let all = self.schedule.backlog(service) + at_work;
        all.mean_s() / f64::from(slots.max(1))
    }

    /// How long a ticket that comes now would wait for an endpoint without a price, seconds.
    pub(super) fn unpaid_wait_s(&mut self, ticket: &Ticket, now: Instant) -> f64 {
        let unpaid = |endpoint: &Endpoint| endpoint.node().usd_per_hour <= 0.0;
        let (at_work, slots) = self.busy(ticket.pool, unpaid, now);
        let all = self.schedule.backlog(&ticket.service) + at_work;
        match self.schedule.backlog(&ticket.service) == Span::default() {
            // Nobody waits: it waits for the first slot, which whoever chooses sees better.
            true => 0.0,
            false => all.mean_s() / f64::from(slots.max(1)),
        }
    }

    /// What remains of the work on a pool's usable endpoints, and their slots.
    pub(super) fn busy(
        &mut self,
        pool: PoolId,
        which: impl Fn(&Endpoint) -> bool,
        now: Instant,
    ) -> (Span, u32) {
        let (mut left, mut slots) = (Span::default(), 0);
        let Times {
            estimator,
            at_work,
            numbers,
            ..
        } = &mut self.times;
        estimator.refresh();
        for (id, _) in self.pools.members(pool) {
            let Some(endpoint) = self.fleet.get(*id).filter(|e| e.is_usable() && which(e)) else {
                continue;
            };
            slots += endpoint.slots();
            for work in at_work.get(id).into_iter().flatten() {
                let number = numbers.get(id).copied().unwrap_or(usize::MAX);
                let estimate = estimator.row(&work.class).estimate(number, work.size);
                let span = estimate.map_or(Span::default(), |e| e.span(work.cold));
                let elapsed = now.saturating_duration_since(work.since).as_secs_f64();
                left = left + remaining(span, elapsed);
            }
        }
        (left, slots)
    }
}

fn key(service: &Arc<str>, need: &Need) -> ClassKey {
    ClassKey {
        service: service.clone(),
        class: need.class.clone(),
    }
}
