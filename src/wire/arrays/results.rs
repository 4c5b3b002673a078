//! The results of an array as one zip, read from the store while the client reads.
//!
//! A job that succeeded is its result, byte for byte; one that ended otherwise is its document. What is not over is
//! not there: a zip can be fetched at any time, and again.
//!
//! In memory are the ids of the jobs (60 bytes each) and what a zip keeps of its entries, never a result.

use super::names::{error_name, result_name};
use crate::jobs::{Jobs, Standing, document, frame_of};
use crate::store::{Filter, JobId, JobRecord};
use crate::wire::answer::{Answer, Payload};
use crate::wire::purge::over;
use crate::wire::submit::{jobs_base, query};
use crate::wire::zip::{Zip, zip};
use crate::wire::{Call, Wire, unavailable};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use std::io;
use tabane_api::{Content, JobState, Refusal};

/// How many jobs are read at once.
const PAGE: usize = 1000;

impl Wire {
    /// `GET /_tabane/arrays/{id}/results.zip?state=`.
    pub(super) async fn array_results(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let array = self.find_array(jobs, call, id).await?;
        let states = match query(call.query, "state") {
            None => JobState::ALL.into_iter().filter(|s| s.is_over()).collect(),
            Some(words) => words.split(',').map(over).collect::<Result<Vec<_>, _>>()?,
        };
        let ids = ids(jobs, &array.id, &states).await?;
        let (jobs, base) = (jobs.clone(), jobs_base(call.world));
        let written = zip(async move |mut zip: Zip| {
            for id in ids {
                add(&mut zip, &jobs, &id, &states, &base).await?;
            }
            zip.finish().await
        });
        let mut answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Payload::Live(Box::pin(written)),
        };
        answer.set(header::CONTENT_TYPE, "application/zip");
        let file = format!("attachment; filename=\"{}.zip\"", array.id);
        answer.set(header::CONTENT_DISPOSITION, &file);
        answer.set(header::CACHE_CONTROL, "no-cache");
        Ok(answer)
    }
}

/// The jobs of an array in these states, the first first.
async fn ids(jobs: &Jobs, array: &JobId, states: &[JobState]) -> Result<Vec<JobId>, Refusal> {
    let mut filter = Filter {
        parent: Some(array.clone()),
        states: states.to_vec(),
        limit: PAGE,
        ..Filter::default()
    };
    let mut ids = Vec::new();
    loop {
        let page = jobs.store().list(filter.clone()).await;
        let page = page.map_err(unavailable)?;
        let Some(last) = page.last() else { break };
        filter.before = Some(last.seq);
        ids.extend(page.into_iter().map(|job| job.id));
    }
    ids.reverse();
    Ok(ids)
}

/// Adds what there is of a job, if it is still in one of these states.
async fn add(
    zip: &mut Zip,
    jobs: &Jobs,
    id: &JobId,
    states: &[JobState],
    base: &str,
) -> io::Result<()> {
    let job = jobs
        .store()
        .find(None, id)
        .await
        .map_err(io::Error::other)?;
    // Deleted or retried since it was listed.
    let Some(job) = job.filter(|job| states.contains(&job.state)) else {
        return Ok(());
    };
    let frame = frame_of(&job).unwrap_or_else(|| item(&job));
    let at = job.ended.unwrap_or(job.accepted);
    match result(jobs, &job).await? {
        Ok((head, content)) => zip.add(&result_name(frame, head), at, &content).await,
        Err(why) => {
            zip.add(&error_name(frame), at, &said(&job, why, base))
                .await
        }
    }
}

/// The result of a job that succeeded, or why there is none.
async fn result<'a>(
    jobs: &Jobs,
    job: &'a JobRecord,
) -> io::Result<Result<(&'a HeaderMap, Content), Option<&'static str>>> {
    let Some(head) = job
        .result
        .as_ref()
        .filter(|_| job.state == JobState::Succeeded)
    else {
        return Ok(Err(None));
    };
    let kept = jobs
        .store()
        .result(&job.id)
        .await
        .map_err(io::Error::other)?;
    let Some(kept) = kept else {
        return Ok(Err(Some("the result is not kept any more")));
    };
    match jobs.content(&kept).await {
        Ok(content) => Ok(Ok((&head.headers, content))),
        Err(error) => {
            tracing::error!(job = %job.id, %error, "a body that is on record cannot be read");
            Ok(Err(Some("the result cannot be read from the disk")))
        }
    }
}

/// A job's document, with another reason than its own if there is one.
fn said(job: &JobRecord, why: Option<&str>, base: &str) -> Content {
    let mut document = document(job, None, None, Standing::default(), base);
    if let Some(why) = why {
        document["error"] = json!(why);
    }
    let mut text = document.to_string();
    text.push('\n');
    Content::Bytes(text.into())
}

fn item(job: &JobRecord) -> i32 {
    let item = job.parent.as_ref().map_or(0, |(_, item)| *item);
    i32::try_from(item).unwrap_or(i32::MAX)
}
