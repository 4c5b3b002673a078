//! What was asked for: file → load → check → plan → diff.

pub mod plan;
