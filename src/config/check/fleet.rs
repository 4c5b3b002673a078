//! Nodes and their endpoints: those of `nodes:`, and those made of URLs in pools.

use super::url::{is_host, url};
use super::{placement, value};
use crate::config::expand::read_bounded;
use crate::config::file::{Endpoint, Gpu, Node, SharingWord, Tls};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{EndpointPlan, NodePlan, Sharing, Target, TlsPlan};
use crate::config::problem::shorten;
use crate::config::typed::At;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use tabane_api::NodeFacts;

/// How many requests at once anything could work on.
pub(crate) const MAX_SLOTS: u64 = 10_000;
/// The endpoint of a node that has only one and gives it no name.
const ONLY: &str = "http";
/// A certificate authority's file holds some KiB each.
const MAX_CA: u64 = 1 << 20;

/// Nodes and endpoints so far.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) endpoints: Vec<EndpointPlan>,
    /// Files that endpoints depend on, with their bytes.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// By name; `None` for an endpoint that is at fault, which was told.
    pub(crate) by_name: HashMap<String, Option<usize>>,
    /// The names of a node's endpoints.
    pub(crate) of_node: BTreeMap<String, Vec<String>>,
    spots: Vec<Spot>,
    used: Vec<bool>,
    /// Nodes made of URLs, with the place of the slots that somebody said.
    inline: HashMap<String, Option<Spot>>,
}

/// The nodes of `nodes:`.
pub(crate) fn fleet(all: &All, findings: &Findings) -> Fleet {
    let mut fleet = Fleet::default();
    for (name, node) in &all.nodes {
        value::name(name, findings);
        let names = fleet.of_node.entry(name.value.clone()).or_default();
        match node.get() {
            Some(node) => fleet.declared(name, node, findings),
            // A node that cannot be read may have any endpoint.
            None => names.push(String::new()),
        }
    }
    fleet.warn_of_twins(findings);
    fleet
}

impl Fleet {
    fn declared(&mut self, name: &At<String>, node: &Node, findings: &Findings) {
        let index = self.nodes.len();
        self.nodes.push(NodePlan {
            facts: Arc::new(facts(name, node, findings)),
            drained: node.drained.or(false),
            sharing: match node.sharing.get() {
                None => Sharing::Free,
                Some(SharingWord::Exclusive) => Sharing::Exclusive,
                Some(SharingWord::Fits) => Sharing::Fits,
            },
        });
        if let Some(endpoints) = node.endpoints.get() {
            for (short, endpoint) in &endpoints.0 {
                value::name(short, findings);
                let full = format!("{}/{}", name.value, short.value);
                let spot = endpoint.spot(short.spot);
                let plan = endpoint
                    .get()
                    .and_then(|e| self.endpoint(&full, index, &e.0, spot, findings));
                self.add(&name.value, full, plan, short.spot);
            }
        }
        if !node.url.is_missing() {
            if !node.endpoints.is_missing() {
                let hint = "move it below `endpoints`";
                findings.problem(
                    node.url.spot(name.spot),
                    "`url` and `endpoints` exclude each other",
                    hint,
                );
                return;
            }
            let full = format!("{}/{ONLY}", name.value);
            let spot = node.url.spot(name.spot);
            let slots = value::number(&node.slots, 1..=MAX_SLOTS, 1, SLOTS_HINT, spot, findings);
            let plan = node.url.get().and_then(|text| {
                url(text, spot, findings).map(|url| EndpointPlan {
                    name: full.as_str().into(),
                    node: index,
                    target: url.target(false),
                    slots: slots as u32,
                    slots_said: !node.slots.is_missing(),
                    models: None,
                    max_size: None,
                    vram_mib: None,
                    probed_by: None,
                })
            });
            self.add(&name.value, full, plan, spot);
        } else if node.endpoints.is_missing()
            || node.endpoints.get().is_some_and(|e| e.0.is_empty())
        {
            findings.missing(
                name.spot,
                "endpoints",
                "say `endpoints: {NAME: URL}`, or `url: URL`",
            );
        } else if !node.slots.is_missing() {
            let hint = "say it at each endpoint: `{url: URL, slots: N}`";
            findings.problem(node.slots.spot(name.spot), "`slots` goes with `url`", hint);
        }
    }

