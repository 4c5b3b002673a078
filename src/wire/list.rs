//! Jobs, the newest first.

use super::answer::Answer;
use super::submit::{jobs_base, query};
use super::{Call, Who, Wire, unavailable};
use crate::jobs::{Jobs, document};
use crate::store::Filter;
use http::{StatusCode, header};
use serde_json::json;
use tabane_api::{JobState, Refusal};

/// How many jobs one page has unless the client says less or more.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

impl Wire {
    /// `GET /_tabane/jobs?state=&service=&tag=&class=&array=&cursor=&limit=`.
    pub(super) async fn list(&self, jobs: &Jobs, call: &Call<'_>) -> Result<Answer, Refusal> {
        let filter = filter(call)?;
        self.page(jobs, call, filter, &jobs_base(call.world)).await
    }

    /// A page of the jobs that a filter lets through. `at` is where it was asked for.
    pub(super) async fn page(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        mut filter: Filter,
        at: &str,
    ) -> Result<Answer, Refusal> {
        match &call.who {
            Who::Tenant(caller) => filter.tenant = Some(caller.tenant.clone()),
            Who::Operator => filter.tenant = query(call.query, "tenant").map(Into::into),
            Who::Nobody(why) => return Err(why.clone()),
        }
        let limit = filter.limit;
        // One more tells whether there is a next page.
        filter.limit += 1;
        let mut found = jobs.store().list(filter).await.map_err(unavailable)?;
        let next = (found.len() > limit).then(|| {
            found.truncate(limit);
            found.last().map(|job| job.seq.to_string())
        });
        let base = jobs_base(call.world);
        let documents: Vec<_> = found
            .iter()
            .map(|job| {
                let progress = jobs.progress(&job.id).filter(|_| !job.state.is_over());
                let standing = self.dispatch.standing(job);
                document(job, None, progress.as_ref(), standing, &base)
            })
            .collect();
        let next = next.flatten();
        let page = json!({"jobs": documents, "next": next});
        let mut answer = Answer::json(StatusCode::OK, &page);
        if let Some(next) = next {
            let pairs = form_urlencoded::parse(call.query.unwrap_or_default().as_bytes());
            let kept = pairs.filter(|(name, _)| name != "cursor");
            let mut again = form_urlencoded::Serializer::new(String::new());
            again.extend_pairs(kept).append_pair("cursor", &next);
            let link = format!("<{at}?{}>; rel=\"next\"", again.finish());
            answer.set(header::LINK, &link);
        }
        Ok(answer)
    }
}

pub(super) fn filter(call: &Call<'_>) -> Result<Filter, Refusal> {
    let mut filter = Filter {
        limit: PAGE,
        ..Filter::default()
    };
    let pairs = form_urlencoded::parse(call.query.unwrap_or_default().as_bytes());
    for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
        match &*name {
            "state" => {
                for word in value.split(',') {
                    let state = JobState::from_word(word).ok_or_else(|| {
                        let words = JobState::ALL.map(JobState::word).join(", ");
                        Refusal::BadRequest(format!("`{word}` is no state; there are {words}"))
                    })?;
                    filter.states.push(state);
                }
            }
            "service" => filter.service = Some(value.into_owned()),
            "tag" => filter.tag = Some(value.into_owned()),
            "class" => filter.class = Some(value.into_owned()),
            "array" => filter.parent = Some(value.into()),
            "cursor" => match value.parse() {
                Ok(seq) => filter.before = Some(seq),
                Err(_) => return Err(Refusal::BadRequest(format!("`{value}` is no cursor"))),
            },
            "limit" => match value.parse() {
                Ok(limit @ 1..=LARGEST_PAGE) => filter.limit = limit,
                _ => {
                    let why = format!("`limit` is 1 to {LARGEST_PAGE}");
                    return Err(Refusal::BadRequest(why));
                }
            },
            // A key in the URL is no filter.
            "token" | "tenant" => {}
            other => {
                let known = "state, service, tag, class, array, cursor, limit";
                let why = format!("`{other}` is no filter; there are {known}");
                return Err(Refusal::BadRequest(why));
            }
        }
    }
    Ok(filter)
}
