//! Answers as aiohttp gives them.

use super::json::Json;
use crate::answer::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};

pub(crate) type Reply = Response<Body>;

pub(crate) fn json(status: StatusCode, json: &Json) -> Reply {
    with(status, "application/json; charset=utf-8", json.to_string())
}

pub(crate) fn ok(body: &Json) -> Reply {
    json(StatusCode::OK, body)
}

/// `web.Response(status=..)`
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = with(status, "", Bytes::new());
    reply.headers_mut().remove(header::CONTENT_TYPE);
    reply
}

/// A file's answer that has no file: nothing, of a length that is not known before.
pub(crate) fn no_file(status: StatusCode, kind: &str) -> Reply {
    let nothing = StreamBody::new(stream::empty()).boxed_unsync();
    let mut reply = Response::new(nothing);
    *reply.status_mut() = status;
    set(&mut reply, header::CONTENT_TYPE, kind);
    reply
}

pub(crate) fn text(status: StatusCode, text: &str) -> Reply {
    with(status, "text/plain; charset=utf-8", text.to_owned())
}

/// What becomes of an exception that nobody caught.
pub(crate) fn broken() -> Reply {
    let told = "500 Internal Server Error\n\nServer got itself in trouble";
    let mut reply = text(StatusCode::INTERNAL_SERVER_ERROR, told);
    set(&mut reply, header::CONNECTION, "close");
    reply
}

pub(crate) fn with(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = status;
    set(&mut reply, header::CONTENT_TYPE, kind);
    reply
}

/// Sets a header; a value that cannot be one is left out.
pub(crate) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}
