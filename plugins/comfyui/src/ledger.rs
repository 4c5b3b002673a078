//! The prompts of a service: which wait, run and were, under which number. What lasts of them is in the gateway's store; this
//! is what is looked at all the time.

use crate::entry::Summary;
use crate::frames::Frame;
use crate::json::{Json, Number, object};
use crate::signature::Signature;
use crate::stored::Stored;
use crate::submission::Secrets;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tabane_api::EndpointId;
use tokio::sync::watch;

/// All prompts of a service.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    prompts: HashMap<Arc<str>, Arc<Prompt>>,
    /// Those of them that are not over.
    open: HashMap<Arc<str>, Arc<Prompt>>,
    /// Those that are over, in the order in which they were.
    past: BTreeMap<(i64, i64), Arc<Prompt>>,
    /// The number of the next prompt.
    next: i64,
}

/// A prompt.
pub struct Prompt {
    /// Its id.
    pub id: Arc<str>,
    /// What lists say of it.
    pub label: Label,
    /// Its number, to compare.
    rank: f64,
    /// What a node said when it was handed over.
    pub verdict: watch::Sender<Option<Verdict>>,
    /// Whether somebody took it back while a node was at it.
    taken_back: watch::Sender<bool>,
    state: Mutex<State>,
}

/// What lists say of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Its number.
    pub number: Json,
    /// Who asked.
    pub owner: Arc<str>,
    /// Who is told of it.
    pub client: Option<Arc<str>>,
    /// When it was taken in, milliseconds since 1970.
    pub created_ms: i64,
    /// The front end's name for the drawing that it came from.
    pub workflow_id: Option<Json>,
    /// What makes a repeat of it the same.
    pub print: String,
    /// What was told of it when it was taken in.
    pub node_errors: Json,
}

/// What a node said of a prompt that it was handed.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is being asked.
    Asked,
    /// It took it.
    Taken,
    /// It did not: 400, and what it said.
    Refused(Arc<str>),
}

/// How a prompt stands.
#[derive(Clone, Debug)]
pub enum Phase {
    /// It is on its way into the store.
    Taking,
    /// It waits.
    Waiting,
    /// A node is at it.
    Running {
        /// Which.
        at: EndpointId,
        /// What it is called.
        name: Arc<str>,
    },
    /// It is over.
    Over(Arc<Summary>),
    /// It was taken back before it ran: nobody is told of it any more.
    Gone,
}

struct State {
    phase: Phase,
    job: Option<Arc<str>>,
    /// Until it is over.
    stored: Option<Arc<Stored>>,
    /// Whoever submitted it waits for what a node says of it.
    is_awaited: bool,
    /// What of it a node may have computed before; nothing once it is over.
    signatures: Arc<[Signature]>,
    secrets: Option<Secrets>,
    /// What each endpoint lacks for it; one that is not here was not looked at yet.
    lacks: HashMap<EndpointId, Option<Arc<str>>>,
    /// The endpoints that may be at it: it was handed over there, and nobody has seen it end there.
    places: Vec<EndpointId>,
    /// When its node was through with it, milliseconds since 1970: what it made is still being collected.
    through_ms: Option<i64>,
    /// What came of it, while that is being written.
    outcome: Option<Outcome>,
}

/// What came of a prompt by a node's word.
#[derive(Clone)]
pub struct Outcome {
    /// What lists say of it.
    pub summary: Arc<Summary>,
    /// The event that it ends with. It is told once that is on disk: whoever hears it may rely on it.
    pub word: Option<Frame>,
}

// === impl Ledger ===

impl Ledger {
    /// The number of the next prompt, which is lower than all others for who wants to be in front.
    pub fn number(&self, front: bool) -> Json {
        let mut all = self.0.lock();
        let next = all.next;
        all.next += 1;
        Json::integer(if front { -next } else { next })
    }

