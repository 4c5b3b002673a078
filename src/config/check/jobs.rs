//! Requests that are accepted for later.

use super::service::priority;
use super::value;
use crate::config::file::{Route, Service};
use crate::config::file_jobs::{Jobs, JobsWord, OnDisconnectWord, OnUnknownWord};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{JobsMode, JobsPlan, OnDisconnect, OnUnknown, ServicePlan};
use crate::config::typed::{At, Field, Short};
use crate::config::units::Span;
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
        nowhere(typed.mode.spot(spot), findings);
    }
    if !kept && typed.mode.is_missing() && !service.jobs.is_missing() {
        let what = "no jobs are taken, since there is no place to keep them";
        findings.warn(spot, what, PLACE);
    }
    let stream = service.body.get().is_some_and(|Short(body)| body.stream);
    if mode == JobsMode::Always && stream {
        streams(typed.mode.spot(spot), findings);
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
    all: &All,
    typed: &Route,
    service: &ServicePlan,
    outer: Spot,
    findings: &Findings,
) -> Option<JobsMode> {
    let said = typed.jobs.at(outer).map(|word| mode(*word.value));
    let spot = typed.jobs.spot(typed.body.spot(outer));
    if said.is_some_and(|mode| mode != JobsMode::Off) && all.data_dir.is_missing() {
        nowhere(spot, findings);
    }
    // Where neither is the route's own, its service told it.
    let own = said.is_some() || typed.body.get().is_some();
    let stream = typed.body.get().is_some() || service.body.stream;
    if own && stream && said.unwrap_or(service.jobs.mode) == JobsMode::Always {
        streams(spot, findings);
    }
    said
}

/// What to do where jobs have no place.
const PLACE: &str = "add `data_dir: ./data`, on a local disk";

pub(crate) fn nowhere(spot: Spot, findings: &Findings) {
    findings.problem(spot, "jobs need a place to be kept", PLACE);
}

fn streams(spot: Spot, findings: &Findings) {
    let hint = "leave out `body: stream`, or say `jobs: opt-in`";
    let what = "a body that streams cannot be kept for later";
    findings.problem(spot, what, hint);
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
