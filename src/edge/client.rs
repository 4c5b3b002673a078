//! A client's connection, seen from its bytes: Pingora gets one request of it at a time, whose head was checked.
//!
//! What follows a request (the next one of a pipeline) stays here until its own head was checked. While nothing
//! is asked, a connection holds no buffer. What is written waits for a moment, so that the head of an answer and its
//! first bytes go out in one piece.

use super::chunks::{Chunks, Misframed};
use super::head::{Framing, Head};
use super::pace::Pace;
use bytes::{Buf, BytesMut};
use pingora::protocols::SocketDigest;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// What is written waits while it is no longer than this: an answer's head, and a short body.
const SMALL: usize = 4096;

/// How much is read of what follows a request while that is at work.
const AHEAD: usize = 16 << 10;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    tcp: TcpStream,
    digest: Arc<SocketDigest>,
    /// What was read and not given on yet.
    ahead: BytesMut,
    /// How much at the front of `ahead` is a head that was checked.
    head: usize,
    body: Rest,
    /// What was written and has not gone out yet.
    out: BytesMut,
    /// Patience with a client that does not read.
    pace: Pace,
    /// Since when nothing goes out, and until when that may be.
    stuck: Option<(Instant, Pin<Box<Sleep>>)>,
    /// What the connection carries is no longer HTTP/1: it goes through as it comes.
    opened: bool,
}

/// What of a request's body is still to come.
#[derive(Clone, Copy, Debug)]
enum Rest {
    None,
    Length(u64),
    Chunked(Chunks),
}

// === impl Client ===

impl Client {
    pub(super) fn new(tcp: TcpStream, digest: SocketDigest, pace: Pace) -> Self {
        Client {
            tcp,
            digest: Arc::new(digest),
            ahead: BytesMut::new(),
            head: 0,
            body: Rest::None,
            out: BytesMut::new(),
            pace,
            stuck: None,
            opened: false,
        }
    }

    /// What was read of the next request so far.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Passes over bytes that mean nothing (RFC 9112, 2.2: an empty line before a request).
    pub(super) fn skip(&mut self, bytes: usize) {
        self.ahead.advance(bytes);
    }

