//! Services: everything about them except where they are reached.

use super::fleet::Fleet;
use super::pools::Pools;
use super::{block, cors, jobs, placement, sharing, value};
use crate::config::file::{self, Body, Health, Queue, Retry, RetryWord, Service, Timeouts};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{
    BodyPlan, HealthPlan, Priority, QueuePlan, RetryPlan, ServicePlan, TimeoutsPlan,
};
use crate::config::typed::{At, Field, Short};
use crate::config::units::{OrNone, Span};
use http::StatusCode;
use std::time::Duration;
use tabane_api::{Registry, Urgency};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A service with what was typed of it.
pub(crate) struct Checked<'a> {
    pub(crate) name: &'a At<String>,
    pub(crate) typed: &'a Service,
    pub(crate) plan: ServicePlan,
    /// Its place in the list of those that were typed.
    pub(crate) index: usize,
}

/// All services that could be made. When one could not, that was told, and the plan does not count.
pub(crate) fn services<'a>(
    all: &'a All,
    fleet: &mut Fleet,
    pools: &mut Pools,
    registry: &Registry,
    findings: &Findings,
) -> Vec<Checked<'a>> {
    if all.services.is_empty() && !findings.any() {
        let hint = "the least is `services: {any: {pool: [http://gpu1:8188], routes: [/]}}`";
        findings.missing(all.root, "services", hint);
    }
    let mut checked = Vec::new();
    for (name, service) in &all.services {
        value::name(name, findings);
        let outer = service.spot(name.spot);
        let Some(typed) = service.get() else {
            continue;
        };
        // Each part is looked at, so that one run finds the faults of all.
        let pool = pools.of_service(name, &typed.pool, name.spot, fleet, findings);
        let kind = block::kind(&typed.kind, name.spot, registry, findings);
        if kind.as_ref().is_some_and(|kind| kind.keeps()) && all.data_dir.is_missing() {
            jobs::nowhere(typed.kind.spot(outer), findings);
        }
        let default = kind.as_ref().map_or("least_loaded", |kind| kind.policy());
        let policy = block::policy(&typed.policy, default, name.spot, registry, findings);
        let repeats = kind.as_ref().is_some_and(|kind| kind.repeats());
        let plan = |pool, kind, policy| ServicePlan {
            name: name.value.as_str().into(),
            kind,
            pool,
            policy,
            queue: queue(&typed.queue, outer, findings),
            priority: priority(&typed.priority, outer, findings)
                .unwrap_or(Priority::Fixed(Urgency::default())),
            health: health(&typed.health, outer, findings),
            retry: retry(&typed.retry, repeats, outer, findings),
            timeouts: timeouts(&typed.timeouts, outer, findings),
            body: body(&typed.body, outer, findings),
            cool_down: value::span(&typed.cool_down, Duration::from_millis(500)),
            drain: value::span(&typed.drain, 10 * MINUTE),
            socket_idle: value::positive(&typed.socket_idle, 60 * MINUTE, outer, findings),
            socket_ping: socket_ping(&typed.socket_ping, outer, findings),
            jobs: jobs::jobs(all, typed, outer, findings),
            cors: cors::cors(&typed.cors, outer, findings),
            interactive: typed.interactive.or(false),
            patience: placement::patience(typed),
            gpu_hold: sharing::hold(&typed.gpu_hold, outer, findings),
            price: placement::price(&typed.price, outer, findings),
            scale: placement::scale(&typed.scale, outer, findings),
        };
        if let Some(pool) = pool {
            let members = pools.plans[pool].members.iter();
            let prices = members.map(|m| fleet.usd_per_hour(m.endpoint));
            placement::warn_of_no_price(&typed.price, prices, outer, findings);
        }
        match (pool, kind, policy) {
            (Some(pool), Some(kind), Some(policy)) => checked.push(Checked {
                name,
                typed,
                plan: plan(pool, kind, policy),
                index: checked.len(),
            }),
            _ => {
                queue(&typed.queue, outer, findings);
                priority(&typed.priority, outer, findings);
                health(&typed.health, outer, findings);
                retry(&typed.retry, repeats, outer, findings);
                timeouts(&typed.timeouts, outer, findings);
                body(&typed.body, outer, findings);
                value::positive(&typed.socket_idle, 60 * MINUTE, outer, findings);
                socket_ping(&typed.socket_ping, outer, findings);
                jobs::jobs(all, typed, outer, findings);
                cors::cors(&typed.cors, outer, findings);
                sharing::hold(&typed.gpu_hold, outer, findings);
                placement::price(&typed.price, outer, findings);
                placement::scale(&typed.scale, outer, findings);
            }
        }
    }
    checked
}