    fn endpoint(
        &mut self,
        full: &str,
        node: usize,
        typed: &Endpoint,
        outer: Spot,
        findings: &Findings,
    ) -> Option<EndpointPlan> {
        let slots = value::number(&typed.slots, 1..=MAX_SLOTS, 1, SLOTS_HINT, outer, findings);
        let Some(At { spot, value: text }) = typed.url.at(outer) else {
            if typed.url.is_missing() {
                findings.missing(outer, "url", "such as `http://100.64.0.11:8188`");
            }
            return None;
        };
        let url = url(text, spot, findings)?;
        let mut target = url.target(typed.h2.or(false));
        match (typed.tls.at(outer), &mut target.tls) {
            (Some(tls), Some(plan)) => self.tls(tls, plan, findings),
            (Some(tls), None) => {
                findings.problem(
                    tls.spot,
                    "`tls` goes with an `https` URL",
                    "write `https://…`, or remove it",
                );
            }
            _ => {}
        }
        let mut plan = EndpointPlan {
            name: full.into(),
            node,
            target,
            slots: slots as u32,
            slots_said: !typed.slots.is_missing(),
            models: None,
            max_size: None,
            vram_mib: typed.vram.get().map(|size| size.0 / (1 << 20)),
            probed_by: None,
        };
        placement::takes(typed, &mut plan, outer, findings);
        Some(plan)
    }

    fn tls(&mut self, typed: At<&Tls>, plan: &mut TlsPlan, findings: &Findings) {
        if let Some(At { spot, value: name }) = typed.value.server_name.at(typed.spot) {
            if !is_host(name) {
                let what = format!("`{}` is not a host name", shorten(name));
                findings.problem(spot, what, "write the name that stands in the certificate");
            }
            plan.server_name = name.to_ascii_lowercase().into();
        }
        plan.verify = typed.value.verify.or(true);
        let Some(At { spot, value: ca }) = typed.value.ca.at(typed.spot) else {
            return;
        };
        let path = findings.resolve(spot, ca);
        if self.files.iter().any(|(known, _)| *known == path) {
            plan.ca = Some(path);
            return;
        }
        match read_bounded(&path, MAX_CA) {
            Err(why) => findings.problem(
                spot,
                format!("cannot read `{ca}`: {why}"),
                "a relative path starts at this file's folder",
            ),
            Ok(bytes) if !is_pem(&bytes) => {
                findings.problem(
                    spot,
                    format!("`{ca}` holds no PEM certificate"),
                    "it needs a `-----BEGIN CERTIFICATE-----` block",
                );
            }
            Ok(bytes) => {
                self.files.push((path.clone(), bytes));
                plan.ca = Some(path);
            }
        }
    }

    /// The endpoint of a URL in a pool; its node is made the first time.
    pub(crate) fn inline(
        &mut self,
        text: &str,
        slots: Option<u64>,
        spot: Spot,
        findings: &Findings,
    ) -> Option<usize> {
        let url = url(text, spot, findings)?;
        let node = url.authority();
        let full = format!("{node}/{ONLY}");
        let target = url.target(false);
        if let Some(said) = self.inline.get(&node).copied() {
            let index = self.by_name.get(&full).copied().flatten()?;
            let known = &mut self.endpoints[index];
            if known.target != target {
                let hint = "declare it under `nodes:`, with an endpoint for each";
                let what = format!("`{node}` is spoken to as http and as https");
                findings.problem(spot, what, hint);
                return None;
            }
            match (said, slots) {
                (Some(other), Some(slots)) if u64::from(known.slots) != slots => {
                    let hint = format!("it is {} at {}", known.slots, findings.show(other));
                    findings.problem(spot, format!("`{node}` has other slots elsewhere"), hint);
                }
                (None, Some(slots)) => {
                    (known.slots, known.slots_said) = (slots as u32, true);
                    self.inline.insert(node, Some(spot));
                }
                _ => {}
            }
            return Some(index);
        }
        if self.of_node.contains_key(&node) {
            let hint = format!("name its endpoint, `{node}/NAME`, in place of the URL");
            findings.problem(
                spot,
                format!("a node `{node}` is declared under `nodes:`"),
                hint,
            );
            return None;
        }
        // The same card under two names would be counted twice.
        if let Some(twin) = self
            .endpoints
            .iter()
            .find(|e| same_socket(&e.target, &target))
        {
            let hint = format!("write `{}`", twin.name);
            findings.warn(
                spot,
                format!(
                    "this is the URL of `{}`, counted as another node",
                    twin.name
                ),
                hint,
            );
        }
        self.nodes.push(NodePlan {
            facts: Arc::new(NodeFacts {
                name: node.as_str().into(),
                ..NodeFacts::default()
            }),
            drained: false,
            sharing: Sharing::Free,
        });
        let plan = EndpointPlan {
            name: full.as_str().into(),
            node: self.nodes.len() - 1,
            target,
            slots: slots.unwrap_or(1) as u32,
            slots_said: slots.is_some(),
            models: None,
            max_size: None,
            vram_mib: None,
            probed_by: None,
        };
        self.inline.insert(node.clone(), slots.map(|_| spot));
        self.add_inline(full, plan, spot)
    }

