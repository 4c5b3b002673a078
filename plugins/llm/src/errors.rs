//! What goes wrong, in the words that a client's library understands: it makes its exceptions, and its retries, of them.
//!
//! - OpenAI's: `{"error":{"message","type","param","code"}}`; the word for programs is the gateway's own, but where OpenAI has one
//!   that libraries look for.
//! - Anthropic's: `{"type":"error","error":{"type","message"}}`, with one of nine types.
//! - Ollama's: `{"error":"…"}`.

use crate::route::{Dialect, Operation, Route};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tabane_api::{Refusal, Shape};

/// What is said of a model that nobody has. Its status is 404, which libraries do not try again.
pub fn unknown_model(model: &str, nearest: &[&str]) -> Refusal {
    let quoted: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    let hint = match quoted.as_slice() {
        [] => String::new(),
        [one] => format!(" Did you mean {one}?"),
        [all @ .., last] => format!(" Did you mean {} or {last}?", all.join(", ")),
    };
    // As engines say it; of a name that goes on for ever the beginning.
    let model: String = model.chars().take(256).collect();
    Refusal::NoSuch(format!("The model `{model}` does not exist.{hint}"))
}

/// A refusal in a dialect's shape. In this kind, what is not there by its name ([`Refusal::NoSuch`]) is a model.
pub fn refuse(dialect: Dialect, why: &Refusal) -> Shape {
    let message = why.to_string();
    let body = match dialect {
        Dialect::OpenAi => openai(why, &message),
        Dialect::Anthropic => anthropic(why, &message),
        Dialect::Ollama => json!({"error": message}),
    };
    Shape {
        content_type: "application/json",
        body: body.to_string().into(),
        headers: HeaderMap::new(),
    }
}

fn openai(why: &Refusal, message: &str) -> Value {
    let (kind, code, param) = match why {
        Refusal::Unauthorized(_) => ("authentication_error", "invalid_api_key", None),
        Refusal::NoSuch(_) => ("invalid_request_error", "model_not_found", Some("model")),
        Refusal::QueueFull { .. } | Refusal::TenantFull { .. } | Refusal::Limited { .. } => {
            ("rate_limit_error", "rate_limit_exceeded", None)
        }
        other => (
            match anthropic_type(other) {
                "invalid_request_error" | "not_found_error" | "request_too_large" => {
                    "invalid_request_error"
                }
                "permission_error" => "permission_error",
                _ => "server_error",
            },
            other.code(),
            None,
        ),
    };
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

fn anthropic(why: &Refusal, message: &str) -> Value {
    json!({"type": "error", "error": {"type": anthropic_type(why), "message": message}})
}

/// Anthropic's word. It goes by the status that the gateway gives: what is 503 here is its 529.
fn anthropic_type(why: &Refusal) -> &'static str {
    match why {
        Refusal::BadRequest(_)
        | Refusal::HeadTooLarge(_)
        | Refusal::WrongMethod { .. }
        | Refusal::Conflict(_)
        | Refusal::Unprocessable(_)
        | Refusal::TooSlow => "invalid_request_error",
        Refusal::Unauthorized(_) => "authentication_error",
        Refusal::Forbidden(_) => "permission_error",
        Refusal::NotFound(_) | Refusal::NoSuch(_) | Refusal::Gone(_) => "not_found_error",
        Refusal::BodyTooLarge { .. } => "request_too_large",
        Refusal::QueueFull { .. } | Refusal::TenantFull { .. } | Refusal::Limited { .. } => {
            "rate_limit_error"
        }
        Refusal::WaitedTooLong { .. }
        | Refusal::NoFit { .. }
        | Refusal::ShuttingDown
        | Refusal::Overloaded(_) => "overloaded_error",
        Refusal::NodeTimeout(_) => "timeout_error",
        Refusal::NodeFailed(_) | Refusal::StoreFull(_) | Refusal::Internal(_) => "api_error",
    }
}

// === streams ===

