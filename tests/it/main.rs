//! Scenes: the real gateway as a library, with simulated nodes behind it.

mod forward;
mod scene;
