//! Answers as a ComfyUI server gives them.

use crate::json::Json;
use http::{HeaderValue, Response, StatusCode, header};
use tabane_api::{Body, Refusal};

/// An answer of the kind's own.
pub type Reply = Result<Response<Body>, Refusal>;

/// The type of a JSON document.
pub const JSON: &str = "application/json; charset=utf-8";

/// A JSON document.
pub fn json(status: StatusCode, json: &Json) -> Response<Body> {
    with(status, JSON, json.to_string())
}

/// A JSON document, and all is well.
pub fn ok(document: &Json) -> Response<Body> {
    json(StatusCode::OK, document)
}

/// A status and nothing else.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// What became of something that the server did not expect.
pub fn broken() -> Response<Body> {
    let told = "500 Internal Server Error\n\nServer got itself in trouble";
    with(
        StatusCode::INTERNAL_SERVER_ERROR,
        "text/plain; charset=utf-8",
        told.to_owned(),
    )
}

/// A text of this type.
pub fn with(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
