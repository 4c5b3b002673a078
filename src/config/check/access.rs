//! Who may ask, who operates, and what belongs to the gateway as a whole.

use super::listen::Listener;
use super::value;
use crate::config::file::{AnonymousWord, Limits, Log, LogFormatWord, Tenant};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{
    AdminPlan, Anonymous, LimitsPlan, LogFormat, LogPlan, Secret, TenantPlan,
};
use crate::config::typed::{At, Field, Short};
use crate::config::units::Size;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tabane_api::Urgency;

/// Shorter ones are guessed.
const SHORTEST_KEY: usize = 8;

/// The operator's listener and its place.
pub(crate) struct AdminListener {
    pub(crate) plan: AdminPlan,
    pub(crate) spot: Spot,
}

/// The operator's listener; on 127.0.0.1:9900 when nothing was typed.
pub(crate) fn admin(all: &All, findings: &Findings) -> Option<AdminListener> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9900));
    let Some(At {
        spot,
        value: Short(typed),
    }) = all.admin.at(all.root)
    else {
        return Some(AdminListener {
            plan: AdminPlan {
                address: default,
                token: None,
            },
            spot: all.root,
        });
    };
    if typed.off {
        return None;
    }
    let address = match typed.address.at(spot) {
        Some(typed) => value::address(typed.value, typed.spot, findings)?,
        None => default,
    };
    let token = typed.token.at(spot);
    if let Some(token) = &token
        && token.value.len() < SHORTEST_KEY
    {
        let what = format!("the token is shorter than {SHORTEST_KEY} characters");
        findings.problem(token.spot, what, "make one with `openssl rand -hex 24`");
    }
    if typed.token.is_missing() && !address.ip().is_loopback() {
        let hint = "add `token: \"${file:/run/secrets/admin}\"`, or listen on 127.0.0.1";
        findings.problem(
            typed.address.spot(spot),
            "an admin listener that others can reach needs a token",
            hint,
        );
    }
    let token = token.map(|token| Secret::new(token.value.clone()));
    Some(AdminListener {
        plan: AdminPlan { address, token },
        spot: typed.address.spot(spot),
    })
}

/// All tenants. No message says a key.
pub(crate) fn tenants(all: &All, findings: &Findings) -> Vec<TenantPlan> {
    let mut owners: HashMap<String, Spot> = HashMap::new();
    let mut tenants = Vec::new();
    for (name, tenant) in &all.tenants {
        value::name(name, findings);
        if name.value == tabane_api::ANONYMOUS {
            findings.problem(
                name.spot,
                "this is the name of those without a key",
                "choose another",
            );
        }
        let Some(At {
            spot,
            value: Short(typed),
        }) = tenant.at(name.spot)
        else {
            continue;
        };
        let mut keys = Vec::new();
        for key in keys_of(typed, spot) {
            if key.value.chars().count() < SHORTEST_KEY {
                let what = format!("the key is shorter than {SHORTEST_KEY} characters");
                findings.problem(key.spot, what, "make one with `openssl rand -hex 24`");
            } else if let Some(other) = owners.get(key.value) {
                let hint = format!("the other is at {}", findings.show(*other));
                findings.problem(key.spot, "the same key stands here twice", hint);
            } else {
                owners.insert(key.value.clone(), key.spot);
                keys.push(Secret::new(key.value.clone()));
            }
        }
        if typed.key.is_missing() && typed.keys.get().is_none_or(|keys| keys.0.is_empty()) {
            findings.missing(name.spot, "key", "say `key: \"${file:/run/secrets/NAME}\"`");
        }
        let weight = value::number(&typed.weight, 1..=1000, 1, "", spot, findings) as u32;
        let cap = value::number(&typed.priority_cap, 0..=7, 0, "0 is first", spot, findings);
        let most = |field: &Field<u64>, least, hint| {
            let said = !field.is_missing();
            said.then(|| value::number(field, least..=10_000_000, 1, hint, spot, findings))
        };
        let max_waiting = most(&typed.max_waiting, 0, "0: none of them waits");
        let hint = "to shut it out, remove its keys";
        let max_at_work = most(&typed.max_at_work, 1, hint);
        tenants.push(TenantPlan {
            name: name.value.as_str().into(),
            keys,
            weight,
            max_waiting: max_waiting.map(|most| most as usize),
            max_at_work: max_at_work.map(|most| most as u32),
            priority_cap: Urgency::new(cap as u8),
        });
    }
    tenants
}

