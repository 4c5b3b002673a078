//! tabane makes many GPU servers look like one. ARCHITECTURE.md is the map.

pub mod config;
