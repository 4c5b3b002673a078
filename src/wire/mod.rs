//! The wire contract of jobs: what is said under `/_tabane/`, and what a request that becomes a job is answered.
//!
//! | call | answer |
//! |---|---|
//! | any request of a service with `Prefer: respond-async` | 202, `Location`, the job's document |
//! | `PUT /_tabane/jobs/{client-id}?service=S&path=P` | the same, under an id of the client's |
//! | `GET /_tabane/jobs/{id}` | 200, the document; `Prefer: wait=N` waits for a change |
//! | `GET /_tabane/jobs/{id}/result` | the node's answer, byte for byte; 202 until there is one |
//! | `GET /_tabane/jobs/{id}/events` | what happens to it, as server-sent events |
//! | `GET /_tabane/jobs/{id}/request` and `/log` | what was sent in; what its backend logged |
//! | `DELETE /_tabane/jobs/{id}` | cancels it; one that is over is deleted |
//! | `POST /_tabane/jobs/{id}/cancel` | cancels it; one that is over stays (409) |
//! | `PATCH /_tabane/jobs/{id}` | changes `priority` and `start_by` while it waits |
//! | `POST /_tabane/jobs/{id}/retry` | it waits again, under its id |
//! | `POST /_tabane/jobs/{id}/links` | links that need no key, for a while |
//! | `GET`, `POST /_tabane/jobs/{id}/letters` | what was told of it, and what became of that; all once more |
//! | `GET /_tabane/jobs` | jobs, the newest first |
//! | `POST /_tabane/arrays` and below it | many jobs that are one (`arrays/`) |
//! | `POST /_tabane/callbacks/{job}/{attempt}` | a backend says that it is done |
//!
//! Whoever asks sees the jobs of their tenant and no others; those of others are not there (404). A link that was
//! signed shows one job to whoever has it.

mod answer;
mod arrays;
mod ask;
mod callback;
mod change;
mod collect;
mod events;
mod letters;
mod links;
mod list;
mod purge;
mod refused;
mod result;
mod status;
mod submit;
mod zip;

pub use answer::{Answer, Payload};
pub use ask::{Prefer, wants_job};
pub use refused::{retry_after, status};
pub use submit::{HeldBody, Submission};

use crate::dispatch::{Dispatch, World};
use crate::jobs::{Jobs, unavailable};
use crate::store::JobRecord;
use bytes::Bytes;
use http::{HeaderMap, Method};
use std::sync::Arc;
use tabane_api::{Caller, Refusal};
use tokio::sync::Mutex;

/// What everything under it is the gateway's own.
pub const PREFIX: &str = "/_tabane/";

/// The largest body of a call that is not a submission.
pub const LARGEST: u64 = 8 << 20;

/// Answers for jobs: a handle, cheap to clone.
#[derive(Clone)]
pub struct Wire {
    dispatch: Dispatch,
    /// Held by the array that is being taken in.
    one_array: Arc<Mutex<()>>,
}

/// A call under [`PREFIX`].
pub struct Call<'a> {
    /// The world that the request read.
    pub world: &'a Arc<World>,
    /// Its method.
    pub method: &'a Method,
    /// Its path.
    pub path: &'a str,
    /// Its query.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: HeldBody,
    /// Who asks.
    pub who: Who,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Who {
    /// A tenant: sees what is its own.
    Tenant(Caller),
    /// An operator: sees everything.
    Operator,
    /// Somebody without a key: needs a link that was signed.
    Nobody(Refusal),
}

// === impl Wire ===

impl Wire {
    /// Answers for the jobs of this gateway.
    pub fn new(dispatch: Dispatch) -> Self {
        Wire {
            dispatch,
            one_array: Arc::default(),
        }
    }

