//! What is said of a job: the JSON document that every answer about it carries.

use super::Progress;
use crate::store::{ArrayRecord, AttemptRecord, JobRecord, Moment};
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};
use tabane_api::JobState;

/// Where a job that waits stands, and when its turn may come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// How many of its service stand before it.
    pub position: Option<usize>,
    /// Seconds until it is done: half of such jobs are faster, and nine of ten.
    pub eta_s: Option<(f64, f64)>,
    /// Why it would wait for ever, as the file stands.
    pub stuck: Option<String>,
}

/// The document of a job; in lists, without its attempts. `at` is what its links begin with: `…/_tabane/jobs`.
pub fn document(
    job: &JobRecord,
    attempts: Option<&[AttemptRecord]>,
    progress: Option<&Progress>,
    standing: Standing,
    at: &str,
) -> Value {
    let mut doc = Map::new();
    let path = format!("{at}/{}", job.id);
    doc.insert("id".into(), json!(job.id));
    if let Some(id) = &job.client_id {
        doc.insert("client_id".into(), json!(id));
    }
    doc.insert("state".into(), json!(job.state.word()));
    if job.canceling && !job.state.is_over() {
        doc.insert("canceling".into(), json!(true));
    }
    doc.insert("service".into(), json!(job.service));
    doc.insert("tenant".into(), json!(job.tenant));
    doc.insert("class".into(), json!(job.need.class));
    doc.insert("priority".into(), json!(job.need.urgency.value()));
    doc.insert(
        "request".into(),
        json!({"method": job.method.as_str(), "target": job.uri.to_string(), "length": job.body_length}),
    );
    if let Some(position) = standing.position {
        doc.insert("position".into(), json!(position));
    }
    if let Some((p50, p90)) = standing.eta_s {
        doc.insert(
            "eta_s".into(),
            json!({"p50": tenths(p50), "p90": tenths(p90)}),
        );
    }
    if let Some(why) = standing.stuck {
        doc.insert("stuck".into(), json!(why));
    }
    let fraction = match progress {
        Some(progress) => progress.fraction,
        None => job.progress,
    };
    let text = match progress {
        Some(progress) => progress.text.as_deref(),
        None => job.progress_text.as_deref(),
    };
    if fraction.is_some() || text.is_some() {
        doc.insert(
            "progress".into(),
            json!({"fraction": fraction, "text": text}),
        );
    }
    doc.insert("accepted".into(), json!(moment(job.accepted)));
    for (name, at) in [
        ("started", job.started),
        ("ended", job.ended),
        ("start_by", job.start_by),
        (
            "not_before",
            job.not_before.filter(|_| job.state == JobState::Queued),
        ),
        ("keep_until", job.keep_until),
    ] {
        if let Some(at) = at {
            doc.insert(name.into(), json!(moment(at)));
        }
    }
    if let Some(error) = &job.error {
        doc.insert("error".into(), json!(error));
    }
    if !job.tags.is_empty() {
        doc.insert("tags".into(), json!(job.tags));
    }
    if let Some((array, item)) = &job.parent {
        doc.insert("array".into(), json!({"id": array, "item": item}));
    }
    if let Some(result) = &job.result {
        let kind = result.headers.get(http::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        doc.insert(
            "result".into(),
            json!({"status": result.status.as_u16(), "length": result.length, "content_type": kind}),
        );
    }
    if let Some(attempts) = attempts {
        let attempts: Vec<_> = attempts.iter().map(attempt).collect();
        doc.insert("attempts".into(), attempts.into());
    }
    doc.insert(
        "links".into(),
        json!({
            "self": path,
            "result": format!("{path}/result"),
            "events": format!("{path}/events"),
            "request": format!("{path}/request"),
            "log": format!("{path}/log"),
            "cancel": path,
        }),
    );
    Value::Object(doc)
}

fn attempt(attempt: &AttemptRecord) -> Value {
    let mut doc = Map::new();
    doc.insert("number".into(), json!(attempt.number));
    doc.insert("node".into(), json!(attempt.endpoint));
    doc.insert("started".into(), json!(moment(attempt.started)));
    if let Some(ended) = attempt.ended {
        doc.insert("ended".into(), json!(moment(ended)));
    }
    if let Some(outcome) = &attempt.outcome {
        doc.insert("outcome".into(), json!(outcome));
    }
    if let Some(error) = &attempt.error {
        doc.insert("error".into(), json!(error));
    }
    Value::Object(doc)
}

/// The document of an array. `at` is what its links begin with: `…/_tabane/arrays`.
pub fn array_document(array: &ArrayRecord, at: &str) -> Value {
    let path = format!("{at}/{}", array.id);
    let mut counts = Map::new();
    let (mut done, mut total) = (0, 0);
    for (state, count) in JobState::ALL.into_iter().zip(array.counts) {
        if count > 0 {
            counts.insert(state.word().into(), json!(count));
        }
        total += count;
        done += if state.is_over() { count } else { 0 };
    }
    json!({
        "id": array.id,
        "array": true,
        "state": array_state(array).word(),
        "service": array.service,
        "tenant": array.tenant,
        "accepted": moment(array.accepted),
        "ended": array.ended.map(moment),
        "tags": array.tags,
        "total": total,
        "done": done,
        "counts": counts,
        "progress": {"fraction": f64::from(done) / f64::from(total.max(1)), "text": format!("{done}/{total}")},
        "links": {
            "self": path,
            "jobs": format!("{path}/jobs"),
            "events": format!("{path}/events"),
            "results": format!("{path}/results.zip"),
            "cancel": path,
        },
    })
}

/// An array is as its worst child, once all are over.
fn array_state(array: &ArrayRecord) -> JobState {
    let has = |state: JobState| {
        let index = JobState::ALL.iter().position(|s| *s == state);
        index.is_some_and(|index| array.counts[index] > 0)
    };
    let worst_first = [
        JobState::Dead,
        JobState::Failed,
        JobState::Expired,
        JobState::Canceled,
        JobState::Succeeded,
    ];
    if array.ended.is_none() {
        let began =
            has(JobState::Running) || has(JobState::Starting) || worst_first.into_iter().any(has);
        return match began {
            true => JobState::Running,
            false => JobState::Queued,
        };
    }
    worst_first
        .into_iter()
        .find(|state| has(*state))
        .unwrap_or(JobState::Succeeded)
}

/// A moment as people and programs read it (RFC 3339, UTC, milliseconds).
pub fn moment(at: Moment) -> String {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or_default());
    // Past the year 9999 there is no such form.
    let since = since.min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
