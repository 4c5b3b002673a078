//! Models that are loaded, and those that are not.

use crate::client::{Coming, begin, chat, get, post, until};
use serde_json::{Value, json};
use std::time::Duration;
use tabane_sim::llm::{End, Engine, LlmKnobs, LlmNode, Seen, Spec};
use tokio::net::TcpStream;
use tokio::time::sleep;

const CHAT: &str = "/v1/chat/completions";

fn ask_for(model: &str, most: usize) -> String {
    chat("hi", most, true).replace("tiny", model)
}

fn loading(ms: u64) -> LlmKnobs {
    LlmKnobs {
        load_ms: ms,
        ..LlmKnobs::default()
    }
}

/// Three models, of which two have room.
async fn three(engine: Engine, knobs: LlmKnobs) -> LlmNode {
    let mut spec = Spec::new(engine, "a")
        .model("a", 4000)
        .model("b", 4000)
        .model("c", 4000)
        .knobs(knobs);
    spec.vram_mib = 9000;
    spec.router = engine == Engine::LlamaCpp;
    LlmNode::start(spec).await.unwrap()
}

fn loads(seen: &Seen) -> Vec<&str> {
    seen.loads.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn vllm_does_not_listen_while_it_loads() {
    let node = LlmNode::start(Spec::vllm("a", "tiny").knobs(loading(150)))
        .await
        .unwrap();
    assert!(TcpStream::connect(node.addr()).await.is_err());
    node.ready().await;
    assert_eq!(get(&node, "/health").await.status, 200);
    assert_eq!(loads(&node.seen()), ["tiny"]);
}

#[tokio::test]
async fn llama_cpp_says_that_it_loads() {
    let node = LlmNode::start(Spec::llama_cpp("a", "tiny").knobs(loading(150)))
        .await
        .unwrap();
    let told = r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
    for path in ["/health", "/v1/models", "/slots"] {
        let early = get(&node, path).await;
        assert_eq!((early.status, early.text().as_str()), (503, told), "{path}");
    }
    assert_eq!(post(&node, CHAT, &chat("hi", 5, true)).await.status, 503);
    node.ready().await;
    assert_eq!(get(&node, "/health").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(post(&node, CHAT, &chat("hi", 5, true)).await.status, 200);
}

#[tokio::test]
async fn models_are_loaded_when_they_are_asked_for_and_the_longest_unused_makes_room() {
    for engine in [Engine::Ollama, Engine::LlamaCpp] {
        let node = three(engine, LlmKnobs::instant()).await;
        assert!(node.seen().loads.is_empty());
        for model in ["a", "b", "a", "c", "a", "b"] {
            assert_eq!(
                post(&node, CHAT, &ask_for(model, 5)).await.status,
                200,
                "{engine}"
            );
        }
        assert_eq!(loads(&node.seen()), ["a", "b", "c", "b"], "{engine}");
        assert_eq!(node.seen().unloads, ["b", "c"], "{engine}");
    }
}

#[tokio::test]
async fn a_model_at_work_is_not_let_go_of() {
    let node = three(Engine::Ollama, LlmKnobs::default()).await;
    let first = begin(&node, CHAT, &ask_for("a", 4000)).await;
    let _second = begin(&node, CHAT, &ask_for("b", 4000)).await;
    until(&node, |seen| {
        seen.work().filter(|asked| asked.answer_tokens > 0).count() == 2
    })
    .await;
    let third = begin(&node, CHAT, &ask_for("c", 5)).await;
    until(&node, |seen| seen.work().count() == 3).await;
    assert!(node.seen().unloads.is_empty());
    drop(first);
    assert_eq!(Coming::head(third).await.unwrap().status, 200);
    assert_eq!(node.seen().unloads, ["a"]);
}

#[tokio::test]
async fn a_load_takes_its_time_and_is_told() {
    let mut knobs = loading(100);
    knobs.load_ms_per_gib = 10;
    let node = LlmNode::start(Spec::ollama("a", "tiny").knobs(knobs))
        .await
        .unwrap();
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"stream":false}"#;
    let first = post(&node, "/api/chat", body).await.json();
    // A hundred milliseconds, and ten for each of five whole GiB.
    assert!(
        first["load_duration"].as_u64().unwrap() >= 150_000_000,
        "{first}"
    );
    let second = post(&node, "/api/chat", body).await.json();
    assert!(
        second["load_duration"].as_u64().unwrap_or(0) < 100_000_000,
        "{second}"
    );
    assert!(second["total_duration"].as_u64().unwrap() < first["total_duration"].as_u64().unwrap());
}

#[tokio::test]
async fn in_ollama_a_load_ends_with_the_request_that_wanted_it() {
    let node = three(Engine::Ollama, loading(3_600_000)).await;
    let asked = begin(&node, CHAT, &ask_for("a", 5)).await;
    until(&node, |seen| seen.work().count() == 1).await;
    assert_eq!(get(&node, "/api/ps").await.json(), json!({"models": []}));
    drop(asked);
    until(&node, |seen| {
        seen.work().all(|asked| asked.end == Some(End::Aborted))
    })
    .await;
    node.set(|knobs| knobs.load_ms = 0);
    assert_eq!(post(&node, CHAT, &ask_for("b", 5)).await.status, 200);
    assert_eq!(loads(&node.seen()), ["b"]);
}

#[tokio::test]
async fn in_a_router_of_llama_cpp_a_load_goes_on() {
    let node = three(Engine::LlamaCpp, loading(150)).await;
    let asked = begin(&node, CHAT, &ask_for("a", 5)).await;
    until(&node, |seen| seen.work().count() == 1).await;
    drop(asked);
    until(&node, |seen| seen.loads == ["a"]).await;
}

#[tokio::test]
async fn ollama_lets_only_so_many_wait_for_models() {
    let mut spec = Spec::ollama("a", "tiny").knobs(loading(3_600_000));
    spec.max_queue = 2;
    let node = LlmNode::start(spec).await.unwrap();
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
    let mut waiting = Vec::new();
    for count in 1..=2 {
        waiting.push(begin(&node, "/api/chat", body).await);
        until(&node, |seen| seen.work().count() == count).await;
    }
    let refused = post(&node, "/api/chat", body).await;
    assert_eq!(refused.status, 503);
    assert_eq!(
        refused.text(),
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#
    );
}

#[tokio::test]
async fn ollama_keeps_a_model_as_long_as_it_is_told_to() {
    let node = three(Engine::Ollama, LlmKnobs::instant()).await;
    let ask = |keep: &str, messages: &str| {
        format!(r#"{{"model":"a","messages":{messages},"stream":false,"keep_alive":{keep}}}"#)
    };
    let hi = r#"[{"role":"user","content":"hi"}]"#;
    let loaded = || async {
        get(&node, "/api/ps").await.json()["models"]
            .as_array()
            .unwrap()
            .len()
    };
    post(&node, "/api/chat", &ask("-1", hi)).await;
    assert_eq!(loaded().await, 1);
    // Nothing is asked for: it is only let go of.
    let told = post(&node, "/api/chat", &ask("0", "[]")).await.json();
    assert_eq!(
        (&told["done"], &told["done_reason"]),
        (&json!(true), &json!("unload"))
    );
    assert_eq!(loaded().await, 0);
    let told = post(&node, "/api/chat", &ask("\"5m\"", "[]")).await.json();
    assert_eq!(told["done_reason"], "load");
    assert_eq!(loaded().await, 1);
    // It goes with the answer.
    post(&node, "/api/chat", &ask("0", hi)).await;
    until(&node, |seen| seen.unloads.len() == 2).await;
    post(&node, "/api/chat", &ask("1", hi)).await;
    assert_eq!(loaded().await, 1);
    until(&node, |seen| seen.unloads.len() == 3).await;
    assert_eq!(loaded().await, 0);
}

#[tokio::test]
async fn a_model_that_was_let_go_of_has_forgotten_what_it_read() {
    let node = three(Engine::Ollama, LlmKnobs::instant()).await;
    for (model, hit) in [("a", 0), ("a", 10), ("b", 0), ("c", 0), ("a", 0)] {
        post(&node, CHAT, &ask_for(model, 5)).await;
        assert_eq!(
            node.seen().work().last().unwrap().hit_tokens,
            Some(hit),
            "{model}"
        );
    }
}

#[tokio::test]
async fn a_router_tells_of_its_models_and_loads_them_on_order() {
    let node = three(Engine::LlamaCpp, loading(50)).await;
    let states = || async {
        let told = get(&node, "/models").await.json();
        let states = told["data"].as_array().unwrap().iter();
        states
            .map(|model| model["status"]["value"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(get(&node, "/health").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(get(&node, "/props").await.json()["role"], "router");
    assert_eq!(states().await, ["unloaded", "unloaded", "unloaded"]);
    let told = post(&node, "/models/load", r#"{"model":"b"}"#).await;
    assert_eq!(told.text(), r#"{"success":true}"#);
    while states().await != ["unloaded", "loaded", "unloaded"] {
        sleep(Duration::from_millis(1)).await;
    }
    let again = post(&node, "/models/load", r#"{"model":"b"}"#).await;
    assert_eq!(
        (again.status, again.json()["error"]["message"].clone()),
        (400, json!("model is already running"))
    );
    assert_eq!(get(&node, "/slots?model=b").await.status, 200);
    let away = get(&node, "/slots?model=a&autoload=false").await;
    assert_eq!(away.json()["error"]["message"], "model is not loaded");
    assert_eq!(
        post(&node, "/models/unload", r#"{"model":"b"}"#)
            .await
            .text(),
        r#"{"success":true}"#
    );
    assert_eq!(states().await, ["unloaded", "unloaded", "unloaded"]);
    let unknown = post(&node, CHAT, &ask_for("no", 5)).await;
    assert_eq!(
        (unknown.status, unknown.json()["error"]["message"].clone()),
        (400, json!("model 'no' not found"))
    );
}

#[tokio::test]
async fn vllm_sleeps_and_wakes() {
    let node = LlmNode::start(Spec::vllm("a", "tiny").knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    assert_eq!(
        get(&node, "/is_sleeping").await.json(),
        json!({"is_sleeping": false})
    );
    post(&node, "/sleep?level=1", "").await;
    assert_eq!(
        get(&node, "/is_sleeping").await.json(),
        json!({"is_sleeping": true})
    );
    let waits = begin(&node, CHAT, &chat("hi", 5, false)).await;
    until(&node, |seen| seen.work().count() == 1).await;
    post(&node, "/wake_up", "").await;
    assert_eq!(Coming::head(waits).await.unwrap().status, 200);
    assert_eq!((node.seen().loads.len(), node.seen().unloads.len()), (2, 1));
}

#[tokio::test]
async fn only_the_models_that_are_there_are_named() {
    let node = three(Engine::Ollama, LlmKnobs::instant()).await;
    let names = |told: &Value| -> Vec<String> {
        let all = told["models"]
            .as_array()
            .or(told["data"].as_array())
            .unwrap()
            .iter();
        all.map(|one| {
            one["name"]
                .as_str()
                .or(one["id"].as_str())
                .unwrap()
                .to_owned()
        })
        .collect()
    };
    let all = ["a:latest", "b:latest", "c:latest"];
    assert_eq!(names(&get(&node, "/api/tags").await.json()), all);
    assert_eq!(names(&get(&node, "/v1/models").await.json()), all);
    assert_eq!(get(&node, "/v1/models/a").await.json()["id"], "a");
    assert_eq!(get(&node, "/v1/models/no").await.status, 404);
    let show = post(&node, "/api/show", r#"{"model":"a"}"#).await.json();
    assert_eq!(show["model_info"]["llama.context_length"], 8192);
    assert_eq!(show["capabilities"], json!(["completion", "tools"]));
    post(&node, CHAT, &ask_for("b:latest", 5)).await;
    let ps = get(&node, "/api/ps").await.json();
    assert_eq!(names(&ps), ["b:latest"]);
    assert_eq!(ps["models"][0]["size_vram"], 4000_u64 << 20);
}
