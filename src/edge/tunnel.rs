//! WebSockets, passed through as bytes.
//!
//! Pingora's own upgrade path tears a tunnel down when the node's 101 comes before the end of the request's
//! empty body was handled (cloudflare/pingora#946), and cuts a silent client after the read timeout. So the
//! handshake and the pumping are done here; a tunnel takes no slot, since an idle socket must not hold a GPU.
//!
//! Frames are followed, not changed. Between them the gateway says two things of its own: a ping to a client
//! while nothing is said (its pong goes on to the node, which may ignore it: RFC 6455, 5.5.3), and a close.

use super::admit::{self, Stop};
use super::attempt;
use super::context::{Ctx, Elapsed};
use super::frames::{self, Close, Frames};
use super::held;
use super::hop;
use super::lent::Lent;
use super::proxy::Edge;
use crate::dispatch::Revocation;
use crate::fleet::{End, Failure};
use bytes::Bytes;
use http::{StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::v1::client::HttpSession as NodeSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use std::time::Duration;
use tabane_api::Refusal;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a node may take to answer a handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long a frame that is on its way may still take when its node has to be let go of.
const LAST_FRAME: Duration = Duration::from_secs(5);

/// How long a side may take to read that its socket is over.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Carries a socket from its handshake to its end. The lease is in the context.
pub(super) async fn run(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let (mut node, head) = loop {
        match shake_hands(edge, session, ctx).await {
            Ok(shaken) => break shaken,
            Err(error) => {
                if !attempt::tunnel_failed(ctx, error) {
                    let why = ctx
                        .failure
                        .take()
                        .unwrap_or_else(|| "the node did not take the socket".into());
                    return Err(Refusal::NodeFailed(why).into());
                }
                admit::lease(edge, session, ctx).await?;
            }
        }
    };
    ctx.status = head.status.as_u16();
    ctx.first_byte = Some(ctx.started.elapsed_now());
    if let Some(lease) = &mut ctx.lease {
        lease.answered();
    }
    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded && let Some(lent) = Lent::below(session) {
        lent.open();
    }
    answer_head(session, ctx, head).await.map_err(Stop::Gone)?;
    let carried = if upgraded {
        pump(session, ctx, &mut node).await
    } else {
        answer_body(session, ctx, &mut node).await
    };
    let (Ok(()) | Err(_)) = carried;
    if let Some(lease) = ctx.lease.take() {
        lease.end(End::Done);
    }
    // What a tunnel carried is over with its connections.
    session.set_keepalive(None);
    Ok(())
}

/// Connects, sends the client's handshake, and reads the head of the answer.
async fn shake_hands(
    edge: &Edge,
    session: &Session,
    ctx: &mut Ctx,
) -> Result<(NodeSession, ResponseHeader)> {
    ctx.attempts += 1;
    ctx.first_attempt.get_or_insert(Instant::now().into_std());
    let (Some(lease), Some(journey)) = (&ctx.lease, &ctx.journey) else {
        return Error::e_explain(ErrorType::InternalError, "a socket without a lease");
    };
    let upstream = lease.upstream().clone();
    let Some(address) = upstream.address() else {
        return Error::e_explain(
            ErrorType::ConnectNoRoute,
            format!("the name `{}` is not known", upstream.target.host),
        );
    };
    let mut target = upstream.target.clone();
    // A handshake of HTTP/1.1 wants a connection of HTTP/1.1.
    target.h2 = false;
    let plan = &journey.service.plan;
    let peer = edge
        .peers
        .peer(&target, address, &plan.timeouts, plan.health.stall_after)?;
    let stream = edge
        .connector
        .new_stream(&peer)
        .await
        .inspect_err(|_| upstream.address_failed(address))?;
    let mut node = NodeSession::new(stream);
    let mut head: RequestHeader = session.req_header().clone();
    for name in hop::for_us(&head.headers) {
        head.remove_header(&name);
    }
    head.insert_header(header::CONNECTION, "Upgrade")?;
    head.insert_header(header::UPGRADE, "websocket")?;
    attempt::request_head(&mut head, ctx)?;
    node.write_request_header(Box::new(head)).await?;
    let answered = timeout(HANDSHAKE, async {
        loop {
            if let HttpTask::Header(head, _) = node.read_response_task().await?
                && (!head.status.is_informational()
                    || head.status == StatusCode::SWITCHING_PROTOCOLS)
            {
                return Ok::<_, Box<Error>>(*head);
            }
        }
    });
    match answered.await {
        Ok(head) => {
            let head = head?;
            let upgrade = head.headers.get(header::UPGRADE).map(|to| to.as_bytes());
            let to_socket = upgrade.is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"));
            if head.status == StatusCode::SWITCHING_PROTOCOLS && !to_socket {
                let why = "the node switches to a protocol that nobody asked for";
                return Error::e_explain(ErrorType::InvalidHTTPHeader, why);
            }
            Ok((node, head))
        }
        Err(_) => Error::e_explain(
            ErrorType::ReadTimedout,
            "the node did not answer the handshake",
        ),
    }
}

async fn answer_head(session: &mut Session, ctx: &mut Ctx, mut head: ResponseHeader) -> Result<()> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        session.set_keepalive(None);
        hop::answer(&mut head, session.req_header().version)?;
    }
    ctx.sign(&mut head)?;
    session.write_response_header(Box::new(head), false).await
}

