//! A client's connection while Pingora has it. What only passes through Pingora on its way to a socket can be taken out of
//! its hands again.

use super::client::Client;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A client's connection, for as long as nobody took it back. Then it is at its end.
#[derive(Debug)]
pub(super) struct Lent {
    /// Pingora shows what it holds, and does not give it: hence the lock, which nobody waits for.
    client: Mutex<Option<Client>>,
    digest: Arc<SocketDigest>,
    id: UniqueIDType,
}

// === impl Lent ===

impl Lent {
    pub(super) fn new(client: Client) -> Self {
        Lent {
            digest: client.digest().clone(),
            id: client.as_raw_fd(),
            client: Mutex::new(Some(client)),
        }
    }

    /// What is lent below a session of HTTP/1.
    pub(super) fn below(session: &Session) -> Option<&Lent> {
        session.downstream_session.stream()?.as_any().downcast_ref()
    }

    /// The client; `None` once it was taken back.
    pub(super) fn client(&mut self) -> Option<&mut Client> {
        self.client.get_mut().as_mut()
    }

    /// From here on everything goes through.
    pub(super) fn open(&self) {
        if let Some(client) = &mut *self.client.lock() {
            client.open();
        }
    }

    /// Takes it back.
    pub(super) fn take(&self) -> Option<Client> {
        self.client.lock().take()
    }

    /// Takes it back, open: for what comes behind the handshake of a socket.
    pub(super) fn take_open(&self) -> Option<Client> {
        self.open();
        self.take()
    }

    fn pinned(self: Pin<&mut Self>) -> Option<Pin<&mut Client>> {
        self.get_mut().client().map(Pin::new)
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.pinned() {
            Some(client) => client.poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.pinned() {
            Some(client) => client.poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.pinned() {
            Some(client) => client.poll_write_vectored(cx, bufs),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.pinned() {
            Some(client) => client.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.pinned() {
            Some(client) => client.poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

// --- what else Pingora asks of a stream ------------------------------------------------------------------

#[async_trait]
impl Shutdown for Lent {
    async fn shutdown(&mut self) {
        // The client may be gone already.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Lent {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl GetSocketDigest for Lent {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digest = Arc::new(digest);
    }
}

impl GetTimingDigest for Lent {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Lent {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl Ssl for Lent {}
impl Peek for Lent {}
