//! Headers between two neighbours only (RFC 9110, 7.6.1): what one hop says to the next is not passed on.

use http::{HeaderMap, HeaderName, StatusCode, Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;

/// Those that are such wherever they stand. `Transfer-Encoding` and `Upgrade` are left to whoever frames and upgrades.
const ALWAYS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// What `Connection` names.
fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether `Connection` names this header.
pub(super) fn names(headers: &HeaderMap, name: &str) -> bool {
    named(headers).any(|named| named.eq_ignore_ascii_case(name))
}

/// Which headers of a head are meant for us alone: the standard ones, and those that `Connection` names.
pub(super) fn for_us(headers: &HeaderMap) -> Vec<HeaderName> {
    let named = named(headers).filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    named
        .chain(ALWAYS)
        .filter(|name| headers.contains_key(name) && !frames(name))
        .collect()
}

/// Makes the head of a node's answer one of ours: for a client of this version, and without what was meant for us.
///
/// Errors: none that a head which was read could cause.
pub(super) fn answer(head: &mut ResponseHeader, client: Version) -> Result<()> {
    for name in for_us(&head.headers) {
        head.remove_header(&name);
    }
    if head.status.is_informational() {
        return Ok(());
    }
    head.set_version(Version::HTTP_11);
    // Pingora has seen that they are the same.
    if head.headers.get_all(header::CONTENT_LENGTH).iter().count() > 1
        && let Some(length) = head.headers.get(header::CONTENT_LENGTH).cloned()
    {
        head.insert_header(header::CONTENT_LENGTH, length)?;
    }
    // RFC 9110, 15.3.5.
    if head.status == StatusCode::NO_CONTENT {
        head.remove_header(&header::CONTENT_LENGTH);
        head.remove_header(&header::TRANSFER_ENCODING);
    }
    // It ends with its connection, then.
    if client <= Version::HTTP_10 {
        head.remove_header(&header::TRANSFER_ENCODING);
    }
    Ok(())
}

/// What a message is read by is no neighbour's to take away.
fn frames(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::HOST,
    ]
    .contains(name)
        || name.as_str().starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_connection_names_is_ours_and_what_frames_is_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret ,, Content-Length, bad name"),
            ("connection", "keep-alive"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let mut ours: Vec<_> = for_us(&headers)
            .iter()
            .map(|name| name.to_string())
            .collect();
        ours.sort();
        ours.dedup();
        assert_eq!(ours, ["connection", "keep-alive", "x-secret"]);
    }
}
