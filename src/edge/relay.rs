//! Requests that are relayed: sent by a client of our own, so that their bodies can be changed, something can be said while nodes
//! are silent, and the next choice be tried until a node's answer has begun.

use super::admit::{self, Stop};
use super::attempt;
use super::context::{Ctx, Elapsed};
use super::exchange::{self, Exchange};
use super::outcome;
use super::proxy::Edge;
use super::relayed;
use super::speech::Speech;
use crate::fleet::{End, Failure};
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tabane_api::{Choice, Edit, Refusal, Seen};

/// So much of an error of a node's is read to see whether another choice may do better, bytes.
const LOOKED_AT: usize = 64 << 10;

/// What came of a choice.
enum Tried {
    /// It was served, well or not: nothing is left to say.
    Served,
    /// It was not.
    Not(Refusal),
}

/// Relays a request whose body is in memory.
pub(super) async fn run(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
    journey.admit()?;
    let mut speech = Speech::new(session, ctx);
    let mut last = Refusal::Internal("there is no way to serve it".into());
    while let Some(choice) = ctx.journey.as_mut().and_then(|j| j.next_choice()) {
        match tried(edge, session, ctx, &choice, &mut speech).await? {
            Tried::Served => return Ok(()),
            Tried::Not(why) => last = why,
        }
    }
    if !speech.has_begun() {
        return Err(last.into());
    }
    ctx.broken = true;
    speech.breaks(session, ctx, &last).await
}

/// Tries a choice, on as many nodes as it takes and may take.
async fn tried(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
    choice: &Choice,
    speech: &mut Speech,
) -> Result<Tried, Stop> {
    let body = Edit::apply(&ctx.body.bytes, &choice.edits);
    loop {
        match leased(edge, session, ctx, speech).await {
            Ok(()) => {}
            Err(Stop::Refused(why)) => return Ok(Tried::Not(why)),
            Err(gone) => return Err(gone),
        }
        let error = match asked(edge, session, ctx, choice, &body, speech).await? {
            Ok((exchange, head)) => match judged(session, ctx, &head) {
                Some(error) => attempt::fell(ctx, false, true, error),
                None => return served(edge, session, ctx, exchange, head, speech).await,
            },
            Err(error) => error,
        };
        if !error.retry() {
            return Ok(Tried::Not(outcome::refusal(&error, ctx)));
        }
    }
}

/// Gets a lease, and says something meanwhile.
async fn leased(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
    speech: &mut Speech,
) -> Result<(), Stop> {
    let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
    let began = tokio::time::Instant::now();
    let waits = edge.dispatch.lease(journey);
    let granted = speech.meanwhile(session, journey, &ctx.notes, waits).await;
    ctx.wait += began.elapsed();
    let lease = granted??;
    journey.service.metrics.wait(began.elapsed());
    ctx.upstream = Some(lease.upstream().clone());
    ctx.lease = Some(lease);
    Ok(())
}

/// Hands the request over to the leased node, up to the head of its answer.
///
/// Errors: the inner one is the node's, and says whether another may be tried.
async fn asked(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
    choice: &Choice,
    body: &Bytes,
    speech: &mut Speech,
) -> Result<Result<(Exchange, ResponseHeader)>, Stop> {
    ctx.attempts += 1;
    let now = tokio::time::Instant::now().into_std();
    ctx.first_attempt.get_or_insert(now);
    ctx.attempt_started = Some(now);
    let mut head = session.req_header().clone();
    exchange::request_head(&mut head, ctx, choice, body).map_err(Stop::Gone)?;
    let repeats = attempt::may_repeat(session.req_header(), ctx);
    let (Some(lease), Some(journey)) = (&ctx.lease, &ctx.journey) else {
        return Err(Refusal::Internal("an attempt without a lease".into()).into());
    };
    let upstream = lease.upstream().clone();
    let mut revocation = lease.revocation();
    let plan = &journey.service.plan;
    let exchanged = async {
        tokio::select! {
            biased;
            exchanged = exchange::open(edge, &upstream, plan, head, body, repeats) => exchanged,
            () = revocation.wait() => Err(exchange::revoked()),
        }
    };
    let exchanged = speech
        .meanwhile(session, journey, &ctx.notes, exchanged)
        .await?;
    Ok(
        exchanged.map_err(|error| match exchange::is_connect(&error) {
            true => attempt::no_connection(ctx, error),
            false => attempt::fell(ctx, false, repeats, error),
        }),
    )
}

/// Looks at the head of a node's answer. An error: reason enough to try another node.
fn judged(session: &Session, ctx: &mut Ctx, head: &ResponseHeader) -> Option<Box<Error>> {
    let journey = ctx.journey.as_ref()?;
    let retry = &journey.service.plan.retry;
    ctx.busy = retry.busy.contains(&head.status);
    ctx.bad_status = !ctx.busy && retry.statuses.contains(&head.status);
    if !(ctx.busy || ctx.bad_status) {
        return None;
    }
    let not_taken = ctx.busy || head.status == http::StatusCode::SERVICE_UNAVAILABLE;
    let repeats = not_taken || attempt::may_repeat(session.req_header(), ctx);
    if !(repeats && attempt::has_another(ctx) && (ctx.busy || attempt::afford(ctx))) {
        return None;
    }
    let status = ErrorType::HTTPStatus(head.status.as_u16());
    let mut error = Error::explain(status, "the node's answer");
    error.as_up();
    Some(error)
}

/// A node answers: gives that on, or says that another choice is to be tried.
async fn served(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
    mut exchange: Exchange,
    head: ResponseHeader,
    speech: &mut Speech,
) -> Result<Tried, Stop> {
    let may_fall_back = ctx.journey.as_ref().is_some_and(|j| j.has_choice());
    let mut read = Vec::new();
    // Where something was said already, the node's own head comes too late: its error is told in other words.
    if head.status.as_u16() >= 400 && (may_fall_back || speech.has_begun()) {
        let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
        let reads = exchange::read_some(&mut exchange, LOOKED_AT, &mut read);
        let whole = speech
            .meanwhile(session, journey, &ctx.notes, reads)
            .await?;
        let is_failure = ctx.busy || ctx.bad_status;
        let falls_back = is_failure || (whole && journey.falls_back(head.status, &read));
        if (may_fall_back && falls_back) || speech.has_begun() {
            if let Some(lease) = ctx.lease.take() {
                lease.end(match ctx.bad_status {
                    true => End::Failed(Failure::Status),
                    false => End::Done,
                });
            }
            let text = String::from_utf8_lossy(&read);
            let name = ctx.upstream.as_ref().map_or("-", |at| &at.name);
            let why = format!("node endpoint `{name}` answered {}: {text}", head.status);
            return Ok(Tried::Not(Refusal::NodeFailed(why)));
        }
    }
    if speech.has_begun() && !speech.goes_on_with(&head) {
        if let Some(lease) = ctx.lease.take() {
            lease.end(End::Aborted { began: true });
        }
        exchange.cut().await;
        let name = ctx.upstream.as_ref().map_or("-", |at| &at.name);
        let why = format!("node endpoint `{name}` answered in another form than was announced");
        return Ok(Tried::Not(Refusal::NodeFailed(why)));
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
    relayed::give(edge, session, ctx, exchange, head, read.into(), speech).await?;
    Ok(Tried::Served)
}
