//! The bytes below a WebSocket that ends in the gateway.
//!
//! A message goes out from where it lies, and as one frame: not every client in use puts one together from pieces.

use super::frames;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A stream that carries frames.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    /// This end is the client's, whose frames are masked.
    masks: bool,
    /// The heads of frames, and what is short.
    front: BytesMut,
    /// What comes behind it.
    payload: Bytes,
    /// Something was written that the stream may still hold.
    dirty: bool,
    /// The stream took nothing more.
    full: bool,
    /// When the other end last gave a sign of life: something came, or something went again that had been held up.
    pub(super) alive: Instant,
    /// Bytes that came.
    pub(super) received: u64,
    /// Bytes that went.
    pub(super) sent: u64,
}

// === impl Line ===

impl<S> Line<S> {
    pub(super) fn new(stream: S, masks: bool) -> Self {
        Line {
            stream,
            masks,
            front: BytesMut::new(),
            payload: Bytes::new(),
            dirty: false,
            full: false,
            alive: Instant::now(),
            received: 0,
            sent: 0,
        }
    }

    /// Puts a frame on its way; [`Line::poll_out`] sends it. The one before it must be out.
    pub(super) fn say(&mut self, opcode: u8, payload: Bytes) {
        debug_assert!(self.payload.is_empty(), "one frame at a time");
        let mask = self.masks.then(rand::random::<[u8; 4]>);
        frames::put_head(&mut self.front, opcode, payload.len(), mask);
        self.payload = match mask {
            Some(mask) => {
                let mut masked = BytesMut::from(payload);
                frames::mask(&mut masked, mask, 0);
                masked.freeze()
            }
            None => payload,
        };
        self.dirty = true;
    }
}

impl<S: AsyncWrite + Unpin> Line<S> {
    /// Sends all that was said.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.front.is_empty() && self.payload.is_empty()) {
            let stream = Pin::new(&mut self.stream);
            let sent = match (self.front.is_empty(), self.payload.is_empty()) {
                (true, _) => stream.poll_write(cx, &self.payload),
                (_, true) => stream.poll_write(cx, &self.front),
                _ => {
                    let both = [&self.front[..], &self.payload[..]].map(io::IoSlice::new);
                    stream.poll_write_vectored(cx, &both)
                }
            };
            let Poll::Ready(sent) = sent? else {
                self.full = true;
                return Poll::Pending;
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // What the system takes at once may lie there unread.
            if std::mem::take(&mut self.full) {
                self.alive = Instant::now();
            }
            self.sent += sent as u64;
            let of_front = sent.min(self.front.len());
            self.front.advance(of_front);
            self.payload.advance(sent - of_front);
        }
        if self.dirty {
            // An empty rest would keep all of it.
            self.front = BytesMut::new();
            self.payload = Bytes::new();
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more is sent.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Reads what came: how much, 0 at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            self.alive = Instant::now();
            self.received += read as u64;
        }
        Poll::Ready(Ok(read))
    }
}
