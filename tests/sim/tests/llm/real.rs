//! What a real server says to what was recorded, where one can be had, against what these say: so that a newer version shows
//! what it does otherwise.
//!
//! `LLM=127.0.0.1:8080 cargo test -p tabane-sim --test llm real -- --ignored`: vLLM or llama.cpp, with one model of any kind
//! whose context has 2048 tokens, named `tiny`; llama.cpp with four slots, `--metrics` and `--slots`, freshly started: what was
//! in its slots before, it shows, which is not done here.

use crate::client::ask_at;
use crate::replay::{headers_of, masked, recorded};
use serde_json::Value;
use tabane_sim::llm::{Engine, LlmKnobs, LlmNode, Spec};

/// What the model itself decides, or the machine that it runs on.
const NOT_COMPARED: [&str; 2] = ["/v1/models", "/models"];

#[tokio::test]
#[ignore = "needs a real server, named by LLM"]
async fn a_real_server_answers_the_same() {
    let real = std::env::var("LLM").expect("LLM=127.0.0.1:8080");
    let told = ask_at(&real, "GET", "/v1/models", &[], "").await.unwrap();
    let name = told.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let (engine, calls) = if told.header("server") == "uvicorn" {
        (Engine::Vllm, "vllm")
    } else {
        (Engine::LlamaCpp, "llama_cpp")
    };
    let mut spec = Spec::new(engine, "a")
        .model(&name, 3)
        .knobs(LlmKnobs::instant());
    spec.models[0].context = 2048;
    let node = LlmNode::start(spec).await.unwrap();
    let own = node.addr().to_string();
    let mut calls: Vec<(String, String, String)> = recorded(calls)
        .into_iter()
        .filter(|call| !NOT_COMPARED.contains(&call.path.as_str()))
        .map(|call| (call.method, call.path, call.body))
        .collect();
    let long = vec!["word"; 9000].join(" ");
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    ] {
        let body = match path {
            "/v1/completions" => serde_json::json!({"model": "tiny", "prompt": long}),
            "/v1/responses" => serde_json::json!({"model": "tiny", "input": long}),
            _ => serde_json::json!({
                "model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": long}],
            }),
        };
        calls.push(("POST".into(), path.into(), body.to_string()));
    }
    let mut wrong = Vec::new();
    for (method, path, body) in calls {
        let json = [("content-type", "application/json")];
        let there = ask_at(&real, &method, &path, &json, &body).await.unwrap();
        let here = ask_at(&own, &method, &path, &json, &body).await.unwrap();
        let there = (there.status, headers_of(&there), masked(&there.parts));
        let here = (here.status, headers_of(&here), masked(&here.parts));
        if there != here && !says_how_long(&there.2) {
            let body: String = body.chars().take(200).collect();
            wrong.push(format!(
                "{method} {path} {body}\n  there {there:?}\n  here  {here:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A refusal that tells how many tokens there were: each counts in its own way.
fn says_how_long(parts: &[String]) -> bool {
    let error = parts
        .first()
        .and_then(|part| serde_json::from_str::<Value>(part).ok());
    error.is_some_and(|error| error["error"]["type"] == "exceed_context_size_error")
}

#[tokio::test]
#[ignore = "needs a real server, named by LLM"]
async fn a_real_server_has_every_metric_that_is_told_here() {
    let real = std::env::var("LLM").expect("LLM=127.0.0.1:8080");
    let told = ask_at(&real, "GET", "/v1/models", &[], "").await.unwrap();
    let engine = if told.header("server") == "uvicorn" {
        Engine::Vllm
    } else {
        Engine::LlamaCpp
    };
    let node = LlmNode::start(Spec::new(engine, "a").model("tiny", 3))
        .await
        .unwrap();
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("# TYPE"));
        lines.map(str::to_owned).collect()
    };
    let there = names(
        &ask_at(&real, "GET", "/metrics", &[], "")
            .await
            .unwrap()
            .text(),
    );
    let here = names(
        &ask_at(&node.addr().to_string(), "GET", "/metrics", &[], "")
            .await
            .unwrap()
            .text(),
    );
    let missing: Vec<_> = here.iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