/// What a stream that broke off says at its end, instead of breaking off: an event that libraries make an exception of. `None`:
/// the answer does not stream, and can only be cut off.
///
/// `within_line`: bytes of a line were sent that is not over. There is no `[DONE]` behind it: it is not done.
pub fn broken(route: &Route, why: &str, within_line: bool) -> Option<Bytes> {
    if !route.generates() {
        return None;
    }
    let text = match (route.dialect, &route.operation) {
        (Dialect::Ollama, _) => {
            // Its clients read every line as JSON, so there may be no empty one.
            let before = if within_line { "\n" } else { "" };
            format!("{before}{}\n", json!({"error": why}))
        }
        (Dialect::Anthropic, _) => event(
            Some("error"),
            &json!({"type": "error", "error": {"type": "api_error", "message": why}}),
        ),
        (Dialect::OpenAi, Operation::Responses) => event(
            Some("error"),
            &json!({"type": "error", "code": "node_failed", "message": why, "param": null}),
        ),
        (Dialect::OpenAi, _) => event(
            None,
            &json!({"error": {"message": why, "type": "server_error", "param": null, "code": "node_failed"}}),
        ),
    };
    Some(text.into())
}

/// An event of its own, whatever stands before it: an empty line more means nothing.
fn event(name: Option<&str>, data: &Value) -> String {
    let name = name
        .map(|name| format!("event: {name}\n"))
        .unwrap_or_default();
    format!("\n\n{name}data: {data}\n\n")
}

/// What can be said in a stream that is silent, so that nobody takes it for dead. `None`: nothing, in this API.
pub fn keep_alive(route: &Route) -> Option<Bytes> {
    let speaks = route.generates() && route.dialect != Dialect::Ollama;
    speaks.then(|| Bytes::from_static(b": keep-alive\n\n"))
}

/// What a stream's head says it is, where the gateway has to send one before a node has.
pub fn stream_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi | Dialect::Anthropic => "text/event-stream; charset=utf-8",
        Dialect::Ollama => "application/x-ndjson",
    }
}

// === limits ===

/// A limit that was met, or is not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub of: LimitOf,
    /// How many there may be.
    pub limit: u64,
    /// How many there may still be.
    pub remaining: u64,
    /// When there may be all of them again.
    pub reset: Duration,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOf {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
}

/// The headers in which libraries and agents look for limits. `Retry-After` is not among them: the gateway sends it with the
/// refusal, in whole seconds.
pub fn limit_headers(
    dialect: Dialect,
    limits: &[Limit],
    now: SystemTime,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut add = |name: String, value: String| {
        if let (Ok(name), Ok(value)) = (name.parse(), value.parse()) {
            headers.push((name, value));
        }
    };
    for limit in limits {
        let of = match limit.of {
            LimitOf::Requests => "requests",
            LimitOf::Tokens => "tokens",
        };
        match dialect {
            Dialect::OpenAi => {
                add(format!("x-ratelimit-limit-{of}"), limit.limit.to_string());
                add(
                    format!("x-ratelimit-remaining-{of}"),
                    limit.remaining.to_string(),
                );
                add(format!("x-ratelimit-reset-{of}"), as_go_writes(limit.reset));
            }
            Dialect::Anthropic => {
                let reset = now.checked_add(limit.reset).unwrap_or(now);
                let reset = humantime::format_rfc3339_seconds(reset).to_string();
                add(
                    format!("anthropic-ratelimit-{of}-limit"),
                    limit.limit.to_string(),
                );
                add(
                    format!("anthropic-ratelimit-{of}-remaining"),
                    limit.remaining.to_string(),
                );
                add(format!("anthropic-ratelimit-{of}-reset"), reset);
            }
            Dialect::Ollama => {}
        }
    }
    // Finer than `Retry-After`, and looked at before it by the libraries of both.
    let met = limits.iter().filter(|limit| limit.remaining == 0);
    if let Some(longest) = met.map(|limit| limit.reset).max()
        && dialect != Dialect::Ollama
    {
        add("retry-after-ms".into(), longest.as_millis().to_string());
    }
    headers
}