    /// Puts a prompt in. `Err`: there is one of its id.
    pub fn put(&self, prompt: Prompt) -> Result<Arc<Prompt>, Arc<Prompt>> {
        let mut all = self.0.lock();
        if let Some(known) = all.prompts.get(&prompt.id) {
            return Err(known.clone());
        }
        let prompt = Arc::new(prompt);
        // A gateway that comes back goes on counting where it was.
        if prompt.rank.is_finite() && prompt.rank.abs() < 1e15 {
            all.next = all.next.max(prompt.rank.abs() as i64 + 1);
        }
        all.prompts.insert(prompt.id.clone(), prompt.clone());
        if prompt.is_open() {
            all.open.insert(prompt.id.clone(), prompt.clone());
        }
        Ok(prompt)
    }

    /// The prompt of this id.
    pub fn get(&self, id: &str) -> Option<Arc<Prompt>> {
        self.0.lock().prompts.get(id).cloned()
    }

    /// A prompt is on disk: from here on it is counted, unless it runs or is over already.
    pub fn is_taken_in(&self, prompt: &Prompt) {
        let mut state = prompt.state.lock();
        if matches!(state.phase, Phase::Taking) {
            state.phase = Phase::Waiting;
        }
    }

    /// A prompt that was over waits again: somebody had its job retried.
    pub fn reopen(&self, prompt: &Arc<Prompt>, stored: Stored) {
        let mut all = self.0.lock();
        all.past.retain(|_, past| !Arc::ptr_eq(past, prompt));
        all.open.insert(prompt.id.clone(), prompt.clone());
        let mut state = prompt.state.lock();
        state.phase = Phase::Waiting;
        state.stored = Some(Arc::new(stored));
        state.outcome = None;
        prompt.taken_back.send_replace(false);
    }

    /// A prompt is over. `false`: it was before.
    pub fn over(&self, prompt: &Arc<Prompt>, at: (i64, i64), summary: Arc<Summary>) -> bool {
        let mut all = self.0.lock();
        if matches!(prompt.phase(), Phase::Over(_)) {
            return false;
        }
        prompt.end(Phase::Over(summary));
        all.open.remove(&prompt.id);
        all.past.insert(at, prompt.clone());
        true
    }

    /// A prompt is nobody's business any more.
    pub fn forget(&self, prompt: &Arc<Prompt>) {
        let mut all = self.0.lock();
        prompt.end(Phase::Gone);
        all.prompts.remove(&prompt.id);
        all.open.remove(&prompt.id);
        all.past.retain(|_, past| !Arc::ptr_eq(past, prompt));
    }

    /// How many wait or run.
    pub fn remaining(&self) -> usize {
        let all = self.0.lock();
        let taken_in = all.open.values();
        taken_in
            .filter(|prompt| !matches!(prompt.phase(), Phase::Taking))
            .count()
    }

    /// Those that are not over, the first to run first: those that run, and those that wait.
    pub fn queue(&self) -> (Vec<Arc<Prompt>>, Vec<Arc<Prompt>>) {
        let all = self.open();
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for prompt in all {
            match prompt.phase() {
                Phase::Running { .. } => running.push(prompt),
                Phase::Waiting => waiting.push(prompt),
                _ => {}
            }
        }
        let order = |a: &Arc<Prompt>, b: &Arc<Prompt>| {
            let by_number = a.rank.total_cmp(&b.rank);
            by_number.then_with(|| a.id.cmp(&b.id))
        };
        // A node that is through with a prompt has the next one already. It is told to be at one at a time, the first.
        running.sort_by_key(|prompt| prompt.through_ms().unwrap_or(i64::MAX));
        let mut at_work = HashSet::new();
        waiting.extend(running.extract_if(.., |prompt| {
            let at = prompt.runs_at();
            at.is_some_and(|(at, _)| !at_work.insert(at))
        }));
        running.sort_unstable_by(order);
        waiting.sort_unstable_by(order);
        (running, waiting)
    }

    /// Those that are not over, in no order; those on their way into the store are among them.
    pub fn open(&self) -> Vec<Arc<Prompt>> {
        self.0.lock().open.values().cloned().collect()
    }

