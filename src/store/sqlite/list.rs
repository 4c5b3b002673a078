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
    let others = others(filter, &mut values);
    let states = match states(filter) {
        [] => String::new(),
        some => {
            let words: Vec<String> = some.iter().map(|state| format!("'{state}'")).collect();
            format!(" AND j.state IN ({})", words.join(", "))
        }
    };
    // The order of a cross join is kept: tags first.
    let sql = format!(
        "SELECT t.job FROM tags t CROSS JOIN jobs j ON j.seq = t.job
         WHERE t.tag = ? AND t.job < ?{others}{states} ORDER BY t.job DESC LIMIT {}",
        bounded(filter.limit)
    );
    seqs(database, &sql, values)
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
            let limit = bounded(filter.limit);
            let sql = format!(
                "SELECT j.seq FROM jobs j WHERE j.seq < ?{others} ORDER BY j.seq DESC LIMIT {limit}"
            );
            return seqs(database, &sql, values);
        }
    };
    let asked = match states(filter) {
        [] => &JobState::ALL[..],
        some => some,
    };
    let mut found = Vec::new();
    for state in JobState::ALL.iter().filter(|state| asked.contains(state)) {
        let mut values = vec![state.word().to_owned().into(), before(filter)];
        let others = others(filter, &mut values);
        let sql = format!(
            "SELECT j.seq FROM jobs j INDEXED BY {index}
             WHERE j.state = ? AND j.seq < ?{others} ORDER BY j.seq DESC LIMIT {}",
            bounded(filter.limit)
        );
        found.extend(seqs(database, &sql, values)?);
    }
    Ok(found)
}

fn states(filter: &Filter) -> &[JobState] {
    &filter.states
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

fn seqs(database: &Connection, sql: &str, values: Vec<Value>) -> Result<Vec<i64>, StoreError> {
    let mut statement = database.prepare_cached(sql)?;
    let found = statement.query_map(params_from_iter(values), |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}
