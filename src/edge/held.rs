//! A client's session whose body was read beforehand: gives it on as if it came just now, once for each attempt.
//!
//! The wrapper does one thing more: Pingora polls it while it waits for the node, and so it is where a lease
//! that is revoked ends the wait. The trait is hidden from Pingora's documentation: this file is all that
//! leans on it.

use super::hold::Body;
use super::pace::Pace;
use crate::dispatch::{Dispatch, Revocation};
use crate::store::Spooled;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Version, header};
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::{CustomMessageWrite, server::Session as CustomSession};
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, OrErr, Result};
use std::sync::Arc;
use std::time::Duration;

/// The error of a wait that ended because its lease was revoked.
pub(super) const REVOKED: ErrorType = ErrorType::Custom("LeaseRevoked");

/// The error of a body that was held and cannot be read back.
pub(super) const LOST: ErrorType = ErrorType::Custom("HeldBodyLost");

/// How much of a body on disk is given at once.
const PIECE: usize = 64 << 10;

/// Where a client's own session waits for the wrapper's end.
pub(super) type Slot = Arc<Mutex<Option<Box<ServerSession>>>>;

/// A client's session whose body was read beforehand.
struct Held {
    /// `None` only while it is being dropped.
    inner: Option<Box<ServerSession>>,
    slot: Slot,
    body: Bytes,
    file: Option<Arc<Spooled>>,
    whole: bool,
    /// How much was given on of a body that is on disk, or of which only the beginning is here.
    given: u64,
    /// For what is still with the client.
    pace: Pace,
    revocation: Option<Revocation>,
    dispatch: Dispatch,
}

// === wrapping ===

/// Puts the wrapper in the session's place; [`unwrap`] undoes it.
pub(super) fn wrap(
    session: &mut Session,
    body: &Body,
    pace: Pace,
    revocation: Option<Revocation>,
    dispatch: &Dispatch,
    slot: &Slot,
) {
    let inner = take(&mut session.downstream_session);
    let held = Held {
        inner: Some(inner),
        slot: slot.clone(),
        body: body.bytes.clone(),
        file: body.file.clone(),
        whole: body.whole,
        given: 0,
        pace,
        revocation,
        dispatch: dispatch.clone(),
    };
    *session.downstream_session = ServerSession::new_custom(Box::new(held));
}

/// Puts the client's own session back, so that its connection can be kept alive.
pub(super) fn unwrap(session: &mut Session, slot: &Slot) {
    if session.downstream_session.is_custom() {
        drop(take(&mut session.downstream_session));
        if let Some(inner) = slot.lock().take() {
            session.downstream_session = inner;
        }
    }
}

fn take(place: &mut Box<ServerSession>) -> Box<ServerSession> {
    std::mem::replace(place, Box::new(ServerSession::new_custom(Box::new(()))))
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        *self.slot.lock() = self.inner.take();
    }
}

impl Held {
    #[allow(clippy::expect_used)]
    fn inner(&self) -> &ServerSession {
        self.inner
            .as_deref()
            .expect("the session is taken only by Drop")
    }

    #[allow(clippy::expect_used)]
    fn inner_mut(&mut self) -> &mut ServerSession {
        self.inner
            .as_deref_mut()
            .expect("the session is taken only by Drop")
    }

    /// Whether all of the body was given on, or is given whole ([`CustomSession::get_retry_buffer`]).
    fn is_given(&self) -> bool {
        match &self.file {
            Some(file) => self.given >= file.length(),
            None => self.whole,
        }
    }

    /// Whether the connection may be kept is only known when the answer begins, and Pingora does not ask a wrapper.
    fn last_of_its_connection(&mut self, head: &ResponseHeader) {
        let open_ended = !head.headers.contains_key(header::CONTENT_LENGTH)
            && !head.headers.contains_key(header::TRANSFER_ENCODING)
            && self.inner().req_header().version < Version::HTTP_11;
        if open_ended || self.dispatch.is_closing() {
            self.inner_mut().set_keepalive(None);
        }
    }

    async fn next(&mut self, idle: bool) -> Result<Option<Bytes>> {
        if let Some(file) = self.file.as_ref().filter(|_| !self.is_given()) {
            let read = file.read(self.given, PIECE).await;
            let piece = read.or_err(LOST, "reading a body that was held")?;
            self.given += piece.len() as u64;
            return Ok(Some(piece));
        }
        if self.is_given() {
            return self.inner_mut().read_body_or_idle(true).await;
        }
        if self.given < self.body.len() as u64 {
            self.given = self.body.len() as u64;
            return Ok(Some(self.body.clone()));
        }
        if idle {
            return self.inner_mut().read_body_or_idle(true).await;
        }
        let Held { inner, pace, .. } = self;
        let Some(inner) = inner else { return Ok(None) };
        pace.keep(inner.read_body_or_idle(false)).await
    }
}

#[async_trait]
impl CustomSession for Held {
    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let Some(mut revocation) = self.revocation.take() else {
            return self.next(no_body_expected).await;
        };
        let next = tokio::select! {
            biased;
            next = self.next(no_body_expected) => Some(next),
            () = revocation.wait() => None,
        };
        self.revocation = Some(revocation);
        next.unwrap_or_else(|| Error::e_explain(REVOKED, "the node is frozen or has left"))
    }

    fn is_body_done(&mut self) -> bool {
        self.is_given()
            || (!self.whole
                && self.given >= self.body.len() as u64
                && self.inner_mut().is_body_done())
    }

    fn is_body_empty(&mut self) -> bool {
        self.whole && self.body.is_empty() && self.file.is_none()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        (self.whole && !self.body.is_empty()).then(|| self.body.clone())
    }

    fn retry_buffer_truncated(&self) -> bool {
        !self.whole
    }

    fn enable_retry_buffering(&mut self) {}

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        if self.is_given() {
            Ok(None)
        } else {
            self.next(false).await
        }
    }

    // --- everything else goes to the client's own session -------------------------------------------

    fn req_header(&self) -> &RequestHeader {
        self.inner().req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner_mut().req_header_mut()
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner_mut().drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.last_of_its_connection(&head);
        self.inner_mut().write_response_header(head).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, _end: bool) -> Result<()> {
        self.last_of_its_connection(head);
        self.inner_mut().write_response_header_ref(head).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner_mut().write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner_mut().write_response_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        if let Some(HttpTask::Header(head, _)) = tasks.first() {
            self.last_of_its_connection(head);
        }
        self.inner_mut().response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.inner().get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner().get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner().get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner().request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner().response_written()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.inner_mut().shutdown().await;
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner_mut().finish_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner().body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner().body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner().digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner_mut().digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner().client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner().server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner().to_h1_raw()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>>
    {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _writer: Box<dyn CustomMessageWrite>,
    ) -> Result<()> {
        Ok(())
    }
}
