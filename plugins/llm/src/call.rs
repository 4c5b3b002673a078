//! A request under way: what was read of it, and how it stands. Its needs carry it, and it is over when the last of them is dropped.

use crate::farm::Node;
use crate::limits::Admitted;
use crate::prefix::Blocks;
use crate::route::Route;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// What a request asks for, whichever way it is served.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) route: Route,
    /// Its answer is to stream.
    pub(crate) streams: bool,
    /// The model, as its client names it; empty where it names none.
    pub(crate) named: Arc<str>,
    /// Its prompt's length, in bytes of text.
    pub(crate) prompt_bytes: usize,
    /// Whether that is text alone: of a picture nobody knows how many tokens it is.
    pub(crate) is_text: bool,
    /// What belongs together: a session, or what begins alike.
    pub(crate) session: u64,
    /// What comes of it is kept by the endpoint that made it, and asked for by an id.
    pub(crate) is_kept: bool,
    /// What it takes of its tenant's limits.
    pub(crate) admitted: Mutex<Option<Admitted>>,
}

/// One way to serve it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Arc<Request>,
    /// The model, as engines know it.
    pub(crate) model: Arc<str>,
    /// The only endpoint that may serve it.
    pub(crate) at: Option<Arc<str>>,
    /// Nobody is known to have its model: endpoints that have one alone, and take any name for it, are not meant.
    pub(crate) is_unknown: bool,
    /// Its prompt, as far as it can have been computed before.
    pub(crate) blocks: Blocks,
    /// How many tokens its prompt is expected to have.
    pub(crate) tokens: f64,
    /// How many are expected to be made.
    pub(crate) out: f64,
    /// Where it is at work, or was last.
    pub(crate) placed: Mutex<Option<Placed>>,
}

/// A request on an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) node: Arc<Node>,
    pub(crate) since: Instant,
    /// Tokens of others' prompts that were to be read there before it.
    pub(crate) ahead: u64,
    /// Tokens of its own that are not read yet; 0 from its first token on.
    pub(crate) reading: u64,
    /// Tokens of it that were computed before, as far as it was known.
    pub(crate) hit: u64,
    /// Others at work there.
    pub(crate) running: u32,
    /// It may have had to wait in the engine.
    pub(crate) queued: bool,
    /// Its model was not in memory.
    pub(crate) cold: bool,
    /// Its tokens come.
    pub(crate) begun: bool,
}