    /// Whether a prompt of this client runs, besides this one.
    pub fn runs_for(&self, client: &str, besides: &str) -> bool {
        let all = self.0.lock();
        all.open.values().any(|prompt| {
            prompt.label.client.as_deref() == Some(client)
                && *prompt.id != *besides
                && prompt.runs_at().is_some()
        })
    }

    /// Where a prompt of this owner runs.
    pub fn runs_of(&self, owner: &str) -> Option<EndpointId> {
        let all = self.0.lock();
        let mut own = all
            .open
            .values()
            .filter(|prompt| *prompt.label.owner == *owner);
        own.find_map(|prompt| Some(prompt.runs_at()?.0))
    }

    /// Those that are over, the first that was first.
    pub fn past(&self) -> Vec<Arc<Prompt>> {
        self.0.lock().past.values().cloned().collect()
    }

    /// Those that are over since then, milliseconds since 1970, the first one first.
    pub fn past_since(&self, since: i64) -> Vec<Arc<Prompt>> {
        let all = self.0.lock();
        all.past
            .range((since, i64::MIN)..)
            .map(|(_, prompt)| prompt.clone())
            .collect()
    }

    /// Those past the first `max` that are over, the oldest first.
    pub fn too_old(&self, max: usize) -> Vec<Arc<Prompt>> {
        let all = self.0.lock();
        let more = all.past.len().saturating_sub(max);
        all.past.values().take(more).cloned().collect()
    }
}

// === impl Prompt ===

impl Prompt {
    /// One that waits, or is about to.
    pub fn new(stored: Stored, signatures: Vec<Signature>, phase: Phase) -> Self {
        let mut prompt = Prompt::labelled(stored.id.clone(), stored.label(), phase);
        let state = prompt.state.get_mut();
        state.signatures = signatures.into();
        state.stored = Some(Arc::new(stored));
        prompt
    }

    /// One of which only this is known.
    pub fn labelled(id: Arc<str>, label: Label, phase: Phase) -> Self {
        Prompt {
            id,
            rank: label.number.number().map_or(0.0, Number::value),
            label,
            verdict: watch::Sender::new(None),
            taken_back: watch::Sender::new(false),
            state: Mutex::new(State {
                phase,
                job: None,
                secrets: None,
                stored: None,
                is_awaited: false,
                signatures: Arc::default(),
                lacks: HashMap::new(),
                places: Vec::new(),
                through_ms: None,
                outcome: None,
            }),
        }
    }

    /// Whoever submitted it waits from now on, or not any more. How it was before.
    pub fn awaits(&self, is_awaited: bool) -> bool {
        std::mem::replace(&mut self.state.lock().is_awaited, is_awaited)
    }

    /// Somebody takes it back while a node is at it.
    pub fn take_back(&self) {
        self.taken_back.send_replace(true);
    }

    /// Whether somebody took it back while a node was at it.
    pub fn was_taken_back(&self) -> bool {
        *self.taken_back.borrow()
    }

    /// Waits until somebody takes it back.
    pub async fn is_taken_back(&self) {
        let mut taken_back = self.taken_back.subscribe();
        if taken_back.wait_for(|is| *is).await.is_err() {
            std::future::pending().await
        }
    }

    /// It is handed over to this endpoint. Those that may be at it besides.
    pub fn goes_to(&self, at: EndpointId) -> Vec<EndpointId> {
        std::mem::replace(&mut self.state.lock().places, vec![at])
    }

    /// This endpoint is not at it any more.
    pub fn is_off(&self, at: EndpointId) {
        self.state.lock().places.retain(|place| *place != at);
    }

    /// It is over. Those that may be at it all the same.
    pub fn leaves(&self) -> Vec<EndpointId> {
        std::mem::take(&mut self.state.lock().places)
    }

    /// What of it a node may have computed is this.
    pub fn sign(&self, signatures: Vec<Signature>) {
        self.state.lock().signatures = signatures.into();
    }

