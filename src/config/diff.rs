//! What a reload changes, by name: a pure function of two plans.

use super::plan::{EndpointPlan, Plan, PoolPlan, ServicePlan};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Names that are new, changed or gone, in the order of the alphabet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Only in the new plan.
    pub added: Vec<String>,
    /// In both, and not alike.
    pub changed: Vec<String>,
    /// Only in the old plan.
    pub removed: Vec<String>,
}

/// What differs between two plans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Nodes: their facts, and whether they are drained.
    pub nodes: Change,
    /// Endpoints: URL, slots, and whose probes they get.
    pub endpoints: Change,
    /// Pools: members and weights.
    pub pools: Change,
    /// Services, with their routes.
    pub services: Change,
    /// Listeners, by address; one that leads to another service is changed.
    pub listeners: Change,
    /// Tenants; their keys are compared and never told.
    pub tenants: Change,
    /// Other things that changed, by their path in the file: `access.anonymous`, `limits.grace`.
    pub settings: Vec<String>,
    /// What of this counts only after a restart, by its path in the file.
    pub needs_restart: Vec<String>,
}

/// Compares two plans. Order and indexes do not matter, names do.
pub fn diff(old: &Plan, new: &Plan) -> Diff {
    let settings = settings(old, new);
    let fixed = [
        "admin.address",
        "data_dir",
        "log.format",
        "limits.connections",
    ];
    Diff {
        nodes: change(
            old.nodes.iter().map(|n| (n.facts.name.to_string(), n)),
            new.nodes.iter().map(|n| (n.facts.name.to_string(), n)),
            |a, b| a == b,
        ),
        endpoints: change(
            old.endpoints.iter().map(|e| (e.name.to_string(), e)),
            new.endpoints.iter().map(|e| (e.name.to_string(), e)),
            |a, b| same_endpoint((old, a), (new, b)),
        ),
        pools: change(
            old.pools.iter().map(|p| (p.name.to_string(), p)),
            new.pools.iter().map(|p| (p.name.to_string(), p)),
            |a, b| members(old, a) == members(new, b),
        ),
        services: change(
            old.services
                .iter()
                .enumerate()
                .map(|(i, s)| (s.name.to_string(), (i, s))),
            new.services
                .iter()
                .enumerate()
                .map(|(i, s)| (s.name.to_string(), (i, s))),
            |(i, a), (j, b)| same_service((old, *i, a), (new, *j, b)),
        ),
        listeners: change(
            old.listeners
                .iter()
                .map(|l| (l.address.to_string(), service_name(old, l.service))),
            new.listeners
                .iter()
                .map(|l| (l.address.to_string(), service_name(new, l.service))),
            |a, b| a == b,
        ),
        tenants: change(
            old.tenants.iter().map(|t| (t.name.to_string(), t)),
            new.tenants.iter().map(|t| (t.name.to_string(), t)),
            |a, b| a == b,
        ),
        needs_restart: settings
            .iter()
            .filter(|setting| fixed.contains(&setting.as_str()))
            .cloned()
            .collect(),
        settings,
    }
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }
}

impl Change {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// One line: `nodes +a ~b -c, services ~x, access.anonymous`, or `nothing changed`.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("nodes", &self.nodes),
            ("endpoints", &self.endpoints),
            ("pools", &self.pools),
            ("services", &self.services),
            ("listeners", &self.listeners),
            ("tenants", &self.tenants),
        ];
        let mut said: Vec<String> = parts
            .iter()
            .filter(|(_, change)| !change.is_empty())
            .map(|(what, change)| format!("{what} {change}"))
            .collect();
        said.extend(self.settings.iter().cloned());
        if said.is_empty() {
            return f.write_str("nothing changed");
        }
        f.write_str(&said.join(", "))?;
        if !self.needs_restart.is_empty() {
            write!(f, " (after a restart: {})", self.needs_restart.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to recognise a change; a thousand names would not be one line.
        const SOME: usize = 8;
        let signed = |sign: char, names: &[String]| {
            let mut said: Vec<String> = names
                .iter()
                .take(SOME)
                .map(|n| format!("{sign}{n}"))
                .collect();
            if names.len() > SOME {
                said.push(format!("{sign}{} more", names.len() - SOME));
            }
            said
        };
        let mut said = signed('+', &self.added);
        said.extend(signed('~', &self.changed));
        said.extend(signed('-', &self.removed));
        f.write_str(&said.join(" "))
    }
}

