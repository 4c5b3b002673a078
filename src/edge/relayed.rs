//! The answer to a request that is relayed, on its way to the client. The node's side and the client's are two: the slot is free at
//! the node's last byte, however slowly the client reads.

use super::admit::{self, Stop};
use super::attempt;
use super::context::Ctx;
use super::exchange::{self, Exchange};
use super::hop;
use super::proxy::Edge;
use super::speech::Speech;
use crate::dispatch::{Journey, Revocation};
use crate::fleet::End;
use bytes::Bytes;
use http::{Extensions, Method, Version, header};
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tabane_api::{Refusal, Seen, Usage};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// So many pieces may be on their way from a node to a client that reads slowly, each of 64 KiB at most.
const PIECES: usize = 32;

/// Gives a node's answer on. `first`: what was read of its body already.
pub(super) async fn give(
    edge: &Edge,
    session: &mut Session,
    ctx: &mut Ctx,
    mut exchange: Exchange,
    head: ResponseHeader,
    first: Bytes,
    speech: &mut Speech,
) -> Result<(), Stop> {
    let bare = begin(session, ctx, head, speech)
        .await
        .map_err(Stop::Gone)?;
    let Some(revocation) = ctx.lease.as_ref().map(|lease| lease.revocation()) else {
        return Err(Refusal::Internal("an answer without a lease".into()).into());
    };
    let Some(journey) = ctx.journey.take() else {
        return Err(Refusal::Internal("an answer without a journey".into()).into());
    };
    // Asked once: what is asked for each piece costs each piece. And before any of them is seen: within a line there is no word.
    speech.starts(journey.keep_alive(&ctx.notes).map(|word| word.every));
    let notes = Mutex::new(std::mem::take(&mut ctx.notes));
    let (give, take) = mpsc::channel(PIECES);
    let mut told = None;
    let mut sent = 0;
    let gone = {
        let mut node = std::pin::pin!(from_node(
            &mut exchange,
            &journey,
            &notes,
            revocation,
            first,
            give
        ));
        let mut client = std::pin::pin!(to_client(
            session, &journey, &notes, take, speech, bare, &mut sent
        ));
        loop {
            tokio::select! {
                biased;
                ended = &mut node, if told.is_none() => {
                    let well = ended.is_ok();
                    told = Some(ended);
                    if well {
                        finish(ctx, &journey, &mut notes.lock());
                    }
                }
                ended = &mut client => break ended.err(),
            }
        }
    };
    ctx.bytes_out += sent;
    ctx.notes = notes.into_inner();
    let ended = match (gone, told) {
        (Some(error), told) => {
            if !matches!(told, Some(Ok(()))) {
                broken(ctx, &journey, End::Aborted { began: true });
            }
            exchange.cut().await;
            Err(Stop::Gone(error))
        }
        (None, Some(Ok(()))) => {
            exchange.keep(edge).await;
            Ok(None)
        }
        (None, Some(Err(error))) => Ok(Some(error)),
        (None, None) => Ok(Some(Error::explain(
            ErrorType::InternalError,
            "an answer without an end",
        ))),
    };
    ctx.journey = Some(journey);
    let Some(error) = ended? else {
        return session
            .write_response_body(None, true)
            .await
            .map_err(Stop::Gone);
    };
    let name = ctx.upstream.as_ref().map_or("-", |at| &at.name);
    let why = Refusal::NodeFailed(format!(
        "node endpoint `{name}` broke off while it answered: {}",
        attempt::brief(&error)
    ));
    ctx.broken = true;
    if let Some(journey) = ctx.journey.take() {
        broken(ctx, &journey, End::Failed(attempt::failure_of(&error)));
        ctx.journey = Some(journey);
    }
    speech.breaks(session, ctx, &why).await
}

/// Sends the head of a node's answer, unless words of ours went before. Whether no body follows.
async fn begin(
    session: &mut Session,
    ctx: &mut Ctx,
    mut head: ResponseHeader,
    speech: &Speech,
) -> Result<bool> {
    if speech.has_begun() {
        return Ok(false);
    }
    let version = session.req_header().version;
    hop::answer(&mut head, version)?;
    ctx.sign(&mut head)?;
    let bare = session.req_header().method == Method::HEAD
        || head.status == http::StatusCode::NO_CONTENT
        || head.status == http::StatusCode::NOT_MODIFIED;
    let has_length = head.headers.contains_key(header::CONTENT_LENGTH);
    head.remove_header(&header::TRANSFER_ENCODING);
    if !has_length && !bare {
        match version {
            Version::HTTP_11 => head.insert_header(header::TRANSFER_ENCODING, "chunked")?,
            // It ends with its connection, or its stream.
            Version::HTTP_10 | Version::HTTP_09 => session.set_keepalive(None),
            _ => {}
        }
    }
    session.write_response_header(Box::new(head), bare).await?;
    Ok(bare)
}

/// Takes the answer's body off the node.
async fn from_node(
    exchange: &mut Exchange,
    journey: &Journey,
    notes: &Mutex<Extensions>,
    mut revocation: Revocation,
    first: Bytes,
    give: mpsc::Sender<Bytes>,
) -> Result<()> {
    let mut next = Some(first).filter(|first| !first.is_empty());
    loop {
        let piece = match next.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                biased;
                piece = exchange.next() => piece?,
                () = revocation.wait() => return Err(exchange::revoked()),
            },
        };
        let Some(piece) = piece else { return Ok(()) };
        if piece.is_empty() {
            continue;
        }
        journey.observe(Seen::Bytes(&piece), &mut notes.lock());
        if give.send(piece).await.is_err() {
            // Whoever took them says why.
            return std::future::pending().await;
        }
    }
}

/// Gives it to the client, and says something where the node is silent for long.
///
/// Errors: the client left.
async fn to_client(
    session: &mut Session,
    journey: &Journey,
    notes: &Mutex<Extensions>,
    mut take: mpsc::Receiver<Bytes>,
    speech: &mut Speech,
    bare: bool,
    sent: &mut u64,
) -> Result<()> {
    loop {
        let silent_until = speech.silent_until();
        let piece = tokio::select! {
            biased;
            piece = take.recv() => piece,
            error = admit::gone(session, true) => return Err(error),
            () = past(silent_until) => {
                let word = journey.keep_alive(&notes.lock());
                match word {
                    Some(word) => speech.speak(session, word).await?,
                    None => speech.heard(),
                }
                continue;
            }
        };
        let Some(piece) = piece else { return Ok(()) };
        speech.heard();
        *sent += piece.len() as u64;
        if !bare {
            session.write_response_body(Some(piece), false).await?;
        }
    }
}

/// Resolves then; never where nothing is to be said.
async fn past(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The node's answer is over, and it was whole.
fn finish(ctx: &mut Ctx, journey: &Journey, notes: &mut Extensions) {
    journey.observe(Seen::End, notes);
    attempt::settle(ctx, notes);
}

/// The node's answer broke off.
fn broken(ctx: &mut Ctx, journey: &Journey, end: End) {
    journey.observe(Seen::Broken, &mut ctx.notes);
    if let Some(lease) = ctx.lease.take() {
        if let Some(usage) = ctx.notes.remove::<Usage>() {
            lease.used(&usage);
        }
        lease.end(end);
    }
}
