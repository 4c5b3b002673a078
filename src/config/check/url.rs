//! Addresses of HTTP servers: an endpoint's URL is scheme, host and port, and nothing else; so is a page's origin.

use crate::config::findings::{Findings, Spot};
use crate::config::plan::{Target, TlsPlan};
use crate::config::problem::shorten;
use std::net::Ipv6Addr;

/// The parts of an endpoint's URL.
pub(crate) struct Url {
    https: bool,
    host: String,
    port: Option<u16>,
}

impl Url {
    /// How it is spoken to.
    pub(crate) fn target(&self, h2: bool) -> Target {
        Target {
            host: self.host.as_str().into(),
            port: self.port.unwrap_or(if self.https { 443 } else { 80 }),
            tls: self.https.then(|| TlsPlan {
                server_name: self.host.as_str().into(),
                verify: true,
                ca: None,
            }),
            h2,
        }
    }

    /// The name of the node that is made of it.
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// What browsers send as `Origin` for a page at this address: a port only where it is not the scheme's own.
    fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.target(false).authority())
    }
}

/// Reads it; what is wrong with it is told.
pub(crate) fn url(text: &str, spot: Spot, findings: &Findings) -> Option<Url> {
    match parse_url(text) {
        Ok(url) => Some(url),
        Err((what, hint)) => {
            findings.problem(spot, what, hint);
            None
        }
    }
}

/// An address of the gateway's own, without a slash at its end. With `paths` it may stand below a path of another server.
pub(crate) fn own(text: &str, paths: bool, spot: Spot, findings: &Findings) -> Option<String> {
    let no = |what: &str| {
        let hint = match paths {
            true => "write it as `https://gpu.studio.example`",
            false => "write it as `http://10.0.0.1:8080`",
        };
        let shown = shorten(&without_secret(text));
        findings.problem(spot, format!("`{shown}` {what}"), hint);
        None
    };
    if text.contains('@') {
        return no("holds a user or password");
    }
    if text.contains(['?', '#']) {
        return no("has more than a path");
    }
    let host = text.find("://").map_or(0, |at| at + "://".len());
    let end = text[host..].find('/').map_or(text.len(), |at| host + at);
    let (origin, path) = text.split_at(end);
    let path = path.trim_end_matches('/');
    if parse_url(origin).is_err() || text.parse::<http::Uri>().is_err() {
        return no("is no address of a gateway");
    }
    if !paths && !path.is_empty() {
        return no("has a path");
    }
    Some(format!("{origin}{path}"))
}

/// What browsers send as `Origin` for pages of this address; `None`: it is no origin.
///
/// Source: RFC 6454, 6.2. Pages of apps have schemes of their own, and their origins are sent as they are written.
pub(crate) fn origin(text: &str) -> Option<String> {
    if text.ends_with('/') {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    if ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return parse_url(text).ok().map(|url| url.origin());
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let (host, port) = split_port(rest)?;
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (!scheme.is_empty() && scheme.bytes().all(known) && is_host(host) && port)
        .then(|| text.to_owned())
}

fn parse_url(text: &str) -> Result<Url, (String, String)> {
    let like = || "write it as `http://100.64.0.11:8188`".to_owned();
    let no = |what: &str| {
        (
            format!("`{}` {what}", shorten(&without_secret(text))),
            like(),
        )
    };
    let lower = text.to_ascii_lowercase();
    let (https, rest) = if lower.starts_with("http://") {
        (false, &text["http://".len()..])
    } else if lower.starts_with("https://") {
        (true, &text["https://".len()..])
    } else if text.contains("://") {
        return Err(no("is neither http nor https"));
    } else {
        return Err(no("has no scheme"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(no("holds a user or password"));
    }
    if rest.contains(['/', '?', '#']) {
        return Err((
            format!("an endpoint's URL has no path: `{}`", shorten(text)),
            "requests keep the path they came with; remove what follows the port".to_owned(),
        ));
    }
    let (host, port) = split_port(rest).ok_or_else(|| no("is not a URL"))?;
    let port = match port {
        None => None,
        Some(port) => match port.parse() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Some(number),
            _ => return Err(no("has no port from 1 to 65535")),
        },
    };
    if !is_host(host) {
        return Err(no("has no host"));
    }
    let host = host.to_ascii_lowercase();
    Ok(Url { https, host, port })
}

/// Host (an IPv6 address without its brackets) and port.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

/// A name, or an address.
pub(crate) fn is_host(text: &str) -> bool {
    let name = (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    name || text.parse::<Ipv6Addr>().is_ok()
}

fn without_secret(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        _ => url.to_owned(),
    }
}
