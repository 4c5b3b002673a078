//! A client's WebSocket that its kind speaks on: from its handshake to its last word.

use super::admit::Stop;
use super::context::{Ctx, Elapsed};
use super::handshake;
use super::jobs;
use super::lent::Lent;
use super::proxy::Edge;
use super::seat::Parting;
use super::talk::{Rules, Talk};
use crate::config::plan::ServicePlan;
use http::{HeaderValue, Request, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use std::pin::pin;
use std::time::Duration;
use tabane_api::Refusal;
use tokio::time::timeout;

/// The longest message of a client, bytes.
const LONGEST: usize = 16 << 20;

/// Longer spans come to the same.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a kind may take to notice that its socket is over.
const LEAVE: Duration = Duration::from_secs(5);

/// Has the kind speak on a socket whose handshake is whole, until one of both ends it.
pub(super) async fn run(edge: &Edge, session: &mut Session, ctx: &mut Ctx) -> Result<(), Stop> {
    let mut request = Request::new(());
    let head = session.req_header();
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = jobs::for_node(head, ctx);
    shake_hands(session, ctx).await.map_err(Stop::Gone)?;
    let Some(client) = Lent::below(session).and_then(Lent::take_open) else {
        let why = "the client's connection is not there";
        return Err(Stop::Gone(Error::explain(ErrorType::ConnectionClosed, why)));
    };
    let journey = ctx.journey.as_ref().ok_or(Refusal::ShuttingDown)?;
    let plan = &journey.service.plan;
    let (talk, seat) = Talk::with_client(client, rules(plan));
    let table = talk.table();
    let carried = {
        let _open = journey.service.metrics.socket();
        let mut kind = pin!(journey.socket(&edge.dispatch, request, Box::new(seat)));
        let mut talk = pin!(talk.run(edge.dispatch.silenced(&plan.name)));
        tokio::select! {
            biased;
            () = &mut kind => {
                // It may have left its seat somewhere.
                table.part(Parting::of(1000, ""));
                talk.await
            }
            carried = &mut talk => {
                // One that does not notice is dropped.
                let _ = timeout(LEAVE, kind).await;
                carried
            }
        }
    };
    ctx.bytes_in = carried.received;
    ctx.bytes_out = carried.sent;
    Ok(())
}

fn rules(plan: &ServicePlan) -> Rules {
    let ping = plan.socket_ping.map(|ping| ping.min(A_YEAR));
    Rules {
        ping,
        // An answer to one of three pings will do.
        silence: ping.map_or(plan.socket_idle.min(A_YEAR), |ping| 3 * ping),
        longest: LONGEST,
    }
}

/// Answers the handshake (RFC 6455, 4.2.2): without extensions, and without a protocol of its own.
async fn shake_hands(session: &mut Session, ctx: &mut Ctx) -> Result<()> {
    let mut head = answer(session.req_header())?;
    ctx.sign(&mut head)?;
    ctx.status = head.status.as_u16();
    ctx.first_byte = Some(ctx.started.elapsed_now());
    // What a socket carried is over with its connection.
    session.set_keepalive(None);
    session.write_response_header(Box::new(head), false).await
}

fn answer(asked: &RequestHeader) -> Result<ResponseHeader> {
    let key = asked.headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key
        .map(|key| key.as_bytes().trim_ascii())
        .unwrap_or_default();
    let mut head = ResponseHeader::build(StatusCode::SWITCHING_PROTOCOLS, Some(8))?;
    head.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"))?;
    head.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))?;
    head.insert_header(header::SEC_WEBSOCKET_ACCEPT, handshake::accept(key))?;
    Ok(head)
}
