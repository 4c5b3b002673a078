//! What was asked for: file → load → check → plan → diff.
//!
//! `file.rs` is exactly what a person may type, `check/` gives it meaning, `plan.rs` is what the
//! runtime trusts. Every problem of all files is told at once, each with file, line and column.

mod applied;
mod check;
mod decode;
mod diff;
mod expand;
mod fault;
mod file;
mod file_jobs;
mod file_placement;
mod findings;
pub mod host;
mod load;
mod merge;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
pub mod plan;
mod problem;
mod schema;
mod short;
mod tree;
mod typed;
mod units;

#[cfg(test)]
mod tests;

pub use applied::Applied;
pub use diff::{Change, Diff, diff};
pub use load::{Loaded, load, load_text};
pub use problem::Problem;
pub use schema::schema;

pub(crate) use problem::suggest;
