//! Why a request goes, waits or went where it does: the same terms that decide.

use super::hooks::guarded;
use super::rooms::{Looked, Rooms};
use super::world::{LiveService, World};
use super::{Dispatch, now};
use crate::schedule::{
    AskedAs, Decision, How, PoolId, QueueLimits, Share, Span, Ticket, TicketId, Turn,
};
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{ANONYMOUS, Ask, Caller, Intent, Need, Terms};

/// What is asked about.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// A job, that waits or has run.
    Job(String),
    /// A request, by its `X-Request-Id`.
    Request(String),
    /// A ticket, by its number.
    Ticket(u64),
    /// A request that nobody made yet.
    Would {
        /// The service's name.
        service: String,
        /// The path asked for.
        path: String,
        /// Its class, where the path does not say.
        class: Option<String>,
        /// Its model.
        model: Option<String>,
        /// Its size.
        size: Option<f64>,
        /// Who would ask.
        tenant: Option<String>,
    },
}

/// Why a request goes, waits or went where it does.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// `would` (nobody made it yet), `waits` or `decided`.
    pub state: &'static str,
    /// The service it is for.
    pub service: String,
    /// The policy that chooses.
    pub policy: &'static str,
    /// What the kind calls such a request.
    pub class: String,
    /// Who asks.
    pub tenant: String,
    /// The endpoint it got, or would get now; `None`: it waits, or would.
    pub would_pick: Option<String>,
    /// By which rule it got it.
    pub rule: Option<How>,
    /// How long it has waited, or had, seconds.
    pub waited_s: Option<f64>,
    /// How long ago that was decided, seconds.
    pub ago_s: Option<f64>,
    /// How many of its service wait.
    pub waiting: usize,
    /// How many of them are expected to be served before it.
    pub before: Option<usize>,
    /// How long their work takes, one after the other, seconds.
    pub before_s: Option<f64>,
    /// Every endpoint of the pool: those that could serve it by their cost, then the others.
    pub candidates: Vec<CandidateView>,
}

/// One endpoint of a pool, and what speaks for or against it.
#[derive(Clone, Debug, Serialize)]
pub struct CandidateView {
    /// `node/endpoint`.
    pub endpoint: String,
    /// As in [`EndpointInfo`](super::view::EndpointInfo).
    pub state: &'static str,
    /// Its weight in this pool.
    pub weight: u32,
    /// How many requests at once.
    pub slots: u32,
    /// Slots taken.
    pub used: u32,
    /// Share of its slots in use, divided by its weight.
    pub load: f64,
    /// Whether the work could begin there at once, now or when it was decided.
    pub room: bool,
    /// What it costs there, in seconds; `None` where it is out of the question.
    pub terms: Option<TermsView>,
    /// Whether it was chosen, or would be.
    pub chosen: bool,
    /// Why it is out of the question; `None` when it is in.
    pub excluded: Option<String>,
}

/// Each term of a cost, seconds. All 0 where the policy goes by load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TermsView {
    /// Until its slots are free.
    pub wait_s: f64,
    /// Until another service has let go of the card.
    pub switch_s: f64,
    /// Getting ready.
    pub load_s: f64,
    /// The work itself.
    pub run_s: f64,
    /// Money, as the seconds one would wait to save it.
    pub price_s: f64,
    /// What is taken off so that it is measured again.
    pub explore_s: f64,
    /// All together.
    pub total_s: f64,
}

impl From<Terms> for TermsView {
    fn from(terms: Terms) -> Self {
        TermsView {
            wait_s: terms.wait_s,
            switch_s: terms.switch_s,
            load_s: terms.load_s,
            run_s: terms.run_s,
            price_s: terms.price_s,
            explore_s: terms.explore_s,
            total_s: terms.total_s(),
        }
    }
}

// === impl Dispatch ===

impl Dispatch {
    /// Explains; `None`: there is no such service, or nothing is known of the request any more (the last 4096 decisions are
    /// kept).
    ///
    /// A policy that takes turns shows the turn it would take next.
    pub fn explain(&self, question: &Question) -> Option<Explanation> {
        let world: Arc<World> = self.world()?;
        let now = now();
        let asked = match question {
            Question::Would { service, .. } => {
                let service = world.service(service)?;
                // Its kind is asked, and may ask its host: not under the lock.
                let ticket = would(question, service, &world, now)?;
                let rooms = &mut self.0.core.lock().rooms;
                return Some(waiting(rooms, &ticket, service, "would", now));
            }
            Question::Job(id) => AskedAs::Job(id.as_str().into()),
            Question::Request(id) => AskedAs::Request(HeaderValue::from_str(id).ok()?),
            Question::Ticket(_) => AskedAs::Number,
        };
        let mut core = self.0.core.lock();
        let is_asked = |ticket: TicketId, as_what: &AskedAs| match question {
            Question::Ticket(number) => ticket.0 == *number,
            _ => *as_what == asked,
        };
        let rooms = &mut core.rooms;
        if let Some(ticket) = rooms
            .schedule
            .find(|t| is_asked(t.id, &t.asked_as))
            .cloned()
        {
            let service = world.service(&ticket.service)?;
            return Some(waiting(rooms, &ticket, service, "waits", now));
        }
        let mut latest = rooms.decided().rev();
        let decision = latest.find(|d| is_asked(d.ticket, &d.asked_as))?;
        let service = world.service(&decision.service)?;
        Some(decided(rooms, decision, service, now))
    }
}

