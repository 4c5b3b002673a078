//! What operators watch with, in conf/deploy, asks for nothing that there is not.
//!
//! The dashboard and the alerts are read for their expressions. What there is comes from two sides: names
//! from the golden file, which is the promise, and labels from what `/metrics` really says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tabane::telemetry::{
    EdgeGauge, EndpointGauge, Filled, JobCounts, JobsGauge, LetterOutcome, Metrics, Outcome,
    PoolGauge, ProbeOutcome, ServiceGauge,
};
use tabane_api::{JobState, Refusal, Usage};

/// What Prometheus adds to whatever it scrapes.
const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];

/// Labels whose values are words of ours, a closed list each.
const WORDS: [&str; 4] = ["outcome", "state", "result", "code"];

/// Samples, by name: their labels, and the values that were seen of each.
type Samples = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// An expression, and where it stands.
struct Asked {
    place: String,
    expr: String,
    /// Labels that are shown beside it.
    shown: Vec<String>,
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let legend = target["legendFormat"].as_str().unwrap();
            let shown = legend.split("{{").skip(1);
            asked.push(Asked {
                place: format!("panel `{title}`"),
                expr: target["expr"].as_str().unwrap().to_owned(),
                shown: shown
                    .filter_map(|rest| Some(rest.split_once("}}")?.0.trim().to_owned()))
                    .collect(),
            });
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            // `label_values(metric, label)`, which reads like `sum by (label) (metric)`.
            let said = variable["query"]["query"].as_str().unwrap();
            let inside = said
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) = inside.and_then(|inside| inside.split_once(", ")).unwrap();
            asked.push(Asked {
                place: format!("variable `{}`", variable["name"]),
                expr: format!("sum by ({label}) ({metric})"),
                shown: vec![label.to_owned()],
            });
        }
    }
    assert!(asked.len() >= 40, "saw {} expressions", asked.len());
    let used = answered(&asked);
    // Whoever adds a metric shows it, or says here why nobody wants to see it.
    let not_shown = [
        "tabane_config_info",
        "tabane_config_last_success_timestamp_seconds",
        "tabane_config_reload_seconds",
    ];
    for name in golden() {
        let shown = used.iter().any(|sample| base(sample) == name.0);
        let left_out = not_shown.contains(&name.0.as_str());
        assert!(
            shown != left_out,
            "`{}` is in no panel, or is after all",
            name.0
        );
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_what_unit() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut places, mut seen) = (BTreeSet::new(), BTreeSet::new(), 0);
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    x < 24 && places.insert((x, y)),
                    "{title} lies over another panel"
                );
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        seen += 1;
        assert!(panel["description"].as_str().unwrap().len() > 10, "{title}");
        assert!(
            !panel["fieldConfig"]["defaults"]["unit"]
                .as_str()
                .unwrap()
                .is_empty(),
            "{title}"
        );
        for source in panel["targets"].as_array().unwrap().iter().chain([panel]) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    assert!(seen >= 25, "saw {seen} panels");
}

