//! What drives a dispatch: its means, a kind, and requests that are polled by hand.

use crate::config::plan::Plan;
use crate::dispatch::{Clients, Dispatch, Journey, Lease, ListenerKey, Means, Step, Upstream};
use crate::schedule;
use crate::store::Marks;
use crate::telemetry::{Events, Metrics};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Method, Request, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use std::pin::Pin;
use std::sync::Arc;
use tabane_api::{
    Ask, Intent, Kind, Need, NodeClient, NodeError, ProbeError, Refusal, Registry, Service, Vitals,
};

/// A kind that forwards everything.
pub(super) struct Plain;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    path: u32,
}

#[async_trait]
impl Service for Plain {
    fn classify(&self, ask: &Ask<'_>, _: Option<&Bytes>) -> Result<Intent, Refusal> {
        Ok(Intent::Forward(Need::of_class(ask.path)))
    }
    async fn probe(&self, _: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        Ok(Vitals::default())
    }
}

impl Kind for Plain {
    const NAME: &'static str = "plain";
    type Config = Block;
    fn new(_: Block, _: Option<Arc<Self>>) -> Result<Self, String> {
        Ok(Plain)
    }
}

pub(super) fn registry() -> Registry {
    schedule::register(Registry::default().kind::<Plain>())
}

/// Nobody is there to talk to.
struct Nobody;

struct Silent;

impl Clients for Nobody {
    fn client(&self, _: &Arc<Upstream>) -> Arc<dyn NodeClient> {
        Arc::new(Silent)
    }
}

#[async_trait]
impl NodeClient for Silent {
    fn name(&self) -> &str {
        "silent"
    }
    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
        Err(NodeError::Timeout)
    }
}

pub(super) fn dispatch() -> Dispatch {
    Dispatch::new(Means {
        metrics: Arc::new(Metrics::new()),
        events: Events::new(),
        marks: Marks::open(None).unwrap(),
        clients: Arc::new(Nobody),
    })
}

/// A request that waits for its lease.
pub(super) struct Waiting {
    pub(super) pool: String,
    pub(super) slots: u32,
    lease: Pin<Box<dyn Future<Output = Result<Lease, Refusal>>>>,
}

impl Waiting {
    /// Asks for a lease as the edge does. Errors: it was refused before it could wait.
    pub(super) fn ask(dispatch: &Dispatch, plan: &Plan, path: &str) -> Result<Waiting, Refusal> {
        let world = dispatch.world().ok_or(Refusal::ShuttingDown)?;
        let listener = ListenerKey {
            address: plan.listeners[0].address,
            nth: 0,
        };
        let headers = HeaderMap::new();
        let here = [127, 0, 0, 1].into();
        let entered = dispatch.enter(&world, &listener, "h", path, &headers, here);
        let mut journey: Journey = entered.map_err(|(refusal, _)| refusal)?;
        let caller = journey.caller.clone();
        let ask = Ask {
            method: &Method::GET,
            path,
            query: None,
            headers: &headers,
            caller: &caller,
        };
        assert_eq!(journey.classify(&ask, None)?, Step::Lease);
        let pool = world.plan.pools[journey.service.plan.pool].name.to_string();
        let slots = journey.need().slots;
        let dispatch = dispatch.clone();
        let lease = Box::pin(async move { dispatch.lease(&journey).await });
        Ok(Waiting { pool, slots, lease })
    }

    /// What came of it, if anything did.
    pub(super) fn poll(&mut self) -> Option<Result<Lease, Refusal>> {
        (&mut self.lease).now_or_never()
    }
}

/// Runs on a clock that stands still until it is moved.
pub(super) fn on_paused_time<T>(what: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.unwrap().block_on(what)
}
