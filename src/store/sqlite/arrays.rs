//! Arrays: over when the last of their jobs is, and kept as long as one of their jobs is kept.

use super::change::Change;
use super::rows::{self, Fingerprint, Json};
use super::{StoreError, jobs, letters, orders};
use crate::store::{ArrayAccepted, ArrayRecord, Moment, NewArray};
use rusqlite::{Connection, OptionalExtension, params};
use tabane_api::JobState;

/// Takes an array and all its jobs in, or none of them.
pub(super) fn accept(change: &Change<'_>, array: &NewArray) -> Result<ArrayAccepted, StoreError> {
    if let Some(again) = again(change.database, array)? {
        free(change, array);
        return Ok(again);
    }
    for job in &array.jobs {
        if jobs::repeated(change.database, job)?.is_some() {
            free(change, array);
            return Ok(ArrayAccepted::OtherRequest);
        }
    }
    change.room_for(array.jobs.iter().map(jobs::size).sum())?;
    let mut statement = change.database.prepare_cached(
        "INSERT INTO arrays (id, tenant, service, accepted, tags, webhook, endings, idempotency_key, fingerprint)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)",
    )?;
    let idempotency = array.idempotency.as_ref();
    statement.execute(params![
        array.id,
        array.tenant,
        array.service,
        array.accepted,
        Json(&array.tags),
        array.webhook,
        idempotency.map(|idempotency| &idempotency.key),
        idempotency.map(|idempotency| &idempotency.fingerprint),
    ])?;
    let children = array.jobs.iter().map(|job| jobs::insert(change, job));
    let children = children.collect::<Result<Vec<_>, _>>()?;
    let kept = find(change.database, &array.id)?;
    let kept = kept.ok_or_else(|| StoreError::Unusable("it was not kept".into()))?;
    Ok(ArrayAccepted::New(kept, children))
}

/// The array of this id.
pub(super) fn find(database: &Connection, id: &str) -> Result<Option<ArrayRecord>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT id, tenant, service, accepted, ended, tags, webhook, endings FROM arrays WHERE id = ?1",
    )?;
    let Some(mut array) = statement.query_row([id], rows::array).optional()? else {
        return Ok(None);
    };
    let mut statement = database
        .prepare_cached("SELECT state, COUNT(*) FROM jobs WHERE parent = ?1 GROUP BY state")?;
    let mut counted = statement.query([id])?;
    while let Some(row) = counted.next()? {
        let state: String = row.get(0)?;
        for (count, known) in array.counts.iter_mut().zip(JobState::ALL) {
            if known.word() == state {
                *count = row.get(1)?;
            }
        }
    }
    Ok(Some(array))
}

/// Whether a job of an array is not over, this one not counted.
pub(super) fn has_unfinished(
    database: &Connection,
    id: &str,
    but: i64,
) -> Result<bool, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT 1 FROM jobs INDEXED BY jobs_parent
         WHERE parent = ?1 AND state IN ('queued', 'starting', 'running') AND seq <> ?2 LIMIT 1",
    )?;
    Ok(statement.exists(params![id, but])?)
}

/// The last of its jobs is over: from here on all of them are kept for their time.
pub(super) fn over(change: &Change<'_>, id: &str, now: Moment) -> Result<(), StoreError> {
    let mut statement = change
        .database
        .prepare_cached("UPDATE arrays SET ended = ?2, endings = endings + 1 WHERE id = ?1")?;
    statement.execute(params![id, now])?;
    let mut statement = change.database.prepare_cached(
        "UPDATE jobs SET keep_until = ?2 + iif(state = 'dead', keep_dead_ms, keep_ms) WHERE parent = ?1",
    )?;
    statement.execute(params![id, now])?;
    match find(change.database, id)? {
        Some(array) => change.tell_of_array(&array, now),
        None => Ok(()),
    }
}

/// One of its jobs waits again: none of them is deleted before all are over once more.
pub(super) fn reopen(database: &Connection, id: &str) -> Result<(), StoreError> {
    let mut statement = database
        .prepare_cached("UPDATE arrays SET ended = NULL WHERE id = ?1 AND ended IS NOT NULL")?;
    if statement.execute([id])? > 0 {
        let mut statement =
            database.prepare_cached("UPDATE jobs SET keep_until = NULL WHERE parent = ?1")?;
        statement.execute([id])?;
    }
    Ok(())
}

/// Deletes an array that has no job any more.
pub(super) fn remove_if_empty(database: &Connection, id: &str) -> Result<bool, StoreError> {
    let mut statement = database.prepare_cached(
        "DELETE FROM arrays WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE parent = ?1)",
    )?;
    Ok(statement.execute([id])? > 0)
}

/// Deletes an array whose jobs are all over, with them.
pub(super) fn delete(change: &Change<'_>, id: &str) -> Result<bool, StoreError> {
    // No job has the number 0.
    if find(change.database, id)?.is_none() || has_unfinished(change.database, id, 0)? {
        return Ok(false);
    }
    for held in rows::all(change.database, "j.parent = ?1", [id])? {
        orders::remove(change, &held.record)?;
        letters::forget(change.database, &held.record.id)?;
    }
    remove_if_empty(change.database, id)?;
    letters::forget(change.database, id)?;
    Ok(true)
}

/// What an array is that comes under a known key; `None` when it is new.
pub(super) fn again(
    database: &Connection,
    array: &NewArray,
) -> Result<Option<ArrayAccepted>, StoreError> {
    let Some((id, fingerprint)) = repeated(database, array)? else {
        return Ok(None);
    };
    let same = jobs::same(array.idempotency.as_ref(), fingerprint.as_ref());
    let kept = find(database, &id)?.filter(|_| same);
    let again = kept.map_or(ArrayAccepted::OtherRequest, ArrayAccepted::Again);
    Ok(Some(again))
}

/// The array that this one repeats, and what its request was.
fn repeated(
    database: &Connection,
    array: &NewArray,
) -> Result<Option<(String, Option<Fingerprint>)>, StoreError> {
    let Some(idempotency) = &array.idempotency else {
        return Ok(None);
    };
    let mut statement = database.prepare_cached(
        "SELECT id, fingerprint FROM arrays WHERE tenant = ?1 AND idempotency_key = ?2",
    )?;
    let found = statement.query_row(params![array.tenant, idempotency.key], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    Ok(found.optional()?)
}

fn free(change: &Change<'_>, array: &NewArray) {
    let bodies = array.jobs.iter().map(|job| &job.body);
    for blob in bodies.filter_map(rows::blob_of) {
        change.free(blob.name.clone());
    }
}
