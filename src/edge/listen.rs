//! Where clients connect. The accepting is ours, so that a reload can open and close listeners, and so that
//! tests run the same code on port 0.

use super::proxy::Edge;
use crate::dispatch::ListenerKey;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// How long a client may take to say its first bytes.
const FIRST_BYTES: Duration = Duration::from_secs(60);
/// How long a connection of HTTP/2 may be without requests.
const H2_IDLE: Duration = Duration::from_secs(120);

/// Which listener of the file stands behind which bound address.
#[derive(Default)]
pub struct Bound(ArcSwap<Vec<(SocketAddr, ListenerKey)>>);

/// The listeners that are open.
pub struct Listeners {
    app: Arc<HttpProxy<Edge>>,
    bound: Arc<Bound>,
    open: Mutex<HashMap<ListenerKey, Open>>,
    connections: Arc<Semaphore>,
    most: usize,
}

struct Open {
    address: SocketAddr,
    /// Set to close: the listener at once, its connections after what they are at.
    close: watch::Sender<bool>,
}

/// Listeners that were bound for a plan and do not accept yet.
pub struct Prepared(Vec<(ListenerKey, TcpListener)>);

// === impl Bound ===

impl Bound {
    /// The listener behind a bound address.
    pub fn key(&self, address: Option<&SocketAddr>) -> Option<ListenerKey> {
        let address = address?;
        self.0
            .load()
            .iter()
            .find(|(bound, _)| bound == address)
            .map(|(_, key)| *key)
    }

    fn add(&self, address: SocketAddr, key: ListenerKey) {
        // A listener that was closed stays named here: connections it accepted may still be at work.
        self.0.rcu(|known| {
            let mut known: Vec<_> = known
                .iter()
                .filter(|(bound, _)| *bound != address)
                .copied()
                .collect();
            known.push((address, key));
            known
        });
    }
}

// === impl Listeners ===

impl Listeners {
    /// No listener is open yet. `most` bounds the connections of all of them together.
    pub(super) fn new(app: Arc<HttpProxy<Edge>>, bound: Arc<Bound>, most: usize) -> Self {
        Listeners {
            app,
            bound,
            open: Mutex::default(),
            connections: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// Binds those of `wanted` that are not open. Nothing else changes yet, so that a port that is taken
    /// leaves everything as it was.
    ///
    /// Errors: the address that could not be bound, and why.
    pub fn prepare(
        &self,
        wanted: impl Iterator<Item = ListenerKey>,
    ) -> Result<Prepared, (SocketAddr, io::Error)> {
        let known: Vec<ListenerKey> = self.open.lock().keys().copied().collect();
        let new = wanted.filter(|key| !known.contains(key));
        let bound = new.map(|key| {
            bind(key.address)
                .map(|listener| (key, listener))
                .map_err(|error| (key.address, error))
        });
        bound.collect::<Result<_, _>>().map(Prepared)
    }

    /// Accepts on what was prepared, and closes what is no longer wanted.
    pub fn apply(&self, prepared: Prepared, wanted: impl Iterator<Item = ListenerKey>) {
        let wanted: Vec<ListenerKey> = wanted.collect();
        let mut open = self.open.lock();
        open.retain(|key, listener| {
            let keep = wanted.contains(key);
            if !keep {
                listener.close.send_replace(true);
                tracing::info!(address = %listener.address, "listener closed");
            }
            keep
        });
        for (key, listener) in prepared.0 {
            let Ok(address) = listener.local_addr() else {
                continue;
            };
            let (close, closing) = watch::channel(false);
            self.bound.add(address, key);
            tracing::info!(%address, "listening");
            tokio::spawn(accept(
                listener,
                address,
                self.app.clone(),
                self.connections.clone(),
                closing,
            ));
            open.insert(key, Open { address, close });
        }
    }

    /// The bound addresses, in the order of the file's listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.open.lock();
        let mut all: Vec<_> = open
            .iter()
            .map(|(key, listener)| (*key, listener.address))
            .collect();
        all.sort_by_key(|(key, _)| (key.address, key.nth));
        all.into_iter().map(|(_, address)| address).collect()
    }

    /// How many client connections are open.
    pub fn connections(&self) -> usize {
        self.most - self.connections.available_permits().min(self.most)
    }

    /// Stops accepting; connections end after what they are at, idle ones at once.
    pub async fn close(&self) {
        for listener in self.open.lock().values() {
            listener.close.send_replace(true);
        }
        self.app.cleanup().await;
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    // A restarted gateway gets its port back while old connections linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // As many as the kernel lets wait (net.core.somaxconn cuts it).
    socket.listen(4096)
}

async fn accept(
    listener: TcpListener,
    bound: SocketAddr,
    app: Arc<HttpProxy<Edge>>,
    connections: Arc<Semaphore>,
    mut closing: watch::Receiver<bool>,
) {
    loop {
        // At the bound, connections wait in the kernel's queue: a late answer is better than none.
        let accepted = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            accepted = async {
                let permit = connections.clone().acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, from)), Ok(permit)) => {
                tokio::spawn(serve(
                    stream,
                    from,
                    bound,
                    app.clone(),
                    closing.clone(),
                    permit,
                ));
            }
            (_, Err(_)) => return,
            (Err(error), _) => {
                // Most often there are no more file descriptors: they come back as requests end.
                tracing::warn!(%bound, %error, "cannot accept a connection; trying again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    bound: SocketAddr,
    app: Arc<HttpProxy<Edge>>,
    closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // Small answers (a token of a stream) must not wait for more.
    let _ = stream.set_nodelay(true);
    let Ok(Some(speaks_h2)) = timeout(FIRST_BYTES, speaks_h2(&stream)).await else {
        return;
    };
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let _ = digest.peer_addr.set(Some(PeerAddress::Inet(from)));
    // The listener's own address, not the interface's: it names the listener, and saves a system call.
    let _ = digest.local_addr.set(Some(PeerAddress::Inet(bound)));
    let mut stream = L4Stream::from(stream);
    stream.set_socket_digest(digest);
    let app = Arc::new(Spoken::new(app, speaks_h2));
    let mut next: Option<pingora::protocols::Stream> = Some(Box::new(stream));
    while let Some(stream) = next {
        next = app.process_new(stream, &closing).await;
    }
}

/// Whether a client opens with HTTP/2's preface; `None` when it leaves before it said anything.
///
/// Pingora would wait for the preface's 24 bytes, and a whole request of HTTP/1.0 can be shorter than that.
async fn speaks_h2(stream: &TcpStream) -> Option<bool> {
    // No method of HTTP/1 begins like this (RFC 9113, 3.4).
    const PREFACE: &[u8] = b"PRI ";
    let mut begun = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut begun).await {
            Ok(0) | Err(_) => return None,
            Ok(n) if begun[..n] != PREFACE[..n] => return Some(false),
            Ok(n) if n == PREFACE.len() => return Some(true),
            // The rest of four bytes is on its way; peeking does not wait for more than there is.
            Ok(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The proxy, for a client whose version of HTTP is known.
struct Spoken {
    app: Arc<HttpProxy<Edge>>,
    options: HttpServerOptions,
}

impl Spoken {
    fn new(app: Arc<HttpProxy<Edge>>, h2: bool) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2;
        options.h2_idle_timeout = Some(H2_IDLE);
        Spoken { app, options }
    }
}

#[async_trait]
impl HttpServerApp for Spoken {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.app.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
