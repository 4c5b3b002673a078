//! Request bodies, held until a node is chosen: in memory, or on disk when they are long.
//!
//! Pingora's own retry buffer is 64 KiB, and a longer body that was read beforehand is never sent at all
//! (cloudflare/pingora#780). So the body is read here, and `held.rs` gives it again.

use super::pace::Pace;
use crate::store::{Spool, SpoolError, Spooled};
use bytes::{Bytes, BytesMut};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tabane_api::Refusal;

/// The beginning of a request's body, or all of it.
#[derive(Default)]
pub(super) struct Body {
    /// What was read so far; nothing when it is on disk.
    pub(super) bytes: Bytes,
    /// All of it, when it was too long for memory.
    pub(super) file: Option<Arc<Spooled>>,
    /// Whether all of it was read.
    pub(super) whole: bool,
    held: Option<HeldBytes>,
}

/// Where a body may go while it is read.
pub(super) struct Room<'a> {
    /// How much of it may be in memory.
    pub(super) memory: u64,
    /// Where the rest goes; without it, the rest is left with the client.
    pub(super) spool: Option<&'a Arc<Spool>>,
    /// The largest body at all.
    pub(super) max: Option<u64>,
    /// What all bodies together have taken of the memory.
    pub(super) budget: &'a Arc<Budget>,
    /// What they may take of it.
    pub(super) held_bytes: u64,
    /// What they may take of the disk.
    pub(super) spool_bytes: u64,
}

/// Why a body was not read.
pub(super) enum HoldError {
    /// The gateway has no place for it, or it is larger than it may be, or it is no body.
    Refused(Refusal),
    /// The client left.
    Gone(Box<Error>),
}

/// How many bytes all requests together hold.
#[derive(Default)]
pub(super) struct Budget {
    held: AtomicU64,
}

/// Bytes of the budget, given back when dropped.
struct HeldBytes {
    budget: Arc<Budget>,
    bytes: u64,
}

/// Reads a body as far as there is room for it. What lies past that is left with the client, to be streamed.
pub(super) async fn read(
    session: &mut Session,
    pace: &mut Pace,
    room: Room<'_>,
) -> Result<Body, HoldError> {
    let mut body = Body::default();
    if session.as_downstream_mut().is_body_done() {
        body.whole = true;
        return Ok(body);
    }
    let mut more = BytesMut::new();
    let mut spooled: Option<Spooled> = None;
    let mut length = 0;
    body.whole = loop {
        let Some(chunk) = pace.keep(session.read_request_body()).await? else {
            break true;
        };
        length += chunk.len() as u64;
        if let Some(max) = room.max.filter(|max| length > *max) {
            return Err(Refusal::BodyTooLarge { max }.into());
        }
        if let Some(spooled) = &mut spooled {
            spooled.append(&chunk, room.spool_bytes).await?;
            continue;
        }
        body.hold(chunk, &mut more, room.budget, room.held_bytes)?;
        if length > room.memory {
            let Some(spool) = room.spool else {
                break false;
            };
            let mut begun = spool.begin().await?;
            begun.append(&body.bytes, room.spool_bytes).await?;
            begun.append(&more, room.spool_bytes).await?;
            (body.bytes, more) = (Bytes::new(), BytesMut::new());
            // From here on only what waits to be written is in memory.
            body.held = None;
            body.charge(room.budget, Spool::IN_MEMORY as u64, room.held_bytes)?;
            spooled = Some(begun);
        }
    };
    if let Some(spooled) = spooled {
        body.file = Some(spooled.finish().await?);
        body.held = None;
    } else if !more.is_empty() {
        body.bytes = more.freeze();
    }
    Ok(body)
}

/// What is wrong with a request whose body could not be read; `None`: its client left.
pub(super) fn fault(error: &Error) -> Option<Refusal> {
    let misframed = match error.root_cause().downcast_ref::<io::Error>() {
        Some(error) => error.kind() == io::ErrorKind::InvalidData,
        // A chunk of more bytes than can be counted is left to Pingora.
        None => {
            *error.etype() == ErrorType::InvalidHTTPHeader
                || error.etype().as_str() == "InvalidChunk"
        }
    };
    if misframed {
        let why = "the body is not framed as HTTP wants it";
        return Some(Refusal::BadRequest(why.into()));
    }
    (*error.etype() == ErrorType::ReadTimedout).then_some(Refusal::TooSlow)
}

// === impl Body ===

impl Body {
    /// How long it is as far as it was read.
    pub(super) fn length(&self) -> u64 {
        self.file
            .as_ref()
            .map_or(self.bytes.len() as u64, |file| file.length())
    }

    /// Takes one more piece into memory: the first as it is (most bodies come in one), the others into `more`.
    fn hold(
        &mut self,
        chunk: Bytes,
        more: &mut BytesMut,
        budget: &Arc<Budget>,
        bound: u64,
    ) -> Result<(), HoldError> {
        self.charge(budget, chunk.len() as u64, bound)?;
        if self.bytes.is_empty() && more.is_empty() {
            self.bytes = chunk;
        } else {
            more.extend_from_slice(&std::mem::take(&mut self.bytes));
            more.extend_from_slice(&chunk);
        }
        Ok(())
    }

    /// Takes so many bytes of what all bodies together may have in memory.
    fn charge(&mut self, budget: &Arc<Budget>, bytes: u64, bound: u64) -> Result<(), HoldError> {
        let held = self.held.get_or_insert_with(|| HeldBytes {
            budget: budget.clone(),
            bytes: 0,
        });
        if held.grow(bytes, bound) {
            return Ok(());
        }
        let why = "the gateway holds as many request bodies as it may; try again soon";
        Err(Refusal::Overloaded(why.into()).into())
    }
}

// === impl Budget ===

impl Budget {
    /// How many bytes are held.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl HeldBytes {
    fn grow(&mut self, by: u64, bound: u64) -> bool {
        let before = self.budget.held.fetch_add(by, Ordering::Relaxed);
        self.bytes += by;
        before + by <= bound
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// === impl HoldError ===

impl From<Refusal> for HoldError {
    fn from(why: Refusal) -> Self {
        HoldError::Refused(why)
    }
}

impl From<Box<Error>> for HoldError {
    fn from(error: Box<Error>) -> Self {
        match fault(&error) {
            Some(why) => HoldError::Refused(why),
            None => HoldError::Gone(error),
        }
    }
}

impl From<SpoolError> for HoldError {
    fn from(error: SpoolError) -> Self {
        tracing::error!(%error, "cannot hold a request's body");
        let why = "the gateway has no place for this body; try again soon";
        Refusal::Overloaded(why.into()).into()
    }
}
