//! What a row holds, and what it means.

use super::StoreError;
use crate::store::{
    ArrayRecord, AttemptRecord, BlobRef, JobEvent, JobId, JobRecord, Kept, Moment, ResultHead,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::str::FromStr;
use std::sync::Arc;
use tabane_api::{JobState, Need, Own, Urgency};

/// A hash over a request.
pub(super) type Fingerprint = [u8; 32];

/// A job with what only the store has to know.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// What everybody sees.
    pub record: JobRecord,
    /// How long it is kept after its end.
    pub keep_ms: i64,
    /// How long after an end as dead.
    pub keep_dead_ms: i64,
    /// What makes a repeat the same request.
    pub fingerprint: Option<Fingerprint>,
}

/// A job with its result's head, in the order that [`held`] reads.
const JOB: &str = "SELECT j.seq, j.id, j.client_id, j.parent, j.place, j.service, j.tenant, j.class, j.size, j.slots,
    j.urgency, j.vram_mib, j.labels, j.affinity, j.model, j.interactive, j.work, j.state, j.version, j.attempt, j.failures, j.canceling, j.method, j.uri,
    j.body_length, j.accepted, j.started, j.ended, j.start_by, j.timeout_ms, j.not_before, j.keep_until, j.tags, j.webhook,
    j.error, j.progress, j.progress_text, j.failed_on, j.keep_ms, j.keep_dead_ms, j.fingerprint,
    r.status, r.headers, r.length FROM jobs j LEFT JOIN results r ON r.job = j.seq";

/// One job, by a condition on `j`.
pub(super) fn find(
    database: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Option<Held>, StoreError> {
    let mut statement = database.prepare_cached(&format!("{JOB} WHERE {condition}"))?;
    Ok(statement.query_row(values, held).optional()?)
}

/// The job of this id.
pub(super) fn by_id(database: &Connection, id: &str) -> Result<Option<Held>, StoreError> {
    find(database, "j.id = ?1", [id])
}

/// Jobs by a condition on `j` that ends with the order and the limit.
pub(super) fn all(
    database: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Held>, StoreError> {
    let mut statement = database.prepare_cached(&format!("{JOB} WHERE {condition}"))?;
    let rows = statement.query_map(values, held)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    let mut next = Columns { row, at: 0 };
    let seq = next.get()?;
    let id = next.get()?;
    let client_id = next.get()?;
    let parent: Option<JobId> = next.get()?;
    let place: Option<u32> = next.get()?;
    let service = next.get()?;
    let tenant: Arc<str> = next.get()?;
    let need = Need {
        class: next.get()?,
        // SQLite keeps what is not a number as NULL.
        size: next.get::<Option<f64>>()?.unwrap_or(f64::NAN),
        slots: next.get()?,
        urgency: Urgency::new(next.get()?),
        vram_mib: next.get::<i64>()? as u64,
        labels: next.get::<Json<_>>()?.0,
        key: next.get::<Option<i64>>()?.map(|bits| bits as u64),
        model: next.get()?,
        interactive: next.get()?,
        work: next.get()?,
        tenant: tenant.clone(),
        own: Own::default(),
    };
    Ok(Held {
        record: JobRecord {
            seq,
            id,
            client_id,
            parent: parent.zip(place),
            service,
            tenant,
            need,
            state: next.parsed(JobState::from_word)?,
            version: next.get::<i64>()? as u64,
            attempt: next.get()?,
            failures: next.get()?,
            canceling: next.get()?,
            method: next.parsed(|word| Method::from_str(word).ok())?,
            uri: next.parsed(|uri| Uri::from_str(uri).ok())?,
            body_length: next.get::<i64>()? as u64,
            accepted: next.get()?,
            started: next.get()?,
            ended: next.get()?,
            start_by: next.get()?,
            timeout_ms: next.get()?,
            not_before: next.get()?,
            keep_until: next.get()?,
            tags: next.get::<Json<_>>()?.0,
            webhook: next.get()?,
            error: next.get()?,
            progress: next.get()?,
            progress_text: next.get()?,
            failed_on: next.get::<Json<_>>()?.0,
            result: None,
        },
        keep_ms: next.get()?,
        keep_dead_ms: next.get()?,
        fingerprint: next.get()?,
    })
    .and_then(|mut held: Held| {
        held.record.result = match next.get::<Option<u16>>()? {
            None => None,
            Some(status) => Some(ResultHead {
                status: StatusCode::from_u16(status)
                    .map_err(|error| next.unreadable(FromSqlError::other(error)))?,
                headers: next.get::<Headers>()?.0,
                length: next.get::<i64>()? as u64,
            }),
        };
        Ok(held)
    })
}

/// What a change may have changed of a job.
pub(super) fn save(database: &Connection, job: &JobRecord) -> Result<(), StoreError> {
    let mut statement = database.prepare_cached(
        "UPDATE jobs SET state = ?2, version = ?3, attempt = ?4, failures = ?5, canceling = ?6, urgency = ?7,
            started = ?8, ended = ?9, start_by = ?10, not_before = ?11, keep_until = ?12, error = ?13, progress = ?14,
            progress_text = ?15, failed_on = ?16
         WHERE seq = ?1",
    )?;
    statement.execute(params![
        job.seq,
        job.state.word(),
        job.version as i64,
        job.attempt,
        job.failures,
        job.canceling,
        job.need.urgency.value(),
        job.started,
        job.ended,
        job.start_by,
        job.not_before,
        job.keep_until,
        job.error,
        job.progress,
        job.progress_text,
        Json(&job.failed_on),
    ])?;
    Ok(())
}

/// A body, of columns `blob, length, sha256, bytes` from `at`.
pub(super) fn kept(row: &Row<'_>, at: usize) -> rusqlite::Result<Kept> {
    Ok(match row.get::<_, Option<Arc<str>>>(at)? {
        Some(name) => Kept::Blob(BlobRef {
            name,
            length: row.get::<_, i64>(at + 1)? as u64,
            sha256: row.get(at + 2)?,
        }),
        None => Kept::Row(Bytes::from(row.get::<_, Vec<u8>>(at + 3)?)),
    })
}

/// A body's columns.
pub(super) struct BodyColumns<'a> {
    pub blob: Option<&'a str>,
    pub length: i64,
    pub sha256: Option<&'a [u8; 32]>,
    pub bytes: Option<&'a [u8]>,
}

/// What is written of a body.
pub(super) fn columns(body: &Kept) -> BodyColumns<'_> {
    match body {
        Kept::Row(bytes) => BodyColumns {
            blob: None,
            length: bytes.len() as i64,
            sha256: None,
            bytes: Some(bytes),
        },
        Kept::Blob(blob) => BodyColumns {
            blob: Some(&blob.name),
            length: blob.length as i64,
            sha256: Some(&blob.sha256),
            bytes: None,
        },
    }
}

