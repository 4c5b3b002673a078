//! A file as an answer: all of it, a part, or that it is known.

use super::kept::Kept;
use super::reply::{empty, set, with};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use httpdate::{fmt_http_date, parse_http_date};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tabane_api::Body;

/// The file as this content type, or what of it was asked for. Its bytes are read as the client takes them.
///
/// Source: aiohttp `web_fileresponse.py`, and what it has of RFC 9110, 13 and 14: one range only. Of `If-Range`, it looks at
/// dates alone, and would give parts of two files to who resumes by an ETag; here both count.
pub(super) fn file(kept: Kept, kind: &str, headers: &HeaderMap) -> Response<Body> {
    let (etag, changed, length) = (kept.etag(), kept.changed(), kept.length());
    let mut reply = match asked(headers, &etag, changed, length) {
        Asked::Failed => return empty(StatusCode::PRECONDITION_FAILED),
        Asked::Known => {
            let mut reply = with(kind, Body::default());
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
            set(&mut reply, header::ETAG, &etag);
            set(&mut reply, header::LAST_MODIFIED, &date(changed));
            return reply;
        }
        Asked::All => with(kind, Body::whole(kept.content())),
        Asked::Part(part) => {
            let told = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            let body = Body::Part {
                content: kept.content(),
                from: part.start,
                length: part.end - part.start,
            };
            let mut reply = with(kind, body);
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut reply, header::CONTENT_RANGE, &told);
            reply
        }
        Asked::Impossible => {
            let mut reply = with(kind, Body::default());
            *reply.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let told = format!("bytes */{length}");
            set(&mut reply, header::CONTENT_RANGE, &told);
            return reply;
        }
    };
    set(&mut reply, header::ETAG, &etag);
    set(&mut reply, header::LAST_MODIFIED, &date(changed));
    set(&mut reply, header::ACCEPT_RANGES, "bytes");
    reply
}

enum Asked {
    All,
    /// Not empty.
    Part(Range<u64>),
    /// What the client has is what is here.
    Known,
    /// It is not the file that the client takes it for.
    Failed,
    /// It has no such part.
    Impossible,
}

fn asked(headers: &HeaderMap, etag: &str, changed: SystemTime, length: u64) -> Asked {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let time = |name| parse_http_date(text(name)?).ok();
    let has_changed_since = |time| seconds(changed) > seconds(time);
    let fails = match text(header::IF_MATCH) {
        Some(known) => !is_among(known, etag, false),
        None => time(header::IF_UNMODIFIED_SINCE).is_some_and(has_changed_since),
    };
    if fails {
        return Asked::Failed;
    }
    let is_known = match text(header::IF_NONE_MATCH) {
        Some(known) => is_among(known, etag, true),
        None => time(header::IF_MODIFIED_SINCE).is_some_and(|time| !has_changed_since(time)),
    };
    if is_known {
        return Asked::Known;
    }
    let is_the_same = match text(header::IF_RANGE) {
        Some(known) if known.contains('"') => known.trim() == etag,
        Some(_) => time(header::IF_RANGE).is_some_and(|time| !has_changed_since(time)),
        None => true,
    };
    let Some(range) = headers.get(header::RANGE).filter(|_| is_the_same) else {
        return Asked::All;
    };
    match range.to_str().ok().and_then(|range| part(range, length)) {
        Some(part) => Asked::Part(part),
        None => Asked::Impossible,
    }
}

/// Whether one of the tags in a header is this one.
fn is_among(known: &str, etag: &str, weak: bool) -> bool {
    let mut known = known.split(',').map(str::trim);
    known.any(|known| {
        let known = match weak {
            true => known.strip_prefix("W/").unwrap_or(known),
            false => known,
        };
        known == "*" || known == etag
    })
}

/// The one part that is asked for. `None`: there is no such part, or it is asked for in another way; several are.
fn part(range: &str, length: u64) -> Option<Range<u64>> {
    let (unit, range) = range.split_once('=')?;
    let (from, to) = range.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        // What is longer than any file is as long.
        is_number.then(|| (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
    };
    let part = match (number(from)?, number(to)?) {
        (Some(from), Some(to)) => from..to.saturating_add(1).min(length),
        (Some(from), None) => from..length,
        (None, Some(last)) => length.saturating_sub(last)..length,
        (None, None) => return None,
    };
    (part.start < part.end).then_some(part)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// A date as HTTP has it; what its years cannot say is its last day, or its first.
fn date(time: SystemTime) -> String {
    const LAST: u64 = 253_402_300_799;
    let seconds = Duration::from_secs(seconds(time).min(LAST));
    fmt_http_date(UNIX_EPOCH + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_understood() {
        for (range, wanted) in [
            ("bytes=0-9", Some(0..10)),
            ("bytes=0-0", Some(0..1)),
            ("Bytes=0-0", Some(0..1)),
            ("bytes=90-", Some(90..100)),
            ("bytes=-10", Some(90..100)),
            ("bytes=-1000", Some(0..100)),
            ("bytes=50-1000", Some(50..100)),
            ("bytes=0-99999999999999999999999", Some(0..100)),
            ("bytes=100-", None),
            ("bytes=99999999999999999999999-", None),
            ("bytes=9-5", None),
            ("bytes=-0", None),
            ("bytes=-", None),
            ("bytes=0-1,5-6", None),
            ("bytes=a-b", None),
            ("bytes= 0-1", None),
            ("bytes=+1-2", None),
            ("items=0-1", None),
            ("", None),
        ] {
            assert_eq!(part(range, 100), wanted, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), None, "an empty file has no part");
    }

    #[test]
    fn dates_are_told_whatever_a_file_system_says() {
        assert_eq!(date(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(date(before), "Thu, 01 Jan 1970 00:00:00 GMT");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(date(far), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
