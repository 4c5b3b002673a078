//! How a job stands.

use super::answer::{Answer, Payload};
use super::ask::Prefer;
use super::collect::Wait;
use super::submit::jobs_base;
use super::{Call, Wire, unavailable};
use crate::dispatch::World;
use crate::jobs::{Jobs, Standing, document};
use crate::store::JobRecord;
use bytes::Bytes;
use http::{HeaderName, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tabane_api::Refusal;

pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JOB_ID: HeaderName = HeaderName::from_static("job-id");
pub(super) const JOB_STATE: HeaderName = HeaderName::from_static("job-state");
const JOB_POSITION: HeaderName = HeaderName::from_static("job-position");
const JOB_ETA: HeaderName = HeaderName::from_static("job-eta");

impl Wire {
    /// `GET /_tabane/jobs/{id}`: with `Prefer: wait=N`, once its state changes.
    pub(super) async fn status(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let mut job = self.find(jobs, call, id).await?;
        let wait = Prefer::read(call.headers).wait;
        // Whoever knows an older state hears of the new one at once.
        let missed = call.headers.contains_key(header::IF_NONE_MATCH) && {
            let mut now = Answer::json(
                StatusCode::OK,
                &self.document_of(jobs, call.world, &job).await?,
            );
            tag(call, &mut now);
            now.status != StatusCode::NOT_MODIFIED
        };
        if let Some(wait) = wait.filter(|_| !missed) {
            job = self.until(jobs, job, wait, Wait::Change).await?;
        }
        let mut answer = Answer::json(
            StatusCode::OK,
            &self.document_of(jobs, call.world, &job).await?,
        );
        self.mark(&mut answer, &job);
        if let Some(wait) = wait {
            let applied = format!("wait={}", wait.as_secs());
            answer.set(PREFERENCE_APPLIED, &applied);
        }
        tag(call, &mut answer);
        Ok(answer)
    }

    /// 202, and the job's document.
    pub(super) async fn accepted_document(
        &self,
        jobs: &Jobs,
        world: &World,
        job: &JobRecord,
        waited: Option<Duration>,
    ) -> Result<Answer, Refusal> {
        let document = self.document_of(jobs, world, job).await?;
        let mut answer = Answer::json(StatusCode::ACCEPTED, &document);
        let id = job.client_id.as_ref().unwrap_or(&job.id);
        let place = format!("{}/{id}", jobs_base(world));
        answer.set(header::LOCATION, &place);
        // Clients of FHIR look for it here.
        answer.set(header::CONTENT_LOCATION, &place);
        let applied = match waited {
            Some(wait) => format!("respond-async, wait={}", wait.as_secs()),
            None => "respond-async".to_owned(),
        };
        answer.set(PREFERENCE_APPLIED, &applied);
        answer.set(header::VARY, "Prefer");
        self.mark(&mut answer, job);
        Ok(answer)
    }

    /// Puts how a job stands into an answer's headers.
    pub(super) fn mark(&self, answer: &mut Answer, job: &JobRecord) {
        answer.set(JOB_ID, &job.id);
        answer.set(JOB_STATE, job.state.word());
        if job.state.is_over() {
            return;
        }
        let Standing {
            position, eta_s, ..
        } = self.dispatch.standing(job);
        if let Some(position) = position {
            answer.set(JOB_POSITION, &position.to_string());
        }
        if let Some((p50, _)) = eta_s {
            answer.set(JOB_ETA, &format!("{:.0}", p50.ceil()));
        }
        // Often enough to be told soon, seldom enough for a day's queue (jobs.md 1.3).
        let again = eta_s.map_or(5.0, |(p50, _)| (p50 / 4.0).clamp(1.0, 60.0));
        answer.set(header::RETRY_AFTER, &format!("{:.0}", again.ceil()));
    }

    /// The job's document.
    pub(super) async fn document_of(
        &self,
        jobs: &Jobs,
        world: &World,
        job: &JobRecord,
    ) -> Result<Value, Refusal> {
        let attempts = match job.attempt {
            0 => Vec::new(),
            _ => jobs.store().attempts(&job.id).await.map_err(unavailable)?,
        };
        let progress = jobs.progress(&job.id).filter(|_| !job.state.is_over());
        let standing = self.dispatch.standing(job);
        Ok(document(
            job,
            Some(&attempts),
            progress.as_ref(),
            standing,
            &jobs_base(world),
        ))
    }
}

/// Names an answer's body, and leaves it out if the client has it already.
pub(super) fn tag(call: &Call<'_>, answer: &mut Answer) {
    let Payload::Bytes(body) = &answer.body else {
        return;
    };
    let tag = etag(body);
    answer.set(header::ETAG, &tag);
    if is_known(call, &tag) {
        answer.status = StatusCode::NOT_MODIFIED;
        answer.body = Payload::Bytes(Bytes::new());
        answer.headers.remove(header::CONTENT_TYPE);
    }
}

/// Names a body (RFC 9110, 8.8.3).
fn etag(body: &[u8]) -> String {
    use std::fmt::Write;
    let mut tag = String::from("\"");
    for byte in &Sha256::digest(body)[..12] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// Whether the client has this already (RFC 9110, 13.1.2).
fn is_known(call: &Call<'_>, tag: &str) -> bool {
    let values = call.headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tags.any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*")
}
