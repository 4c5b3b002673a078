//! A small file: what it says as values, as text, and as the plan that the text becomes.

use super::drive::registry;
use crate::config::plan::Plan;
use crate::config::{Diff, load_text};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Names there may be.
pub(super) const NODES: usize = 5;
const POOLS: usize = 3;
const SERVICES: usize = 3;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct File {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) pools: BTreeMap<String, BTreeMap<String, u32>>,
    pub(super) services: BTreeMap<String, Service>,
    /// Ports, each with the service it is for as a whole.
    pub(super) listeners: BTreeMap<u16, Option<String>>,
    pub(super) grace: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) drained: bool,
    /// By name: port and slots.
    pub(super) endpoints: BTreeMap<String, (u16, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Service {
    pub(super) pool: String,
    pub(super) policy: &'static str,
    /// Its kind's own block.
    pub(super) path: u32,
    pub(super) queue: u32,
    pub(super) fall: u32,
    pub(super) drain_ms: u32,
    /// One more route than `/NAME`, which takes no slot.
    pub(super) free: bool,
}

pub(super) const MAX_WAIT: Duration = Duration::from_secs(20);
pub(super) const COOL_DOWN: Duration = Duration::from_millis(400);

pub(super) fn below(draw: &mut StdRng, n: usize) -> usize {
    (draw.next_u64() % n as u64) as usize
}

fn one_of<T: Clone>(draw: &mut StdRng, all: impl IntoIterator<Item = T>) -> Option<T> {
    let all: Vec<T> = all.into_iter().collect();
    (!all.is_empty()).then(|| all[below(draw, all.len())].clone())
}

// === impl File ===

impl File {
    /// Every node, pool and service there may be: whoever waits can be served.
    pub(super) fn full() -> File {
        let mut draw = <StdRng as rand::SeedableRng>::seed_from_u64(0);
        let mut file = File {
            grace: 20,
            ..File::default()
        };
        for n in 0..NODES {
            file.nodes.insert(format!("n{n}"), node(n, &mut draw));
        }
        let names: Vec<String> = file.endpoints().into_keys().collect();
        for (n, ends) in [[0, 3], [2, 5], [1, 4]].into_iter().enumerate() {
            let members = names[ends[0]..ends[1]].iter().map(|name| (name.clone(), 1));
            file.pools.insert(format!("p{n}"), members.collect());
            file.services
                .insert(format!("s{n}"), service(format!("p{n}"), &mut draw));
        }
        file.listeners.insert(80, None);
        file
    }

    /// The endpoints by name: node, port and slots.
    pub(super) fn endpoints(&self) -> BTreeMap<String, (&str, u16, u32)> {
        let of = |(name, node): (&'_ String, &'_ Node)| -> Vec<(String, u16, u32)> {
            let ends = node.endpoints.iter();
            ends.map(|(end, (port, slots))| (format!("{name}/{end}"), *port, *slots))
                .collect()
        };
        let all = self.nodes.iter().flat_map(|(name, node)| {
            of((name, node))
                .into_iter()
                .map(move |(full, port, slots)| (full, (name.as_str(), port, slots)))
        });
        all.collect()
    }

    /// Endpoints that a service uses, each with how long the most patient of them lets it drain.
    pub(super) fn used(&self) -> BTreeMap<String, Duration> {
        let mut used = BTreeMap::new();
        for service in self.services.values() {
            let drain = Duration::from_millis(service.drain_ms.into());
            for member in self.pools[&service.pool].keys() {
                let longest = used.entry(member.clone()).or_insert(drain);
                *longest = drain.max(*longest);
            }
        }
        used
    }

    /// The service that probes an endpoint: the first by name that uses it.
    fn probed_by(&self, endpoint: &str) -> Option<&String> {
        let mut services = self.services.iter();
        services
            .find(|(_, service)| self.pools[&service.pool].contains_key(endpoint))
            .map(|(name, _)| name)
    }

    pub(super) fn plan(&self) -> Plan {
        let text = self.to_string();
        let loaded = load_text("t.yaml", &text, &registry(), &|_| None);
        loaded
            .unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
            .plan
    }

    /// Says something else, a little or a lot.
    pub(super) fn change(&mut self, draw: &mut StdRng) {
        match below(draw, 16) {
            0 | 1 => {
                let n = below(draw, NODES);
                self.nodes.insert(format!("n{n}"), node(n, draw));
            }
            2 | 3 => {
                if let Some(name) = one_of(draw, self.nodes.keys().cloned()) {
                    self.nodes.remove(&name);
                }
            }
            4 => {
                // Under another name, the same machine is another node.
                let (old, new) = (below(draw, NODES), format!("n{}", below(draw, NODES)));
                if let Some(node) = self.nodes.remove(&format!("n{old}")) {
                    self.nodes.entry(new).or_insert(node);
                }
            }
            5 | 6 => {
                let node = self.nodes.values_mut().nth(below(draw, NODES));
                if let Some(slots) = node.and_then(|node| node.endpoints.values_mut().next()) {
                    slots.1 = 1 + below(draw, 3) as u32;
                }
            }
            7 => {
                let node = self.nodes.values_mut().nth(below(draw, NODES));
                if let Some(port) = node.and_then(|node| node.endpoints.values_mut().next()) {
                    port.0 ^= 0x100;
                }
            }
            8 => {
                if let Some(node) = self.nodes.values_mut().nth(below(draw, NODES)) {
                    node.drained = !node.drained;
                }
            }
            9 | 10 => {
                let member = one_of(draw, self.endpoints().into_keys());
                let pool = one_of(draw, self.pools.keys().cloned());
                if let (Some(member), Some(pool)) = (member, pool) {
                    let weight = 1 + below(draw, 3) as u32;
                    self.pools.entry(pool).or_default().insert(member, weight);
                }
            }
            11 => {
                if let Some(pool) = self.pools.values_mut().nth(below(draw, POOLS)) {
                    let gone = pool.keys().nth(below(draw, 3)).cloned();
                    gone.map(|gone| pool.remove(&gone));
                }
            }
            12 | 13 => {
                let name = format!("s{}", below(draw, SERVICES));
                let pool = format!("p{}", below(draw, POOLS));
                self.pools.entry(pool.clone()).or_default();
                self.services.insert(name, service(pool, draw));
            }
            // A file without services is no file.
            14 if self.services.len() > 1 => {
                if let Some(name) = one_of(draw, self.services.keys().cloned()) {
                    self.services.remove(&name);
                }
            }
            _ => {
                let service = one_of(draw, self.services.keys().cloned());
                let port = 80 + below(draw, 3) as u16;
                self.listeners.insert(port, service.filter(|_| port > 80));
                self.grace = 10 + below(draw, 3) as u32;
            }
        }
        self.mend();
    }

    /// Takes out what names something that is not there: such a file would be refused.
    fn mend(&mut self) {
        let names: BTreeSet<String> = self.endpoints().into_keys().collect();
        for pool in self.pools.values_mut() {
            pool.retain(|member, _| names.contains(member));
        }
        let services = &self.services;
        self.listeners.retain(|_, service| {
            service
                .as_ref()
                .is_none_or(|name| services.contains_key(name))
        });
    }

    /// What a diff names, taken from `new`: everything else stays as it is here.
    pub(super) fn patched(&self, diff: &Diff, new: &File) -> File {
        let mut file = self.clone();
        patch(&mut file.pools, &new.pools, &diff.pools);
        patch(&mut file.services, &new.services, &diff.services);
        // Nodes and their endpoints are named apart.
        for name in diff.nodes.removed.iter().chain(&diff.nodes.added) {
            file.nodes.remove(name);
        }
        for name in diff.nodes.added.iter().chain(&diff.nodes.changed) {
            let drained = new.nodes[name].drained;
            let bare = || Node {
                drained,
                endpoints: BTreeMap::new(),
            };
            file.nodes.entry(name.clone()).or_insert_with(bare).drained = drained;
        }
        let changes = &diff.endpoints;
        for full in changes
            .removed
            .iter()
            .chain(&changes.added)
            .chain(&changes.changed)
        {
            let (node, end) = full.split_once('/').unwrap();
            let there = new.nodes.get(node).and_then(|node| node.endpoints.get(end));
            let Some(here) = file.nodes.get_mut(node) else {
                continue;
            };
            match there {
                Some(endpoint) => drop(here.endpoints.insert(end.into(), *endpoint)),
                None => drop(here.endpoints.remove(end)),
            }
        }
        let named = |port: &u16, names: &[String]| names.contains(&format!("127.0.0.1:{port}"));
        file.listeners
            .retain(|port, _| !named(port, &diff.listeners.removed));
        for (port, service) in &new.listeners {
            if named(port, &diff.listeners.added) || named(port, &diff.listeners.changed) {
                file.listeners.insert(*port, service.clone());
            }
        }
        if diff
            .settings
            .iter()
            .any(|setting| setting == "limits.grace")
        {
            file.grace = new.grace;
        }
        file
    }

    /// How many endpoints are not as they were, by another reckoning than the diff's.
    pub(super) fn differing_endpoints(&self, new: &File) -> BTreeSet<String> {
        let (old_ends, new_ends) = (self.endpoints(), new.endpoints());
        let all = old_ends.keys().chain(new_ends.keys()).cloned();
        let same = |name: &String| {
            old_ends.get(name) == new_ends.get(name) && self.probed_by(name) == new.probed_by(name)
        };
        all.filter(|name| !same(name)).collect()
    }
}

fn patch<T: Clone>(
    old: &mut BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    change: &crate::config::Change,
) {
    for name in &change.removed {
        assert!(old.remove(name).is_some() && !new.contains_key(name));
    }
    for name in &change.added {
        assert!(old.insert(name.clone(), new[name].clone()).is_none());
    }
    for name in &change.changed {
        assert!(old.insert(name.clone(), new[name].clone()).is_some());
    }
}

fn node(n: usize, draw: &mut StdRng) -> Node {
    let two = n == 0;
    let ends = ["e", "f"].into_iter().take(1 + usize::from(two));
    let port = |nth: usize| (1000 + 10 * n + nth) as u16;
    let endpoints = ends
        .enumerate()
        .map(|(nth, end)| (end.to_owned(), (port(nth), 1 + below(draw, 3) as u32)));
    Node {
        drained: false,
        endpoints: endpoints.collect(),
    }
}

fn service(pool: String, draw: &mut StdRng) -> Service {
    Service {
        pool,
        policy: ["least_loaded", "round_robin", "first"][below(draw, 3)],
        path: below(draw, 2) as u32,
        queue: [2, 20][below(draw, 2)],
        fall: 1 + below(draw, 2) as u32,
        drain_ms: [500, 2000][below(draw, 2)],
        free: below(draw, 2) == 0,
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "limits: {{grace: {}s}}\nlisten:", self.grace)?;
        for (port, service) in &self.listeners {
            let service = service
                .as_ref()
                .map_or(String::new(), |name| format!(", service: {name}"));
            writeln!(f, "  - {{address: 127.0.0.1:{port}{service}}}")?;
        }
        writeln!(f, "nodes:")?;
        for (name, node) in &self.nodes {
            writeln!(
                f,
                "  {name}:\n    drained: {}\n    endpoints:",
                node.drained
            )?;
            for (end, (port, slots)) in &node.endpoints {
                writeln!(
                    f,
                    "      {end}: {{url: 'http://10.0.0.1:{port}', slots: {slots}}}"
                )?;
            }
        }
        writeln!(f, "pools:")?;
        for (name, members) in &self.pools {
            let member =
                |(name, weight): (&String, &u32)| format!("{{endpoint: {name}, weight: {weight}}}");
            let members: Vec<String> = members.iter().map(member).collect();
            writeln!(f, "  {name}: [{}]", members.join(", "))?;
        }
        writeln!(f, "services:")?;
        for (name, service) in &self.services {
            let Service {
                pool,
                policy,
                path,
                queue,
                fall,
                drain_ms,
                free,
            } = service;
            let free = if *free {
                format!(", {{path: /{name}/free, slots: 0}}")
            } else {
                String::new()
            };
            let (max_wait, cool) = (MAX_WAIT.as_secs(), COOL_DOWN.as_millis());
            writeln!(
                f,
                "  {name}:\n    kind: {{plain: {{path: {path}}}}}\n    pool: {pool}\n    policy: {policy}\n    \
                 queue: {{max: {queue}, max_wait: {max_wait}s}}\n    cool_down: {cool}ms\n    drain: {drain_ms}ms\n    \
                 health: {{rise: 1, fall: {fall}, eject_after: 2, eject_for: 300ms, eject_max: 1s, stall_after: 1h}}\n    \
                 routes: [/{name}{free}]"
            )?;
        }
        Ok(())
    }
}
