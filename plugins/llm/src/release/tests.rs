use super::*;
use crate::probe::probe;
use crate::testing::{FakeNode, chat, llm};
use std::sync::Arc;

#[tokio::test(start_paused = true)]
async fn an_engine_that_loads_on_demand_lets_go_of_all_it_has() {
    let kind = llm(
        r#"{"engines": {"o/llm": "ollama", "l/llm": "llama_cpp", "s/llm": "lm_studio", "v/llm": "vllm", "one/llm": "llama_cpp"}}"#,
    );
    let loaded = r#"{"models":[{"name":"m:latest"},{"name":"n:8b"}]}"#;
    let routed = r#"{"data":[{"id":"m","owned_by":"llamacpp","status":{"value":"loaded"}},{"id":"n","status":{"value":"unloaded"}}]}"#;
    let instances = r#"{"models":[{"key":"m","loaded_instances":[{"id":"m:2"}]},{"key":"n","loaded_instances":[]}]}"#;
    for (name, path, says, after, posted) in [
        (
            "o/llm",
            "/api/ps",
            loaded,
            r#"{"models":[]}"#,
            vec![
                r#"/api/generate {"keep_alive":0,"model":"m:latest"}"#,
                r#"/api/generate {"keep_alive":0,"model":"n:8b"}"#,
            ],
        ),
        (
            "l/llm",
            "/v1/models",
            routed,
            r#"{"data":[{"id":"m","status":{"value":"unloaded"}}]}"#,
            vec![r#"/models/unload {"model":"m"}"#],
        ),
        (
            "s/llm",
            "/api/v1/models",
            instances,
            r#"{"models":[]}"#,
            vec![r#"/api/v1/models/unload {"instance_id":"m:2"}"#],
        ),
    ] {
        let node = FakeNode::new(name, &[(path, says)]);
        for order in ["/api/generate", "/models/unload", "/api/v1/models/unload"] {
            node.set(order, 200, "{}");
        }
        let node = Arc::new(node);
        let (own, kind) = (node.clone(), kind.clone());
        let releasing = tokio::spawn(async move { release(&kind, &*own).await });
        for _ in 0..50 {
            tokio::time::sleep(LOOK).await;
        }
        assert!(
            !releasing.is_finished(),
            "{name}: what is asked for is not done"
        );
        node.set(path, 200, after);
        assert_eq!(releasing.await.unwrap(), Ok(Released::Freed), "{name}");
        assert_eq!(node.posted(), posted);
    }
    for (name, answer) in [
        ("v/llm", r#"{"data":[{"id":"m"}]}"#),
        ("one/llm", r#"{"data":[{"id":"m"}]}"#),
    ] {
        let node = FakeNode::new(
            name,
            &[
                ("/v1/models", answer),
                ("/is_sleeping", r#"{"is_sleeping":false}"#),
            ],
        );
        assert_eq!(
            release(&kind, &node).await,
            Ok(Released::Unsupported),
            "{name}"
        );
        assert!(node.posted().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_over_when_the_engine_has_no_more_than_is_ours() {
    let kind = llm(r#"{"engines": {"v/llm": "vllm", "o/llm": "ollama"}}"#);
    let metrics = |running: u32| format!("vllm:num_requests_running {running}\n");
    let models = ("/v1/models", r#"{"data":[{"id":"m","owned_by":"vllm"}]}"#);
    let node = FakeNode::new(
        "v/llm",
        &[models, ("/health", ""), ("/metrics", &metrics(2))],
    );
    probe(&kind, &node).await.unwrap();
    assert_eq!(stopped(&kind, &node).await, Ok(Stopped::Unknown));
    let there = kind.desk.farm.named("v/llm");
    for _ in 0..2 {
        let need = chat(&kind, "m", "hi");
        there.begins(
            need.own.get().unwrap(),
            &kind.desk.learned.read(),
            crate::clock::now(),
        );
    }
    assert_eq!(
        stopped(&kind, &node).await,
        Ok(Stopped::Idle),
        "two of ours run on"
    );
    node.set("/metrics", 200, &metrics(3));
    assert_eq!(stopped(&kind, &node).await, Ok(Stopped::Unknown));
    let silent = FakeNode::new("o/llm", &[("/api/version", r#"{"version":"1"}"#)]);
    assert_eq!(stopped(&kind, &silent).await, Ok(Stopped::Unknown));
}
