//! Jobs are accepted, and found again.

use super::StoreError;
use super::change::Change;
use super::rows::{self, Fingerprint, Held, Json};
use crate::store::{
    Accepted, AttemptRecord, Idempotency, JobEvent, JobRecord, Kept, NewJob, StoredRequest,
};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, named_params, params};
use serde_json::json;
use tabane_api::{JobState, Need};

/// What a row takes beside its body, headers and address, in round figures: its indexes, its first attempt, its events.
const ROW: u64 = 2 << 10;
/// A time to be kept that is longer than any clock will see, and can be added to a moment.
const FOR_EVER: i64 = i64::MAX / 4;

/// Takes a job in.
pub(super) fn accept(change: &Change<'_>, job: &NewJob) -> Result<Accepted, StoreError> {
    if let Some(again) = again(change.database, job)? {
        if let Some(blob) = rows::blob_of(&job.body) {
            change.free(blob.name.clone());
        }
        return Ok(again);
    }
    change.room_for(size(job))?;
    Ok(Accepted::New(insert(change, job)?))
}

/// What a job is that comes under a known key or id; `None` when it is new.
pub(super) fn again(database: &Connection, job: &NewJob) -> Result<Option<Accepted>, StoreError> {
    let held = repeated(database, job)?;
    Ok(held.map(
        |held| match same(job.idempotency.as_ref(), held.fingerprint.as_ref()) {
            true => Accepted::Again(held.record),
            false => Accepted::OtherRequest,
        },
    ))
}

/// The job that this one repeats, or whose key or id it uses.
pub(super) fn repeated(database: &Connection, job: &NewJob) -> Result<Option<Held>, StoreError> {
    let by = |column: &str, value: &str| {
        let condition = format!("j.tenant = ?1 AND j.{column} = ?2");
        rows::find(database, &condition, [&*job.tenant, value])
    };
    if let Some(idempotency) = &job.idempotency
        && let Some(held) = by("idempotency_key", &idempotency.key)?
    {
        return Ok(Some(held));
    }
    match &job.client_id {
        Some(client_id) => by("client_id", client_id),
        None => Ok(None),
    }
}

/// Whether a request that comes under a known name is a repeat: one that says nothing of its content is.
pub(super) fn same(asked: Option<&Idempotency>, kept: Option<&Fingerprint>) -> bool {
    asked.is_none_or(|asked| kept == Some(&asked.fingerprint))
}

/// How many bytes of the database a job takes.
pub(super) fn size(job: &NewJob) -> u64 {
    let body = match &job.body {
        Kept::Row(bytes) => bytes.len(),
        Kept::Blob(_) => 0,
    };
    let headers: usize = job
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    ROW + (body + headers + job.uri.path().len()) as u64
}

/// Writes a job's rows.
pub(super) fn insert(change: &Change<'_>, job: &NewJob) -> Result<JobRecord, StoreError> {
    let body = rows::columns(&job.body);
    let mut statement = change.database.prepare_cached(
        "INSERT INTO jobs (id, client_id, parent, place, service, tenant, class, size, slots, urgency, vram_mib, labels,
            affinity, model, interactive, work, state, version, attempt, failures, canceling, method, uri, body_length, accepted, start_by,
            timeout_ms, keep_ms, keep_dead_ms, tags, webhook, failed_on, idempotency_key, fingerprint)
         VALUES (:id, :client_id, :parent, :place, :service, :tenant, :class, :size, :slots, :urgency, :vram_mib, :labels,
            :affinity, :model, :interactive, :work, 'queued', 1, 0, 0, 0, :method, :uri, :body_length, :accepted, :start_by,
            :timeout_ms, :keep_ms, :keep_dead_ms, :tags, :webhook, '[]', :idempotency_key, :fingerprint)",
    )?;
    let seq = statement.insert(named_params! {
        ":id": job.id,
        ":client_id": job.client_id,
        ":parent": job.parent.as_ref().map(|(array, _)| array),
        ":place": job.parent.as_ref().map(|(_, place)| place),
        ":service": job.service,
        ":tenant": job.tenant,
        ":class": job.need.class,
        ":size": job.need.size,
        ":slots": job.need.slots,
        ":urgency": job.need.urgency.value(),
        ":vram_mib": job.need.vram_mib as i64,
        ":labels": Json(&job.need.labels),
        ":affinity": job.need.key.map(|bits| bits as i64),
        ":model": job.need.model,
        ":interactive": job.need.interactive,
        ":work": job.need.work,
        ":method": job.method.as_str(),
        ":uri": job.uri.to_string(),
        ":body_length": body.length,
        ":accepted": job.accepted,
        ":start_by": job.start_by,
        ":timeout_ms": job.timeout_ms,
        ":keep_ms": job.keep_ms.clamp(0, FOR_EVER),
        ":keep_dead_ms": job.keep_dead_ms.clamp(0, FOR_EVER),
        ":tags": Json(&job.tags),
        ":webhook": job.webhook,
        ":idempotency_key": job.idempotency.as_ref().map(|idempotency| &idempotency.key),
        ":fingerprint": job.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint),
    })?;
    let mut statement = change.database.prepare_cached(
        "INSERT INTO requests (job, headers, blob, length, sha256, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let headers = rows::Headers(&job.headers);
    statement.execute(params![
        seq,
        headers,
        body.blob,
        body.length,
        body.sha256,
        body.bytes
    ])?;
    let mut statement = change
        .database
        .prepare_cached("INSERT OR IGNORE INTO tags (tag, job) VALUES (?1, ?2)")?;
    for tag in &job.tags {
        statement.execute(params![tag, seq])?;
    }
    let record = record(job, seq, body.length as u64);
    change.tell(&record, job.accepted, "queued", &json!({}))?;
    Ok(record)
}

