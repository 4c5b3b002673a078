//! The kind `comfyui`: many ComfyUI servers behind the address of one.
//!
//! So far what it stands on: reading what clients submit and what nodes say of themselves, and holding one against the
//! other. No IO, no clock.
//!
//! - [`submission`]: the body of `POST /prompt`, its secrets set apart.
//! - [`workflow`]: the graph in it, and its shape; [`signature`]: which parts of it a node has computed before.
//! - [`object_info`]: what nodes can do, and all of them together; [`names`]: what a node calls a file;
//!   [`translate`]: a prompt in those words.
//! - [`needs`]: what a workflow needs of a node, and what a node lacks of it.
//! - [`validate`]: what is wrong with a prompt, in ComfyUI's own words.

pub mod json;
pub mod names;
pub mod needs;
pub mod object_info;
pub mod python;
pub mod signature;
pub mod submission;
pub mod translate;
pub mod validate;
pub mod workflow;
