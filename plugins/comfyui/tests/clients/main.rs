//! What clients hear, on sockets that are channels.
#![allow(clippy::unwrap_used)]

mod cost;
mod greeting;
mod peer;
mod reconnects;
mod seeded;
mod slow;
mod told;
