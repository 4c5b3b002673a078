//! One attempt at one node: what is sent, what comes back, and whether another may follow.
//!
//! Another attempt follows only before the first byte of an answer, only while attempts and time are left,
//! and only when it can do no harm: nothing was sent (no connection), or the node said it did not take it (503, or a
//! status the file calls busy), or the request may run twice (an idempotent method, an `Idempotency-Key`,
//! `retry: unsafe`) and its whole body is still here.

use super::admit::{self, Stop};
use super::context::{Ctx, Elapsed, REQUEST_ID};
use super::held::{self, LOST, REVOKED};
use super::hold;
use super::proxy::Edge;
use super::reply;
use crate::fleet::{End, Failure};
use bytes::Bytes;
use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, header};
use memchr::{memchr2, memmem};
use pingora::ErrorType::{HTTPStatus, ReadTimedout, WriteTimedout};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::Session;
use pingora::upstreams::peer::Peer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use tabane_api::{OutOfMemory, Refusal, Seen, Usage};
use tokio::time::Instant;

/// The error of a request that the gateway itself gives up; `ctx.refusal` says why.
pub(super) const REFUSED: ErrorType = ErrorType::Custom("Refused");

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Goes to the node of the lease; gets another lease first where the last one failed.
pub(super) async fn begin(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
) -> Result<Box<HttpPeer>> {
    // The wrapper of the attempt before watches that attempt's lease: while we wait for another, the client's
    // own session is asked whether the client is there.
    held::unwrap(session, &ctx.slot);
    if ctx.lease.is_none() {
        match admit::lease(edge, session, ctx).await {
            Ok(()) => {}
            Err(Stop::Gone(error)) => {
                ctx.client_gone = true;
                return Err(error);
            }
            Err(Stop::Cut(error)) => return Err(error),
            Err(Stop::Refused(why)) => return Err(give_up(ctx, why)),
        }
    }
    ctx.attempts += 1;
    let now = Instant::now().into_std();
    ctx.first_attempt.get_or_insert(now);
    ctx.attempt_started = Some(now);
    let (Some(lease), Some(journey)) = (&ctx.lease, &ctx.journey) else {
        return Err(give_up(
            ctx,
            Refusal::Internal("an attempt without a lease".into()),
        ));
    };
    let Some(address) = lease.upstream().address() else {
        let error = Error::explain(
            ErrorType::ConnectNoRoute,
            format!("the name `{}` is not known", lease.upstream().target.host),
        );
        return Err(after_failure(ctx, Failure::Connect, true, error));
    };
    let peer = edge.peers.peer(
        &lease.upstream().target,
        address,
        &journey.service.plan.timeouts,
        journey.service.plan.health.stall_after,
    )?;
    let revocation = lease.revocation();
    if !ctx.body.whole {
        // Counted as it goes by, from its beginning.
        ctx.bytes_in = 0;
    }
    held::wrap(
        session,
        &ctx.body,
        ctx.pace(),
        Some(revocation),
        &edge.dispatch,
        &ctx.slot,
    );
    Ok(Box::new(peer))
}

/// The head as the node gets it: the client's, less what was meant for the gateway.
pub(super) fn request_head(head: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    for name in ctx.journey.iter().flat_map(|journey| &journey.key_headers) {
        head.remove_header(name);
    }
    if head.headers.contains_key(header::EXPECT) {
        head.remove_header(&header::EXPECT);
    }
    // Whether this page may ask was decided here. A server that takes only its own pages for friends must not decide otherwise.
    if ctx.cors.is_some() {
        head.remove_header(&header::ORIGIN);
        head.remove_header("sec-fetch-site");
    }
    origin_form(head)?;
    // A client of HTTP/1.0 need not name a host; the node is asked in HTTP/1.1, which wants one.
    if !head.headers.contains_key(header::HOST)
        && head.uri.authority().is_none()
        && let Some(upstream) = &ctx.upstream
    {
        let host = HeaderValue::try_from(upstream.target.authority());
        if let Ok(host) = host {
            head.insert_header(header::HOST, host)?;
        }
    }
    // HTTP/2 may send a cookie in crumbs, HTTP/1 may not (RFC 9113, 8.2.3).
    let mut crumbs = head.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_some() && crumbs.next().is_some() {
        let all = head.headers.get_all(header::COOKIE).iter();
        let whole = all.map(HeaderValue::as_bytes).collect::<Vec<_>>();
        if let Ok(whole) = HeaderValue::from_bytes(&whole.join(&b"; "[..])) {
            head.insert_header(header::COOKIE, whole)?;
        }
    }
    if ctx.log.request_id {
        head.insert_header(REQUEST_ID, ctx.id.clone())?;
    }
    // A body that is all here has a length, however it came: not every server reads chunks.
    if ctx.body.whole
        && (ctx.body.length() > 0 || head.headers.contains_key(header::TRANSFER_ENCODING))
    {
        head.remove_header(&header::TRANSFER_ENCODING);
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(ctx.body.length()))?;
    }
    Ok(())
}