/// Which service probes each endpoint: the first by name whose pool holds it.
pub(crate) fn probed_by(
    services: &[Checked<'_>],
    pools: &Pools,
    endpoints: usize,
) -> Vec<Option<usize>> {
    let mut probed_by = vec![None; endpoints];
    let mut by_name: Vec<&Checked<'_>> = services.iter().collect();
    by_name.sort_by_key(|service| &service.name.value);
    for service in by_name {
        for member in &pools.plans[service.plan.pool].members {
            probed_by[member.endpoint].get_or_insert(service.index);
        }
    }
    probed_by
}

/// The urgency of a service or route; `None` when nothing (good) was typed.
pub(crate) fn priority(
    typed: &Field<Short<file::Priority>>,
    outer: Spot,
    findings: &Findings,
) -> Option<Priority> {
    let At { spot, value } = typed.at(outer)?;
    match value.0 {
        file::Priority::Header => Some(Priority::Header),
        file::Priority::Fixed(urgency @ 0..=7) => {
            Some(Priority::Fixed(Urgency::new(urgency as u8)))
        }
        file::Priority::Fixed(other) => {
            findings.problem(
                spot,
                format!("must be 0 to 7, got {other}"),
                "0 is served first, 7 last",
            );
            None
        }
    }
}

fn queue(typed: &Field<Queue>, outer: Spot, findings: &Findings) -> QueuePlan {
    let none = Queue::default();
    let outer = typed.spot(outer);
    let queue = typed.get().unwrap_or(&none);
    let max = value::number(
        &queue.max,
        0..=10_000_000,
        1000,
        "0: nobody waits",
        outer,
        findings,
    );
    let max_wait = value::span(&queue.max_wait, 5 * MINUTE);
    if max_wait.is_zero() {
        findings.problem(
            queue.max_wait.spot(outer),
            "must be longer than 0",
            "to let nobody wait, say `max: 0`",
        );
    }
    QueuePlan {
        max: max as usize,
        max_wait,
    }
}

fn health(typed: &Field<Health>, outer: Spot, findings: &Findings) -> HealthPlan {
    let none = Health::default();
    let outer = typed.spot(outer);
    let health = typed.get().unwrap_or(&none);
    let span = |field, default| value::positive(field, default, outer, findings);
    let count =
        |field, default| value::number(field, 1..=1000, default, "", outer, findings) as u32;
    let interval = span(&health.interval, 5 * SECOND);
    let eject_for = span(&health.eject_for, 5 * SECOND);
    let mut eject_max = span(&health.eject_max, 2 * MINUTE);
    if eject_max < eject_for {
        if !health.eject_max.is_missing() {
            let hint = "the longest cannot be shorter than the first";
            findings.problem(
                health.eject_max.spot(outer),
                "shorter than `eject_for`",
                hint,
            );
        }
        eject_max = eject_for;
    }
    HealthPlan {
        interval,
        interval_down: span(&health.interval_down, SECOND.min(interval)),
        timeout: span(&health.timeout, 2 * SECOND),
        rise: count(&health.rise, 2),
        fall: count(&health.fall, 3),
        eject_after: count(&health.eject_after, 3),
        eject_for,
        eject_max,
        stall_after: span(&health.stall_after, 10 * MINUTE),
    }
}

fn retry(
    typed: &Field<Short<Retry>>,
    repeats: bool,
    outer: Spot,
    findings: &Findings,
) -> RetryPlan {
    let none = Short(Retry::default());
    let outer = typed.spot(outer);
    let Short(retry) = typed.get().unwrap_or(&none);
    let hint = "1 is a single try; `retry: off` says the same";
    let attempts = value::number(&retry.attempts, 1..=100, 3, hint, outer, findings) as u32;
    RetryPlan {
        attempts: if retry.word == Some(RetryWord::Off) {
            1
        } else {
            attempts
        },
        within: value::positive(&retry.within, 30 * SECOND, outer, findings),
        statuses: statuses(&retry.statuses, outer, findings).unwrap_or_else(|| {
            vec![
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ]
        }),
        busy: statuses(&retry.busy, outer, findings).unwrap_or_default(),
        budget: value::number(&retry.budget, 0..=1000, 25, "", outer, findings) as u32,
        repeat_unsafe: retry.repeat_unsafe.or(repeats) || retry.word == Some(RetryWord::Unsafe),
    }
}

/// Statuses of an error; `None` when nothing was typed.
fn statuses(
    typed: &Field<Vec<Field<u64>>>,
    outer: Spot,
    findings: &Findings,
) -> Option<Vec<StatusCode>> {
    let typed = typed.get()?;
    let hint = "only an error can be tried again";
    let mut statuses: Vec<StatusCode> = typed
        .iter()
        .filter_map(|status| {
            let number = value::number(status, 400..=599, 503, hint, outer, findings);
            StatusCode::from_u16(number as u16).ok()
        })
        .collect();
    statuses.sort();
    statuses.dedup();
    Some(statuses)
}

fn socket_ping(typed: &Field<OrNone<Span>>, outer: Spot, findings: &Findings) -> Option<Duration> {
    let Some(At { spot, value }) = typed.at(outer) else {
        return Some(30 * SECOND);
    };
    let ping = value.0.as_ref().map(|span| span.0);
    if ping.is_some_and(|ping| ping.is_zero()) {
        findings.problem(spot, "must be longer than 0", "`none` sends no pings");
    }
    ping
}

fn timeouts(typed: &Field<Timeouts>, outer: Spot, findings: &Findings) -> TimeoutsPlan {
    let none = Timeouts::default();
    let outer = typed.spot(outer);
    let timeouts = typed.get().unwrap_or(&none);
    let read = timeouts.read.get().and_then(|read| read.0);
    if read.is_some_and(|read| read.0.is_zero()) {
        findings.problem(
            timeouts.read.spot(outer),
            "must be longer than 0",
            "`none` waits as long as it takes",
        );
    }
    TimeoutsPlan {
        connect: value::positive(&timeouts.connect, 3 * SECOND, outer, findings),
        read: read.map(|read| read.0),
        idle: value::positive(&timeouts.idle, 4 * SECOND, outer, findings),
    }
}

fn body(typed: &Field<Short<Body>>, outer: Spot, findings: &Findings) -> BodyPlan {
    let none = Short(Body::default());
    let outer = typed.spot(outer);
    let Short(body) = typed.get().unwrap_or(&none);
    let max = body.max.get().and_then(|max| max.0).map(|size| size.0);
    if max == Some(0) {
        findings.problem(
            body.max.spot(outer),
            "must be more than 0",
            "`none` sets no bound",
        );
    }
    let hold = body.hold.get().map_or(1 << 20, |size| size.0);
    BodyPlan {
        max,
        hold: if body.stream {
            0
        } else {
            usize::try_from(hold).unwrap_or(usize::MAX)
        },
        stream: body.stream,
    }
}
