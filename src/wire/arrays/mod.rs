//! Arrays: one request, rendered for each of many frames, whose jobs are followed, canceled and fetched as one.
//!
//! | call | answer |
//! |---|---|
//! | `POST /_tabane/arrays` | 202, `Location`, the array's document; all its jobs are on disk, or none |
//! | `GET /_tabane/arrays/{id}` | 200, the document; `Prefer: wait=N` waits until its counts change |
//! | `GET /_tabane/arrays/{id}/jobs` | its jobs, as `GET /_tabane/jobs` lists them |
//! | `GET /_tabane/arrays/{id}/events` | `progress` as its jobs end, `finished` when the last has |
//! | `GET /_tabane/arrays/{id}/results.zip` | what there is of its results, as one zip |
//! | `DELETE /_tabane/arrays/{id}` | cancels what is not over; when all is, deletes it |
//! | `PATCH /_tabane/arrays/{id}` | changes `priority` of all its jobs that wait |
//! | `POST /_tabane/arrays/{id}/retry` | those that did not succeed wait again |

mod change;
mod events;
mod mould;
mod names;
mod results;
mod submit;

use super::answer::Answer;
use super::ask::Prefer;
use super::status::{PREFERENCE_APPLIED, tag};
use super::{Call, Wire, base, gone, is_signed, list, seen_by, unavailable, wrong_method};
use crate::dispatch::World;
use crate::jobs::{Jobs, array_document};
use crate::store::{ArrayRecord, Filter, JobId};
use http::StatusCode;
use std::time::Duration;
use tabane_api::Refusal;
use tokio::time::{Instant, sleep, timeout_at};

/// How often an array is looked at while its jobs change: its counts are counted anew each time.
const LOOK: Duration = Duration::from_millis(250);

impl Wire {
    /// Answers a call about arrays; `below` is what stands after `arrays`.
    pub(super) async fn arrays(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        below: &[&str],
    ) -> Result<Answer, Refusal> {
        match (call.method.as_str(), below) {
            ("POST", []) => self.submit_array(jobs, call).await,
            (_, []) => Err(wrong_method(call, "POST")),
            ("GET" | "HEAD", [id]) => self.array(jobs, call, id).await,
            ("DELETE", [id]) => self.delete_array(jobs, call, id).await,
            ("PATCH", [id]) => self.patch_array(jobs, call, id).await,
            (_, [_]) => Err(wrong_method(call, "GET, HEAD, PATCH, DELETE")),
            ("GET" | "HEAD", [id, "jobs"]) => self.array_jobs(jobs, call, id).await,
            ("GET" | "HEAD", [id, "events"]) => self.array_events(jobs, call, id).await,
            ("GET" | "HEAD", [id, "results.zip"]) => self.array_results(jobs, call, id).await,
            (_, [_, "jobs" | "events" | "results.zip"]) => Err(wrong_method(call, "GET, HEAD")),
            ("POST", [id, "retry"]) => self.retry_array(jobs, call, id).await,
            (_, [_, "retry"]) => Err(wrong_method(call, "POST")),
            _ => Err(Refusal::NotFound(call.path.to_owned())),
        }
    }

    /// The array that a call is about, if whoever asks may see it.
    async fn find_array(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<ArrayRecord, Refusal> {
        let tenant = match is_signed(jobs, call, id) {
            true => None,
            false => seen_by(call)?,
        };
        let found = jobs.store().array(id).await.map_err(unavailable)?;
        found
            .filter(|array| tenant.is_none_or(|tenant| *array.tenant == *tenant))
            .ok_or_else(|| gone(jobs, "array", id))
    }

    async fn array(&self, jobs: &Jobs, call: &Call<'_>, id: &str) -> Result<Answer, Refusal> {
        let mut array = self.find_array(jobs, call, id).await?;
        let wait = Prefer::read(call.headers).wait;
        if let Some(wait) = wait {
            array = self.until_counts_change(jobs, array, wait).await?;
        }
        let mut answer = document(call.world, StatusCode::OK, &array);
        if let Some(wait) = wait {
            let applied = format!("wait={}", wait.as_secs());
            answer.set(PREFERENCE_APPLIED, &applied);
        }
        tag(call, &mut answer);
        Ok(answer)
    }

    async fn array_jobs(&self, jobs: &Jobs, call: &Call<'_>, id: &str) -> Result<Answer, Refusal> {
        let array = self.find_array(jobs, call, id).await?;
        let filter = Filter {
            parent: Some(array.id),
            ..list::filter(call)?
        };
        let at = format!("{}/{id}/jobs", arrays_base(call.world));
        self.page(jobs, call, filter, &at).await
    }

    /// Waits until a job of an array comes into another state, at most so long; not at all when all are over.
    async fn until_counts_change(
        &self,
        jobs: &Jobs,
        before: ArrayRecord,
        most: Duration,
    ) -> Result<ArrayRecord, Refusal> {
        let deadline = Instant::now() + most;
        // Listen first, look then: what happens in between is not missed.
        let mut following = jobs.follow(&before.id);
        loop {
            let now = reread(jobs, &before.id).await?;
            // Deleted meanwhile: as it was.
            let now = now.unwrap_or_else(|| before.clone());
            if now.ended.is_some() || now.counts != before.counts || self.dispatch.is_closing() {
                return Ok(now);
            }
            if timeout_at(deadline, following.next()).await.is_err() {
                return Ok(now);
            }
            sleep(LOOK.min(deadline - Instant::now())).await;
        }
    }
}

async fn reread(jobs: &Jobs, id: &JobId) -> Result<Option<ArrayRecord>, Refusal> {
    jobs.store().array(id).await.map_err(unavailable)
}

/// An answer that is an array's document.
fn document(world: &World, status: StatusCode, array: &ArrayRecord) -> Answer {
    Answer::json(status, &array_document(array, &arrays_base(world)))
}

/// What links to arrays begin with.
fn arrays_base(world: &World) -> String {
    base(world, "arrays")
}
