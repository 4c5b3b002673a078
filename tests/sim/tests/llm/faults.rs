//! What each engine says when it cannot do what it is asked for. What is not in the recordings of `replay.rs` is here.

use crate::client::{begin, chat, post, until};
use crate::streams::start;
use serde_json::{Value, json};
use tabane_sim::llm::{Engine, LlmKnobs, LlmNode, Spec};

fn long(words: usize, stream: bool) -> String {
    let text = vec!["word"; words].join(" ");
    json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "input": text,
        "prompt": text,
        "max_tokens": 5,
        "stream": stream,
        "options": {"num_predict": 5},
    })
    .to_string()
}

async fn small(engine: Engine) -> LlmNode {
    let mut spec = Spec::new(engine, "a")
        .model("tiny", 3000)
        .knobs(LlmKnobs::instant());
    spec.models[0].context = 2048;
    LlmNode::start(spec).await.unwrap()
}

// A real one said this to a longer prompt of the same kind.
#[tokio::test]
async fn vllm_refuses_a_prompt_that_is_longer_than_its_context() {
    let node = small(Engine::Vllm).await;
    let message = "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 \
        input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the \
        input prompt. (parameter=input_tokens, value=2049)";
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses"] {
        for stream in [true, false] {
            let refused = post(&node, path, &long(5000, stream)).await;
            assert_eq!(refused.status, 400, "{path}");
            let error = json!({"message": message, "type": "BadRequestError", "param": "input_tokens", "code": 400});
            assert_eq!(refused.json(), json!({"error": error}), "{path}");
        }
    }
    let refused = post(&node, "/v1/messages", &long(5000, false)).await;
    let error = json!({"type": "BadRequestError", "message": message});
    assert_eq!(
        (refused.status, refused.json()),
        (400, json!({"type": "error", "error": error}))
    );
}

#[tokio::test]
async fn llama_cpp_refuses_a_prompt_that_is_longer_than_its_context() {
    let node = small(Engine::LlamaCpp).await;
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    ] {
        let refused = post(&node, path, &long(3000, true)).await;
        let count = refused.json()["error"]["n_prompt_tokens"].as_u64().unwrap();
        assert!((3000..3020).contains(&count), "{path}");
        let told = format!(
            "{{\"error\":{{\"code\":400,\"message\":\"request ({count} tokens) exceeds the available context size \
             (2048 tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":{count},\
             \"n_ctx\":2048}}}}"
        );
        assert_eq!((refused.status, refused.text()), (400, told), "{path}");
    }
}

#[tokio::test]
async fn ollama_leaves_out_the_beginning_of_a_prompt_that_is_longer_than_its_context() {
    let node = small(Engine::Ollama).await;
    let told = post(&node, "/api/chat", &long(5000, false)).await;
    assert_eq!(told.status, 200);
    assert_eq!(told.json()["prompt_eval_count"], 1024);
}

#[tokio::test]
async fn an_answer_ends_where_the_context_does() {
    for engine in [Engine::Vllm, Engine::LlamaCpp, Engine::Ollama] {
        let node = small(engine).await;
        let body = json!({
            "model": "tiny",
            "messages": [{"role": "user", "content": vec!["word"; 1900].join(" ")}],
            "max_tokens": 2000,
        });
        let told = post(&node, "/v1/chat/completions", &body.to_string())
            .await
            .json();
        assert_eq!(told["usage"]["total_tokens"], 2048, "{engine}");
        assert_eq!(told["choices"][0]["finish_reason"], "length", "{engine}");
    }
}

#[tokio::test]
async fn ollama_names_what_is_wrong_in_the_shape_of_each_api() {
    let node = start(Engine::Ollama, LlmKnobs::instant()).await;
    let unknown = r#"{"model":"no","messages":[{"role":"user","content":"hi"}],"prompt":"hi","max_tokens":5}"#;
    for (path, body, status, told) in [
        (
            "/api/chat",
            unknown,
            404,
            r#"{"error":"model 'no' not found"}"#,
        ),
        (
            "/api/generate",
            unknown,
            404,
            r#"{"error":"model 'no' not found"}"#,
        ),
        (
            "/api/show",
            unknown,
            404,
            r#"{"error":"model 'no' not found"}"#,
        ),
        ("/api/chat", "", 400, r#"{"error":"missing request body"}"#),
        ("/api/chat", "{}", 400, r#"{"error":"model is required"}"#),
        (
            "/v1/chat/completions",
            unknown,
            404,
            "{\"error\":{\"message\":\"model 'no' not found\",\"type\":\"not_found_error\",\"param\":null,\"code\":null}}\n",
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"tiny","messages":[]}"#,
            400,
            "{\"error\":{\"message\":\"[] is too short - 'messages'\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}\n",
        ),
        (
            "/v1/messages/count_tokens",
            unknown,
            404,
            "404 page not found",
        ),
    ] {
        let refused = post(&node, path, body).await;
        assert_eq!(
            (refused.status, refused.text().as_str()),
            (status, told),
            "{path} {body}"
        );
    }
    let refused = post(&node, "/v1/messages", unknown).await;
    let error = &refused.json()["error"];
    assert_eq!(
        (refused.status, &error["type"]),
        (404, &json!("not_found_error"))
    );
}

#[tokio::test]
async fn more_than_may_wait_are_refused_as_busy() {
    for (engine, told) in [
        (
            Engine::Vllm,
            // A real one with `--max-num-queued-reqs` said so.
            json!({"error": {
                "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.",
                "type": "Service Unavailable", "param": null, "code": 503,
            }}),
        ),
        (
            Engine::LlamaCpp,
            json!({"error": {"code": 503, "message": "no slot available", "type": "unavailable_error"}}),
        ),
        (
            Engine::Ollama,
            json!({"error": {
                "message": "server busy, please try again.  maximum pending requests exceeded",
                "type": "api_error", "param": null, "code": null,
            }}),
        ),
    ] {
        let knobs = LlmKnobs {
            queue_limit: Some(1),
            retry_after: Some("3".into()),
            ..LlmKnobs::default()
        };
        let spec = Spec::new(engine, "a")
            .model("tiny", 3000)
            .slots(1)
            .knobs(knobs);
        let node = LlmNode::start(spec).await.unwrap();
        let _runs = begin(&node, "/v1/chat/completions", &chat("one", 8000, true)).await;
        until(&node, |seen| seen.most_running == 1).await;
        let _waits = begin(&node, "/v1/chat/completions", &chat("two", 8000, true)).await;
        until(&node, |seen| seen.most_waiting == 1).await;
        let refused = post(&node, "/v1/chat/completions", &chat("three", 5, true)).await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, "3"),
            "{engine}"
        );
        let told: Value = told;
        assert_eq!(refused.json(), told, "{engine}");
    }
}
