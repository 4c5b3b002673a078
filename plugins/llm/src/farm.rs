//! The endpoints, as they stand: what their engines say, what is at work there, and what they have computed.

use crate::call::{Call, Placed};
use crate::config::Prefix;
use crate::engines::{Engine, Facts};
use crate::learn::{Asks, Learned, Load};
use crate::prefix::{BLOCK, Prefixes};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, EndpointView};

/// What is remembered of an endpoint whose engine does not say how much it keeps, tokens.
const REMEMBERS: u64 = 1 << 20;

/// All endpoints.
#[derive(Default)]
pub(crate) struct Farm(RwLock<Nodes>);

#[derive(Default)]
struct Nodes {
    by_name: HashMap<Arc<str>, Arc<Node>>,
    by_id: HashMap<EndpointId, Arc<Node>>,
}

/// An endpoint.
pub(crate) struct Node {
    /// `node/endpoint`.
    pub(crate) name: Arc<str>,
    pub(crate) state: Mutex<State>,
}

/// How an endpoint stands.
pub(crate) struct State {
    /// Requests of ours at work.
    running: u32,
    /// Those of them whose tokens come.
    begun: u32,
    /// The most that were at work since the last probe.
    most: u32,
    /// Tokens of prompts that are still to be read, of those whose first token tells that they are.
    ahead: u64,
    /// Those of answers that come at once, which tell nothing: until when they are taken to be read, and how many.
    untold: Vec<(Instant, u64)>,
    /// When a token came last.
    heard: Option<Instant>,
    prefixes: Prefixes,
    /// What its engine says.
    pub(crate) facts: Facts,
    /// Its lists of models, as it says them, by their paths.
    pub(crate) lists: HashMap<&'static str, Bytes>,
    /// Requests of others, as far as its engine tells.
    foreign: u32,
    /// What its engine has counted, and since when that stands still.
    counted: Option<(f64, Instant)>,
    /// Nobody listened there at its last probe.
    pub(crate) was_gone: bool,
}

// === impl Farm ===

impl Farm {
    /// The endpoint of this name; a new one where nobody knew it.
    pub(crate) fn named(&self, name: &str) -> Arc<Node> {
        if let Some(node) = self.0.read().by_name.get(name) {
            return node.clone();
        }
        self.0.write().named(name)
    }

    /// The endpoint of this id.
    pub(crate) fn get(&self, id: EndpointId) -> Option<Arc<Node>> {
        self.0.read().by_id.get(&id).cloned()
    }

    /// The same; its name is known here.
    pub(crate) fn known(&self, id: EndpointId, name: &str) -> Arc<Node> {
        let node = self.get(id).filter(|node| *node.name == *name);
        node.unwrap_or_else(|| self.0.write().place(id, name))
    }

    /// The id of an endpoint.
    pub(crate) fn id(&self, name: &str) -> Option<EndpointId> {
        let nodes = self.0.read();
        let mut all = nodes.by_id.iter();
        all.find_map(|(id, node)| (*node.name == *name).then_some(*id))
    }

    /// These are all that there are.
    pub(crate) fn set(&self, all: &[EndpointView]) {
        let mut nodes = self.0.write();
        nodes
            .by_id
            .retain(|id, _| all.iter().any(|at| at.id == *id));
        nodes
            .by_name
            .retain(|name, _| all.iter().any(|at| at.name == *name));
        for at in all {
            nodes.place(at.id, &at.name);
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.0.read().by_name.values().cloned().collect()
    }
}

// === impl Nodes ===

impl Nodes {
    fn named(&mut self, name: &str) -> Arc<Node> {
        if let Some(node) = self.by_name.get(name) {
            return node.clone();
        }
        let name: Arc<str> = name.into();
        let node = Arc::new(Node::new(name.clone()));
        self.by_name.insert(name, node.clone());
        node
    }

