//! Routing: a request goes where a look at every route sends it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tabane::config::plan::{HostPattern, RouteOptions, RoutePlan};

// Lines of a host and a path: the first is the request, the others are routes; `*` is any host, `.x` one that ends so.
fuzz_target!(|text: &str| {
    let mut lines = text
        .lines()
        .map(|line| line.split_once(' ').unwrap_or(("*", line)));
    let Some((host, path)) = lines.next() else {
        return;
    };
    let mut routes: Vec<RoutePlan> = Vec::new();
    for (pattern, path) in lines {
        let pattern = match pattern.to_ascii_lowercase() {
            any if any == "*" => None,
            end if end.starts_with('.') => Some(HostPattern::Suffix(end.into())),
            exact => Some(HostPattern::Exact(exact.into())),
        };
        let known = |route: &RoutePlan| route.host == pattern && *route.path == *path;
        // As in a file: paths begin with a slash, and no two routes are for the same.
        if path.starts_with('/') && !routes.iter().any(known) {
            routes.push(RoutePlan {
                host: pattern,
                path: path.into(),
                service: routes.len(),
                options: RouteOptions::default(),
            });
        }
    }
    // What is no host is refused with its head. Addresses of IPv6 are tried in `make test`.
    let is_host = host.matches(':').count() <= 1 && !host.contains(['[', ']']);
    if is_host && path.starts_with('/') {
        tabane::fuzzing::route(&routes, host, path);
    }
});
