//! Answers that are there at once, with the headers that each engine's web server gives them.

use super::spec::Engine;
use crate::answer::Body;
use crate::comfy::json::Json;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

pub(crate) type Reply = Response<Body>;

/// JSON without spaces.
pub(crate) fn compact(json: &Json) -> String {
    // A value that was made here can always be written.
    serde_json::to_string(json).unwrap_or_default()
}

/// JSON as Go writes it: what could be taken for HTML is written otherwise.
pub(crate) fn go(json: &Json) -> String {
    let text = compact(json);
    if !text.contains(['<', '>', '&']) {
        return text;
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

pub(crate) fn json(engine: Engine, status: u16, json: &Json) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match engine {
        Engine::Vllm => with(status, "application/json", compact(json)),
        Engine::LlamaCpp => with(status, "application/json; charset=utf-8", compact(json)),
        Engine::Ollama => with(status, "application/json; charset=utf-8", go(json)),
    }
}

pub(crate) fn with(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = status;
    if !kind.is_empty() {
        set(&mut reply, header::CONTENT_TYPE, kind);
    }
    reply
}

/// Sets a header; a value that cannot be one is left out.
pub(crate) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}
