use crate::{Content, Need, NodeError, Pieces};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Where a job stands.
///
/// `queued → starting → running → succeeded | failed | canceled | expired | dead`; an attempt that may be repeated
/// leads back to `queued`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for a node, or for its next attempt.
    Queued,
    /// A node was chosen; nothing was heard of the work yet.
    Starting,
    /// A node works on it.
    Running,
    /// Its result is there.
    Succeeded,
    /// The backend said no for good; what it said is the result.
    Failed,
    /// Somebody took it back.
    Canceled,
    /// It did not start by when it was to.
    Expired,
    /// Its attempts are used up, or nobody can say what became of it.
    Dead,
}

/// One try at a job on the leased endpoint.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The job's id.
    pub job: Arc<str>,
    /// Counts the job's attempts from 1. Only the latest may report.
    pub number: u32,
    /// What the job needs.
    pub need: Need,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The request as it was stored: its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers, less what was meant for the gateway.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Content,
    /// What [`Report::handle`] was given before the gateway went down: the backend works on it, take it up again.
    pub handle: Option<Arc<str>>,
    /// Where the backend can say that this attempt is done; `None` when the file does not say how nodes reach the gateway.
    pub callback: Option<Uri>,
}

/// What an attempt came to.
pub struct Done {
    /// Good or bad.
    pub verdict: Verdict,
    /// The result, kept and replayed byte for byte. Its body is read to its end before the attempt is over.
    pub response: Response<Pieces>,
}

/// Whether a result is a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As its status says: below 400 good, one that the service's `retry` names leads to another attempt, any other bad.
    ByStatus,
    /// Good, whatever its status.
    Succeeded,
    /// The backend gave up: bad, whatever its status, and no other attempt follows.
    Failed,
    /// It was taken back at its backend, and this is what is left of it.
    Canceled,
}

/// Why an attempt came to nothing. Another may follow, but for [`RunError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The exchange with the node failed before the backend could have taken the work, or repeating it does no harm.
    #[error("{0}")]
    Node(#[from] NodeError),
    /// The node is well and works on something else. It does not count as an attempt.
    #[error("the node is busy with something else")]
    Busy,
    /// The backend no longer knows of the work.
    #[error("the node lost it: {0}")]
    Lost(String),
    /// The card's memory is too small for it.
    #[error("out of GPU memory: {0}")]
    OutOfMemory(String),
    /// It was handed over and nobody can say whether it was taken: the service's `jobs.on_unknown` decides.
    #[error("nobody can say whether the node took it: {0}")]
    Unknown(String),
    /// The attempt is not the job's latest any more, or the gateway goes down: it ends without a word.
    #[error("the attempt was superseded")]
    Superseded,
    /// The kind cannot run such a request; no node would help.
    #[error("{0}")]
    Impossible(String),
}

/// Why an attempt is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody took the job back.
    Cancel,
    /// It took longer than it may.
    Timeout,
}

/// What [`Service::find`](crate::Service::find) found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The backend has it, under this handle.
    Handle(Arc<str>),
    /// The backend does not have it: it can be submitted.
    Nothing,
    /// This backend cannot be asked.
    CannotTell,
}

/// The attempt was superseded, or what it said could not be kept: it has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the attempt was superseded")]
pub struct Superseded;

/// How an attempt tells the gateway what goes on.
#[async_trait]
pub trait Report: Send + Sync {
    /// The backend is about to be asked to take the work. On disk when this returns.
    ///
    /// After it, a gateway that comes back asks `find` before it submits again.
    async fn submitting(&self) -> Result<(), Superseded>;

    /// The backend took the work and calls it so. On disk when this returns; a gateway that comes back
    /// takes the attempt up by it.
    async fn handle(&self, handle: &str) -> Result<(), Superseded>;

    /// How far it is.
    ///
    /// Units: `fraction` 0.0..=1.0.
    fn progress(&self, fraction: Option<f64>, text: Option<&str>);

    /// A line of the backend's log.
    fn log(&self, line: &str);

    /// The node is done with it, though what came of it is still being fetched: from here on its slots are free for others, and
    /// what it took until here is learned from, unless [`Report::untypical`] was said. Of what came to nothing, say that first.
    fn freed(&self) {}

    /// How long this attempt takes says nothing of others of its class: its node had done it before, say. Nothing is learned
    /// of it. To be said before [`Report::freed`].
    fn untypical(&self) {}

    /// Waits until the backend calls the attempt's `callback` address, and gives what it sent; again for each call.
    async fn called_back(&self) -> Request<Bytes>;
}

// === impl JobState ===

impl JobState {
    /// Every state.
    pub const ALL: [JobState; 8] = [
        JobState::Queued,
        JobState::Starting,
        JobState::Running,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Canceled,
        JobState::Expired,
        JobState::Dead,
    ];

    /// The word for it: in answers, in the store and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Canceled => "canceled",
            JobState::Expired => "expired",
            JobState::Dead => "dead",
        }
    }

    /// The state of this word.
    pub fn from_word(word: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing follows by itself.
    pub fn is_over(self) -> bool {
        !matches!(
            self,
            JobState::Queued | JobState::Starting | JobState::Running
        )
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

// === impl Done ===

impl Done {
    /// A result that is judged by its status.
    pub fn by_status(response: Response<Pieces>) -> Self {
        Done {
            verdict: Verdict::ByStatus,
            response,
        }
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.verdict, self.response.status())
    }
}

impl From<Superseded> for RunError {
    fn from(_: Superseded) -> Self {
        RunError::Superseded
    }
}
