//! What a person may type of where work goes: money, and how many nodes there should be.

use super::typed::Field;
use super::units::Span;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a service may spend on nodes with a `price_per_hour`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Price {
    /// How many seconds of waiting one would accept to save one USD; 0: speed alone counts.
    pub(crate) seconds_per_usd: Field<f64>,
    /// Nodes with a price are used only where one would wait longer than this for those without; 0.
    pub(crate) spill_after: Field<Span>,
    /// How much in any hour; any amount. Past it, nodes with a price get no more of its work.
    pub(crate) usd_per_hour: Field<f64>,
    /// How much a single request or job may be expected to cost; any amount.
    pub(crate) usd_per_job: Field<f64>,
}

/// What an autoscaler is told of a service's pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scale {
    /// In which time that which waits should be worked off; 60s.
    pub(crate) drain_in: Field<Span>,
    /// How many nodes are wanted when nothing waits; 0.
    pub(crate) min: Field<u64>,
    /// The most that are ever wanted, up to 100000; 100.
    pub(crate) max: Field<u64>,
}