#[test]
fn the_alerts_ask_for_what_there_is() {
    let alerts: serde_yaml::Value = serde_yaml::from_str(&read("alerts.yaml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_sequence().unwrap();
    let text = |value: &serde_yaml::Value| value.as_str().unwrap_or_default().to_owned();
    let asked: Vec<Asked> = rules
        .iter()
        .map(|rule| {
            let annotations = &rule["annotations"];
            assert!(!text(&annotations["summary"]).is_empty(), "{rule:?}");
            assert!(
                rule["labels"]["severity"].is_string() && rule["for"].is_string(),
                "{rule:?}"
            );
            let said = text(&annotations["summary"]) + &text(&annotations["description"]);
            let shown = said.split("$labels.").skip(1);
            Asked {
                place: format!("alert `{}`", text(&rule["alert"])),
                expr: text(&rule["expr"]),
                shown: shown
                    .map(|rest| rest.chars().take_while(|c| is_word(*c)).collect())
                    .collect(),
            }
        })
        .collect();
    assert!(asked.len() >= 6, "saw {} rules", asked.len());
    answered(&asked);
}

#[test]
fn what_there_is_not_is_found() {
    let samples = samples();
    let wrong = |expr: &str, shown: &str| {
        let shown = shown.split_whitespace().map(str::to_owned).collect();
        let asked = Asked {
            place: String::new(),
            expr: expr.into(),
            shown,
        };
        !faults(&asked, &samples, &mut BTreeSet::new()).is_empty()
    };
    for (expr, shown) in [
        (
            "sum by (service) (rate(tabane_requests_total{service=~\"$service\", outcome=\"ok\"}[5m]))",
            "service",
        ),
        (
            "histogram_quantile(0.5, sum by (le, node) (rate(tabane_upstream_seconds_bucket{node!=\"\"}[5m])))",
            "node",
        ),
        (
            "process_open_fds / process_max_fds > 0.9 and on (job, instance) tabane_build_info",
            "instance",
        ),
        (
            "max by (endpoint) (2 * tabane_endpoint_state{state=~\"up|down\"})",
            "endpoint",
        ),
        ("tabane_waiting", "service"),
    ] {
        assert!(!wrong(expr, shown), "{expr}");
    }
    for (expr, shown) in [
        // Names.
        ("tabane_request_total", ""),
        ("rate(tabane_requests[5m])", ""),
        ("tabane_request_seconds", ""),
        ("tabane_waiting_total", ""),
        ("process_open_files", ""),
        ("1 + 1", ""),
        // Labels.
        ("tabane_waiting{node=\"a\"}", ""),
        ("tabane_waiting{service=\"a\", nodes!=\"a\"}", ""),
        ("sum by (node) (tabane_waiting)", ""),
        (
            "sum by (service) (tabane_waiting) / sum by (service) (tabane_endpoint_slots)",
            "",
        ),
        (
            "sum by (le, service) (rate(tabane_request_seconds_sum[5m]))",
            "",
        ),
        ("tabane_waiting and on (node) tabane_endpoint_slots", ""),
        ("sum(tabane_waiting) by (service)", ""),
        ("sum without (service) (tabane_waiting)", ""),
        // Words.
        ("tabane_requests_total{outcome=\"good\"}", ""),
        ("tabane_endpoint_state{state=~\"up|dead\"}", ""),
        ("tabane_requests_total{code=\"full\"}", ""),
        // What is shown beside it.
        ("sum by (service) (tabane_waiting)", "node"),
        ("sum(tabane_waiting)", "service"),
    ] {
        assert!(wrong(expr, shown), "{expr} {shown}");
    }
}

// === what is asked ===

/// Panics with all that is asked for and is not there; the samples that were asked for otherwise.
fn answered(asked: &[Asked]) -> BTreeSet<String> {
    let (samples, mut used) = (samples(), BTreeSet::new());
    let found: Vec<String> = asked
        .iter()
        .flat_map(|asked| faults(asked, &samples, &mut used))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    used
}

/// What is wrong with an expression. Aggregations are written `sum by (label) (…)`.
fn faults(asked: &Asked, samples: &Samples, used: &mut BTreeSet<String>) -> Vec<String> {
    let expr = asked.expr.as_str();
    let mut found = Vec::new();
    let mut fault = |what: String| found.push(format!("{}: {what} in `{expr}`", asked.place));
    let outside = blank_strings(expr);
    let metrics = metrics(&outside);
    if metrics.is_empty() {
        fault("no metric".into());
    }
    for (at, name) in &metrics {
        let Some(labels) = samples.get(*name) else {
            fault(format!("there is no `{name}`"));
            continue;
        };
        used.insert((*name).to_owned());
        let rest = &expr[at + name.len()..];
        let inside = rest.strip_prefix('{').map_or("", |inside| {
            let end = outside[at + name.len() + 1..].find('}').unwrap_or_default();
            &inside[..end]
        });
        for (label, values) in matchers(inside) {
            if OF_THE_SCRAPE.contains(&label) {
                continue;
            }
            match labels.get(label) {
                None => fault(format!("`{name}` has no label `{label}`")),
                Some(known) if WORDS.contains(&label) => {
                    for value in values.split('|').filter(|value| !known.contains(*value)) {
                        fault(format!("`{label}` of `{name}` is never `{value}`"));
                    }
                }
                Some(_) => {}
            }
        }
    }
    let mut kept: Option<BTreeSet<&str>> = None;
    for (word, labels, body) in groupings(&outside) {
        if word == "by" && body.is_empty() {
            fault("`by (…)` behind what it groups".into());
        }
        if !matches!(word, "by" | "on") {
            fault(format!("`{word}`, which this test cannot follow"));
        }
        for label in &labels {
            // `by` means what stands in its brackets, `on` both sides.
            let meant = match word {
                "by" => self::metrics(body),
                _ => metrics.clone(),
            };
            for (_, name) in meant {
                let has = samples.get(name).is_none_or(|own| own.contains_key(*label));
                if !has && !OF_THE_SCRAPE.contains(label) {
                    fault(format!("`{word} ({label})`: `{name}` has no such label"));
                }
            }
        }
        if word == "by" {
            kept.get_or_insert_default().extend(labels);
        }
    }
    let aggregated = ["sum(", "min(", "max(", "avg(", "count("]
        .iter()
        .any(|bare| outside.contains(bare));
    for label in &asked.shown {
        let left = match &kept {
            Some(kept) => kept.contains(label.as_str()),
            None if aggregated => false,
            None => metrics.iter().all(|(_, name)| {
                let own = samples.get(*name);
                OF_THE_SCRAPE.contains(&label.as_str())
                    || own.is_some_and(|own| own.contains_key(label))
            }),
        };
        if !left {
            fault(format!("shows `{label}`, which is not left of it"));
        }
    }
    found
}

/// The same text with what stands in quotes blanked out.
fn blank_strings(expr: &str) -> String {
    let pieces = expr.split('"').enumerate();
    let blanked = pieces.map(|(i, piece)| match i % 2 {
        0 => piece.to_owned(),
        _ => "_".repeat(piece.len()),
    });
    blanked.collect::<Vec<_>>().join("\"")
}

/// Ours and the process's, with where they stand.
fn metrics(outside: &str) -> Vec<(usize, &str)> {
    let (mut found, mut at) = (Vec::new(), 0);
    for word in outside.split(|c| !is_word(c)) {
        if word.starts_with("tabane_") || word.starts_with("process_") {
            found.push((at, word));
        }
        at += word.len() + 1;
    }
    found
}

/// `label=~"a|b", other!="c"` in its parts. Variables of the dashboard match anything.
fn matchers(inside: &str) -> Vec<(&str, &str)> {
    let mut pieces = inside.split('"');
    let mut found = Vec::new();
    while let (Some(label), Some(value)) = (pieces.next(), pieces.next()) {
        found.push((label.trim_matches([',', ' ', '=', '!', '~']), value));
    }
    found
}

/// Every `by (…)`, `on (…)` and their kin: the word, its labels, and the brackets behind them, if any.
fn groupings(outside: &str) -> Vec<(&str, Vec<&str>, &str)> {
    let mut found = Vec::new();
    for word in [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ] {
        for (at, _) in outside.match_indices(&format!("{word} (")) {
            if outside[..at].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let behind = &outside[at + word.len() + 2..];
            let (labels, rest) = behind.split_once(')').unwrap();
            let labels = labels.split(',').map(str::trim).collect();
            found.push((word, labels, brackets(rest)));
        }
    }
    found
}

/// The brackets that a text begins with.
fn brackets(rest: &str) -> &str {
    let rest = rest.trim_start();
    let mut depth = 0;
    for (i, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &rest[..i];
        }
    }
    ""
}

// === what there is ===

/// Names and types, as promised.
fn golden() -> Vec<(String, String)> {
    let path = "src/telemetry/metrics.golden.txt";
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// The name of a metric, from that of one of its samples.
fn base(sample: &str) -> String {
    let golden = golden();
    let is = |name: &str| golden.iter().any(|(known, _)| known == name);
    let suffixes = ["_total", "_bucket", "_sum", "_count"];
    let cut = suffixes
        .iter()
        .filter_map(|suffix| sample.strip_suffix(suffix));
    let cut = cut.into_iter().find(|name| is(name));
    cut.unwrap_or(sample).to_owned()
}

/// Everything that `/metrics` can say, with everything counted that can be counted.
fn samples() -> Samples {
    let metrics = Metrics::new();
    let service = metrics.service("any");
    let time = Duration::from_millis(3);
    for outcome in [
        Outcome::Ok,
        Outcome::ClientError,
        Outcome::NodeError,
        Outcome::ClientGone,
        Outcome::Broken,
    ] {
        service.request(outcome, time, 1, 1);
    }
    for refusal in [
        Refusal::QueueFull {
            service: "any".into(),
            waiting: 1,
            retry_after: time,
        },
        Refusal::WaitedTooLong {
            service: "any".into(),
            waited: time,
        },
    ] {
        service.request(Outcome::Refused(refusal.code()), time, 1, 1);
    }
    service.wait(time);
    let endpoint = metrics.endpoint("any", "a/http");
    endpoint.finished(time);
    endpoint.first_byte(time);
    for outcome in [
        ProbeOutcome::Ok,
        ProbeOutcome::Timeout,
        ProbeOutcome::Unreachable,
        ProbeOutcome::Unhealthy,
    ] {
        metrics.probe("a/http", outcome);
    }
    metrics.reload_succeeded(1, "abc", time);
    metrics.reload_failed();
    metrics.turned_away(503);
    let jobs = metrics.jobs();
    // All states they end in and all outcomes of attempts are there from here on.
    jobs.add_service("any");
    for outcome in [
        LetterOutcome::Delivered,
        LetterOutcome::Again,
        LetterOutcome::GivenUp,
    ] {
        jobs.letter(outcome);
    }
    let one = |state| ("any".into(), "studio".into(), "draft".into(), state, 1);
    jobs.measured(JobsGauge {
        jobs: JobCounts::of(JobState::ALL.map(one)),
        letters: 1,
        oldest_letter: time,
        job_bytes: Filled::default(),
        database_bytes: Filled::default(),
    });
    let gauge = EndpointGauge {
        node: "a".into(),
        endpoint: "a/http".into(),
        state: "up",
        slots: 1,
        used: 1,
        cooling: 0,
        vram_free_mib: Some(1),
        holds_card: Some(true),
    };
    metrics.gpu_switched("a");
    let usage = Usage {
        model: "m".into(),
        first: Some(Duration::from_millis(1)),
        each: Some(Duration::from_millis(1)),
        ..Usage::default()
    };
    metrics.usage().count("any", "a", &usage);
    let service = ServiceGauge {
        service: "any".into(),
        waiting: 1,
        backlog_s: 1.0,
        spent_usd: 1.0,
    };
    let pool = PoolGauge {
        pool: "any".into(),
        desired: 1,
    };
    let text = metrics.render(&[gauge], &[service], &[pool], EdgeGauge::default());

    let mut samples = Samples::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|c| is_word(*c)).collect();
        let own = samples.entry(name.clone()).or_default();
        let inside = line[name.len()..].strip_prefix('{');
        let inside = inside
            .and_then(|rest| rest.split_once('}'))
            .map_or("", |(inside, _)| inside);
        for (label, value) in matchers(inside) {
            own.entry(label.to_owned())
                .or_default()
                .insert(value.to_owned());
        }
    }
    // The promise and what is said: neither without the other.
    for (name, kind) in golden() {
        let said: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for suffix in said {
            let sample = format!("{name}{suffix}");
            assert!(
                samples.contains_key(&sample),
                "`{sample}` is not in\n{text}"
            );
        }
    }
    let promised: BTreeSet<String> = golden().into_iter().map(|(name, _)| name).collect();
    for sample in samples.keys().filter(|name| name.starts_with("tabane_")) {
        assert!(
            promised.contains(&base(sample)),
            "`{sample}` is not in the golden file"
        );
    }
    samples
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join("conf/deploy").join(name)).unwrap()
}

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}
