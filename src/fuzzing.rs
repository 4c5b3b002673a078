//! Thin entrances for `fuzz/`, which is a crate of its own and sees only what is public.
//!
//! Compiled with `--cfg fuzzing` only. What each holds the gateway to is said where it leads.

pub use crate::config::oracle::text as config;
pub use crate::dispatch::oracle::route;
pub use crate::edge::oracle::chunks::chunks;
pub use crate::edge::oracle::frames::frames;
pub use crate::edge::oracle::head::head;
