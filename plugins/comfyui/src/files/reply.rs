//! Answers as ComfyUI's web server (aiohttp) gives them.

use super::types::is_picture;
use crate::json::Json;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tabane_api::{Body, Refusal};

/// An answer, in ComfyUI's words where the request is to blame; a [`Refusal`] where the gateway's disk is.
pub type Answer = Result<Response<Body>, Refusal>;

/// A status and nothing else.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut reply = Response::new(Body::default());
    *reply.status_mut() = status;
    reply
}

pub(super) fn with(kind: &str, body: impl Into<Body>) -> Response<Body> {
    let mut reply = Response::new(body.into());
    set(&mut reply, header::CONTENT_TYPE, kind);
    reply
}

pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let mut reply = with("text/plain; charset=utf-8", body);
    *reply.status_mut() = status;
    reply
}

pub(super) fn json(status: StatusCode, json: &Json) -> Response<Body> {
    let mut reply = with("application/json; charset=utf-8", json.to_string());
    *reply.status_mut() = status;
    reply
}

pub(super) fn ok(body: impl Into<Json>) -> Answer {
    Ok(json(StatusCode::OK, &body.into()))
}

/// What a server says that stumbled over a request.
pub(super) fn broken() -> Response<Body> {
    let told = "500 Internal Server Error\n\nServer got itself in trouble";
    text(StatusCode::INTERNAL_SERVER_ERROR, told)
}

pub(super) fn too_large(most: u64, length: u64) -> Response<Body> {
    let told = format!("Maximum request body size {most} exceeded, actual body size {length}");
    text(StatusCode::PAYLOAD_TOO_LARGE, &told)
}

/// Sets a header; what no header can carry is left out. Names of files go out as they are, in UTF-8, as aiohttp has it.
pub(super) fn set(reply: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        reply.headers_mut().insert(name, value);
    }
}

/// Says how long an answer may be kept, by the path that was asked for: pictures a day, scripts not at all.
///
/// Source: ComfyUI `middleware/cache_middleware.py`, which looks at the path and not at what came of it: `/view` is never
/// kept by it, a picture below `/userdata` is.
pub fn cached(path: &str, mut reply: Response<Body>) -> Response<Body> {
    let name = path.rsplit('/').next().unwrap_or("");
    let is_entry = name.starts_with("index") && name.ends_with(".json");
    let keep = if path.ends_with(".js") || path.ends_with(".css") || is_entry {
        "no-cache"
    } else if !is_picture(path) {
        return reply;
    } else {
        match reply.status().as_u16() {
            404 => "public, max-age=3600",
            200..=206 | 301 | 308 => "public, max-age=86400",
            302 | 303 | 307 => "no-cache",
            _ => return reply,
        }
    };
    if !reply.headers().contains_key(header::CACHE_CONTROL) {
        set(&mut reply, header::CACHE_CONTROL, keep);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_is_kept_goes_by_its_path() {
        let day = Some("public, max-age=86400");
        for (path, status, wanted) in [
            ("/view", 200, None),
            ("/userdata/a.png", 200, day),
            ("/userdata/A.JPG", 206, day),
            ("/userdata/a.png", 304, None),
            ("/userdata/a.png", 404, Some("public, max-age=3600")),
            ("/userdata/a.png", 302, Some("no-cache")),
            ("/userdata/user.css", 404, Some("no-cache")),
            ("/scripts/app.js", 200, Some("no-cache")),
            ("/x/index.en.json", 200, Some("no-cache")),
            ("/x/a.json", 200, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let told = cached(path, empty(status));
            let told = told.headers().get(header::CACHE_CONTROL);
            assert_eq!(told.map(|told| told.to_str().unwrap()), wanted, "{path}");
        }
        let mut own = empty(StatusCode::OK);
        set(&mut own, header::CACHE_CONTROL, "no-store");
        let own = cached("/a.png", own);
        assert_eq!(own.headers()[header::CACHE_CONTROL], "no-store");
    }
}
