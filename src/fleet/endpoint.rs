use super::health::{Health, Word};
use super::sharing::{Claim, Look};
use crate::config::plan::{HealthPlan, Target};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{Candidate, EndpointId, EndpointView, NodeFacts, Terms, Vitals, hash};

/// What the plan wants of an endpoint.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `node/endpoint`: by this it is known again after a reload.
    pub name: Arc<str>,
    /// The node it stands on.
    pub node: Arc<NodeFacts>,
    /// Where it is.
    pub target: Target,
    /// How many requests at once.
    pub slots: u32,
    /// Whether the file says so; else its own word counts.
    pub slots_said: bool,
    /// What it takes.
    pub takes: Takes,
    /// Whether the file keeps its node from new work.
    pub drained: bool,
    /// When it counts as well.
    pub health: HealthPlan,
    /// How long it may go on with what it has once it is removed.
    pub drain: Duration,
    /// What it claims of its node's card; `None`: the card is not shared.
    pub claim: Option<Claim>,
}

/// What an endpoint takes, by the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takes {
    /// The models that it has; `None`: what its probe says.
    pub models: Option<Arc<[Arc<str>]>>,
    /// The largest request, in the unit of its class; `None`: any.
    pub max_size: Option<f64>,
}

/// An endpoint as it is now.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) hash: u64,
    pub(super) spec: Spec,
    pub(super) health: Health,
    /// An operator's mark.
    pub(super) marked: bool,
    /// Whether the plan no longer wants it.
    pub(super) leaving: bool,
    /// When its leases are revoked; told once, then `None`.
    pub(super) revoke_at: Option<Instant>,
    /// Since when it is where it is: a probe that began before asked another machine.
    pub(super) there_since: Instant,
    /// When time alone changes something of it, as the fleet has noted it.
    pub(super) due: Option<Instant>,
    pub(super) at_work: u32,
    /// How many requests hold the slots at work: a node counts requests, not slots.
    pub(super) requests: u32,
    /// When the youngest of them were given, kept while something cools.
    pub(super) young: VecDeque<Instant>,
    pub(super) passing: u32,
    pub(super) cooling: Vec<Cooling>,
    pub(super) vitals: Arc<Vitals>,
    /// When the probe that said so began.
    pub(super) seen: Option<Instant>,
    /// Whether its card is its own now.
    pub(super) held: bool,
    pub(super) last_error: String,
}

/// Slots of a request that was broken off and may still be at work on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cooling {
    pub(super) slots: u32,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// An endpoint's state in a word, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No probe has succeeded yet.
    Unproven,
    /// It gets requests.
    Up,
    /// Its probes fail.
    Down,
    /// Its requests failed in a row.
    Ejected,
    /// One request at a time, to see.
    Trial,
    /// It gets nothing new.
    Draining,
    /// The plan no longer wants it; it ends what it is at.
    Leaving,
}

impl State {
    /// All of them.
    pub const ALL: [State; 7] = [
        State::Unproven,
        State::Up,
        State::Down,
        State::Ejected,
        State::Trial,
        State::Draining,
        State::Leaving,
    ];

