//! Cards that several services share.

use super::fleet::Fleet;
use super::value;
use crate::config::file::{Endpoint, GpuHold, Node, SharingWord};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::HoldPlan;
use crate::config::typed::{At, Field};

/// Whether what nodes and their endpoints say of it makes sense.
pub(crate) fn sharing(all: &All, fleet: &Fleet, findings: &Findings) {
    for (name, node) in &all.nodes {
        let Some(node) = node.get() else { continue };
        let plan = fleet.nodes.iter().find(|p| *p.facts.name == *name.value);
        let card_mib = plan.map_or(0, |plan| plan.facts.vram_mib);
        let typed = node.sharing.at(name.spot);
        claims(node, card_mib, typed.is_some(), findings);
        let Some(At { spot, value: word }) = typed else {
            continue;
        };
        if node.endpoints.get().is_none_or(|named| named.0.len() < 2) {
            let hint = "list its servers under `endpoints`, or remove it";
            findings.warn(spot, "only one endpoint is on this node", hint);
            continue;
        }
        if matches!(word, SharingWord::Exclusive) {
            continue;
        }
        if card_mib == 0 {
            let hint = "say how much memory the card has: `gpu: {vram: 24GiB}`";
            findings.problem(spot, "`fits` needs the card's memory", hint);
        }
        if endpoints(node).all(|(_, endpoint)| endpoint.vram.is_missing()) {
            let hint = "say at each endpoint how much its service takes: `vram: 10GiB`";
            findings.problem(spot, "`fits` needs to know who takes how much", hint);
        }
    }
}

/// What endpoints claim of their card.
fn claims(node: &Node, card_mib: u64, shares: bool, findings: &Findings) {
    for (spot, endpoint) in endpoints(node) {
        let Some(At { spot, value: vram }) = endpoint.vram.at(spot) else {
            continue;
        };
        let mib = vram.0 / (1 << 20);
        if mib == 0 {
            findings.problem(spot, "must be at least 1MiB", "such as `10GiB`");
        } else if card_mib > 0 && mib > card_mib {
            let what = format!("more than the card has, {card_mib} MiB");
            findings.problem(spot, what, "it is what this service alone takes of it");
        } else if !shares {
            let hint = "say `sharing: exclusive` or `sharing: fits` at the node, or remove it";
            findings.warn(
                spot,
                "`vram` counts only where the node says `sharing`",
                hint,
            );
        }
    }
}

/// The endpoints of a node that could be read, with their places.
fn endpoints(node: &Node) -> impl Iterator<Item = (Spot, &Endpoint)> {
    let listed = node.endpoints.get().into_iter().flat_map(|named| &named.0);
    listed.filter_map(|(name, endpoint)| Some((endpoint.spot(name.spot), &endpoint.get()?.0)))
}

/// How long a service keeps a card that it shares.
pub(crate) fn hold(typed: &Field<GpuHold>, outer: Spot, findings: &Findings) -> HoldPlan {
    let none = GpuHold::default();
    let outer = typed.spot(outer);
    let hold = typed.get().unwrap_or(&none);
    let default = HoldPlan::default();
    let min = value::span(&hold.min, default.min);
    let mut max = value::positive(&hold.max, default.max.max(min), outer, findings);
    if max < min {
        let hint = format!(
            "it is {}; `min` is {}",
            humantime::format_duration(max),
            humantime::format_duration(min)
        );
        findings.problem(hold.max.spot(outer), "shorter than `min`", hint);
        max = min;
    }
    HoldPlan { min, max }
}
