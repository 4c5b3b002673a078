//! `tabane jobs show`.

use super::Id;
use super::bar::bar;
use super::found::Found;
use super::table::{Table, numbers, words};
use super::words::{ago, counts, fraction, plain, size, standing, text, took};
use crate::cli::remote::Remote;
use anyhow::Result;
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::SystemTime;

/// How wide a bar is here.
const BAR: usize = 30;

#[derive(Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    of: Id,
    /// The API's document
    #[arg(long)]
    json: bool,
}

/// Says all that is known of a job, or of an array.
pub(super) fn show(remote: &Remote, args: &ShowArgs) -> Result<()> {
    let found = Found::by_id(remote, &args.of.id)?;
    if args.json {
        writeln!(io::stdout(), "{:#}", found.document)?;
    } else {
        let shown = shown(&found.document, SystemTime::now());
        write!(io::stdout(), "{shown}")?;
    }
    Ok(())
}

/// A document for people.
fn shown(document: &Value, now: SystemTime) -> String {
    let mut all = String::new();
    let mut line = |name: &str, said: String| {
        if !said.is_empty() {
            let _ = writeln!(all, "{name:<11} {said}");
        }
    };
    let array = document["array"] == true;
    line(if array { "array" } else { "job" }, text(&document["id"]));
    line("state", text(&document["state"]));
    line("goes on", standing(document));
    line(
        "progress",
        fraction(document).map(|f| bar(f, BAR)).unwrap_or_default(),
    );
    line("jobs", counts(document));
    line("service", text(&document["service"]));
    line("class", text(&document["class"]));
    line("tenant", text(&document["tenant"]));
    line("priority", number(&document["priority"]));
    line("request", request(&document["request"]));
    for (name, key) in [
        ("accepted", "accepted"),
        ("started", "started"),
        ("ended", "ended"),
    ] {
        line(name, moment(&document[key], now));
    }
    for (name, key) in [
        ("start by", "start_by"),
        ("not before", "not_before"),
        ("kept until", "keep_until"),
    ] {
        line(name, text(&document[key]));
    }
    line("tags", tags(&document["tags"]));
    line("of array", parent(&document["array"]));
    line("result", result(&document["result"]));
    line("error", text(&document["error"]));
    if let Some(attempts) = document["attempts"]
        .as_array()
        .filter(|all| !all.is_empty())
    {
        all.push_str("\nattempts\n");
        all.push_str(&table(attempts, now).render("  "));
    }
    if let Some(links) = document["links"].as_object() {
        all.push_str("\nlinks\n");
        for (name, link) in links {
            let _ = writeln!(all, "  {:<9} {}", plain(name), text(link));
        }
    }
    all
}

fn table(attempts: &[Value], now: SystemTime) -> Table<6> {
    let mut table = Table::new([
        numbers("number"),
        words("node"),
        words("started"),
        numbers("took"),
        words("outcome"),
        words("error"),
    ]);
    for attempt in attempts {
        table.row([
            number(&attempt["number"]),
            text(&attempt["node"]),
            text(&attempt["started"]),
            took(&attempt["started"], &attempt["ended"], now),
            match attempt["outcome"].as_str() {
                Some(outcome) => plain(outcome),
                None => "at work".to_owned(),
            },
            text(&attempt["error"]),
        ]);
    }
    table
}

fn number(value: &Value) -> String {
    value.as_u64().map(|n| n.to_string()).unwrap_or_default()
}

fn moment(value: &Value, now: SystemTime) -> String {
    match value.as_str() {
        Some(at) => format!("{}, {} ago", plain(at), ago(value, now)),
        None => String::new(),
    }
}

fn request(value: &Value) -> String {
    match value["length"].as_u64() {
        Some(length) => format!(
            "{} {}, {}",
            text(&value["method"]),
            text(&value["target"]),
            size(length)
        ),
        None => String::new(),
    }
}

fn tags(value: &Value) -> String {
    let tags: Vec<_> = value.as_array().into_iter().flatten().map(text).collect();
    tags.join(", ")
}

fn parent(value: &Value) -> String {
    match value["id"].as_str() {
        Some(id) => format!("{}, item {}", plain(id), value["item"]),
        None => String::new(),
    }
}

fn result(value: &Value) -> String {
    match value["length"].as_u64() {
        Some(length) => format!(
            "{}, {} {}",
            value["status"],
            size(length),
            text(&value["content_type"])
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_person_is_told_what_the_document_says_and_nothing_that_it_does_not() {
        let document = json!({
            "id": "01A", "state": "running", "service": "render", "tenant": "anyone", "class": "render", "priority": 3,
            "request": {"method": "POST", "target": "/frame?n=1", "length": 2048},
            "progress": {"fraction": 0.5, "text": "line 12\u{7} of 24"},
            "accepted": "2026-01-01T00:00:00.000Z",
            "started": "2026-01-01T00:01:00.000Z",
            "tags": ["a", "b"],
            "attempts": [
                {"number": 1, "node": "a/http", "started": "2026-01-01T00:00:10.000Z",
                 "ended": "2026-01-01T00:00:40.000Z", "outcome": "node_failed", "error": "reset"},
                {"number": 2, "node": "b/http", "started": "2026-01-01T00:01:00.000Z"},
            ],
            "links": {"self": "/_tabane/jobs/01A"},
        });
        let now = humantime::parse_rfc3339("2026-01-01T00:02:00Z").unwrap();
        let wants = "\
job         01A
state       running
goes on     50 %, line 12  of 24
progress    [###############---------------]
service     render
class       render
tenant      anyone
priority    3
request     POST /frame?n=1, 2.0 KiB
accepted    2026-01-01T00:00:00.000Z, 2m 0s ago
started     2026-01-01T00:01:00.000Z, 1m 0s ago
tags        a, b

attempts
  number  node    started                    took  outcome      error
       1  a/http  2026-01-01T00:00:10.000Z    30s  node_failed  reset
       2  b/http  2026-01-01T00:01:00.000Z  1m 0s  at work

links
  self      /_tabane/jobs/01A
";
        assert_eq!(shown(&document, now), wants);
    }

    #[test]
    fn an_array_is_shown_by_the_counts_of_its_jobs() {
        let document = json!({
            "id": "01B", "array": true, "state": "running", "total": 4, "done": 2,
            "counts": {"running": 1, "queued": 1, "succeeded": 2},
        });
        let shown = shown(&document, SystemTime::UNIX_EPOCH);
        assert!(shown.starts_with("array       01B\n"), "{shown}");
        assert!(
            shown.contains("1 queued, 1 running, 2 succeeded"),
            "{shown}"
        );
    }
}
