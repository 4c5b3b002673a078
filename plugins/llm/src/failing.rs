//! What is said while a node is silent, where its answer breaks off, and which errors are reason to try another model.

use crate::call::Call;
use crate::errors;
use crate::observe::Watch;
use bytes::Bytes;
use http::{Extensions, StatusCode};
use memchr::memmem;
use std::time::Duration;
use tabane_api::{KeepAlive, Refusal};

/// Something that means nothing: where the answer streams, as events, and no line of it is half said.
pub(crate) fn keep_alive(call: &Call, every: Duration, notes: &Extensions) -> Option<KeepAlive> {
    let request = &call.request;
    let says = errors::keep_alive(&request.route).filter(|_| request.streams)?;
    let may = notes.get::<Watch>().is_none_or(Watch::may_be_interrupted);
    may.then(|| KeepAlive {
        every,
        content_type: errors::stream_type(request.route.dialect),
        says,
    })
}

/// The error that a stream ends with which broke off.
pub(crate) fn broken(call: &Call, why: &Refusal, notes: &Extensions) -> Option<Bytes> {
    let watch = notes.get::<Watch>();
    let streams = match watch {
        Some(watch) => watch.streams(),
        // Nothing was said yet but what keeps it alive.
        None => call.request.streams,
    };
    let within_line = watch.is_some_and(|watch| !watch.may_be_interrupted());
    let say = || errors::broken(&call.request.route, &why.to_string(), within_line);
    streams.then(say).flatten()
}

/// Whether another model may do better: this one is not there, is too small for the prompt, or its endpoint cannot now.
pub(crate) fn falls_back(status: StatusCode, body: &[u8]) -> bool {
    match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        status if status.is_server_error() => true,
        // Some say it of a path that they do not know.
        StatusCode::NOT_FOUND => says(body, &["model"]),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => says(body, TOO_LONG) || says(body, NO_MODEL),
        _ => false,
    }
}

/// A prompt that is too long, in engines' and clouds' words, in lower case.
const TOO_LONG: &[&str] = &[
    // OpenAI, vLLM.
    "context_length_exceeded",
    "maximum context length",
    "maximum model length",
    "max_model_len",
    "longer than the maximum",
    // llama.cpp.
    "exceed_context_size_error",
    "exceeds the available context size",
    "context size",
    // SGLang, TGI.
    "longer than the model's context length",
    "must be <= ",
    // Anthropic, Ollama.
    "prompt is too long",
    "input length exceeds",
    "context length",
    "context window",
];

/// A model that is not there.
const NO_MODEL: &[&str] = &[
    "model_not_found",
    "model not found",
    "does not exist",
    "no such model",
    "unknown model",
];

fn says(body: &[u8], words: &[&str]) -> bool {
    let lower = body.to_ascii_lowercase();
    let mut words = words.iter();
    words.any(|word| memmem::find(&lower, word.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_model_is_tried_where_it_may_do_better() {
        let long = r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, you requested 9000","type":"BadRequestError","param":null,"code":400}}"#;
        let llama = r#"{"error":{"code":400,"message":"the request exceeds the available context size. try increasing the context size or enable context shift","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":8192}}"#;
        let claude = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#;
        let gone = r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError"}"#;
        let ollama = r#"{"error":"model 'x' not found"}"#;
        for (status, body, wants) in [
            (400, long, true),
            (400, llama, true),
            (400, claude, true),
            (413, claude, true),
            (404, gone, true),
            (404, ollama, true),
            (400, gone, true),
            (429, "", true),
            (503, "busy", true),
            (529, "{}", true),
            (
                400,
                r#"{"error":{"message":"temperature must be a number"}}"#,
                false,
            ),
            (401, r#"{"error":{"message":"bad key"}}"#, false),
            (404, "not here", false),
            (422, "{}", false),
            (200, long, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                falls_back(status, body.as_bytes()),
                wants,
                "{status} {body}"
            );
        }
    }
}