    /// Answers a call under [`PREFIX`].
    pub async fn serve(&self, call: Call<'_>) -> Result<Answer, Refusal> {
        let jobs = self.jobs()?;
        let path = call.path;
        let below = path.strip_prefix(PREFIX).unwrap_or(path);
        let parts: Vec<&str> = below.split('/').collect();
        match (call.method.as_str(), parts.as_slice()) {
            ("GET" | "HEAD", ["jobs"]) => self.list(jobs, &call).await,
            (_, ["jobs"]) => Err(wrong_method(&call, "GET, HEAD")),
            ("GET" | "HEAD", ["jobs", id]) => self.status(jobs, &call, id).await,
            ("PUT", ["jobs", id]) => self.put(&call, id).await,
            ("DELETE", ["jobs", id]) => self.delete(jobs, &call, id).await,
            ("PATCH", ["jobs", id]) => self.patch(jobs, &call, id).await,
            (_, ["jobs", _]) => Err(wrong_method(&call, "GET, HEAD, PUT, PATCH, DELETE")),
            ("GET" | "HEAD", ["jobs", id, "result"]) => self.result(jobs, &call, id).await,
            ("GET" | "HEAD", ["jobs", id, "request"]) => self.request(jobs, &call, id).await,
            ("GET" | "HEAD", ["jobs", id, "log"]) => self.log(jobs, &call, id).await,
            ("GET" | "HEAD", ["jobs", id, "events"]) => self.events(jobs, &call, id).await,
            ("GET" | "HEAD", ["jobs", id, "letters"]) => self.letters(jobs, &call, id).await,
            ("POST", ["jobs", id, "letters"]) => self.send_again(jobs, &call, id).await,
            (_, ["jobs", _, "letters"]) => Err(wrong_method(&call, "GET, HEAD, POST")),
            ("POST", ["jobs", id, "links"]) => self.links(jobs, &call, id).await,
            ("POST" | "PUT", ["callbacks", job, attempt]) => {
                self.callback(jobs, &call, job, attempt).await
            }
            (_, ["callbacks", _, _]) => Err(wrong_method(&call, "POST, PUT")),
            ("POST", ["jobs", id, "cancel"]) => self.take_back(jobs, &call, id).await,
            ("POST", ["jobs", id, "retry"]) => self.retry(jobs, &call, id).await,
            (_, ["jobs", _, "result" | "request" | "log" | "events"]) => {
                Err(wrong_method(&call, "GET, HEAD"))
            }
            (_, ["jobs", _, "cancel" | "retry" | "links"]) => Err(wrong_method(&call, "POST")),
            (_, ["arrays", below @ ..]) => self.arrays(jobs, &call, below).await,
            _ => Err(Refusal::NotFound(path.to_owned())),
        }
    }

    fn jobs(&self) -> Result<&Jobs, Refusal> {
        self.dispatch.jobs().ok_or_else(|| {
            Refusal::NoSuch("this gateway keeps no jobs: its file names no `data_dir`".into())
        })
    }

    /// The job that a call is about, if whoever asks may see it.
    async fn find(&self, jobs: &Jobs, call: &Call<'_>, id: &str) -> Result<JobRecord, Refusal> {
        // What is signed for is named by the id that nobody else can have chosen.
        let tenant = match is_signed(jobs, call, id) {
            true => None,
            false => seen_by(call)?,
        };
        let found = jobs.store().find(tenant, id).await.map_err(unavailable)?;
        let found = found.filter(|job| tenant.is_none_or(|tenant| *job.tenant == *tenant));
        match found {
            // Not swept yet: it is gone when its document says so.
            Some(job) if job.keep_until.is_some_and(|until| until <= jobs.now()) => {
                Err(Refusal::Gone(format!("there is no job `{id}` any more")))
            }
            Some(job) => Ok(job),
            None => Err(gone(jobs, "job", id)),
        }
    }
}

/// Whether a call shows a link that was signed for the job or array of this id. Links only show.
fn is_signed(jobs: &Jobs, call: &Call<'_>, id: &str) -> bool {
    let looks = matches!(*call.method, Method::GET | Method::HEAD);
    looks && submit::query(call.query, "token").is_some_and(|token| jobs.is_signed(id, &token))
}

/// Whose jobs whoever asks may see; `None`: everybody's.
fn seen_by<'a>(call: &'a Call<'_>) -> Result<Option<&'a str>, Refusal> {
    match &call.who {
        Who::Tenant(caller) => Ok(Some(&caller.tenant)),
        Who::Operator => Ok(None),
        Who::Nobody(why) => Err(why.clone()),
    }
}

/// What links begin with.
fn base(world: &World, what: &str) -> String {
    let url = world.plan.public_url.as_deref().unwrap_or_default();
    format!("{url}{PREFIX}{what}")
}

/// A job or array that is not there: one whose id is old was, and is not kept any more.
fn gone(jobs: &Jobs, what: &str, id: &str) -> Refusal {
    // No shorter time to be kept than this is worth telling from a mistake.
    const OLD_MS: i64 = 60_000;
    let made = id.parse::<ulid::Ulid>().ok();
    let made = made.and_then(|id| i64::try_from(id.timestamp_ms()).ok());
    match made {
        Some(made) if jobs.now().0.saturating_sub(made) > OLD_MS => {
            Refusal::Gone(format!("there is no {what} `{id}` any more"))
        }
        _ => Refusal::NoSuch(format!("there is no {what} `{id}`")),
    }
}

fn wrong_method(call: &Call<'_>, allow: &'static str) -> Refusal {
    Refusal::WrongMethod {
        method: call.method.to_string(),
        allow,
    }
}

/// A small JSON body.
async fn small(body: &HeldBody) -> Result<Bytes, Refusal> {
    let content = body.content();
    let most = usize::try_from(LARGEST).unwrap_or(usize::MAX);
    content
        .to_bytes(most)
        .await
        .map_err(|_| Refusal::BodyTooLarge { max: LARGEST })
}