/// Who may ask without a key; warns when that is nobody at all.
pub(crate) fn anonymous(
    all: &All,
    listeners: &[Listener],
    tenants: &[TenantPlan],
    findings: &Findings,
) -> Anonymous {
    let typed = all.access.get().and_then(|access| access.anonymous.get());
    let anonymous = match typed {
        None | Some(AnonymousWord::Loopback) => Anonymous::Loopback,
        Some(AnonymousWord::Allow) => Anonymous::Allow,
        Some(AnonymousWord::Deny) => Anonymous::Deny,
    };
    let hint = "add `tenants:` with keys, or `access: {anonymous: allow}`";
    let open = listeners
        .iter()
        .find(|l| !l.plan.address.ip().is_loopback());
    match (anonymous, open) {
        _ if !all.tenants.is_empty() || !tenants.is_empty() => {}
        (Anonymous::Loopback, Some(listener)) => {
            let what =
                "whoever comes from another machine will get 401, since there are no tenants";
            findings.warn(listener.spot, what, hint);
        }
        (Anonymous::Deny, _) => {
            let spot = all.access.spot(all.root);
            findings.warn(
                spot,
                "everybody will get 401, since there are no tenants",
                hint,
            );
        }
        _ => {}
    }
    anonymous
}

/// Where jobs, their results and drain marks are kept.
pub(crate) fn data_dir(all: &All, findings: &Findings) -> Option<PathBuf> {
    let At { spot, value } = all.data_dir.at(all.root)?;
    if value.is_empty() {
        findings.problem(
            spot,
            "an empty path",
            "leave `data_dir` out to keep nothing",
        );
        return None;
    }
    Some(findings.resolve(spot, value))
}

/// How log lines look.
pub(crate) fn log(all: &All) -> LogPlan {
    let none = Log::default();
    let log = all.log.get().unwrap_or(&none);
    LogPlan {
        format: match log.format.get() {
            None | Some(LogFormatWord::Auto) => LogFormat::Auto,
            Some(LogFormatWord::Json) => LogFormat::Json,
            Some(LogFormatWord::Human) => LogFormat::Human,
        },
        access: log.access.or(true),
        headers: log.headers.or(true),
        request_id: log.request_id.or(true),
    }
}

/// Bounds of the whole gateway.
pub(crate) fn limits(all: &All, findings: &Findings) -> LimitsPlan {
    let none = Limits::default();
    let outer = all.limits.spot(all.root);
    let limits = all.limits.get().unwrap_or(&none);
    let usual = LimitsPlan::default();
    let count = |field, range, usual| value::number(field, range, usual, "", outer, findings);
    let span = |field, usual| value::positive(field, usual, outer, findings);
    let size = |field: &Field<Size>, usual| field.get().map_or(usual, |size| size.0);
    let connections = count(&limits.connections, 1..=10_000_000, 10_000);
    LimitsPlan {
        connections: connections as usize,
        connections_per_address: count(
            &limits.connections_per_address,
            1..=10_000_000,
            connections.div_ceil(2),
        ) as usize,
        h2_streams: count(&limits.h2_streams, 1..=10_000, 100) as u32,
        keep_alive: span(&limits.keep_alive, usual.keep_alive),
        client_head: span(&limits.client_head, usual.client_head),
        client_read: span(&limits.client_read, usual.client_read),
        client_write: span(&limits.client_write, usual.client_write),
        client_rate: size(&limits.client_rate, usual.client_rate),
        head_bytes: head_bytes(&limits.head_bytes, usual.head_bytes, outer, findings),
        head_lines: count(&limits.head_lines, 8..=256, 128) as usize,
        held_bytes: size(&limits.held_bytes, usual.held_bytes),
        spool_bytes: size(&limits.spool_bytes, usual.spool_bytes),
        job_bytes: size(&limits.job_bytes, usual.job_bytes),
        database_bytes: database_bytes(
            &limits.database_bytes,
            usual.database_bytes,
            outer,
            findings,
        ),
        grace: value::span(&limits.grace, usual.grace),
    }
}

/// Pingora reads no longer head than a MiB.
fn head_bytes(field: &Field<Size>, usual: usize, outer: Spot, findings: &Findings) -> usize {
    let Some(At { spot, value }) = field.at(outer) else {
        return usual;
    };
    match value.0 {
        size @ 1024..=1_048_576 => size as usize,
        _ => {
            findings.problem(spot, "must be 1KiB to 1MiB", "leave it out for 64KiB");
            usual
        }
    }
}

/// A smaller one has hardly room for its own tables.
fn database_bytes(field: &Field<Size>, usual: u64, outer: Spot, findings: &Findings) -> u64 {
    let Some(At { spot, value }) = field.at(outer) else {
        return usual;
    };
    if value.0 < 1 << 20 {
        findings.problem(spot, "must be at least 1MiB", "leave it out for 8GiB");
        return usual;
    }
    value.0
}

fn keys_of(typed: &Tenant, outer: Spot) -> Vec<At<&String>> {
    let many = typed.keys.get().into_iter().flat_map(|keys| &keys.0);
    let many_at = typed.keys.spot(outer);
    let one = typed.key.at(outer).into_iter();
    one.chain(many.filter_map(|key| key.at(many_at))).collect()
}
