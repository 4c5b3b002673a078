//! Which request is answered by what, in each engine.

use super::ask::{Api, Work};
use super::embed::{self, Embeds};
use super::fault::Fault;
use super::reply::{self, Reply};
use super::seen::{Asked, End, Line};
use super::server::Server;
use super::shelf::State;
use super::spec::Engine;
use super::{control, info, metrics, stream};
use crate::answer::Body;
use crate::comfy::json::{Json, object};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// How many requests llama.cpp takes on one connection.
const MOST_ON_CONNECTION: u32 = 100;

/// A request that was read.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Bytes,
}

/// What a path is for.
enum Route {
    Text(Api),
    Embed(Embeds),
    /// A question about the engine, or an order to it.
    Other,
}

/// Answers one request. An error drops its connection.
pub(crate) async fn answer(
    server: Arc<Server>,
    on_connection: Arc<AtomicU32>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    if request.uri().path() == "/sim" {
        return control::control(&server, request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let closes = request.headers().get(header::CONNECTION);
    let closes = closes.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let line = server.record.ask(asked(&request));
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    line.body(body.clone());
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or("").to_owned(),
        body,
    };
    let mut reply = route(&server, line, &call).await?;
    match server.spec.engine {
        Engine::Vllm => {
            reply::set(&mut reply, header::SERVER, "uvicorn");
            reply::set(&mut reply, header::VARY, "Origin");
        }
        Engine::LlamaCpp => {
            reply::set(&mut reply, header::SERVER, "llama.cpp");
            let origin = origin.unwrap_or(http::HeaderValue::from_static(""));
            reply
                .headers_mut()
                .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let streams = reply.headers().get(header::CONTENT_TYPE);
            if streams.is_some_and(|kind| kind == "text/event-stream") {
                let name = http::HeaderName::from_static("x-accel-buffering");
                reply::set(&mut reply, name, "no");
            }
            if closes {
                reply::set(&mut reply, header::CONNECTION, "close");
            } else if on_connection.fetch_add(1, Ordering::Relaxed) + 1 < MOST_ON_CONNECTION {
                let kept = http::HeaderName::from_static("keep-alive");
                reply::set(&mut reply, kept, "timeout=5, max=100");
            } else {
                reply::set(&mut reply, header::CONNECTION, "close");
            }
        }
        Engine::Ollama => {}
    }
    Ok(reply)
}

fn asked(request: &Request<Incoming>) -> Asked {
    let headers = |headers: &HeaderMap| {
        let all = headers.iter();
        let texts = all.map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        });
        texts.collect()
    };
    let path = request.uri().path_and_query();
    Asked {
        method: request.method().to_string(),
        path: path.map(ToString::to_string).unwrap_or_default(),
        headers: headers(request.headers()),
        body: Bytes::new(),
        model: None,
        prompt_tokens: 0,
        hit_tokens: None,
        answer_tokens: 0,
        end: None,
    }
}

async fn route(server: &Arc<Server>, mut line: Line, call: &Call) -> io::Result<Reply> {
    let engine = server.spec.engine;
    let (route, method) = match find(server, &call.path) {
        Ok(found) => found,
        Err(fault) => return Ok(ended(&mut line, fault.reply(engine, None))),
    };
    // One that is still loading says nothing else. (vLLM does not listen then.)
    let loads =
        engine == Engine::LlamaCpp && !server.spec.router && server.shelf.state(0) != State::There;
    if loads {
        return Ok(ended(&mut line, Fault::Loading.reply(engine, None)));
    }
    if engine == Engine::LlamaCpp && call.method == Method::OPTIONS {
        return Ok(ended(&mut line, preflight()));
    }
    let is_asked_right = call.method == method
        || (method == Method::GET && call.method == Method::HEAD && engine != Engine::Vllm);
    if !is_asked_right && engine == Engine::LlamaCpp && call.path == "/props" {
        let why =
            "This server does not support changing global properties. Start it with `--props`";
        return Ok(ended(&mut line, Fault::Cannot(why).reply(engine, None)));
    }
    if !is_asked_right {
        let allowed = if method == Method::GET { "GET" } else { "POST" };
        return Ok(ended(
            &mut line,
            Fault::NoMethod(allowed).reply(engine, None),
        ));
    }
    if let Route::Other = route {
        let reply = question(server, call).await;
        return Ok(ended(&mut line, reply));
    }
    if server.knobs().hang {
        server.until_knobs(|knobs| !knobs.hang).await;
    }
    let api = match &route {
        Route::Text(api) => Some(*api),
        _ => None,
    };
    let Ok(body) = Json::read(&call.body) else {
        let fault = Fault::NoJson(call.body.len());
        return Ok(ended(&mut line, fault.reply(engine, api)));
    };
    match route {
        Route::Text(api) => match Work::read(&server.spec, api, &body) {
            Ok(work) => stream::answer(server, line, work).await,
            Err(fault) => Ok(ended(&mut line, fault.reply(engine, Some(api)))),
        },
        Route::Embed(embeds) => embed::answer(server, line, embeds, &body).await,
        Route::Other => Ok(ended(&mut line, Fault::NoPath.reply(engine, None))),
    }
}

