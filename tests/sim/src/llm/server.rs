//! The process of a simulated engine: what is lost when it dies.

use super::ask::Api;
use super::fault::Fault;
use super::gotime::rfc3339;
use super::knobs::LlmKnobs;
use super::runner::Runner;
use super::seen::Record;
use super::shelf::Shelf;
use super::spec::{Engine, Spec};
use crate::comfy::json::{Json, Object, object};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

pub(crate) struct Server {
    pub(crate) spec: Arc<Spec>,
    /// These two outlive it.
    pub(crate) knobs: Arc<watch::Sender<LlmKnobs>>,
    pub(crate) record: Arc<Record>,
    /// One for each model.
    pub(crate) runners: Vec<Arc<Runner>>,
    pub(crate) shelf: Arc<Shelf>,
    /// How many processes there were before.
    life: u64,
    next: AtomicU64,
    /// When it began, since 1970.
    pub(crate) began: Duration,
    killed: Arc<watch::Sender<bool>>,
    /// Whether it listened at least once.
    pub(crate) listened: watch::Sender<bool>,
}

// === impl Server ===

impl Server {
    pub(crate) fn new(
        spec: Arc<Spec>,
        knobs: Arc<watch::Sender<LlmKnobs>>,
        record: Arc<Record>,
        life: u64,
    ) -> Self {
        record.note(|seen| seen.lives += 1);
        let runner = |_| Arc::new(Runner::new(&spec, knobs.clone(), record.clone()));
        let runners: Vec<_> = spec.models.iter().map(runner).collect();
        let killed = Arc::new(watch::channel(false).0);
        Server {
            shelf: Arc::new(Shelf::new(
                spec.clone(),
                knobs.clone(),
                record.clone(),
                runners.clone(),
                killed.clone(),
            )),
            spec,
            knobs,
            record,
            runners,
            life,
            next: AtomicU64::new(0),
            began: now(),
            killed,
            listened: watch::channel(false).0,
        }
    }

    pub(crate) fn knobs(&self) -> LlmKnobs {
        self.knobs.borrow().clone()
    }

    /// Waits until the knobs are so.
    pub(crate) async fn until_knobs(&self, so: impl FnMut(&LlmKnobs) -> bool) {
        let _ = self.knobs.subscribe().wait_for(so).await;
    }

    pub(crate) fn kill(&self) {
        self.killed.send_replace(true);
    }

    pub(crate) async fn killed(&self) {
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    /// The status that a request fails with, if the knobs want it to.
    pub(crate) fn fails(&self) -> Option<u16> {
        let status = self.knobs.borrow().status?;
        let mut fails = true;
        self.knobs
            .send_if_modified(|knobs| match &mut knobs.status_times {
                None => false,
                Some(0) => {
                    fails = false;
                    false
                }
                Some(times) => {
                    *times -= 1;
                    true
                }
            });
        fails.then_some(status)
    }

    pub(crate) fn no_model(&self, named: Option<String>) -> Fault {
        let served = if self.spec.loads_on_demand() {
            self.spec.models.len()
        } else {
            1
        };
        let there = self
            .spec
            .models
            .iter()
            .take(served)
            .map(|model| model.name.clone());
        Fault::NoModel(named, there.collect())
    }

    /// How a model is named in an answer: Ollama repeats what it was asked for.
    pub(crate) fn model_name(&self, model: usize, named: Option<&str>) -> String {
        match (self.spec.engine, named) {
            (Engine::Ollama, Some(named)) => named.to_owned(),
            _ => self.spec.models[model].name.clone(),
        }
    }

    /// 24 hexadecimal digits that nobody else has.
    pub(crate) fn id(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seed = format!("{}/{}/{number}", self.spec.name, self.life);
        let digits = Sha256::digest(seed.as_bytes());
        digits
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub(crate) fn created(&self) -> u64 {
        now().as_secs()
    }

    /// What Ollama says when it only loaded a model, or let go of it.
    pub(crate) fn loaded(&self, api: Api, model: &str, how: &str) -> Json {
        let mut body = Object::from_iter([
            ("model".to_owned(), Json::from(model)),
            ("created_at".to_owned(), rfc3339(now()).into()),
        ]);
        if api == Api::OllamaChat {
            body.insert(
                "message".into(),
                object! {"role": "assistant", "content": ""},
            );
        } else {
            body.insert("response".into(), "".into());
        }
        body.insert("done".into(), true.into());
        body.insert("done_reason".into(), how.into());
        body.into()
    }
}

/// The time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