    fn place(&mut self, id: EndpointId, name: &str) -> Arc<Node> {
        let node = self.named(name);
        if !matches!(self.by_id.get(&id), Some(there) if Arc::ptr_eq(there, &node)) {
            // It has come back under its name, and may be another.
            self.by_id.retain(|_, there| !Arc::ptr_eq(there, &node));
            self.by_id.insert(id, node.clone());
        }
        node
    }
}

// === impl Node ===

impl Node {
    fn new(name: Arc<str>) -> Self {
        Node {
            name,
            state: Mutex::new(State {
                running: 0,
                begun: 0,
                most: 0,
                ahead: 0,
                untold: Vec::new(),
                heard: None,
                prefixes: Prefixes::new(Prefixes::blocks_of(REMEMBERS, 4.0)),
                facts: Facts::default(),
                lists: HashMap::new(),
                foreign: 0,
                counted: None,
                was_gone: false,
            }),
        }
    }

    /// What it has to do for others, and how much of a prompt it has computed, tokens. `used`: how many of its slots are taken.
    pub(crate) fn load(
        &self,
        call: Option<&Call>,
        used: u32,
        bytes_per_token: f64,
        now: Instant,
    ) -> (Load, f64) {
        let state = self.state.lock();
        let hit = call.map_or(0.0, |call| state.hit(call, bytes_per_token));
        let running = state.running.max(used).saturating_add(state.foreign);
        let load = Load {
            running,
            waiting: 0,
            slots: 0,
            ahead: state.ahead(now) as f64,
            loaded: true,
        };
        (load, hit)
    }

    /// A request begins here.
    pub(crate) fn begins(self: &Arc<Self>, call: &Call, learned: &Learned, now: Instant) {
        let bytes_per_token = learned.bytes_per_token(&call.model);
        let mut state = self.state.lock();
        let hit = state.hit(call, bytes_per_token);
        let reading = (call.tokens - hit).max(0.0) as u64;
        let slots = state.facts.slots.unwrap_or(u32::MAX);
        let engine_waits = state.facts.waiting.is_some_and(|waiting| waiting > 0);
        let at_work = state.running.saturating_add(state.foreign);
        let ahead = state.ahead(now);
        let placed = Placed {
            node: self.clone(),
            since: now,
            ahead,
            reading: if call.request.streams { reading } else { 0 },
            hit: hit as u64,
            running: at_work,
            queued: engine_waits || at_work >= slots,
            cold: state.is_cold(&call.model),
            begun: false,
        };
        state.begin(placed.reading);
        if !call.request.streams {
            let asks = Asks {
                prompt: call.tokens,
                hit,
                out: 1.0,
            };
            let load = Load {
                ahead: ahead as f64,
                loaded: true,
                ..Load::default()
            };
            let reads_s = learned
                .estimate(&self.name, &call.model, asks, load)
                .prefill_s;
            state.reads_until(now, reads_s, reading);
        }
        drop(state);
        *call.placed.lock() = Some(placed);
    }

    /// One of which nothing is known begins here.
    pub(crate) fn begins_unknown(&self) {
        self.state.lock().begin(0);
    }

    /// A request is over here. `call`: `None`, where nothing is known of it.
    pub(crate) fn ends(&self, call: Option<&Call>) {
        let mut placed = call.map(|call| call.placed.lock());
        let placed = placed.as_deref_mut().and_then(Option::as_mut);
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
        if let Some(placed) = placed.filter(|placed| std::ptr::eq(&*placed.node, self)) {
            state.ahead = state.ahead.saturating_sub(placed.reading);
            state.begun = state.begun.saturating_sub(u32::from(placed.begun));
            (placed.reading, placed.begun) = (0, false);
        }
    }

    /// A token came: the first of its request, or another.
    pub(crate) fn heard(&self, call: &Call, is_first: bool, now: Instant) {
        let mut placed = call.placed.lock();
        let mut state = self.state.lock();
        state.heard = Some(now);
        let Some(placed) = placed.as_mut().filter(|_| is_first) else {
            return;
        };
        state.ahead = state.ahead.saturating_sub(placed.reading);
        placed.reading = 0;
        if !placed.begun && state.running > 0 {
            placed.begun = true;
            state.begun += 1;
        }
        state.prefixes.note(&call.blocks);
    }

