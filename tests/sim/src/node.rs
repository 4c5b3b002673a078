use crate::answer;
use crate::batch::Jobs;
use crate::gpu::{Gpu, OnGpu};
use crate::knobs::Knobs;
use crate::seen::Seen;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A simulated node that runs. Dropping it is like killing its process: everything is closed at once.
pub struct Node {
    address: SocketAddr,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

pub(crate) struct Inner {
    knobs: watch::Sender<Knobs>,
    pub(crate) jobs: Mutex<Jobs>,
    model: Mutex<Option<String>>,
    /// Its place on a card that it shares.
    pub(crate) gpu: Option<OnGpu>,
    seen: watch::Sender<Seen>,
    frozen: watch::Sender<bool>,
    killed: watch::Sender<bool>,
}

// === impl Node ===

impl Node {
    /// Starts one on a free port of the loopback address.
    pub async fn start(knobs: Knobs) -> io::Result<Node> {
        Node::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), knobs).await
    }

    /// Starts one at an address.
    ///
    /// Errors: the address is taken.
    pub async fn start_at(address: SocketAddr, knobs: Knobs) -> io::Result<Node> {
        Node::start_on(None, address, knobs).await
    }

    /// Starts one at an address, on a card that it shares with others.
    ///
    /// Errors: the address is taken.
    pub async fn start_on(
        gpu: Option<&Gpu>,
        address: SocketAddr,
        knobs: Knobs,
    ) -> io::Result<Node> {
        let socket = TcpSocket::new_v4()?;
        // A node that was killed comes back under its old address.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(1024)?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            frozen: watch::channel(knobs.frozen).0,
            knobs: watch::channel(knobs).0,
            jobs: Mutex::default(),
            model: Mutex::default(),
            gpu: gpu.map(Gpu::join),
            seen: watch::channel(Seen::default()).0,
            killed: watch::channel(false).0,
        });
        let accepting = tokio::spawn(accept(listener, inner.clone()));
        Ok(Node {
            address,
            inner,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes knobs.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        let mut knobs = self.inner.knobs();
        change(&mut knobs);
        self.inner.set(knobs);
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.inner.seen()
    }

    /// Waits until what it has seen is so.
    pub async fn until(&self, so: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.inner.seen.subscribe();
        // The sender lives as long as `self`.
        seen.wait_for(so)
            .await
            .map(|seen| seen.clone())
            .unwrap_or_default()
    }

    /// Makes it forget all jobs, as a server does whose memory they were in.
    pub fn forget_jobs(&self) {
        self.inner.forget_jobs();
    }

    /// Kills it, and waits until its port is free.
    pub async fn kill(mut self) -> SocketAddr {
        self.inner.kill();
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.address
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inner.kill();
        self.accepting.abort();
    }
}

// === impl Inner ===

impl Inner {
    pub(crate) fn knobs(&self) -> Knobs {
        self.knobs.borrow().clone()
    }

    /// Waits until the knobs are so.
    pub(crate) async fn until_knobs(&self, so: impl FnMut(&Knobs) -> bool) {
        let _ = self.knobs.subscribe().wait_for(so).await;
    }

    pub(crate) fn set(&self, knobs: Knobs) {
        self.frozen.send_replace(knobs.frozen);
        self.knobs.send_replace(knobs);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// How many requests are at work, without a copy of everything else.
    pub(crate) fn at_work(&self) -> u32 {
        self.seen.borrow().at_work
    }

    /// How many requests came so far.
    pub(crate) fn requests(&self) -> u64 {
        self.seen.borrow().requests
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    /// Loads a model; `false` when it is there already, or none was named.
    pub(crate) fn load_model(&self, named: Option<&str>) -> bool {
        let Some(named) = named else { return false };
        let mut model = self.model.lock();
        let loads = model.as_deref() != Some(named);
        *model = Some(named.to_owned());
        loads
    }

    fn kill(&self) {
        self.killed.send_replace(true);
        if let Some(gpu) = &self.gpu {
            gpu.leave();
        }
    }

    pub(crate) async fn killed(&self) {
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // Connections end with this task: a killed process leaves none behind.
    let mut connections = JoinSet::new();
    loop {
        let accepted = pausable(listener.accept(), inner.frozen.subscribe(), |frozen| {
            *frozen
        });
        let stream = tokio::select! {
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = stream else { continue };
        let _ = stream.set_nodelay(true);
        inner.note(|seen| {
            seen.connections += 1;
            seen.connections_total += 1;
        });
        let open = OpenConnection(inner.clone());
        let frozen = inner.frozen.subscribe();
        connections.spawn(async move {
            let inner = open.0.clone();
            let service = service_fn(move |request| answer::answer(inner.clone(), request));
            let server = auto::Builder::new(TokioExecutor::new());
            let served = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let _ = pausable(served, frozen, |frozen| *frozen).await;
            drop(open);
        });
    }
}

struct OpenConnection(Arc<Inner>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.note(|seen| seen.connections -= 1);
    }
}

/// Runs a future, except while the node is frozen.
pub(crate) async fn pausable<F: Future, T>(
    future: F,
    mut state: watch::Receiver<T>,
    frozen: impl Fn(&T) -> bool,
) -> F::Output {
    let mut future = pin!(future);
    loop {
        if state.wait_for(|state| !frozen(state)).await.is_err() {
            return future.await;
        }
        tokio::select! {
            biased;
            _ = state.changed() => {}
            done = &mut future => return done,
        }
    }
}
