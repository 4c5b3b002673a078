//! Who may ask: a page of another origin may not, where the server is asked for by a loopback name.

use super::reply::{Reply, empty, set};
use super::spec::{Spec, Version};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use std::net::IpAddr;

/// The answer to whom may not ask.
pub(crate) fn refused(spec: &Spec, method: &Method, headers: &HeaderMap) -> Option<Reply> {
    if spec.cors.is_some() {
        return None;
    }
    let _ = method;
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_lowercase);
    let cross_site = text("sec-fetch-site").is_some_and(|site| site == "cross-site");
    // Newer servers look at what the browser says, too.
    let cross_site = cross_site && spec.version > Version::RECORDED;
    let (host, origin) = (text("host"), text("origin"));
    let foreign = host
        .zip(origin)
        .is_some_and(|(host, origin)| is_foreign(&host, &origin));
    (cross_site || foreign).then(|| empty(StatusCode::FORBIDDEN))
}

/// Adds what `--enable-cors-header` adds.
pub(crate) fn allowed(spec: &Spec, mut reply: Reply) -> Reply {
    if let Some(origin) = &spec.cors {
        set(&mut reply, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(
            &mut reply,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "POST, GET, DELETE, PUT, OPTIONS",
        );
        set(
            &mut reply,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Authorization",
        );
        set(&mut reply, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    reply
}

fn is_foreign(host: &str, origin: &str) -> bool {
    let (Some(host), Some(origin)) = (authority(&format!("http://{host}")), authority(origin))
    else {
        return false;
    };
    let is_loopback = host.0 == "localhost"
        || host
            .0
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback());
    let same = match (host.1, origin.1) {
        (Some(host_port), Some(origin_port)) => host.0 == origin.0 && host_port == origin_port,
        // A port that one of them does not name is not compared.
        _ => host.0 == origin.0,
    };
    is_loopback && !same
}

/// A host and its port.
fn authority(url: &str) -> Option<(String, Option<u16>)> {
    // `null` is an origin without a host.
    let uri: Uri = url.contains("://").then_some(url)?.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    Some((host, uri.port_u16()))
}
