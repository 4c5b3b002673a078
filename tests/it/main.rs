//! Scenes: the real gateway as a library, with simulated nodes behind it.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

mod arrays;
mod bodies;
mod comfyui;
mod crash;
mod deploy;
mod docs;
mod feasible;
mod floors;
mod forward;
mod freeing;
mod full;
mod health;
mod hops;
mod hostile;
mod job_commands;
mod job_metrics;
mod jobs;
mod keeper;
mod lacking;
mod letters;
mod llm;
mod long_work;
mod odd_bytes;
mod opening;
mod operator;
mod process;
mod relayer;
mod relaying;
mod reload;
mod routing;
mod scene;
mod servers;
mod sharing;
mod simulate;
mod slots;
mod sockets;
mod speaker;
mod speaking;
mod taking_in;
mod telling;
mod watching;
