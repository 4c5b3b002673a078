//! What can be done to a job.

use super::answer::Answer;
use super::ask::span;
use super::{Call, Who, Wire, small, unavailable};
use crate::config::plan::JobsPlan;
use crate::jobs::Jobs;
use crate::store::{Changed, JobRecord, Patch};
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tabane_api::{JobState, Refusal, Urgency};

/// What `PATCH` may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    priority: Option<u8>,
    /// A duration from now; `null` takes the deadline away.
    #[serde(default, deserialize_with = "said")]
    start_by: Option<Option<String>>,
}

/// Tells `null` from nothing.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Wire {
    /// `DELETE /_tabane/jobs/{id}`: cancels a job; one that is over is deleted.
    pub(super) async fn delete(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        if job.state.is_over() {
            let deleted = jobs.store().delete(&job.id).await.map_err(unavailable)?;
            return match deleted {
                true => {
                    let document = json!({"id": id, "deleted": true});
                    Ok(Answer::json(StatusCode::OK, &document))
                }
                // Retried in this very moment, or deleted by another.
                false => Err(Refusal::Conflict(format!("the job `{id}` is not over"))),
            };
        }
        let job = self.cancel(jobs, job).await?;
        self.taken_back(jobs, call, &job).await
    }

    /// `POST /_tabane/jobs/{id}/cancel`: cancels a job; one that is over, even in this very moment, keeps its result.
    pub(super) async fn take_back(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let mut job = self.find(jobs, call, id).await?;
        if !job.state.is_over() {
            job = self.cancel(jobs, job).await?;
        }
        match job.state {
            state if !state.is_over() || state == JobState::Canceled => {
                self.taken_back(jobs, call, &job).await
            }
            state => Err(Refusal::Conflict(format!(
                "the job `{id}` is over: {state}"
            ))),
        }
    }

    async fn taken_back(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        job: &JobRecord,
    ) -> Result<Answer, Refusal> {
        let status = match job.state.is_over() {
            true => StatusCode::OK,
            false => StatusCode::ACCEPTED,
        };
        let document = self.document_of(jobs, call.world, job).await?;
        let mut answer = Answer::json(status, &document);
        self.mark(&mut answer, job);
        Ok(answer)
    }

    /// Takes a job back; the job as it is then.
    pub(super) async fn cancel(&self, jobs: &Jobs, job: JobRecord) -> Result<JobRecord, Refusal> {
        let (dispatch, cancel, id) = (self.dispatch.clone(), jobs.clone(), job.id.clone());
        let canceled = to_its_end(async move {
            let canceled = cancel.cancel(&id).await;
            dispatch.withdraw(&id);
            canceled
        });
        match canceled.await?.map_err(unavailable)? {
            Changed::Now(job) => Ok(*job),
            Changed::Stale => {
                let now = jobs.store().find(None, &job.id).await;
                Ok(now.map_err(unavailable)?.unwrap_or(job))
            }
        }
    }

    /// `PATCH /_tabane/jobs/{id}`.
    pub(super) async fn patch(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let body = small(&call.body).await?;
        let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
            Refusal::BadRequest(format!(
                "send `{{\"priority\": 0..7, \"start_by\": \"10m\"}}`: {error}"
            ))
        })?;
        let urgency = match wanted.priority {
            None => None,
            Some(urgency @ 0..=7) => Some(allowed(call, &job.service, Urgency::new(urgency))),
            Some(other) => {
                let why = format!("`priority` is 0 to 7, got {other}");
                return Err(Refusal::BadRequest(why));
            }
        };
        let start_by = match wanted.start_by {
            None => None,
            Some(None) => Some(None),
            Some(Some(text)) => match span(&text) {
                Some(wait) => Some(Some(jobs.now().after(wait))),
                None => {
                    let why = format!("`start_by`: `{text}` is no duration; write `10m`");
                    return Err(Refusal::BadRequest(why));
                }
            },
        };
        let patch = Patch {
            urgency: urgency.map(Urgency::value),
            start_by,
        };
        let (dispatch, change, own) = (self.dispatch.clone(), jobs.clone(), job.id.clone());
        let changed = to_its_end(async move {
            let changed = change.store().patch(&own, patch, change.now()).await;
            let changed = change.told(changed);
            if let Ok(Changed::Now(job)) = &changed {
                dispatch.reprioritise(&job.id, job.need.urgency);
            }
            changed
        });
        let Changed::Now(job) = changed.await?.map_err(unavailable)? else {
            return Err(Refusal::Conflict(format!(
                "the job `{id}` does not wait any more"
            )));
        };
        let document = self.document_of(jobs, call.world, &job).await?;
        let mut answer = Answer::json(StatusCode::OK, &document);
        self.mark(&mut answer, &job);
        Ok(answer)
    }

    /// `POST /_tabane/jobs/{id}/retry`: it waits again, under its id.
    pub(super) async fn retry(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let Some(job) = self.again(jobs, &job).await? else {
            let state = job.state;
            return Err(Refusal::Conflict(format!(
                "the job `{id}` is {state}; failed, dead, canceled and expired ones can be retried"
            )));
        };
        self.accepted_document(jobs, call.world, &job, None).await
    }

    /// Lets a job wait again; `None`: it is in no state for it.
    ///
    /// Errors: no node could ever serve it.
    pub(super) async fn again(
        &self,
        jobs: &Jobs,
        job: &JobRecord,
    ) -> Result<Option<JobRecord>, Refusal> {
        if !job.state.is_over() || job.state == JobState::Succeeded {
            return Ok(None);
        }
        self.dispatch.could_again(job)?;
        let (dispatch, jobs, id) = (self.dispatch.clone(), jobs.clone(), job.id.clone());
        let retried = to_its_end(async move {
            let retried = jobs.retry(&id).await;
            if let Ok(Changed::Now(job)) = &retried {
                dispatch.enqueue(job);
            }
            retried
        });
        match retried.await?.map_err(unavailable)? {
            Changed::Now(job) => Ok(Some(*job)),
            Changed::Stale => Ok(None),
        }
    }
}

/// Does a change to its end, whether or not its client stays: half of it on disk would be a job that nobody looks after.
///
/// Errors: the gateway goes down.
pub(super) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(change)
        .await
        .map_err(|_| Refusal::ShuttingDown)
}

/// An urgency as far as whoever asks may have it, for a job of this service.
pub(super) fn allowed(call: &Call<'_>, service: &str, asked: Urgency) -> Urgency {
    if matches!(call.who, Who::Operator) {
        return asked;
    }
    let service = call.world.service(service);
    let cap = service.map_or(JobsPlan::default().priority_cap, |service| {
        service.plan.jobs.priority_cap
    });
    let own = match &call.who {
        Who::Tenant(caller) => call.world.priority_cap(&caller.tenant),
        _ => Urgency::FIRST,
    };
    asked.max(cap).max(own)
}
