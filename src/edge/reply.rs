//! Which status a refusal gets. The only file that knows; its shape is the kind's.

use super::context::Ctx;
use crate::access::WWW_AUTHENTICATE;
use crate::dispatch::{Journey, LiveService};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, Result};
use std::time::Duration;
use tabane_api::{Ask, Refusal, Shape};

/// The status of a refusal.
pub(super) fn status(why: &Refusal) -> StatusCode {
    match why {
        Refusal::BadRequest(_) => StatusCode::BAD_REQUEST,
        Refusal::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Refusal::NotFound(_) => StatusCode::NOT_FOUND,
        Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Refusal::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
        // The request is good and the service lacks a machine for it: more hardware would help, another request would not.
        Refusal::NoFit { .. }
        | Refusal::WaitedTooLong { .. }
        | Refusal::ShuttingDown
        | Refusal::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::NodeFailed(_) => StatusCode::BAD_GATEWAY,
        Refusal::NodeTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
        Refusal::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::Gone(_) => StatusCode::GONE,
        Refusal::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::StoreFull(_) => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// When it is worth trying again; `None` where it is not.
fn retry_after(why: &Refusal) -> Option<Duration> {
    match why {
        Refusal::QueueFull { retry_after, .. } => Some(*retry_after),
        Refusal::WaitedTooLong { .. } | Refusal::Overloaded(_) => Some(Duration::from_secs(5)),
        Refusal::StoreFull(_) => Some(Duration::from_secs(60)),
        Refusal::ShuttingDown => Some(Duration::from_secs(1)),
        _ => None,
    }
}

/// Refuses a request in its kind's shape.
///
/// Errors: the client left meanwhile.
pub(super) async fn refuse(
    session: &mut Session,
    ctx: &mut Ctx,
    ask: &Ask<'_>,
    service: Option<&LiveService>,
    why: &Refusal,
) -> Result<()> {
    let Shape { content_type, body } = Journey::refuse(service, ask, why);
    let mut head = ResponseHeader::build(status(why), Some(8))?;
    head.insert_header(header::CONTENT_TYPE, content_type)?;
    if let Some(after) = retry_after(why) {
        head.insert_header(header::RETRY_AFTER, after.as_secs_f64().ceil().to_string())?;
    }
    if matches!(why, Refusal::Unauthorized(_)) {
        head.insert_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(WWW_AUTHENTICATE),
        )?;
    }
    if let Refusal::WrongMethod { allow, .. } = why {
        head.insert_header(header::ALLOW, HeaderValue::from_static(allow))?;
    }
    ctx.refused = Some(why.code());
    send(session, ctx, head, body).await
}

/// The head of the answer that the client has; `100 Continue` and its like are none, though Pingora keeps them in the
/// same place.
pub(super) fn answered(session: &Session) -> Option<&ResponseHeader> {
    session
        .response_written()
        .filter(|head| !head.status.is_informational() || head.status == 101)
}

/// Sends an answer of the gateway's own.
pub(super) async fn send(
    session: &mut Session,
    ctx: &mut Ctx,
    mut head: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    if answered(session).is_some() {
        return Ok(());
    }
    ctx.sign(&mut head)?;
    head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    // Who asks a gateway that goes down should ask another one next.
    if ctx.refused == Some(Refusal::ShuttingDown.code()) {
        session.set_keepalive(None);
    }
    // What was not read of a body would be taken for the next request.
    if !session.as_downstream_mut().is_body_done() {
        session.set_keepalive(None);
    }
    let bare = session.req_header().method == http::Method::HEAD || body.is_empty();
    let sent = async {
        session.write_response_header(Box::new(head), bare).await?;
        if !bare {
            session.write_response_body(Some(body), true).await?;
        }
        Ok::<_, Box<Error>>(())
    };
    sent.await
}
