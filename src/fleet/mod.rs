//! Who can work: every endpoint with its slots, its health and its marks.
//!
//! No IO, no clock, no chance: `apply(event, now)` changes the state and says what follows from it.
//!
//! Rules of slots.
//! - Never more than `slots` are taken on an endpoint, those that cool counted. When a reload makes an
//!   endpoint smaller, what it holds may go on; nothing new fits until it is below.
//! - The slot is the node's, not the response's: a request that was broken off may still be at work there
//!   (a renderer does not notice that its client left). Its slots *cool* until the node says that it works
//!   on no more than we know of, `Service::stop` achieved it, or the service's `cool_down` has passed.
//! - A probe frees cooling slots only if it began after they began to cool: an older one saw the past. What
//!   was taken since it began is not among those it counted.
//! - A probe that began before its endpoint moved asked another machine: it says nothing.
//! - Leases without slots are counted too, so that a leaving endpoint waits for them.

mod cards;
mod endpoint;
mod health;
mod sharing;

pub use endpoint::{Endpoint, Spec, State, Takes};
pub use health::Why;
pub use sharing::{Claim, Outcome, Want};

use cards::Cards;
use endpoint::Cooling;
use health::{Change, Health};
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, ProbeError, Vitals};

/// Every endpoint that is wanted or still at work.
#[derive(Debug, Default)]
pub struct Fleet {
    endpoints: FxHashMap<EndpointId, Endpoint>,
    by_name: HashMap<Arc<str>, EndpointId>,
    next: u32,
    /// Nodes an operator drained, whether or not the plan has them.
    marked: BTreeSet<Arc<str>>,
    /// What each endpoint is waiting for, soonest first: asked on every turn, so never searched for.
    due: BTreeSet<(Instant, EndpointId)>,
    /// The cards that several endpoints share.
    cards: Cards,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// This is wanted, and nothing else.
    Plan(Vec<Spec>),
    /// An operator drained a node, or took the mark back.
    Drain {
        /// The node's name; it may be unknown yet.
        node: Arc<str>,
        /// Whether it is drained.
        on: bool,
    },
    /// A probe ended.
    Probed {
        /// Which endpoint.
        endpoint: EndpointId,
        /// When it began.
        started: Instant,
        /// What it said.
        outcome: Result<Vitals, ProbeError>,
    },
    /// The first byte of an answer came.
    Answered {
        /// Which endpoint.
        endpoint: EndpointId,
    },
    /// A lease was given back.
    Ended {
        /// Which endpoint.
        endpoint: EndpointId,
        /// How many slots it held.
        slots: u32,
        /// How the work ended.
        end: End,
        /// How long its slots cool when it was broken off.
        cool_down: Duration,
    },
    /// The kind achieved that a broken-off request is no longer at work.
    Stopped {
        /// Which endpoint.
        endpoint: EndpointId,
        /// How many slots it held.
        slots: u32,
    },
    /// Who waits for endpoints that do not hold their card: these, and nobody else.
    Wanted(Vec<Want>),
    /// An endpoint was asked to let go of its card.
    Released {
        /// Which endpoint.
        endpoint: EndpointId,
        /// What came of it.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// How the work of a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The answer was whole.
    Done,
    /// The node failed it.
    Failed(Failure),
    /// It was broken off from our side.
    Aborted {
        /// Whether an answer had begun.
        began: bool,
    },
    /// Nothing was ever sent.
    Unused,
}

/// How a node failed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about.
    Connect,
    /// It broke the connection off.
    Reset,
    /// Its status counts as failure.
    Status,
    /// It took longer than it may.
    Timeout,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Who waits should look again: there may be room that was not there before, or one who was waited for
    /// is out, so that whoever was tied to it may go elsewhere.
    Freed,
    /// An endpoint is used again, or for the first time.
    Up(EndpointId),
    /// An endpoint is no longer used.
    Down(EndpointId, Why),
    /// An endpoint is not used for so long.
    Ejected(EndpointId, Duration),
    /// The leases of an endpoint must end now.
    Revoke(EndpointId, Why),
    /// An endpoint is forgotten.
    Gone(EndpointId),
    /// An endpoint is to be asked to let go of its card.
    Release(EndpointId),
    /// An endpoint is to be probed now: somebody waits for its word on free memory.
    Prove(EndpointId),
    /// A card changed hands.
    Held {
        /// Who holds it now, perhaps beside others.
        endpoint: EndpointId,
        /// Who had to make room; `None`: nobody held it.
        from: Option<EndpointId>,
        /// How long it took from when that one got no further work.
        took: Duration,
    },
    /// An endpoint will not hold its card: what it claims does not fit beside what cannot let go.
    NoRoom(EndpointId),
    /// All have let go of a card, and still less of it is free than this endpoint claims.
    Unproven(EndpointId),
}

