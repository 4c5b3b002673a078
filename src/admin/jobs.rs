//! Jobs, for operators: the same calls that clients have, over all tenants.

use super::Means;
use super::guard::error;
use crate::wire::{self, Answer, Call, HeldBody, PREFIX, Payload, Who, Wire};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use std::io;
use tabane_api::{Content, Refusal};

/// What this API's paths begin with, and what stands for it among clients.
const API: &str = "/api/v1/";

/// How much of a kept body is given on at once.
const PIECE: usize = 256 << 10;

/// Any call that clients have too.
pub(super) async fn call(State(means): State<Means>, request: Request) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix(API).unwrap_or(path);
    let path = format!("{PREFIX}{path}");
    ask(means, request, path).await
}

/// Deletes jobs that are over.
pub(super) async fn purge(State(means): State<Means>, request: Request) -> Response {
    ask(means, request, String::new()).await
}

/// Asks the wire; an empty path purges.
async fn ask(means: Means, request: Request, path: String) -> Response {
    let (parts, body) = request.into_parts();
    let largest = usize::try_from(wire::LARGEST).unwrap_or(usize::MAX);
    let Ok(body) = to_bytes(body, largest).await else {
        let message = "the body is too large, or broke off";
        return error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    };
    let Some(world) = means.dispatch.world() else {
        let message = "no configuration is installed yet";
        return error(StatusCode::SERVICE_UNAVAILABLE, "no_config", message);
    };
    let call = Call {
        world: &world,
        method: &parts.method,
        path: &path,
        query: parts.uri.query(),
        headers: &parts.headers,
        body: HeldBody::Memory(body),
        who: Who::Operator,
    };
    let wire = Wire::new(means.dispatch.clone());
    let answer = match path.is_empty() {
        true => wire.purge(&call).await,
        false => wire.serve(call).await,
    };
    match answer {
        Ok(answer) => response(answer),
        Err(why) => refused(&why),
    }
}

fn refused(why: &Refusal) -> Response {
    let mut response = error(wire::status(why), why.code(), &why.to_string());
    if let Refusal::WrongMethod { allow, .. } = why {
        let allow = HeaderValue::from_static(allow);
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn response(answer: Answer) -> Response {
    let (body, length) = match answer.body {
        Payload::Bytes(bytes) => (Body::from(bytes), None),
        Payload::Part {
            content,
            from,
            length,
        } => (
            Body::from_stream(pieces(content, from, length)),
            Some(length),
        ),
        Payload::Live(live) => (Body::from_stream(live), None),
    };
    let mut response = (answer.status, body).into_response();
    *response.headers_mut() = answer.headers;
    if let Some(length) = length {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn pieces(
    content: Content,
    from: u64,
    length: u64,
) -> impl futures::Stream<Item = io::Result<Bytes>> {
    stream::unfold(0, move |given| {
        let content = content.clone();
        async move {
            let left = length.checked_sub(given).filter(|left| *left > 0)?;
            let most = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let piece = content.read(from + given, most).await;
            // One that ends early would be asked for ever.
            let piece = piece.and_then(|piece| match piece.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(piece),
            });
            let given = given + piece.as_ref().map_or(0, |piece| piece.len() as u64);
            Some((piece, given))
        }
    })
}
