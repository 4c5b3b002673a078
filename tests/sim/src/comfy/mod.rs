//! A simulated ComfyUI: the server's protocol to the byte, without torch, and with knobs.
//!
//! It takes prompts, holds them against its classes, executes them one by one with what it made before, tells of it on its
//! sockets in the order of the real server, and writes real pictures. What it answers follows recordings of version 0.3.64, and
//! for what they do not reach, the published behaviour of that version and of those of 2026 ([`Version`]).
//!
//! Where a prompt has several outputs, the real server begins with any of them, another one from process to process (it keeps
//! them in a Python set). Here the prompt's order decides.
//!
//! What it does not do: subgraphs that nodes make while they are executed, lists as values, nodes that work beside others, the
//! assets API, the front end's files, and to let a client that reads slowly hold up all others.

mod cache;
mod control;
mod disk;
mod hub;
mod info;
mod jobs;
pub(crate) mod json;
mod knobs;
mod library;
mod mosaic;
mod multipart;
mod node;
mod order;
mod origin;
mod picture;
mod prompt;
mod queue;
mod reply;
mod routes;
mod run;
mod seen;
mod server;
mod socket;
mod spec;
mod upload;
mod users;
mod validate;
mod value;
mod view;
mod work;

pub use knobs::ComfyKnobs;
pub use node::ComfyNode;
pub use seen::Saw;
pub use spec::{Model, Spec, Version};
