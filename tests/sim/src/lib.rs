//! Simulated GPU nodes: HTTP servers with knobs, for tests, benches and `make run`.
//!
//! A node does "work" that takes time and slots, and can be made to fail in the ways that real ones do: hang,
//! freeze, drop connections, answer only 503, trickle, work on after its client left. Knobs are set at start
//! and at run time, from a test ([`Node::set`]) or over HTTP (`PUT /sim`). Times are milliseconds.
//!
//! It takes jobs, too (`POST /jobs`, see `batch.rs`), can be asked for them and calls back. They outlive whoever handed
//! them over, and go with the node, or when it is told to forget them ([`Node::forget_jobs`]).

mod answer;
mod batch;
pub mod comfy;
mod gpu;
mod knobs;
pub mod llm;
mod node;
mod seen;

pub use answer::pattern;
pub use gpu::{Gpu, GpuCounts};
pub use knobs::{Drop, Knobs, Overload, Submission, Unload};
pub use node::Node;
pub use seen::Seen;
