use super::*;
use crate::testing::{FakeNode, chat, llm};
use std::time::Instant;

const MODELS: (&str, &str) = (
    "/v1/models",
    r#"{"data":[{"id":"m","owned_by":"vllm","max_model_len":8192}]}"#,
);

fn metrics(running: u32, tokens: u32) -> String {
    format!(
        "vllm:num_requests_running{{a=\"b\"}} {running}\nvllm:num_requests_waiting 2\nvllm:generation_tokens_total {tokens}\n"
    )
}

#[tokio::test]
async fn an_engine_is_found_out_once_and_then_asked_what_it_answers() {
    let kind = llm("{}");
    let node = FakeNode::new(
        "a/llm",
        &[MODELS, ("/health", ""), ("/metrics", &metrics(1, 5))],
    );
    let told = probe(&kind, &node).await.unwrap();
    assert_eq!((told.busy, told.models), (Some(3), vec!["m".to_owned()]));
    assert!(kind.setup.models.read().is_known("m"));
    node.asked.lock().clear();
    probe(&kind, &node).await.unwrap();
    let mut asked: Vec<String> = node
        .asked
        .lock()
        .iter()
        .map(|(path, _, _)| path.clone())
        .collect();
    asked.sort();
    assert_eq!(asked, ["/health", "/is_sleeping", "/metrics", "/v1/models"]);
    // Another engine stands there now.
    let ps = r#"{"models":[{"name":"q:latest"}]}"#;
    for path in ["/health", "/metrics", "/v1/models"] {
        node.set(path, 404, "");
    }
    node.set("/api/version", 200, r#"{"version":"0.1"}"#);
    node.set(
        "/api/tags",
        200,
        r#"{"models":[{"name":"q:latest","digest":"d"}]}"#,
    );
    node.set("/api/ps", 200, ps);
    let told = probe(&kind, &node).await.unwrap();
    assert_eq!(told.models, ["q:latest", "q"]);
    assert_eq!(
        told.loaded.as_deref(),
        Some(["q:latest".into(), "q".into()].as_slice())
    );
    assert_eq!(told.slots, Some(AT_ONCE));
}

#[tokio::test]
async fn one_that_is_full_is_well_and_one_that_loads_or_says_nothing_is_not() {
    let kind = llm("{}");
    let node = FakeNode::new(
        "a/llm",
        &[MODELS, ("/health", ""), ("/metrics", &metrics(900, 5))],
    );
    assert!(probe(&kind, &node).await.is_ok());
    node.set("/health", 503, r#"{"error":{"message":"Loading model"}}"#);
    assert!(matches!(
        probe(&kind, &node).await,
        Err(ProbeError::Unhealthy(_))
    ));
    *node.gone.lock() = Some(NodeError::Timeout);
    assert_eq!(probe(&kind, &node).await, Err(ProbeError::Timeout));
    *node.gone.lock() = Some(NodeError::Unreachable("refused".into()));
    assert!(matches!(
        probe(&kind, &node).await,
        Err(ProbeError::Unreachable(_))
    ));
    assert!(kind.desk.farm.named("a/llm").state.lock().was_gone);
    let nobody = FakeNode::new("b/llm", &[]);
    assert!(matches!(
        probe(&kind, &nobody).await,
        Err(ProbeError::Unhealthy(_))
    ));
}

#[tokio::test]
async fn a_cloud_is_asked_with_its_own_key_and_may_say_what_it_likes() {
    let kind = llm(
        r#"{"engines": {"cloud/o": "openai"}, "aliases": {"big": {"model": "gpt", "at": "cloud/o", "headers": {"authorization": "Bearer k"}}}}"#,
    );
    let node = FakeNode::new("cloud/o", &[("/v1/models", r#"{"data":[{"id":"other"}]}"#)]);
    let told = probe(&kind, &node).await.unwrap();
    assert!(told.models.is_empty(), "it may serve what it does not list");
    let (path, headers, _) = node.asked.lock()[0].clone();
    assert_eq!(
        (path.as_str(), headers["authorization"].to_str().unwrap()),
        ("/v1/models", "Bearer k")
    );
    assert_eq!(node.asked.lock().len(), 1);
    for (status, well) in [(429, true), (404, true), (401, false), (500, false)] {
        node.set("/v1/models", status, "");
        assert_eq!(probe(&kind, &node).await.is_ok(), well, "{status}");
    }
}

#[tokio::test]
async fn what_the_file_says_of_models_goes_before_what_the_engine_does() {
    let kind = llm(r#"{"models": {"a/llm": ["only"]}}"#);
    let node = FakeNode::new("a/llm", &[MODELS, ("/health", "")]);
    assert_eq!(probe(&kind, &node).await.unwrap().models, ["only"]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_answers_stand_still_while_it_counts_nothing_is_not_well() {
    let kind = llm("{}");
    let node = FakeNode::new(
        "a/llm",
        &[MODELS, ("/health", ""), ("/metrics", &metrics(1, 5))],
    );
    probe(&kind, &node).await.unwrap();
    let there = kind.desk.farm.named("a/llm");
    let need = chat(&kind, "m", "hi");
    let call = need.own.get().unwrap();
    let begins = |at: Instant| {
        there.begins(call, &kind.desk.learned.read(), at);
        there.heard(call, true, at);
    };
    begins(now());
    tokio::time::advance(SILENT / 2).await;
    assert!(probe(&kind, &node).await.is_ok());
    tokio::time::advance(SILENT / 2).await;
    assert!(matches!(
        probe(&kind, &node).await,
        Err(ProbeError::Unhealthy(_))
    ));
    // It goes on.
    node.set("/metrics", 200, &metrics(1, 6));
    assert!(probe(&kind, &node).await.is_ok());
}
