//! What was recorded: a trace as people write it, or the gateway's own log.

use super::setup::Setup;
use super::trace::{Arrival, Trace};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tabane_api::{ANONYMOUS, Urgency};

/// Requests as they were, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// All of them.
    pub requests: Vec<Request>,
    /// How many lines of a log were not requests for work.
    pub skipped: usize,
}

/// A request as it was.
#[derive(Clone, Debug)]
pub struct Request {
    /// The line it stands in, from 1.
    pub line: usize,
    /// When it came, seconds after the first.
    pub at_s: f64,
    /// For which service; `None` where there is only one.
    pub service: Option<String>,
    /// What its kind called it.
    pub class: String,
    /// How much work it was.
    pub size: f64,
    /// Who asked.
    pub tenant: String,
    /// How soon it wanted its turn.
    pub urgency: Urgency,
    /// Whether a person waited for it.
    pub interactive: bool,
    /// Whether a client held its connection meanwhile.
    pub held: bool,
    /// Where it ran (a node or an endpoint), how many seconds, and whether something was loaded for it first: where its line
    /// does not say, when another class ran there before.
    pub ran: Option<(String, f64, bool)>,
    /// What its line says of that.
    said_cold: Option<bool>,
    /// What was loaded for it.
    pub model: Option<String>,
    /// The memory that this takes, MiB.
    pub vram_mib: u64,
}

/// A line of a trace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_s: f64,
    service: Option<String>,
    #[serde(default)]
    class: String,
    #[serde(default = "one")]
    size: f64,
    tenant: Option<String>,
    urgency: Option<u8>,
    #[serde(default)]
    interactive: bool,
    #[serde(default)]
    held: bool,
    node: Option<String>,
    seconds: Option<f64>,
    cold: Option<bool>,
    model: Option<String>,
    #[serde(default)]
    vram_mib: u64,
}

/// What counts of a line of the access log.
#[derive(Deserialize)]
struct Logged {
    timestamp: String,
    tenant: String,
    service: String,
    class: Option<String>,
    #[serde(default = "one")]
    size: f64,
    node: String,
    wait_ms: f64,
    total_ms: f64,
    attempts: u32,
    job: Option<String>,
    outcome: String,
}

/// The target of the access log's lines.
const ACCESS: &str = "tabane::access";

// === impl Recorded ===

impl Recorded {
    /// Reads JSON lines: `{"at_s": 0.5, "class": "small", …}`, or the gateway's log in its JSON form.
    ///
    /// Errors: the first line that cannot be read, by its number.
    pub fn read(text: &str) -> Result<Recorded, String> {
        let mut recorded = Recorded::default();
        for (i, line) in text.lines().enumerate() {
            let line_number = i + 1;
            if line.trim().is_empty() {
                continue;
            }
            let at = |what: String| format!("line {line_number}: {what}");
            let value: Value = serde_json::from_str(line)
                .map_err(|error| at(format!("not JSON: {}", said(&error))))?;
            let read = match value.get("target").and_then(Value::as_str) {
                Some(ACCESS) => logged(value, line_number),
                Some(_) => Ok(None),
                None => typed(value, line_number).map(Some),
            };
            match read.map_err(at)? {
                Some(request) => recorded.requests.push(request),
                None => recorded.skipped += 1,
            }
        }
        if recorded.requests.is_empty() {
            return Err("it has no request for work; lines of a log need `class`".into());
        }
        let requests = &mut recorded.requests;
        requests.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        let first_s = requests.first().map_or(0.0, |first| first.at_s);
        let mut last: HashMap<String, String> = HashMap::new();
        for request in requests {
            request.at_s -= first_s;
            if let Some((node, _, cold)) = &mut request.ran {
                let before = last.insert(node.clone(), request.class.clone());
                *cold = request
                    .said_cold
                    .unwrap_or(before.as_ref() != Some(&request.class));
            }
        }
        Ok(recorded)
    }

    /// The same as arrivals at a setup.
    ///
    /// Errors: a line whose service or class the setup does not know.
    pub fn trace(&self, setup: &Setup) -> Result<Trace, String> {
        let mut tenants: Vec<Arc<str>> = Vec::new();
        let mut arrivals = Vec::with_capacity(self.requests.len());
        for request in &self.requests {
            let at = |what: String| format!("line {}: {what}", request.line);
            let service = setup.service(request.service.as_deref()).map_err(at)?;
            let class = setup.class(service, &request.class).ok_or_else(|| {
                at(format!(
                    "nothing is known of how long `{}` takes",
                    request.class
                ))
            })?;
            let tenant = match tenants.iter().find(|known| ***known == request.tenant) {
                Some(known) => known.clone(),
                None => {
                    tenants.push(request.tenant.as_str().into());
                    tenants[tenants.len() - 1].clone()
                }
            };
            arrivals.push(Arrival {
                at_s: request.at_s,
                class,
                size: request.size,
                luck: request.luck(setup, class),
                tenant,
                urgency: request.urgency,
                interactive: request.interactive,
                held: request.held,
            });
        }
        Ok(Trace { arrivals })
    }
}

// === impl Request ===

