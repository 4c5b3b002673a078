use super::knobs::LlmKnobs;
use super::routes;
use super::seen::{Record, Seen};
use super::server::Server;
use super::shelf::State;
use super::spec::{Engine, Spec};
use crate::node::pausable;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long vLLM and llama.cpp keep a connection that nobody uses.
const IDLE: Duration = Duration::from_secs(5);

/// A simulated engine. Dropping it is like killing its process.
pub struct LlmNode {
    spec: Arc<Spec>,
    knobs: Arc<watch::Sender<LlmKnobs>>,
    record: Arc<Record>,
    life: u64,
    address: SocketAddr,
    process: Option<Process>,
}

struct Process {
    server: Arc<Server>,
    serving: JoinHandle<()>,
}

// === impl LlmNode ===

impl LlmNode {
    /// Starts one. Where loading takes time it goes on meanwhile: llama.cpp says so, vLLM does not listen yet.
    ///
    /// Errors: its address is taken; it has no models, and needs one.
    pub async fn start(spec: Spec) -> io::Result<LlmNode> {
        if spec.models.is_empty() && !spec.loads_on_demand() {
            let why = format!("{} cannot start without a model", spec.engine);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut node = LlmNode {
            knobs: Arc::new(watch::channel(spec.knobs.clone()).0),
            record: Arc::new(Record::new()),
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
    pub fn set(&self, change: impl FnOnce(&mut LlmKnobs)) {
        self.knobs.send_modify(change);
    }

    /// How its knobs are set.
    pub fn knobs(&self) -> LlmKnobs {
        self.knobs.borrow().clone()
    }

    /// What it saw and did so far, in all its lives.
    pub fn seen(&self) -> Seen {
        self.record.all()
    }

    /// Waits until what it saw and did is so.
    pub async fn until(&self, so: impl FnMut(&Seen) -> bool) {
        self.record.until(so).await;
    }

    /// Waits until its first model is loaded, where it is loaded at the start.
    pub async fn ready(&self) {
        if let Some(process) = self
            .process
            .as_ref()
            .filter(|_| !self.spec.loads_on_demand())
        {
            process.server.shelf.until(0, State::There).await;
            let _ = process
                .server
                .listened
                .subscribe()
                .wait_for(|listened| *listened)
                .await;
        }
    }

    /// Kills its process, as `kill -9` does, and waits until its port is free. All it had read is forgotten.
    pub async fn crash(&mut self) {
        if let Some(process) = self.process.take() {
            process.server.kill();
            let _ = process.serving.await;
        }
    }

    /// Begins anew, under the same address; ends what runs.
    ///
    /// Errors: the address was taken meanwhile.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.crash().await;
        let socket = bind(self.address)?;
        self.address = socket.local_addr()?;
        self.life += 1;
        let server = Arc::new(Server::new(
            self.spec.clone(),
            self.knobs.clone(),
            self.record.clone(),
            self.life,
        ));
        let knobs = self.knobs.borrow().clone();
        let mib = self.spec.models.first().map_or(0, |model| model.mib);
        let comes_later = self.spec.engine == Engine::Vllm && !knobs.load(mib).is_zero();
        let mut listened = server.listened.subscribe();
        let serving = tokio::spawn(serve(self.address, socket, server.clone()));
        self.process = Some(Process { server, serving });
        if !comes_later && !knobs.refuse && !knobs.frozen {
            let _ = listened.wait_for(|listened| *listened).await;
        }
        Ok(())
    }

    /// Ends it, and waits until its port is free.
    pub async fn stop(mut self) {
        self.crash().await;
    }
}

impl Drop for LlmNode {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.server.kill();
            process.serving.abort();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // A node that was killed comes back under its old address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Takes connections and works, until it is killed.
async fn serve(address: SocketAddr, socket: TcpSocket, server: Arc<Server>) {
    // All of them end with this task: a killed process leaves none behind.
    let mut tasks = JoinSet::new();
    for runner in server.runners.clone() {
        let own = server.clone();
        tasks.spawn(async move { unfrozen(&own, runner.run()).await });
    }
    let own = server.clone();
    tasks.spawn(async move { unfrozen(&own, own.shelf.keep()).await });
    if !server.spec.loads_on_demand() {
        let own = server.clone();
        tasks.spawn(async move { unfrozen(&own, own.shelf.load(0)).await });
    }
    if server.spec.engine == Engine::Vllm {
        tokio::select! {
            () = server.shelf.until(0, State::There) => {}
            () = server.killed() => return,
        }
    }
    let mut bound = Some(socket);
    loop {
        tokio::select! {
            () = server.until_knobs(|knobs| !knobs.refuse) => {}
            () = server.killed() => return,
        }
        let Some(socket) = bound.take().or_else(|| bind(address).ok()) else {
            return;
        };
        let Ok(listener) = socket.listen(1024) else {
            return;
        };
        server.listened.send_replace(true);
        loop {
            let accepted = tokio::select! {
                accepted = unfrozen(&server, listener.accept()) => accepted,
                Some(_) = tasks.join_next() => continue,
                () = server.until_knobs(|knobs| knobs.refuse) => break,
                () = server.killed() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let own = server.clone();
            tasks.spawn(async move { unfrozen(&own, talk(own.clone(), stream)).await });
        }
    }
}

/// Serves one connection, with the habits of the engine's web server.
async fn talk(server: Arc<Server>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    server.record.note(|seen| seen.connections += 1);
    let mut serving = http1::Builder::new();
    let engine = server.spec.engine;
    serving
        .timer(TokioTimer::new())
        .title_case_headers(engine != Engine::Vllm)
        .auto_date_header(engine != Engine::LlamaCpp)
        .header_read_timeout(if engine == Engine::Ollama {
            None
        } else {
            Some(IDLE)
        });
    let asked = Arc::new(AtomicU32::new(0));
    let service = service_fn(move |request| routes::answer(server.clone(), asked.clone(), request));
    let _ = serving
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Runs a future, except while the process is stopped.
async fn unfrozen<F: Future>(server: &Server, future: F) -> F::Output {
    pausable(future, server.knobs.subscribe(), |knobs| knobs.frozen).await
}
