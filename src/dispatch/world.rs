use super::budget::RetryBudget;
use super::route::Router;
use super::upstream::Upstream;
use crate::access::Access;
use crate::config::plan::{HostPattern, ListenerPlan, Plan, RouteOptions, ServicePlan, TenantPlan};
use crate::schedule::{PoolId, Share};
use crate::telemetry::{EndpointMetrics, Metrics, ServiceMetrics};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tabane_api::{EndpointId, Policy, Refusal, Service, Urgency};

/// The immutable picture of routes, services, kinds and policies that one request sees.
///
/// A reload makes a new one and swaps it in; a request keeps the one it began with. What lives (leases,
/// health, who waits) is not in it: that is the fleet's and the schedule's.
pub struct World {
    /// What it was made from.
    pub plan: Arc<Plan>,
    /// Counts the worlds of this process, from 1.
    pub generation: u64,
    /// In the order of the plan.
    pub services: Vec<Arc<LiveService>>,
    /// Who is asking.
    pub access: Access,
    router: Router,
    /// By tenant; nobody's who is not in the file.
    shares: HashMap<Arc<str>, Share>,
    /// Listeners with a service of their own.
    whole_ports: HashMap<ListenerKey, usize>,
}

/// Names a listener as the file does: its address, and how many of the same came before it (port 0 may be named twice).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// As in the file.
    pub address: SocketAddr,
    /// 0 for the first of its address.
    pub nth: usize,
}

/// A service of the plan, alive: with its kind and its policy made.
pub struct LiveService {
    /// What was asked for.
    pub plan: ServicePlan,
    /// It knows the API.
    pub kind: Arc<dyn Service>,
    /// It chooses the node.
    pub policy: Arc<dyn Policy>,
    /// Its pool's number.
    pub pool: PoolId,
    /// How many retries it may make now; a reload does not fill it up.
    pub budget: Arc<RetryBudget>,
    /// What is counted of it.
    pub metrics: Arc<ServiceMetrics>,
    /// What is counted of its endpoints, looked up by number: no name is put together for each request.
    endpoints: Mutex<HashMap<EndpointId, Arc<EndpointMetrics>>>,
    all: Arc<Metrics>,
}

// === impl World ===

