//! Where a request can go, and what it would cost there. Asked under the gateway's one lock, for each endpoint.

use crate::asks;
use crate::call::Call;
use crate::clock::now;
use crate::kind::Llm;
use crate::learn::Asks;
use crate::rendezvous;
use tabane_api::{Candidate, EndpointId, Need, Terms, Vitals};

/// What decides between endpoints of which nobody knows how fast they are, seconds: less than anything that is known.
const TIE_S: f64 = 1e-3;

/// What it may cost at most to find out whether an endpoint is still as fast as it was, seconds: that is found out with short
/// requests, and no long prompt waits for it.
const EXPLORE_MOST_S: f64 = 0.3;

/// What an endpoint lacks that neither the file nor its list of models tells.
pub(crate) fn lacks(kind: &Llm, need: &Need, at: EndpointId) -> Option<String> {
    let call = need.own.get::<Call>();
    let node = kind.desk.farm.get(at);
    if let Some(meant) = call.and_then(|call| call.at.as_ref()) {
        // Of one that is not known it is not known either: a key goes nowhere else.
        let is_it = node.is_some_and(|node| *node.name == **meant);
        return (!is_it).then(|| format!("is not `{meant}`, which this is for"));
    }
    let node = node?;
    let sends_there = || asks::sends(&kind.setup.config, need.model.as_deref(), &node.name);
    // Of a job no more is known than its model.
    let is_job = call.is_none();
    if kind.setup.headers.contains_key(&*node.name) && !(is_job && sends_there()) {
        return Some("takes only what an alias sends there, with its headers".into());
    }
    let is_unknown = call.is_some_and(|call| call.is_unknown);
    (is_unknown && node.takes_any_name())
        .then(|| "has one model, and would take any name for it".into())
}

/// What it would cost there.
pub(crate) fn terms(
    kind: &Llm,
    need: &Need,
    at: &Candidate<'_>,
    vitals: &Vitals,
    learned: Terms,
) -> Terms {
    let call = need.own.get::<Call>();
    // Pictures, sounds and what else is not made token by token: what the gateway measured of it.
    if need.slots == 0 || call.is_some_and(|call| !call.request.route.generates()) {
        return learned;
    }
    let model: &str = match call {
        Some(call) => &call.model,
        None => need.loads(),
    };
    let known = kind.desk.learned.read();
    let node = kind.desk.farm.known(at.id, at.name);
    let (mut load, hit) = node.load(call, at.used, known.bytes_per_token(model), now());
    load.slots = at.slots;
    load.loaded = match &vitals.loaded {
        Some(loaded) => loaded.iter().any(|there| there == model) || need.model.is_none(),
        None => true,
    };
    let asks = match call {
        Some(call) => Asks {
            prompt: call.tokens,
            hit,
            out: call.out,
        },
        // A job, of which its size is all that is known.
        None => Asks {
            prompt: need.size / 2.0,
            hit: 0.0,
            out: need.size / 2.0,
        },
    };
    let cost = known.estimate(at.name, model, asks, load);
    drop(known);
    let run_s = cost.prefill_s + cost.decode_s;
    let tie_s = match call {
        Some(call) if !cost.measured => {
            TIE_S * rendezvous::distance(call.request.session, at.hash, f64::from(at.weight))
        }
        _ => 0.0,
    };
    let load_s = match &vitals.loaded {
        Some(_) => cost.load_s,
        None => learned.load_s,
    };
    // What the gateway says in proportion to the work is in proportion to it still; so is its hope in one that was long not
    // measured, without which who is slow and alone would be so for ever.
    let scale = (run_s + load_s) / (learned.run_s + learned.load_s).max(1e-9);
    Terms {
        wait_s: cost.wait_s + tie_s,
        switch_s: learned.switch_s,
        load_s,
        run_s,
        price_s: learned.price_s * scale,
        explore_s: (learned.explore_s * scale).max(-EXPLORE_MOST_S),
    }
}

#[cfg(test)]
mod tests;
