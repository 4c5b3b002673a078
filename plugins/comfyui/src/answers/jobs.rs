//! `/api/jobs`: what waits, runs and was, in one list, also in front of servers that have none.

use super::Call;
use super::queue::stamps;
use crate::ending;
use crate::entry::Summary;
use crate::json::{Json, Object, object};
use crate::ledger::{Phase, Prompt};
use crate::reply::{Reply, json, ok};
use http::StatusCode;
use std::sync::Arc;

const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];

impl Call<'_> {
    /// `GET /api/jobs`
    pub(super) fn jobs(&self) -> Reply {
        let asked = match Asked::read(self) {
            Ok(asked) => asked,
            Err(why) => return Ok(wrong(&why)),
        };
        let ledger = &self.kind.desk.ledger;
        let (running, waiting) = ledger.queue();
        let running = running.iter().map(|prompt| queued(prompt, "in_progress"));
        let waiting = waiting.iter().map(|prompt| queued(prompt, "pending"));
        let past = ledger.past().into_iter();
        let past = past.filter_map(|prompt| listed(&prompt));
        let mut jobs: Vec<Object> = running
            .chain(waiting)
            .chain(past)
            .filter(|job| asked.wants(job))
            .collect();
        let key = |job: &Object| {
            let number = |key| {
                job.get(key)
                    .and_then(Json::number)
                    .map_or(0.0, |n| n.value())
            };
            match asked.by_duration {
                false => number("create_time"),
                true => number("execution_end_time") - number("execution_start_time"),
            }
        };
        // Equal ones stay in their order both ways, as Python's `sorted(.., reverse=True)` leaves them.
        jobs.sort_by(|one, other| {
            let by_key = key(one).total_cmp(&key(other));
            if asked.descending {
                by_key.reverse()
            } else {
                by_key
            }
        });
        let total = jobs.len();
        let shown: Vec<Json> = jobs
            .into_iter()
            .skip(asked.offset)
            .take(asked.limit.unwrap_or(usize::MAX))
            .map(Json::Object)
            .collect();
        let has_more = asked.offset + shown.len() < total;
        Ok(ok(&object! {
            "jobs": shown,
            "pagination": object! {
                "offset": count(asked.offset),
                "limit": asked.limit.map(count),
                "total": count(total),
                "has_more": has_more,
            },
        }))
    }

    /// `GET /api/jobs/{id}`
    pub(super) async fn job(&self, id: &str) -> Reply {
        let missing = || json(StatusCode::NOT_FOUND, &object! {"error": "Job not found"});
        let Some(prompt) = self.kind.desk.ledger.get(id) else {
            return Ok(missing());
        };
        let Some(mut job) = listed(&prompt) else {
            return Ok(missing());
        };
        if let Some(entry) = self.entry(&prompt).await? {
            job.insert("outputs".into(), entry.outputs.clone().into());
            job.insert("execution_status".into(), entry.status());
        }
        let stored = self.stored(&prompt).await?;
        let workflow = object! {
            "prompt": stored.submission.body().get("prompt").cloned(),
            "extra_data": stored.extra_data(stamps(self.kind)),
        };
        job.insert("workflow".into(), workflow);
        Ok(ok(&job.into()))
    }
}

/// What is asked for.
struct Asked {
    statuses: Vec<String>,
    workflow: Option<String>,
    by_duration: bool,
    descending: bool,
    limit: Option<usize>,
    offset: usize,
}

