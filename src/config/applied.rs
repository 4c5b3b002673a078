use super::{Diff, Problem};
use serde::Serialize;

/// What a reload changed.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// The generation that serves now.
    pub generation: u64,
    /// Its files' hash.
    pub hash: String,
    /// What is different from before; empty when nothing is.
    pub diff: Diff,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
}