    /// How it stands.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase.clone()
    }

    /// It stands so from now on, unless it is over.
    pub fn stands(&self, phase: Phase) {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Over(_) | Phase::Gone) {
            state.phase = phase;
            state.through_ms = None;
        }
    }

    /// Whether it waits or runs.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase(), Phase::Over(_) | Phase::Gone)
    }

    /// Its node is through with it.
    pub fn is_through(&self, now_ms: i64) {
        self.state.lock().through_ms.get_or_insert(now_ms);
    }

    /// When its node was through with it.
    pub fn through_ms(&self) -> Option<i64> {
        self.state.lock().through_ms
    }

    /// Where it runs.
    pub fn runs_at(&self) -> Option<(EndpointId, Arc<str>)> {
        match self.phase() {
            Phase::Running { at, name } => Some((at, name)),
            _ => None,
        }
    }

    /// The gateway's name for it.
    pub fn job(&self) -> Option<Arc<str>> {
        self.state.lock().job.clone()
    }

    /// The gateway calls it so.
    pub fn is_job(&self, job: &Arc<str>) {
        self.state.lock().job = Some(job.clone());
    }

    /// What is kept of it, while it is not over.
    pub fn stored(&self) -> Option<Arc<Stored>> {
        self.state.lock().stored.clone()
    }

    /// What of it a node may have computed before.
    pub fn signatures(&self) -> Arc<[Signature]> {
        self.state.lock().signatures.clone()
    }

    /// What only its node may see.
    pub fn secrets(&self) -> Option<Secrets> {
        self.state.lock().secrets.clone()
    }

    /// Keeps what only its node may see: in memory, and no longer than it is needed.
    pub fn keep_secrets(&self, secrets: Secrets) {
        if !secrets.is_empty() {
            self.state.lock().secrets = Some(secrets);
        }
    }

    /// What an endpoint lacks for it; `Err`: that was not looked at yet.
    pub fn lacks(&self, at: EndpointId) -> Result<Option<Arc<str>>, NotLookedAt> {
        let state = self.state.lock();
        state.lacks.get(&at).cloned().ok_or(NotLookedAt)
    }

    /// An endpoint lacks this for it.
    pub fn note_lacks(&self, at: EndpointId, lacks: Option<String>) {
        let lacks = lacks.map(Into::into);
        self.state.lock().lacks.insert(at, lacks);
    }

    /// What came of it is being written.
    pub fn ends_with(&self, outcome: Outcome) {
        self.state.lock().outcome = Some(outcome);
    }

    /// What came of it, by a node's word.
    pub fn outcome(&self) -> Option<Outcome> {
        self.state.lock().outcome.clone()
    }

    fn end(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = phase;
        state.stored = None;
        state.signatures = Arc::default();
        state.secrets = None;
        state.lacks = HashMap::new();
        state.outcome = None;
    }
}

// === impl Label ===

impl Label {
    /// As it is kept.
    pub fn written(&self) -> Json {
        object! {
            "number": self.number.clone(),
            "owner": &*self.owner,
            "client": self.client.as_deref(),
            "created_ms": Json::integer(self.created_ms),
            "workflow_id": self.workflow_id.clone(),
            "print": self.print.as_str(),
            "node_errors": self.node_errors.clone(),
        }
    }

    /// As it was kept.
    pub fn read(json: &Json) -> Self {
        let text = |key| json.get(key).and_then(Json::text);
        let created = json.get("created_ms").and_then(Json::number);
        Label {
            number: json.get("number").cloned().unwrap_or_default(),
            owner: text("owner").unwrap_or_default().into(),
            client: text("client").map(Into::into),
            created_ms: created
                .and_then(|ms| i64::try_from(ms.integer()?).ok())
                .unwrap_or_default(),
            workflow_id: json
                .get("workflow_id")
                .filter(|id| **id != Json::Null)
                .cloned(),
            print: text("print").unwrap_or_default().to_owned(),
            node_errors: json.get("node_errors").cloned().unwrap_or_default(),
        }
    }
}

/// Nobody has looked yet what an endpoint lacks for a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLookedAt;
