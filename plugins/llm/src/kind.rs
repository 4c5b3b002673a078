//! The kind itself: which part of it answers what.

use crate::call::Call;
use crate::clock::{now, unix_s};
use crate::config::Config;
use crate::errors;
use crate::farm::Farm;
use crate::ids::Ids;
use crate::learn::Learned;
use crate::limits::{Meters, Moment, Wants};
use crate::models::Models;
use crate::route::Route;
use crate::{answers, asks, failing, keep, observe, probe, release, run, weigh};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response, StatusCode};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use tabane_api::{
    Ask, Attempt, Body, Caller, Candidate, Content, Done, EndpointId, EndpointView, Host, Intent,
    KeepAlive, Kind, Need, NodeClient, NodeError, ProbeError, Refusal, Released, Report, RunError,
    Seen, Service, Shape, Stopped, Terms, Vitals,
};

/// How long what the gateway says of endpoints is taken for true; what probes say is known at once.
const FRESH: Duration = Duration::from_secs(1);

/// Many engines as one. A clone is a handle to the same.
#[derive(Clone)]
pub struct Llm {
    pub(crate) setup: Arc<Setup>,
    pub(crate) desk: Arc<Desk>,
}

/// What the file says of it, and what that makes of the endpoints.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) models: RwLock<Models>,
    /// Headers of the file's, by the endpoint that they are for.
    pub(crate) headers: BTreeMap<String, HeaderMap>,
    /// When the endpoints were looked at last.
    looked: RwLock<Option<Instant>>,
}

/// What it remembers, over reloads.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) farm: Farm,
    pub(crate) learned: RwLock<Learned>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) ids: Ids,
    pub(crate) host: OnceLock<Arc<dyn Host>>,
}

// === impl Llm ===

impl Llm {
    /// Looks at the endpoints of the pool, if that is long ago.
    pub(crate) fn look(&self, at_once: bool) {
        let Some(host) = self.desk.host.get() else {
            return;
        };
        let at = now();
        let is_fresh = |looked: &Option<Instant>| {
            looked.is_some_and(|looked| at.saturating_duration_since(looked) < FRESH)
        };
        if !at_once && is_fresh(&self.setup.looked.read()) {
            return;
        }
        // Asked before anything here is locked: the gateway's one lock is held where it asks this kind.
        let all = host.endpoints();
        *self.setup.looked.write() = Some(at);
        self.desk.farm.set(&all);
        let mut models = self.setup.models.write();
        models.keep(|name| all.iter().any(|at| *at.name == *name));
        for at in &all {
            models.set(&at.name, &at.vitals.models);
        }
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment {
            now,
            unix_s: unix_s(),
        }
    }
}

impl Kind for Llm {
    const NAME: &'static str = "llm";
    const POLICY: &'static str = "fastest";
    /// Engines batch; those that say how many they take at once go by that.
    const SLOTS: u32 = 64;
    const REPEATS: bool = true;
    type Config = Config;

    fn new(config: Config, prior: Option<Arc<Self>>) -> Result<Self, String> {
        config.check()?;
        let desk = prior.map_or_else(Arc::default, |prior| prior.desk.clone());
        Ok(Llm {
            setup: Arc::new(Setup {
                models: RwLock::new(Models::new(&config)),
                headers: asks::headers_of_endpoints(&config),
                looked: RwLock::default(),
                config,
            }),
            desk,
        })
    }
}

