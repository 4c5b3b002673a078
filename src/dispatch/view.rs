//! What an operator sees: values, copied out under the lock and free of it.

use super::{Dispatch, LiveService, now};
use crate::fleet::Endpoint;
use crate::schedule::WaitingView;
use crate::telemetry::{EndpointGauge, ServiceGauge};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many of those who wait are shown: more than a person reads, and little enough to copy under the lock.
const SHOWN: usize = 1000;

/// A node with what is known of its endpoints.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// The card's model.
    pub gpu: String,
    /// The card's memory, MiB.
    pub vram_mib: u64,
    /// USD per hour.
    pub usd_per_hour: f64,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the file keeps it from new work.
    pub drained_by_file: bool,
    /// Whether an operator keeps it from new work.
    pub drained_by_operator: bool,
    /// Its endpoints.
    pub endpoints: Vec<EndpointInfo>,
}

/// An endpoint as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointInfo {
    /// `node/endpoint`.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// `unproven`, `up`, `down`, `ejected`, `trial`, `draining` or `leaving`.
    pub state: &'static str,
    /// How many requests at once.
    pub slots: u32,
    /// Slots taken by requests at work.
    pub at_work: u32,
    /// Slots of requests that were broken off and may still be at work on the node.
    pub cooling: u32,
    /// Requests that take no slot.
    pub passing: u32,
    /// Why its last probe or request failed; empty when nothing did.
    pub last_error: String,
    /// The card's free memory by its last probe, MiB.
    pub vram_free_mib: Option<u64>,
    /// What it has of the card that it shares: `holds`, `yields` (it ends what it is at), `releasing`, `not_released`,
    /// `free` (it has nothing there), `stays` (it cannot let go) or `unknown`; `None`: it shares none.
    pub card: Option<&'static str>,
}

/// A service as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// The kind that knows its API.
    pub kind: &'static str,
    /// How its nodes are chosen.
    pub policy: &'static str,
    /// Its pool.
    pub pool: String,
    /// How many wait with a connection.
    pub waiting: usize,
    /// How many may.
    pub queue_max: usize,
    /// How many jobs wait that were accepted for later.
    pub stored: usize,
    /// How many of its endpoints get requests.
    pub usable_endpoints: usize,
}

/// Who waits, over all services.
#[derive(Clone, Debug, Serialize)]
pub struct QueueView {
    /// How many.
    pub total: usize,
    /// The first 1000 of them, in order.
    pub first: Vec<WaitingView>,
}

/// A pool as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Its endpoints with their weights.
    pub members: Vec<(String, u32)>,
}

// === impl Dispatch ===

impl Dispatch {
    /// Every node of the plan, and endpoints that left and are still at work under the node they were on.
    pub fn nodes(&self) -> Vec<NodeView> {
        let Some(world) = self.world() else {
            return Vec::new();
        };
        let marks = self.0.means.marks.all();
        let core = self.0.core.lock();
        let mut nodes: BTreeMap<String, NodeView> = BTreeMap::new();
        for node in &world.plan.nodes {
            let name = node.facts.name.to_string();
            let labels = node
                .facts
                .labels
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect();
            nodes.insert(
                name.clone(),
                NodeView {
                    drained_by_operator: marks.contains(&name),
                    drained_by_file: node.drained,
                    gpu: node.facts.gpu.to_string(),
                    vram_mib: node.facts.vram_mib,
                    usd_per_hour: node.facts.usd_per_hour,
                    labels,
                    endpoints: Vec::new(),
                    name,
                },
            );
        }
        let mut endpoints: Vec<&Endpoint> = core.rooms.fleet.all().collect();
        endpoints.sort_by(|a, b| a.name().cmp(b.name()));
        for endpoint in endpoints {
            let facts = endpoint.node();
            let node = nodes
                .entry(facts.name.to_string())
                .or_insert_with(|| NodeView {
                    name: facts.name.to_string(),
                    gpu: facts.gpu.to_string(),
                    vram_mib: facts.vram_mib,
                    usd_per_hour: facts.usd_per_hour,
                    labels: BTreeMap::new(),
                    drained_by_file: false,
                    drained_by_operator: marks.contains(&*facts.name),
                    endpoints: Vec::new(),
                });
            let card = core.rooms.fleet.card_word(endpoint);
            node.endpoints.push(info(endpoint, card));
        }
        nodes.into_values().collect()
    }

