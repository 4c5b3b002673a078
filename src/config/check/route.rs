//! Routes: which host and path lead to which service, each to one only.

use super::listen::Listener;
use super::service::{Checked, priority};
use super::{jobs, value};
use crate::config::file::{Route, RouteRetry};
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::{HostPattern, RouteOptions, RoutePlan};
use crate::config::problem::shorten;
use crate::config::typed::{At, Field, Short};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// All routes, the most specific first.
pub(crate) fn routes(
    all: &All,
    services: &[Checked<'_>],
    listeners: &[Listener],
    findings: &Findings,
) -> Vec<RoutePlan> {
    let mut routes = Vec::new();
    let mut owners: HashMap<(Option<HostPattern>, Arc<str>), (String, Spot)> = HashMap::new();
    for service in services {
        let typed = &service.typed.routes;
        for field in typed.get().into_iter().flatten() {
            let outer = typed.spot(service.name.spot);
            let Some((spot, plan)) = route(all, field, service, outer, findings) else {
                continue;
            };
            let key = (plan.host.clone(), plan.path.clone());
            if let Some((owner, other)) = owners.get(&key) {
                let what = format!("`{}` leads here and to service `{owner}`", show(&plan));
                findings.problem(
                    spot,
                    what,
                    format!("the other is at {}", findings.show(*other)),
                );
                continue;
            }
            owners.insert(key, (service.name.value.clone(), spot));
            routes.push(plan);
        }
    }
    reachable(all, services, listeners, &mut routes, findings);
    routes.sort_by_key(|route| {
        let host = match &route.host {
            Some(HostPattern::Exact(host)) => (2, host.len()),
            Some(HostPattern::Suffix(host)) => (1, host.len()),
            None => (0, 0),
        };
        Reverse((host, route.path.len()))
    });
    routes
}

fn route(
    all: &All,
    field: &Field<Short<Route>>,
    service: &Checked<'_>,
    outer: Spot,
    findings: &Findings,
) -> Option<(Spot, RoutePlan)> {
    let At {
        spot,
        value: Short(typed),
    } = field.at(outer)?;
    let hint = "0 is for pages and assets that must not hold a GPU";
    let options = RouteOptions {
        slots: (!typed.slots.is_missing()).then(|| {
            value::number(
                &typed.slots,
                0..=super::fleet::MAX_SLOTS,
                1,
                hint,
                spot,
                findings,
            ) as u32
        }),
        stream: typed.body.get().is_some() || service.plan.body.stream,
        repeat_unsafe: typed.retry.get().map(|retry| *retry == RouteRetry::Unsafe),
        priority: priority(&typed.priority, spot, findings),
        jobs: jobs::mode_of_route(all, typed, &service.plan, spot, findings),
        interactive: typed.interactive.get().copied(),
    };
    if options.interactive == Some(true) && options.slots == Some(0) {
        let hint = "leave out `interactive`, or `slots: 0`";
        let spot = typed.interactive.spot(spot);
        findings.warn(spot, "what takes no slot never waits for one", hint);
    }
    let host = match typed.host.at(spot) {
        Some(typed) => Some(host(typed, findings)?),
        None if typed.host.is_missing() => None,
        None => return None,
    };
    // A host alone takes all of its paths.
    let everything = "/".to_owned();
    let (path_spot, path) = match typed.path.at(spot) {
        Some(path) => (path.spot, path.value),
        None if typed.path.is_missing() && host.is_some() => (spot, &everything),
        None => {
            if typed.path.is_missing() {
                findings.missing(spot, "path", "`/` takes everything");
            }
            return None;
        }
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#*".contains(c);
    let what = if !path.starts_with('/') {
        format!("the path `{}` does not begin with `/`", shorten(path))
    } else if path.contains(odd) {
        format!("`{}` is not a path", shorten(path))
    } else {
        let plan = RoutePlan {
            host,
            path: path.as_str().into(),
            service: service.index,
            options,
        };
        return Some((spot, plan));
    };
    findings.problem(
        path_spot,
        what,
        "`/v1` takes `/v1` and all below, `/v1/` only what is below",
    );
    None
}

fn host(typed: At<&String>, findings: &Findings) -> Option<HostPattern> {
    let text = typed.value.to_ascii_lowercase();
    let (name, suffix) = match text.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (text.as_str(), false),
    };
    let good = (1..=253).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if good {
        return Some(match suffix {
            true => HostPattern::Suffix(format!(".{name}").into()),
            false => HostPattern::Exact(name.into()),
        });
    }
    // An address in brackets is a host too (RFC 9110, 7.2); whoever asks for it sends the brackets.
    if let Some(inside) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        && inside.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Some(HostPattern::Exact(text.as_str().into()));
    }
    let hint = match name.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|b| b.is_ascii_digit()) => "leave out the port",
        _ => "write `api.example.com` or `*.example.com`",
    };
    findings.problem(
        typed.spot,
        format!("`{}` is not a host", shorten(typed.value)),
        hint,
    );
    None
}

/// A service that nobody can reach gets `/` when it is the only one, and a warning otherwise.
fn reachable(
    all: &All,
    services: &[Checked<'_>],
    listeners: &[Listener],
    routes: &mut Vec<RoutePlan>,
    findings: &Findings,
) {
    let by_route = listeners.iter().any(|l| !l.has_service);
    for service in services {
        let own_port = listeners
            .iter()
            .any(|l| l.plan.service == Some(service.index));
        let typed = service
            .typed
            .routes
            .get()
            .is_some_and(|routes| !routes.is_empty());
        if !own_port
            && !typed
            && by_route
            && all.services.len() == 1
            && service.typed.routes.is_missing()
        {
            routes.push(RoutePlan {
                host: None,
                path: "/".into(),
                service: service.index,
                options: RouteOptions {
                    stream: service.plan.body.stream,
                    ..RouteOptions::default()
                },
            });
        } else if !(own_port || typed && by_route) {
            let what = format!("nobody can reach the service `{}`", service.name.value);
            let hint = match typed {
                true => "its routes need a listener without `service`",
                false => "give it `routes: [/path]`, or a listener of its own",
            };
            findings.warn(service.name.spot, what, hint);
        }
    }
}

fn show(route: &RoutePlan) -> String {
    match &route.host {
        None => route.path.to_string(),
        Some(HostPattern::Exact(host)) => format!("{host}{}", route.path),
        Some(HostPattern::Suffix(host)) => format!("*{host}{}", route.path),
    }
}