fn record(job: &NewJob, seq: i64, body_length: u64) -> JobRecord {
    JobRecord {
        seq,
        id: job.id.clone(),
        client_id: job.client_id.clone(),
        parent: job.parent.clone(),
        service: job.service.clone(),
        tenant: job.tenant.clone(),
        need: Need {
            tenant: job.tenant.clone(),
            ..job.need.clone()
        },
        state: JobState::Queued,
        version: 1,
        attempt: 0,
        failures: 0,
        canceling: false,
        method: job.method.clone(),
        uri: job.uri.clone(),
        body_length,
        accepted: job.accepted,
        started: None,
        ended: None,
        start_by: job.start_by,
        timeout_ms: job.timeout_ms,
        not_before: None,
        keep_until: None,
        tags: job.tags.clone(),
        webhook: job.webhook.clone(),
        result: None,
        error: None,
        progress: None,
        progress_text: None,
        failed_on: Vec::new(),
    }
}

/// The job of this id, or of this client's id; where any tenant's may be meant, the newest of it.
pub(super) fn find(
    database: &Connection,
    tenant: Option<&str>,
    id: &str,
) -> Result<Option<JobRecord>, StoreError> {
    let found = match tenant {
        None => match rows::by_id(database, id)? {
            None => rows::find(
                database,
                "j.client_id = ?1 ORDER BY j.seq DESC LIMIT 1",
                [id],
            )?,
            found => found,
        },
        Some(tenant) => match rows::find(database, "j.id = ?1 AND j.tenant = ?2", [id, tenant])? {
            None => rows::find(database, "j.tenant = ?1 AND j.client_id = ?2", [tenant, id])?,
            found => found,
        },
    };
    Ok(found.map(|held| held.record))
}

/// The request of a job.
pub(super) fn request(
    database: &Connection,
    id: &str,
) -> Result<Option<StoredRequest>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT q.headers, q.blob, q.length, q.sha256, q.bytes FROM jobs j JOIN requests q ON q.job = j.seq WHERE j.id = ?1",
    )?;
    let found = statement.query_row([id], |row| {
        Ok(StoredRequest {
            headers: row.get::<_, rows::Headers>(0)?.0,
            body: rows::kept(row, 1)?,
        })
    });
    Ok(found.optional()?)
}

/// The body of a job's result.
pub(super) fn result(database: &Connection, id: &str) -> Result<Option<Kept>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT r.blob, r.length, r.sha256, r.bytes FROM jobs j JOIN results r ON r.job = j.seq WHERE j.id = ?1",
    )?;
    let found = statement.query_row([id], |row| rows::kept(row, 0));
    Ok(found.optional()?)
}

/// The attempts of a job.
pub(super) fn attempts(database: &Connection, id: &str) -> Result<Vec<AttemptRecord>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT a.number, a.endpoint, a.started, a.ended, a.outcome, a.error, a.submitting, a.handle
         FROM jobs j JOIN attempts a ON a.job = j.seq WHERE j.id = ?1 ORDER BY a.number",
    )?;
    let found = statement.query_map([id], rows::attempt)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What happened to a job after a version.
pub(super) fn events(
    database: &Connection,
    id: &str,
    after: u64,
    limit: usize,
) -> Result<Vec<JobEvent>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT e.version, e.at, e.kind, e.data FROM jobs j JOIN events e ON e.job = j.seq
         WHERE j.id = ?1 AND e.version > ?2 ORDER BY e.version LIMIT ?3",
    )?;
    let values = params![id, bounded(after), bounded(limit)];
    let found = statement.query_map(values, rows::event)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Jobs that are not over.
pub(super) fn unfinished(
    database: &Connection,
    after: i64,
    limit: usize,
) -> Result<Vec<JobRecord>, StoreError> {
    let held = rows::all(
        database,
        "j.seq IN (SELECT seq FROM jobs INDEXED BY jobs_unfinished
            WHERE state IN ('queued', 'starting', 'running') AND seq > ?1 ORDER BY seq LIMIT ?2) ORDER BY j.seq",
        params![after, bounded(limit)],
    )?;
    Ok(held.into_iter().map(|held| held.record).collect())
}

/// The jobs of these numbers, in their order.
pub(super) fn records(database: &Connection, seqs: &[i64]) -> Result<Vec<JobRecord>, StoreError> {
    let one = |seq: &i64| rows::find(database, "j.seq = ?1", [Value::Integer(*seq)]);
    let found = seqs.iter().filter_map(|seq| one(seq).transpose());
    found.map(|held| Ok(held?.record)).collect()
}

/// Service, tenant, class and state, and how many jobs.
type Counted = (String, String, String, JobState, u64);

/// How many jobs are in each state, by service, tenant and class.
pub(super) fn census(database: &Connection) -> Result<Vec<Counted>, StoreError> {
    let mut statement = database.prepare_cached(
        "SELECT service, tenant, class, state, COUNT(*) FROM jobs GROUP BY service, tenant, class, state",
    )?;
    let found = statement.query_map([], |row| {
        let state: String = row.get(3)?;
        let count: i64 = row.get(4)?;
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, state, count))
    })?;
    let mut census = Vec::new();
    for row in found {
        let (service, tenant, class, state, count) = row?;
        if let Some(state) = JobState::from_word(&state) {
            census.push((service, tenant, class, state, count.unsigned_abs()));
        }
    }
    Ok(census)
}

/// A number as SQLite counts: what is past its end is its end.
pub(super) fn bounded(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
