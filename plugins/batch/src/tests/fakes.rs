//! A node with a script, and a report that remembers.

use crate::Batch;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tabane_api::{
    Attempt, Content, Done, Kind, Need, NodeClient, NodeError, Pieces, Report, RunError, Service,
    Superseded, one_piece,
};
use tokio::sync::mpsc;

/// A kind with this block.
pub(super) fn kind(block: &str) -> Result<Batch, String> {
    let config = serde_json::from_str(block).map_err(|error| error.to_string())?;
    Batch::new(config, None)
}

/// The second attempt at `POST /render?draft=1` with this body.
pub(super) fn attempt(body: &str) -> Attempt {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("content-length", body.len().into());
    Attempt {
        job: "01J/8".into(),
        number: 2,
        need: Need::of_class("POST /render"),
        tenant: "pipeline".into(),
        method: http::Method::POST,
        uri: "/render?draft=1".parse().unwrap(),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()).into(),
        handle: None,
        callback: None,
    }
}

/// Runs an attempt to its end: its verdict, status and body, or why it came to nothing.
pub(super) async fn run(
    block: &str,
    attempt: &Attempt,
    node: &Node,
    report: &Told,
) -> Result<(tabane_api::Verdict, u16, String), RunError> {
    let Done { verdict, response } = kind(block).unwrap().run(attempt, node, report).await?;
    let (head, pieces) = response.into_parts();
    let body = crate::node::read(pieces, usize::MAX).await.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((verdict, head.status.as_u16(), body))
}

/// A node that answers from a script. The last answer of a line is given again and again.
#[derive(Default)]
pub(super) struct Node {
    script: Mutex<HashMap<&'static str, VecDeque<Scripted>>>,
    seen: Mutex<Vec<Request<Bytes>>>,
}

#[derive(Clone)]
enum Scripted {
    Answer(u16, Vec<(&'static str, &'static str)>, &'static str),
    Error(NodeError),
    Hang,
}

impl Node {
    /// Answers `POST /jobs` and the like so.
    pub(super) fn on(self, asked: &'static str, status: u16, body: &'static str) -> Self {
        self.with(asked, Scripted::Answer(status, Vec::new(), body))
    }

    /// The same, with a header.
    pub(super) fn on_with(
        self,
        asked: &'static str,
        status: u16,
        header: (&'static str, &'static str),
        body: &'static str,
    ) -> Self {
        self.with(asked, Scripted::Answer(status, vec![header], body))
    }

    pub(super) fn fails(self, asked: &'static str, error: NodeError) -> Self {
        self.with(asked, Scripted::Error(error))
    }

    pub(super) fn hangs(self, asked: &'static str) -> Self {
        self.with(asked, Scripted::Hang)
    }

    fn with(self, asked: &'static str, answer: Scripted) -> Self {
        self.script
            .lock()
            .entry(asked)
            .or_default()
            .push_back(answer);
        self
    }

    /// What was asked for, as `POST /jobs`.
    pub(super) fn asked(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let asked = seen
            .iter()
            .map(|seen| format!("{} {}", seen.method(), seen.uri()));
        asked.collect()
    }

    /// How often something was asked for.
    pub(super) fn count(&self, asked: &str) -> usize {
        self.asked().iter().filter(|seen| *seen == asked).count()
    }

    /// The first request that came for this.
    pub(super) fn request(&self, asked: &str) -> Request<Bytes> {
        let seen = self.seen.lock();
        let mut seen = seen.iter();
        let found = seen.find(|seen| format!("{} {}", seen.method(), seen.uri()) == asked);
        found.expect("it was asked for").clone()
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
        let asked = format!("{} {}", request.method(), request.uri());
        self.seen.lock().push(request);
        let scripted = {
            let mut script = self.script.lock();
            let line = script.get_mut(asked.as_str());
            let line = line.unwrap_or_else(|| panic!("nobody expects `{asked}`"));
            match line.len() {
                1 => line.front().cloned().unwrap(),
                _ => line.pop_front().unwrap(),
            }
        };
        match scripted {
            Scripted::Answer(status, headers, body) => {
                let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                for (name, value) in headers {
                    answer.headers_mut().insert(name, value.parse().unwrap());
                }
                Ok(answer)
            }
            Scripted::Error(error) => Err(error),
            Scripted::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl NodeClient for Node {
    fn name(&self) -> &str {
        "tokyo/batch"
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
        self.answer(request).await
    }

    async fn stream(&self, request: Request<Content>) -> Result<Response<Pieces>, NodeError> {
        let (head, body) = request.into_parts();
        let body = body.to_bytes(1 << 30).await.unwrap();
        let answer = self.answer(Request::from_parts(head, body)).await?;
        Ok(answer.map(one_piece))
    }
}

/// What was reported, one line each.
pub(super) struct Told {
    lines: Mutex<Vec<String>>,
    calls: tokio::sync::Mutex<mpsc::UnboundedReceiver<Request<Bytes>>>,
    /// The report that finds the attempt superseded.
    pub(super) superseded_at: Option<&'static str>,
}

/// By which a test calls the gateway back.
pub(super) type Caller = mpsc::UnboundedSender<Request<Bytes>>;

impl Told {
    pub(super) fn new() -> (Arc<Self>, Caller) {
        let (caller, calls) = mpsc::unbounded_channel();
        let told = Told {
            lines: Mutex::default(),
            calls: calls.into(),
            superseded_at: None,
        };
        (Arc::new(told), caller)
    }

    /// One that is never called.
    pub(super) fn alone() -> Self {
        Told {
            lines: Mutex::default(),
            calls: mpsc::unbounded_channel().1.into(),
            superseded_at: None,
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    fn durable(&self, line: String) -> Result<(), Superseded> {
        if self.superseded_at.is_some_and(|at| line.starts_with(at)) {
            return Err(Superseded);
        }
        self.lines.lock().push(line);
        Ok(())
    }
}

#[async_trait]
impl Report for Told {
    async fn submitting(&self) -> Result<(), Superseded> {
        self.durable("submitting".into())
    }

    async fn handle(&self, handle: &str) -> Result<(), Superseded> {
        self.durable(format!("handle {handle}"))
    }

    fn progress(&self, fraction: Option<f64>, text: Option<&str>) {
        let fraction = fraction.map_or("-".into(), |fraction| fraction.to_string());
        let text = text.unwrap_or("-");
        self.lines
            .lock()
            .push(format!("progress {fraction} {text}"));
    }

    fn log(&self, line: &str) {
        self.lines.lock().push(format!("log {line}"));
    }

    async fn called_back(&self) -> Request<Bytes> {
        match self.calls.lock().await.recv().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }
}
