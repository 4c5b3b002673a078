//! What answers used.

use super::StoreError;
use crate::store::UsageRow;
use rusqlite::{Connection, params};

/// How long it is kept.
const KEEP: &str = "-400 days";

/// Adds to what was used.
pub(super) fn add(database: &Connection, rows: &[UsageRow]) -> Result<(), StoreError> {
    let mut statement = database.prepare_cached(
        "INSERT INTO usage (day, service, tenant, model, node, requests, read, cached, made)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (day, service, tenant, model, node) DO UPDATE SET
             requests = requests + excluded.requests, read = read + excluded.read,
             cached = cached + excluded.cached, made = made + excluded.made",
    )?;
    for row in rows {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        statement.execute(params![
            row.day,
            row.service,
            row.tenant,
            row.model,
            row.node,
            count(row.requests),
            count(row.read),
            count(row.cached),
            count(row.made),
        ])?;
    }
    if let Some(newest) = rows.iter().map(|row| &row.day).max() {
        let mut old = database.prepare_cached("DELETE FROM usage WHERE day < date(?1, ?2)")?;
        old.execute(params![newest, KEEP])?;
    }
    Ok(())
}

/// What was used from the first of these days to the last.
pub(super) fn read(
    database: &Connection,
    from: &str,
    to: &str,
) -> Result<Vec<UsageRow>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT day, service, tenant, model, node, requests, read, cached, made
         FROM usage WHERE day BETWEEN ?1 AND ?2 ORDER BY day, service, tenant, model, node",
    )?;
    let found = statement.query_map([from, to], |row| {
        let count = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.unsigned_abs());
        Ok(UsageRow {
            day: row.get(0)?,
            service: row.get(1)?,
            tenant: row.get(2)?,
            model: row.get(3)?,
            node: row.get(4)?,
            requests: count(5)?,
            read: count(6)?,
            cached: count(7)?,
            made: count(8)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
