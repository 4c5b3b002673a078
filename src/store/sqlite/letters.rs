//! The outbox. A letter waits while it has a moment at which it is due; those about one job or array go out one after the
//! other.

use super::StoreError;
use super::jobs::bounded;
use super::rows::Columns;
use crate::store::{Delivery, Letter, LetterRecord, Moment};
use rusqlite::{Connection, OptionalExtension, Row, params};

const LETTER: &str = "SELECT l.seq, l.id, l.about, l.tenant, l.url, l.payload, l.written, l.tries, l.due, l.delivered, l.last
    FROM letters l";

/// What a letter is about is deleted: it waited for longer than that was kept.
const NOTHING_LEFT: &str = "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = letters.about)
    AND NOT EXISTS (SELECT 1 FROM arrays WHERE arrays.id = letters.about)";

/// Writes a letter, due when those before it are; one that was written already is not written again.
pub(super) fn write(database: &Connection, letter: &Letter, now: Moment) -> Result<(), StoreError> {
    let mut statement = database.prepare_cached(
        "INSERT INTO letters (id, about, tenant, url, payload, written, tries, due)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0,
            max(?6, coalesce((SELECT max(due) FROM letters WHERE about = ?2 AND due IS NOT NULL), ?6)))
         ON CONFLICT (id) DO NOTHING",
    )?;
    statement.execute(params![
        letter.id,
        letter.about,
        letter.tenant,
        letter.url,
        letter.payload,
        now
    ])?;
    Ok(())
}

/// Letters that are due, of each job or array only the first that waits.
pub(super) fn due(
    database: &Connection,
    now: Moment,
    limit: usize,
) -> Result<Vec<LetterRecord>, StoreError> {
    let mut statement = database.prepare_cached(&format!(
        "{LETTER} INDEXED BY letters_due WHERE l.due <= ?1 AND NOT EXISTS (
            SELECT 1 FROM letters e INDEXED BY letters_waiting
            WHERE e.about = l.about AND e.due IS NOT NULL AND e.seq < l.seq)
         ORDER BY l.due, l.seq LIMIT ?2"
    ))?;
    let found = statement.query_map(params![now, bounded(limit)], record)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What a try at a letter came to.
pub(super) fn delivery(
    database: &Connection,
    id: &str,
    outcome: &Delivery,
    now: Moment,
) -> Result<(), StoreError> {
    match outcome {
        Delivery::Delivered => {
            let mut statement = database.prepare_cached(
                "UPDATE letters SET tries = tries + 1, due = NULL, delivered = ?2, last = 'delivered' WHERE id = ?1",
            )?;
            statement.execute(params![id, now])?;
        }
        Delivery::GivenUp { why } => {
            let mut statement = database.prepare_cached(
                "UPDATE letters SET tries = tries + 1, due = NULL, last = ?2 WHERE id = ?1",
            )?;
            statement.execute(params![id, why])?;
        }
        Delivery::Again { due, why } => {
            let mut statement = database.prepare_cached(
                "UPDATE letters SET tries = tries + 1, due = ?2, last = ?3
                 WHERE id = ?1 AND due IS NOT NULL RETURNING about, seq",
            )?;
            let values = params![id, due, why];
            let found = statement
                .query_row(values, |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()?;
            if let Some((about, seq)) = found {
                // Those behind it are not looked at in vain until then.
                let mut statement = database.prepare_cached(
                    "UPDATE letters SET due = max(due, ?3) WHERE about = ?1 AND seq > ?2 AND due IS NOT NULL",
                )?;
                statement.execute(params![about, seq, due])?;
            }
            return Ok(());
        }
    }
    let mut statement = database.prepare_cached(&format!(
        "DELETE FROM letters WHERE id = ?1 AND {NOTHING_LEFT}"
    ))?;
    statement.execute([id])?;
    Ok(())
}

/// The letters about a job or array.
pub(super) fn about(database: &Connection, about: &str) -> Result<Vec<LetterRecord>, StoreError> {
    let mut statement =
        database.prepare_cached(&format!("{LETTER} WHERE l.about = ?1 ORDER BY l.seq"))?;
    let found = statement.query_map([about], record)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// A letter is due again, with all its tries before it.
pub(super) fn replay(database: &Connection, id: &str, now: Moment) -> Result<bool, StoreError> {
    let mut statement = database
        .prepare_cached("UPDATE letters SET due = ?2, tries = 0, delivered = NULL WHERE id = ?1")?;
    Ok(statement.execute(params![id, now])? > 0)
}

/// Letters to this address are given up.
pub(super) fn give_up(database: &Connection, url: &str, why: &str) -> Result<usize, StoreError> {
    let mut statement = database.prepare_cached(&format!(
        "DELETE FROM letters WHERE url = ?1 AND due IS NOT NULL AND {NOTHING_LEFT}"
    ))?;
    let outlived = statement.execute([url])?;
    let mut statement = database.prepare_cached(
        "UPDATE letters SET due = NULL, last = ?2 WHERE url = ?1 AND due IS NOT NULL",
    )?;
    Ok(outlived + statement.execute([url, why])?)
}

/// Forgets the letters about what is deleted.
pub(super) fn forget(database: &Connection, about: &str) -> Result<(), StoreError> {
    let mut statement = database.prepare_cached("DELETE FROM letters WHERE about = ?1")?;
    statement.execute([about])?;
    Ok(())
}

/// Forgets those that do not wait any more.
pub(super) fn forget_sent(database: &Connection, about: &str) -> Result<(), StoreError> {
    let mut statement =
        database.prepare_cached("DELETE FROM letters WHERE about = ?1 AND due IS NULL")?;
    statement.execute([about])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<LetterRecord> {
    let mut next = Columns { row, at: 0 };
    Ok(LetterRecord {
        seq: next.get()?,
        letter: Letter {
            id: next.get()?,
            about: next.get()?,
            tenant: next.get()?,
            url: next.get()?,
            payload: next.get()?,
        },
        written: next.get()?,
        tries: next.get()?,
        due: next.get()?,
        delivered: next.get()?,
        last: next.get()?,
    })
}
