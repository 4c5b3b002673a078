//! A server whose work takes long: it takes a job, says what it calls it, and can be asked for it or calls back.
//!
//! | request | answer |
//! |---|---|
//! | `POST /jobs` | 202 `{"id", "status"}` |
//! | `POST /tasks` | the same as 201 with `Location`, on a host that is not this one, and no body |
//! | `POST /v2/{any}/run` | the same as 200, in the words of a serverless endpoint |
//! | `GET /jobs/{id}`, `GET /v2/{any}/status/{id}` | how far it is; 404 for one that it does not know |
//! | `GET /jobs/{id}/result` | its result; 409 until it is done |
//! | `GET /jobs?attempt={a}` | `{"jobs": […]}`: those that came with this `Idempotency-Key` |
//! | `DELETE /jobs/{id}`, `POST /v2/{any}/cancel/{id}` | it is stopped |
//!
//! A job may name whom to call in the header `X-Callback`, or in its JSON as `webhook`; and its client's own name for
//! it in the header `Client-Key`, or in its JSON as `key`, by which submissions are counted.

use crate::answer::{AtWork, Body, json_answer, load, pattern, pieces, text, text_value};
use crate::knobs::{Knobs, Overload, Submission};
use crate::node::Inner;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// The jobs that a node knows.
#[derive(Default)]
pub(crate) struct Jobs {
    count: u64,
    by_id: BTreeMap<String, Job>,
}

struct Job {
    began: Instant,
    takes: Duration,
    state: State,
    attempt: Option<String>,
    result: Bytes,
    error: Option<String>,
    at_work: Option<AbortHandle>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Running,
    Done,
    Failed,
    Canceled,
}

/// How a client speaks with it.
#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Plain,
    Location,
    Serverless,
}

/// What is asked of it, if it is for this.
pub(crate) async fn answer(
    inner: &Arc<Inner>,
    request: Request<Incoming>,
) -> Option<io::Result<Response<Body>>> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let answered = match (request.method(), parts.as_slice()) {
        (&Method::POST, ["jobs"]) => return Some(submit(inner, request, Dialect::Plain).await),
        (&Method::POST, ["tasks"]) => return Some(submit(inner, request, Dialect::Location).await),
        (&Method::POST, ["v2", _, "run"]) => {
            return Some(submit(inner, request, Dialect::Serverless).await);
        }
        (&Method::GET, ["jobs"]) => by_attempt(inner, request.uri().query()),
        (&Method::GET, ["jobs", id]) => status(inner, id, Dialect::Plain),
        (&Method::GET, ["v2", _, "status", id]) => status(inner, id, Dialect::Serverless),
        (&Method::GET, ["jobs", id, "result"]) => result(inner, id),
        (&Method::DELETE, ["jobs", id]) => cancel(inner, id),
        (&Method::POST, ["v2", _, "cancel", id]) => cancel(inner, id),
        _ => return None,
    };
    if inner.knobs().hang_status {
        pending::<()>().await;
    }
    Some(Ok(answered))
}

/// Whether a path is for this.
pub(crate) fn is_for(path: &str) -> bool {
    let first = path.split('/').nth(1);
    first.is_some_and(|first| ["jobs", "tasks", "v2"].contains(&first))
}