    /// Reads more of the next request; so many bytes, 0 at the end. Waits without holding memory.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Lets one request through whose head was checked, and is as patient with its client as `pace` says.
    pub(super) fn admit(&mut self, head: Head, pace: Pace) {
        self.pace = pace;
        self.head = head.length;
        self.body = match head.body {
            Framing::None => Rest::None,
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunks::default()),
        };
    }

    /// Whether all of the request that was let through is read, so that another may follow.
    pub(super) fn is_between_requests(&self) -> bool {
        self.head == 0 && matches!(self.body, Rest::None) && !self.opened
    }

    /// From here on everything goes through: HTTP/2, or a socket.
    pub(super) fn open(&mut self) {
        self.opened = true;
    }

    /// What is known of the connection.
    pub(super) fn digest(&self) -> &Arc<SocketDigest> {
        &self.digest
    }

    /// Says a last word, waits a moment for the client to read it, and closes.
    ///
    /// Closing with bytes unread would reset the connection, and the word be lost (RFC 9112, 9.6).
    pub(super) async fn farewell(mut self, word: &[u8]) {
        if self.tcp.write_all(word).await.is_err() || self.tcp.shutdown().await.is_err() {
            return;
        }
        let mut left = 1 << 20;
        while left > 0 {
            self.ahead.clear();
            match self.fill().await {
                Ok(0) | Err(_) => return,
                Ok(read) => left -= read.min(left),
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; 4096];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf))?;
        self.ahead.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Hands bytes to the system, as many as it takes.
    ///
    /// Errors: the client has read nothing, or hardly anything, for longer than there is patience for.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = bufs.iter().filter(|buf| !buf.is_empty());
        let sent = match (full.next(), full.next()) {
            // The system is quicker with one.
            (Some(one), None) => Pin::new(&mut self.tcp).poll_write(cx, one)?,
            _ => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)?,
        };
        let Poll::Ready(sent) = sent else {
            let left = self.pace.left();
            let stuck = || (Instant::now(), Box::pin(sleep(left)));
            let (_, over) = self.stuck.get_or_insert_with(stuck);
            ready!(over.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        if let Some((since, _)) = self.stuck.take() {
            self.pace.spend(since.elapsed());
        }
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.pace.earn(sent as u64);
        Poll::Ready(Ok(sent))
    }

    /// Sends what waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            ready!(self.poll_out_with(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what waits, and as much of `more` behind it as goes; how much of that.
    fn poll_out_with(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = std::mem::take(&mut self.out);
        let sent = self.poll_send(cx, &[io::IoSlice::new(&out), io::IoSlice::new(more)]);
        let waited = match &sent {
            Poll::Ready(Ok(sent)) => out.len().min(*sent),
            _ => 0,
        };
        out.advance(waited);
        self.out = out;
        sent.map_ok(|sent| sent - waited)
    }

    /// Gives on at most `most` bytes that were read already.
    fn give(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let given = most.min(self.ahead.len()).min(buf.remaining());
        buf.put_slice(&self.ahead[..given]);
        self.ahead.advance(given);
        given
    }

    /// Gives on bytes of a body of known length.
    fn poll_length(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<()>> {
        let given = if self.ahead.is_empty() {
            let before = buf.filled().len();
            let mut body = (&mut self.tcp).take(left);
            ready!(Pin::new(&mut body).poll_read(cx, buf))?;
            buf.filled().len() - before
        } else {
            self.give(buf, usize::try_from(left).unwrap_or(usize::MAX))
        };
        self.body = match left - given as u64 {
            0 => Rest::None,
            left => Rest::Length(left),
        };
        Poll::Ready(Ok(()))
    }

    /// Gives on bytes of a chunked body, and keeps what comes after it.
    fn poll_chunked(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        mut chunks: Chunks,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let from_ahead = !self.ahead.is_empty();
        if from_ahead {
            self.give(buf, usize::MAX);
        } else {
            ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        }
        let read = &buf.filled()[before..];
        let taken = chunks
            .take(read)
            .map_err(|Misframed| io::Error::from(io::ErrorKind::InvalidData))?;
        if taken < read.len() {
            // Only the end of the body leaves something over; it belongs before what is still ahead.
            let mut ahead = BytesMut::from(&read[taken..]);
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
            buf.set_filled(before + taken);
        }
        self.body = if chunks.done() {
            Rest::None
        } else {
            Rest::Chunked(chunks)
        };
        Poll::Ready(Ok(()))
    }

    /// Nothing more may be given on: watches only whether the client is still there. What it says meanwhile is its
    /// next request, of which only so much is kept.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD {
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Pingora reads when it has nothing to write for now: it is quiet, and nothing waits for more. (It does not
        // flush between the pieces of an answer whose length is known.)
        if let Poll::Ready(Err(error)) = this.poll_out(cx) {
            return Poll::Ready(Err(error));
        }
        if this.opened {
            if this.ahead.is_empty() {
                return Pin::new(&mut this.tcp).poll_read(cx, buf);
            }
            this.give(buf, usize::MAX);
            return Poll::Ready(Ok(()));
        }
        if this.head > 0 {
            this.head -= this.give(buf, this.head);
            return Poll::Ready(Ok(()));
        }
        match this.body {
            Rest::None => this.poll_gone(cx),
            Rest::Length(left) => this.poll_length(cx, buf, left),
            Rest::Chunked(chunks) => this.poll_chunked(cx, buf, chunks),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.out.len() + buf.len() <= SMALL {
            self.out.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        loop {
            // It may be that only what waited went.
            let sent = ready!(self.poll_out_with(cx, buf))?;
            if sent > 0 {
                return Poll::Ready(Ok(sent));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if self.out.len() + length <= SMALL {
            for buf in bufs {
                self.out.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_out(cx))?;
        self.poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use crate::edge::head::{Bounds, Progress, read};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    const BOUNDS: Bounds = Bounds {
        bytes: 4096,
        fields: 16,
    };

    /// A request, head and body, as it is sent.
    fn request() -> impl Strategy<Value = Bytes> {
        let body = prop::collection::vec(any::<u8>(), 0..300);
        (body, any::<bool>(), 1..100usize).prop_map(|(body, chunked, chunk)| {
            let mut wire = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
            if chunked {
                wire.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(chunk) {
                    wire.extend(format!("{:x}\r\n", piece.len()).bytes());
                    wire.extend([piece, b"\r\n"].concat());
                }
                wire.extend(b"0\r\n\r\n");
            } else {
                wire.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                wire.extend(body);
            }
            wire.into()
        })
    }

    /// Sends all requests in pieces of such lengths, and reads one after the other into such buffers.
    async fn pipeline(requests: &[Bytes], pieces: &[usize], buffers: &[usize]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        peer.set_nodelay(true).unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
        let pace = Pace::new(Duration::from_secs(60), 0);
        let mut client = Client::new(tcp, digest, pace);
        let (all, pieces) = (requests.concat(), pieces.to_vec());
        // Hangs up when all is sent: whoever still waits for more then hears it.
        let sender = tokio::spawn(async move {
            let mut rest = &all[..];
            for piece in pieces.into_iter().cycle() {
                let (piece, behind) = rest.split_at(piece.min(rest.len()));
                peer.write_all(piece).await.unwrap();
                rest = behind;
                if rest.is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        let mut buffers = buffers.iter().cycle();
        for request in requests {
            let mut progress = Progress::default();
            let head = loop {
                match read(client.ahead(), &mut progress, BOUNDS).unwrap() {
                    Some(head) => break head,
                    None => assert!(client.fill().await.unwrap() > 0),
                }
            };
            client.admit(head, pace);
            let mut got = Vec::new();
            while !client.is_between_requests() {
                let mut buffer = vec![0; *buffers.next().unwrap()];
                let read = client.read(&mut buffer).await.unwrap();
                assert!(
                    read > 0,
                    "it ends after {} of {} bytes",
                    got.len(),
                    request.len()
                );
                got.extend(&buffer[..read]);
            }
            assert_eq!(Bytes::from(got), request);
        }
        sender.await.unwrap();
    }

    #[test]
    fn requests_of_a_pipeline_are_given_on_one_by_one_and_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let requests = prop::collection::vec(request(), 1..5);
        let lengths = || prop::collection::vec(prop_oneof![1..8usize, 1..2000usize], 1..6);
        tried(
            150,
            (requests, lengths(), lengths()),
            |(requests, pieces, buffers)| {
                let in_time = async {
                    let all = pipeline(&requests, &pieces, &buffers);
                    tokio::time::timeout(Duration::from_secs(60), all).await
                };
                runtime.block_on(in_time).expect("nothing more comes");
            },
        );
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for reads in [false, true] {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
            let mut client = Client::new(tcp, digest, Pace::new(Duration::from_millis(500), 0));
            let reader = tokio::spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(50));
                let mut buffer = vec![0; 2 << 20];
                while reads && matches!(peer.read(&mut buffer).await, Ok(1..)) {
                    pace.tick().await;
                }
                // Open until the end.
                std::future::pending::<()>().await;
                drop(peer);
            });
            let written = client.write_all(&vec![0; 32 << 20]).await;
            let kind = written.map_err(|error| error.kind());
            assert_eq!(kind.is_ok(), reads, "{kind:?}");
            assert!(reads || kind == Err(io::ErrorKind::TimedOut));
            reader.abort();
        }
    }
}
