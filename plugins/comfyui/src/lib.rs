//! The kind `comfyui`: many ComfyUI servers behind the address of one.
//!
//! So far what it stands on: reading what clients submit, and knowing it again. No IO, no clock.
//!
//! - [`submission`]: the body of `POST /prompt`, its secrets set apart.
//! - [`workflow`]: the graph in it, and its shape; [`signature`]: which parts of it a node has computed before.

pub mod json;
pub mod python;
pub mod signature;
pub mod submission;
pub mod workflow;
