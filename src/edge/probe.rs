//! Looks after endpoints: probes them, and follows their names.
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

/// Probes every endpoint of the plan and follows every name, for ever; tasks come and go with reloads.
pub async fn look_after(dispatch: Dispatch, clients: Arc<dyn Clients>) {
    let mut membership = dispatch.membership();
    let mut looked_after: HashMap<EndpointId, Attended> = HashMap::new();
    loop {
        membership.mark_unchanged();
        let wanted = dispatch.upstreams();
        looked_after.retain(|id, attended| {
            wanted.iter().any(|(upstream, service)| {
                upstream.id == *id && attended.serves(upstream, service.as_ref())
            })
        });
        for (upstream, service) in wanted {
            let Some(service) = service else { continue };
            looked_after
                .entry(upstream.id)
                .or_insert_with(|| Attended::new(&dispatch, &*clients, upstream, service));
        }
        if membership.changed().await.is_err() {
            return;
        }
    }
}

/// An endpoint's tasks; they end when this is dropped.
struct Attended {
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

// === impl Attended ===

impl Attended {
    fn new(
        dispatch: &Dispatch,
        clients: &dyn Clients,
        upstream: Arc<Upstream>,
        service: Arc<LiveService>,
    ) -> Self {
        let check = EndpointCheck {
            dispatch: dispatch.clone(),
            client: clients.client(&upstream),
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
        Attended {
            upstream,
            service,
            tasks,
        }
    }

    /// Whether these tasks still do what is wanted.
    fn serves(&self, upstream: &Arc<Upstream>, service: Option<&Arc<LiveService>>) -> bool {
        let same = |wanted: &Arc<LiveService>| {
            Arc::ptr_eq(&wanted.kind, &self.service.kind)
                && wanted.plan.health == self.service.plan.health
        };
        Arc::ptr_eq(upstream, &self.upstream) && service.is_some_and(same)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
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
