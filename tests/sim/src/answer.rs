//! What a node answers.

use crate::batch;
use crate::gpu::OnGpu;
use crate::knobs::{Drop, Knobs, Overload, Unload};
use crate::node::Inner;
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// `n` bytes that are the same everywhere: byte `i` is `i % 251`.
pub fn pattern(n: usize) -> Bytes {
    let round: Vec<u8> = (0..251).collect();
    let mut bytes = round.repeat(n.div_ceil(round.len()));
    bytes.truncate(n);
    bytes.into()
}

/// Answers one request. An error drops its connection.
pub(crate) async fn answer(
    inner: Arc<Inner>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (_, "/sim") => control(&inner, request).await,
        (_, "/health") => health(&inner).await,
        (&Method::POST, "/unload") => {
            note_path(&inner, &path);
            Ok(unload(&inner))
        }
        _ if batch::is_for(&path) => {
            note_path(&inner, &path);
            let answered = batch::answer(&inner, request).await;
            answered.unwrap_or_else(|| Ok(text(StatusCode::NOT_FOUND, "no such thing")))
        }
        _ => {
            inner.note(|seen| seen.requests += 1);
            note_path(&inner, &path);
            work(inner, request, &path).await
        }
    }
}

fn note_path(inner: &Inner, path: &str) {
    inner.note(|seen| {
        if seen.paths.len() >= 1000 {
            seen.paths.remove(0);
        }
        seen.paths.push(path.to_owned());
    });
}

async fn control(inner: &Inner, request: Request<Incoming>) -> io::Result<Response<Body>> {
    if *request.method() != Method::GET {
        let changes = request
            .into_body()
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        let knobs = inner.knobs();
        match knobs.overlay(&changes) {
            Ok(knobs) => inner.set(knobs),
            Err(why) => return Ok(text(StatusCode::BAD_REQUEST, &why)),
        }
    }
    Ok(json_answer(
        StatusCode::OK,
        &json!({"knobs": inner.knobs(), "seen": inner.seen()}),
    ))
}

async fn health(inner: &Inner) -> io::Result<Response<Body>> {
    inner.note(|seen| seen.probes += 1);
    let knobs = inner.knobs();
    if knobs.hang_health {
        std::future::pending::<()>().await;
    }
    let status = knobs
        .health_status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::OK);
    let free_mib = inner.gpu.as_ref().map_or(knobs.vram_mib, OnGpu::free_mib);
    let body = json!({"ok": status.is_success(), "name": knobs.name, "busy": inner.at_work(), "vram_free_mib": free_mib});
    Ok(json_answer(status, &body))
}

/// Lets go of the card, or not, as the knobs say.
fn unload(inner: &Arc<Inner>) -> Response<Body> {
    let knobs = inner.knobs();
    if let Some(gpu) = &inner.gpu {
        gpu.asked();
    }
    if knobs.unload == Unload::Fails {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failing as the knobs say",
        );
    }
    let inner = inner.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(knobs.unload_ms)).await;
        if let Some(gpu) = &inner.gpu {
            gpu.unload(knobs.unload);
        }
    });
    json_answer(StatusCode::ACCEPTED, &json!({"ok": true}))
}

/// Takes the memory of a shared card that its work needs. `None`: there is too little; else how long that takes.
pub(crate) fn load(inner: &Inner, knobs: &Knobs) -> Option<Duration> {
    let Some(gpu) = &inner.gpu else {
        return Some(Duration::ZERO);
    };
    let loads = gpu.load(knobs.loads_mib)?;
    Some(Duration::from_millis(if loads {
        knobs.model_load_ms
    } else {
        0
    }))
}

/// Counts a request as being at work until it is dropped.
pub(crate) struct AtWork {
    inner: Arc<Inner>,
    pub(crate) finished: bool,
}

impl AtWork {
    pub(crate) fn begin(inner: &Arc<Inner>, slots: u32) -> Self {
        inner.note(|seen| {
            seen.at_work += 1;
            seen.at_work_peak = seen.at_work_peak.max(seen.at_work);
            seen.over_slots += u64::from(seen.at_work > slots);
        });
        if let Some(gpu) = &inner.gpu {
            gpu.begin();
        }
        AtWork {
            inner: inner.clone(),
            finished: false,
        }
    }
}

