//! Single values: numbers in their range, durations, names, addresses.

use crate::config::findings::{Findings, Spot};
use crate::config::problem::shorten;
use crate::config::typed::{At, Field};
use crate::config::units::Span;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A number, or its default when nothing was typed or the number is out of range (which is told).
pub(crate) fn number(
    field: &Field<u64>,
    range: RangeInclusive<u64>,
    default: u64,
    hint: &str,
    outer: Spot,
    findings: &Findings,
) -> u64 {
    let Some(At { spot, value }) = field.at(outer) else {
        return default;
    };
    if range.contains(value) {
        return *value;
    }
    let what = format!("must be {} to {}, got {value}", range.start(), range.end());
    findings.problem(spot, what, hint);
    default
}

/// A duration that may be 0.
pub(crate) fn span(field: &Field<Span>, default: Duration) -> Duration {
    field.get().map_or(default, |span| span.0)
}

/// A duration that may not be 0.
pub(crate) fn positive(
    field: &Field<Span>,
    default: Duration,
    outer: Spot,
    findings: &Findings,
) -> Duration {
    let span = span(field, default);
    if span.is_zero() {
        let hint = format!("leave it out for {}", seconds(default));
        findings.problem(field.spot(outer), "must be longer than 0", hint);
        return default;
    }
    span
}

/// A name of a node, endpoint, pool, service or tenant.
pub(crate) fn name(name: &At<String>, findings: &Findings) {
    let text = &name.value;
    let good = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !good {
        let what = format!("`{}` is not a name", shorten(text));
        findings.problem(
            name.spot,
            what,
            "names have 1 to 63 letters, digits, `.`, `_` and `-`",
        );
    }
}

/// An address with port; `:8080` is every IPv4 address.
pub(crate) fn address(text: &str, spot: Spot, findings: &Findings) -> Option<SocketAddr> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    if let Ok(address) = full.parse() {
        return Some(address);
    }
    let hint = match text.split_once(':') {
        Some(("localhost", port)) => format!("write `127.0.0.1:{}`", shorten(port)),
        Some(("*", port)) => format!("write `0.0.0.0:{}`", shorten(port)),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            format!("write `:{}`", shorten(text))
        }
        _ => "write an IP address and a port, such as `0.0.0.0:8080` or `[::]:8080`".to_owned(),
    };
    findings.problem(
        spot,
        format!("`{}` is not an address with port", shorten(text)),
        hint,
    );
    None
}

fn seconds(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{}ms", span.as_millis()),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}
