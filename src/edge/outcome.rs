//! How a request ended: the last answer, the access line, the counts.

use super::admit::{self, client};
use super::attempt;
use super::context::{Ctx, Elapsed};
use super::held;
use super::reply;
use crate::telemetry::{AccessLine, Outcome};
use crate::wire;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};
use tabane_api::Refusal;

/// The last attempt failed: answers in the kind's shape, if an answer is still possible.
pub(super) async fn fail(session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
    held::unwrap(session, &ctx.slot);
    let dead = matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    );
    let left = *error.esource() == ErrorSource::Downstream && dead && ctx.refusal.is_none();
    let client_gone = ctx.client_gone || left;
    ctx.client_gone = client_gone;
    if client_gone || reply::answered(session).is_some() {
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    let why = ctx.refusal.take().unwrap_or_else(|| refusal(error, ctx));
    // Pingora closes the connection after a failed exchange, so the answer says so.
    session.set_keepalive(None);
    if admit::refuse(session, ctx, &why).await.is_err() {
        ctx.client_gone = true;
    }
    FailToProxy {
        error_code: wire::status(&why).as_u16(),
        can_reuse_downstream: false,
    }
}

/// What an attempt that failed is told as, where there is no other.
pub(super) fn refusal(error: &Error, ctx: &mut Ctx) -> Refusal {
    match (error.esource(), ctx.failure.take()) {
        (_, Some(failure)) if ctx.timed_out => Refusal::NodeTimeout(failure),
        (_, Some(failure)) => Refusal::NodeFailed(failure),
        (ErrorSource::Downstream, None) => {
            Refusal::BadRequest("the request is not framed as HTTP wants it".into())
        }
        (_, None) => Refusal::Internal("the gateway could not forward this request".into()),
    }
}

/// The request is over: gives back what it still holds, counts it, and writes its line.
pub(super) fn close(session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
    if error.is_none() && !ctx.client_gone {
        attempt::finish(ctx);
    }
    ctx.lease = None;
    if ctx.status == 0 || ctx.refused.is_some() {
        ctx.status = reply::answered(session).map_or(0, |head| head.status.as_u16());
    }
    if ctx.bytes_out == 0 {
        ctx.bytes_out = session.body_bytes_sent() as u64;
    }
    let outcome = outcome(ctx);
    let total = ctx.started.elapsed_now();
    if let Some(journey) = &ctx.journey {
        journey
            .service
            .metrics
            .request(outcome, total, ctx.bytes_in, ctx.bytes_out);
    }
    if ctx.log.access {
        line(session, ctx, outcome, total).emit();
    }
}

fn outcome(ctx: &Ctx) -> Outcome {
    match ctx.status {
        _ if ctx.client_gone => Outcome::ClientGone,
        _ if ctx.broken => Outcome::Broken,
        _ if ctx.refused.is_some() => Outcome::Refused(ctx.refused.unwrap_or_default()),
        500.. => Outcome::NodeError,
        400..500 => Outcome::ClientError,
        _ => Outcome::Ok,
    }
}

fn line<'a>(
    session: &'a Session,
    ctx: &'a Ctx,
    outcome: Outcome,
    total: std::time::Duration,
) -> AccessLine<'a> {
    let head = session.req_header();
    AccessLine {
        request_id: ctx.id(),
        tenant: ctx
            .journey
            .as_ref()
            .map(|journey| &*journey.caller.tenant)
            .or(ctx.tenant.as_deref())
            .unwrap_or("-"),
        client: client(session),
        service: ctx
            .journey
            .as_ref()
            .map_or("-", |journey| &journey.service.plan.name),
        work: ctx.journey.as_ref().and_then(|journey| {
            let need = journey.need();
            (need.slots > 0).then_some((&*need.class, need.size))
        }),
        method: head.method.as_str(),
        host: admit::host(head),
        path: head.uri.path(),
        status: ctx.status,
        node: ctx.upstream.as_ref().map_or("-", |upstream| &upstream.name),
        wait: ctx.wait,
        first_byte: ctx.first_byte,
        total,
        bytes_in: ctx.bytes_in,
        bytes_out: ctx.bytes_out,
        attempts: ctx.attempts,
        job: ctx.job.as_deref(),
        outcome,
        protocol: head.version,
    }
}
