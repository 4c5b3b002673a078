use super::Means;
use crate::access::same_secret;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Lets in who shows the token, and keeps web pages from changing anything.
pub(super) async fn guard(State(means): State<Means>, request: Request, next: Next) -> Response {
    // Read anew for each request: a token that was changed in the file counts at once.
    let Some(admin) = means
        .dispatch
        .world()
        .and_then(|world| world.plan.admin.clone())
    else {
        let message = "the file turns this listener off; restart the gateway to close it";
        return error(StatusCode::FORBIDDEN, "admin_off", message);
    };
    if let Some(token) = &admin.token
        && !bearer(request.headers()).is_some_and(|shown| same_secret(shown, token.reveal()))
    {
        let message = "send the admin token as `Authorization: Bearer …`";
        let mut refused = error(StatusCode::UNAUTHORIZED, "unauthorized", message);
        let challenge = axum::http::HeaderValue::from_static("Bearer");
        refused
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        return refused;
    }
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks && from_a_page(request.headers()) {
        return error(
            StatusCode::FORBIDDEN,
            "cross_site",
            "a web page of another site may not change anything here",
        );
    }
    next.run(request).await
}

/// An answer that says what is wrong.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (
        status,
        Json(json!({"error": {"code": code, "message": message}})),
    )
        .into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// Browsers name the page that asks: `Origin` on every POST, `Sec-Fetch-Site` beside it.
fn from_a_page(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let origin = headers
        .get(header::ORIGIN)
        .and_then(|origin| origin.to_str().ok());
    let own = |origin: &str| {
        origin
            .split_once("://")
            .is_some_and(|(_, named)| named == host)
    };
    let other_site = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "same-origin" && site != "none");
    origin.is_some_and(|origin| !own(origin)) || other_site
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_is_known_by_its_origin() {
        let with = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            from_a_page(&headers)
        };
        assert!(!with(&[("host", "127.0.0.1:9900")]));
        assert!(!with(&[
            ("host", "127.0.0.1:9900"),
            ("origin", "http://127.0.0.1:9900"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(with(&[
            ("host", "127.0.0.1:9900"),
            ("origin", "https://evil.example")
        ]));
        assert!(with(&[("host", "127.0.0.1:9900"), ("origin", "null")]));
        assert!(with(&[
            ("host", "127.0.0.1:9900"),
            ("sec-fetch-site", "cross-site")
        ]));
    }
}
