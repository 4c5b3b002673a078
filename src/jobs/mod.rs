//! What was accepted for later: its rules, who follows it, and what is said of it.
//!
//! Rules.
//! - The store is the truth; this room changes it and tells whoever follows. What is only here (progress, who follows,
//!   how to break an attempt off) may be lost with the process.
//! - Only a job's latest attempt may change it. The store refuses any other ([`Changed::Stale`]), and an attempt that
//!   hears so ends without a word.
//! - Who runs attempts, and where, is dispatch's business.

mod census;
mod document;
mod frames;
mod ids;
mod live;
mod refused;
mod report;
mod rules;
mod template;
mod watched;
pub mod webhook;

pub use census::TooMany;
pub use document::{Standing, array_document, document, moment};
pub use frames::{FRAME_TAG, Frames, FramesError, MOST_FRAMES, NamedFrames, frame_of, frame_tag};
pub use ids::{fingerprint, new_id};
pub use live::{Following, Note, Progress, Running};
pub use refused::{not_accepted, unavailable};
pub use report::Reporter;
pub use rules::{After, Blame, Came, Rules, after, priority};
pub use template::{BadPlace, Template};

use crate::access::Links;
use crate::config::plan::JobsPlan;
use crate::store::{
    Accepted, ArrayAccepted, BlobStore, BlobWriter, Changed, Ended, IN_ROW, JobId, JobRecord,
    JobStore, Kept, Moment, NewArray, NewJob, Spooled, StoreError,
};
use crate::telemetry::{Events, Metrics};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use census::Census;
use live::Live;
use std::sync::{Arc, OnceLock};
use tabane_api::{Content, NodeError, Pieces};
use tokio::sync::Notify;
use watched::Watched;
use webhook::Guard;

/// Tells the time of the wall clock; tests pass their own.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The jobs of a gateway: a handle, cheap to clone.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    store: Arc<dyn JobStore>,
    blobs: Arc<dyn BlobStore>,
    clock: Clock,
    links: Links,
    guard: Arc<ArcSwap<Guard>>,
    live: Live,
    census: Census,
    watched: Watched,
    /// Rung when a letter may have been written.
    letters: Notify,
    /// Hears of every change.
    listener: OnceLock<Listener>,
}

/// Hears of jobs that changed.
pub type Listener = Box<dyn Fn(&JobRecord) + Send + Sync>;

// === impl Jobs ===

impl Jobs {
    /// The jobs of this store. `links` sign what may be seen without a key, `guard` says where letters may go; what
    /// happens is counted in `metrics` and told to `events`.
    pub fn new(
        store: Arc<dyn JobStore>,
        blobs: Arc<dyn BlobStore>,
        links: Links,
        guard: Arc<ArcSwap<Guard>>,
        clock: Clock,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Self {
        Jobs(Arc::new(Inner {
            store,
            blobs,
            clock,
            links,
            guard,
            live: Live::default(),
            census: Census::default(),
            watched: Watched { metrics, events },
            letters: Notify::new(),
            listener: OnceLock::new(),
        }))
    }

    /// Whether a letter may go there, as far as its address tells.
    ///
    /// Errors: why not, in a sentence.
    pub fn check_webhook(&self, url: &str) -> Result<(), String> {
        self.0.guard.load().check_url(url)
    }

    /// Where they are kept.
    pub fn store(&self) -> &Arc<dyn JobStore> {
        &self.0.store
    }

    /// Where long bodies are kept.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.0.blobs
    }

    /// Now, on the wall clock.
    pub fn now(&self) -> Moment {
        (self.0.clock)()
    }

    /// A letter may be due that was not before.
    pub fn ring_letters(&self) {
        self.0.letters.notify_one();
    }

    /// Waits until a letter may have been written.
    pub async fn letters_written(&self) {
        self.0.letters.notified().await;
    }

    /// Takes a job in, if its service and tenant have not as many as they may. It is on disk when this returns.
    pub async fn accept(&self, job: NewJob, plan: &JobsPlan) -> Result<Accepted, AcceptError> {
        let (service, tenant) = (job.service.clone(), job.tenant.clone());
        let (most, of_tenant) = (plan.max, plan.max_per_tenant);
        let census = &self.0.census;
        if let Err(too_many) = census.reserve(&service, &tenant, 1, most, of_tenant) {
            self.discard(&job.body).await;
            // What was taken already is no more of it.
            let again = self.0.store.repeated(&job).await?;
            return again.ok_or(AcceptError::TooMany(too_many));
        }
        let accepted = self.0.store.accept(job).await;
        match &accepted {
            Ok(Accepted::New(record)) => {
                self.0.watched.accepted(record);
                self.tell(record);
            }
            _ => self.0.census.count_out(&service, &tenant, 1),
        }
        Ok(accepted?)
    }

