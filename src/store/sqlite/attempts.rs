//! What an attempt may change of its job: only while it is the latest, and the job is at work.

use super::change::Change;
use super::rows::{self, Held};
use super::{StoreError, now_is};
use crate::store::{Changed, Ended, Kept, Moment, Next, ResultHead};
use rusqlite::params;
use serde_json::json;
use std::sync::Arc;
use tabane_api::JobState;

/// A body up to so many bytes is no more than the rest of what is written of a job.
const SMALL: usize = 1 << 10;

/// A new attempt begins.
pub(super) fn start(
    change: &Change<'_>,
    id: &str,
    endpoint: &str,
    now: Moment,
) -> Result<Changed, StoreError> {
    let Some(mut held) = rows::by_id(change.database, id)? else {
        return Ok(Changed::Stale);
    };
    let job = &mut held.record;
    let due = job.not_before.is_none_or(|moment| moment <= now);
    let late = job.start_by.is_some_and(|moment| moment <= now);
    if job.state != JobState::Queued || !due || late {
        return Ok(Changed::Stale);
    }
    job.state = JobState::Starting;
    job.attempt += 1;
    job.started = Some(now);
    job.not_before = None;
    job.error = None;
    let mut statement = change.database.prepare_cached(
        "INSERT INTO attempts (job, number, endpoint, started, submitting) VALUES (?1, ?2, ?3, ?4, 0)",
    )?;
    statement.execute(params![job.seq, job.attempt, endpoint, now])?;
    let data = json!({"attempt": job.attempt, "endpoint": endpoint});
    now_is(change.made(held, now, "started", &data)?)
}

/// The attempt is about to hand its work over.
pub(super) fn submitting(
    change: &Change<'_>,
    id: &str,
    attempt: u32,
) -> Result<Changed, StoreError> {
    let Some(held) = at_work(change, id, attempt)? else {
        return Ok(Changed::Stale);
    };
    let mut statement = change
        .database
        .prepare_cached("UPDATE attempts SET submitting = 1 WHERE job = ?1 AND number = ?2")?;
    statement.execute(params![held.record.seq, attempt])?;
    now_is(held.record)
}

/// The backend calls the work so.
pub(super) fn handle(
    change: &Change<'_>,
    id: &str,
    attempt: u32,
    handle: &str,
    now: Moment,
) -> Result<Changed, StoreError> {
    let Some(held) = at_work(change, id, attempt)? else {
        return Ok(Changed::Stale);
    };
    let mut statement = change
        .database
        .prepare_cached("UPDATE attempts SET handle = ?3 WHERE job = ?1 AND number = ?2")?;
    statement.execute(params![held.record.seq, attempt, handle])?;
    runs(change, held, now)
}

/// The node works.
pub(super) fn running(
    change: &Change<'_>,
    id: &str,
    attempt: u32,
    now: Moment,
) -> Result<Changed, StoreError> {
    match at_work(change, id, attempt)? {
        Some(held) => runs(change, held, now),
        None => Ok(Changed::Stale),
    }
}

fn runs(change: &Change<'_>, mut held: Held, now: Moment) -> Result<Changed, StoreError> {
    if held.record.state == JobState::Running {
        return now_is(held.record);
    }
    held.record.state = JobState::Running;
    let data = json!({"attempt": held.record.attempt});
    now_is(change.made(held, now, "running", &data)?)
}

/// How far the attempt is.
pub(super) fn progress(
    change: &Change<'_>,
    id: &str,
    attempt: u32,
    (fraction, text): (Option<f64>, Option<&str>),
    log: &[String],
    now: Moment,
) -> Result<Changed, StoreError> {
    let Some(mut held) = at_work(change, id, attempt)? else {
        return Ok(Changed::Stale);
    };
    held.record.progress = fraction;
    held.record.progress_text = text.map(str::to_owned);
    if !log.is_empty() {
        let data = json!({"attempt": attempt, "lines": log});
        return now_is(change.made(held, now, "log", &data)?);
    }
    let mut statement = change
        .database
        .prepare_cached("UPDATE jobs SET progress = ?2, progress_text = ?3 WHERE seq = ?1")?;
    statement.execute(params![held.record.seq, fraction, text])?;
    now_is(held.record)
}

