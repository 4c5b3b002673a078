//! Requests that are accepted for later, and who hears of them.

use super::service::priority;
use super::value;
use crate::config::file::Service;
use crate::config::file_jobs::{Cors, Jobs, JobsWord, OnDisconnectWord, OnUnknownWord};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{
    CorsPlan, JobsMode, JobsPlan, OnDisconnect, OnUnknown, Secret, ServicePlan, WebhooksPlan,
};
use crate::config::problem::shorten;
use crate::config::typed::{At, Field, Short};
use crate::config::units::Span;
use http::Uri;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::Urgency;

/// What a service says of jobs.
pub(crate) fn jobs(all: &All, service: &Service, outer: Spot, findings: &Findings) -> JobsPlan {
    let usual = JobsPlan::default();
    let none = Short(Jobs::default());
    let spot = service.jobs.spot(outer);
    let Short(typed) = service.jobs.get().unwrap_or(&none);
    let kept = !all.data_dir.is_missing();
    let mode = match typed.mode.get() {
        None if kept => JobsMode::OptIn,
        None => JobsMode::Off,
        Some(word) => mode(*word),
    };
    if mode != JobsMode::Off && !kept {
        let hint = "add `data_dir: ./data`, on a local disk";
        findings.problem(typed.mode.spot(spot), "jobs need a place to be kept", hint);
    }
    let stream = service.body.get().is_some_and(|Short(body)| body.stream);
    if mode == JobsMode::Always && stream {
        let hint = "leave out `body: stream`, or say `jobs: opt-in`";
        let what = "a body that streams cannot be kept for later";
        findings.problem(typed.mode.spot(spot), what, hint);
    }
    let count =
        |field, most, usual, hint| value::number(field, 1..=most, usual, hint, spot, findings);
    let max = count(&typed.max, 10_000_000, 100_000, "`jobs: off` takes none");
    let cap = value::number(&typed.priority_cap, 0..=7, 0, "0 is first", spot, findings);
    JobsPlan {
        mode,
        max: max as usize,
        max_per_tenant: count(&typed.max_per_tenant, 10_000_000, max, "") as usize,
        priority: priority(&typed.priority, spot, findings),
        priority_cap: Urgency::new(cap as u8),
        attempts: count(&typed.attempts, 100, 3, "1 is a single try") as u32,
        backoff: backoff(&typed.backoff, spot, findings).unwrap_or(usual.backoff),
        timeout: value::positive(&typed.timeout, usual.timeout, spot, findings),
        retry_on_timeout: typed.retry_on_timeout.or(false),
        start_by: start_by(typed, spot, findings),
        keep: value::positive(&typed.keep, usual.keep, spot, findings),
        keep_dead: value::positive(&typed.keep_dead, usual.keep_dead, spot, findings),
        on_unknown: match typed.on_unknown.get() {
            None | Some(OnUnknownWord::Fail) => OnUnknown::Fail,
            Some(OnUnknownWord::Resubmit) => OnUnknown::Resubmit,
        },
        on_disconnect: match typed.on_disconnect.get() {
            None | Some(OnDisconnectWord::Continue) => OnDisconnect::Continue,
            Some(OnDisconnectWord::Cancel) => OnDisconnect::Cancel,
        },
    }
}

/// What a route says of jobs.
pub(crate) fn mode_of_route(
    typed: &Field<JobsWord>,
    service: &ServicePlan,
    outer: Spot,
    findings: &Findings,
) -> Option<JobsMode> {
    let At { spot, value } = typed.at(outer)?;
    let mode = mode(*value);
    // A service without a place for jobs is off, and says so itself when it was asked to be otherwise.
    if mode != JobsMode::Off && service.jobs.mode == JobsMode::Off {
        let hint = "set `data_dir`, and do not turn the service's `jobs` off";
        findings.problem(spot, "the service takes no jobs", hint);
    }
    Some(mode)
}

fn mode(word: JobsWord) -> JobsMode {
    match word {
        JobsWord::Off => JobsMode::Off,
        JobsWord::OptIn => JobsMode::OptIn,
        JobsWord::Always => JobsMode::Always,
    }
}

