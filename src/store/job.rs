//! Jobs as they are kept, and what a store of jobs has to do. SQLite is one; PostgreSQL can be another.
//!
//! Rules of every store.
//! - A call that changes something returns when the change is on disk, or was not made at all.
//! - Each change of a job raises its `version`, writes one [`JobEvent`] of that number, and writes the letters that
//!   [`Letters`] has for it into the outbox: all in one transaction. What no event tells of (a submission, a handle of a job
//!   that runs already, progress without log lines) raises no version and writes no letters.
//! - An attempt may change a job only while it is its latest ([`JobRecord::attempt`]) and the job is starting or running: a
//!   change that comes later is refused ([`Changed::Stale`]) and leaves nothing behind.
//! - A job that is over stays as it is until it is retried or deleted.
//! - A blob that a call brings is the store's from then on. It is deleted when the call leaves no row that names it, and
//!   else with the row: after the transaction, so that a crash between the two leaves a blob that nobody names
//!   ([`JobStore::orphans`]) and never a row whose blob is gone.
//! - Jobs of an array are kept together: their time to be kept begins when the last of them is over, and ends for none of
//!   them while one waits again. An array is deleted with the last of its jobs.
//! - A letter that still waits when what it is about is swept stays until it is delivered or given up.

use super::StoreError;
use super::beside::{LearnedTime, StoreGauge, UsageRow};
use super::blob::BlobRef;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use std::sync::Arc;
use tabane_api::{JobState, Need};

/// A moment on the wall clock: milliseconds since 1970. What is kept over a restart cannot use another clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

/// A job's name: 26 characters of a ULID, of which 16 nobody can guess.
pub type JobId = Arc<str>;

/// A body as it is kept: in the job's row when it is small, else in the blob store.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// At most [`IN_ROW`] bytes.
    Row(Bytes),
    /// More.
    Blob(BlobRef),
}

/// Bodies up to so many bytes are kept in their rows: one write instead of three (SQLite's own measurements put the
/// break-even near 100 kB).
pub const IN_ROW: usize = 64 << 10;

/// A job that was asked for and is not accepted yet.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id, made by the gateway.
    pub id: JobId,
    /// The id that its client chose (`PUT /_tabane/jobs/{client-id}`), unique within the tenant.
    pub client_id: Option<Arc<str>>,
    /// The array it belongs to, and which of it.
    pub parent: Option<(JobId, u32)>,
    /// The service it is for.
    pub service: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What it needs. `need.urgency` and `need.size` count.
    pub need: Need,
    /// The request: its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers, less what was meant for the gateway.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Kept,
    /// When it was accepted.
    pub accepted: Moment,
    /// It expires when it has not started by then.
    pub start_by: Option<Moment>,
    /// How long one attempt may take.
    pub timeout_ms: Option<i64>,
    /// How long its result is kept after its end.
    pub keep_ms: i64,
    /// How long it is kept when it ended dead: longer, so that somebody can look.
    pub keep_dead_ms: i64,
    /// Free words to find it by, `name=value` or `name`.
    pub tags: Vec<String>,
    /// Where its end is told.
    pub webhook: Option<Arc<str>>,
    /// What makes a repeat of the request the same request.
    pub idempotency: Option<Idempotency>,
}

/// What makes a repeat of a request the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key that the client chose, with what it counts within (the service, or `PUT`); the tenant is added by the store.
    pub key: String,
    /// SHA-256 over method, path, query and body: a repeat with another one is not a repeat.
    pub fingerprint: [u8; 32],
}

/// What became of a job that was asked for.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It is on disk.
    New(JobRecord),
    /// It was there already: this is the job as it stands now.
    Again(JobRecord),
    /// The key is that of another request.
    OtherRequest,
}

