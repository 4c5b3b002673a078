//! What is kept beside jobs: plugins' values, learned times; and how the store fares.

use super::StoreError;
use super::change::{Change, used};
use crate::store::{LearnedTime, StoreGauge};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

/// A value of a plugin's own.
pub(super) fn value(
    database: &Connection,
    space: &str,
    key: &str,
) -> Result<Option<Bytes>, StoreError> {
    let mut statement =
        database.prepare_cached("SELECT value FROM plugin_values WHERE space = ?1 AND key = ?2")?;
    let found = statement.query_row([space, key], |row| row.get::<_, Vec<u8>>(0));
    Ok(found.optional()?.map(Bytes::from))
}

/// Keeps a value.
pub(super) fn put(
    change: &Change<'_>,
    space: &str,
    key: &str,
    value: &[u8],
) -> Result<(), StoreError> {
    change.room_for((space.len() + key.len() + value.len()) as u64)?;
    let mut statement = change.database.prepare_cached(
        "INSERT INTO plugin_values (space, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (space, key) DO UPDATE SET value = excluded.value",
    )?;
    statement.execute(params![space, key, value])?;
    Ok(())
}

/// Forgets a value.
pub(super) fn forget(database: &Connection, space: &str, key: &str) -> Result<(), StoreError> {
    let mut statement =
        database.prepare_cached("DELETE FROM plugin_values WHERE space = ?1 AND key = ?2")?;
    statement.execute([space, key])?;
    Ok(())
}

/// Values whose keys begin like this.
pub(super) fn values(
    database: &Connection,
    space: &str,
    prefix: &str,
    limit: usize,
) -> Result<Vec<(String, Bytes)>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT key, value FROM plugin_values WHERE space = ?1 AND key >= ?2 ORDER BY key",
    )?;
    let mut rows = statement.query([space, prefix])?;
    let mut found = Vec::new();
    // Keys that begin alike follow each other; rows are read one at a time.
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let key: String = row.get(0)?;
        if !key.starts_with(prefix) {
            break;
        }
        found.push((key, row.get::<_, Vec<u8>>(1)?.into()));
    }
    Ok(found)
}

/// What was learned of times.
pub(super) fn learned(database: &Connection) -> Result<Vec<LearnedTime>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT service, class, endpoint, value FROM learned_times ORDER BY service, class, endpoint",
    )?;
    let found = statement.query_map([], |row| {
        Ok(LearnedTime {
            key: (row.get(0)?, row.get(1)?, row.get(2)?),
            value: row.get(3)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Keeps what was learned of times.
pub(super) fn learn(database: &Connection, times: &[LearnedTime]) -> Result<(), StoreError> {
    let mut statement = database.prepare_cached(
        "INSERT INTO learned_times (service, class, endpoint, value) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (service, class, endpoint) DO UPDATE SET value = excluded.value",
    )?;
    for time in times {
        let (service, class, endpoint) = &time.key;
        statement.execute(params![service, class, endpoint, time.value])?;
    }
    Ok(())
}

/// Which of these blobs no row names.
pub(super) fn orphans(
    database: &Connection,
    blobs: Vec<String>,
) -> Result<Vec<String>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT 1 FROM requests WHERE blob = ?1 UNION ALL SELECT 1 FROM results WHERE blob = ?1",
    )?;
    let mut orphans = Vec::new();
    for blob in blobs {
        if !statement.exists([&blob])? {
            orphans.push(blob);
        }
    }
    Ok(orphans)
}

/// How the store fares.
pub(super) fn gauge(database: &Connection) -> Result<StoreGauge, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT COUNT(*), MIN(written) FROM letters INDEXED BY letters_written WHERE due IS NOT NULL",
    )?;
    let (letters, oldest) =
        statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
    Ok(StoreGauge {
        database_bytes: used(database)?,
        letters: letters.unsigned_abs(),
        oldest_letter: oldest,
    })
}
