//! Which request is answered by what. Everything is there twice, bare and under `/api`, as in the real server; what is the
//! exception there is so here.

use super::json::{Json, object};
use super::reply::{self, Reply, broken, empty, no_file, ok};
use super::seen::Saw;
use super::server::{MOST_UPLOAD, Server};
use super::{control, info, jobs, origin, prompt, socket, upload, users, view};
use crate::answer::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A request that was read.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Answers one request. An error drops its connection.
pub(crate) async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    if path == "/sim" {
        return control::control(&server, request).await;
    }
    server.record.note(Saw::Request {
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
    });
    let knobs = server.knobs();
    if knobs.hang {
        server.until_knobs(|knobs| !knobs.hang).await;
    }
    if knobs.answer_ms > 0 {
        sleep(Duration::from_millis(knobs.answer_ms)).await;
    }
    let mut reply = match knobs
        .status
        .and_then(|status| StatusCode::from_u16(status).ok())
    {
        Some(status) => empty(status),
        None => guarded(&server, request, &path).await?,
    };
    reply::set(&mut reply, header::SERVER, "Python/3.11 aiohttp/3.14.5");
    Ok(reply)
}

/// Lets through what the rule about origins lets through, and says what may be kept.
async fn guarded(
    server: &Arc<Server>,
    request: Request<Incoming>,
    path: &str,
) -> io::Result<Reply> {
    if let Some(refused) = origin::refused(&server.spec, request.method(), request.headers()) {
        return Ok(refused);
    }
    if request.method() == Method::OPTIONS {
        return Ok(origin::allowed(&server.spec, empty(StatusCode::OK)));
    }
    if path == "/ws" || path == "/api/ws" {
        return Ok(socket::open(server, request));
    }
    let reply = match read(request).await {
        Ok(call) => route(server, call).await?,
        Err(Unread::TooLong(length)) => {
            let told = format!(
                "Maximum request body size {MOST_UPLOAD} exceeded, actual body size {length}"
            );
            reply::text(StatusCode::PAYLOAD_TOO_LARGE, &told)
        }
        Err(Unread::Broken(error)) => return Err(error),
    };
    let reply = view::cached(path, reply);
    Ok(origin::allowed(&server.spec, reply))
}

enum Unread {
    TooLong(usize),
    Broken(io::Error),
}

async fn read(request: Request<Incoming>) -> Result<Call, Unread> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MOST_UPLOAD)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                Unread::TooLong(MOST_UPLOAD + 1)
            } else {
                Unread::Broken(io::Error::other(error))
            }
        })?;
    let query = head
        .uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty());
    let query = query.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (
            decoded(&key.replace('+', " ")),
            decoded(&value.replace('+', " ")),
        )
    });
    Ok(Call {
        method: if head.method == Method::HEAD {
            Method::GET
        } else {
            head.method
        },
        path: head.uri.path().to_owned(),
        query: query.collect(),
        headers: head.headers,
        body: body.to_bytes(),
    })
}

async fn route(server: &Arc<Server>, call: Call) -> io::Result<Reply> {
    let path = call.path.clone();
    if let Some(jobs) = path.strip_prefix("/api/jobs") {
        return Ok(jobs::answer(server, &call, jobs));
    }
    // What was moved under `/internal` is only there.
    let bare = path.strip_prefix("/api").unwrap_or(&path);
    // A slash within a name stays what it is: names are cut before they are decoded.
    let parts: Vec<String> = bare.split('/').skip(1).map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let get = call.method == Method::GET;
    let post = call.method == Method::POST;
    let reply = match parts.as_slice() {
        // It is done to its end, whether or not whoever asked stays.
        ["prompt"] if post => {
            let server = server.clone();
            let taken = tokio::spawn(async move {
                tokio::select! {
                    taken = prompt::post(&server, &call) => taken,
                    () = server.killed() => Err(io::Error::other("its process died")),
                }
            });
            return taken.await.map_err(io::Error::other)?;
        }
        ["prompt"] if get => ok(&server.exec_info()),
        ["queue"] if get => ok(&server
            .queue
            .lock()
            .json(!server.spec.version.stamps_create_time())),
        ["queue"] if post => post_queue(server, &call),
        ["interrupt"] if post => interrupt(server, &call),
        ["free"] if post => free(server, &call),
        ["history"] if get => history(server, &call),
        ["history"] if post => post_history(server, &call),
        ["history", id] if get => ok(&server.queue.lock().history_json_of(id)),
        ["upload", kind @ ("image" | "mask")] if post => {
            upload::post(server, &call, *kind == "mask").await
        }
        ["view"] if get => match server.knobs().view_status {
            Some(status) => empty(StatusCode::from_u16(status).unwrap_or_default()),
            None => view::get(server, &call).await,
        },
        ["internal", ..] if path.starts_with("/api/") => missing(&call),
        _ => match users::answer(server, &call, &parts)
            .or_else(|| info::answer(server, &call, &parts))
        {
            Some(reply) => reply,
            None => missing(&call),
        },
    };
    Ok(reply)
}

/// Below `/` lie files, which can be got and nothing else.
pub(crate) fn missing(call: &Call) -> Reply {
    if call.method == Method::GET {
        let mut reply = no_file(StatusCode::NOT_FOUND, "application/octet-stream");
        // That there is none is found after it was decided how long it may be kept.
        if view::is_image(&call.path) {
            reply::set(&mut reply, header::CACHE_CONTROL, "public, max-age=86400");
        }
        return reply;
    }
    let mut reply = reply::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    reply::set(&mut reply, header::ALLOW, "GET,HEAD");
    reply
}

fn post_queue(server: &Server, call: &Call) -> Reply {
    let Ok(asked) = call.json() else {
        return broken();
    };
    if asked.get("clear").is_some_and(Json::is_true) {
        server.queue.lock().clear();
        server.queue_updated();
    }
    for id in asked.get("delete").and_then(Json::list).unwrap_or(&[]) {
        server.delete(id.text().unwrap_or(""));
    }
    empty(StatusCode::OK)
}

fn post_history(server: &Server, call: &Call) -> Reply {
    let Ok(asked) = call.json() else {
        return broken();
    };
    let mut queue = server.queue.lock();
    if asked.get("clear").is_some_and(Json::is_true) {
        queue.forget_all();
    }
    for id in asked.get("delete").and_then(Json::list).unwrap_or(&[]) {
        queue.forget(id.text().unwrap_or(""));
    }
    empty(StatusCode::OK)
}

fn interrupt(server: &Server, call: &Call) -> Reply {
    let asked = call.json().unwrap_or_else(|_| object! {});
    let id = asked.get("prompt_id").filter(|id| id.is_true());
    match id {
        Some(id) if server.spec.version.interrupts_one() => {
            server.interrupt_if_running(id.text().unwrap_or(""));
        }
        _ => server.interrupt(),
    }
    empty(StatusCode::OK)
}

fn free(server: &Server, call: &Call) -> Reply {
    let Ok(asked) = call.json() else {
        return broken();
    };
    let is = |key| asked.get(key).is_some_and(Json::is_true);
    server.free(is("unload_models"), is("free_memory"));
    empty(StatusCode::OK)
}

fn history(server: &Server, call: &Call) -> Reply {
    let number = |name| call.query(name).map(|text| text.parse::<i64>()).transpose();
    let (Ok(max), Ok(offset)) = (number("max_items"), number("offset")) else {
        return broken();
    };
    ok(&server.queue.lock().history_json(max, offset))
}

/// A part of a path or a query.
pub(crate) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

// === impl Call ===

impl Call {
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Result<Json, serde_json::Error> {
        Json::read(&self.body)
    }
}
