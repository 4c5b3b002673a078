//! `tabane jobs list`.

use super::found::segment;
use super::table::{Table, numbers, words};
use super::words::{ago, is_over, standing, text};
use crate::cli::remote::{Ask, Remote};
use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::Value;
use std::io::{self, Write};
use std::time::SystemTime;

/// The most that the API gives at once.
const PAGE: usize = 1000;

#[derive(Args)]
pub(super) struct ListArgs {
    /// Only those in these states
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Only those of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only those with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only those of this class
    #[arg(long)]
    class: Option<String>,
    /// Only those of this array
    #[arg(long, value_name = "ID")]
    array: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// The API's documents, one a line
    #[arg(long)]
    json: bool,
}

/// Lists jobs.
pub(super) fn list(remote: &Remote, args: &ListArgs) -> Result<()> {
    let mut table = Table::new([
        words("id"),
        words("state"),
        words("service"),
        words("class"),
        numbers("prio"),
        numbers("age"),
        words("node"),
        words("progress"),
    ]);
    let mut out = io::stdout().lock();
    let now = SystemTime::now();
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut left = if args.all { usize::MAX } else { most };
    let mut cursor = None;
    loop {
        let query = query(args, left.min(PAGE), cursor.as_deref());
        let page = remote.json(&Ask::new(Method::GET, &format!("/api/v1/jobs?{query}")))?;
        let jobs = page["jobs"].as_array().map_or(&[][..], Vec::as_slice);
        for job in jobs {
            if args.json {
                writeln!(out, "{job}")?;
            } else {
                table.row(row(job, node(remote, job), now));
            }
        }
        left = left.saturating_sub(jobs.len());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || left == 0 {
            break;
        }
    }
    if !args.json {
        write!(out, "{}", table.render(""))?;
        if cursor.is_some() {
            eprintln!("there are more: --all lists them");
        }
    }
    Ok(())
}

fn query(args: &ListArgs, limit: usize, cursor: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("state", args.state.as_deref()),
        ("service", args.service.as_deref()),
        ("tenant", args.tenant.as_deref()),
        ("tag", args.tag.as_deref()),
        ("class", args.class.as_deref()),
        ("array", args.array.as_deref()),
        ("cursor", cursor),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.append_pair("limit", &limit.to_string());
    query.finish()
}

fn row(job: &Value, node: String, now: SystemTime) -> [String; 8] {
    [
        text(&job["id"]),
        text(&job["state"]),
        text(&job["service"]),
        text(&job["class"]),
        job["priority"].to_string(),
        ago(&job["accepted"], now),
        node,
        standing(job),
    ]
}

/// Where a job is at work. Lists leave attempts out, and so few are at work at once that each can be asked for.
fn node(remote: &Remote, job: &Value) -> String {
    if is_over(job) || job["state"] == "queued" {
        return String::new();
    }
    let path = format!("/api/v1/jobs/{}", segment(&text(&job["id"])));
    // One that is gone meanwhile has no node.
    let document = remote
        .json(&Ask::new(Method::GET, &path))
        .unwrap_or_default();
    let attempts = document["attempts"].as_array();
    let latest = attempts.and_then(|attempts| attempts.last());
    latest
        .map(|attempt| text(&attempt["node"]))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_where_a_job_stands() {
        let job = json!({
            "id": "01A", "state": "queued", "service": "render", "class": "/frame", "priority": 3, "position": 2,
            "accepted": "2026-01-01T00:00:00.000Z",
        });
        let now = humantime::parse_rfc3339("2026-01-01T00:01:30Z").unwrap();
        let wants = [
            "01A",
            "queued",
            "render",
            "/frame",
            "3",
            "1m 30s",
            "",
            "2 before it",
        ];
        assert_eq!(row(&job, String::new(), now), wants);
    }
}
