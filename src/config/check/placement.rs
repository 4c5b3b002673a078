//! Where work goes: patience, money, how many nodes are wanted, and what an endpoint takes.

use super::value;
use crate::config::file::{Endpoint, Service};
use crate::config::file_placement::{Price, Scale};
use crate::config::findings::{Findings, Spot};
use crate::config::plan::{EndpointPlan, PricePlan, ScalePlan};
use crate::config::typed::{At, Field};
use crate::config::units::LONGEST;
use std::sync::Arc;
use std::time::Duration;

/// How long a request may be made to wait for a better node where the file does not say.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long one may be made to wait for a better node.
pub(crate) fn patience(service: &Service) -> Duration {
    match service.patience.get() {
        None => PATIENCE,
        Some(patience) => patience.0.as_ref().map_or(LONGEST, |span| span.0),
    }
}

/// What a service may spend.
pub(crate) fn price(typed: &Field<Price>, outer: Spot, findings: &Findings) -> PricePlan {
    let none = Price::default();
    let outer = typed.spot(outer);
    let price = typed.get().unwrap_or(&none);
    PricePlan {
        seconds_per_usd: at_least_0(&price.seconds_per_usd, outer, findings),
        spill_after: value::span(&price.spill_after, Duration::ZERO),
        usd_per_hour: above_0(&price.usd_per_hour, NO_MONEY, outer, findings),
        usd_per_job: above_0(&price.usd_per_job, NO_MONEY, outer, findings),
    }
}

/// Warns of a `price` that nothing in the pool has.
pub(crate) fn warn_of_no_price(
    typed: &Field<Price>,
    members: impl Iterator<Item = f64>,
    outer: Spot,
    findings: &Findings,
) {
    let dearest = members.reduce(f64::max);
    if !typed.is_missing() && dearest == Some(0.0) {
        findings.warn(
            typed.spot(outer),
            "no node of its pool has a price",
            "say `price_per_hour: 0.69` at those that are paid for, or remove it",
        );
    }
}

/// What an autoscaler is told.
pub(crate) fn scale(typed: &Field<Scale>, outer: Spot, findings: &Findings) -> ScalePlan {
    const MOST: u64 = 100_000;
    let none = Scale::default();
    let usual = ScalePlan::default();
    let outer = typed.spot(outer);
    let scale = typed.get().unwrap_or(&none);
    let count = |field: &Field<u64>, range, usual: u32| {
        value::number(field, range, usual.into(), "", outer, findings) as u32
    };
    let min = count(&scale.min, 0..=MOST, usual.min);
    let max = count(&scale.max, 1..=MOST, usual.max.max(min));
    if max < min {
        let hint = format!("`min` is {min}");
        findings.problem(scale.max.spot(outer), "smaller than `min`", hint);
    }
    ScalePlan {
        drain_in: value::positive(&scale.drain_in, usual.drain_in, outer, findings),
        min,
        max: max.max(min),
    }
}

/// What an endpoint takes: its models, and how large a request may be.
pub(crate) fn takes(typed: &Endpoint, plan: &mut EndpointPlan, outer: Spot, findings: &Findings) {
    plan.models = models(typed, outer, findings);
    let hint = "leave it out where it takes any";
    plan.max_size = above_0(&typed.max_size, hint, outer, findings);
}

fn models(typed: &Endpoint, outer: Spot, findings: &Findings) -> Option<Arc<[Arc<str>]>> {
    let At { spot, value } = typed.models.at(outer)?;
    if value.0.is_empty() {
        let hint = "leave it out to go by what its probe says";
        findings.warn(spot, "it has none of all models", hint);
    }
    let mut models: Vec<Arc<str>> = Vec::with_capacity(value.0.len());
    for model in &value.0 {
        let Some(At { spot, value }) = model.at(spot) else {
            continue;
        };
        if value.trim().is_empty() {
            findings.problem(spot, "an empty name", "write it as clients ask for it");
        } else if !models.iter().any(|known| **known == **value) {
            models.push(value.as_str().into());
        }
    }
    Some(models.into())
}

const NO_MONEY: &str = "to use no node with a price, take them out of its pool";

/// A number that is 0 or more; 0 when nothing was typed.
fn at_least_0(field: &Field<f64>, outer: Spot, findings: &Findings) -> f64 {
    let Some(At { spot, value }) = field.at(outer) else {
        return 0.0;
    };
    if value.is_finite() && *value >= 0.0 {
        return *value;
    }
    findings.problem(spot, "must be 0 or more", "0: speed alone counts");
    0.0
}

/// A number that is more than 0; `None` when nothing was typed.
fn above_0(field: &Field<f64>, hint: &str, outer: Spot, findings: &Findings) -> Option<f64> {
    let At { spot, value } = field.at(outer)?;
    if value.is_finite() && *value > 0.0 {
        return Some(*value);
    }
    findings.problem(spot, "must be more than 0", hint);
    None
}