/// A target in absolute form (`http://host/path`) is for proxies; the node gets the rest of it (RFC 9112, 3.2).
fn origin_form(head: &mut RequestHeader) -> Result<()> {
    let target = head.raw_path();
    if target.starts_with(b"/") {
        return Ok(());
    }
    let Some(scheme) = memmem::find(target, b"://") else {
        return Ok(());
    };
    let rest = &target[scheme + 3..];
    let (host, rest) = rest.split_at(memchr2(b'/', b'?', rest).unwrap_or(rest.len()));
    let path = match rest {
        [b'/', ..] => rest.to_vec(),
        [] if head.method == Method::OPTIONS => b"*".to_vec(),
        _ => [b"/", rest].concat(),
    };
    let host = HeaderValue::from_bytes(host);
    head.set_raw_path(&path)?;
    match host {
        Ok(host) if !head.headers.contains_key(header::HOST) => {
            head.insert_header(header::HOST, host)
        }
        _ => Ok(()),
    }
}

/// A piece of a body on its way to the node.
pub(super) fn request_body(body: &mut Option<Bytes>, end: bool, ctx: &mut Ctx) -> Result<()> {
    // An empty last piece over HTTP/2 would end a chunked body twice (cloudflare/pingora#935): the node would
    // take the second end for the next request.
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
    if ctx.body.whole {
        return Ok(());
    }
    ctx.bytes_in += body.as_ref().map_or(0, |body| body.len() as u64);
    let max = ctx
        .journey
        .as_ref()
        .and_then(|journey| journey.service.plan.body.max);
    match max {
        Some(max) if ctx.bytes_in > max => Err(give_up(ctx, Refusal::BodyTooLarge { max })),
        _ => Ok(()),
    }
}

/// The head of a node's answer: passed on, or reason enough to try another node.
pub(super) fn response_head(session: &Session, head: &ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let why = "the node switches to a protocol that nobody asked for";
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up());
    }
    if head.status.is_informational() {
        return Ok(());
    }
    let Some(journey) = &ctx.journey else {
        return Ok(());
    };
    let retry = &journey.service.plan.retry;
    ctx.busy = retry.busy.contains(&head.status);
    ctx.bad_status = !ctx.busy && retry.statuses.contains(&head.status);
    if ctx.busy || ctx.bad_status {
        // 503 says that the node did not take the request (RFC 9110, 15.6.4); of the others it may be half done.
        let not_taken = ctx.busy || head.status == StatusCode::SERVICE_UNAVAILABLE;
        let safe = not_taken || may_repeat(session.req_header(), ctx);
        // A busy node was asked and has done nothing: that is free.
        if safe && ctx.body.whole && has_another(ctx) && (ctx.busy || afford(ctx)) {
            let mut error = Error::explain(HTTPStatus(head.status.as_u16()), "the node's answer");
            error.as_up();
            return Err(error);
        }
    }
    ctx.status = head.status.as_u16();
    if ctx.first_byte.is_none() {
        ctx.first_byte = Some(ctx.started.elapsed_now());
    }
    if let (Some(lease), Some(journey)) = (&mut ctx.lease, &ctx.journey) {
        lease.answered();
        let caller = journey.caller.clone();
        ctx.cookie = journey.remember(&admit::ask(session.req_header(), &caller), lease);
        journey.observe(Seen::Head(head.status, &head.headers), &mut ctx.notes);
    }
    Ok(())
}

