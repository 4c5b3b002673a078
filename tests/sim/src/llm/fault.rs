//! What is wrong with a request, said as each engine says it.

use super::ask::Api;
use super::reply::{self, Reply, go};
use super::spec::Engine;
use crate::comfy::json::{Json, Object, object};
use http::{StatusCode, header};

/// Why a request is not answered with what it asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// It is no JSON; how long it is.
    NoJson(usize),
    /// Something is missing.
    Missing(&'static str),
    NoList(&'static str),
    NoNumber(&'static str, String),
    TooFew(&'static str, i64),
    /// It wants more tokens than the model's context has: how many, and how many that has.
    TooMany(&'static str, usize, usize),
    /// There is no such model; which ones there are.
    NoModel(Option<String>, Vec<String>),
    /// Its prompt is longer than the model's context: how long, and how long that is.
    TooLong(usize, usize),
    /// Too many wait.
    Busy,
    /// The model is being loaded.
    Loading,
    /// There is no such path.
    NoPath,
    /// That path is asked for in another way.
    NoMethod(&'static str),
    /// llama.cpp cannot do that to a model.
    NoModelHere(u16, &'static str),
    /// The engine, as it was started, cannot do it.
    Cannot(&'static str),
    /// It failed, as the knobs say.
    Status(u16),
}

// === impl Fault ===

impl Fault {
    pub(crate) fn reply(&self, engine: Engine, api: Option<Api>) -> Reply {
        match engine {
            Engine::Vllm => self.vllm(api),
            Engine::LlamaCpp => {
                let (status, body) = self.llama_cpp(api);
                reply::json(engine, status, &object! {"error": body})
            }
            Engine::Ollama => self.ollama(api),
        }
    }

    /// Its status, and what it says in plain words.
    fn plain(&self) -> (u16, String) {
        match self {
            Fault::Status(status) => (*status, "failing as the knobs say".into()),
            other => (400, format!("{other:?}")),
        }
    }

    fn vllm(&self, api: Option<Api>) -> Reply {
        if let Fault::NoPath | Fault::NoMethod(_) = self {
            let (status, detail) = match self {
                Fault::NoMethod(_) => (405, "Method Not Allowed"),
                _ => (404, "Not Found"),
            };
            let mut reply = reply::json(Engine::Vllm, status, &object! {"detail": detail});
            if let Fault::NoMethod(allowed) = self {
                reply::set(&mut reply, header::ALLOW, allowed);
            }
            return reply;
        }
        let (status, kind, param, message) = self.vllm_error();
        let is_shaped = !matches!(kind.as_str(), "Bad Request");
        let body = if api == Some(Api::Messages) && is_shaped {
            object! {"type": "error", "error": object! {"type": kind, "message": message}}
        } else {
            vllm_body(&message, &kind, param, status)
        };
        reply::json(Engine::Vllm, status, &body)
    }

    /// Status, type, parameter and message.
    fn vllm_error(&self) -> (u16, String, Json, String) {
        let invalid = |kind: &str, at: String, msg: &str, more: &str| {
            let message = format!(
                "1 validation error:\n  {{'type': '{kind}', 'loc': '{at}', 'msg': '{msg}', {more}}}"
            );
            (400, "Bad Request".to_owned(), Json::from(at), message)
        };
        let bad = |param: &str, message: String| {
            (
                400,
                "BadRequestError".to_owned(),
                Json::from(param),
                message,
            )
        };
        let busy = "The engine is currently busy and cannot accept new requests. \
            Please try again later or on a different instance.";
        match self {
            Fault::NoJson(at) => invalid(
                "json_invalid",
                format!("body.{at}"),
                "JSON decode error",
                "'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting value'}",
            ),
            Fault::Missing("prompt") => bad(
                "prompt",
                "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
                    .into(),
            ),
            Fault::Missing(key) => invalid(
                "missing",
                format!("body.{key}"),
                "Field required",
                "'input': '<dict of 1 items>'",
            ),
            Fault::NoList(key) => invalid(
                "list_type",
                format!("body.{key}"),
                "Input should be a valid list",
                "'input': 'x'",
            ),
            Fault::NoNumber(key, value) => invalid(
                "int_parsing",
                format!("body.{key}"),
                "Input should be a valid integer, unable to parse string as an integer",
                &format!("'input': '{value}'"),
            ),
            Fault::TooFew(key, number) => bad(
                key,
                format!(
                    "{key} must be at least 1, got {number}. (parameter={key}, value={number})"
                ),
            ),
            Fault::TooMany(key, number, context) => bad(
                key,
                format!(
                    "{key}={number} cannot be greater than max_model_len={context}. \
                     Please request fewer output tokens. (parameter={key}, value={number})"
                ),
            ),
            Fault::NoModel(named, there) => (
                404,
                "NotFoundError".into(),
                "model".into(),
                format!(
                    "The model `{}` does not exist. Valid aliases: {}.",
                    named.as_deref().unwrap_or("None"),
                    there.join(", ")
                ),
            ),
            // Its tokenizer stops where it is clear.
            Fault::TooLong(_, context) => bad(
                "input_tokens",
                format!(
                    "This model's maximum context length is {context} tokens. However, your prompt contains \
                     at least {} input tokens, which exceeds this limit even without any output tokens. \
                     Please reduce the length of the input prompt. (parameter=input_tokens, value={})",
                    context + 1,
                    context + 1
                ),
            ),
            Fault::Busy => (503, "Service Unavailable".into(), Json::Null, busy.into()),
            other => {
                let (status, message) = other.plain();
                (status, phrase(status).into(), Json::Null, message)
            }
        }
    }

    fn llama_cpp(&self, api: Option<Api>) -> (u16, Object) {
        let error = |code: u16, message: String| {
            let body = [
                ("code".to_owned(), Json::from(code)),
                ("message".to_owned(), message.into()),
                ("type".to_owned(), llama_cpp_type(code).into()),
            ];
            (code, Object::from_iter(body))
        };
        // What the server says before it looks at the request has another order.
        let early = |code: u16, message: &str| {
            let body = [
                ("message".to_owned(), Json::from(message)),
                ("type".to_owned(), llama_cpp_type(code).into()),
                ("code".to_owned(), code.into()),
            ];
            (code, Object::from_iter(body))
        };
        match self {
            Fault::NoJson(length) => error(
                400,
                format!(
                    "[json.exception.parse_error.101] parse error at line 1, column {}: syntax error while \
                     parsing value - unexpected end of input; expected '[', '{{', or a literal",
                    length + 1
                ),
            ),
            Fault::Missing("prompt") => error(
                400,
                "[json.exception.out_of_range.403] key 'prompt' not found".into(),
            ),
            Fault::Missing(key) if api == Some(Api::Messages) => {
                error(500, format!("'{key}' is required"))
            }
            Fault::Missing(key) => error(400, format!("'{key}' is required")),
            Fault::NoList(key) => error(400, format!("Expected '{key}' to be an array")),
            Fault::NoNumber(key, _) => error(
                400,
                format!(
                    "Field '{key}': [json.exception.type_error.302] type must be number, but is string"
                ),
            ),
            Fault::NoModel(None, _) => error(400, "model name is missing from the request".into()),
            Fault::NoModel(Some(named), _) => error(400, format!("model '{named}' not found")),
            Fault::TooLong(tokens, context) => {
                let message = format!(
                    "request ({tokens} tokens) exceeds the available context size ({context} tokens), \
                     try increasing it"
                );
                let (code, mut body) = error(400, message);
                body.insert("type".into(), "exceed_context_size_error".into());
                body.insert("n_prompt_tokens".into(), (*tokens).into());
                body.insert("n_ctx".into(), (*context).into());
                (code, body)
            }
            Fault::Busy => error(503, "no slot available".into()),
            Fault::Loading => early(503, "Loading model"),
            Fault::NoPath | Fault::NoMethod(_) => early(404, "File Not Found"),
            Fault::NoModelHere(status, why) => error(*status, (*why).into()),
            Fault::Cannot(why) => error(501, (*why).into()),
            other => {
                let (status, message) = other.plain();
                error(status, message)
            }
        }
    }

    fn ollama(&self, api: Option<Api>) -> Reply {
        let missing = |what: &str| match (api, what) {
            (Some(Api::Messages), "max_tokens") => {
                "max_tokens is required and must be positive".to_owned()
            }
            (Some(Api::Messages), what) => format!("{what} is required"),
            (_, "input") => "invalid input".into(),
            (_, what) => format!("[] is too short - '{what}'"),
        };
        let (status, message) = match self {
            Fault::NoPath | Fault::NoMethod(_) => {
                return reply::with(StatusCode::NOT_FOUND, "text/plain", "404 page not found");
            }
            Fault::NoJson(0) => (400, "missing request body".into()),
            Fault::NoJson(_) => (400, "unexpected EOF".into()),
            Fault::Missing(what) => (400, missing(what)),
            Fault::NoModel(None, _) => (400, "model is required".into()),
            Fault::NoModel(Some(named), _) => (404, format!("model '{named}' not found")),
            Fault::Busy => (
                503,
                "server busy, please try again.  maximum pending requests exceeded".into(),
            ),
            other => other.plain(),
        };
        let (kind, body) = match api {
            Some(Api::Messages) => (
                "application/json",
                ollama_messages_body(status, &message) + "\n",
            ),
            Some(Api::OllamaChat | Api::OllamaGenerate) | None => (
                "application/json; charset=utf-8",
                go(&object! {"error": message}),
            ),
            Some(_) => {
                let error = object! {
                    "message": message, "type": ollama_type(status), "param": Json::Null, "code": Json::Null,
                };
                ("application/json", go(&object! {"error": error}) + "\n")
            }
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        reply::with(status, kind, body)
    }
}

pub(crate) fn vllm_body(message: &str, kind: &str, param: Json, status: u16) -> Json {
    object! {"error": object! {"message": message, "type": kind, "param": param, "code": status}}
}

pub(crate) fn phrase(status: u16) -> &'static str {
    let known = StatusCode::from_u16(status).ok();
    known
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}

pub(crate) fn llama_cpp_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        501 => "not_supported_error",
        503 => "unavailable_error",
        _ => "server_error",
    }
}

fn ollama_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        404 => "not_found_error",
        _ => "api_error",
    }
}

fn ollama_messages_body(status: u16, message: &str) -> String {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    go(&object! {
        "type": "error",
        "error": object! {"type": kind, "message": message},
        "request_id": "req_5f1a9c0e7b3d2846aa01c9de",
    })
}