/// The attempt ended.
pub(super) fn end(
    change: &Change<'_>,
    id: &str,
    attempt: u32,
    ended: &Ended,
    now: Moment,
) -> Result<Changed, StoreError> {
    let leads_on = !matches!(&ended.next, Next::Over(state, _) if !state.is_over());
    let Some(mut held) = at_work(change, id, attempt)?.filter(|_| leads_on) else {
        if let Some(blob) = brought(ended) {
            change.free(blob);
        }
        return Ok(Changed::Stale);
    };
    let job = &mut held.record;
    job.error = ended.error.clone();
    let endpoint = closed(change, job.seq, attempt, ended, now)?;
    match &ended.next {
        Next::Over(state, result) => {
            job.state = *state;
            if let Some((head, body)) = result {
                keep(change, job.seq, head, body)?;
                job.result = Some(head.clone());
            }
        }
        Next::Again { not_before, counts } => {
            if *counts {
                job.failures += 1;
                if !job.failed_on.contains(&endpoint) {
                    job.failed_on.push(endpoint);
                }
            }
            job.progress = None;
            job.progress_text = None;
            if job.canceling {
                job.state = JobState::Canceled;
            } else {
                job.state = JobState::Queued;
                job.not_before = *not_before;
                let data = json!({
                    "attempt": attempt,
                    "outcome": ended.outcome,
                    "error": ended.error,
                    "not_before": not_before.map(|moment| moment.0),
                });
                return now_is(change.made(held, now, "retry", &data)?);
            }
        }
    }
    job.canceling = false;
    let data = json!({"state": job.state.word(), "attempt": attempt, "error": ended.error});
    now_is(change.made(held, now, "finished", &data)?)
}

/// The blob that the result of an attempt lies in.
fn brought(ended: &Ended) -> Option<Arc<str>> {
    match &ended.next {
        Next::Over(_, Some((_, body))) => rows::blob_of(body).map(|blob| blob.name.clone()),
        _ => None,
    }
}

/// The job, if this is its latest attempt and it is at work.
fn at_work(change: &Change<'_>, id: &str, attempt: u32) -> Result<Option<Held>, StoreError> {
    let held = rows::by_id(change.database, id)?;
    Ok(held.filter(|held| {
        held.record.attempt == attempt
            && matches!(held.record.state, JobState::Starting | JobState::Running)
    }))
}

/// Writes the attempt's end; gives the endpoint it was on.
fn closed(
    change: &Change<'_>,
    job: i64,
    attempt: u32,
    ended: &Ended,
    now: Moment,
) -> Result<Arc<str>, StoreError> {
    let mut statement = change.database.prepare_cached(
        "UPDATE attempts SET ended = ?3, outcome = ?4, error = ?5 WHERE job = ?1 AND number = ?2 RETURNING endpoint",
    )?;
    let values = params![job, attempt, now, ended.outcome, ended.error];
    Ok(statement.query_row(values, |row| row.get(0))?)
}

fn keep(change: &Change<'_>, job: i64, head: &ResultHead, body: &Kept) -> Result<(), StoreError> {
    // Results in rows must not use up the room in which accepted jobs are written to their end.
    if let Kept::Row(bytes) = body
        && bytes.len() > SMALL
    {
        change.room_for(bytes.len() as u64)?;
    }
    let body = rows::columns(body);
    let mut statement = change.database.prepare_cached(
        "INSERT INTO results (job, status, headers, blob, length, sha256, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let status = head.status.as_u16();
    let headers = rows::Headers(&head.headers);
    statement.execute(params![
        job,
        status,
        headers,
        body.blob,
        body.length,
        body.sha256,
        body.bytes
    ])?;
    Ok(())
}
