//! Which service a request is for: by listener, host and path.
//!
//! Rules. A listener with a service of its own sends everything there. On the others the routes of the
//! file are tried: an exact host before a suffix, a longer suffix before a shorter, any host last; within
//! a host the longest path first. A path is matched by whole segments, in its normalised form. A raw path
//! that would lead elsewhere than its normalised form (`/a/../admin`, `//admin`, `/%61dmin`) is refused:
//! the node would read it differently from us, and whatever guards one form would be passed by the other.

use crate::config::plan::{HostPattern, RouteOptions, RoutePlan};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use tabane_api::Refusal;

/// What a route leads to: an index into the world's services, and what the route does differently.
pub(crate) type Leads = (usize, RouteOptions);

/// The routes of one world.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<Arc<str>, Paths>,
    /// Longest suffix first.
    suffixes: Vec<(Arc<str>, Paths)>,
    any: Paths,
}

/// The paths of one host, longest first.
type Paths = Vec<(Arc<str>, Leads)>;

// === impl Router ===

impl Router {
    /// Sorts the routes of a plan.
    pub fn new(routes: &[RoutePlan]) -> Self {
        let mut router = Router::default();
        for route in routes {
            let entry = (route.path.clone(), (route.service, route.options));
            match &route.host {
                None => router.any.push(entry),
                Some(HostPattern::Exact(host)) => {
                    router.exact.entry(host.clone()).or_default().push(entry)
                }
                Some(HostPattern::Suffix(suffix)) => {
                    match router.suffixes.iter_mut().find(|(s, _)| s == suffix) {
                        Some((_, paths)) => paths.push(entry),
                        None => router.suffixes.push((suffix.clone(), vec![entry])),
                    }
                }
            }
        }
        router
            .suffixes
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        let all = router
            .exact
            .values_mut()
            .chain(router.suffixes.iter_mut().map(|(_, p)| p))
            .chain([&mut router.any]);
        for paths in all {
            paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        }
        router
    }

    /// Finds where a request goes. `host` may carry a port; `path` is the normalised one.
    pub fn find(&self, host: &str, path: &str) -> Option<Leads> {
        let host = host_name(host);
        if !self.exact.is_empty() || !self.suffixes.is_empty() {
            let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
                host.to_ascii_lowercase().into()
            } else {
                Cow::Borrowed(host)
            };
            let exact = self
                .exact
                .get(host.as_ref())
                .and_then(|paths| longest(paths, path));
            let found = exact.or_else(|| {
                self.suffixes
                    .iter()
                    .filter(|(suffix, _)| host.ends_with(&**suffix))
                    .find_map(|(_, paths)| longest(paths, path))
            });
            if found.is_some() {
                return found;
            }
        }
        longest(&self.any, path)
    }

    /// Finds where a request goes, and refuses a path that could be read in two ways.
    ///
    /// Errors: `BadRequest` for an ambiguous path, `NotFound` where nothing is served.
    pub fn route<'a>(&self, host: &str, raw: &'a str) -> Result<(Leads, Cow<'a, str>), Refusal> {
        let path = normalise(raw);
        let found = self.find(host, &path);
        if matches!(path, Cow::Owned(_)) && self.find(host, raw) != found {
            return Err(Refusal::BadRequest(format!(
                "the path leads to another service once `.`, `..`, `//` and needless percent signs are resolved; ask for `{path}`"
            )));
        }
        if loosely(raw).is_some_and(|path| self.find(host, &path) != found) {
            return Err(Refusal::BadRequest(
                "the path leads to another service where `%2f`, `%5c` or a backslash is taken for a slash".into(),
            ));
        }
        match found {
            Some(leads) => Ok((leads, path)),
            None => Err(Refusal::NotFound(format!(
                "host `{}`, path `{path}`",
                host_name(host)
            ))),
        }
    }
}

/// How servers read a path that take an encoded slash, or a backslash, for a slash (nginx, uvicorn, Windows' own);
/// `None` where it has none.
fn loosely(raw: &str) -> Option<String> {
    let mut loose = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find(['%', '\\']) {
        loose.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3).unwrap_or_default();
        let slash = if rest[at..].starts_with('\\') {
            1
        } else if escape.eq_ignore_ascii_case("%2f") || escape.eq_ignore_ascii_case("%5c") {
            3
        } else {
            0
        };
        loose.push(if slash > 0 { '/' } else { '%' });
        rest = &rest[at + slash.max(1)..];
    }
    loose.push_str(rest);
    (loose != raw).then(|| normalise(&loose).into_owned())
}

fn longest(paths: &Paths, path: &str) -> Option<Leads> {
    paths
        .iter()
        .find(|(prefix, _)| matches(prefix, path))
        .map(|(_, leads)| *leads)
}

