//! Looks after endpoints: probes them, follows their names, and has their kinds attend them.
//!
//! Probes are pingora-load-balancing's [`HealthCheck`]s, names its [`ServiceDiscovery`]; when they run is
//! ours: each endpoint has its own pace, jittered, in parallel, and a dead one delays nobody.

use crate::dispatch::{Clients, Dispatch, LiveService, Upstream};
use crate::telemetry::ProbeOutcome;
use async_trait::async_trait;
use futures::FutureExt;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::lb::health_check::HealthCheck;
use pingora::lb::{Backend, Extensions};
use pingora::{Error, ErrorType, OrErr, Result};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{EndpointId, NodeClient, ProbeError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Between two look-ups of a name, while it is known and while it is not.
const LOOK_UP: Duration = Duration::from_secs(10);
const LOOK_UP_SOON: Duration = Duration::from_secs(1);

/// Until an endpoint is attended again: at first, and at most where that ends again and again.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);

/// What lasted so long did not end at once.
const LASTED: Duration = Duration::from_secs(30);

/// Probes every endpoint of the plan, follows every name and has every endpoint attended, for ever; tasks come and go with
/// reloads.
pub async fn look_after(dispatch: Dispatch, clients: Arc<dyn Clients>) {
    let mut membership = dispatch.membership();
    let mut probed: HashMap<EndpointId, Watched> = HashMap::new();
    // What a kind keeps at an endpoint outlives a change of how that is probed.
    let mut attended: HashMap<EndpointId, Watched> = HashMap::new();
    loop {
        membership.mark_unchanged();
        let wanted = dispatch.upstreams();
        let still = |id: &EndpointId, watched: &Watched, probes: bool| {
            wanted.iter().any(|(upstream, service)| {
                upstream.id == *id && watched.serves(upstream, service.as_ref(), probes)
            })
        };
        probed.retain(|id, watched| still(id, watched, true));
        attended.retain(|id, watched| still(id, watched, false));
        for (upstream, service) in wanted {
            let Some(service) = service else { continue };
            let watched = |tasks| Watched {
                upstream: upstream.clone(),
                service: service.clone(),
                tasks,
            };
            let client = clients.client(&upstream);
            probed
                .entry(upstream.id)
                .or_insert_with(|| watched(probe(&dispatch, &client, &upstream, &service)));
            attended
                .entry(upstream.id)
                .or_insert_with(|| watched(attend(&dispatch, &client, &upstream, &service)));
        }
        if membership.changed().await.is_err() {
            return;
        }
    }
}

/// An endpoint's tasks; they end when this is dropped.
struct Watched {
    upstream: Arc<Upstream>,
    service: Arc<LiveService>,
    tasks: Vec<JoinHandle<()>>,
}

/// The kind's probe as pingora-load-balancing knows probes.
struct EndpointCheck {
    dispatch: Dispatch,
    upstream: Arc<Upstream>,
    service: Arc<LiveService>,
    client: Arc<dyn NodeClient>,
}

/// A name, and what it stands for.
struct Name {
    host: Arc<str>,
    port: u16,
}

// === impl Watched ===

impl Watched {
    /// Whether these tasks still do what is wanted.
    fn serves(
        &self,
        upstream: &Arc<Upstream>,
        service: Option<&Arc<LiveService>>,
        probes: bool,
    ) -> bool {
        let same = |wanted: &Arc<LiveService>| {
            Arc::ptr_eq(&wanted.kind, &self.service.kind)
                && (!probes || wanted.plan.health == self.service.plan.health)
        };
        Arc::ptr_eq(upstream, &self.upstream) && service.is_some_and(same)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn probe(
    dispatch: &Dispatch,
    client: &Arc<dyn NodeClient>,
    upstream: &Arc<Upstream>,
    service: &Arc<LiveService>,
) -> Vec<JoinHandle<()>> {
    let check = EndpointCheck {
        dispatch: dispatch.clone(),
        client: client.clone(),
        upstream: upstream.clone(),
        service: service.clone(),
    };
    let mut tasks = Vec::new();
    if upstream.target.host.parse::<IpAddr>().is_err() {
        let name = Name {
            host: upstream.target.host.clone(),
            port: upstream.target.port,
        };
        tasks.push(tokio::spawn(follow(name, upstream.clone())));
    }
    tasks.push(tokio::spawn(check.keep_probing()));
    tasks
}

fn attend(
    dispatch: &Dispatch,
    client: &Arc<dyn NodeClient>,
    upstream: &Arc<Upstream>,
    service: &Arc<LiveService>,
) -> Vec<JoinHandle<()>> {
    let attending = keep_attending(
        dispatch.clone(),
        upstream.id,
        service.clone(),
        client.clone(),
    );
    vec![tokio::spawn(attending)]
}

/// Has a kind attend an endpoint, again whenever that ends.
async fn keep_attending(
    dispatch: Dispatch,
    endpoint: EndpointId,
    service: Arc<LiveService>,
    client: Arc<dyn NodeClient>,
) {
    let host = dispatch.host(&service.plan.name);
    let (mut pause, mut told) = (AGAIN, false);
    while let Some(view) = dispatch.endpoint(endpoint) {
        let began = Instant::now();
        let attended = AssertUnwindSafe(service.kind.attend(view, client.clone(), &host));
        if attended.catch_unwind().await.is_err() && !told {
            told = true;
            tracing::error!(
                service = %service.plan.name,
                endpoint = client.name(),
                "the kind of this service panicked as it attended this endpoint; it is attended again"
            );
        }
        if began.elapsed() >= LASTED {
            pause = AGAIN;
        }
        sleep(pause).await;
        pause = (2 * pause).min(AGAIN_AT_MOST);
    }
}

// === impl EndpointCheck ===

impl EndpointCheck {
    async fn keep_probing(self) {
        // Pingora's checks are asked about a backend; ours knows its endpoint, so this one only names it.
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        loop {
            let address = self.upstream.address().unwrap_or(nobody);
            let backend = Backend {
                addr: address.into(),
                weight: 1,
                ext: Extensions::new(),
            };
            let _ = self.check(&backend).await;
            let interval = self.dispatch.probe_interval(self.upstream.id);
            tokio::select! {
                () = sleep(jittered(interval)) => {}
                () = self.upstream.wants_probe() => {}
            }
        }
    }
}

#[async_trait]
impl HealthCheck for EndpointCheck {
    async fn check(&self, _backend: &Backend) -> Result<()> {
        let started = Instant::now().into_std();
        let probe = AssertUnwindSafe(self.service.kind.probe(&*self.client)).catch_unwind();
        let outcome = match timeout(self.service.plan.health.timeout, probe).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProbeError::Unhealthy(format!(
                "the probe of service `{}` panicked",
                self.service.plan.name
            ))),
            Err(_) => Err(ProbeError::Timeout),
        };
        self.dispatch.metrics().probe(
            &self.upstream.name,
            match &outcome {
                Ok(_) => ProbeOutcome::Ok,
                Err(ProbeError::Timeout) => ProbeOutcome::Timeout,
                Err(ProbeError::Unreachable(_)) => ProbeOutcome::Unreachable,
                Err(ProbeError::Unhealthy(_)) => ProbeOutcome::Unhealthy,
            },
        );
        let verdict = outcome
            .as_ref()
            .map(|_| ())
            .map_err(|why| Error::explain(ErrorType::Custom("ProbeFailed"), why.to_string()));
        self.dispatch.probed(self.upstream.id, started, outcome);
        verdict
    }

    fn health_threshold(&self, success: bool) -> usize {
        let health = &self.service.plan.health;
        (if success { health.rise } else { health.fall }) as usize
    }
}

/// Spreads probes by a tenth either way, so that a hundred nodes are not asked in the same instant.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * rand::random::<f64>())
}

