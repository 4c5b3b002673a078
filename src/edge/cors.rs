//! Web pages of other origins, as the file lets them ask (the Fetch standard, CORS protocol).
//!
//! A service whose file names no origins is left as it is: its nodes may speak for themselves.

use super::admit::Stop;
use super::context::Ctx;
use super::reply;
use crate::config::plan::CorsPlan;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use tabane_api::Refusal;

/// What a page may read of an answer beside what every page may.
const EXPOSED: &str = "Location, Content-Location, Content-Range, Content-Disposition, ETag, Link, \
    Retry-After, Preference-Applied, Job-Id, Job-State, Job-Position, Job-Eta, Tabane-Node, \
    Tabane-Wait-Ms, X-Request-Id";

/// How long a browser remembers what it may ask, in seconds: some cut it to this anyway.
const REMEMBERED: &str = "600";

/// Whether a browser asks what it may ask.
pub(super) fn is_preflight(head: &RequestHeader) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(header::ORIGIN)
        && head
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The origin that a page may be told of; `None` where it may not ask, or where the file says nothing of it.
pub(super) fn allowed(plan: &CorsPlan, head: &RequestHeader) -> Option<HeaderValue> {
    let origin = head.headers.get(header::ORIGIN)?;
    let named = || {
        let origin = origin.as_bytes();
        let mut all = plan.origins.iter();
        all.any(|known| known.as_bytes().eq_ignore_ascii_case(origin))
    };
    (plan.any || named()).then(|| origin.clone())
}

/// Answers a browser that asks what it may ask. It shows no key then, and needs none.
pub(super) async fn preflight(session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    if ctx.cors.is_none() {
        let why = "the file lets no page of this origin ask; add it to `cors: {origins: […]}`";
        return Err(Refusal::Forbidden(why.into()).into());
    }
    let asked = |name: HeaderName| session.req_header().headers.get(name).cloned();
    let method = asked(header::ACCESS_CONTROL_REQUEST_METHOD);
    let headers = asked(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let make = || -> Result<ResponseHeader> {
        let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
        if let Some(method) = method {
            head.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, method)?;
        }
        if let Some(headers) = headers {
            head.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, headers)?;
        }
        head.insert_header(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED)?;
        head.append_header(
            header::VARY,
            "Access-Control-Request-Method, Access-Control-Request-Headers",
        )?;
        Ok(head)
    };
    let head = make().map_err(Stop::Gone)?;
    reply::send(session, ctx, head, bytes::Bytes::new())
        .await
        .map_err(Stop::Gone)
}

/// Lets the page read the answer. What the node said of it is replaced: two would be one too many for browsers.
pub(super) fn expose(head: &mut ResponseHeader, origin: &HeaderValue) -> Result<()> {
    head.remove_header(&header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    head.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())?;
    head.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED)?;
    head.append_header(header::VARY, "Origin")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_of_the_file_may_read() {
        let plan = CorsPlan {
            origins: vec!["https://studio.example".into()],
            any: false,
        };
        let any = CorsPlan {
            origins: vec![],
            any: true,
        };
        for (origin, by_name, by_any) in [
            (Some("https://studio.example"), true, true),
            (Some("https://STUDIO.example"), true, true),
            (Some("http://studio.example"), false, true),
            (Some("https://studio.example.evil"), false, true),
            (Some("null"), false, true),
            (None, false, false),
        ] {
            let mut head = RequestHeader::build(Method::GET, b"/", None).unwrap();
            if let Some(origin) = origin {
                head.insert_header(header::ORIGIN, origin).unwrap();
            }
            assert_eq!(allowed(&plan, &head).is_some(), by_name, "{origin:?}");
            assert_eq!(allowed(&any, &head).is_some(), by_any, "{origin:?}");
        }
    }
}