/// The blob that a body lies in, if it does.
pub(super) fn blob_of(body: &Kept) -> Option<&BlobRef> {
    match body {
        Kept::Row(_) => None,
        Kept::Blob(blob) => Some(blob),
    }
}

/// The attempt of columns `number, endpoint, started, ended, outcome, error, submitting, handle`.
pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    let mut next = Columns { row, at: 0 };
    Ok(AttemptRecord {
        number: next.get()?,
        endpoint: next.get()?,
        started: next.get()?,
        ended: next.get()?,
        outcome: next.get()?,
        error: next.get()?,
        submitting: next.get()?,
        handle: next.get()?,
    })
}

/// The event of columns `version, at, kind, data`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<JobEvent> {
    Ok(JobEvent {
        version: row.get::<_, i64>(0)? as u64,
        at: row.get(1)?,
        kind: row.get(2)?,
        data: row.get(3)?,
    })
}

/// The array of columns `id, tenant, service, accepted, ended, tags, webhook, endings`, its children not counted.
pub(super) fn array(row: &Row<'_>) -> rusqlite::Result<ArrayRecord> {
    let mut next = Columns { row, at: 0 };
    Ok(ArrayRecord {
        id: next.get()?,
        tenant: next.get()?,
        service: next.get()?,
        accepted: next.get()?,
        ended: next.get()?,
        tags: next.get::<Json<_>>()?.0,
        webhook: next.get()?,
        endings: next.get()?,
        counts: [0; 8],
    })
}

/// The columns of a row, one after the other.
pub(super) struct Columns<'a, 'b> {
    pub row: &'a Row<'b>,
    pub at: usize,
}

impl Columns<'_, '_> {
    pub fn get<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.at += 1;
        self.row.get(self.at - 1)
    }

    fn parsed<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
        let text: String = self.get()?;
        parse(&text).ok_or_else(|| {
            self.unreadable(FromSqlError::other(std::io::Error::other(format!(
                "`{text}` is not understood"
            ))))
        })
    }

    fn unreadable(&self, error: FromSqlError) -> rusqlite::Error {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(self.at - 1, kind, Box::new(error))
    }
}

/// A list in one column.
pub(super) struct Json<T>(pub T);

impl<T: serde::Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_string(&self.0) {
            Ok(text) => Ok(text.into()),
            Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
        }
    }
}

impl<T: serde::de::DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?)
            .map(Json)
            .map_err(FromSqlError::other)
    }
}

/// Headers as they go over the wire, `name: value` and a line's end each: exact whatever bytes a value has.
pub(super) struct Headers<M = HeaderMap>(pub M);

impl ToSql for Headers<&HeaderMap> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let mut lines = Vec::new();
        for (name, value) in self.0 {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        Ok(lines.into())
    }
}

impl FromSql for Headers {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let mut headers = HeaderMap::new();
        // Neither a name nor a value can hold a line's end.
        for line in value.as_blob()?.split(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\r") else {
                continue;
            };
            let colon = line.windows(2).position(|two| two == b": ");
            let (name, value) = line.split_at(colon.ok_or(FromSqlError::InvalidType)?);
            headers.append(
                HeaderName::from_bytes(name).map_err(FromSqlError::other)?,
                HeaderValue::from_bytes(&value[2..]).map_err(FromSqlError::other)?,
            );
        }
        Ok(Headers(headers))
    }
}

impl ToSql for Moment {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for Moment {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_went_in() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=b: c"));
        headers.append("set-cookie", HeaderValue::from_static(""));
        headers.append(
            "x-name",
            HeaderValue::from_bytes(b"\xe6\x9d\x9f \xff").unwrap(),
        );
        for headers in [headers, HeaderMap::new()] {
            let kept = match Headers(&headers).to_sql().unwrap() {
                ToSqlOutput::Owned(rusqlite::types::Value::Blob(bytes)) => bytes,
                other => panic!("{other:?}"),
            };
            let back = Headers::column_result(ValueRef::Blob(&kept)).unwrap().0;
            assert_eq!(back, headers);
        }
    }
}
