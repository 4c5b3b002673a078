//! The files of a service are held against a simulated ComfyUI, which is held against real ones: the same is asked of both,
//! and the answers are compared, status, headers and bodies.
#![allow(clippy::unwrap_used)]

mod hostile;
mod masks;
mod old;
mod place;
mod twins;
mod uploads;
mod users;
mod view;
