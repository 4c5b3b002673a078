//! tabane makes many GPU servers look like one. ARCHITECTURE.md is the map of this house.

pub mod access;
pub mod admin;
pub mod app;
#[cfg(test)]
mod cases;
mod cli;
pub mod config;
pub mod dispatch;
pub mod edge;
pub mod fleet;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod jobs;
pub mod reload;
pub mod schedule;
pub mod simulate;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod telemetry;
pub mod wire;

pub use app::{App, Gateway, Source, app};