impl Asked {
    fn read(call: &Call<'_>) -> Result<Self, String> {
        let lower = |name, default: &str| call.value(name).unwrap_or(default).to_lowercase();
        let statuses = lower("status", "");
        let statuses: Vec<String> = statuses
            .split(',')
            .map(|status| status.trim().to_owned())
            .filter(|status| !status.is_empty())
            .collect();
        let unknown: Vec<&str> = statuses
            .iter()
            .map(String::as_str)
            .filter(|status| !STATUSES.contains(status))
            .collect();
        if !unknown.is_empty() {
            let (unknown, all) = (unknown.join(", "), STATUSES.join(", "));
            return Err(format!(
                "Invalid status value(s): {unknown}. Valid values: {all}"
            ));
        }
        let (by, order) = (lower("sort_by", "created_at"), lower("sort_order", "desc"));
        if by != "created_at" && by != "execution_duration" {
            return Err("sort_by must be 'created_at' or 'execution_duration'".into());
        }
        if order != "asc" && order != "desc" {
            return Err("sort_order must be 'asc' or 'desc'".into());
        }
        let limit = match call.value("limit").map(str::parse::<i64>) {
            None => None,
            Some(Ok(limit)) if limit > 0 => usize::try_from(limit).ok(),
            Some(Ok(_)) => return Err("limit must be a positive integer".into()),
            Some(Err(_)) => return Err("limit must be an integer".into()),
        };
        let offset = match call.value("offset").map_or(Ok(0), str::parse::<i64>) {
            Ok(offset) => usize::try_from(offset).unwrap_or(0),
            Err(_) => return Err("offset must be an integer".into()),
        };
        let workflow = call.value("workflow_id").filter(|id| !id.is_empty());
        Ok(Asked {
            statuses,
            workflow: workflow.map(str::to_owned),
            by_duration: by == "execution_duration",
            descending: order == "desc",
            limit,
            offset,
        })
    }

    fn wants(&self, job: &Object) -> bool {
        let text = |key| job.get(key).and_then(Json::text).unwrap_or_default();
        let status = text("status");
        (self.statuses.is_empty() || self.statuses.iter().any(|wanted| wanted == status))
            && self
                .workflow
                .as_ref()
                .is_none_or(|workflow| text("workflow_id") == workflow)
    }
}

fn wrong(why: &str) -> http::Response<tabane_api::Body> {
    json(StatusCode::BAD_REQUEST, &object! {"error": why})
}

fn count(count: usize) -> Json {
    Json::integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A prompt in the list; `None`: it is not taken in yet, or gone.
fn listed(prompt: &Arc<Prompt>) -> Option<Object> {
    Some(match prompt.phase() {
        Phase::Waiting => queued(prompt, "pending"),
        Phase::Running { .. } => queued(prompt, "in_progress"),
        Phase::Over(_) => past(prompt, &*ending::summary(prompt)?),
        Phase::Taking | Phase::Gone => return None,
    })
}

fn begin(prompt: &Prompt, status: &str) -> Object {
    let mut job = Object::new();
    put(&mut job, "id", Some((&*prompt.id).into()));
    put(&mut job, "status", Some(status.into()));
    put(&mut job, "priority", Some(prompt.label.number.clone()));
    let created = Json::integer(prompt.label.created_ms);
    put(&mut job, "create_time", Some(created));
    job
}

fn queued(prompt: &Prompt, status: &str) -> Object {
    let mut job = begin(prompt, status);
    put(&mut job, "outputs_count", Some(count(0)));
    put(&mut job, "previewable_outputs_count", Some(count(0)));
    put(&mut job, "workflow_id", prompt.label.workflow_id.clone());
    job
}

fn past(prompt: &Prompt, summary: &Summary) -> Object {
    let mut job = begin(prompt, summary.status.word());
    put(&mut job, "execution_start_time", summary.started.clone());
    put(&mut job, "execution_end_time", summary.ended.clone());
    put(&mut job, "execution_error", summary.error.clone());
    let (outputs, seen) = summary.outputs;
    put(&mut job, "outputs_count", Some(count(outputs)));
    put(&mut job, "previewable_outputs_count", Some(count(seen)));
    put(&mut job, "preview_output", summary.preview.clone());
    put(&mut job, "workflow_id", prompt.label.workflow_id.clone());
    job
}

/// What is not known is left out.
fn put(job: &mut Object, key: &str, value: Option<Json>) {
    if let Some(value) = value.filter(|value| *value != Json::Null) {
        job.insert(key.into(), value);
    }
}