    /// Takes an array in, all of it or nothing.
    pub async fn accept_array(
        &self,
        array: NewArray,
        plan: &JobsPlan,
    ) -> Result<ArrayAccepted, AcceptError> {
        let (service, tenant, count) = (
            array.service.clone(),
            array.tenant.clone(),
            array.jobs.len(),
        );
        let (most, of_tenant) = (plan.max, plan.max_per_tenant);
        let census = &self.0.census;
        if let Err(too_many) = census.reserve(&service, &tenant, count, most, of_tenant) {
            let again = self.0.store.repeated_array(&array).await?;
            return again.ok_or(AcceptError::TooMany(too_many));
        }
        let accepted = self.0.store.accept_array(array).await;
        match &accepted {
            Ok(ArrayAccepted::New(record, jobs)) => {
                self.0.watched.accepted_array(record, jobs.len());
                jobs.iter().for_each(|job| self.tell(job));
            }
            _ => self.0.census.count_out(&service, &tenant, count),
        }
        Ok(accepted?)
    }

    /// A job from before the gateway's start is not over.
    pub fn count_in(&self, job: &JobRecord) {
        self.0.census.count_in(&job.service, &job.tenant);
    }

    /// A job that is over, and did not succeed, waits again.
    pub async fn retry(&self, job: &str) -> Result<Changed, StoreError> {
        let changed = self.0.store.retry(job, self.now()).await;
        if let Ok(Changed::Now(record)) = &changed {
            self.count_in(record);
        }
        self.told(changed)
    }

    /// Where a backend calls when it is done with this attempt: a path of the gateway's, good until then.
    pub fn callback_path(&self, job: &str, attempt: u32, until: Moment) -> String {
        let token = self.0.links.sign(&callback(job, attempt), until.0);
        format!("/_tabane/callbacks/{job}/{attempt}?token={token}")
    }

    /// Whether a call is by whoever was handed this attempt.
    pub fn is_callback(&self, job: &str, attempt: u32, token: &str) -> bool {
        let scope = callback(job, attempt);
        self.0.links.check(&scope, token, self.now().0)
    }

    /// A token by which a job can be seen without a key, good until then.
    pub fn sign_job(&self, job: &str, until: Moment) -> String {
        self.0.links.sign(&seen(job), until.0)
    }

    /// Whether a token lets this job be seen.
    pub fn is_signed(&self, job: &str, token: &str) -> bool {
        self.0.links.check(&seen(job), token, self.now().0)
    }

    /// An attempt begins on this endpoint.
    pub async fn start(&self, job: &str, endpoint: &str) -> Result<Changed, StoreError> {
        let changed = self.0.store.start(job, endpoint, self.now()).await;
        if let Ok(Changed::Now(record)) = &changed {
            self.0.watched.started(record, endpoint);
        }
        self.told(changed)
    }

    /// The attempt ended, on this endpoint if that is on record.
    pub async fn end(
        &self,
        job: &str,
        attempt: u32,
        endpoint: Option<&str>,
        ended: Ended,
    ) -> Result<Changed, StoreError> {
        let outcome = ended.outcome;
        let changed = self.0.store.end(job, attempt, ended, self.now()).await;
        if let Ok(Changed::Now(record)) = &changed {
            self.0.watched.ended(record, outcome);
            self.tell_of(record, endpoint);
        }
        changed
    }

    /// Takes a job back; an attempt at work hears of it.
    pub async fn cancel(&self, job: &str) -> Result<Changed, StoreError> {
        let changed = self.told(self.0.store.cancel(job, self.now()).await)?;
        // One that was taken back before, and whose attempt never heard of it, hears now.
        let now = match &changed {
            Changed::Now(record) => Some((**record).clone()),
            Changed::Stale => self.0.store.find(None, job).await?,
        };
        if let Some(record) = now.filter(|record| record.canceling) {
            self.0.live.stop(job, record.attempt);
            // It may have ended meanwhile: then there is nothing to stop.
            let ended = self.0.store.find(None, job).await?;
            if ended.is_none_or(|record| record.state.is_over()) {
                self.0.live.over(job);
            }
        }
        Ok(changed)
    }

    /// A job that waits is dead: nobody can serve it.
    pub async fn give_up(&self, job: &str, why: &str) -> Result<Changed, StoreError> {
        self.told(self.0.store.give_up(job, why, self.now()).await)
    }

    /// Tells a change that another way than these led to.
    pub fn told(&self, changed: Result<Changed, StoreError>) -> Result<Changed, StoreError> {
        if let Ok(Changed::Now(record)) = &changed {
            self.tell(record);
        }
        changed
    }

    /// Tells whoever follows a job, or its array, how it stands.
    pub fn tell(&self, record: &JobRecord) {
        self.tell_of(record, None);
    }

    /// Who hears of every change from now on; the first one stays.
    pub fn listen(&self, listener: Listener) {
        let _ = self.0.listener.set(listener);
    }

