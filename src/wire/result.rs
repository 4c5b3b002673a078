//! What came of a job: the node's answer, byte for byte.

use super::answer::{Answer, Payload};
use super::status::JOB_STATE;
use super::{Call, Wire, unavailable};
use crate::jobs::Jobs;
use crate::store::{JobRecord, StoreError};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::ops::Range;
use tabane_api::{Content, JobState, Refusal};

impl Wire {
    /// `GET /_tabane/jobs/{id}/result`.
    pub(super) async fn result(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let mut job = self.find(jobs, call, id).await?;
        if let Some(wait) = super::Prefer::read(call.headers).wait {
            job = self
                .until(jobs, job, wait, super::collect::Wait::Over)
                .await?;
        }
        if !job.state.is_over() {
            let document = self.document_of(jobs, call.world, &job).await?;
            let mut answer = Answer::json(StatusCode::ACCEPTED, &document);
            self.mark(&mut answer, &job);
            return Ok(answer);
        }
        self.result_of(jobs, &job, call.headers).await
    }

    /// The result of a job that is over.
    pub(super) async fn result_of(
        &self,
        jobs: &Jobs,
        job: &JobRecord,
        asked: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let Some(head) = &job.result else {
            return Err(nothing_came(job));
        };
        let kept = jobs.store().result(&job.id).await.map_err(unavailable)?;
        let kept = kept.ok_or_else(|| Refusal::Gone("the result is not kept any more".into()))?;
        let content = jobs.content(&kept).await.map_err(lost)?;
        let mut answer = Answer {
            status: head.status,
            headers: head.headers.clone(),
            body: Payload::Bytes(Bytes::new()),
        };
        answer.headers.remove(header::CONTENT_LENGTH);
        part(&mut answer, content, asked);
        self.mark(&mut answer, job);
        Ok(answer)
    }