impl std::ops::Drop for AtWork {
    fn drop(&mut self) {
        if let Some(gpu) = &self.inner.gpu {
            gpu.end();
        }
        self.inner.note(|seen| {
            seen.at_work -= 1;
            if self.finished {
                seen.finished += 1
            } else {
                seen.client_gone += 1
            }
        });
    }
}

async fn work(
    inner: Arc<Inner>,
    request: Request<Incoming>,
    path: &str,
) -> io::Result<Response<Body>> {
    let knobs = inner.knobs();
    if path == "/ws" {
        return Ok(socket(inner, request));
    }
    let full = inner.at_work() >= knobs.slots;
    if full && knobs.overload == Overload::Refuse {
        return Ok(text(
            StatusCode::SERVICE_UNAVAILABLE,
            "all slots are at work",
        ));
    }
    let mut at_work = AtWork::begin(&inner, knobs.slots);
    let Some(load) = load(&inner, &knobs) else {
        return Ok(text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "CUDA out of memory",
        ));
    };
    sleep(load).await;
    if path == "/echo" {
        return Ok(echo(at_work, request));
    }
    let query = request.uri().query().map(str::to_owned);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    inner.note(|seen| seen.bytes_in += body.len() as u64);
    if knobs.hang {
        std::future::pending::<()>().await;
    }
    let asked_ms = if path == "/slow" {
        value(query.as_deref(), "ms")
    } else {
        None
    };
    let loads = inner.load_model(text_value(query.as_deref(), "model"));
    let began = Instant::now();
    let time = knobs.work(body.len(), asked_ms, loads);
    if knobs.notices_disconnect {
        sleep(time).await;
        at_work.finished = true;
    } else {
        // The work is its own task: it goes on though its client left.
        let done = tokio::spawn(async move {
            sleep(time).await;
            at_work.finished = true;
            drop(at_work);
        });
        let _ = done.await;
    }
    if knobs.drop == Drop::BeforeHead {
        return Err(io::Error::other("dropped as the knobs say"));
    }
    sleep(Duration::from_millis(knobs.slow_head_ms)).await;
    let failing = knobs.fail_after.is_some_and(|n| inner.requests() > n);
    if let Some(status) = knobs
        .status
        .or(failing.then_some(500))
        .and_then(|status| StatusCode::from_u16(status).ok())
    {
        return Ok(text(status, "failing as the knobs say"));
    }
    let (content_type, content) = match path.split('/').nth(1) {
        Some("status") => {
            let status = path
                .rsplit('/')
                .next()
                .and_then(|status| status.parse().ok())
                .and_then(|status| StatusCode::from_u16(status).ok());
            return Ok(text(status.unwrap_or(StatusCode::BAD_REQUEST), "as asked"));
        }
        Some("bytes") => (
            "application/octet-stream",
            pattern(
                path.rsplit('/')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0),
            ),
        ),
        Some("trailers") => return Ok(trailers()),
        Some("sse") => {
            return Ok(sse(
                &knobs.name,
                value(query.as_deref(), "events").unwrap_or(5),
                value(query.as_deref(), "every_ms").unwrap_or(100),
            ));
        }
        _ => {
            let headers: serde_json::Map<_, _> = head
                .headers
                .iter()
                .map(|(name, value)| {
                    (
                        name.to_string(),
                        String::from_utf8_lossy(value.as_bytes()).into(),
                    )
                })
                .collect();
            let about = json!({
                "node": knobs.name,
                "method": head.method.as_str(),
                "path": head.uri.path(),
                "query": query,
                "bytes": body.len(),
                "sha256": hex(&Sha256::digest(&body)),
                "headers": headers,
                "ms": began.elapsed().as_millis() as u64,
            });
            ("application/json", Bytes::from(about.to_string() + "\n"))
        }
    };
    Ok(pieces(&knobs, content_type, content))
}

/// A body and a line behind it, as gRPC has it.
fn trailers() -> Response<Body> {
    let mut behind = http::HeaderMap::new();
    behind.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [
        Frame::data(Bytes::from_static(b"body")),
        Frame::trailers(behind),
    ];
    let frames = stream::iter(frames.map(Ok::<_, io::Error>));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let named = http::HeaderValue::from_static("grpc-status");
    response.headers_mut().insert(header::TRAILER, named);
    response
}