async fn submit(
    inner: &Arc<Inner>,
    request: Request<Incoming>,
    dialect: Dialect,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let named = |header: &str, member: &str| {
        let of_header = head
            .headers
            .get(header)
            .and_then(|value| value.to_str().ok());
        of_header.or(json[member].as_str()).map(str::to_owned)
    };
    let knobs = inner.knobs();
    if let Some(key) = named("client-key", "key") {
        inner.note(|seen| *seen.submits.entry(key).or_default() += 1);
    }
    inner.note(|seen| {
        seen.requests += 1;
        seen.bytes_in += body.len() as u64;
    });
    if inner.at_work() >= knobs.slots && knobs.overload == Overload::Refuse {
        return Ok(text(
            StatusCode::SERVICE_UNAVAILABLE,
            "all slots are at work",
        ));
    }
    if let Some(status) = knobs
        .status
        .and_then(|status| StatusCode::from_u16(status).ok())
    {
        return Ok(text(status, "failing as the knobs say"));
    }
    if knobs.submission == Submission::DropBefore {
        return Err(io::Error::other("dropped as the knobs say"));
    }
    let about =
        json!({"node": knobs.name, "bytes": body.len(), "body": String::from_utf8_lossy(&body)});
    let id = begin(
        inner,
        &knobs,
        &head.headers,
        about,
        named("x-callback", "webhook"),
    );
    match knobs.submission {
        Submission::DropAfter => return Err(io::Error::other("dropped as the knobs say")),
        Submission::Hang => pending().await,
        Submission::Answer | Submission::DropBefore => {}
    }
    sleep(Duration::from_millis(knobs.slow_head_ms)).await;
    Ok(match dialect {
        Dialect::Plain => json_answer(StatusCode::ACCEPTED, &json!({"id": id, "status": "queued"})),
        Dialect::Serverless => {
            json_answer(StatusCode::OK, &json!({"id": id, "status": "IN_QUEUE"}))
        }
        Dialect::Location => {
            let mut answer = text(StatusCode::CREATED, "");
            if let Ok(there) = format!("http://nowhere.invalid/jobs/{id}").parse() {
                answer.headers_mut().insert(header::LOCATION, there);
            }
            answer
        }
    })
}

