//! Where clients connect. The accepting is ours, so that a reload can open and close listeners, and so that
//! tests run the same code on port 0.

use super::client::Client;
use super::doors::{Doors, Pass};
use super::pace::Pace;
use super::proxy::Edge;
use super::serve::{farewell, serve};
use crate::dispatch::ListenerKey;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::SocketDigest;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::proxy::HttpProxy;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Which listener of the file stands behind which bound address.
#[derive(Default)]
pub struct Bound(ArcSwap<Vec<(SocketAddr, ListenerKey)>>);

/// The listeners that are open.
pub struct Listeners {
    app: Arc<HttpProxy<Edge>>,
    bound: Arc<Bound>,
    open: Mutex<HashMap<ListenerKey, Open>>,
    doors: Arc<Doors>,
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
    /// No listener is open yet. `doors` bounds the connections of all of them together.
    pub(super) fn new(app: Arc<HttpProxy<Edge>>, bound: Arc<Bound>, doors: Arc<Doors>) -> Self {
        Listeners {
            app,
            bound,
            open: Mutex::default(),
            doors,
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
            let hall = Hall {
                address,
                app: self.app.clone(),
                doors: self.doors.clone(),
                closing,
            };
            tokio::spawn(accept(listener, hall));
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
        self.doors.count()
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

/// What every connection of a listener is given.
#[derive(Clone)]
struct Hall {
    /// Where the listener is bound.
    address: SocketAddr,
    app: Arc<HttpProxy<Edge>>,
    doors: Arc<Doors>,
    closing: watch::Receiver<bool>,
}

async fn accept(listener: TcpListener, hall: Hall) {
    let mut spare = spare();
    let mut closing = hall.closing.clone();
    loop {
        let accepted = tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let pass = hall.doors.enter(from);
                let hall = hall.clone();
                match pass {
                    Ok(pass) => {
                        tokio::spawn(hall.serve(stream, from, pass));
                    }
                    Err(fault) => {
                        hall.doors.turned_away(from, fault);
                        if let Some(leave) = hall.doors.farewell() {
                            let client = hall.client(stream, from);
                            tokio::spawn(async move {
                                farewell(client, fault).await;
                                drop(leave);
                            });
                        }
                    }
                }
            }
            Err(error) => {
                // Most often there are no more descriptors. The one that was spared takes the client in who
                // would else hang, and is closed again at once: better a broken connection than a silent one.
                tracing::warn!(address = %hall.address, %error, "cannot accept a connection; trying again");
                if spare.take().is_some() {
                    let _ = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
                }
                sleep(Duration::from_millis(20)).await;
                spare = self::spare();
            }
        }
    }
}

/// A descriptor for the time when there are no more.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

// === impl Hall ===

impl Hall {
    async fn serve(self, stream: TcpStream, from: SocketAddr, _pass: Pass) {
        // Small answers (a token of a stream) must not wait for more.
        let _ = stream.set_nodelay(true);
        let client = self.client(stream, from);
        serve(client, from, self.app, self.doors, self.closing).await;
    }

    fn client(&self, stream: TcpStream, from: SocketAddr) -> Client {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(PeerAddress::Inet(from)));
        // The listener's own address, not the interface's: it names the listener, and saves a system call.
        let _ = digest.local_addr.set(Some(PeerAddress::Inet(self.address)));
        let limits = self.doors.limits();
        let pace = Pace::new(limits.client_write, limits.client_rate);
        Client::new(stream, digest, pace)
    }
}
