//! The simulated engines for language models: what they say is held against recordings of real ones; how they work, against
//! what a gateway learns from; and each knob does what it says.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

mod client;
mod engine;
mod faults;
mod metrics;
mod misbehaviour;
mod models;
mod ollama;
mod real;
mod replay;
mod streams;
