//! Lists of all engines as one.

use super::{Farm, chat};
use serde_json::Value;
use tabane_sim::llm::{LlmKnobs, Spec};

fn names(list: &Value, key: &str, name: &str) -> Vec<String> {
    let entries = list[key]
        .as_array()
        .unwrap_or_else(|| panic!("{list}"))
        .iter();
    let mut all: Vec<String> = entries
        .map(|e| e[name].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn all_models_are_there_once_and_one_dead_engine_spoils_nothing() {
    let specs = vec![
        Spec::vllm("a", "large").knobs(LlmKnobs::instant()),
        Spec::llama_cpp("b", "small").knobs(LlmKnobs::instant()),
        Spec::ollama("c", "qwen3:8b").knobs(LlmKnobs::instant()),
        Spec::vllm("d", "dead").knobs(LlmKnobs::instant()),
    ];
    let mut farm = Farm::start(specs, "aliases: {fast: small}").await;
    farm.node_mut("d").crash().await;
    farm.scene.until_state("d/http", "down").await;
    let list = farm.scene.get("/v1/models").await.json();
    let all = names(&list, "data", "id");
    assert!(
        ["large", "small", "qwen3:8b", "fast"]
            .iter()
            .all(|name| all.contains(&name.to_string())),
        "{all:?}"
    );
    let large = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["id"] == "large")
        .unwrap();
    assert_eq!(
        (&large["owned_by"], &large["max_model_len"]),
        (&"vllm".into(), &8192.into()),
        "in its engine's words"
    );
    let one = farm.scene.get("/v1/models/fast").await;
    assert_eq!(
        (one.status.as_u16(), &one.json()["owned_by"]),
        (200, &"llamacpp".into())
    );
    assert_eq!(farm.scene.get("/v1/models/none").await.status, 404);

    let tags = names(&farm.scene.get("/api/tags").await.json(), "models", "name");
    assert!(
        tags.contains(&"qwen3:8b".into()) && tags.contains(&"large".into()),
        "{tags:?}"
    );
    assert!(farm.scene.get("/api/version").await.json()["version"].is_string());
    // Nothing is loaded until somebody asks.
    let ps = farm.scene.get("/api/ps").await.json();
    assert_eq!(ps["models"], Value::Array(Vec::new()));
    let told = farm
        .post("/api/chat", chat("qwen3:8b", "hi", 3, false))
        .await;
    assert_eq!(told.status, 200, "{told:?}");
    let looked = async {
        while farm.scene.get("/api/ps").await.json()["models"][0]["name"] != "qwen3:8b" {}
    };
    tokio::time::timeout(super::LONG, looked).await.unwrap();
}

#[tokio::test]
async fn engines_are_not_managed_by_clients_unless_the_file_says_so() {
    let spec = || vec![Spec::vllm("a", "m").knobs(LlmKnobs::instant())];
    let farm = Farm::start(spec(), "").await;
    assert_eq!(farm.post("/sleep", "").await.status, 403);
    let asked = farm.node("a").seen().asked;
    assert!(asked.iter().all(|asked| asked.path != "/sleep"));
    let farm = Farm::start(spec(), "manage: true").await;
    assert_eq!(farm.post("/sleep", "").await.status, 200);
    // What an engine says of itself, and what counts tokens.
    assert_eq!(farm.scene.get("/version").await.json()["version"], "0.32.0");
    let told = farm
        .post("/tokenize", r#"{"model":"m","prompt":"hi there"}"#)
        .await;
    assert_eq!(told.status, 200, "{told:?}");
}