/// A job as it is kept, without its bodies.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// The order of acceptance over all jobs; the cursor of lists.
    pub seq: i64,
    /// Its id.
    pub id: JobId,
    /// The id that its client chose.
    pub client_id: Option<Arc<str>>,
    /// The array it belongs to, and which of it.
    pub parent: Option<(JobId, u32)>,
    /// The service it is for.
    pub service: Arc<str>,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What it needs.
    pub need: Need,
    /// Where it stands.
    pub state: JobState,
    /// Counts its changes from 1.
    pub version: u64,
    /// The number of its latest attempt; 0 before the first.
    pub attempt: u32,
    /// How many attempts counted as failures since it was queued (by a client or by a retry).
    pub failures: u32,
    /// Somebody takes it back, and the attempt is not ended yet.
    pub canceling: bool,
    /// The request: its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// How long its body is.
    pub body_length: u64,
    /// When it was accepted.
    pub accepted: Moment,
    /// Its latest attempt's start.
    pub started: Option<Moment>,
    /// When it was over.
    pub ended: Option<Moment>,
    /// It expires when it has not started by then.
    pub start_by: Option<Moment>,
    /// How long one attempt may take.
    pub timeout_ms: Option<i64>,
    /// Its next attempt does not start before.
    pub not_before: Option<Moment>,
    /// Until when it is kept; `None` while it is not over, or another job of its array is not.
    pub keep_until: Option<Moment>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// Where its end is told.
    pub webhook: Option<Arc<str>>,
    /// Its result's head, once there is one.
    pub result: Option<ResultHead>,
    /// Why it is failed, dead, expired, or waits for another attempt.
    pub error: Option<String>,
    /// How far it was when last written.
    pub progress: Option<f64>,
    /// The same in words.
    pub progress_text: Option<String>,
    /// Nodes (`node/endpoint`) that failed it since it was queued; the next attempt prefers another.
    pub failed_on: Vec<Arc<str>>,
}

/// The head of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultHead {
    /// The backend's status.
    pub status: StatusCode,
    /// The backend's headers, less what was said from hop to hop.
    pub headers: HeaderMap,
    /// How long the body is.
    pub length: u64,
}

/// What is sent again: a job's request, with its body.
#[derive(Clone, Debug)]
pub struct StoredRequest {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Kept,
}

/// An attempt as it is kept.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// Counts the job's attempts from 1.
    pub number: u32,
    /// `node/endpoint`.
    pub endpoint: Arc<str>,
    /// When it started.
    pub started: Moment,
    /// When it ended.
    pub ended: Option<Moment>,
    /// The word for how (`succeeded`, `failed`, `lost`, `timeout`, `busy`, `canceled`, …).
    pub outcome: Option<String>,
    /// The sentence for it.
    pub error: Option<String>,
    /// Whether the backend was about to be asked to take it.
    pub submitting: bool,
    /// What the backend calls it.
    pub handle: Option<Arc<str>>,
}

/// Something that happened to a job: what `events` replays.
#[derive(Clone, Debug, PartialEq)]
pub struct JobEvent {
    /// The job's version after it.
    pub version: u64,
    /// When.
    pub at: Moment,
    /// `queued`, `started`, `running`, `log`, `retry`, `canceling`, `priority`, `finished`.
    pub kind: String,
    /// More of it, as JSON.
    pub data: String,
}

/// What a change came to.
#[derive(Clone, Debug)]
pub enum Changed {
    /// It is on disk; this is the job after it.
    Now(Box<JobRecord>),
    /// The job is not in the state for it, or the attempt is not its latest: nothing changed.
    Stale,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The word for it, for the attempt's row.
    pub outcome: &'static str,
    /// The sentence for it.
    pub error: Option<String>,
    /// Where the job goes from here.
    pub next: Next,
}

/// Where a job goes when an attempt has ended.
#[derive(Clone, Debug)]
pub enum Next {
    /// It is over: `Succeeded`, `Failed`, `Canceled` or `Dead`, with the result if there is one.
    Over(JobState, Option<(ResultHead, Kept)>),
    /// It waits for its next attempt.
    Again {
        /// Not before.
        not_before: Option<Moment>,
        /// Whether this one counts as a failure.
        counts: bool,
    },
}

