//! The gateway's own decisions on virtual time: what would waiting, throughput and cost be?
//!
//! Nothing here decides: `dispatch::Rooms` does, the same code as in the gateway, with times that it learns from a
//! cold start. What is made up is around it: machines that take their true time ([`Table`]), loads models and loses
//! them, fails and comes back ([`Farm`]), and those who ask ([`Trace`]). What came of it is counted ([`Report`]),
//! beside what no scheduler could exceed ([`bound`]).

mod bound;
mod chance;
mod farm;
mod known;
mod machine;
mod outcome;
mod recorded;
mod report;
mod setup;
mod simplex;
mod table;
mod trace;

pub use bound::{Bound, Supply, bound};
pub use farm::Farm;
pub use known::Known;
pub use machine::Memory;
pub use outcome::{Change, Options, Outcome, Run, What};
pub use recorded::{Recorded, Request};
pub use report::{GroupReport, NodeReport, Report, Stats};
pub use setup::{Class, Cost, Setup, policy, same_card};
pub use table::Table;
pub use trace::{Arrival, Shape, Trace};

#[cfg(test)]
mod tests;
