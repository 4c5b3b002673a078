//! Requests that become jobs, and calls about jobs: from Pingora's session to the wire and back.

use super::admit::{self, Extent, Stop, client};
use super::context::Ctx;
use super::hop;
use super::proxy::Edge;
use super::reply;
use crate::config::plan::OnDisconnect;
use crate::wire::{self, Answer, Call, HeldBody, PREFIX, Payload, Submission, Who};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, Result};
use std::io;
use tabane_api::Refusal;

/// How much of a kept body is given on at once.
const PIECE: usize = 256 << 10;

/// Whether a request is for the gateway itself.
pub(super) fn is_ours(head: &RequestHeader) -> bool {
    head.uri.path().starts_with(PREFIX)
}

/// Whether a request that its kind would forward is to be accepted for later.
pub(super) fn is_wanted(edge: &Edge, head: &RequestHeader, ctx: &Ctx) -> bool {
    edge.dispatch.jobs().is_some()
        && ctx.journey.as_ref().is_some_and(|journey| {
            let takes_slot = journey.need().slots > 0;
            wire::wants_job(journey.jobs_mode(), takes_slot, &head.headers)
        })
}

/// Answers a call about jobs.
pub(super) async fn serve(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let listener = admit::arrived(edge, session, ctx)?;
    let head = session.req_header();
    let world = ctx.world.clone().ok_or(Refusal::ShuttingDown)?;
    let from = client(session);
    let mut keys = Vec::new();
    let who = match edge
        .dispatch
        .identify(&world, &listener, &head.headers, from)
    {
        Ok(identity) => {
            ctx.tenant = Some(identity.caller.tenant.clone());
            keys = identity.matched;
            Who::Tenant(identity.caller)
        }
        Err(Refusal::ShuttingDown) => return Err(Refusal::ShuttingDown.into()),
        Err(why) => Who::Nobody(why),
    };
    let (hold, max) = match (&head.method, &who) {
        // Without a key nobody makes the gateway keep anything long.
        (&Method::PUT, Who::Tenant(_)) => {
            let services = world.services.iter();
            let largest = services
                .map(|service| service.plan.body.max)
                .max_by_key(|max| max.unwrap_or(u64::MAX));
            (Extent::All, largest.flatten())
        }
        _ => (Extent::Memory(wire::LARGEST), Some(wire::LARGEST)),
    };
    admit::hold_body(edge, session, ctx, IN_MEMORY, max, hold).await?;
    let head = session.req_header().clone();
    let mut headers = head.headers.clone();
    // What may become a job's headers goes to a node: no key of ours among them.
    for name in hop::for_us(&headers).into_iter().chain(keys) {
        headers.remove(name);
    }
    headers.remove(header::UPGRADE);
    let call = Call {
        world: &world,
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &headers,
        body: held(ctx),
        who,
    };
    let answer = tokio::select! {
        biased;
        answer = edge.wire.serve(call) => answer?,
        error = admit::gone(session, true) => return Err(Stop::Gone(error)),
    };
    deliver(session, ctx, answer).await
}

/// So much of a body that is submitted by `PUT` is held in memory; the rest goes to disk.
const IN_MEMORY: u64 = 1 << 20;

/// Takes a request in for later, and answers it.
pub(super) async fn submit(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    if !ctx.body.whole {
        let why = "the gateway has no place for this body; give it a `data_dir`";
        return Err(Refusal::Overloaded(why.into()).into());
    }
    let head = session.req_header().clone();
    let world = ctx.world.clone().ok_or(Refusal::ShuttingDown)?;
    let body = held(ctx);
    let headers = for_node(&head, ctx);
    let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
    let asked = Submission {
        world: &world,
        journey,
        method: head.method.clone(),
        uri: target(&head.uri)?,
        headers,
        body,
        client_id: None,
    };
    // Not given up when its client leaves: whether it was taken in would be anyone's guess.
    let submitted = edge.wire.submit(asked).await?;
    let (job, is_own) = (submitted.job.clone(), submitted.is_own);
    ctx.job = Some(job.id.clone());
    let answered = tokio::select! {
        biased;
        answer = edge.wire.accepted(&world, submitted, &head.headers) => answer.map_err(Stop::from),
        error = admit::gone(session, true) => Err(Stop::Gone(error)),
    };
    let answer = match answered {
        Err(Stop::Gone(error)) => {
            if is_own && journey.service.plan.jobs.on_disconnect == OnDisconnect::Cancel {
                edge.wire.abandon(job).await;
            }
            return Err(Stop::Gone(error));
        }
        answer => answer?,
    };
    deliver(session, ctx, answer).await
}

