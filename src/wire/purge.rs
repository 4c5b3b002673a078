//! Jobs that are over are deleted, many at once.

use super::answer::Answer;
use super::ask::span;
use super::submit::query;
use super::{Call, Who, Wire, unavailable};
use crate::store::Filter;
use http::StatusCode;
use serde_json::json;
use tabane_api::{JobState, Refusal};

/// How many jobs are looked at in one step.
const PAGE: usize = 500;

impl Wire {
    /// `POST …/jobs/purge?state=&older=&service=&tenant=`: for operators.
    ///
    /// Errors: a state is none that jobs end in.
    pub async fn purge(&self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let jobs = self.jobs()?;
        if !matches!(call.who, Who::Operator) {
            return Err(Refusal::Forbidden("operators purge jobs".into()));
        }
        let states = match query(call.query, "state") {
            None => JobState::ALL.into_iter().filter(|s| s.is_over()).collect(),
            Some(words) => words.split(',').map(over).collect::<Result<Vec<_>, _>>()?,
        };
        let older = match query(call.query, "older") {
            None => None,
            Some(text) => Some(span(&text).ok_or_else(|| {
                Refusal::BadRequest(format!("`older={text}` is no duration; write `24h`"))
            })?),
        };
        let ended_before = older.map_or(i64::MAX, |older| {
            jobs.now().0 - i64::try_from(older.as_millis()).unwrap_or(i64::MAX)
        });
        let mut filter = Filter {
            tenant: query(call.query, "tenant").map(Into::into),
            states,
            service: query(call.query, "service"),
            limit: PAGE,
            ..Filter::default()
        };
        let mut deleted = 0_u64;
        loop {
            let page = jobs.store().list(filter.clone()).await;
            let page = page.map_err(unavailable)?;
            let Some(last) = page.last() else { break };
            filter.before = Some(last.seq);
            for job in page {
                if job.ended.is_some_and(|ended| ended.0 < ended_before)
                    && jobs.store().delete(&job.id).await.map_err(unavailable)?
                {
                    deleted += 1;
                }
            }
        }
        let document = json!({"deleted": deleted});
        Ok(Answer::json(StatusCode::OK, &document))
    }
}

/// The state of this word, if jobs end in it.
pub(super) fn over(word: &str) -> Result<JobState, Refusal> {
    let state = JobState::from_word(word).filter(|state| state.is_over());
    state.ok_or_else(|| {
        let over = JobState::ALL.into_iter().filter(|state| state.is_over());
        let words: Vec<_> = over.map(JobState::word).collect();
        let words = words.join(", ");
        Refusal::BadRequest(format!("no job ends `{word}`; they end {words}"))
    })
}