/// `6m0s`, `1.5s`, `20ms`.
fn as_go_writes(span: Duration) -> String {
    let (ms, s) = (span.as_millis(), span.as_secs());
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{}s", ms as f64 / 1e3),
        60..3600 => format!("{}m{}s", s / 60, s % 60),
        _ => format!("{}h{}m{}s", s / 3600, s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Follow;
    use http::Method;

    fn body(dialect: Dialect, why: &Refusal) -> Value {
        let shape = refuse(dialect, why);
        assert_eq!(shape.content_type, "application/json");
        serde_json::from_slice(&shape.body).unwrap()
    }

    fn route(path: &str) -> Route {
        Route::of(&Method::POST, path)
    }

    #[test]
    fn each_client_hears_it_in_its_own_shape() {
        let why = unknown_model("lama\"3", &["llama3", "llama3:70b", "x"]);
        let message =
            "The model `lama\"3` does not exist. Did you mean `llama3`, `llama3:70b` or `x`?";
        assert_eq!(
            body(Dialect::OpenAi, &why),
            json!({"error": {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})
        );
        assert_eq!(
            body(Dialect::Anthropic, &why),
            json!({"type": "error", "error": {"type": "not_found_error", "message": message}})
        );
        assert_eq!(body(Dialect::Ollama, &why), json!({"error": message}));
        let long = unknown_model(&"x".repeat(10_000), &["y"]).to_string();
        assert!(
            long.len() < 400 && long.ends_with("Did you mean `y`?"),
            "{long}"
        );
        assert!(
            unknown_model("a", &[])
                .to_string()
                .ends_with("does not exist.")
        );
    }

    #[test]
    fn words_for_programs_are_those_that_libraries_know() {
        let full = || Refusal::TenantFull {
            tenant: "t".into(),
            has: 3,
            what: "requests waiting",
            retry_after: Duration::from_secs(1),
        };
        for (why, openai, code, anthropic) in [
            (
                Refusal::BadRequest("x".into()),
                "invalid_request_error",
                "bad_request",
                "invalid_request_error",
            ),
            (
                Refusal::Unauthorized("x".into()),
                "authentication_error",
                "invalid_api_key",
                "authentication_error",
            ),
            (
                Refusal::Forbidden("x".into()),
                "permission_error",
                "forbidden",
                "permission_error",
            ),
            (
                Refusal::NotFound("/x".into()),
                "invalid_request_error",
                "not_found",
                "not_found_error",
            ),
            (
                Refusal::BodyTooLarge { max: 1 },
                "invalid_request_error",
                "body_too_large",
                "request_too_large",
            ),
            (
                full(),
                "rate_limit_error",
                "rate_limit_exceeded",
                "rate_limit_error",
            ),
            (
                Refusal::ShuttingDown,
                "server_error",
                "shutting_down",
                "overloaded_error",
            ),
            (
                Refusal::NodeTimeout("x".into()),
                "server_error",
                "node_timeout",
                "timeout_error",
            ),
            (
                Refusal::NodeFailed("x".into()),
                "server_error",
                "node_failed",
                "api_error",
            ),
            (
                Refusal::Internal("x".into()),
                "server_error",
                "internal",
                "api_error",
            ),
        ] {
            let error = &body(Dialect::OpenAi, &why)["error"];
            assert_eq!(
                (&error["type"], &error["code"]),
                (&openai.into(), &code.into()),
                "{why:?}"
            );
            assert_eq!(
                body(Dialect::Anthropic, &why)["error"]["type"],
                anthropic,
                "{why:?}"
            );
            assert_eq!(body(Dialect::Ollama, &why)["error"], why.to_string());
        }
    }

    #[test]
    fn a_stream_that_breaks_off_ends_with_an_error_that_is_heard() {
        let why = "node `a/llm` broke off: \"reset\"\n";
        let sse = "text/event-stream";
        let ollama = "application/x-ndjson";
        for (path, kind, begun) in [
            (
                "/v1/chat/completions",
                sse,
                "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
            ),
            (
                "/v1/chat/completions",
                sse,
                "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"cho",
            ),
            (
                "/v1/chat/completions",
                sse,
                "data: {\"choices\":[{\"text\":\"a\"}]}\n",
            ),
            (
                "/v1/messages",
                sse,
                "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            ),
            ("/v1/responses", sse, "event: response.created\n"),
            (
                "/api/chat",
                ollama,
                "{\"message\":{\"content\":\"a\"},\"done\":false}\n",
            ),
            ("/api/chat", ollama, "{\"message\":{\"content\":\"a\"},\"do"),
        ] {
            let within_line = !begun.ends_with('\n');
            let said = broken(&route(path), why, within_line).unwrap();
            let mut follow = Follow::new(Some(kind), None);
            follow.feed(begun.as_bytes());
            assert_eq!(follow.is_within_line(), within_line);
            follow.feed(&said);
            let account = follow.end();
            assert_eq!(account.error.as_deref(), Some(why), "{path} {begun}");
            assert!(!String::from_utf8_lossy(&said).contains("[DONE]"));
            let lines = [begun.as_bytes(), &said].concat();
            let empty = lines
                .split(|byte| *byte == b'\n')
                .filter(|line| line.is_empty())
                .count();
            assert!(
                kind == sse || empty == 1,
                "no line of Ollama's is empty but what follows the last"
            );
        }
        assert_eq!(broken(&route("/v1/embeddings"), why, false), None);
    }

    #[test]
    fn silence_is_filled_where_an_api_has_something_that_means_nothing() {
        let said = keep_alive(&route("/v1/chat/completions")).unwrap();
        let mut follow = Follow::new(Some(stream_type(Dialect::OpenAi)), None);
        assert_eq!(follow.feed(&said).tokens, 0);
        assert!(follow.streams() && !follow.is_within_line());
        assert!(keep_alive(&route("/v1/messages")).is_some());
        assert_eq!(keep_alive(&route("/api/chat")), None);
        assert_eq!(keep_alive(&route("/v1/embeddings")), None);
        assert!(Follow::new(Some(stream_type(Dialect::Ollama)), None).streams());
    }

    #[test]
    fn limits_are_told_where_libraries_look() {
        let limits = [
            Limit {
                of: LimitOf::Requests,
                limit: 60,
                remaining: 12,
                reset: Duration::from_millis(20),
            },
            Limit {
                of: LimitOf::Tokens,
                limit: 1000,
                remaining: 0,
                reset: Duration::from_secs(360),
            },
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let told = |dialect| {
            let headers = limit_headers(dialect, &limits, now);
            let text = |(name, value): &(HeaderName, HeaderValue)| {
                format!("{name}: {}", value.to_str().unwrap())
            };
            headers.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            told(Dialect::OpenAi),
            [
                "x-ratelimit-limit-requests: 60",
                "x-ratelimit-remaining-requests: 12",
                "x-ratelimit-reset-requests: 20ms",
                "x-ratelimit-limit-tokens: 1000",
                "x-ratelimit-remaining-tokens: 0",
                "x-ratelimit-reset-tokens: 6m0s",
                "retry-after-ms: 360000",
            ]
        );
        assert_eq!(
            told(Dialect::Anthropic)[5],
            "anthropic-ratelimit-tokens-reset: 2027-01-15T08:06:00Z"
        );
        assert!(told(Dialect::Ollama).is_empty());
        let spans = [
            (0, "0ms"),
            (1500, "1.5s"),
            (59_999, "59.999s"),
            (3_725_000, "1h2m5s"),
        ];
        for (ms, wants) in spans {
            assert_eq!(as_go_writes(Duration::from_millis(ms)), wants);
        }
    }
}
