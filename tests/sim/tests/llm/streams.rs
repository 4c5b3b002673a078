//! Streams: when they begin, what they are made of, how they end.

use crate::client::{Coming, begin, chat, post, until};
use futures::FutureExt;
use serde_json::{Value, json};
use tabane_sim::llm::{Engine, LlmKnobs, LlmNode, Spec};

/// Every API of every engine that answers with text.
const APIS: [(Engine, &str); 14] = [
    (Engine::Vllm, "/v1/chat/completions"),
    (Engine::Vllm, "/v1/completions"),
    (Engine::Vllm, "/v1/responses"),
    (Engine::Vllm, "/v1/messages"),
    (Engine::LlamaCpp, "/v1/chat/completions"),
    (Engine::LlamaCpp, "/v1/completions"),
    (Engine::LlamaCpp, "/v1/responses"),
    (Engine::LlamaCpp, "/v1/messages"),
    (Engine::LlamaCpp, "/completion"),
    (Engine::Ollama, "/v1/chat/completions"),
    (Engine::Ollama, "/v1/responses"),
    (Engine::Ollama, "/v1/messages"),
    (Engine::Ollama, "/api/chat"),
    (Engine::Ollama, "/api/generate"),
];

pub async fn start(engine: Engine, knobs: LlmKnobs) -> LlmNode {
    let spec = Spec::new(engine, "a").model("tiny", 3000).knobs(knobs);
    LlmNode::start(spec).await.unwrap()
}

/// A request that all of them understand: each takes from it what it knows.
pub fn anything(stream: bool) -> Value {
    json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "tell me"}],
        "input": "tell me",
        "prompt": "tell me",
        "max_tokens": 12,
        "max_output_tokens": 12,
        "n_predict": 12,
        "options": {"num_predict": 12},
        "stream": stream,
    })
}