/// What is to be changed of a job that waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patch {
    /// Its urgency, 0 to 7.
    pub urgency: Option<u8>,
    /// Its deadline to start; `Some(None)` takes it away.
    pub start_by: Option<Option<Moment>>,
}

/// Which jobs, and how many.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this tenant; `None`: of all.
    pub tenant: Option<Arc<str>>,
    /// In one of these states; empty: in any.
    pub states: Vec<JobState>,
    /// For this service.
    pub service: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// Of this class.
    pub class: Option<String>,
    /// Of this array.
    pub parent: Option<JobId>,
    /// With a `seq` below this; the newest first. `None`: from the newest.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// An array of jobs that was asked for: the parent of its children.
#[derive(Clone, Debug)]
pub struct NewArray {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The service its children are for.
    pub service: Arc<str>,
    /// When it was accepted.
    pub accepted: Moment,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// Where its end is told (its children's ends are not).
    pub webhook: Option<Arc<str>>,
    /// What makes a repeat of the request the same request.
    pub idempotency: Option<Idempotency>,
    /// Its children, one or more; each names it as its parent.
    pub jobs: Vec<NewJob>,
}

/// An array as it is kept. Its counts are those of its children's states.
#[derive(Clone, Debug)]
pub struct ArrayRecord {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The service its children are for.
    pub service: Arc<str>,
    /// When it was accepted.
    pub accepted: Moment,
    /// When the last of its children was over; `None` while one is not.
    pub ended: Option<Moment>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// Where its end is told.
    pub webhook: Option<Arc<str>>,
    /// How many children are in each state, in the order of [`JobState::ALL`].
    pub counts: [u32; 8],
    /// How often it was over: a retry of a child opens it again, and its next end is a new one.
    pub endings: u32,
}

/// What became of an array that was asked for.
#[derive(Clone, Debug)]
pub enum ArrayAccepted {
    /// All of it is on disk, with its children in their order.
    New(ArrayRecord, Vec<JobRecord>),
    /// It was there already.
    Again(ArrayRecord),
    /// The key is that of another request.
    OtherRequest,
}

/// A letter that is to be sent: a webhook's delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Unique and the same for every try: the receiver knows a repeat by it.
    pub id: String,
    /// The job or array it is about: letters about one are sent in their order.
    pub about: JobId,
    /// Whose job it is.
    pub tenant: Arc<str>,
    /// Where it goes.
    pub url: Arc<str>,
    /// Its body, JSON.
    pub payload: String,
}

/// A letter as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterRecord {
    /// The order of writing.
    pub seq: i64,
    /// What is sent.
    pub letter: Letter,
    /// When it was written.
    pub written: Moment,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next; `None`: not any more.
    pub due: Option<Moment>,
    /// When it was taken.
    pub delivered: Option<Moment>,
    /// What the last try came to.
    pub last: Option<String>,
}

/// What a try at a letter came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// It was taken.
    Delivered,
    /// It is tried again.
    Again {
        /// When.
        due: Moment,
        /// What happened.
        why: String,
    },
    /// It is given up.
    GivenUp {
        /// What happened.
        why: String,
    },
}

/// What a job's change, or an array's end, has to be told. Called within the change's transaction, perhaps more than once
/// for one change: quick, without IO, and the same letter has the same id. One whose id was written already is not written
/// again.
pub trait Letters: Send + Sync {
    /// About a job that changed.
    fn of_job(&self, job: &JobRecord) -> Vec<Letter>;
    /// About an array whose last child is over.
    fn of_array(&self, array: &ArrayRecord) -> Vec<Letter>;
}