/// Takes a job and starts its work, which goes on whoever leaves.
fn begin(
    inner: &Arc<Inner>,
    knobs: &Knobs,
    headers: &HeaderMap,
    about: Value,
    callback: Option<String>,
) -> String {
    let attempt = headers.get("idempotency-key");
    let takes = knobs.work(0, None, false);
    let mut jobs = inner.jobs.lock();
    jobs.count += 1;
    let id = format!("{}-{}", knobs.name, jobs.count);
    let result = match knobs.result_bytes {
        0 => Bytes::from(about.to_string()),
        bytes => pattern(bytes),
    };
    let job = Job {
        began: Instant::now(),
        takes,
        state: State::Running,
        attempt: attempt.and_then(|value| Some(value.to_str().ok()?.to_owned())),
        result,
        error: None,
        at_work: None,
    };
    let mut at_work = AtWork::begin(inner, knobs.slots);
    let load = load(inner, knobs);
    let (its_inner, its_id) = (inner.clone(), id.clone());
    let task = tokio::spawn(async move {
        let work = async {
            sleep(load.unwrap_or_default() + takes).await;
            its_inner.until_knobs(|knobs| !knobs.hold_jobs).await;
            at_work.finished = true;
            drop(at_work);
            let no_room = load.is_none().then(|| "CUDA out of memory".to_owned());
            let error = no_room.or(its_inner.knobs().job_error);
            let done = its_inner.end(&its_id, error);
            if let (true, Some(callback)) = (done, callback) {
                call(&its_inner, &its_id, &callback).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = its_inner.killed() => {}
        }
    });
    jobs.by_id.insert(
        id.clone(),
        Job {
            at_work: Some(task.abort_handle()),
            ..job
        },
    );
    id
}

fn status(inner: &Inner, id: &str, dialect: Dialect) -> Response<Body> {
    let jobs = inner.jobs.lock();
    let Some(job) = jobs.by_id.get(id) else {
        return unknown(id);
    };
    let mut about = match dialect {
        Dialect::Serverless => {
            let mut about = json!({"id": id, "status": job.state.serverless()});
            if job.state == State::Done {
                about["output"] = String::from_utf8_lossy(&job.result).into();
            }
            about
        }
        _ => json!({"id": id, "status": job.state.plain(), "progress": job.progress()}),
    };
    if let Some(error) = &job.error {
        about["error"] = error.as_str().into();
    }
    json_answer(StatusCode::OK, &about)
}

fn result(inner: &Inner, id: &str) -> Response<Body> {
    let jobs = inner.jobs.lock();
    match jobs.by_id.get(id) {
        Some(job) if job.state == State::Done => pieces(
            &inner.knobs(),
            "application/octet-stream",
            job.result.clone(),
        ),
        Some(_) => text(StatusCode::CONFLICT, "it is not done"),
        None => unknown(id),
    }
}

fn cancel(inner: &Inner, id: &str) -> Response<Body> {
    let mut jobs = inner.jobs.lock();
    let Some(job) = jobs.by_id.get_mut(id) else {
        return unknown(id);
    };
    if job.state == State::Running {
        job.state = State::Canceled;
        if let Some(at_work) = job.at_work.take() {
            at_work.abort();
        }
        inner.note(|seen| seen.jobs_canceled += 1);
    }
    json_answer(
        StatusCode::OK,
        &json!({"id": id, "status": job.state.plain()}),
    )
}

fn by_attempt(inner: &Inner, query: Option<&str>) -> Response<Body> {
    let wanted = text_value(query, "attempt");
    let jobs = inner.jobs.lock();
    let found: Vec<Value> = jobs
        .by_id
        .iter()
        .filter(|(_, job)| job.attempt.as_deref() == wanted)
        .map(|(id, job)| json!({"id": id, "status": job.state.plain()}))
        .collect();
    json_answer(StatusCode::OK, &json!({"jobs": found}))
}

fn unknown(id: &str) -> Response<Body> {
    json_answer(
        StatusCode::NOT_FOUND,
        &json!({"detail": format!("no job {id}")}),
    )
}

/// Calls whoever wants to hear of a job's end, as often as the knobs say.
async fn call(inner: &Inner, id: &str, callback: &str) {
    for _ in 0..inner.knobs().callback_tries {
        let state = inner.jobs.lock().by_id.get(id).map(|job| job.state);
        let Some(state) = state else { return };
        let about = json!({"id": id, "status": state.plain()});
        if let Ok(true) = post(callback, &about).await {
            inner.note(|seen| seen.callbacks += 1);
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether it was taken.
async fn post(url: &str, about: &Value) -> io::Result<bool> {
    let url: http::Uri = url.parse().map_err(io::Error::other)?;
    let authority = url.authority().ok_or_else(|| io::Error::other("no host"))?;
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(about.to_string())))
        .map_err(io::Error::other)?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        Ok(answer.status().is_success())
    };
    tokio::select! {
        taken = exchange => taken,
        _ = connection => Err(io::Error::other("the connection ended")),
    }
}

// === impl Inner ===

impl Inner {
    /// Forgets all jobs; what is at work on them ends.
    pub(crate) fn forget_jobs(&self) {
        for (_, job) in std::mem::take(&mut self.jobs.lock().by_id) {
            if let Some(at_work) = job.at_work {
                at_work.abort();
            }
        }
    }

    /// A job's work is done; `false`: it is not known any more.
    fn end(&self, id: &str, error: Option<String>) -> bool {
        let mut jobs = self.jobs.lock();
        let Some(job) = jobs.by_id.get_mut(id) else {
            return false;
        };
        job.state = match error {
            Some(_) => State::Failed,
            None => State::Done,
        };
        job.error = error;
        self.note(|seen| seen.jobs_ended += 1);
        true
    }
}

// === impl Job ===

impl Job {
    fn progress(&self) -> f64 {
        match self.state {
            State::Done => 1.0,
            _ if self.takes.is_zero() => 0.0,
            _ => (self.began.elapsed().as_secs_f64() / self.takes.as_secs_f64()).min(0.99),
        }
    }
}

// === impl State ===

impl State {
    fn plain(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Canceled => "canceled",
        }
    }

    fn serverless(self) -> &'static str {
        match self {
            State::Running => "IN_PROGRESS",
            State::Done => "COMPLETED",
            State::Failed => "FAILED",
            State::Canceled => "CANCELLED",
        }
    }
}