/// The headers of a request as its node will get them.
fn for_node(head: &RequestHeader, ctx: &Ctx) -> HeaderMap {
    let mut headers = head.headers.clone();
    for name in hop::for_us(&headers) {
        headers.remove(name);
    }
    headers.remove(header::UPGRADE);
    for name in ctx.journey.iter().flat_map(|journey| &journey.key_headers) {
        headers.remove(name);
    }
    // Over HTTP/2 the host is no header; the node is asked as the client asked.
    if !headers.contains_key(header::HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    if ctx.log.request_id {
        let name = HeaderName::from_static("x-request-id");
        headers.insert(name, ctx.id.clone());
    }
    headers
}

/// A target's path and query.
fn target(uri: &Uri) -> Result<Uri, Refusal> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse()
        .map_err(|_| Refusal::BadRequest("the path cannot be kept".into()))
}

fn held(ctx: &Ctx) -> HeldBody {
    match &ctx.body.file {
        Some(file) => HeldBody::Disk(file.clone()),
        None => HeldBody::Memory(ctx.body.bytes.clone()),
    }
}

/// Sends an answer of the wire's, at the pace of whoever reads it.
async fn deliver(session: &mut Session, ctx: &mut Ctx, answer: Answer) -> Result<(), Stop> {
    let Answer {
        status,
        headers,
        body,
    } = answer;
    let make = || -> Result<ResponseHeader> {
        let mut head = ResponseHeader::build(status, Some(headers.len() + 6))?;
        for (name, value) in &headers {
            head.append_header(name.clone(), value.clone())?;
        }
        Ok(head)
    };
    let head = make().map_err(Stop::Gone)?;
    let sent = match body {
        Payload::Bytes(bytes) => reply::send(session, ctx, head, bytes).await,
        Payload::Part {
            content,
            from,
            length,
        } => {
            let begun = begin(session, ctx, head, Some(length)).await;
            match begun {
                Ok(true) => give(session, ctx, &content, from, length).await,
                other => other.map(drop),
            }
        }
        Payload::Live(live) => match begin(session, ctx, head, None).await {
            Ok(true) => follow(session, ctx, live).await,
            other => other.map(drop),
        },
    };
    sent.map_err(Stop::Gone)
}

/// Sends the head of an answer; whether a body follows.
async fn begin(
    session: &mut Session,
    ctx: &mut Ctx,
    mut head: ResponseHeader,
    length: Option<u64>,
) -> Result<bool> {
    let version = session.req_header().version;
    ctx.sign(&mut head)?;
    match length {
        Some(length) => head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?,
        None if version == Version::HTTP_11 => {
            head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        // It ends with its connection, or its stream.
        None if version < Version::HTTP_11 => session.set_keepalive(None),
        None => {}
    }
    if !session.as_downstream_mut().is_body_done() {
        session.set_keepalive(None);
    }
    ctx.status = head.status.as_u16();
    let bare = session.req_header().method == Method::HEAD || length == Some(0);
    session.write_response_header(Box::new(head), bare).await?;
    Ok(!bare)
}

/// Sends a part of a kept body.
async fn give(
    session: &mut Session,
    ctx: &mut Ctx,
    content: &tabane_api::Content,
    from: u64,
    length: u64,
) -> Result<()> {
    let mut given = 0;
    while given < length {
        let most = usize::try_from(length - given).map_or(PIECE, |left| left.min(PIECE));
        let piece = content.read(from + given, most).await;
        let piece = match piece {
            Ok(piece) if !piece.is_empty() => piece,
            other => {
                let why = other.err().map(|error| error.to_string());
                tracing::error!(why, "a kept body cannot be read to its end");
                ctx.broken = true;
                return Err(Error::explain(
                    pingora::ErrorType::FileReadError,
                    "a kept body cannot be read to its end",
                ));
            }
        };
        given += piece.len() as u64;
        ctx.bytes_out += piece.len() as u64;
        let end = given == length;
        session.write_response_body(Some(piece), end).await?;
    }
    Ok(())
}

/// Sends what happens as it happens, until it ends or its reader leaves.
async fn follow(
    session: &mut Session,
    ctx: &mut Ctx,
    mut live: std::pin::Pin<Box<dyn futures::Stream<Item = io::Result<Bytes>> + Send>>,
) -> Result<()> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = live.next() => piece,
            error = admit::gone(session, true) => return Err(error),
        };
        match piece {
            Some(Ok(piece)) => {
                ctx.bytes_out += piece.len() as u64;
                session.write_response_body(Some(piece), false).await?;
            }
            Some(Err(error)) => {
                tracing::error!(%error, "what is sent as it is made breaks off");
                ctx.broken = true;
                return Err(Error::because(
                    pingora::ErrorType::FileReadError,
                    "what is sent as it is made breaks off",
                    error,
                ));
            }
            None => return session.write_response_body(None, true).await,
        }
    }
}