/// A piece of a node's answer. At its end the slot is free, however slowly the client reads.
pub(super) fn response_body(body: Option<&Bytes>, end: bool, ctx: &mut Ctx) {
    let Some(journey) = &ctx.journey else { return };
    if let Some(bytes) = body.filter(|bytes| !bytes.is_empty()) {
        ctx.bytes_out += bytes.len() as u64;
        journey.observe(Seen::Bytes(bytes), &mut ctx.notes);
    }
    if end {
        finish(ctx);
    }
}

/// The node's answer is over, and it was whole.
pub(super) fn finish(ctx: &mut Ctx) {
    if ctx.lease.is_none() {
        return;
    }
    let mut notes = std::mem::take(&mut ctx.notes);
    if let Some(journey) = &ctx.journey {
        journey.observe(Seen::End, &mut notes);
    }
    settle(ctx, &mut notes);
    ctx.notes = notes;
}

/// The node has done what was asked of it: gives its slots back.
pub(super) fn settle(ctx: &mut Ctx, notes: &mut Extensions) {
    if let Some(mut lease) = ctx.lease.take() {
        // That its card is too small for this is no failure of the node's.
        let short = notes.remove::<OutOfMemory>().is_some();
        if let Some(usage) = notes.remove::<Usage>() {
            lease.used(&usage);
        }
        if short {
            lease.ran_out_of_memory();
        }
        ctx.upstream_time = ctx.attempt_started.map(|started| started.elapsed_now());
        if (1..400).contains(&ctx.status) {
            lease.went_well();
        }
        lease.end(if ctx.bad_status && !short {
            End::Failed(Failure::Status)
        } else {
            End::Done
        });
    }
}

/// No connection came about: nothing was sent, so another node may always be tried.
pub(super) fn connect_failed(peer: &HttpPeer, error: Box<Error>, ctx: &mut Ctx) -> Box<Error> {
    if let (Some(lease), SocketAddr::Inet(address)) = (&ctx.lease, peer.address())
        && *error.etype() != ErrorType::InternalError
    {
        lease.upstream().address_failed(*address);
    }
    no_connection(ctx, error)
}

/// The same where its address is noted already.
pub(super) fn no_connection(ctx: &mut Ctx, error: Box<Error>) -> Box<Error> {
    // The system has no socket for us, and the node knows nothing of it.
    if *error.etype() == ErrorType::InternalError {
        tracing::error!(%error, "cannot connect to any node");
        if let Some(lease) = ctx.lease.take() {
            lease.end(End::Unused);
        }
        let why = "the gateway has no descriptor for a connection; try again soon";
        return give_up(ctx, Refusal::Overloaded(why.into()));
    }
    after_failure(ctx, Failure::Connect, true, error)
}

/// The exchange broke off, by the node or by the client.
pub(super) fn failed(session: &Session, error: Box<Error>, ctx: &mut Ctx) -> Box<Error> {
    let began = reply::answered(session).is_some();
    let revoked = *error.etype() == REVOKED;
    if *error.etype() == LOST {
        tracing::error!(%error, "cannot go on with a request");
        let why = "the body of the request could not be read back from the disk";
        ctx.refusal = Some(Refusal::Internal(why.into()));
    }
    if *error.esource() != ErrorSource::Upstream && !revoked {
        if ctx.refusal.is_none() && *error.esource() == ErrorSource::Downstream {
            ctx.refusal = hold::fault(&error);
            ctx.client_gone |= ctx.refusal.is_none();
        }
        if let Some(lease) = ctx.lease.take() {
            lease.end(End::Aborted { began });
        }
        return no_retry(error);
    }
    let repeats = may_repeat(session.req_header(), ctx);
    fell(ctx, began, repeats, error)
}

/// The exchange broke off, by the node.
pub(super) fn fell(ctx: &mut Ctx, began: bool, repeats: bool, error: Box<Error>) -> Box<Error> {
    if ctx.busy && matches!(error.etype(), HTTPStatus(_)) {
        return go_elsewhere(ctx, error);
    }
    let failure = failure_of(&error);
    ctx.broken = began;
    ctx.timed_out = failure == Failure::Timeout;
    let safe = failure == Failure::Status || repeats;
    after_failure(ctx, failure, !began && ctx.body.whole && safe, error)
}