// === impl Name ===

#[async_trait]
impl ServiceDiscovery for Name {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let found = tokio::net::lookup_host((&*self.host, self.port)).await;
        let found = found.or_err_with(ErrorType::ConnectNoRoute, || {
            format!("cannot look up `{}`", self.host)
        })?;
        Ok((
            found
                .map(|address| Backend {
                    addr: address.into(),
                    weight: 1,
                    ext: Extensions::new(),
                })
                .collect(),
            HashMap::new(),
        ))
    }
}

/// Follows a name for ever. A look-up that fails changes nothing: the node may be well though its name server is not.
async fn follow(name: Name, upstream: Arc<Upstream>) {
    let mut warned = false;
    loop {
        match name.discover().await {
            Ok((backends, _)) => {
                warned = false;
                let was_unknown = upstream.address().is_none();
                upstream.resolved(
                    backends
                        .iter()
                        .filter_map(|backend| backend.addr.as_inet().copied())
                        .collect(),
                );
                if was_unknown {
                    upstream.probe_now();
                }
            }
            Err(error) if !warned => {
                warned = true;
                tracing::warn!(endpoint = %upstream.name, host = %name.host, %error, "cannot look up the name of this endpoint; trying on");
            }
            Err(_) => {}
        }
        sleep(jittered(if upstream.address().is_some() {
            LOOK_UP
        } else {
            LOOK_UP_SOON
        }))
        .await;
    }
}