/// The body of an answer that is no 101: the node refused the socket and says why.
async fn answer_body(session: &mut Session, ctx: &mut Ctx, node: &mut NodeSession) -> Result<()> {
    node.read_timeout = Some(HANDSHAKE);
    let mut revocation = ctx.lease.as_ref().map(|lease| lease.revocation());
    loop {
        let task = tokio::select! {
            task = node.read_response_task() => task?,
            () = revoked(&mut revocation) => {
                return Error::e_explain(held::REVOKED, "the node is frozen or has left");
            }
        };
        match task {
            HttpTask::Body(bytes, end) => {
                ctx.bytes_out += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                session.write_response_body(bytes, end).await?;
                if end {
                    return Ok(());
                }
            }
            HttpTask::Failed(error) => return Err(error),
            HttpTask::Done | HttpTask::Trailer(_) => {
                return session.write_response_body(None, true).await;
            }
            _ => {}
        }
    }
}

/// Passes bytes both ways until one side closes, nothing was said for too long, or the lease is revoked.
async fn pump(session: &mut Session, ctx: &mut Ctx, node: &mut NodeSession) -> Result<()> {
    session.set_read_timeout(None);
    node.read_timeout = None;
    node.write_timeout = Some(ctx.limits().client_write);
    // From here on what is written is the socket's, and is sent at once.
    node.maybe_upgrade_body_writer();
    let Some(journey) = &ctx.journey else {
        return Ok(());
    };
    let _open = journey.service.metrics.socket();
    let (idle, ping) = (
        journey.service.plan.socket_idle,
        journey.service.plan.socket_ping,
    );
    let mut revocation = ctx.lease.as_ref().map(|lease| lease.revocation());
    let (mut up, mut down) = (Frames::default(), Frames::default());
    let mut said = Instant::now();
    let mut heard = said;
    let mut left_at = None;
    let why = loop {
        // A frame that is on its way is let through first, unless it takes too long.
        if let Some(left) = left_at
            && (down.between() || Instant::now() >= left + LAST_FRAME)
        {
            break Close::NodeLeft;
        }
        let ping_at = ping.map(|ping| heard + ping);
        tokio::select! {
            sent = session.downstream_session.read_request_body() => match sent {
                Ok(Some(bytes)) => {
                    ctx.bytes_in += bytes.len() as u64;
                    heard = Instant::now();
                    if up.take(&bytes) {
                        said = heard;
                    }
                    if node.write_body(&bytes).await.is_err() {
                        break Close::NodeBroke;
                    }
                }
                _ => return Ok(()),
            },
            task = node.read_response_task() => match task {
                Ok(HttpTask::UpgradedBody(bytes, end) | HttpTask::Body(bytes, end)) => {
                    if let Some(bytes) = bytes {
                        ctx.bytes_out += bytes.len() as u64;
                        heard = Instant::now();
                        if down.take(&bytes) {
                            said = heard;
                        }
                        session.downstream_session.write_response_body(bytes, false).await?;
                    }
                    if end {
                        break Close::NodeBroke;
                    }
                }
                Ok(HttpTask::Header(..) | HttpTask::Trailer(_)) => {}
                Ok(HttpTask::Failed(_) | HttpTask::Done) | Err(_) => break Close::NodeBroke,
            },
            () = revoked(&mut revocation), if left_at.is_none() => left_at = Some(Instant::now()),
            () = at(left_at.map(|left| left + LAST_FRAME)) => {}
            () = at(ping_at) => {
                heard = Instant::now();
                if down.between() && !down.closed() {
                    let ping = Bytes::from_static(frames::ping());
                    session.downstream_session.write_response_body(ping, false).await?;
                }
            }
            () = sleep_until(said + idle) => break Close::Idle,
        }
    };
    if up.between() && !up.closed() && why != Close::NodeBroke {
        // The node may be gone; the client's own word is what matters.
        let _ = timeout(LAST_WORD, node.write_body(&why.to_node())).await;
    }
    if down.between() && !down.closed() {
        let word = why.to_client().into();
        let client = &mut session.downstream_session;
        client.write_response_body(word, false).await?;
        // Its answer, or its end; closing before would break the connection under the word.
        let over = async { while let Ok(Some(_)) = client.read_request_body().await {} };
        let _ = timeout(LAST_WORD, over).await;
    }
    Ok(())
}

/// Waits for a moment; for ever where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn revoked(revocation: &mut Option<Revocation>) {
    match revocation {
        Some(revocation) => revocation.wait().await,
        None => std::future::pending().await,
    }
}

/// The failure that a broken handshake counts as.
pub(super) fn failure(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::ConnectionClosed
        | ErrorType::InvalidHTTPHeader => Failure::Reset,
        _ => Failure::Connect,
    }
}
