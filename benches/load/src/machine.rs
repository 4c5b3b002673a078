//! Nodes that take as long as a table says, with time running faster: one job at a time, its model loaded first.

use anyhow::Result;
use http::header::HeaderMap;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane::simulate::{Class, Memory, Run};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What goes by the headers of a job: which one of the trace it is, what it is, and how large.
pub const JOB: &str = "x-job";
pub const CLASS: &str = "x-class";
pub const SIZE: &str = "x-size";

/// A clock that runs `faster` times as fast as ours, from zero.
#[derive(Clone, Copy)]
pub struct Clock {
    pub base: Instant,
    pub faster: f64,
}

impl Clock {
    pub fn now_s(self) -> f64 {
        self.base.elapsed().as_secs_f64() * self.faster
    }

    pub fn at(self, seconds: f64) -> Instant {
        self.base + Duration::from_secs_f64(seconds / self.faster)
    }
}

/// What has become of each job of a trace.
pub type Runs = Arc<Mutex<Vec<Run>>>;

/// A node. It ends when this is dropped.
pub struct Machine {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

struct Inner {
    endpoint: usize,
    classes: Arc<[Class]>,
    clock: Clock,
    runs: Runs,
    /// Held by the one job at work.
    memory: tokio::sync::Mutex<Memory>,
    loaded: Mutex<Vec<String>>,
}

impl Machine {
    /// `endpoint` is its number in the plan, by which the classes know what they cost on it.
    pub async fn start(
        endpoint: usize,
        vram_mib: u64,
        classes: Arc<[Class]>,
        clock: Clock,
        runs: Runs,
    ) -> Result<Machine> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            endpoint,
            classes,
            clock,
            runs,
            memory: tokio::sync::Mutex::new(Memory::new(vram_mib)),
            loaded: Mutex::default(),
        });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = inner.clone();
                let serve = service_fn(move |request| {
                    let inner = inner.clone();
                    async move { Ok::<_, Infallible>(inner.answer(request).await) }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // Whoever leaves is no error of the node.
                    let _ = http.serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        Ok(Machine { address, task })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/health" {
            return json(StatusCode::OK, self.health());
        }
        let job = number::<usize>(request.headers(), JOB);
        let class = number::<usize>(request.headers(), CLASS);
        let size = number::<f64>(request.headers(), SIZE);
        // Whatever the body is: the connection is used again.
        let _ = request.into_body().collect().await;
        match (job, class, size) {
            (Some(job), Some(class), Some(size)) => self.work(job, class, size).await,
            _ => json(StatusCode::BAD_REQUEST, "\"what job?\"".into()),
        }
    }

    /// What it can run, and what is loaded.
    fn health(&self) -> String {
        let can = self.classes.iter().enumerate();
        let can = can.filter(|(_, class)| class.costs[self.endpoint].is_some());
        let can: Vec<String> = can.map(|(i, _)| i.to_string()).collect();
        let loaded = self.loaded.lock();
        format!("{{\"models\": {can:?}, \"loaded\": {loaded:?}}}")
    }

    async fn work(&self, job: usize, class: usize, size: f64) -> Response<Full<Bytes>> {
        let known = self.classes.get(class);
        let Some((class, cost)) = known.and_then(|of| Some((of, of.costs[self.endpoint]?))) else {
            return json(StatusCode::NOT_FOUND, "\"it cannot run here\"".into());
        };
        let mut memory = self.memory.lock().await;
        let begin_s = self.clock.now_s();
        let loads = memory.load(&class.name, class.vram_mib);
        *self.loaded.lock() = memory.resident().map(str::to_owned).collect();
        let takes_s = cost.run_s * size + if loads { cost.load_s } else { 0.0 };
        tokio::time::sleep_until(self.clock.at(begin_s + takes_s).into()).await;
        let end_s = self.clock.now_s();
        let mut runs = self.runs.lock();
        if let Some(run) = runs.get_mut(job) {
            run.begin_s = begin_s;
            run.end_s = Some(end_s);
            run.endpoint = self.endpoint;
            run.attempts += 1;
            run.loads += u32::from(loads);
            run.busy_s += end_s - begin_s;
            run.ended += 1;
        }
        json(StatusCode::OK, "{}".into())
    }
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn json(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer
}
