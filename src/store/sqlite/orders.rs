//! What people and time do to a job: it is taken back, tried again, changed, expired, deleted.

use super::change::Change;
use super::rows::{self, Held};
use super::{StoreError, arrays, letters, now_is};
use crate::store::{Changed, JobRecord, Moment, Patch};
use rusqlite::params;
use serde_json::json;
use std::sync::Arc;
use tabane_api::{JobState, Urgency};

/// Takes a job back.
pub(super) fn cancel(change: &Change<'_>, id: &str, now: Moment) -> Result<Changed, StoreError> {
    let Some(mut held) = rows::by_id(change.database, id)? else {
        return Ok(Changed::Stale);
    };
    let job = &mut held.record;
    if job.state.is_over() || job.canceling {
        return Ok(Changed::Stale);
    }
    if job.state == JobState::Queued {
        job.state = JobState::Canceled;
        let data = json!({"state": job.state.word()});
        return now_is(change.made(held, now, "finished", &data)?);
    }
    job.canceling = true;
    now_is(change.made(held, now, "canceling", &json!({}))?)
}

/// A job that waits is dead.
pub(super) fn give_up(
    change: &Change<'_>,
    id: &str,
    why: &str,
    now: Moment,
) -> Result<Changed, StoreError> {
    let held = rows::by_id(change.database, id)?;
    let Some(mut held) = held.filter(|held| held.record.state == JobState::Queued) else {
        return Ok(Changed::Stale);
    };
    let job = &mut held.record;
    job.state = JobState::Dead;
    job.error = Some(why.to_owned());
    let data = json!({"state": job.state.word(), "error": why});
    now_is(change.made(held, now, "finished", &data)?)
}

/// A job that came to nothing waits again.
pub(super) fn retry(change: &Change<'_>, id: &str, now: Moment) -> Result<Changed, StoreError> {
    let held = rows::by_id(change.database, id)?;
    let Some(mut held) =
        held.filter(|held| held.record.state.is_over() && held.record.state != JobState::Succeeded)
    else {
        return Ok(Changed::Stale);
    };
    let job = &mut held.record;
    job.state = JobState::Queued;
    job.failures = 0;
    job.failed_on.clear();
    job.ended = None;
    job.keep_until = None;
    job.error = None;
    job.progress = None;
    job.progress_text = None;
    job.result = None;
    // With a deadline that has passed it would expire at once.
    job.start_by = job.start_by.filter(|moment| *moment > now);
    let mut statement = change
        .database
        .prepare_cached("DELETE FROM results WHERE job = ?1 RETURNING blob")?;
    let dropped = statement.query_map([job.seq], |row| row.get(0))?;
    for blob in dropped.collect::<Result<Vec<Option<Arc<str>>>, _>>()? {
        blob.into_iter().for_each(|blob| change.free(blob));
    }
    if let Some((array, _)) = &job.parent {
        arrays::reopen(change.database, array)?;
    }
    now_is(change.made(held, now, "queued", &json!({"retry": true}))?)
}

/// Changes what can be changed of a job that waits.
pub(super) fn patch(
    change: &Change<'_>,
    id: &str,
    patch: Patch,
    now: Moment,
) -> Result<Changed, StoreError> {
    let held = rows::by_id(change.database, id)?;
    let Some(mut held) = held.filter(|held| held.record.state == JobState::Queued) else {
        return Ok(Changed::Stale);
    };
    let job = &mut held.record;
    if let Some(urgency) = patch.urgency {
        job.need.urgency = Urgency::new(urgency);
    }
    if let Some(start_by) = patch.start_by {
        job.start_by = start_by;
    }
    let data = json!({
        "urgency": job.need.urgency.value(),
        "start_by": job.start_by.map(|moment| moment.0),
    });
    now_is(change.made(held, now, "priority", &data)?)
}

/// Jobs that should have started are over.
pub(super) fn expire(
    change: &Change<'_>,
    now: Moment,
    limit: usize,
) -> Result<Vec<JobRecord>, StoreError> {
    // Named, because the index of all that wait looks as good to the planner, and is as long as the queue.
    let late = rows::all(
        change.database,
        "j.seq IN (SELECT seq FROM jobs INDEXED BY jobs_expiring WHERE state = 'queued' AND start_by <= ?1
            ORDER BY start_by LIMIT ?2) ORDER BY j.start_by, j.seq",
        params![now, super::jobs::bounded(limit)],
    )?;
    let mut expired = Vec::new();
    for mut held in late {
        let job = &mut held.record;
        job.state = JobState::Expired;
        job.error = Some("it had not started by the time that it was given for that".into());
        let data = json!({"state": job.state.word(), "error": job.error});
        expired.push(change.made(held, now, "finished", &data)?);
    }
    Ok(expired)
}

/// Deletes a job that is over, with all that is about it.
pub(super) fn delete(change: &Change<'_>, id: &str) -> Result<bool, StoreError> {
    let held = rows::by_id(change.database, id)?;
    let Some(held) = held.filter(|held| held.record.state.is_over()) else {
        return Ok(false);
    };
    remove(change, &held.record)?;
    letters::forget(change.database, id)?;
    if let Some((array, _)) = &held.record.parent
        && arrays::remove_if_empty(change.database, array)?
    {
        letters::forget(change.database, array)?;
    }
    Ok(true)
}

/// Deletes jobs whose time to be kept is over, and arrays with their last job.
pub(super) fn sweep(change: &Change<'_>, now: Moment, limit: usize) -> Result<usize, StoreError> {
    let old: Vec<Held> = rows::all(
        change.database,
        "j.seq IN (SELECT seq FROM jobs INDEXED BY jobs_kept WHERE keep_until <= ?1
            ORDER BY keep_until LIMIT ?2) ORDER BY j.keep_until, j.seq",
        params![now, super::jobs::bounded(limit)],
    )?;
    let mut swept = 0;
    for held in old {
        let job = &held.record;
        remove(change, job)?;
        letters::forget_sent(change.database, &job.id)?;
        swept += 1;
        if let Some((array, _)) = &job.parent
            && arrays::remove_if_empty(change.database, array)?
        {
            letters::forget_sent(change.database, array)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Deletes the rows of a job; its blobs go when this is on disk.
pub(super) fn remove(change: &Change<'_>, job: &JobRecord) -> Result<(), StoreError> {
    let mut statement = change.database.prepare_cached(
        "SELECT blob FROM requests WHERE job = ?1 AND blob IS NOT NULL
         UNION ALL SELECT blob FROM results WHERE job = ?1 AND blob IS NOT NULL",
    )?;
    let blobs = statement.query_map([job.seq], |row| row.get(0))?;
    for blob in blobs {
        change.free(blob?);
    }
    let mut statement = change
        .database
        .prepare_cached("DELETE FROM tags WHERE tag = ?1 AND job = ?2")?;
    for tag in &job.tags {
        statement.execute(params![tag, job.seq])?;
    }
    // What hangs on it goes with it.
    let mut statement = change
        .database
        .prepare_cached("DELETE FROM jobs WHERE seq = ?1")?;
    statement.execute([job.seq])?;
    Ok(())
}