/// What an exchange that broke off tells of its node.
pub(super) fn failure_of(error: &Error) -> Failure {
    match error.etype() {
        ReadTimedout | WriteTimedout => Failure::Timeout,
        etype if *etype == REVOKED => Failure::Timeout,
        HTTPStatus(_) => Failure::Status,
        _ => Failure::Reset,
    }
}

fn after_failure(ctx: &mut Ctx, failure: Failure, safe: bool, mut error: Box<Error>) -> Box<Error> {
    if let Some(lease) = ctx.lease.take() {
        ctx.failure = Some(format!(
            "node endpoint `{}`: {}",
            lease.upstream().name,
            brief(&error)
        ));
        if let Some(journey) = &mut ctx.journey {
            journey.exclude(lease.upstream().id);
        }
        lease.end(End::Failed(failure));
    }
    // A status was paid for when it was seen, and a connection that failed cost the node nothing.
    let free = matches!(failure, Failure::Connect | Failure::Status);
    let again = safe && has_another(ctx) && (free || afford(ctx));
    if again && let Some(journey) = &ctx.journey {
        journey.service.metrics.retry();
    }
    error.as_up();
    error.set_retry(again);
    error
}

/// The node is well and busy with something else: it is not blamed, and the request goes to another.
fn go_elsewhere(ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    if let (Some(lease), Some(journey)) = (ctx.lease.take(), &mut ctx.journey) {
        journey.exclude(lease.upstream().id);
        journey.service.metrics.retry();
        lease.end(End::Unused);
    }
    error.as_up();
    error.set_retry(true);
    error
}

/// Pays for one more attempt, if the service's budget has it.
pub(super) fn afford(ctx: &Ctx) -> bool {
    let Some(journey) = &ctx.journey else {
        return false;
    };
    let paid = journey.service.budget.take();
    if !paid {
        journey.service.metrics.retry_denied();
    }
    paid
}

/// Whether attempts and time are left.
pub(super) fn has_another(ctx: &Ctx) -> bool {
    let Some(journey) = &ctx.journey else {
        return false;
    };
    let retry = &journey.service.plan.retry;
    ctx.attempts < retry.attempts
        && ctx
            .first_attempt
            .is_none_or(|first| first.elapsed_now() < retry.within)
}

/// Whether the request may run twice.
pub(super) fn may_repeat(head: &RequestHeader, ctx: &Ctx) -> bool {
    let Some(journey) = &ctx.journey else {
        return false;
    };
    // RFC 9110, 9.2.2.
    let idempotent = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    idempotent
        || head.headers.contains_key(IDEMPOTENCY_KEY)
        || journey
            .options
            .repeat_unsafe
            .unwrap_or(journey.service.plan.retry.repeat_unsafe)
}

/// Gives the request up for a reason of the gateway's own.
pub(super) fn give_up(ctx: &mut Ctx, why: Refusal) -> Box<Error> {
    let error = Error::explain(REFUSED, why.to_string());
    ctx.refusal = Some(why);
    no_retry(error)
}

fn no_retry(mut error: Box<Error>) -> Box<Error> {
    error.set_retry(false);
    error
}

/// An error for people: without Pingora's nesting and without addresses that a client need not know.
pub(super) fn brief(error: &Error) -> &'static str {
    match error.etype() {
        ErrorType::ConnectTimedout => "no connection in time",
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectNoRoute => "no route, or its name is not known",
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert => "TLS was not agreed",
        ReadTimedout => "no answer in time",
        WriteTimedout => "it did not take the request in time",
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => {
            "it broke the connection off"
        }
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => "its answer is not HTTP",
        HTTPStatus(_) => "it answered with a status that counts as failure",
        etype if *etype == REVOKED => {
            "it is frozen, or it was removed and its time to drain is over"
        }
        _ => "the exchange failed",
    }
}

/// A socket's handshake failed. Whether another node may be tried: always, since nothing was done yet.
pub(super) fn tunnel_failed(ctx: &mut Ctx, error: Box<Error>) -> bool {
    let failure = super::tunnel::failure(&error);
    after_failure(ctx, failure, true, error).retry()
}
