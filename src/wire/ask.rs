//! What a request says about being accepted for later, in its headers.

use crate::config::plan::JobsMode;
use crate::jobs::Jobs;
use crate::store::Moment;
use http::{HeaderMap, HeaderName};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::Refusal;

pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const START_BY: HeaderName = HeaderName::from_static("job-start-by");
const TIMEOUT: HeaderName = HeaderName::from_static("job-timeout");
const TAGS: HeaderName = HeaderName::from_static("job-tags");
const WEBHOOK: HeaderName = HeaderName::from_static("job-webhook");

/// The longest that a connection is held for `wait`.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How many tags a job may have, and how long each may be.
const TAGS_MOST: usize = 32;
const TAG_LONGEST: usize = 128;

/// The preferences of a request that the gateway knows (RFC 7240).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `respond-async`.
    pub respond_async: bool,
    /// `wait=N`.
    pub wait: Option<Duration>,
}

/// What a request says about its job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wishes {
    pub(super) prefer: Prefer,
    pub(super) idempotency_key: Option<String>,
    pub(super) start_by: Option<Moment>,
    pub(super) timeout_ms: Option<i64>,
    pub(super) tags: Vec<String>,
    pub(super) webhook: Option<Arc<str>>,
}

/// Whether a request becomes a job.
pub fn wants_job(mode: JobsMode, takes_slot: bool, headers: &HeaderMap) -> bool {
    match mode {
        JobsMode::Off => false,
        JobsMode::OptIn => headers.contains_key(PREFER) && Prefer::read(headers).respond_async,
        JobsMode::Always => takes_slot || Prefer::read(headers).respond_async,
    }
}

// === impl Prefer ===

impl Prefer {
    /// Reads all `Prefer` headers. What is not known or not whole is ignored, as RFC 7240 wants; of two that
    /// contradict each other the first counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut prefer = Prefer::default();
        let values = headers.get_all(PREFER).iter();
        let all = values.filter_map(|value| value.to_str().ok());
        for one in all.flat_map(|value| value.split(',')) {
            // Parameters of a preference come after a semicolon; none is known here.
            let one = one.split(';').next().unwrap_or_default();
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait")
                && prefer.wait.is_none()
                && let Ok(seconds) = value.parse::<u64>()
            {
                prefer.wait = Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
            }
        }
        prefer
    }

    /// What is left of `Prefer` for the node: it is end to end, less what the gateway does itself.
    pub(super) fn strip(headers: &mut HeaderMap) {
        let left: Vec<String> = headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|one| {
                let name = one.split([';', '=']).next().unwrap_or_default().trim();
                !name.eq_ignore_ascii_case("respond-async") && !name.eq_ignore_ascii_case("wait")
            })
            .map(str::to_owned)
            .collect();
        headers.remove(PREFER);
        if !left.is_empty()
            && let Ok(value) = left.join(", ").parse()
        {
            headers.insert(PREFER, value);
        }
    }
}

// === impl Wishes ===

impl Wishes {
    /// Reads them.
    ///
    /// Errors: a header says something that makes no sense.
    pub(super) fn read(headers: &HeaderMap, jobs: &Jobs) -> Result<Self, Refusal> {
        let start_by = duration(headers, &START_BY)?;
        let timeout = duration(headers, &TIMEOUT)?;
        Ok(Wishes {
            prefer: Prefer::read(headers),
            idempotency_key: idempotency_key(headers)?,
            start_by: start_by.map(|wait| jobs.now().after(wait)),
            timeout_ms: timeout.map(|most| i64::try_from(most.as_millis()).unwrap_or(i64::MAX)),
            tags: tags(headers)?,
            webhook: webhook(text(headers, &WEBHOOK)?, jobs)?,
        })
    }

    /// Takes off what was meant for the gateway.
    pub(super) fn strip(headers: &mut HeaderMap) {
        for name in [START_BY, TIMEOUT, TAGS, WEBHOOK] {
            headers.remove(name);
        }
        Prefer::strip(headers);
    }
}

/// Where a job's end is told, if letters may go there.
pub(super) fn webhook(url: Option<&str>, jobs: &Jobs) -> Result<Option<Arc<str>>, Refusal> {
    let Some(url) = url else { return Ok(None) };
    let checked = jobs.check_webhook(url);
    checked.map_err(|why| Refusal::BadRequest(format!("`job-webhook`: {why}")))?;
    Ok(Some(url.into()))
}

/// A duration with its unit, such as `90s` or `2h30m`; seconds without one.
pub(super) fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).ok()
}

fn duration(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Duration>, Refusal> {
    let Some(text) = text(headers, name)? else {
        return Ok(None);
    };
    match span(text) {
        Some(span) if !span.is_zero() => Ok(Some(span)),
        _ => Err(Refusal::BadRequest(format!(
            "`{name}: {text}` is no duration; write `90s`, `10m` or `2h`"
        ))),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) if !text.trim().is_empty() => Ok(Some(text.trim())),
        (Ok(_), None) => Ok(None),
        (Ok(_), Some(_)) => Err(Refusal::BadRequest(format!("`{name}` stands there twice"))),
        (Err(_), _) => Err(Refusal::BadRequest(format!("`{name}` is not text"))),
    }
}

