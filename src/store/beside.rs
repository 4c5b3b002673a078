//! What is kept beside jobs, and how the store fares.

use super::Moment;

/// A learned time, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedTime {
    /// The service and class, and the endpoint it was learned on.
    pub key: (String, String, String),
    /// What was learned, in the estimator's own form.
    pub value: String,
}

/// What answers used on a day.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct UsageRow {
    /// The day in UTC: `2026-11-27`.
    pub day: String,
    /// The service.
    pub service: String,
    /// Who asked.
    pub tenant: String,
    /// The model.
    pub model: String,
    /// The node.
    pub node: String,
    /// How many answers.
    pub requests: u64,
    /// Tokens that were read.
    pub read: u64,
    /// Those of them that had been computed before, where engines say so.
    pub cached: u64,
    /// Tokens that were made.
    pub made: u64,
}

/// How the store fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreGauge {
    /// Bytes of the database that are in use: what `limits.database_bytes` bounds.
    pub database_bytes: u64,
    /// Letters that wait to be sent.
    pub letters: u64,
    /// When the oldest of them was written.
    pub oldest_letter: Option<Moment>,
}