/// What was decided of a ticket, as things stood then.
fn decided(rooms: &Rooms, decision: &Decision, service: &LiveService, now: Instant) -> Explanation {
    let weight = |id| {
        let members = rooms.pools.members(service.pool).iter();
        let mut weights = members.filter(|(other, _)| *other == id).map(|(_, w)| *w);
        weights.next().unwrap_or(1)
    };
    let considered = decision.considered.iter().map(|considered| Looked {
        endpoint: considered.endpoint,
        weight: weight(considered.endpoint),
        room: considered.room,
        terms: Some(considered.terms),
        excluded: None,
    });
    let unfit = decision.unfit.iter().map(|(endpoint, why)| Looked {
        endpoint: *endpoint,
        weight: weight(*endpoint),
        room: false,
        terms: None,
        excluded: Some(why.clone()),
    });
    let looked: Vec<Looked> = considered.chain(unfit).collect();
    let got = rooms.fleet.get(decision.endpoint);
    Explanation {
        state: "decided",
        service: decision.service.to_string(),
        policy: service.plan.policy.name(),
        class: decision.class.to_string(),
        tenant: decision.tenant.to_string(),
        would_pick: got.map(|endpoint| endpoint.name().to_string()),
        rule: Some(decision.how),
        waited_s: Some(decision.waited.as_secs_f64()),
        ago_s: Some(now.saturating_duration_since(decision.at).as_secs_f64()),
        waiting: rooms.schedule.waiting_in(&decision.service),
        before: None,
        before_s: None,
        candidates: candidates(rooms, &looked, Some(decision.endpoint)),
    }
}

/// What holds for a ticket now.
fn waiting(
    rooms: &mut Rooms,
    ticket: &Ticket,
    service: &LiveService,
    state: &'static str,
    now: Instant,
) -> Explanation {
    let looked = rooms.look(ticket, now);
    let picked = (state == "would")
        .then(|| rooms.would(ticket, now))
        .flatten();
    let before = rooms.schedule.before(ticket.id);
    let waited = now.saturating_duration_since(ticket.since);
    Explanation {
        state,
        service: ticket.service.to_string(),
        policy: service.plan.policy.name(),
        class: ticket.need.class.to_string(),
        tenant: ticket.need.tenant.to_string(),
        would_pick: picked
            .and_then(|id| rooms.fleet.get(id))
            .map(|endpoint| endpoint.name().to_string()),
        rule: None,
        waited_s: (state == "waits").then_some(waited.as_secs_f64()),
        ago_s: None,
        waiting: rooms.schedule.waiting_in(&ticket.service),
        before: before.map(|(count, _)| count),
        before_s: before.map(|(_, span)| span.mean_s()),
        candidates: candidates(rooms, &looked, picked),
    }
}

fn candidates(
    rooms: &Rooms,
    looked: &[Looked],
    chosen: Option<tabane_api::EndpointId>,
) -> Vec<CandidateView> {
    let view = |looked: &Looked| {
        let endpoint = rooms.fleet.get(looked.endpoint)?;
        Some(CandidateView {
            endpoint: endpoint.name().to_string(),
            state: endpoint.state().word(),
            weight: looked.weight,
            slots: endpoint.slots(),
            used: endpoint.used(),
            load: endpoint.candidate(looked.weight).load(),
            room: looked.room,
            terms: looked.terms.map(TermsView::from),
            chosen: chosen == Some(looked.endpoint),
            excluded: looked.excluded.clone(),
        })
    };
    let mut views: Vec<CandidateView> = looked.iter().filter_map(view).collect();
    views.sort_by(|a, b| {
        let total = |view: &CandidateView| view.terms.map_or(f64::INFINITY, |t| t.total_s);
        total(a)
            .total_cmp(&total(b))
            .then_with(|| a.endpoint.cmp(&b.endpoint))
    });
    views
}

/// The ticket of a request that nobody made.
fn would(
    question: &Question,
    service: &LiveService,
    world: &World,
    now: Instant,
) -> Option<Ticket> {
    let Question::Would {
        path,
        class,
        model,
        size,
        tenant,
        ..
    } = question
    else {
        return None;
    };
    let tenant: Arc<str> = tenant.as_deref().unwrap_or(ANONYMOUS).into();
    let caller = Caller {
        tenant: tenant.clone(),
        address: [127, 0, 0, 1].into(),
    };
    let headers = HeaderMap::new();
    let ask = Ask {
        method: &Method::GET,
        path,
        query: None,
        headers: &headers,
        caller: &caller,
    };
    let intent = guarded(&service.plan.name, || service.kind.classify(&ask, None));
    let mut need = match intent {
        Ok(Ok(Intent::Forward(need))) => need,
        _ => Need::of_class(path),
    };
    if let Some(class) = class {
        need.class = class.as_str().into();
    }
    if let Some(model) = model {
        need.model = Some(model.as_str().into());
    }
    need.size = size.unwrap_or(need.size);
    need.interactive = service.plan.interactive;
    let share: Share = world.share(&tenant);
    need.tenant = tenant;
    Some(Ticket {
        id: TicketId(u64::MAX),
        asked_as: AskedAs::Number,
        service: service.plan.name.clone(),
        pool: PoolId(service.pool.0),
        need,
        policy: service.policy.clone(),
        kind: Some(service.kind.clone()),
        price: service.plan.price,
        excluded: Vec::new(),
        barred: Vec::new(),
        turn: Turn::Held(now),
        since: now,
        before_s: 0.0,
        share,
        patience: service.plan.patience,
        expected: Span::default(),
        queue: QueueLimits {
            max: 0,
            max_wait: Duration::ZERO,
        },
    })
}

#[cfg(test)]
mod tests;
