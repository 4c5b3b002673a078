//! Which pages may ask: none of another origin, where the gateway is asked for by a loopback name, as with a real server. Whoever
//! runs a gateway for themselves would else let any page that they look at queue prompts. Pages that the file lets in (`cors`) come
//! here without their origin.

use http::{HeaderMap, HeaderName, Uri, header};
use std::net::IpAddr;

/// Whether a request is a page's that may not ask.
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::to_lowercase);
    let host = text(header::HOST).and_then(|host| authority(&format!("http://{host}")));
    let origin = text(header::ORIGIN);
    let (Some((host, port)), Some(origin)) = (host, origin) else {
        return false;
    };
    let Some((page, page_port)) = authority(&origin).filter(|_| origin.contains("://")) else {
        return false;
    };
    let bare = host.trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || bare
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback());
    // A port that one of them does not name is not compared.
    let same = host == page && (port.is_none() || page_port.is_none() || port == page_port);
    is_loopback && !same
}

fn authority(url: &str) -> Option<(String, Option<u16>)> {
    let url: Uri = url.parse().ok()?;
    let authority = url.authority()?;
    Some((authority.host().to_owned(), authority.port_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_origin_may_not_ask_by_a_loopback_name() {
        for (host, origin, wants) in [
            ("127.0.0.1:8188", "http://127.0.0.1:8188", false),
            ("localhost:8188", "http://localhost", false),
            ("127.0.0.1:8188", "http://evil.example", true),
            ("127.0.0.1:8188", "http://127.0.0.1:3000", true),
            ("127.0.0.1:8188", "http://localhost:8188", true),
            ("[::1]:8188", "http://evil.example", true),
            ("LOCALHOST:8188", "https://evil.example:8188", true),
            ("gateway:8188", "http://evil.example", false),
            ("10.0.0.1:8188", "http://evil.example", false),
            ("127.0.0.1:8188", "null", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            headers.insert("origin", origin.parse().unwrap());
            assert_eq!(is_foreign(&headers), wants, "{host} {origin}");
        }
        assert!(!is_foreign(&HeaderMap::new()));
    }
}
