//! Routes read a second time: every route of the table is asked, and paths are normalised step by step.
//!
//! Tests and fuzzing hold the router to it. It shares no code with what it judges, and panics where they differ.

use super::route::{Router, normalise};
use crate::config::plan::{HostPattern, RoutePlan};
use tabane_api::Refusal;

/// Holds the router to its promises for one request; the service it goes to.
///
/// It finds what a look at each route finds; a path is refused if, and only if, it leads elsewhere once it is normalised, or
/// once what servers take for a slash is one.
pub fn route(routes: &[RoutePlan], host: &str, path: &str) -> Option<usize> {
    let router = Router::new(routes);
    let plain = plain(path);
    assert_eq!(
        normalise(path),
        plain.as_str(),
        "the normalised form of {path:?}"
    );
    // A percent sign that stands for itself may come to stand before two digits: `%4%61`.
    let escape =
        |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if path.split('%').skip(1).all(escape) {
        assert_eq!(normalise(&plain), plain.as_str(), "normalised twice");
    }
    let slashed = ["%2f", "%2F", "%5c", "%5C", "\\"]
        .iter()
        .fold(path.to_owned(), |path, slash| path.replace(slash, "/"));
    let (as_it_came, as_it_is_meant) = (best(routes, host, path), best(routes, host, &plain));
    let as_slashed = best(routes, host, &self::plain(&slashed));
    let one_way = as_it_came == as_it_is_meant && as_slashed == as_it_is_meant;
    match router.route(host, path) {
        Ok(((service, options), path)) => {
            assert_eq!(path, plain);
            let wanted = as_it_is_meant.map(|route| (route.service, route.options));
            assert_eq!(Some((service, options)), wanted);
            assert!(one_way, "let through, and reads two ways");
            Some(service)
        }
        Err(Refusal::NotFound(_)) => {
            assert!(one_way && as_it_is_meant.is_none());
            None
        }
        Err(Refusal::BadRequest(_)) => {
            assert!(!one_way, "refused, and reads one way");
            None
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// The most specific of all routes that fit: an exact host, then the longest end of one, then any; and the longest path.
fn best<'a>(routes: &'a [RoutePlan], host: &str, path: &str) -> Option<&'a RoutePlan> {
    let host = bare(host);
    let fits = |route: &&RoutePlan| {
        let host = match &route.host {
            None => true,
            Some(HostPattern::Exact(exact)) => host == **exact,
            Some(HostPattern::Suffix(end)) => host.ends_with(&**end),
        };
        // Whole segments: what is asked for is the route, or begins with it and a slash.
        let prefix = route.path.trim_end_matches('/');
        let below = path.starts_with(&format!("{prefix}/"));
        host && (path == &*route.path || below && path.starts_with(&*route.path))
    };
    routes.iter().filter(fits).max_by_key(|route| {
        let host = match &route.host {
            None => (0, 0),
            Some(HostPattern::Suffix(end)) => (1, end.len()),
            Some(HostPattern::Exact(_)) => (2, 0),
        };
        (host, route.path.len())
    })
}

/// A host without its port and its last dot, in lower case.
fn bare(host: &str) -> String {
    let end = match host.find(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let host = host[..end].to_ascii_lowercase();
    host.strip_suffix('.').unwrap_or(&host).to_owned()
}

/// RFC 3986, 6.2.2 and 5.2.4, and slashes merged: one step after the other, each over all of the path.
fn plain(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece
            .split_at_checked(2)
            .and_then(|(hex, rest)| Some((unreserved(hex)?, rest)))
        {
            Some((character, rest)) => {
                plain.push(character);
                plain.push_str(rest);
            }
            None => {
                plain.push('%');
                plain.push_str(piece);
            }
        }
    }
    while plain.contains("//") {
        plain = plain.replace("//", "/");
    }
    without_dots(&plain)
}

fn unreserved(hex: &str) -> Option<char> {
    let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
    let code = u8::from_str_radix(hex, 16).ok().filter(|_| digits)?;
    let character = char::from(code);
    (character.is_ascii_alphanumeric() || "-._~".contains(character)).then_some(character)
}

/// The algorithm of RFC 3986, 5.2.4.
fn without_dots(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if input.starts_with("/./") || input == "/." {
            input = format!("/{}", input.get(3..).unwrap_or_default());
        } else if input.starts_with("/../") || input == "/.." {
            input = format!("/{}", input.get(4..).unwrap_or_default());
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let next = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..next]);
            input.drain(..next);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use crate::config::plan::RouteOptions;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn one_of(all: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::sample::select(all).prop_map(str::to_owned)
    }

    /// Routes, no two of which are for the same host and path: a file that has such is refused.
    fn table() -> impl Strategy<Value = Vec<RoutePlan>> {
        let host = prop_oneof![
            Just(None),
            one_of(&["a.b", "b", "c.a.b"]).prop_map(|host| Some(HostPattern::Exact(host.into()))),
            one_of(&[".b", ".a.b", "."]).prop_map(|end| Some(HostPattern::Suffix(end.into()))),
        ];
        let path = one_of(&["/", "/a", "/a/", "/a/b", "/ab", "/admin", "/a/b/", "/a%20b"]);
        prop::collection::vec((host, path), 0..12).prop_map(|routes| {
            let mut table: Vec<RoutePlan> = Vec::new();
            for (host, path) in routes {
                if !table
                    .iter()
                    .any(|route| route.host == host && *route.path == *path)
                {
                    let options = RouteOptions {
                        slots: Some(table.len() as u32),
                        ..RouteOptions::default()
                    };
                    let service = table.len() % 3;
                    table.push(RoutePlan {
                        host,
                        path: path.into(),
                        service,
                        options,
                    });
                }
            }
            table
        })
    }

    fn path() -> impl Strategy<Value = String> {
        let common = one_of(&["a", "b", "ab", "admin", "", "a%20b"]);
        let odd = one_of(&[
            ".", "..", "%61", "%2e", "%2E%2e", ".%2e", "%2f", "a%2Fb", "%", "%a", "%zz", "%%36%31",
            "%4%61", "%25", "%252e", "...", "\u{e9}", "%\u{e9}", "%e9", "%ff%fe", "a;b", "a\\b",
            "%00", "~", "%7E", "%c0%ae", "+5", "%+5",
        ]);
        let segments = prop::collection::vec(prop_oneof![3 => common, 1 => odd], 1..6);
        prop_oneof![30 => segments.prop_map(|segments| format!("/{}", segments.join("/"))), 1 => Just("*".to_owned())]
    }

    #[test]
    fn a_request_goes_where_a_look_at_every_route_sends_it() {
        let host = one_of(&[
            "b", "a.b", "A.B", "a.b:80", "a.b.", "a.b.:1", "x.a.b", "c.a.b", "xb", "", ":80",
            "[::1]", "[::1]:80", ".b", ".",
        ]);
        let (found, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
        tried(3000, (table(), host, path()), |(routes, host, path)| {
            all.fetch_add(1, Ordering::Relaxed);
            found.fetch_add(
                usize::from(route(&routes, &host, &path).is_some()),
                Ordering::Relaxed,
            );
        });
        let (found, all) = (found.into_inner(), all.into_inner());
        assert!(
            found > all / 5 && found < all * 9 / 10,
            "{found} of {all} were found"
        );
    }

    #[test]
    fn no_path_is_too_odd() {
        let routes = [RoutePlan {
            host: None,
            path: "/".into(),
            service: 0,
            options: RouteOptions::default(),
        }];
        tried(2000, "[/.%2eEfF0\u{e9}*a\\\\]{0,24}", |rest| {
            route(&routes, "h", &format!("/{rest}"));
            // Such a one comes from no HTTP/1.1 client; nothing is said of where it goes.
            let _ = Router::new(&routes).route(&rest, &rest);
        });
    }
}
