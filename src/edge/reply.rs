//! Answers of the gateway's own.

use super::context::Ctx;
use crate::access::WWW_AUTHENTICATE;
use crate::dispatch::{Journey, LiveService};
use crate::wire::{retry_after, status};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, Result};
use tabane_api::{Ask, Refusal, Shape};

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
    let Shape {
        content_type,
        body,
        headers,
    } = Journey::refuse(service, ask, why);
    let mut head = ResponseHeader::build(status(why), Some(8 + headers.len()))?;
    for (name, value) in &headers {
        head.append_header(name.clone(), value.clone())?;
    }
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
    // RFC 9110, 8.6.
    if ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status) {
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
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