    fn add(&mut self, node: &str, full: String, plan: Option<EndpointPlan>, spot: Spot) {
        let index = plan.map(|plan| {
            self.endpoints.push(plan);
            self.spots.push(spot);
            self.used.push(false);
            self.endpoints.len() - 1
        });
        if let Some(names) = self.of_node.get_mut(node) {
            names.push(full.clone());
        }
        self.by_name.entry(full).or_insert(index);
    }

    fn add_inline(&mut self, full: String, plan: EndpointPlan, spot: Spot) -> Option<usize> {
        self.add("", full.clone(), Some(plan), spot);
        self.by_name.get(&full).copied().flatten()
    }

    /// What an endpoint's node costs while it runs.
    pub(crate) fn usd_per_hour(&self, endpoint: usize) -> f64 {
        self.nodes[self.endpoints[endpoint].node].facts.usd_per_hour
    }

    /// Some pool holds it.
    pub(crate) fn uses(&mut self, endpoint: usize) {
        if let Some(used) = self.used.get_mut(endpoint) {
            *used = true;
        }
    }

    /// Warns of endpoints in no pool.
    pub(crate) fn warn_of_unused(&self, findings: &Findings) {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if !self.used[index] {
                let what = format!("the endpoint `{}` is in no pool", endpoint.name);
                findings.warn(self.spots[index], what, "add it to a pool, or remove it");
            }
        }
    }

    /// Warns of two endpoints on different nodes that are one and the same server.
    fn warn_of_twins(&self, findings: &Findings) {
        let mut first: HashMap<(&str, u16), usize> = HashMap::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let key = (&*endpoint.target.host, endpoint.target.port);
            match first.get(&key) {
                Some(&other) => {
                    let what = format!("this is also the URL of `{}`", self.endpoints[other].name);
                    findings.warn(self.spots[index], what, "its slots are counted twice");
                }
                None => {
                    first.insert(key, index);
                }
            }
        }
    }
}

const SLOTS_HINT: &str = "it is how many requests the server works on at once";

fn facts(name: &At<String>, node: &Node, findings: &Findings) -> NodeFacts {
    let (gpu, vram) = match node.gpu.get() {
        Some(short) => {
            let Gpu { model, vram } = &short.0;
            (
                model.get().cloned().unwrap_or_default(),
                vram.get().map_or(0, |size| size.0),
            )
        }
        None => (String::new(), 0),
    };
    let price = node.price_per_hour.or(0.0);
    if !(price.is_finite() && price >= 0.0) {
        findings.problem(
            node.price_per_hour.spot(name.spot),
            "must be 0 or more",
            "it is in USD per hour",
        );
    }
    let labels = node.labels.get().map(|labels| {
        let pairs = labels.0.iter();
        pairs
            .filter_map(|(key, value)| {
                Some((key.value.as_str().into(), value.get()?.as_str().into()))
            })
            .collect()
    });
    NodeFacts {
        name: name.value.as_str().into(),
        gpu: gpu.into(),
        vram_mib: vram / (1 << 20),
        usd_per_hour: price,
        labels: labels.unwrap_or_default(),
    }
}

fn is_pem(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.split_once("-----BEGIN CERTIFICATE-----")
        .is_some_and(|(_, rest)| rest.contains("-----END CERTIFICATE-----"))
}

fn same_socket(a: &Target, b: &Target) -> bool {
    a.host == b.host && a.port == b.port
}
