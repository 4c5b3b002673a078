use super::disk::Disk;
use super::knobs::ComfyKnobs;
use super::routes;
use super::run;
use super::seen::{Record, Saw};
use super::server::Server;
use super::spec::Spec;
use crate::node::pausable;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A simulated ComfyUI. Dropping it is like killing its process and throwing its disk away.
pub struct ComfyNode {
    spec: Arc<Spec>,
    knobs: Arc<watch::Sender<ComfyKnobs>>,
    record: Arc<Record>,
    disk: Arc<Disk>,
    life: u64,
    address: SocketAddr,
    process: Option<Process>,
}

struct Process {
    server: Arc<Server>,
    serving: JoinHandle<()>,
}

// === impl ComfyNode ===

impl ComfyNode {
    /// Starts one.
    ///
    /// Errors: its address is taken; there is no room for its folders.
    pub async fn start(spec: Spec) -> io::Result<ComfyNode> {
        let mut node = ComfyNode {
            knobs: Arc::new(watch::channel(spec.knobs.clone()).0),
            record: Arc::new(Record::new()),
            disk: Arc::new(Disk::new(spec.windows)?),
            life: 0,
            address: spec.listen,
            process: None,
            spec: Arc::new(spec),
        };
        node.restart().await?;
        Ok(node)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes knobs. They stay so when it is restarted.
    pub fn set(&self, change: impl FnOnce(&mut ComfyKnobs)) {
        self.knobs.send_modify(change);
    }

    /// What it saw and did so far, in this order, in all its lives.
    pub fn seen(&self) -> Vec<Saw> {
        self.record.all()
    }

    /// Waits until what it saw and did is so.
    pub async fn until(&self, so: impl FnMut(&[Saw]) -> bool) {
        self.record.until(so).await;
    }

    /// Where its inputs, outputs and temporary files are: `input`, `output`, `temp`.
    pub fn folder(&self, kind: &str) -> PathBuf {
        let kind = super::disk::Kind::named(kind).unwrap_or(super::disk::Kind::Output);
        self.disk.folder(kind)
    }

    /// Cuts all sockets, without a word. Whatever runs goes on.
    pub fn cut_sockets(&self) {
        if let Some(process) = &self.process {
            process.server.cut.send_modify(|times| *times += 1);
        }
    }

    /// Drops all connections on which something is asked, without an answer. What was asked is done.
    pub fn drop_connections(&self) {
        if let Some(process) = &self.process {
            process.server.dropped.send_modify(|times| *times += 1);
        }
    }

    /// Kills its process, as `kill -9` does, and waits until its port is free. What was queued, running and in the history is
    /// gone; files are there.
    pub async fn crash(&mut self) {
        if let Some(process) = self.process.take() {
            process.server.kill();
            let _ = process.serving.await;
        }
    }

    /// Begins anew, under the same address and with the same files; ends what runs.
    ///
    /// Errors: the address was taken meanwhile.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.crash().await;
        self.disk.forget_temp()?;
        let socket = TcpSocket::new_v4()?;
        // A node that was killed comes back under its old address.
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        let listener = socket.listen(1024)?;
        self.address = listener.local_addr()?;
        self.life += 1;
        let server = Arc::new(Server::new(
            self.spec.clone(),
            self.knobs.clone(),
            self.record.clone(),
            self.disk.clone(),
            self.life,
        ));
        let serving = tokio::spawn(serve(listener, server.clone()));
        self.process = Some(Process { server, serving });
        Ok(())
    }

    /// Ends it, and waits until its port is free.
    pub async fn stop(mut self) {
        self.crash().await;
    }
}

impl Drop for ComfyNode {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.server.kill();
            process.serving.abort();
        }
    }
}

/// Takes connections and executes prompts, until it is killed.
async fn serve(listener: TcpListener, server: Arc<Server>) {
    // All of them end with this task: a killed process leaves none behind.
    let mut tasks = JoinSet::new();
    let own = server.clone();
    tasks.spawn(async move { unfrozen(&own, run::run(own.clone())).await });
    loop {
        let accepted = tokio::select! {
            accepted = unfrozen(&server, listener.accept()) => accepted,
            Some(_) = tasks.join_next() => continue,
            () = server.killed() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        let mut dropped = server.dropped.subscribe();
        tasks.spawn(async move {
            let own = server.clone();
            let service = service_fn(move |request| routes::answer(own.clone(), request));
            let serving = auto::Builder::new(TokioExecutor::new());
            let served = serving.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                _ = unfrozen(&server, served) => {}
                _ = dropped.changed() => {}
            }
        });
    }
}

/// Runs a future, except while the process is stopped.
pub(crate) async fn unfrozen<F: Future>(server: &Server, future: F) -> F::Output {
    pausable(future, server.knobs.subscribe(), |knobs| knobs.frozen).await
}