fn backoff(
    typed: &Field<Vec<Field<Span>>>,
    outer: Spot,
    findings: &Findings,
) -> Option<Vec<Duration>> {
    let At { spot, value } = typed.at(outer)?;
    if !(1..=16).contains(&value.len()) {
        let what = format!("must have 1 to 16 durations, got {}", value.len());
        findings.problem(spot, what, "the last is for all further attempts");
        return None;
    }
    let spans = value.iter().filter_map(|span| span.get());
    Some(spans.map(|span| span.0).collect())
}

fn start_by(typed: &Jobs, outer: Spot, findings: &Findings) -> Option<Duration> {
    let At { spot, value } = typed.start_by.at(outer)?;
    let span = value.0.as_ref().map(|span| span.0);
    if span.is_some_and(|span| span.is_zero()) {
        findings.problem(spot, "must be longer than 0", "`none` waits for ever");
    }
    span
}

/// Which web pages may ask.
pub(crate) fn cors(typed: &Field<Short<Cors>>, outer: Spot, findings: &Findings) -> CorsPlan {
    let mut plan = CorsPlan::default();
    let Some(At {
        spot,
        value: Short(typed),
    }) = typed.at(outer)
    else {
        return plan;
    };
    let spot = typed.origins.spot(spot);
    for origin in typed.origins.get().into_iter().flat_map(|all| &all.0) {
        let Some(At { spot, value }) = origin.at(spot) else {
            continue;
        };
        if value == "*" {
            plan.any = true;
        } else if is_origin(value) {
            plan.origins.push(value.as_str().into());
        } else {
            let what = format!("`{}` is no origin", shorten(value));
            let hint =
                "write scheme, host and port as browsers send them: `https://studio.example`";
            findings.problem(spot, what, hint);
        }
    }
    plan
}

/// Whether a text is what browsers send as `Origin` (RFC 6454, 7).
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text == "null";
    };
    let scheme = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let host = rest.parse::<http::uri::Authority>();
    scheme && host.is_ok_and(|host| !host.as_str().contains('@'))
}

/// An address of the gateway's own, without a slash at its end.
pub(crate) fn address(typed: &Field<String>, outer: Spot, findings: &Findings) -> Option<Arc<str>> {
    let At { spot, value } = typed.at(outer)?;
    let good = value.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri
                .authority()
                .is_some_and(|host| !host.as_str().contains('@'))
    });
    if !good {
        let what = format!("`{}` is no address of a gateway", shorten(value));
        findings.problem(spot, what, "write it as `https://gpu.studio.example`");
        return None;
    }
    Some(value.trim_end_matches('/').into())
}

/// Where letters may go, and what signs them.
pub(crate) fn webhooks(all: &All, findings: &Findings) -> WebhooksPlan {
    let mut plan = WebhooksPlan::default();
    let Some(At { spot, value: typed }) = all.webhooks.at(all.root) else {
        return plan;
    };
    let allow_at = typed.allow.spot(spot);
    for entry in typed.allow.get().into_iter().flat_map(|all| &all.0) {
        let Some(At { spot, value }) = entry.at(allow_at) else {
            continue;
        };
        if is_host(value) || is_range(value) {
            plan.allow.push(value.as_str().into());
        } else {
            let what = format!("`{}` is no host and no range", shorten(value));
            let hint = "write `hooks.example.com`, `*.example.com`, or `10.0.0.0/8`";
            findings.problem(spot, what, hint);
        }
    }
    let secret_at = typed.secret.spot(spot);
    for secret in typed.secret.get().into_iter().flat_map(|all| &all.0) {
        let Some(At { spot, value }) = secret.at(secret_at) else {
            continue;
        };
        match is_secret(value) {
            true => plan.secrets.push(Secret::new(value.clone())),
            false => findings.problem(
                spot,
                "this is no secret for webhooks",
                "make one: `echo whsec_$(openssl rand -base64 32)`",
            ),
        }
    }
    plan
}

fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    (1..=253).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_range(text: &str) -> bool {
    text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok()
}

/// `whsec_` and 24 to 64 bytes in base64 (Standard Webhooks 1.0).
fn is_secret(text: &str) -> bool {
    use base64::Engine;
    let bytes = text
        .strip_prefix("whsec_")
        .and_then(|rest| base64::engine::general_purpose::STANDARD.decode(rest).ok());
    bytes.is_some_and(|bytes| (24..=64).contains(&bytes.len()))
}