fn ended(line: &mut Line, reply: Reply) -> Reply {
    line.end(End::Answered(reply.status().as_u16()));
    reply
}

/// What a path is for, and how it is asked for.
fn find(server: &Server, path: &str) -> Result<(Route, Method), Fault> {
    let text = |api| Ok((Route::Text(api), Method::POST));
    let get = || Ok((Route::Other, Method::GET));
    let post = || Ok((Route::Other, Method::POST));
    let embed = |embeds| Ok((Route::Embed(embeds), Method::POST));
    let embeds = server.spec.models.first().is_some_and(|model| model.embeds);
    let knobs = server.knobs();
    match (server.spec.engine, path) {
        (Engine::Vllm, "/v1/embeddings") if embeds => embed(Embeds::OpenAi),
        (Engine::Vllm, _) if embeds && path.starts_with("/v1/") && path != "/v1/models" => {
            Err(Fault::NoPath)
        }
        (Engine::Vllm, "/metrics") if !knobs.metrics => Err(Fault::NoPath),
        (Engine::Ollama, "/v1/embeddings") => embed(Embeds::OpenAi),
        (Engine::Ollama, "/api/embed") => embed(Embeds::Ollama),
        (Engine::Ollama, "/api/embeddings") => embed(Embeds::OllamaOne),
        (Engine::LlamaCpp, "/v1/embeddings" | "/embeddings") => embed(Embeds::OpenAi),
        (_, "/v1/chat/completions") => text(Api::Chat),
        (_, "/v1/completions") => text(Api::Completion),
        (_, "/v1/responses") => text(Api::Responses),
        (_, "/v1/messages") => text(Api::Messages),
        (_, "/v1/models") => get(),
        (
            Engine::Vllm,
            "/health" | "/ping" | "/version" | "/load" | "/metrics" | "/is_sleeping",
        ) => get(),
        (
            Engine::Vllm,
            "/tokenize" | "/detokenize" | "/v1/messages/count_tokens" | "/sleep" | "/wake_up",
        ) => post(),
        (Engine::LlamaCpp, "/chat/completions") => text(Api::Chat),
        (Engine::LlamaCpp, "/completion" | "/completions") => text(Api::Native),
        (Engine::LlamaCpp, "/infill") => text(Api::Infill),
        (Engine::LlamaCpp, "/responses") => text(Api::Responses),
        (
            Engine::LlamaCpp,
            "/health" | "/v1/health" | "/props" | "/slots" | "/metrics" | "/models",
        ) => get(),
        (Engine::LlamaCpp, "/tokenize" | "/detokenize" | "/v1/messages/count_tokens") => post(),
        (Engine::LlamaCpp, "/models/load" | "/models/unload") if server.spec.router => post(),
        (Engine::LlamaCpp, "/v1/rerank" | "/rerank") => Err(Fault::Cannot(
            "This server does not support reranking. Start it with `--reranking`",
        )),
        (Engine::LlamaCpp, "/v1/audio/transcriptions") => Err(Fault::Cannot(
            "The current model does not support audio input.",
        )),
        (Engine::Ollama, "/api/chat") => text(Api::OllamaChat),
        (Engine::Ollama, "/api/generate") => text(Api::OllamaGenerate),
        (Engine::Ollama, "/" | "/api/version" | "/api/tags" | "/api/ps") => get(),
        (Engine::Ollama, "/api/show") => post(),
        (Engine::Ollama, _) if path.starts_with("/v1/models/") => get(),
        _ => Err(Fault::NoPath),
    }
}

