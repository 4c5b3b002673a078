//! Lists of jobs, the newest first, at the price of what is shown and not of what is kept.

use super::StoreError;
use super::jobs::{bounded, records};
use crate::store::{Filter, JobRecord};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tabane_api::JobState;

/// Jobs, the newest first.
pub(super) fn list(database: &Connection, filter: &Filter) -> Result<Vec<JobRecord>, StoreError> {
    let mut seqs = match &filter.tag {
        Some(tag) => of_tag(database, filter, tag)?,
        None => of_states(database, filter)?,
    };
    // One of each state that could be among them was asked for: the newest of all of them are the newest.
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    seqs.truncate(filter.limit);
    records(database, &seqs)
}

/// A tag is rarer than anything else that can be asked for.
fn of_tag(database: &Connection, filter: &Filter, tag: &str) -> Result<Vec<i64>, StoreError> {
    let mut values: Vec<Value> = vec![tag.to_owned().into(), before(filter)];
    let mut others = others(filter, &mut values);
    if !filter.states.is_empty() {
        let words = filter.states.iter().map(|state| format!("'{state}'"));
        let words: Vec<String> = words.collect();
        others += &format!(" AND j.state IN ({})", words.join(", "));
    }
    // The order of a cross join is kept: tags first.
    let sql = format!(
        "SELECT t.job FROM tags t CROSS JOIN jobs j ON j.seq = t.job
         WHERE t.tag = ? AND t.job < ?{others} ORDER BY t.job DESC LIMIT ?"
    );
    newest(database, &sql, values, filter.limit)
}

/// The newest of each state by the index that narrows most; of all states, where none is said.
fn of_states(database: &Connection, filter: &Filter) -> Result<Vec<i64>, StoreError> {
    let index = match filter {
        _ if filter.parent.is_some() => "jobs_parent",
        _ if filter.tenant.is_some() => "jobs_tenant",
        _ if filter.service.is_some() => "jobs_service",
        _ if !filter.states.is_empty() => "jobs_state",
        _ => {
            let mut values = vec![before(filter)];
            let others = others(filter, &mut values);
            let sql = format!(
                "SELECT j.seq FROM jobs j WHERE j.seq < ?{others} ORDER BY j.seq DESC LIMIT ?"
            );
            return newest(database, &sql, values, filter.limit);
        }
    };
    let asked = |state: &JobState| filter.states.is_empty() || filter.states.contains(state);
    let mut found = Vec::new();
    for state in JobState::ALL.into_iter().filter(asked) {
        let mut values = vec![state.word().to_owned().into(), before(filter)];
        let others = others(filter, &mut values);
        let sql = format!(
            "SELECT j.seq FROM jobs j INDEXED BY {index}
             WHERE j.state = ? AND j.seq < ?{others} ORDER BY j.seq DESC LIMIT ?"
        );
        found.extend(newest(database, &sql, values, filter.limit)?);
    }
    Ok(found)
}

fn before(filter: &Filter) -> Value {
    filter.before.unwrap_or(i64::MAX).into()
}

/// The conditions that no index is chosen by.
fn others(filter: &Filter, values: &mut Vec<Value>) -> String {
    let mut conditions = String::new();
    for (column, wanted) in [
        ("tenant", filter.tenant.as_deref()),
        ("service", filter.service.as_deref()),
        ("class", filter.class.as_deref()),
        ("parent", filter.parent.as_deref()),
    ] {
        if let Some(wanted) = wanted {
            conditions.push_str(&format!(" AND j.{column} = ?"));
            values.push(wanted.to_owned().into());
        }
    }
    conditions
}

fn newest(
    database: &Connection,
    sql: &str,
    mut values: Vec<Value>,
    limit: usize,
) -> Result<Vec<i64>, StoreError> {
    values.push(bounded(limit).into());
    let mut statement = database.prepare_cached(sql)?;
    let found = statement.query_map(params_from_iter(values), |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}