impl Request {
    /// How much longer it took than others of its size: it would have done so elsewhere as well.
    fn luck(&self, setup: &Setup, class: usize) -> f64 {
        let Some((node, seconds, cold)) = &self.ran else {
            return 1.0;
        };
        let cost = setup
            .endpoint(node)
            .and_then(|endpoint| setup.classes[class].costs[endpoint]);
        let Some(cost) = cost else {
            return 1.0;
        };
        let load_s = if *cold { cost.load_s } else { 0.0 };
        ((seconds - load_s) / (cost.run_s * self.size)).clamp(0.05, 20.0)
    }
}

fn typed(value: Value, line: usize) -> Result<Request, String> {
    let read: Line = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let positive = |what: &str, n: f64| match n.is_finite() && n > 0.0 {
        true => Ok(n),
        false => Err(format!("`{what}` has to be above 0")),
    };
    if !read.at_s.is_finite() || read.at_s < 0.0 {
        return Err("`at_s` has to be 0 or more".into());
    }
    let ran = match (read.node, read.seconds) {
        (Some(node), Some(seconds)) => Some((node, positive("seconds", seconds)?, false)),
        (None, Some(_)) => return Err("`seconds` says nothing without the `node` it ran on".into()),
        (_, None) => None,
    };
    Ok(Request {
        line,
        at_s: read.at_s,
        service: read.service,
        class: read.class,
        size: positive("size", read.size)?,
        tenant: read.tenant.unwrap_or_else(|| ANONYMOUS.into()),
        urgency: read.urgency.map_or_else(Urgency::default, Urgency::new),
        interactive: read.interactive,
        held: read.held,
        ran,
        said_cold: read.cold,
        model: read.model,
        vram_mib: read.vram_mib,
    })
}

/// A line of the access log; `None` where it was no work for a node.
fn logged(value: Value, line: usize) -> Result<Option<Request>, String> {
    let read: Logged = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let Some(class) = read.class else {
        return Ok(None);
    };
    let ended = humantime::parse_rfc3339(&read.timestamp).map_err(|error| error.to_string())?;
    let ended = ended.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // A request that went well at the first try says how long it took where it ran. One that became a job says nothing:
    // its line was written when it was accepted.
    let seconds = (read.total_ms - read.wait_ms) / 1000.0;
    let tells = read.outcome == "ok" && read.job.is_none() && read.attempts == 1 && seconds > 0.0;
    Ok(Some(Request {
        line,
        at_s: ended.as_secs_f64() - read.total_ms / 1000.0,
        service: Some(read.service),
        class,
        size: if read.size > 0.0 { read.size } else { 1.0 },
        tenant: read.tenant,
        urgency: Urgency::default(),
        interactive: false,
        held: read.job.is_none(),
        ran: tells.then_some((read.node, seconds, false)),
        said_cold: None,
        model: None,
        vram_mib: 0,
    }))
}

/// An error of one line of JSON, whose own line is always 1.
fn said(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.replace(" at line 1 column", " at column")
}

fn one() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_trace_is_told_by_its_line() {
        let good = r#"{"at_s": 1, "class": "small"}"#;
        for (bad, what) in [
            ("{", "line 3: not JSON: EOF"),
            (r#"{"class": "small"}"#, "line 3: missing field `at_s`"),
            (
                r#"{"at_s": 1, "klass": 2}"#,
                "line 3: unknown field `klass`",
            ),
            (r#"{"at_s": -1}"#, "line 3: `at_s` has to be 0 or more"),
            (
                r#"{"at_s": 1, "size": 0}"#,
                "line 3: `size` has to be above 0",
            ),
            (
                r#"{"at_s": 1, "seconds": 3}"#,
                "line 3: `seconds` says nothing",
            ),
            (
                r#"{"target": "tabane::access"}"#,
                "line 3: missing field `timestamp`",
            ),
        ] {
            let said = Recorded::read(&format!("{good}\n\n{bad}\n{good}")).unwrap_err();
            assert!(said.starts_with(what), "{said}");
        }
        assert!(Recorded::read("\n").unwrap_err().contains("no request"));
    }

    #[test]
    fn the_gateways_log_is_a_trace_of_when_requests_came() {
        let line = |second: u32, more: &str| {
            format!(
                r#"{{"timestamp":"2026-11-26T20:00:{second:02}.500Z","target":"tabane::access","tenant":"t","service":"any",
                "node":"a/http","wait_ms":1000,"total_ms":3000,"attempts":1,"outcome":"ok",{more}"status":200}}"#
            )
            .replace('\n', "")
        };
        let text = [
            r#"{"timestamp":"2026-11-26T20:00:01Z","target":"tabane::cli::run","message":"up"}"#
                .into(),
            line(20, r#""class":"b","size":2.0,"#),
            line(10, r#""class":"a","#),
            line(15, ""),
            line(30, r#""class":"a","job":"01J","#),
        ];
        let read = Recorded::read(&text.join("\n")).unwrap();
        assert_eq!(
            read.skipped, 2,
            "what is no request, and one that took no slot"
        );
        let told: Vec<_> = read
            .requests
            .iter()
            .map(|r| (r.line, r.at_s, r.held))
            .collect();
        assert_eq!(told, [(3, 0.0, true), (2, 10.0, true), (5, 20.0, false)]);
        let b = &read.requests[1];
        assert_eq!((&*b.class, b.size), ("b", 2.0));
        assert_eq!(b.ran, Some(("a/http".into(), 2.0, true)));
        assert_eq!(
            read.requests[2].ran, None,
            "a job's line is that of its acceptance"
        );
    }
}