fn matches(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The host without its port and without the dot of a fully qualified name; IPv6 keeps its brackets.
fn host_name(host: &str) -> &str {
    let name = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// A path with unreserved characters decoded, `//` merged, and `.` and `..` resolved (RFC 3986, 6.2.2); borrowed when it was so already.
pub fn normalise(raw: &str) -> Cow<'_, str> {
    if !raw.contains("//") && !raw.contains("/.") && !raw.contains('%') {
        return Cow::Borrowed(raw);
    }
    let decoded = decode_unreserved(raw);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded.split('/').skip(1).peekable();
    let mut slash_at_end = false;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" | "." => slash_at_end = last,
            ".." => {
                kept.pop();
                slash_at_end = last;
            }
            _ => kept.push(segment),
        }
    }
    let mut path = String::with_capacity(decoded.len());
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    if slash_at_end || path.is_empty() {
        path.push('/');
    }
    if path == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(path)
    }
}

fn decode_unreserved(raw: &str) -> Cow<'_, str> {
    if !raw.contains('%') {
        return Cow::Borrowed(raw);
    }
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten();
        match escape.and_then(unescape) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    // Only ASCII was put in for ASCII, so this is as valid as the input was.
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn unescape(hex: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    Some((digit(hex[0])? * 16 + digit(hex[1])?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<HostPattern>, path: &str, service: usize) -> RoutePlan {
        RoutePlan {
            host,
            path: path.into(),
            service,
            options: RouteOptions::default(),
        }
    }

    fn found(router: &Router, host: &str, path: &str) -> Option<usize> {
        router
            .route(host, path)
            .ok()
            .map(|((service, _), _)| service)
    }

    #[test]
    fn the_longest_path_of_the_most_specific_host_wins() {
        let exact = |h: &str| Some(HostPattern::Exact(h.into()));
        let suffix = |h: &str| Some(HostPattern::Suffix(h.into()));
        let router = Router::new(&[
            route(None, "/", 0),
            route(None, "/v1", 1),
            route(None, "/v1/images/", 2),
            route(exact("api.example.com"), "/v1", 3),
            route(suffix(".example.com"), "/", 4),
            route(suffix(".gpu.example.com"), "/", 5),
        ]);
        for (host, path, wants) in [
            ("other", "/", 0),
            ("other", "/v1", 1),
            ("other", "/v1/chat", 1),
            ("other", "/v10", 0),
            ("other", "/v1/images", 1),
            ("other", "/v1/images/x", 2),
            ("API.example.com:8080", "/v1/images/x", 3),
            ("api.example.com.", "/other", 4),
            ("a.gpu.example.com", "/", 5),
            ("example.com", "/", 0),
            ("[::1]:80", "/v1", 1),
        ] {
            assert_eq!(found(&router, host, path), Some(wants), "{host}{path}");
        }
    }

    #[test]
    fn nothing_is_served_where_nothing_was_routed() {
        let router = Router::new(&[route(None, "/v1", 0)]);
        assert!(matches!(
            router.route("h", "/v2"),
            Err(Refusal::NotFound(_))
        ));
        assert!(matches!(
            Router::default().route("h", "/"),
            Err(Refusal::NotFound(_))
        ));
    }

    #[test]
    fn a_path_that_reads_two_ways_is_refused_only_when_it_matters() {
        let router = Router::new(&[route(None, "/", 0), route(None, "/admin", 1)]);
        for raw in [
            "/a/../admin",
            "//admin",
            "/%61dmin",
            "/./admin",
            "/admin/../x",
            "/x/%2e%2e/admin/y",
            "/admin%2Fx",
            "/x/..%2fadmin",
            "/%5cadmin",
            "\\admin",
            "/x\\..\\admin",
        ] {
            assert!(
                matches!(router.route("h", raw), Err(Refusal::BadRequest(_))),
                "{raw}"
            );
        }
        for raw in [
            "/a//b",
            "/a/../b",
            "/a%20b",
            "/a%2Fb",
            "/admin//x",
            "/%",
            "/%zz",
            "/..",
        ] {
            assert!(router.route("h", raw).is_ok(), "{raw}");
        }
    }

    #[test]
    fn paths_are_normalised() {
        for (raw, wants) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/../../b", "/b"),
            ("/a/b/..", "/a/"),
            ("//", "/"),
            ("/a%2eb", "/a.b"),
            ("/%7Euser", "/~user"),
            ("/a%2Fb%20c", "/a%2Fb%20c"),
            ("/...", "/..."),
            ("/.hidden", "/.hidden"),
        ] {
            assert_eq!(normalise(raw), wants, "{raw}");
        }
    }
}