/// Whatever a stream says, as JSON.
fn events(text: &str) -> Vec<Value> {
    let lines = text
        .lines()
        .map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// What is said in a piece of an answer, or in a whole one.
fn said(told: &Value) -> String {
    let places = [
        "/choices/0/delta/content",
        "/choices/0/message/content",
        "/choices/0/text",
        "/delta/text",
        "/delta",
        "/output/0/content/0/text",
        "/content/0/text",
        "/content",
        "/message/content",
        "/response",
    ];
    let mut found = places
        .iter()
        .filter_map(|place| told.pointer(place)?.as_str());
    found.next().unwrap_or("").to_owned()
}

#[tokio::test]
async fn a_stream_says_piece_by_piece_what_is_said_at_once() {
    for (engine, path) in APIS {
        let node = start(engine, LlmKnobs::instant()).await;
        let whole = post(&node, path, &anything(false).to_string()).await;
        let stream = post(&node, path, &anything(true).to_string()).await;
        assert_eq!((whole.status, stream.status), (200, 200), "{engine} {path}");
        let pieces: String = events(&stream.text()).iter().map(said).collect();
        assert!(!pieces.is_empty());
        assert_eq!(pieces, said(&whole.json()), "{engine} {path}");
        assert_eq!(pieces.split(' ').count(), 12, "{engine} {path}");
    }
}

#[tokio::test]
async fn each_token_is_sent_when_it_is_written() {
    for (engine, path) in APIS {
        let node = start(engine, LlmKnobs::default()).await;
        let asked = begin(&node, path, &anything(true).to_string()).await;
        let mut coming = Coming::head(asked).await.unwrap();
        let mut first = String::new();
        while said_in(&first).is_empty() {
            first += &coming.part().await.unwrap().unwrap();
        }
        // Twelve tokens take more than a hundred milliseconds: not all of them can be written.
        let written = node.seen().work().next().unwrap().answer_tokens;
        assert!(written < 12, "{engine} {path}");
        coming.rest().await.unwrap();
    }
}

fn said_in(text: &str) -> String {
    events(text).iter().map(said).collect()
}

#[tokio::test]
async fn vllm_says_at_once_that_it_will_answer_and_the_others_only_with_the_first_token() {
    for (engine, at_once) in [
        (Engine::Vllm, true),
        (Engine::LlamaCpp, false),
        (Engine::Ollama, false),
    ] {
        let node = LlmNode::start(Spec::new(engine, "a").model("tiny", 3000).slots(1))
            .await
            .unwrap();
        let runs = begin(&node, "/v1/chat/completions", &chat("one", 8000, true)).await;
        until(&node, |seen| seen.most_running == 1).await;
        let waits = begin(&node, "/v1/chat/completions", &chat("two", 5, true)).await;
        until(&node, |seen| seen.most_waiting == 1).await;
        if at_once {
            assert_eq!(Coming::head(waits).await.unwrap().status, 200);
        } else {
            assert!(Coming::head(waits).now_or_never().is_none(), "{engine}");
        }
        drop(runs);
    }
}

#[tokio::test]
async fn what_was_used_is_told_where_it_is_asked_for() {
    for engine in [Engine::Vllm, Engine::LlamaCpp, Engine::Ollama] {
        let node = start(engine, LlmKnobs::instant()).await;
        let plain = post(&node, "/v1/chat/completions", &anything(true).to_string())
            .await
            .text();
        assert!(!plain.contains("\"usage\""), "{engine}");
        let mut asked = anything(true);
        asked["stream_options"] = json!({"include_usage": true});
        let told = post(&node, "/v1/chat/completions", &asked.to_string())
            .await
            .text();
        let last = events(&told).pop().unwrap();
        assert_eq!(last["choices"], json!([]), "{engine}");
        assert_eq!(last["usage"]["completion_tokens"], 12, "{engine}");
        assert!(told.ends_with("data: [DONE]\n\n"), "{engine}");
    }
}

#[tokio::test]
async fn a_request_with_tools_is_answered_by_a_call_where_the_knob_says_so() {
    let tool =
        json!({"name": "look", "parameters": {}, "type": "function", "function": {"name": "look"}});
    for (engine, path) in APIS {
        if path.contains("completion") && !path.contains("chat") || path == "/api/generate" {
            continue;
        }
        let node = start(
            engine,
            LlmKnobs {
                calls_tools: true,
                ..LlmKnobs::instant()
            },
        )
        .await;
        for stream in [false, true] {
            let mut asked = anything(stream);
            asked["tools"] = json!([tool]);
            let told = post(&node, path, &asked.to_string()).await;
            let text = told.text();
            let what = format!("{engine} {path} {text}");
            assert!(text.contains("\"look\""), "{what}");
            let ends = ["\"tool_calls\"", "\"tool_use\"", "\"function_call\""];
            assert!(ends.iter().any(|end| text.contains(end)), "{what}");
            let without = post(&node, path, &anything(stream).to_string())
                .await
                .text();
            assert!(!without.contains("\"look\""), "{engine} {path}");
        }
    }
}

#[tokio::test]
async fn the_arguments_of_a_call_are_json_when_all_its_pieces_came() {
    for engine in [Engine::Vllm, Engine::LlamaCpp, Engine::Ollama] {
        let node = start(
            engine,
            LlmKnobs {
                calls_tools: true,
                ..LlmKnobs::instant()
            },
        )
        .await;
        let mut asked = anything(true);
        asked["tools"] = json!([{"type": "function", "function": {"name": "look"}}]);
        let told = post(&node, "/v1/chat/completions", &asked.to_string())
            .await
            .text();
        let pieces: String = events(&told)
            .iter()
            .filter_map(|event| {
                event
                    .pointer("/choices/0/delta/tool_calls/0/function/arguments")?
                    .as_str()
            })
            .collect();
        let arguments: Value = serde_json::from_str(&pieces).unwrap();
        assert!(arguments["text"].is_string(), "{engine} {pieces}");
        let ends = events(&told);
        let reason = ends
            .iter()
            .find_map(|event| event.pointer("/choices/0/finish_reason")?.as_str());
        assert_eq!(reason, Some("tool_calls"), "{engine}");
    }
}
