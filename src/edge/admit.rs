//! From the head of a request to the lease of a node, or to an answer of the gateway's own.

use super::answer::deliver;
use super::context::Ctx;
use super::cors;
use super::hold::{self, HoldError};
use super::hop;
use super::jobs;
use super::proxy::Edge;
use super::{relay, reply, socket, tunnel};
use crate::dispatch::{Journey, Lease, ListenerKey, Step};
use crate::wire::Answer;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, Result};
use std::net::{IpAddr, Ipv4Addr};
use tabane_api::{ANONYMOUS, Ask, Caller, Refusal};

/// Why a request goes no further.
pub(super) enum Stop {
    /// The gateway refuses it.
    Refused(Refusal),
    /// Its client left.
    Gone(Box<Error>),
    /// Its answer had begun, and is cut off: nothing can be said any more.
    Cut(Box<Error>),
}

impl From<Refusal> for Stop {
    fn from(why: Refusal) -> Self {
        Stop::Refused(why)
    }
}

/// Takes a request in. `true`: it was answered here. `false`: it has a lease, and goes to that node.
///
/// Errors: its client left.
pub(super) async fn admit(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    match way(edge, session, ctx).await {
        Ok(answered) => Ok(answered),
        Err(Stop::Gone(error)) => {
            ctx.client_gone = true;
            Err(error)
        }
        Err(Stop::Cut(error)) => Err(error),
        Err(Stop::Refused(why)) => refuse(session, ctx, &why).await.map(|()| true),
    }
}

/// Refuses the request in its service's shape.
pub(super) async fn refuse(session: &mut Session, ctx: &mut Ctx, why: &Refusal) -> Result<()> {
    let head = session.req_header().clone();
    let service = ctx.service.clone();
    let caller = ctx
        .journey
        .as_ref()
        .map(|journey| journey.caller.clone())
        .unwrap_or_else(|| nobody(client(session)));
    reply::refuse(session, ctx, &ask(&head, &caller), service.as_deref(), why).await
}

async fn way(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<bool, Stop> {
    let origin = session.req_header().headers.get(header::ORIGIN);
    if origin.is_some() && pages(edge, session, ctx)? && cors::is_preflight(session.req_header()) {
        Box::pin(cors::preflight(session, ctx)).await?;
        return Ok(true);
    }
    if jobs::is_ours(session.req_header()) {
        // In a box of their own: what only jobs need must not be part of every request's state.
        Box::pin(jobs::serve(edge, session, ctx)).await?;
        return Ok(true);
    }
    let mut journey = enter(edge, session, ctx)?;
    journey.called(ctx.id.clone());
    let service = journey.service.clone();
    ctx.service = Some(service.clone());
    service.budget.earn(service.plan.retry.budget);
    ctx.journey = Some(journey);

    let (hold, most) = (service.plan.body.hold as u64, service.plan.body.max);
    let handshake = is_websocket(session.req_header())?;
    let declared = content_length(&session.req_header().headers);
    if let (Some(max), Some(length)) = (service.plan.body.max, declared)
        && length > max
    {
        return Err(Refusal::BodyTooLarge { max }.into());
    }
    let step = classify(session, ctx, None)?;
    let step = match step {
        Step::ReadBody { max } => {
            hold_body(edge, session, ctx, hold, most, Extent::Memory(max)).await?;
            if !ctx.body.whole {
                return Err(Refusal::BodyTooLarge { max }.into());
            }
            let body = ctx.body.bytes.clone();
            classify(session, ctx, Some(&body))?
        }
        Step::ReadKey => {
            hold_body(edge, session, ctx, hold, most, Extent::All).await?;
            // A body too long to be held in memory says nothing about where it belongs.
            let known = ctx.body.whole && ctx.body.file.is_none();
            let body = if known {
                ctx.body.bytes.clone()
            } else {
                Bytes::new()
            };
            classify(session, ctx, Some(&body))?
        }
        step => step,
    };
    if matches!(step, Step::Socket) {
        if !handshake {
            return Err(Refusal::BadRequest(
                "a WebSocket is served here, and this is no handshake of one (RFC 6455, 4.2.1)"
                    .into(),
            )
            .into());
        }
        Box::pin(socket::run(edge, session, ctx)).await?;
        return Ok(true);
    }
    if handshake && matches!(step, Step::Lease | Step::Relay) {
        journey_of(ctx)?.without_slot();
        lease(edge, session, ctx).await?;
        Box::pin(tunnel::run(edge, session, ctx)).await?;
        return Ok(true);
    }
    if matches!(step, Step::Lease | Step::Relay) && jobs::is_wanted(edge, session.req_header(), ctx)
    {
        hold_body(edge, session, ctx, hold, most, Extent::All).await?;
        Box::pin(jobs::submit(edge, session, ctx)).await?;
        return Ok(true);
    }
    if matches!(step, Step::Relay) {
        if !ctx.body.whole || ctx.body.file.is_some() {
            let why = "its kind relays it without its body";
            return Err(Refusal::Internal(why.into()).into());
        }
        Box::pin(relay::run(edge, session, ctx)).await?;
        return Ok(true);
    }
    if let Step::Answer { max } = step {
        let max = most.map_or(max, |most| most.min(max));
        hold_body(edge, session, ctx, hold, Some(max), Extent::All).await?;
        if !ctx.body.whole {
            return Err(Refusal::BodyTooLarge { max: hold }.into());
        }
        // In a box of its own: what only kinds that answer need must not be part of every request's state.
        Box::pin(answer(edge, session, ctx)).await?;
        return Ok(true);
    }
    let extent = match journey_of(ctx)?.options.stream {
        true => Extent::None,
        false => Extent::All,
    };
    hold_body(edge, session, ctx, hold, most, extent).await?;
    lease(edge, session, ctx).await?;
    if !ctx.body.whole {
        go_on(session, ctx).await?;
    }
    Ok(false)
}

/// How much of a body is held.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// Nothing: it streams.
    None,
    /// So much of it, in memory.
    Memory(u64),
    /// All of it: in memory as far as the service says, then on disk if there is one.
    All,
}

