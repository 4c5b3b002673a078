//! The simulated ComfyUI: what it says is held against recordings of a real one; what it keeps, against the rules that clients
//! rely on; and each knob does what it says.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

mod client;
mod files;
mod misbehaviour;
mod prompts;
mod queue;
mod real;
mod recording;
mod replay;
mod sockets;
mod versions;