    /// `GET /_tabane/jobs/{id}/request`: what was sent in.
    pub(super) async fn request(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let stored = jobs.store().request(&job.id).await.map_err(unavailable)?;
        let stored = stored.ok_or_else(|| super::gone(jobs, "job", id))?;
        let content = jobs.content(&stored.body).await.map_err(lost)?;
        let mut answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Payload::Bytes(Bytes::new()),
        };
        for name in [
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::CONTENT_LANGUAGE,
        ] {
            if let Some(value) = stored.headers.get(&name) {
                answer.headers.insert(name, value.clone());
            }
        }
        // A page that somebody sent in must not run as one of ours.
        answer.set(header::CONTENT_DISPOSITION, "attachment");
        answer.set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        part(&mut answer, content, call.headers);
        answer.set(JOB_STATE, job.state.word());
        Ok(answer)
    }

    /// `GET /_tabane/jobs/{id}/log`: what its backend logged.
    pub(super) async fn log(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let mut text = String::new();
        let mut after = 0;
        loop {
            let events = jobs.store().events(&job.id, after, 500).await;
            let events = events.map_err(unavailable)?;
            let Some(last) = events.last() else { break };
            after = last.version;
            for event in events.iter().filter(|event| event.kind == "log") {
                for line in log_lines(&event.data) {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        let mut answer = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Payload::Bytes(text.into()),
        };
        answer.set(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        answer.set(header::CACHE_CONTROL, "no-cache");
        answer.set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        Ok(answer)
    }
}

/// The lines of a `log` event.
fn log_lines(data: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Log {
        #[serde(default)]
        lines: Vec<String>,
    }
    serde_json::from_str::<Log>(data).map_or_else(|_| Vec::new(), |log| log.lines)
}

/// Why there is no result, in the words of HTTP.
fn nothing_came(job: &JobRecord) -> Refusal {
    let why = job.error.clone().unwrap_or_default();
    match job.state {
        JobState::Canceled => Refusal::Conflict("the job was canceled".into()),
        JobState::Expired => Refusal::NodeTimeout("the job did not start by when it was to".into()),
        _ => Refusal::NodeFailed(format!("the job is {}: {why}", job.state)),
    }
}

/// A body whose row is there and whose bytes are not.
fn lost(error: StoreError) -> Refusal {
    tracing::error!(%error, "a body that is on record cannot be read");
    Refusal::Internal("its bytes cannot be read from the disk".into())
}

/// Puts a body into an answer, or the part of it that was asked for (RFC 9110, 14).
fn part(answer: &mut Answer, content: Content, asked: &HeaderMap) {
    let length = content.length();
    answer.set(header::ACCEPT_RANGES, "bytes");
    let whole = |content| Payload::Part {
        content,
        from: 0,
        length,
    };
    // A range is of the good answer. A job that was retried has another one under its address: whoever asks by `If-Range`
    // gets it whole (RFC 9110, 13.1.5).
    let partly = answer.status == StatusCode::OK && !asked.contains_key(header::IF_RANGE);
    let range = asked
        .get(header::RANGE)
        .filter(|_| partly)
        .and_then(|range| range.to_str().ok());
    match range.map(|range| bytes(range, length)) {
        None | Some(Asked::NotUnderstood) => answer.body = whole(content),
        Some(Asked::Part(range)) => {
            answer.status = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            answer.set(header::CONTENT_RANGE, &text);
            answer.body = Payload::Part {
                content,
                from: range.start,
                length: range.end - range.start,
            };
        }
        Some(Asked::Nowhere) => {
            answer.status = StatusCode::RANGE_NOT_SATISFIABLE;
            answer.set(header::CONTENT_RANGE, &format!("bytes */{length}"));
            answer.headers.remove(header::CONTENT_TYPE);
            answer.headers.remove(header::CONTENT_ENCODING);
            answer.headers.remove(header::ETAG);
            answer.body = Payload::Bytes(Bytes::new());
        }
    }
    if !answer.headers.contains_key(header::CACHE_CONTROL) {
        let value = HeaderValue::from_static("private");
        answer.headers.insert(header::CACHE_CONTROL, value);
    }
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq)]
enum Asked {
    Part(Range<u64>),
    /// It lies past the end.
    Nowhere,
    /// Another unit, several ranges, or no range at all: ignored, as RFC 9110 allows.
    NotUnderstood,
}

fn bytes(range: &str, length: u64) -> Asked {
    let Some(("bytes", set)) = range.split_once('=') else {
        return Asked::NotUnderstood;
    };
    let Some((first, last)) = set.trim().split_once('-') else {
        return Asked::NotUnderstood;
    };
    if set.contains(',') {
        return Asked::NotUnderstood;
    }
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => Asked::NotUnderstood,
            Some(0) => Asked::Nowhere,
            Some(_) if length == 0 => Asked::Nowhere,
            Some(suffix) => Asked::Part(length.saturating_sub(suffix)..length),
        },
        (first, last) => {
            let last = match last {
                "" => Some(u64::MAX),
                last => number(last),
            };
            match (number(first), last) {
                (Some(first), Some(last)) if first > last => Asked::NotUnderstood,
                (Some(first), Some(_)) if first >= length => Asked::Nowhere,
                (Some(first), Some(last)) => Asked::Part(first..last.saturating_add(1).min(length)),
                _ => Asked::NotUnderstood,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (range, wants) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=2-999", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=10-", Asked::Nowhere),
            ("bytes=-0", Asked::Nowhere),
            ("bytes=5-2", Asked::NotUnderstood),
            ("bytes=0-1,3-4", Asked::NotUnderstood),
            ("bytes=", Asked::NotUnderstood),
            ("bytes=a-b", Asked::NotUnderstood),
            ("lines=0-1", Asked::NotUnderstood),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
        ] {
            assert_eq!(bytes(range, 10), wants, "{range}");
        }
        assert_eq!(bytes("bytes=0-", 0), Asked::Nowhere);
        assert_eq!(bytes("bytes=-1", 0), Asked::Nowhere);
    }
}