/// Whether the file says which pages may ask here; remembers whether this one may.
fn pages(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<bool, Stop> {
    let listener = arrived(edge, session, ctx)?;
    let head = session.req_header();
    let world = ctx.world.as_deref().ok_or(Refusal::ShuttingDown)?;
    let here = world.service_at(&listener, host(head), head.uri.path());
    // A job is asked for by pages of any service: it shows whose it is by its key or link.
    let everywhere = world.services.iter().filter(|_| jobs::is_ours(head));
    let plans = here
        .iter()
        .chain(everywhere)
        .map(|service| &service.plan.cors);
    let plans = plans.filter(|plan| plan.any || !plan.origins.is_empty());
    let (mut said, mut origin) = (false, None);
    for plan in plans {
        said = true;
        origin = origin.or_else(|| cors::allowed(plan, head));
    }
    ctx.cors = origin;
    Ok(said)
}

fn journey_of(ctx: &mut Ctx) -> Result<&mut Journey, Stop> {
    ctx.journey
        .as_mut()
        .ok_or_else(|| Refusal::Internal("a request without a journey".into()).into())
}

/// Who asks, and for what.
fn enter(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<Journey, Stop> {
    let listener = arrived(edge, session, ctx)?;
    let head = session.req_header();
    let from = client(session);
    let world = ctx.world.as_deref().ok_or(Refusal::ShuttingDown)?;
    let (path, headers) = (head.uri.path(), &head.headers);
    let entered = edge
        .dispatch
        .enter(world, &listener, host(head), path, headers, from);
    entered.map_err(|(why, service)| {
        ctx.service = service;
        Stop::Refused(why)
    })
}

/// Where a request came.
///
/// Errors: it is none that any service could take.
pub(super) fn arrived(edge: &Edge, session: &mut Session, ctx: &Ctx) -> Result<ListenerKey, Stop> {
    let head = session.req_header();
    let host = host(head);
    // RFC 9112, 3.2: a request of HTTP/1.1 without a host is none.
    if host.is_empty() && head.version == Version::HTTP_11 {
        return Err(
            Refusal::BadRequest("the request names no host; send a `Host` header".into()).into(),
        );
    }
    if head.headers.len() > ctx.limits().head_lines {
        let why = "the request has too many header lines";
        return Err(Refusal::HeadTooLarge(why.into()).into());
    }
    // Over HTTP/1 the head was read by `head.rs`.
    let path = head.raw_path();
    if !path.starts_with(b"/")
        && head.version == Version::HTTP_2
        && !(path == b"*" && head.method == Method::OPTIONS)
    {
        return Err(Refusal::BadRequest("the path does not begin with `/`".into()).into());
    }
    let listener = edge
        .bound
        .key(session.server_addr().and_then(|a| a.as_inet()))
        .ok_or(Refusal::ShuttingDown)?;
    Ok(listener)
}

fn classify(session: &Session, ctx: &mut Ctx, body: Option<&Bytes>) -> Result<Step, Stop> {
    let journey = journey_of(ctx)?;
    let caller = journey.caller.clone();
    Ok(journey.classify(&ask(session.req_header(), &caller), body)?)
}

pub(super) async fn hold_body(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
    hold: u64,
    max: Option<u64>,
    extent: Extent,
) -> Result<(), Stop> {
    let begun = ctx.body.whole || ctx.body.length() > 0;
    let ended = session.as_downstream_mut().is_body_done();
    if begun || (extent == Extent::None && !ended) {
        return Ok(());
    }
    if !ended {
        go_on(session, ctx).await?;
    }
    let limits = ctx.limits();
    let room = hold::Room {
        memory: match extent {
            Extent::Memory(most) => most,
            _ => hold,
        },
        spool: edge.spool.as_ref().filter(|_| extent == Extent::All),
        max,
        budget: &edge.budget,
        held_bytes: limits.held_bytes,
        spool_bytes: limits.spool_bytes,
    };
    ctx.body = hold::read(session, &mut ctx.pace(), room)
        .await
        .map_err(|error| match error {
            HoldError::Refused(why) => Stop::Refused(why),
            HoldError::Gone(error) => Stop::Gone(error),
        })?;
    ctx.bytes_in = ctx.body.length();
    Ok(())
}

/// Tells a client that waits for it to send its body.
async fn go_on(session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let head = session.req_header();
    // HTTP/1.0 knows no answers before the answer (RFC 9110, 10.1.1).
    let expects = head.headers.contains_key(header::EXPECT) && head.version > Version::HTTP_10;
    if expects && !ctx.continued {
        ctx.continued = true;
        let client = session.as_downstream_mut();
        client.write_continue_response().await.map_err(Stop::Gone)?;
    }
    Ok(())
}

/// Gets a lease, and watches meanwhile whether the client is still there.
pub(super) async fn lease(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
    let began = tokio::time::Instant::now();
    let granted = tokio::select! {
        biased;
        granted = edge.dispatch.lease(journey) => granted.map_err(Stop::Refused),
        error = gone(session, ctx.body.whole) => Err(Stop::Gone(error)),
    };
    ctx.wait += began.elapsed();
    let lease: Lease = granted?;
    journey.service.metrics.wait(began.elapsed());
    ctx.upstream = Some(lease.upstream().clone());
    ctx.lease = Some(lease);
    Ok(())
}

/// Resolves when the client is gone. Without the whole body that cannot be told, and it never does: reading
/// on would need a place for the bytes.
pub(super) async fn gone(session: &mut Session, whole: bool) -> Box<Error> {
    if !whole {
        return std::future::pending().await;
    }
    loop {
        match session.downstream_session.read_body_or_idle(true).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => return error,
        }
    }
}

/// Has the kind answer, unless the client leaves first.
async fn answer(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let head = session.req_header().clone();
    let mut request = Request::new(jobs::held(ctx).content());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = jobs::for_node(&head, ctx);
    // Whether this page may ask was decided here.
    if ctx.cors.is_some() {
        request.headers_mut().remove(header::ORIGIN);
        request.headers_mut().remove("sec-fetch-site");
    }
    let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
    let answer = tokio::select! {
        biased;
        answer = journey.answer(&edge.dispatch, request) => answer?,
        error = gone(session, true) => return Err(Stop::Gone(error)),
    };
    let (parts, body) = answer.into_parts();
    let answer = Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.into(),
    };
    deliver(session, ctx, answer).await
}