/// Answers what is no work.
async fn question(server: &Arc<Server>, call: &Call) -> Reply {
    let knobs = server.knobs();
    if knobs.hang_health {
        server.until_knobs(|knobs| !knobs.hang_health).await;
    }
    if knobs.health_ms > 0 {
        sleep(Duration::from_millis(knobs.health_ms)).await;
    }
    let engine = server.spec.engine;
    let is_health = matches!(
        call.path.as_str(),
        "/health" | "/v1/health" | "/ping" | "/" | "/api/version"
    );
    if let Some(status) = knobs.health_status.filter(|_| is_health) {
        if engine == Engine::Vllm {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return reply::with(status, "", "");
        }
        return Fault::Status(status).reply(engine, None);
    }
    let answered = match engine {
        Engine::Vllm => vllm(server, call).await,
        Engine::LlamaCpp if server.spec.router => llama_router(server, call).await,
        Engine::LlamaCpp => llama_cpp(server, call, 0),
        Engine::Ollama => ollama(server, call),
    };
    answered.unwrap_or_else(|fault| fault.reply(engine, None))
}

async fn vllm(server: &Arc<Server>, call: &Call) -> Result<Reply, Fault> {
    let ok = |json: &Json| Ok(reply::json(Engine::Vllm, 200, json));
    match call.path.as_str() {
        "/version" => ok(&object! {"version": "0.32.0"}),
        "/v1/models" => ok(&info::vllm_models(server)),
        "/load" => {
            let load = server.runners[0].look(|batch| batch.running().len() + batch.waiting());
            ok(&object! {"server_load": load})
        }
        "/metrics" => Ok(reply::with(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::vllm(server),
        )),
        "/is_sleeping" => ok(&object! {"is_sleeping": server.shelf.state(0) == State::Away}),
        "/sleep" => {
            server.shelf.unload(0);
            Ok(reply::with(StatusCode::OK, "", ""))
        }
        "/wake_up" => {
            server.shelf.load(0).await;
            Ok(reply::with(StatusCode::OK, "", ""))
        }
        "/tokenize" | "/detokenize" => info::tokenize(server, call).and_then(|json| ok(&json)),
        "/v1/messages/count_tokens" => {
            let count = count(server, call)?;
            ok(
                &object! {"input_tokens": count, "context_management": object! {"original_input_tokens": count}},
            )
        }
        _ => Ok(reply::with(StatusCode::OK, "", "")),
    }
}

fn llama_cpp(server: &Server, call: &Call, model: usize) -> Result<Reply, Fault> {
    let ok = |json: &Json| Ok(reply::json(Engine::LlamaCpp, 200, json));
    let shows = server.knobs().metrics;
    match call.path.as_str() {
        "/props" => ok(&info::props(server, model)),
        "/slots" if !shows => Err(Fault::Cannot(
            "This server does not support slots endpoint. Start it with `--slots`",
        )),
        "/slots" => {
            let free =
                server.runners[model].look(|batch| batch.running().len()) < server.spec.slots;
            if call.query_value("fail_on_no_slot").is_some() && !free {
                return Err(Fault::Busy);
            }
            ok(&info::slots(server, model))
        }
        "/metrics" if !shows => Err(Fault::Cannot(
            "This server does not support metrics endpoint. Start it with `--metrics`",
        )),
        "/metrics" => {
            let mut reply = reply::with(
                StatusCode::OK,
                "text/plain; version=0.0.4",
                metrics::llama_cpp(server, model),
            );
            let began = http::HeaderName::from_static("process-start-time-unix");
            reply::set(&mut reply, began, &server.began.as_secs().to_string());
            Ok(reply)
        }
        "/v1/models" | "/models" => ok(&info::llama_models(server)),
        "/tokenize" | "/detokenize" => info::tokenize(server, call).and_then(|json| ok(&json)),
        "/v1/messages/count_tokens" => ok(&object! {"input_tokens": count(server, call)?}),
        _ => ok(&object! {"status": "ok"}),
    }
}

