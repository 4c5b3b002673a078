//! Answers that the gateway has whole, keeps on disk, or makes as they are read.

use super::admit::{self, Stop};
use super::context::Ctx;
use super::reply;
use crate::wire::{Answer, Payload};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Method, Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, Result};
use std::io;

/// How much of a kept body is given on at once.
const PIECE: usize = 256 << 10;

/// Sends an answer of the gateway's own, at the pace of whoever reads it.
pub(super) async fn deliver(
    session: &mut Session,
    ctx: &mut Ctx,
    answer: Answer,
) -> Result<(), Stop> {
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
