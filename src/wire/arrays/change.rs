//! What can be done to the jobs of an array, to all of them at once.

use super::{document, reread};
use crate::jobs::Jobs;
use crate::store::{Changed, Filter, JobId, JobRecord, Patch};
use crate::wire::answer::Answer;
use crate::wire::change::allowed;
use crate::wire::{Call, Wire, gone, small, unavailable};
use futures::{StreamExt, stream};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::future::Future;
use tabane_api::{JobState, Refusal, Urgency};

/// How many jobs are read at once.
const PAGE: usize = 500;

/// How many are changed at once: the store writes what comes together in one go.
const AT_ONCE: usize = 64;

const WAITS: [JobState; 1] = [JobState::Queued];
const NOT_OVER: [JobState; 3] = [JobState::Queued, JobState::Starting, JobState::Running];
const NOT_SUCCEEDED: [JobState; 4] = [
    JobState::Failed,
    JobState::Canceled,
    JobState::Expired,
    JobState::Dead,
];

/// What `PATCH` may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    priority: u8,
}

/// What `retry` may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    #[serde(default)]
    #[expect(dead_code, reason = "there is one word to say")]
    only: Only,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Only {
    #[default]
    Failed,
}

impl Wire {
    /// `DELETE /_tabane/arrays/{id}`: cancels what is not over; an array that is over is deleted.
    pub(super) async fn delete_array(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let array = self.find_array(jobs, call, id).await?;
        if array.ended.is_some() {
            let deleted = jobs.store().delete_array(&array.id).await;
            return match deleted.map_err(unavailable)? {
                true => {
                    let document = json!({"id": id, "deleted": true});
                    Ok(Answer::json(StatusCode::OK, &document))
                }
                // One of its jobs was retried in this very moment, or another deleted it.
                false => Err(Refusal::Conflict(format!("the array `{id}` is not over"))),
            };
        }
        let cancel =
            async |wire: Wire, jobs: Jobs, job| wire.cancel(&jobs, job).await.map(|_| true);
        self.each(jobs, &array.id, &NOT_OVER, cancel).await?;
        let array = reread(jobs, &array.id).await?.unwrap_or(array);
        let status = match array.ended {
            Some(_) => StatusCode::OK,
            None => StatusCode::ACCEPTED,
        };
        Ok(document(call.world, status, &array))
    }

    /// `PATCH /_tabane/arrays/{id}`: another priority for all its jobs that wait.
    pub(super) async fn patch_array(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let array = self.find_array(jobs, call, id).await?;
        let wanted: Wanted =
            serde_json::from_slice(&small(&call.body).await?).map_err(|error| {
                Refusal::BadRequest(format!("send `{{\"priority\": 0..7}}`: {error}"))
            })?;
        if wanted.priority > 7 {
            let why = format!("`priority` is 0 to 7, got {}", wanted.priority);
            return Err(Refusal::BadRequest(why));
        }
        let urgency = allowed(call, &array.service, Urgency::new(wanted.priority));
        let patch = move |wire: Wire, jobs: Jobs, job: JobRecord| async move {
            let patch = Patch {
                urgency: Some(urgency.value()),
                start_by: None,
            };
            let changed = jobs.store().patch(&job.id, patch, jobs.now()).await;
            match jobs.told(changed).map_err(unavailable)? {
                Changed::Now(job) => {
                    wire.dispatch.reprioritise(&job.id, job.need.urgency);
                    Ok(true)
                }
                // Its turn came meanwhile.
                Changed::Stale => Ok(false),
            }
        };
        let changed = self.each(jobs, &array.id, &WAITS, patch).await?;
        if changed == 0 {
            let why = format!("no job of the array `{id}` waits any more");
            return Err(Refusal::Conflict(why));
        }
        let array = reread(jobs, &array.id).await?;
        let array = array.ok_or_else(|| gone(jobs, "array", id))?;
        Ok(document(call.world, StatusCode::OK, &array))
    }

    /// `POST /_tabane/arrays/{id}/retry`: those of its jobs that are over and did not succeed wait again.
    pub(super) async fn retry_array(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let array = self.find_array(jobs, call, id).await?;
        let body = small(&call.body).await?;
        if !body.is_empty() {
            serde_json::from_slice::<Again>(&body).map_err(|error| {
                Refusal::BadRequest(format!(
                    "send `{{\"only\": \"failed\"}}`, or nothing: jobs that are failed, dead, canceled and expired wait \
                     again, and those that succeeded do not ({error})"
                ))
            })?;
        }
        let again =
            async |wire: Wire, jobs: Jobs, job| Ok(wire.again(&jobs, &job).await?.is_some());
        let waiting = self.each(jobs, &array.id, &NOT_SUCCEEDED, again).await?;
        if waiting == 0 {
            return Err(Refusal::Conflict(format!(
                "no job of the array `{id}` can be retried; failed, dead, canceled and expired ones can"
            )));
        }
        let array = reread(jobs, &array.id).await?;
        let array = array.ok_or_else(|| gone(jobs, "array", id))?;
        Ok(document(call.world, StatusCode::ACCEPTED, &array))
    }

    /// Does something to each job of an array that is in one of these states, the last one first; to how many it did.
    /// It goes on when its client leaves: half of it is what nobody asked for.
    async fn each<F, R>(
        &self,
        jobs: &Jobs,
        array: &JobId,
        states: &[JobState],
        act: F,
    ) -> Result<usize, Refusal>
    where
        F: Fn(Wire, Jobs, JobRecord) -> R + Send + 'static,
        R: Future<Output = Result<bool, Refusal>> + Send + 'static,
    {
        let (wire, jobs) = (self.clone(), jobs.clone());
        let mut filter = Filter {
            parent: Some(array.clone()),
            states: states.to_vec(),
            limit: PAGE,
            ..Filter::default()
        };
        let all = tokio::spawn(async move {
            let mut count = 0;
            loop {
                let page = jobs.store().list(filter.clone()).await;
                let page = page.map_err(unavailable)?;
                let Some(last) = page.last() else {
                    return Ok(count);
                };
                filter.before = Some(last.seq);
                let acts: Vec<R> = page
                    .into_iter()
                    .map(|job| act(wire.clone(), jobs.clone(), job))
                    .collect();
                let mut acts = stream::iter(acts).buffer_unordered(AT_ONCE);
                // Those under way are not left halfway because one of them failed.
                let mut failed = None;
                while let Some(did) = acts.next().await {
                    match did {
                        Ok(did) => count += usize::from(did),
                        Err(why) => failed = Some(why),
                    }
                }
                if let Some(why) = failed {
                    return Err(why);
                }
            }
        });
        all.await.map_err(|error| {
            Refusal::Internal(format!("not all jobs of the array were reached: {error}"))
        })?
    }
}