    /// The same of a job whose attempt on this endpoint has just ended.
    fn tell_of(&self, record: &JobRecord, endpoint: Option<&str>) {
        if let Some(listener) = self.0.listener.get() {
            listener(record);
        }
        if record.webhook.is_some() || record.parent.is_some() {
            self.0.letters.notify_one();
        }
        self.0
            .live
            .note(&record.id, || Note::Changed(Arc::new(record.clone())));
        if let Some((parent, _)) = &record.parent {
            self.0.live.note(parent, || Note::Child);
        }
        if record.state.is_over() {
            self.0.watched.over(record, endpoint);
            self.0.census.count_out(&record.service, &record.tenant, 1);
            self.0.live.over(&record.id);
        }
    }

    /// Follows a job or array from now on.
    pub fn follow(&self, job: &JobId) -> Following {
        self.0.live.follow(job)
    }

    /// An attempt is at work here: it can be followed and broken off until the value is dropped.
    pub fn running(&self, job: &JobRecord) -> Running {
        Live::running(self, &job.id, job.attempt, job.canceling)
    }

    /// How far the attempt at work here is.
    pub fn progress(&self, job: &str) -> Option<Progress> {
        self.0.live.progress(job)
    }

    /// Hands a backend's call to the attempt that waits for it. `false`: none does.
    pub fn call_back(&self, job: &str, attempt: u32, call: http::Request<Bytes>) -> bool {
        self.0.live.call_back(job, attempt, call)
    }

    /// A body that is kept, to be read.
    pub async fn content(&self, kept: &Kept) -> Result<Content, StoreError> {
        Ok(match kept {
            Kept::Row(bytes) => Content::Bytes(bytes.clone()),
            Kept::Blob(blob) => Content::Stored(self.0.blobs.open(blob).await?),
        })
    }

    /// Keeps bytes.
    pub async fn keep(&self, bytes: Bytes) -> Result<Kept, StoreError> {
        match bytes.len() <= IN_ROW {
            true => Ok(Kept::Row(bytes)),
            false => self.keep_apart(bytes).await,
        }
    }

    /// Keeps bytes outside the database, however few.
    pub async fn keep_apart(&self, bytes: Bytes) -> Result<Kept, StoreError> {
        let mut writer = self.0.blobs.begin().await?;
        writer.append(bytes).await?;
        Ok(Kept::Blob(writer.finish().await?))
    }

    /// Keeps a body that a request was held with.
    pub async fn adopt(&self, spooled: &Arc<Spooled>) -> Result<Kept, StoreError> {
        if spooled.length() <= IN_ROW as u64 {
            let read = spooled.read(0, IN_ROW).await;
            let bytes = read.map_err(|error| StoreError::Unusable(error.to_string()))?;
            return Ok(Kept::Row(bytes));
        }
        Ok(Kept::Blob(self.0.blobs.adopt(spooled).await?))
    }

    /// Keeps a body as it comes from a node, and says how long it is.
    ///
    /// Errors: the node broke it off, or there is no room for it; nothing is left of it then.
    pub async fn keep_pieces(&self, mut pieces: Pieces) -> Result<(Kept, u64), KeepError> {
        let mut small = BytesMut::new();
        let mut writer: Option<Box<dyn BlobWriter>> = None;
        while let Some(piece) = futures::StreamExt::next(&mut pieces).await {
            let piece = piece.map_err(KeepError::Node)?;
            match &mut writer {
                Some(writer) => writer.append(piece).await?,
                None if small.len() + piece.len() <= IN_ROW => small.extend_from_slice(&piece),
                None => {
                    let mut begun = self.0.blobs.begin().await?;
                    begun.append(small.split().freeze()).await?;
                    begun.append(piece).await?;
                    writer = Some(begun);
                }
            }
        }
        let Some(writer) = writer else {
            let length = small.len() as u64;
            return Ok((Kept::Row(small.freeze()), length));
        };
        let blob = writer.finish().await?;
        let length = blob.length;
        Ok((Kept::Blob(blob), length))
    }

    /// Forgets a body that no row names.
    pub async fn discard(&self, kept: &Kept) {
        if let Kept::Blob(blob) = kept
            && let Err(error) = self.0.blobs.delete(&blob.name).await
        {
            tracing::warn!(%error, "cannot delete a body that nobody needs");
        }
    }
}

fn callback(job: &str, attempt: u32) -> String {
    format!("callback/{job}/{attempt}")
}

fn seen(job: &str) -> String {
    format!("job/{job}")
}

/// Why a job was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// As many are not over as may be.
    #[error("{} jobs are not over", .0.jobs)]
    TooMany(TooMany),
    /// It cannot be kept.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<TooMany> for AcceptError {
    fn from(too_many: TooMany) -> Self {
        AcceptError::TooMany(too_many)
    }
}

/// Why a body was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The node broke it off.
    #[error("{0}")]
    Node(NodeError),
    /// It cannot be kept.
    #[error("{0}")]
    Store(#[from] StoreError),
}