    /// Every service of the plan.
    pub fn services(&self) -> Vec<ServiceView> {
        let Some(world) = self.world() else {
            return Vec::new();
        };
        let core = self.0.core.lock();
        let view = |service: &Arc<LiveService>| ServiceView {
            name: service.plan.name.to_string(),
            kind: service.plan.kind.name(),
            policy: service.plan.policy.name(),
            pool: world.plan.pools[service.plan.pool].name.to_string(),
            waiting: core.rooms.schedule.waiting_in(&service.plan.name),
            queue_max: service.plan.queue.max,
            stored: core.rooms.schedule.stored_in(&service.plan.name),
            usable_endpoints: core
                .rooms
                .pools
                .members(service.pool)
                .iter()
                .filter(|(id, _)| core.rooms.fleet.usable(*id))
                .count(),
        };
        world.services.iter().map(view).collect()
    }

    /// Every pool of the plan.
    pub fn pools(&self) -> Vec<PoolView> {
        let Some(world) = self.world() else {
            return Vec::new();
        };
        let members = |pool: &crate::config::plan::PoolPlan| {
            pool.members
                .iter()
                .map(|m| (world.plan.endpoints[m.endpoint].name.to_string(), m.weight))
                .collect()
        };
        world
            .plan
            .pools
            .iter()
            .map(|pool| PoolView {
                name: pool.name.to_string(),
                members: members(pool),
            })
            .collect()
    }

    /// Who waits, in order.
    pub fn queue(&self) -> QueueView {
        let core = self.0.core.lock();
        QueueView {
            total: core.rooms.schedule.waiting(),
            first: core.rooms.schedule.snapshot(SHOWN),
        }
    }

    /// What `/metrics` says of endpoints.
    pub fn gauges(&self) -> Vec<EndpointGauge> {
        let core = self.0.core.lock();
        let gauge = |endpoint: &Endpoint| EndpointGauge {
            node: endpoint.node().name.clone(),
            endpoint: endpoint.name().clone(),
            state: endpoint.state().word(),
            slots: endpoint.slots(),
            used: endpoint.used(),
            cooling: endpoint.cooling(),
            vram_free_mib: endpoint.vitals().vram_free_mib,
            holds_card: core
                .rooms
                .fleet
                .card_word(endpoint)
                .map(|_| endpoint.holds_card()),
        };
        core.rooms.fleet.all().map(gauge).collect()
    }

    /// What `/metrics` says of the services of the plan.
    pub fn service_gauges(&self) -> Vec<ServiceGauge> {
        let Some(world) = self.world() else {
            return Vec::new();
        };
        let mut core = self.0.core.lock();
        let gauge = |service: &Arc<LiveService>| ServiceGauge {
            service: service.plan.name.clone(),
            waiting: core.rooms.schedule.waiting_in(&service.plan.name),
            backlog_s: core
                .rooms
                .backlog_s(&service.plan.name, service.pool, now()),
            spent_usd: core.rooms.spent_usd(&service.plan.name, now()),
        };
        world.services.iter().map(gauge).collect()
    }
}

fn info(endpoint: &Endpoint, card: Option<&'static str>) -> EndpointInfo {
    let target = endpoint.target();
    let scheme = if target.tls.is_some() {
        "https"
    } else {
        "http"
    };
    EndpointInfo {
        name: endpoint.name().to_string(),
        url: format!("{scheme}://{}", target.authority()),
        state: endpoint.state().word(),
        slots: endpoint.slots(),
        at_work: endpoint.at_work(),
        cooling: endpoint.cooling(),
        passing: endpoint.passing(),
        last_error: endpoint.last_error().to_owned(),
        vram_free_mib: endpoint.vitals().vram_free_mib,
        card,
    }
}