/// The key of a request that may be sent again (draft-ietf-httpapi-idempotency-key-header: a quoted string; whoever leaves
/// the quotes out means the same).
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(key) = text(headers, &IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let bare = key
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'))
        .unwrap_or(key);
    match bare.len() {
        1..=255 => Ok(Some(bare.to_owned())),
        _ => Err(Refusal::BadRequest(
            "an `Idempotency-Key` has 1 to 255 characters".into(),
        )),
    }
}

fn tags(headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let mut tags = Vec::new();
    for value in headers.get_all(TAGS) {
        let value = value
            .to_str()
            .map_err(|_| Refusal::BadRequest("`job-tags` is not text".into()))?;
        let all = value.split(',').map(str::trim);
        tags.extend(all.filter(|tag| !tag.is_empty()).map(str::to_owned));
    }
    check_tags(tags)
}

/// Tags in order, each once.
///
/// Errors: they are too many or too long.
pub(super) fn check_tags(mut tags: Vec<String>) -> Result<Vec<String>, Refusal> {
    tags.sort();
    tags.dedup();
    if tags.len() > TAGS_MOST || tags.iter().any(|tag| tag.len() > TAG_LONGEST) {
        return Err(Refusal::BadRequest(format!(
            "a job has at most {TAGS_MOST} tags of at most {TAG_LONGEST} bytes each"
        )));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn preferences_are_read_as_rfc_7240_says() {
        let prefer = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("prefer", *line)).collect();
            let Prefer {
                respond_async,
                wait,
            } = Prefer::read(&headers(&lines));
            (respond_async, wait.map(|wait| wait.as_secs()))
        };
        for (lines, wants) in [
            (&["respond-async"][..], (true, None)),
            (&["respond-async, wait=10"], (true, Some(10))),
            (&["Respond-Async;foo=bar", "WAIT = \"5\""], (true, Some(5))),
            (&["wait=10, wait=20"], (false, Some(10))),
            (&["wait=soon", "handling=lenient"], (false, None)),
            (&["wait=99999"], (false, Some(3600))),
            (&["respond-asynchronously"], (false, None)),
            (&[], (false, None)),
        ] {
            assert_eq!(prefer(lines), wants, "{lines:?}");
        }
    }

    #[test]
    fn the_node_sees_the_preferences_that_are_not_the_gateways() {
        for (before, after) in [
            ("respond-async", None),
            ("respond-async, wait=10", None),
            ("handling=lenient, respond-async", Some("handling=lenient")),
            (
                "return=minimal; foo=1, wait=3",
                Some("return=minimal; foo=1"),
            ),
        ] {
            let mut headers = headers(&[("prefer", before)]);
            Prefer::strip(&mut headers);
            let left = headers.get(PREFER).map(|value| value.to_str().unwrap());
            assert_eq!(left, after, "{before}");
        }
    }

    #[test]
    fn who_becomes_a_job_is_the_routes_and_the_requests_word() {
        let asks = headers(&[("prefer", "respond-async")]);
        let asks_not = headers(&[("prefer", "wait=5")]);
        for (mode, slot, headers, wants) in [
            (JobsMode::Off, true, &asks, false),
            (JobsMode::OptIn, true, &asks, true),
            (JobsMode::OptIn, false, &asks, true),
            (JobsMode::OptIn, true, &asks_not, false),
            (JobsMode::Always, true, &asks_not, true),
            (JobsMode::Always, false, &asks_not, false),
            (JobsMode::Always, false, &asks, true),
        ] {
            assert_eq!(wants_job(mode, slot, headers), wants, "{mode:?} {slot}");
        }
    }

    #[test]
    fn durations_have_units_and_bare_numbers_are_seconds() {
        for (text, wants) in [
            ("10m", Some(600)),
            ("2h30m", Some(9000)),
            ("45", Some(45)),
            ("soon", None),
            ("-5s", None),
            ("", None),
        ] {
            assert_eq!(span(text).map(|span| span.as_secs()), wants, "{text}");
        }
    }

    #[test]
    fn a_header_that_makes_no_sense_is_refused_by_name() {
        for (lines, wants) in [
            (
                &[("idempotency-key", "\"a\"")][..],
                Ok(Some("a".to_owned())),
            ),
            (&[("idempotency-key", "a")], Ok(Some("a".to_owned()))),
            (&[], Ok(None)),
            (&[("idempotency-key", "\"\"")], Err("1 to 255")),
            (
                &[("idempotency-key", "a"), ("idempotency-key", "b")],
                Err("twice"),
            ),
        ] {
            match (idempotency_key(&headers(lines)), wants) {
                (Ok(key), Ok(wants)) => assert_eq!(key, wants),
                (Err(error), Err(wants)) => {
                    assert!(error.to_string().contains(wants), "{error}");
                }
                other => panic!("{lines:?}: {other:?}"),
            }
        }
        assert_eq!(
            tags(&headers(&[
                ("job-tags", "shot=010, b,a"),
                ("job-tags", "a")
            ]))
            .unwrap(),
            ["a", "b", "shot=010"]
        );
    }
}
