//! What a job's document says, in words that fit into a line.

use serde_json::Value;
use std::time::{Duration, SystemTime};
use tabane_api::JobState;

/// The state of a job or an array; `None`: a word of another version.
pub(super) fn state(document: &Value) -> Option<JobState> {
    JobState::from_word(document["state"].as_str()?)
}

/// Whether nothing follows by itself.
pub(super) fn is_over(document: &Value) -> bool {
    state(document).is_some_and(JobState::is_over)
}

/// A text of a document, safe to print.
pub(super) fn text(value: &Value) -> String {
    plain(value.as_str().unwrap_or_default())
}

/// A text in one line, without what would command a terminal: clients and backends wrote it.
pub(super) fn plain(text: &str) -> String {
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(safe).collect()
}

/// How long ago something was; empty when the document does not say.
pub(super) fn ago(moment: &Value, now: SystemTime) -> String {
    let since = time(moment).map(|at| now.duration_since(at).unwrap_or_default());
    since.map(span).unwrap_or_default()
}

/// From one moment to another, or to now.
pub(super) fn took(from: &Value, to: &Value, now: SystemTime) -> String {
    let Some(from) = time(from) else {
        return String::new();
    };
    let to = time(to).unwrap_or(now);
    span(to.duration_since(from).unwrap_or_default())
}

/// A moment of a document (RFC 3339).
pub(super) fn time(moment: &Value) -> Option<SystemTime> {
    humantime::parse_rfc3339(moment.as_str()?).ok()
}

/// A time in its two largest units.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How many bytes, in the largest unit of which there is one.
pub(super) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(bits, _)| bytes >> bits > 0) {
        Some((bits, unit)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1_u32 << bits)),
        None => format!("{bytes} B"),
    }
}

/// How far it is: 0.0..=1.0.
pub(super) fn fraction(document: &Value) -> Option<f64> {
    let fraction = document["progress"]["fraction"].as_f64()?;
    Some(fraction.clamp(0.0, 1.0))
}

/// How it goes on: its place while it waits, how far it is while it runs.
pub(super) fn standing(document: &Value) -> String {
    let mut parts = Vec::new();
    if document["canceling"] == true {
        parts.push("being canceled".to_owned());
    }
    if is_over(document) {
        return String::new();
    }
    if let Some(position) = document["position"].as_u64() {
        parts.push(match position {
            0 => "next".to_owned(),
            before => format!("{before} before it"),
        });
    }
    if let Some(why) = document["stuck"].as_str() {
        parts.push(plain(why));
    }
    if let Some(fraction) = fraction(document) {
        parts.push(percent(fraction));
    }
    let words = text(&document["progress"]["text"]);
    if !words.is_empty() {
        parts.push(words);
    }
    if let Some(seconds) = document["eta_s"]["p50"].as_f64()
        && let Ok(left) = Duration::try_from_secs_f64(seconds.ceil())
    {
        parts.push(format!("done in about {}", span(left)));
    }
    parts.join(", ")
}

/// What it came to, once it is over.
pub(super) fn outcome(document: &Value, now: SystemTime) -> String {
    let mut parts = Vec::new();
    if let Some(error) = document["error"].as_str() {
        parts.push(plain(error));
    }
    if let Some(length) = document["result"]["length"].as_u64() {
        let kind = text(&document["result"]["content_type"]);
        parts.push(format!("{} {kind}", size(length)).trim_end().to_owned());
    }
    if document["array"] == true {
        parts.push(counts(document));
    }
    if document["ended"].is_string() {
        let took = took(&document["accepted"], &document["ended"], now);
        parts.push(format!("after {took}"));
    }
    parts.join(", ")
}

/// How many of an array's jobs are in which state.
pub(super) fn counts(array: &Value) -> String {
    let counts = array["counts"].as_object();
    let said: Vec<_> = JobState::ALL
        .into_iter()
        .filter_map(|state| Some((state, counts?.get(state.word())?.as_u64()?)))
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    said.join(", ")
}

/// A fraction as people say it. What is not whole is never said to be.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.0} %", (fraction * 100.0).floor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_and_sizes_are_said_in_units_that_fit() {
        for (seconds, says) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3600, "1h 0m"),
            (86_399, "23h 59m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), says);
        }
        for (bytes, says) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 20, "3.0 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(size(bytes), says);
        }
        assert_eq!(percent(0.999), "99 %");
    }

    #[test]
    fn where_a_job_stands_is_its_place_or_how_far_it_is() {
        for (document, says) in [
            (json!({"state": "queued", "position": 0}), "next"),
            (
                json!({"state": "queued", "position": 3, "eta_s": {"p50": 89.2}}),
                "3 before it, done in about 1m 30s",
            ),
            (
                json!({"state": "queued", "position": 0, "stuck": "nobody\nhas it"}),
                "next, nobody has it",
            ),
            (
                json!({"state": "running", "progress": {"fraction": 0.5, "text": "frame 12"}}),
                "50 %, frame 12",
            ),
            (
                json!({"state": "running", "canceling": true}),
                "being canceled",
            ),
            (
                json!({"state": "succeeded", "progress": {"fraction": 1.0}}),
                "",
            ),
        ] {
            assert_eq!(standing(&document), says, "{document}");
        }
    }

    #[test]
    fn nothing_that_a_backend_says_commands_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc\u{9b}d"), "a [2Jb  c d");
    }
}