    /// The word in metrics, API and logs.
    pub fn word(self) -> &'static str {
        match self {
            State::Unproven => "unproven",
            State::Up => "up",
            State::Down => "down",
            State::Ejected => "ejected",
            State::Trial => "trial",
            State::Draining => "draining",
            State::Leaving => "leaving",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(id: EndpointId, spec: Spec, marked: bool, now: Instant) -> Self {
        Endpoint {
            id,
            hash: hash(spec.name.as_bytes()),
            health: Health::new(now),
            marked,
            leaving: false,
            revoke_at: None,
            there_since: now,
            due: None,
            at_work: 0,
            requests: 0,
            young: VecDeque::new(),
            passing: 0,
            cooling: Vec::new(),
            vitals: Arc::default(),
            seen: None,
            held: spec.claim.is_none(),
            last_error: String::new(),
            spec,
        }
    }

    /// Its number, for as long as the gateway runs.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// `node/endpoint`.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    /// The node it stands on.
    pub fn node(&self) -> &Arc<NodeFacts> {
        &self.spec.node
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.spec.target
    }

    /// How many requests at once.
    pub fn slots(&self) -> u32 {
        let told = self.vitals.slots.filter(|_| !self.spec.slots_said);
        told.map_or(self.spec.slots, |told| told.max(1))
    }

    /// What it takes.
    pub fn takes(&self) -> &Takes {
        &self.spec.takes
    }

    /// Slots taken: at work and cooling.
    pub fn used(&self) -> u32 {
        self.at_work + self.cooling()
    }

    /// Slots of requests at work.
    pub fn at_work(&self) -> u32 {
        self.at_work
    }

    /// Slots of requests that were broken off and may still be at work on the node.
    pub fn cooling(&self) -> u32 {
        self.cooling.iter().map(|cooling| cooling.slots).sum()
    }

    /// Requests that take no slot.
    pub fn passing(&self) -> u32 {
        self.passing
    }

    /// What its last good probe said.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Why it last failed; empty while it is well.
    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    /// Its state in a word: what keeps it from work first.
    pub fn state(&self) -> State {
        match self.health.word() {
            _ if self.leaving => State::Leaving,
            Word::Down => State::Down,
            _ if self.marked || self.spec.drained => State::Draining,
            Word::Unproven => State::Unproven,
            Word::Up => State::Up,
            Word::Ejected => State::Ejected,
            Word::Trial => State::Trial,
        }
    }

    /// Whether it may be given new work, room or not.
    pub fn is_usable(&self) -> bool {
        !self.leaving && !self.marked && !self.spec.drained && self.health.takes_work()
    }

    /// Whether its card is its own now: where several share it, only who holds it may work.
    pub fn holds_card(&self) -> bool {
        self.held
    }

    /// As its card sees it.
    pub(super) fn look(&self) -> Look {
        let free = self.vitals.vram_free_mib;
        Look {
            usable: self.is_usable(),
            up: !matches!(self.health.word(), Word::Unproven | Word::Down),
            idle: self.used() == 0,
            busy: self.vitals.busy.is_some_and(|busy| busy > 0),
            leaving: self.leaving,
            free: self.seen.zip(free),
        }
    }

    /// Whether nothing of ours is on it any more.
    pub(super) fn is_idle(&self) -> bool {
        self.at_work == 0 && self.passing == 0
    }

    /// When time alone changes something of it.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let cooling = self.cooling.iter().map(|cooling| cooling.until).min();
        [cooling, self.health.due(), self.revoke_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Remembers when a request was given, while something cools: a probe under way does not know of it.
    pub(super) fn note_taken(&mut self, now: Instant) {
        if self.cooling.is_empty() {
            return;
        }
        self.young.push_back(now);
        // More than are at work cannot be young: the older ones are forgotten.
        while self.young.len() > self.requests as usize {
            self.young.pop_front();
        }
    }

    /// The node says how many requests it works on: what cools beyond that has ended. Whether anything did.
    pub(super) fn cool_to(&mut self, busy: u32, probe_started: Instant) -> bool {
        let young = self.young.iter().filter(|at| **at >= probe_started).count();
        let still = (busy as usize).saturating_sub((self.requests as usize).saturating_sub(young));
        let (seen, unseen): (Vec<Cooling>, Vec<Cooling>) = self
            .cooling
            .iter()
            .partition(|cooling| cooling.since < probe_started);
        if seen.len() <= still {
            return false;
        }
        // Which of them go on nobody knows: those that stay are the largest, for the longest.
        let mut slots = Vec::from_iter(seen.iter().map(|cooling| cooling.slots));
        let mut until = Vec::from_iter(seen.iter().map(|cooling| cooling.until));
        slots.sort_unstable_by(|a, b| b.cmp(a));
        until.sort_unstable_by(|a, b| b.cmp(a));
        let since = seen.iter().map(|cooling| cooling.since).max();
        let stays = slots.into_iter().zip(until).take(still);
        self.cooling = stays
            .map(|(slots, until)| Cooling {
                slots,
                since: since.unwrap_or(probe_started),
                until,
            })
            .chain(unseen)
            .collect();
        true
    }

    /// As a policy sees it.
    pub fn candidate(&self, weight: u32) -> Candidate<'_> {
        Candidate {
            id: self.id,
            name: &self.spec.name,
            hash: self.hash,
            weight,
            slots: self.slots(),
            used: self.used(),
            passing: self.passing,
            held: self.held,
            terms: Terms::default(),
            node: &self.spec.node,
        }
    }

    /// As a kind sees it.
    pub fn view(&self) -> EndpointView {
        EndpointView {
            id: self.id,
            name: self.spec.name.clone(),
            node: self.spec.node.clone(),
            usable: self.is_usable(),
            slots: self.slots(),
            used: self.used(),
            vitals: self.vitals.clone(),
        }
    }
}