// === impl Fleet ===

impl Fleet {
    /// A fleet of nobody.
    pub fn new() -> Self {
        Fleet::default()
    }

    /// Lets something happen.
    pub fn apply(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = self.happen(event, now);
        self.settle_cards(&mut actions, now);
        actions
    }

    fn happen(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Plan(specs) => self.plan(specs, now),
            Event::Drain { node, on } => self.drain(node, on),
            Event::Probed {
                endpoint,
                started,
                outcome,
            } => self.probed(endpoint, started, outcome, now),
            Event::Answered { endpoint } => {
                if let Some(endpoint) = self.endpoints.get_mut(&endpoint) {
                    endpoint.health.succeeded(false, now);
                }
                Vec::new()
            }
            Event::Ended {
                endpoint,
                slots,
                end,
                cool_down,
            } => self.ended(endpoint, slots, end, cool_down, now),
            Event::Stopped { endpoint, slots } => self.stopped(endpoint, slots),
            Event::Wanted(wants) => {
                self.wanted(wants, now);
                Vec::new()
            }
            Event::Released { endpoint, outcome } => {
                self.released(endpoint, outcome, now);
                Vec::new()
            }
            Event::Tick => self.tick(now),
        }
    }

    /// Takes slots on an endpoint; `false` when it is not usable or they do not fit.
    pub fn take(&mut self, id: EndpointId, slots: u32, now: Instant) -> bool {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return false;
        };
        let free = endpoint.used().saturating_add(slots) <= endpoint.slots();
        let fits = slots == 0 || (endpoint.held && free);
        if !endpoint.is_usable() || !fits {
            return false;
        }
        self.occupy(id, slots, now)
    }

    /// Takes slots for work that the node has already, from before the gateway went down: whatever its state, and whether or
    /// not they fit. `false`: there is no such endpoint.
    pub fn occupy(&mut self, id: EndpointId, slots: u32, now: Instant) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return false;
        };
        if slots == 0 {
            endpoint.passing += 1;
        } else {
            endpoint.at_work += slots;
            endpoint.requests += 1;
            endpoint.note_taken(now);
        }
        endpoint.health.taken();
        if slots > 0 && endpoint.spec.claim.is_some() {
            self.card_at_work(id, now);
        }
        true
    }

    /// Whether an endpoint may be given new work, room or not.
    pub fn usable(&self, id: EndpointId) -> bool {
        self.endpoints.get(&id).is_some_and(Endpoint::is_usable)
    }

    /// The endpoint of this number.
    pub fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    /// The number of this name.
    pub fn by_name(&self, name: &str) -> Option<EndpointId> {
        self.by_name.get(name).copied()
    }

    /// Every endpoint, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// How long until an endpoint's next probe.
    pub fn probe_interval(&self, id: EndpointId) -> Duration {
        match self.endpoints.get(&id) {
            Some(endpoint)
                if endpoint.health.wants_attention()
                    || !endpoint.cooling.is_empty()
                    || self.cards.is_proving(endpoint) =>
            {
                endpoint.spec.health.interval_down
            }
            Some(endpoint) => endpoint.spec.health.interval,
            None => Duration::from_secs(1),
        }
    }

    /// When a [`Event::Tick`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let endpoint = self.due.first().map(|(due, _)| *due);
        endpoint.into_iter().chain(self.cards.next_due()).min()
    }

    fn plan(&mut self, specs: Vec<Spec>, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let wanted: BTreeSet<Arc<str>> = specs.iter().map(|spec| spec.name.clone()).collect();
        for spec in specs {
            match self
                .by_name
                .get(&spec.name)
                .and_then(|id| self.endpoints.get_mut(id))
            {
                Some(known) => {
                    if known.spec.target != spec.target {
                        // Another machine under the old name: nothing that was known of it holds.
                        known.health = Health::new(now);
                        known.there_since = now;
                        known.vitals = Arc::default();
                        known.seen = None;
                        known.last_error.clear();
                        self.cards.came_up(known);
                    }
                    known.marked = self.marked.contains(&spec.node.name);
                    known.leaving = false;
                    known.revoke_at = None;
                    known.spec = spec;
                }
                None => {
                    let id = EndpointId(self.next);
                    self.next += 1;
                    let marked = self.marked.contains(&spec.node.name);
                    self.by_name.insert(spec.name.clone(), id);
                    self.endpoints
                        .insert(id, Endpoint::new(id, spec, marked, now));
                }
            }
        }
        for endpoint in self.endpoints.values_mut() {
            if !endpoint.leaving && !wanted.contains(endpoint.name()) {
                endpoint.leaving = true;
                endpoint.revoke_at = Some(now + endpoint.spec.drain);
            }
        }
        self.cards.plan(&mut self.endpoints, now);
        let all: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in all {
            self.settle(id, &mut actions);
        }
        // More slots, a mark of the file taken back, a node that returned: those who wait should look again.
        actions.push(Action::Freed);
        actions
    }

    fn drain(&mut self, node: Arc<str>, on: bool) -> Vec<Action> {
        for endpoint in self
            .endpoints
            .values_mut()
            .filter(|endpoint| endpoint.node().name == node)
        {
            endpoint.marked = on;
            self.cards.touch(endpoint);
        }
        if on {
            self.marked.insert(node);
        } else {
            self.marked.remove(&node);
        }
        vec![Action::Freed]
    }

    fn probed(
        &mut self,
        id: EndpointId,
        started: Instant,
        outcome: Result<Vitals, ProbeError>,
        now: Instant,
    ) -> Vec<Action> {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return Vec::new();
        };
        if started < endpoint.there_since {
            return Vec::new();
        }
        let mut actions = Vec::new();
        match outcome {
            Ok(vitals) => {
                endpoint.last_error.clear();
                if let Some(busy) = vitals.busy
                    && endpoint.cool_to(busy, started)
                {
                    actions.push(Action::Freed);
                }
                // Somebody may wait for a model that it shows from now on, or for a slot.
                if endpoint.vitals.models != vitals.models || endpoint.vitals.slots != vitals.slots
                {
                    actions.push(Action::Freed);
                }
                endpoint.vitals = Arc::new(vitals);
                endpoint.seen = Some(started);
                let change = endpoint.health.good_probe(&endpoint.spec.health, now);
                if change.is_some() {
                    self.cards.came_up(endpoint);
                }
                actions.extend(told(id, change));
            }
            Err(why) => {
                endpoint.last_error = why.to_string();
                let full = endpoint.used() >= endpoint.slots();
                let holds = !endpoint.is_idle();
                actions.extend(told(
                    id,
                    endpoint
                        .health
                        .bad_probe(&why, full, holds, &endpoint.spec.health, now),
                ));
            }
        }
        self.settle(id, &mut actions);
        actions
    }

    fn ended(
        &mut self,
        id: EndpointId,
        slots: u32,
        end: End,
        cool_down: Duration,
        now: Instant,
    ) -> Vec<Action> {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return Vec::new();
        };
        if slots == 0 {
            debug_assert!(endpoint.passing > 0, "a lease was given back twice");
            endpoint.passing = endpoint.passing.saturating_sub(1);
        } else {
            debug_assert!(endpoint.at_work >= slots, "a lease was given back twice");
            endpoint.at_work = endpoint.at_work.saturating_sub(slots);
            endpoint.requests = endpoint.requests.saturating_sub(1);
        }
        let plan = endpoint.spec.health;
        let changes = match end {
            End::Done => Vec::from_iter(endpoint.health.succeeded(true, now)),
            End::Failed(Failure::Connect) => endpoint.health.refused(&plan, now),
            End::Failed(_) => Vec::from_iter(endpoint.health.failed(&plan, now)),
            End::Aborted { .. } | End::Unused => Vec::from_iter(endpoint.health.trial_over()),
        };
        if let End::Failed(failure) = end {
            endpoint.last_error = failure.words().into();
        }
        // A reset or a timeout leaves the node as unknown as a client that left.
        let cools = matches!(
            end,
            End::Aborted { .. } | End::Failed(Failure::Reset | Failure::Timeout)
        );
        let mut actions = told(id, changes);
        if cools && slots > 0 && !cool_down.is_zero() {
            endpoint.cooling.push(Cooling {
                slots,
                since: now,
                until: now + cool_down,
            });
        } else {
            actions.push(Action::Freed);
        }
        self.settle(id, &mut actions);
        actions
    }

    fn stopped(&mut self, id: EndpointId, slots: u32) -> Vec<Action> {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return Vec::new();
        };
        let alike = |(_, cooling): &(usize, &Cooling)| cooling.slots == slots;
        let all = || endpoint.cooling.iter().enumerate().filter(alike);
        // Which of those that are alike was stopped is not said: the earliest and the shortest of them is
        // taken off, so that what stays is never less than what may still be at work.
        let earliest = all().min_by_key(|(_, cooling)| cooling.since);
        let shortest = all().min_by_key(|(_, cooling)| cooling.until);
        let (Some((earliest, &Cooling { until, .. })), Some((shortest, _))) = (earliest, shortest)
        else {
            return Vec::new();
        };
        endpoint.cooling[shortest].until = until;
        endpoint.cooling.remove(earliest);
        let mut actions = vec![Action::Freed];
        self.settle(id, &mut actions);
        actions
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(endpoint) = self.endpoints.get_mut(&id) else {
                continue;
            };
            endpoint.due = None;
            let before = endpoint.cooling.len();
            endpoint.cooling.retain(|cooling| cooling.until > now);
            if endpoint.cooling.len() < before {
                actions.push(Action::Freed);
            }
            actions.extend(told(id, endpoint.health.tick(now)));
            if endpoint.revoke_at.is_some_and(|until| until <= now) {
                // Told once: what does not end by this is not ended by telling it again.
                endpoint.revoke_at = None;
                actions.push(Action::Revoke(id, Why::Left));
            }
            self.settle(id, &mut actions);
        }
        actions
    }

    /// Brings what the fleet keeps of an endpoint beside it up to date, after anything may have changed:
    /// when it is due, and whether it can be forgotten, having left and holding nothing of ours.
    fn settle(&mut self, id: EndpointId, actions: &mut Vec<Action>) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return;
        };
        if endpoint.cooling.is_empty() {
            endpoint.young.clear();
        }
        self.cards.touch(endpoint);
        let gone = endpoint.leaving && endpoint.is_idle() && self.cards.has_let_go(endpoint);
        let due = endpoint.next_due().filter(|_| !gone);
        if due != endpoint.due {
            if let Some(before) = endpoint.due {
                self.due.remove(&(before, id));
            }
            if let Some(due) = due {
                self.due.insert((due, id));
            }
            endpoint.due = due;
        }
        if gone && let Some(endpoint) = self.endpoints.remove(&id) {
            self.by_name.remove(endpoint.name());
            self.cards.gone(&endpoint);
            actions.push(Action::Gone(id));
        }
    }
}

impl Failure {
    fn words(self) -> &'static str {
        match self {
            Failure::Connect => "a request could not connect",
            Failure::Reset => "it broke a request off",
            Failure::Status => "it answered a request with a status that counts as failure",
            Failure::Timeout => "it did not answer a request in time",
        }
    }
}

fn told(id: EndpointId, changes: impl IntoIterator<Item = Change>) -> Vec<Action> {
    let mut actions = Vec::new();
    for change in changes {
        match change {
            Change::Up => actions.extend([Action::Up(id), Action::Freed]),
            Change::Down(why) => actions.extend([Action::Down(id, why), Action::Freed]),
            Change::Ejected(length) => actions.extend([Action::Ejected(id, length), Action::Freed]),
            Change::Revoke(why) => actions.push(Action::Revoke(id, why)),
            Change::Room => actions.push(Action::Freed),
        }
    }
    actions
}

#[cfg(test)]
mod tests;