fn change<T>(
    old: impl Iterator<Item = (String, T)>,
    new: impl Iterator<Item = (String, T)>,
    same: impl Fn(&T, &T) -> bool,
) -> Change {
    let old: BTreeMap<String, T> = old.collect();
    let new: BTreeMap<String, T> = new.collect();
    let mut change = Change::default();
    for (name, thing) in &new {
        match old.get(name) {
            None => change.added.push(name.clone()),
            Some(before) if !same(before, thing) => change.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    change.removed = old
        .keys()
        .filter(|name| !new.contains_key(*name))
        .cloned()
        .collect();
    change
}

fn same_endpoint((old, a): (&Plan, &EndpointPlan), (new, b): (&Plan, &EndpointPlan)) -> bool {
    a.target == b.target
        && a.slots == b.slots
        && (&a.models, a.max_size, a.vram_mib) == (&b.models, b.max_size, b.vram_mib)
        && service_name(old, a.probed_by) == service_name(new, b.probed_by)
}

/// Members by name: indexes move when anything is added before them.
fn members<'a>(plan: &'a Plan, pool: &PoolPlan) -> Vec<(&'a str, u32)> {
    let name = |endpoint: usize| plan.endpoints.get(endpoint).map_or("", |e| &*e.name);
    pool.members
        .iter()
        .map(|m| (name(m.endpoint), m.weight))
        .collect()
}

fn same_service(
    (old, i, a): (&Plan, usize, &ServicePlan),
    (new, j, b): (&Plan, usize, &ServicePlan),
) -> bool {
    let pool = |plan: &Plan, pool: usize| plan.pools.get(pool).map(|p| p.name.clone());
    a.kind.same(&*b.kind)
        && a.policy.same(&*b.policy)
        && pool(old, a.pool) == pool(new, b.pool)
        && a.queue == b.queue
        && a.priority == b.priority
        && a.health == b.health
        && a.retry == b.retry
        && a.timeouts == b.timeouts
        && a.body == b.body
        && (a.cool_down, a.drain) == (b.cool_down, b.drain)
        && (a.socket_idle, a.socket_ping) == (b.socket_idle, b.socket_ping)
        && (&a.jobs, &a.cors) == (&b.jobs, &b.cors)
        && (a.interactive, a.patience, a.gpu_hold) == (b.interactive, b.patience, b.gpu_hold)
        && (a.price, a.scale) == (b.price, b.scale)
        && routes(old, i).eq(routes(new, j))
}

fn routes(plan: &Plan, service: usize) -> impl Iterator<Item = String> + '_ {
    plan.routes
        .iter()
        .filter(move |route| route.service == service)
        .map(|route| format!("{:?} {} {:?}", route.host, route.path, route.options))
}

fn service_name(plan: &Plan, service: Option<usize>) -> Option<String> {
    service
        .and_then(|i| plan.services.get(i))
        .map(|s| s.name.to_string())
}

fn settings(old: &Plan, new: &Plan) -> Vec<String> {
    let address = |plan: &Plan| plan.admin.as_ref().map(|admin| admin.address);
    let token = |plan: &Plan| plan.admin.as_ref().and_then(|admin| admin.token.clone());
    let (a, b) = (&old.limits, &new.limits);
    let (log, now) = (&old.log, &new.log);
    let (letters, sent) = (&old.webhooks, &new.webhooks);
    [
        ("access.anonymous", old.anonymous != new.anonymous),
        ("admin.address", address(old) != address(new)),
        ("admin.token", token(old) != token(new)),
        ("data_dir", old.data_dir != new.data_dir),
        ("limits.client_head", a.client_head != b.client_head),
        ("limits.client_rate", a.client_rate != b.client_rate),
        ("limits.client_read", a.client_read != b.client_read),
        ("limits.client_write", a.client_write != b.client_write),
        ("limits.connections", a.connections != b.connections),
        (
            "limits.connections_per_address",
            a.connections_per_address != b.connections_per_address,
        ),
        (
            "limits.database_bytes",
            a.database_bytes != b.database_bytes,
        ),
        ("limits.grace", a.grace != b.grace),
        ("limits.h2_streams", a.h2_streams != b.h2_streams),
        ("limits.head_bytes", a.head_bytes != b.head_bytes),
        ("limits.head_lines", a.head_lines != b.head_lines),
        ("limits.held_bytes", a.held_bytes != b.held_bytes),
        ("limits.job_bytes", a.job_bytes != b.job_bytes),
        ("limits.keep_alive", a.keep_alive != b.keep_alive),
        ("limits.spool_bytes", a.spool_bytes != b.spool_bytes),
        ("log.access", log.access != now.access),
        ("log.format", log.format != now.format),
        ("log.headers", log.headers != now.headers),
        ("log.request_id", log.request_id != now.request_id),
        (
            "nodes_reach_us_at",
            old.nodes_reach_us_at != new.nodes_reach_us_at,
        ),
        ("public_url", old.public_url != new.public_url),
        ("webhooks.allow", letters.allow != sent.allow),
        ("webhooks.secret", letters.secrets != sent.secrets),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(path, _)| path.to_owned())
    .collect()
}