    /// What its engine said to a probe; whether it was restarted since the last one.
    pub(crate) fn told(&self, facts: Facts, prefix: &Prefix, now: Instant) -> bool {
        let mut state = self.state.lock();
        let restarted = state.is_restart(&facts) || state.was_gone;
        if restarted {
            state.prefixes.forget();
            state.counted = None;
        }
        state.was_gone = false;
        let tokens = prefix.tokens.or(facts.kv_tokens).unwrap_or(REMEMBERS);
        let blocks = Prefixes::blocks_of(tokens, 4.0);
        if blocks != state.prefixes.capacity() {
            state.prefixes.resize(blocks);
        }
        let busy = facts
            .running
            .map(|running| running.saturating_add(facts.waiting.unwrap_or(0)));
        let ours = state.most.max(state.running);
        state.foreign = busy.map_or(0, |busy| busy.saturating_sub(ours));
        state.most = state.running;
        state.counted = match (facts.counted, state.counted) {
            (Some(counted), Some((before, since))) if counted == before => Some((before, since)),
            (Some(counted), _) => Some((counted, now)),
            (None, _) => None,
        };
        state.facts = facts;
        restarted
    }

    /// For how long its engine has said nothing, and counted nothing where it counts, though it is in the middle of answers of
    /// ours; `None`: it is not. And whether it counts.
    pub(crate) fn silent(&self, now: Instant) -> Option<(Duration, bool)> {
        let state = self.state.lock();
        let heard = state.heard?;
        let since = state.counted.map_or(heard, |(_, since)| since.max(heard));
        // An engine that is done is silent, however slowly clients read.
        let works = state.begun > 0 && state.facts.running != Some(0);
        works.then(|| {
            (
                now.saturating_duration_since(since),
                state.counted.is_some(),
            )
        })
    }

    /// Requests of ours at work here.
    pub(crate) fn running(&self) -> u32 {
        self.state.lock().running
    }

    /// Whether it has one model, and takes any name for it.
    pub(crate) fn takes_any_name(&self) -> bool {
        let state = self.state.lock();
        let loads = matches!(
            state.facts.engine,
            None | Some(Engine::Ollama | Engine::LmStudio | Engine::OpenAi)
        );
        !loads && state.facts.models.len() == 1
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

// === impl State ===

impl State {
    fn begin(&mut self, reading: u64) {
        self.running = self.running.saturating_add(1);
        self.most = self.most.max(self.running);
        self.ahead = self.ahead.saturating_add(reading);
    }

    /// Tokens of prompts that are still to be read.
    fn ahead(&self, now: Instant) -> u64 {
        let untold = self.untold.iter().filter(|(until, _)| *until > now);
        let untold = untold.map(|(_, tokens)| *tokens);
        untold.fold(self.ahead, u64::saturating_add)
    }

    fn reads_until(&mut self, now: Instant, reads_s: f64, tokens: u64) {
        self.untold.retain(|(until, _)| *until > now);
        let reads = Duration::try_from_secs_f64(reads_s).unwrap_or_default();
        if let Some(until) = now.checked_add(reads) {
            self.untold.push((until, tokens));
        }
    }

    fn hit(&self, call: &Call, bytes_per_token: f64) -> f64 {
        if call.blocks.is_empty() {
            return 0.0;
        }
        let bytes = self.prefixes.hit(&call.blocks) * BLOCK;
        (bytes as f64 / bytes_per_token).min(call.tokens)
    }

    fn is_cold(&self, model: &str) -> bool {
        let mut models = self.facts.models.iter();
        let is = |known: &str| known == model || known.strip_suffix(":latest") == Some(model);
        let known = models.find(|known| is(&known.name) || known.aliases.iter().any(|a| is(a)));
        self.facts.says_loaded && known.is_some_and(|known| known.loaded == Some(false))
    }

    /// Another process, or one that counts anew.
    fn is_restart(&self, facts: &Facts) -> bool {
        let started = match (self.facts.started_s, facts.started_s) {
            (Some(before), Some(now)) => now > before + 1.0,
            _ => false,
        };
        let anew =
            matches!((self.counted, facts.counted), (Some((before, _)), Some(now)) if now < before);
        started || anew
    }
}

#[cfg(test)]
mod tests;
