//! Requests that become jobs, and calls about jobs: from Pingora's session to the wire and back.

use super::admit::{self, Extent, Stop, client};
use super::answer::deliver;
use super::context::Ctx;
use super::hop;
use super::proxy::Edge;
use crate::config::plan::OnDisconnect;
use crate::wire::{self, Call, HeldBody, PREFIX, Submission, Who};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use tabane_api::Refusal;

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
pub(super) fn for_node(head: &RequestHeader, ctx: &Ctx) -> HeaderMap {
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
pub(super) fn target(uri: &Uri) -> Result<Uri, Refusal> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse()
        .map_err(|_| Refusal::BadRequest("the path cannot be kept".into()))
}

pub(super) fn held(ctx: &Ctx) -> HeldBody {
    match &ctx.body.file {
        Some(file) => HeldBody::Disk(file.clone()),
        None => HeldBody::Memory(ctx.body.bytes.clone()),
    }
}
