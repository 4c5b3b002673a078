//! The kind `llm`: many engines for language models behind the address of one.
//!
//! Most of it has no IO and no clock; values go in, values come out. A request:
//! - [`route`]: what it asks for, by its head. [`body`], [`form`]: what it says of itself; [`prompt`]: the text that is read before
//!   the first token.
//! - [`prefix`]: which endpoint has computed how much of that text; [`rendezvous`]: where a session stays otherwise.
//! - [`learn`]: what it would cost where.
//!
//! An answer:
//! - [`stream`]: what there is to say of one that goes by. [`errors`]: what goes wrong, in the client's words.
//!
//! Engines:
//! - [`engines`]: which one it is, and how busy; [`metrics`]: what it counts.
//! - [`models`]: what a name stands for; [`lists`]: many lists as one.
//!
//! What puts it together, with the clock and the nodes: `kind` (which part answers what), `asks` (the ways to serve a request), `call`
//! (one under way), `farm` (the endpoints as they stand), `weigh`, `observe`, `failing`, `limits`, `probe`, `answers`, `release`,
//! `run` (jobs), `ids` (who keeps what), `keep` (what outlives a restart).
//!
//! [`config`]: the kind's block in the file. Below all of them: [`scan`] (JSON that is walked over), [`lines`], [`mod@line`],
//! [`usage`].

pub mod body;
pub mod config;
pub mod engines;
pub mod errors;
pub mod form;
pub mod learn;
pub mod line;
pub mod lines;
pub mod lists;
pub mod metrics;
pub mod models;
pub mod prefix;
pub mod prompt;
pub mod rendezvous;
pub mod route;
pub mod scan;
pub mod stream;
pub mod usage;

mod answers;
mod asks;
mod call;
mod clock;
mod event;
mod failing;
mod farm;
mod ids;
mod keep;
mod kind;
mod limits;
mod observe;
mod probe;
mod release;
mod run;
mod weigh;

pub use kind::Llm;

#[cfg(test)]
mod cost;
#[cfg(test)]
mod testing;