#[async_trait]
impl Service for Llm {
    fn classify(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal> {
        asks::classify(self, ask, body)
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        probe::probe(self, node).await
    }

    fn refuse(&self, ask: &Ask<'_>, why: &Refusal) -> Shape {
        let dialect = Route::of(ask.method, ask.path).dialect;
        let mut shape = errors::refuse(dialect, why);
        if matches!(why, Refusal::Limited { .. }) {
            let limits = &self.setup.config.limits;
            let left = self
                .desk
                .meters
                .left(limits, &ask.caller.tenant, self.moment(now()));
            shape
                .headers
                .extend(errors::limit_headers(dialect, &left, SystemTime::now()));
        }
        shape
    }

    async fn open(&self, host: &Arc<dyn Host>) {
        if self.desk.host.set(host.clone()).is_ok() {
            keep::keep(&self.desk, host.folder()).await;
        }
        self.look(true);
    }

    async fn answer(
        &self,
        request: Request<Content>,
        _caller: &Caller,
        _host: &Arc<dyn Host>,
    ) -> Result<Response<Body>, Refusal> {
        answers::answer(self, &request)
    }

    async fn attend(&self, at: EndpointView, _node: Arc<dyn NodeClient>, host: &Arc<dyn Host>) {
        self.desk.farm.known(at.id, &at.name);
        host.changed();
        std::future::pending().await
    }

    fn lacks(&self, need: &Need, at: EndpointId) -> Option<String> {
        weigh::lacks(self, need, at)
    }

    fn admit(&self, need: &Need, at: Instant) -> Result<(), Refusal> {
        let limits = &self.setup.config.limits;
        let Some(call) = need.own.get::<Call>().filter(|_| !limits.is_empty()) else {
            return Ok(());
        };
        let wants = Wants {
            tenant: &need.tenant,
            model: &call.request.named,
            tokens: (call.tokens + call.out).ceil() as u64,
        };
        let admitted = self.desk.meters.admit(limits, wants, self.moment(at))?;
        *call.request.admitted.lock() = Some(admitted);
        Ok(())
    }

    fn granted(&self, need: &Need, at: EndpointId, now: Instant) {
        let Some(node) = self.desk.farm.get(at) else {
            return;
        };
        match need.own.get::<Call>() {
            Some(call) => node.begins(call, &self.desk.learned.read(), now),
            None => node.begins_unknown(),
        }
    }

    fn released(&self, need: &Need, at: EndpointId, _now: Instant) {
        if let Some(node) = self.desk.farm.get(at) {
            node.ends(need.own.get::<Call>());
        }
    }

    fn keep_alive(&self, need: &Need, notes: &Extensions) -> Option<KeepAlive> {
        failing::keep_alive(need.own.get()?, self.setup.config.keep_alive.0?, notes)
    }

    fn broken(&self, need: &Need, why: &Refusal, notes: &Extensions) -> Option<Bytes> {
        failing::broken(need.own.get()?, why, notes)
    }

    fn falls_back(&self, _need: &Need, status: StatusCode, body: &[u8]) -> bool {
        failing::falls_back(status, body)
    }

    fn observe(&self, need: &Need, seen: Seen<'_>, notes: &mut Extensions) {
        observe::observe(self, need, seen, notes, now());
    }

    async fn stop(&self, _need: &Need, node: &dyn NodeClient) -> Result<Stopped, NodeError> {
        release::stopped(self, node).await
    }

    fn terms(&self, need: &Need, at: &Candidate<'_>, vitals: &Vitals, learned: Terms) -> Terms {
        weigh::terms(self, need, at, vitals, learned)
    }

    async fn release(&self, node: &dyn NodeClient) -> Result<Released, NodeError> {
        release::release(self, node).await
    }

    async fn run(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        _report: &dyn Report,
    ) -> Result<Done, RunError> {
        run::run(self, attempt, node).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_outlives_a_change_of_the_block() {
        let before = Arc::new(crate::testing::llm("{}"));
        let config = serde_json::from_str(r#"{"aliases": {"fast": "m"}}"#).unwrap();
        let after = Llm::new(config, Some(before.clone())).unwrap();
        assert!(Arc::ptr_eq(&before.desk, &after.desk));
        let wrong = serde_json::from_str(r#"{"aliases": {"fast": []}}"#).unwrap();
        let why = Llm::new(wrong, Some(before)).err().unwrap();
        assert!(why.contains("aliases.fast"), "{why}");
    }
}
