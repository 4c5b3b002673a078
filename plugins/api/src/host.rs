use crate::{Caller, Content, EndpointId, JobState, Need, NodeClient, NodeFacts, Refusal, Vitals};
use async_trait::async_trait;
use bytes::Bytes;
use http::Uri;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An endpoint as the outside may see it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Which endpoint.
    pub id: EndpointId,
    /// `node/endpoint`.
    pub name: Arc<str>,
    /// The node it stands on.
    pub node: Arc<NodeFacts>,
    /// Whether it gets requests: well, not drained, not removed.
    pub usable: bool,
    /// How many requests it works on at once.
    pub slots: u32,
    /// How many of them are taken.
    pub used: u32,
    /// What its last good probe said.
    pub vitals: Arc<Vitals>,
}

/// Work that a kind takes in for later, for somebody.
#[derive(Clone, Debug)]
pub struct Work {
    /// A name for it that people know it by, besides the job's id: one that [`Work::is_name`] lets be, and of which the tenant
    /// has no other.
    pub name: Option<Arc<str>>,
    /// Whose it is.
    pub caller: Caller,
    /// What it needs. Its tenant is the caller's; its urgency is as far from the usual as it says, and the file says what is
    /// usual.
    pub need: Need,
    /// What `run` is given: its path and query.
    pub uri: Uri,
    /// What `run` is given: its body.
    pub body: Bytes,
    /// How long it is kept after its end; `None`: as the file says.
    pub keep: Option<Duration>,
}

impl Work {
    /// Whether work can be known by this name: 1 to 128 letters, digits, `.`, `_`, `~` or `-`; neither a step of a path, nor in
    /// the form of the gateway's own ids (ULIDs): its address would lead elsewhere.
    pub fn is_name(name: &str) -> bool {
        let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        let of_ulid = |b: u8| b.is_ascii_alphanumeric() && !b"ILOUilou".contains(&b);
        (1..=128).contains(&name.len())
            && name.bytes().all(is_safe)
            && !name.bytes().all(|b| b == b'.')
            && !(name.len() == 26 && name.bytes().all(of_ulid))
    }
}

/// A job of the service's, as it stands.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Its id.
    pub id: Arc<str>,
    /// The name it was taken in by.
    pub name: Option<Arc<str>>,
    /// The order of acceptance over all jobs.
    pub seq: i64,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Where it stands.
    pub state: JobState,
    /// Somebody takes it back, and its attempt is not ended yet.
    pub canceling: bool,
    /// What it needs.
    pub need: Need,
    /// The number of its latest attempt; 0 before the first.
    pub attempt: u32,
    /// When it was accepted, milliseconds since 1970.
    pub accepted_ms: i64,
    /// When its latest attempt began.
    pub started_ms: Option<i64>,
    /// When it was over.
    pub ended_ms: Option<i64>,
    /// Whether it has a result.
    pub has_result: bool,
    /// Why it failed, or waits for another attempt.
    pub error: Option<String>,
}

/// What a kind may use of the gateway, for the service it answers for. Good for as long as the service is in the file.
#[async_trait]
pub trait Host: Send + Sync {
    /// The service's name.
    fn service(&self) -> &str;

    /// The endpoints of the service's pool, in the file's order.
    fn endpoints(&self) -> Vec<EndpointView>;

    /// A client for one of them; `None` when it has left.
    fn client(&self, endpoint: EndpointId) -> Option<Arc<dyn NodeClient>>;

    /// What the kind knows of endpoints, or of what waits, has changed: who waits is looked at again.
    fn changed(&self);

    /// Where the service may have a folder of its own, which is its kind's to make; `None` where the file names no `data_dir`.
    fn folder(&self) -> Option<PathBuf>;

    /// Takes work in. It is on disk when this returns, and waits for a node.
    ///
    /// Errors: as many wait as may, it cannot be kept, the gateway goes down, or the name is another's, or none.
    async fn submit(&self, work: Work) -> Result<JobView, Refusal>;

    /// Takes a job back: what waits is over at once, what is at work is stopped. How it stands then; `None`: there is no such
    /// job of this service.
    async fn cancel(&self, job: &str) -> Result<Option<JobView>, Refusal>;

    /// Forgets a job that is over, with all that is kept of it.
    async fn forget(&self, job: &str) -> Result<(), Refusal>;

    /// Jobs of this service that are kept, the newest first, with a `seq` below `before`, at most `limit`.
    async fn jobs(&self, before: Option<i64>, limit: usize) -> Result<Vec<JobView>, Refusal>;

    /// What a job was taken in with.
    async fn request(&self, job: &str) -> Result<Option<Content>, Refusal>;

    /// What came of a job.
    async fn result(&self, job: &str) -> Result<Option<Content>, Refusal>;
}
