//! What is learned of times, and what it says of those who wait.

use super::rooms::Rooms;
use crate::config::plan::Plan;
use crate::fleet::Endpoint;
use crate::schedule::{ClassKey, Estimator, Eta, PoolId, Span, TicketId, remaining};
use crate::store::LearnedTime;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need};

/// Of familiar work that is over in a moment, one run in so many is learned from.
const SAMPLE: u64 = 16;
const SHORT: Duration = Duration::from_secs(1);

/// Learned times, and the work under way they are held against.
#[derive(Default)]
pub struct Times {
    pub(super) estimator: Estimator,
    /// Counts what ended, for what is learned from only now and then.
    ended: u64,
    at_work: HashMap<EndpointId, Vec<Work>>,
}

/// Work under way on an endpoint.
struct Work {
    ticket: TicketId,
    class: ClassKey,
    size: f64,
    /// The endpoint had to get ready for it.
    cold: bool,
    since: Instant,
}

// === impl Times ===

impl Times {
    /// The weights of a plan are what is guessed by while nothing is learned.
    pub fn weigh(&mut self, plan: &Plan) {
        let all = plan.services.iter().flat_map(|service| {
            let members = plan.pools[service.pool].members.iter();
            members.map(|member| {
                let endpoint = plan.endpoints[member.endpoint].name.clone();
                (service.name.clone(), endpoint, member.weight)
            })
        });
        self.estimator.weigh(all);
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
        now: Instant,
    ) {
        if need.slots == 0 {
            return;
        }
        let class = key(service, need);
        let cold = !self.estimator.is_ready(&class, endpoint.name());
        self.at_work.entry(endpoint.id()).or_default().push(Work {
            ticket,
            class,
            size: need.size,
            cold,
            since: now,
        });
    }

    /// A ticket's work ended on an endpoint; what went well is learned from.
    pub fn ended(
        &mut self,
        ticket: TicketId,
        (endpoint, name): (EndpointId, &str),
        well: bool,
        now: Instant,
    ) {
        let at_work = self.at_work.get_mut(&endpoint);
        let Some(work) = at_work.and_then(|at_work| {
            let i = at_work.iter().position(|work| work.ticket == ticket)?;
            Some(at_work.swap_remove(i))
        }) else {
            return;
        };
        if !well {
            return;
        }
        let took = now.saturating_duration_since(work.since);
        // Requests by the thousand each second need not all be learned from.
        self.ended += 1;
        let one_of_many = took < SHORT && !self.ended.is_multiple_of(SAMPLE);
        if one_of_many && self.estimator.is_familiar(&work.class, name) {
            return;
        }
        self.estimator.learn(&work.class, name, work.size, took);
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
        let members = self.pools.members(pool).iter();
        let usable = members
            .filter_map(|(id, _)| self.fleet.get(*id))
            .filter(|endpoint| endpoint.is_usable())
            .map(|endpoint| (&**endpoint.name(), endpoint.slots()));
        let expected = self.times.estimator.expected(&class, need.size, usable);
        expected.unwrap_or_default()
    }

    /// When a job is expected to be over that has `before` before it; `None` when nobody can say.
    pub fn eta(&mut self, pool: PoolId, before: Span, own: Span, now: Instant) -> Option<Eta> {
        let (at_work, slots) = self.busy(pool, now);
        // Without any learned time a sum of nothing would say `at once`.
        if own == Span::default() {
            return None;
        }
        Eta::of_end(before, at_work, slots, own)
    }

    /// Seconds until all that waits for a pool is worked off, with what is at work.
    pub fn backlog_s(&mut self, service: &str, pool: PoolId, now: Instant) -> f64 {
        let (at_work, slots) = self.busy(pool, now);
        let all = self.schedule.backlog(service) + at_work;
        all.mean_s() / f64::from(slots.max(1))
    }

    /// What remains of the work on a pool's usable endpoints, and their slots.
    fn busy(&mut self, pool: PoolId, now: Instant) -> (Span, u32) {
        let (mut left, mut slots) = (Span::default(), 0);
        let Times {
            estimator, at_work, ..
        } = &mut self.times;
        for (id, _) in self.pools.members(pool) {
            let Some(endpoint) = self.fleet.get(*id).filter(|e| e.is_usable()) else {
                continue;
            };
            slots += endpoint.slots();
            for work in at_work.get(id).into_iter().flatten() {
                let estimate = estimator.estimate(&work.class, endpoint.name(), work.size);
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