/// Sends a body back while it arrives.
fn echo(at_work: AtWork, request: Request<Incoming>) -> Response<Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let body = request.into_body().into_data_stream();
    let back = stream::unfold(Some((body, at_work)), |state| async {
        let (mut body, mut at_work) = state?;
        match body.next().await {
            Some(Ok(bytes)) => {
                at_work
                    .inner
                    .note(|seen| seen.bytes_in += bytes.len() as u64);
                Some((Ok(Frame::data(bytes)), Some((body, at_work))))
            }
            Some(Err(error)) => Some((Err(io::Error::other(error)), None)),
            None => {
                at_work.finished = true;
                None
            }
        }
    });
    let mut response = Response::new(StreamBody::new(back).boxed_unsync());
    if let Some(content_type) = content_type {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// A body in pieces, or whole; broken off in the middle where the knobs say so.
pub(crate) fn pieces(knobs: &Knobs, content_type: &'static str, content: Bytes) -> Response<Body> {
    let breaks = knobs.drop == Drop::MidBody;
    let size = if breaks {
        content.len().div_ceil(2).max(1)
    } else {
        knobs.trickle_bytes
    };
    let body = if size == 0 {
        Full::new(content.clone())
            .map_err(|never| match never {})
            .boxed_unsync()
    } else {
        let every = Duration::from_millis(knobs.trickle_ms);
        let parts: Vec<Bytes> = (0..content.len())
            .step_by(size)
            .map(|at| content.slice(at..content.len().min(at + size)))
            .collect();
        let sent = stream::iter(parts.into_iter().enumerate()).then(move |(i, part)| async move {
            if i > 0 {
                sleep(every).await;
                if breaks {
                    return Err(io::Error::other("broken off as the knobs say"));
                }
            }
            Ok(Frame::data(part))
        });
        StreamBody::new(sent).boxed_unsync()
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, content.len().into());
    response
}

fn sse(name: &str, events: u64, every_ms: u64) -> Response<Body> {
    let name = name.to_owned();
    let sent: std::pin::Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>> =
        Box::pin(stream::iter(0..events).then(move |i| {
            let text = format!("id: {i}\ndata: {}\n\n", json!({"i": i, "node": name}));
            async move {
                if i > 0 {
                    sleep(Duration::from_millis(every_ms)).await;
                }
                Ok(Frame::data(Bytes::from(text)))
            }
        }));
    let mut response = Response::new(StreamBody::new(sent).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/event-stream"),
    );
    response
}

/// A WebSocket that greets, echoes, and pushes where `push_ms` says so.
fn socket(inner: Arc<Inner>, mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()))
    else {
        return text(StatusCode::BAD_REQUEST, "a WebSocket handshake is wanted");
    };
    let push_ms = value(request.uri().query(), "push_ms");
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else {
            return;
        };
        inner.note(|seen| seen.sockets += 1);
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let _ = tokio::select! {
            talked = talk(socket, inner.knobs().name, push_ms) => talked,
            () = inner.killed() => Ok(()),
        };
        inner.note(|seen| seen.sockets -= 1);
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("Upgrade"),
    );
    headers.insert(
        header::UPGRADE,
        header::HeaderValue::from_static("websocket"),
    );
    if let Ok(key) = key.parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    response
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    name: String,
    push_ms: Option<u64>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    socket
        .send(Message::text(json!({"node": name}).to_string()))
        .await?;
    let mut pushed = 0u64;
    loop {
        let push = async {
            match push_ms {
                Some(ms) => sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await?,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = push => {
                socket.send(Message::text(format!("push {pushed}"))).await?;
                pushed += 1;
            }
        }
    }
}

pub(crate) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(
        Full::new(Bytes::copy_from_slice(text.as_bytes()))
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    response
}

pub(crate) fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = text(status, &(value.to_string() + "\n"));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

pub(crate) fn text_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn value(query: Option<&str>, name: &str) -> Option<u64> {
    text_value(query, name)?.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