/// llama.cpp without a model of its own: it starts a server for each that is asked for, and hands requests on.
async fn llama_router(server: &Arc<Server>, call: &Call) -> Result<Reply, Fault> {
    let ok = |json: &Json| Ok(reply::json(Engine::LlamaCpp, 200, json));
    let named = |body: &Json| super::ask::named(body);
    match call.path.as_str() {
        "/health" | "/v1/health" => ok(&object! {"status": "ok"}),
        "/models" | "/v1/models" => ok(&info::router_models(server)),
        "/models/load" => {
            let body = Json::read(&call.body).map_err(|_| Fault::NoJson(call.body.len()))?;
            let model = server.spec.find(named(&body).as_deref());
            let model = model.ok_or(Fault::NoModelHere(404, "model is not found"))?;
            if server.shelf.state(model) != State::Away {
                return Err(Fault::NoModelHere(400, "model is already running"));
            }
            server.shelf.load_apart(model);
            ok(&object! {"success": true})
        }
        "/models/unload" => {
            let body = Json::read(&call.body).map_err(|_| Fault::NoJson(call.body.len()))?;
            let model = server.spec.find(named(&body).as_deref());
            let model = model.ok_or(Fault::NoModelHere(400, "model is not found"))?;
            if server.shelf.state(model) == State::Away {
                return Err(Fault::NoModelHere(400, "model is not running"));
            }
            server.shelf.unload(model);
            ok(&object! {"success": true})
        }
        "/props" if call.query_value("model").is_none() => ok(&info::router_props(server)),
        _ => {
            let body = Json::read(&call.body).unwrap_or_default();
            let wanted = call.query_value("model").or_else(|| named(&body));
            let model = server
                .spec
                .find(wanted.as_deref())
                .ok_or_else(|| server.no_model(wanted))?;
            let autoload = call
                .query_value("autoload")
                .is_none_or(|text| text == "true" || text == "1");
            if !autoload && server.shelf.state(model) == State::Away {
                return Err(Fault::NoModelHere(400, "model is not loaded"));
            }
            let _hold = server
                .shelf
                .take(model, None)
                .await
                .map_err(|_| Fault::Busy)?;
            llama_cpp(server, call, model)
        }
    }
}

fn ollama(server: &Server, call: &Call) -> Result<Reply, Fault> {
    let ok = |json: &Json| Ok(reply::json(Engine::Ollama, 200, json));
    match call.path.as_str() {
        "/" => Ok(reply::with(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "Ollama is running",
        )),
        "/api/version" => ok(&object! {"version": "0.0.0"}),
        "/api/tags" => ok(&info::tags(server)),
        "/api/ps" => ok(&info::ps(server)),
        "/api/show" => {
            let body = Json::read(&call.body).map_err(|_| Fault::NoJson(call.body.len()))?;
            let wanted =
                super::ask::named(&body).or_else(|| Some(body.get("name")?.text()?.to_owned()));
            let model = server
                .spec
                .find(wanted.as_deref())
                .ok_or_else(|| server.no_model(wanted))?;
            ok(&info::show(server, model))
        }
        "/v1/models" => {
            let body = reply::go(&info::ollama_models(server)) + "\n";
            Ok(reply::with(StatusCode::OK, "application/json", body))
        }
        path => {
            let wanted = path.trim_start_matches("/v1/models/");
            let wanted = Some(percent_decode_str(wanted).decode_utf8_lossy().into_owned());
            let model = server.spec.find(wanted.as_deref());
            if model.is_none() {
                return Ok(server
                    .no_model(wanted)
                    .reply(Engine::Ollama, Some(Api::Chat)));
            }
            let body = reply::go(&info::ollama_model(wanted.as_deref().unwrap_or_default())) + "\n";
            Ok(reply::with(StatusCode::OK, "application/json", body))
        }
    }
}

fn count(server: &Server, call: &Call) -> Result<usize, Fault> {
    let body = Json::read(&call.body).map_err(|_| Fault::NoJson(call.body.len()))?;
    Ok(Work::read(&server.spec, Api::Messages, &body)?.prompt.len())
}

/// What llama.cpp says to browsers.
fn preflight() -> Reply {
    let mut reply = reply::with(StatusCode::OK, "text/html", "");
    reply::set(&mut reply, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    reply::set(
        &mut reply,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, POST, DELETE, OPTIONS",
    );
    reply::set(&mut reply, header::ACCESS_CONTROL_ALLOW_HEADERS, "*");
    reply
}

// === impl Call ===

impl Call {
    pub(crate) fn query_value(&self, name: &str) -> Option<String> {
        let mut pairs = self
            .query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    }
}