/// Where jobs are kept.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Takes a job in: state `Queued`, version 1, event `queued`.
    ///
    /// A job under a key or a client's id that is known is a repeat if its fingerprint is the same, or if it has none.
    ///
    /// Errors: [`StoreError::Full`] while what was accepted before can still be written on.
    async fn accept(&self, job: NewJob) -> Result<Accepted, StoreError>;

    /// What `accept` would say of a job whose key or id is known; `None` when it is new. For a gateway that takes no more:
    /// a repeat of what it took is answered all the same.
    async fn repeated(&self, job: &NewJob) -> Result<Option<Accepted>, StoreError>;

    /// What `accept_array` would say of an array whose key is known; `None` when it is new.
    async fn repeated_array(&self, array: &NewArray) -> Result<Option<ArrayAccepted>, StoreError>;

    /// Takes an array and all its children in, or none of them. A child whose key or client's id is known makes it another
    /// request.
    async fn accept_array(&self, array: NewArray) -> Result<ArrayAccepted, StoreError>;

    /// A new attempt begins on this endpoint: `Queued → Starting`, attempt number raised, event `started`.
    /// Stale when it does not wait, waits for its `not_before`, or should have started before now.
    async fn start(&self, job: &str, endpoint: &str, now: Moment) -> Result<Changed, StoreError>;

    /// The attempt is about to hand its work over (`AttemptRecord::submitting`). No event.
    async fn submitting(&self, job: &str, attempt: u32) -> Result<Changed, StoreError>;

    /// The backend calls the work so; also `Starting → Running`, event `running`.
    async fn handle(
        &self,
        job: &str,
        attempt: u32,
        handle: &str,
        now: Moment,
    ) -> Result<Changed, StoreError>;

    /// The node works: `Starting → Running`, event `running`. Nothing changes of a job that runs already.
    async fn running(&self, job: &str, attempt: u32, now: Moment) -> Result<Changed, StoreError>;

    /// How far the attempt is, and what its backend logged since: no new version without log lines, event `log` with them.
    async fn progress(
        &self,
        job: &str,
        attempt: u32,
        fraction: Option<f64>,
        text: Option<String>,
        log: Vec<String>,
        now: Moment,
    ) -> Result<Changed, StoreError>;

    /// The attempt ended. `Over`: event `finished`, `keep_until` set. `Again`: back to `Queued`, event `retry`, and the
    /// endpoint joins `failed_on` if it counts. A job that is being canceled is over as `Canceled` in the second case. Stale
    /// also when `Over` names a state that is none.
    ///
    /// Errors: `Full` also for a body in its row that would use up the room kept for accepted jobs; in a blob it may fit. A
    /// blob that was brought stays when the call fails, to be tried again with; when it comes out stale it is deleted.
    async fn end(
        &self,
        job: &str,
        attempt: u32,
        ended: Ended,
        now: Moment,
    ) -> Result<Changed, StoreError>;

    /// Takes a job back: one that waits is `Canceled` at once; one at work gets its mark `canceling` (event
    /// `canceling`), and is `Canceled` when its attempt ends. Stale when it is over, or has its mark already.
    async fn cancel(&self, job: &str, now: Moment) -> Result<Changed, StoreError>;

    /// A job that waits is over as `Dead`, for this reason: event `finished`. Stale in any other state.
    async fn give_up(&self, job: &str, why: &str, now: Moment) -> Result<Changed, StoreError>;

    /// A job that is failed, dead, canceled or expired waits again, its failures forgotten, its result dropped, and its
    /// deadline to start if that has passed: event `queued`. Stale in any other state.
    async fn retry(&self, job: &str, now: Moment) -> Result<Changed, StoreError>;

    /// Changes what can be changed of a job that waits: event `priority`. Stale in any other state.
    async fn patch(&self, job: &str, patch: Patch, now: Moment) -> Result<Changed, StoreError>;

    /// Deletes a job that is over, with its bodies, its idempotency key and its letters. `false`: it is not there, or not over.
    async fn delete(&self, job: &str) -> Result<bool, StoreError>;

    /// The job of this id, or of this client's id: within the tenant, or else the newest of it.
    async fn find(&self, tenant: Option<&str>, id: &str) -> Result<Option<JobRecord>, StoreError>;

    /// The request of a job.
    async fn request(&self, job: &str) -> Result<Option<StoredRequest>, StoreError>;

    /// The body of a job's result.
    async fn result(&self, job: &str) -> Result<Option<Kept>, StoreError>;

    /// The attempts of a job, the first first.
    async fn attempts(&self, job: &str) -> Result<Vec<AttemptRecord>, StoreError>;

    /// What happened to a job after a version, the first first, at most `limit`.
    async fn events(
        &self,
        job: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<JobEvent>, StoreError>;

    /// Jobs, the newest first.
    async fn list(&self, filter: Filter) -> Result<Vec<JobRecord>, StoreError>;

    /// Jobs that are not over, in the order of acceptance, with a `seq` above `after`, at most `limit`: for the start.
    async fn unfinished(&self, after: i64, limit: usize) -> Result<Vec<JobRecord>, StoreError>;

    /// How many jobs are in each state, by service, tenant and class.
    async fn census(&self) -> Result<Vec<(String, String, String, JobState, u64)>, StoreError>;

    /// The array of this id.
    async fn array(&self, id: &str) -> Result<Option<ArrayRecord>, StoreError>;

    /// Deletes an array whose children are all over, with them.
    async fn delete_array(&self, id: &str) -> Result<bool, StoreError>;

    /// Jobs that wait and should have started by `now` are over as `Expired`, at most `limit` at once: also those whose
    /// attempts before came to nothing.
    async fn expire(&self, now: Moment, limit: usize) -> Result<Vec<JobRecord>, StoreError>;

    /// Deletes jobs whose time to be kept is over, at most `limit` at once, and arrays with their last job; how many of both.
    async fn sweep(&self, now: Moment, limit: usize) -> Result<usize, StoreError>;

    /// Letters that are due, at most `limit`, of each `about` only the oldest that was not delivered or given up.
    async fn due_letters(&self, now: Moment, limit: usize)
    -> Result<Vec<LetterRecord>, StoreError>;

    /// What a try at a letter came to. `Again` leaves alone one that was given up meanwhile.
    async fn delivery(
        &self,
        letter: &str,
        outcome: Delivery,
        now: Moment,
    ) -> Result<(), StoreError>;

    /// The letters about a job or array, the first first.
    async fn letters(&self, about: &str) -> Result<Vec<LetterRecord>, StoreError>;

    /// A letter is due again, whatever became of it, as if it had never been tried. `false`: there is none of this id.
    async fn replay(&self, letter: &str, now: Moment) -> Result<bool, StoreError>;

    /// Letters to this address are given up: its receiver said that it is gone (410).
    async fn give_up_letters(&self, url: &str, why: &str) -> Result<usize, StoreError>;

    /// A value of a plugin's own.
    async fn value(&self, space: &str, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Keeps a value, or forgets it.
    ///
    /// Errors: [`StoreError::Full`] while what was accepted before can still be written on.
    async fn put_value(
        &self,
        space: &str,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), StoreError>;

    /// Keys of a space that begin like this, in order.
    async fn values(
        &self,
        space: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError>;

    /// What was learned of times.
    async fn learned(&self) -> Result<Vec<LearnedTime>, StoreError>;

    /// Keeps what was learned of times; of the others nothing changes.
    async fn learn(&self, times: Vec<LearnedTime>) -> Result<(), StoreError>;

    /// Adds to what was used. What lies more than 400 days before the newest of it is forgotten.
    async fn add_usage(&self, rows: Vec<UsageRow>) -> Result<(), StoreError>;

    /// What was used from the first of these days to the last.
    async fn usage(&self, from: String, to: String) -> Result<Vec<UsageRow>, StoreError>;

    /// Which of these blobs no row names: what a crash left behind.
    async fn orphans(&self, blobs: Vec<String>) -> Result<Vec<String>, StoreError>;

    /// How the store fares.
    async fn gauge(&self) -> Result<StoreGauge, StoreError>;
}
