//! Pools: those of `pools:`, and those written inside a service.

use super::fleet::{Fleet, MAX_SLOTS};
use super::value;
use crate::config::file::{Member as Typed, PoolRef};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{Member, PoolPlan};
use crate::config::problem::{list, shorten, suggest};
use crate::config::typed::{At, Field, Short};
use std::collections::HashMap;

/// Pools so far.
#[derive(Default)]
pub(crate) struct Pools {
    pub(crate) plans: Vec<PoolPlan>,
    by_name: HashMap<String, usize>,
    spots: Vec<Spot>,
    used: Vec<bool>,
}

/// The pools of `pools:`.
pub(crate) fn pools(all: &All, fleet: &mut Fleet, findings: &Findings) -> Pools {
    let mut pools = Pools::default();
    for (name, members) in &all.pools {
        value::name(name, findings);
        let members = members.get().map_or(&[][..], Vec::as_slice);
        let plan = pool(&name.value, members, name.spot, fleet, findings);
        pools.add(plan, name.spot);
    }
    pools
}

impl Pools {
    /// The pool that a service names or holds.
    pub(crate) fn of_service(
        &mut self,
        service: &At<String>,
        typed: &Field<PoolRef>,
        outer: Spot,
        fleet: &mut Fleet,
        findings: &Findings,
    ) -> Option<usize> {
        let Some(At { spot, value }) = typed.at(outer) else {
            if typed.is_missing() {
                findings.missing(
                    outer,
                    "pool",
                    "name one of `pools:`, or list endpoints or URLs",
                );
            }
            return None;
        };
        let index = match value {
            PoolRef::Name(name) => match self.by_name.get(name) {
                Some(&index) => index,
                None => {
                    let hint = match name.contains("://") {
                        true => format!("write it as a list: `pool: [{}]`", shorten(name)),
                        false => suggest(name, self.by_name.keys().map(String::as_str)),
                    };
                    findings.problem(spot, format!("there is no pool `{}`", shorten(name)), hint);
                    return None;
                }
            },
            PoolRef::Members(members) => {
                if let Some(&other) = self.by_name.get(&service.value) {
                    let what = format!(
                        "the pool written here is named like the service, and so is another `{}`",
                        service.value
                    );
                    let hint = format!("rename the one at {}", findings.show(self.spots[other]));
                    findings.problem(spot, what, hint);
                }
                let plan = pool(&service.value, members, spot, fleet, findings);
                self.add(plan, spot)
            }
        };
        self.used[index] = true;
        Some(index)
    }

    fn add(&mut self, plan: PoolPlan, spot: Spot) -> usize {
        let index = self.plans.len();
        self.by_name.entry(plan.name.to_string()).or_insert(index);
        self.plans.push(plan);
        self.spots.push(spot);
        self.used.push(false);
        index
    }

    /// Warns of pools that no service names.
    pub(crate) fn warn_of_unused(&self, findings: &Findings) {
        for (index, pool) in self.plans.iter().enumerate() {
            if !self.used[index] {
                let what = format!("no service uses the pool `{}`", pool.name);
                findings.warn(
                    self.spots[index],
                    what,
                    "name it in a service, or remove it",
                );
            }
        }
    }
}

fn pool(
    name: &str,
    typed: &[Field<Short<Typed>>],
    outer: Spot,
    fleet: &mut Fleet,
    findings: &Findings,
) -> PoolPlan {
    let mut members = Vec::new();
    let mut first: HashMap<usize, Spot> = HashMap::new();
    for field in typed {
        let Some(At {
            spot,
            value: Short(typed),
        }) = field.at(outer)
        else {
            continue;
        };
        let hint = match typed.weight.get() {
            Some(0) => "to take a node out, say `drained: true` at the node",
            _ => "weights are shares: what counts is how they compare",
        };
        let weight = value::number(&typed.weight, 1..=1000, 1, hint, spot, findings) as u32;
        let Some(endpoint) = endpoint(typed, spot, fleet, findings) else {
            continue;
        };
        fleet.uses(endpoint);
        match first.get(&endpoint) {
            Some(&other) => {
                let what = format!("`{}` is in this pool twice", fleet.endpoints[endpoint].name);
                let hint = format!(
                    "the first is at {}; say `weight: 2` for a larger share",
                    findings.show(other)
                );
                findings.problem(spot, what, hint);
            }
            None => {
                first.insert(endpoint, spot);
                members.push(Member { endpoint, weight });
            }
        }
    }
    if typed.is_empty() {
        findings.warn(
            outer,
            format!("the pool `{name}` is empty"),
            "its service refuses or queues every request",
        );
    }
    PoolPlan {
        name: name.into(),
        members,
    }
}

fn endpoint(typed: &Typed, outer: Spot, fleet: &mut Fleet, findings: &Findings) -> Option<usize> {
    match (typed.endpoint.at(outer), typed.url.at(outer)) {
        (Some(_), Some(url)) => {
            findings.problem(
                url.spot,
                "`endpoint` and `url` exclude each other",
                "keep one of them",
            );
            None
        }
        (None, Some(url)) => {
            let said = !typed.slots.is_missing();
            let hint = "it is how many requests the server works on at once";
            let slots = value::number(&typed.slots, 1..=MAX_SLOTS, 1, hint, outer, findings);
            fleet.inline(url.value, said.then_some(slots), url.spot, findings)
        }
        (Some(name), None) => {
            if !typed.slots.is_missing() {
                let spot = typed.slots.spot(outer);
                findings.problem(
                    spot,
                    "`slots` belongs to the endpoint",
                    "say it under `nodes:`",
                );
            }
            find(name.value, name.spot, fleet, findings)
        }
        (None, None) => {
            if typed.endpoint.is_missing() && typed.url.is_missing() {
                findings.missing(
                    outer,
                    "endpoint",
                    "say `endpoint: node/endpoint` or `url: URL`",
                );
            }
            None
        }
    }
}

/// The endpoint that `node/endpoint`, or the name of a node with one endpoint, means.
fn find(name: &str, spot: Spot, fleet: &Fleet, findings: &Findings) -> Option<usize> {
    if let Some(found) = fleet.by_name.get(name) {
        return *found;
    }
    let node = name.split_once('/').map_or(name, |(node, _)| node);
    let Some(endpoints) = fleet.of_node.get(node) else {
        let hint = match node.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => {
                format!("write a URL: `http://{}`", shorten(node))
            }
            _ => suggest(node, fleet.of_node.keys().map(String::as_str)),
        };
        findings.problem(spot, format!("there is no node `{}`", shorten(node)), hint);
        return None;
    };
    // The node could not be read, so that nobody knows its endpoints.
    if endpoints.iter().any(String::is_empty) {
        return None;
    }
    if name.contains('/') {
        let hint = suggest(name, endpoints.iter().map(String::as_str));
        findings.problem(
            spot,
            format!("there is no endpoint `{}`", shorten(name)),
            hint,
        );
        return None;
    }
    match endpoints.as_slice() {
        [only] => fleet.by_name.get(only).copied().flatten(),
        // Told at the node.
        [] => None,
        several => {
            let what = format!("the node `{}` has several endpoints", shorten(node));
            findings.problem(
                spot,
                what,
                format!("write {}", list(several).replace(" and ", " or ")),
            );
            None
        }
    }
}