/// The request's head, as kinds and policies see it.
pub(super) fn ask<'a>(head: &'a RequestHeader, caller: &'a Caller) -> Ask<'a> {
    Ask {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        caller,
    }
}

fn nobody(address: IpAddr) -> Caller {
    Caller {
        tenant: ANONYMOUS.into(),
        address,
    }
}

/// The address that the connection came from.
pub(super) fn client(session: &Session) -> IpAddr {
    session
        .client_addr()
        .and_then(|address| address.as_inet())
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

/// The host that was asked for: HTTP/2's authority, or the `Host` header.
pub(super) fn host(head: &RequestHeader) -> &str {
    let named = || {
        head.headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
    };
    head.uri
        .authority()
        .map(|authority| authority.as_str())
        .or_else(named)
        .unwrap_or_default()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether this is a WebSocket's handshake. `Upgrade` to anything else is not ours to grant: such a request is served as
/// if it had not asked (RFC 9110, 7.8).
///
/// Errors: it wants to be one and is not whole (RFC 6455, 4.2.1). Whoever let that pass would carry something else.
fn is_websocket(head: &RequestHeader) -> Result<bool, Refusal> {
    let mut upgrades = head.headers.get_all(header::UPGRADE).iter();
    let (Some(upgrade), None) = (upgrades.next(), upgrades.next()) else {
        return Ok(false);
    };
    let says = |name, wanted: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let asks = upgrade
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"websocket")
        && head.version == Version::HTTP_11
        && hop::names(&head.headers, header::UPGRADE.as_str());
    if !asks {
        return Ok(false);
    }
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY);
    let whole = head.method == Method::GET
        && says(header::SEC_WEBSOCKET_VERSION, "13")
        && key.is_some_and(|key| key.as_bytes().trim_ascii().len() == 24);
    let bare = content_length(&head.headers).unwrap_or(0) == 0
        && !head.headers.contains_key(header::TRANSFER_ENCODING);
    match whole && bare {
        true => Ok(true),
        false => Err(Refusal::BadRequest(
            "this is not the handshake of a WebSocket (RFC 6455, 4.2.1)".into(),
        )),
    }
}