impl World {
    /// Makes a world of a checked plan. Kinds and policies whose block did not change are taken over from
    /// `prior`; a kind whose block did change is made anew and handed its former self.
    ///
    /// Errors: what a kind or policy has against its block, with the service's name.
    pub(super) fn build(
        plan: Plan,
        prior: Option<&World>,
        pool_id: &dyn Fn(&Arc<str>) -> PoolId,
        metrics: &Arc<Metrics>,
    ) -> Result<World, Vec<String>> {
        let plan = Arc::new(plan);
        let mut problems = Vec::new();
        let mut services = Vec::with_capacity(plan.services.len());
        for service in &plan.services {
            let before =
                prior.and_then(|world| world.services.iter().find(|s| s.plan.name == service.name));
            let kind = match before {
                Some(before) if before.plan.kind.same(&*service.kind) => Ok(before.kind.clone()),
                _ => service.kind.build(before.map(|b| b.kind.clone())),
            };
            let policy = match before {
                Some(before) if before.plan.policy.same(&*service.policy) => {
                    Ok(before.policy.clone())
                }
                _ => service.policy.build(),
            };
            match (kind, policy) {
                (Ok(kind), Ok(policy)) => services.push(Arc::new(LiveService {
                    plan: service.clone(),
                    kind,
                    policy,
                    pool: pool_id(&plan.pools[service.pool].name),
                    budget: before.map_or_else(Arc::default, |before| before.budget.clone()),
                    metrics: metrics.service(&service.name),
                    endpoints: Mutex::default(),
                    all: metrics.clone(),
                })),
                (kind, policy) => {
                    let why = [kind.err(), policy.err()].into_iter().flatten();
                    problems.extend(why.map(|why| format!("services.{}: {why}", service.name)));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let whole_ports = listener_keys(&plan.listeners)
            .zip(&plan.listeners)
            .filter_map(|(key, l)| Some((key, l.service?)))
            .collect();
        Ok(World {
            generation: prior.map_or(1, |world| world.generation + 1),
            router: Router::new(&plan.routes),
            access: Access::new(&plan),
            shares: shares(&plan),
            services,
            whole_ports,
            plan,
        })
    }

    /// Which service a request is for. Errors: `NotFound`, or `BadRequest` for a path that reads two ways.
    pub(super) fn route(
        &self,
        listener: &ListenerKey,
        host: &str,
        path: &str,
    ) -> Result<(Arc<LiveService>, RouteOptions), Refusal> {
        let (service, options) = match self.whole_ports.get(listener) {
            Some(&service) => {
                let stream = self.services[service].plan.body.stream;
                (
                    service,
                    RouteOptions {
                        stream,
                        ..RouteOptions::default()
                    },
                )
            }
            None => self.router.route(host, path)?.0,
        };
        Ok((self.services[service].clone(), options))
    }

    /// The service that a request is for, whoever asks; `None` where there is none.
    pub fn service_at(
        &self,
        listener: &ListenerKey,
        host: &str,
        path: &str,
    ) -> Option<Arc<LiveService>> {
        let (service, _) = self.route(listener, host, path).ok()?;
        Some(service)
    }

    /// How a path leads to a service, on any host; `None` where no listener and no route of the file does.
    pub(super) fn way_to(&self, service: &str, path: &str) -> Option<RouteOptions> {
        let index = self
            .services
            .iter()
            .position(|s| &*s.plan.name == service)?;
        let routes = self.plan.routes.iter().filter(|r| r.service == index);
        let hosts = routes.map(|route| match &route.host {
            None => String::new(),
            Some(HostPattern::Exact(host)) => host.to_string(),
            // Any host of this form: the first label does not count.
            Some(HostPattern::Suffix(suffix)) => format!("any{suffix}"),
        });
        let mut found = hosts.filter_map(|host| Some(self.router.route(&host, path).ok()?.0));
        let by_route = found.find(|(leads, _)| *leads == index);
        by_route.map(|(_, options)| options).or_else(|| {
            let mut ports = self.whole_ports.values();
            ports.any(|port| *port == index).then(RouteOptions::default)
        })
    }

    /// The most urgent that jobs of a tenant may ask for.
    pub fn priority_cap(&self, tenant: &str) -> Urgency {
        let mut tenants = self.plan.tenants.iter();
        let known = tenants.find(|known| &*known.name == tenant);
        known.map_or(Urgency::FIRST, |known| known.priority_cap)
    }

    /// What a tenant may have of what is shared.
    pub fn share(&self, tenant: &str) -> Share {
        self.shares.get(tenant).copied().unwrap_or_default()
    }

    /// How many requests of a tenant may wait at once; `None`: any number.
    pub fn max_waiting(&self, tenant: &str) -> Option<usize> {
        let mut tenants = self.plan.tenants.iter();
        tenants.find(|known| &*known.name == tenant)?.max_waiting
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<LiveService>> {
        self.services
            .iter()
            .find(|service| &*service.plan.name == name)
    }
}

// === impl LiveService ===

impl LiveService {
    /// What is counted of one of its endpoints.
    pub(super) fn counts(&self, upstream: &Upstream) -> Arc<EndpointMetrics> {
        let made = || self.all.endpoint(&self.plan.name, &upstream.name);
        self.endpoints
            .lock()
            .entry(upstream.id)
            .or_insert_with(made)
            .clone()
    }
}

fn shares(plan: &Plan) -> HashMap<Arc<str>, Share> {
    let share = |tenant: &TenantPlan| Share {
        weight: tenant.weight,
        most: tenant.max_at_work,
    };
    let tenants = plan.tenants.iter();
    tenants.map(|t| (t.name.clone(), share(t))).collect()
}

/// The listeners' names, in the order of the plan.
pub fn listener_keys(listeners: &[ListenerPlan]) -> impl Iterator<Item = ListenerKey> + '_ {
    listeners
        .iter()
        .enumerate()
        .map(|(i, listener)| ListenerKey {
            address: listener.address,
            nth: listeners[..i]
                .iter()
                .filter(|other| other.address == listener.address)
                .count(),
        })
}
