//! Engines that die in the middle of their work.

use super::{CHAT, Farm, chat, chats, until};
use tabane_sim::llm::{End, LlmKnobs, Spec};

fn slow() -> LlmKnobs {
    LlmKnobs {
        step_ms: 20.0,
        ..LlmKnobs::default()
    }
}

#[tokio::test]
async fn a_stream_whose_engine_dies_ends_with_an_error_that_is_heard() {
    for (path, engine, error) in [
        (CHAT, Spec::vllm("a", "m"), "data: {\"error\":{"),
        (
            "/v1/responses",
            Spec::vllm("a", "m"),
            "event: error\ndata: {",
        ),
        (
            "/v1/messages",
            Spec::llama_cpp("a", "m"),
            "event: error\ndata: {",
        ),
        ("/api/chat", Spec::ollama("a", "m"), "{\"error\":\""),
    ] {
        let mut farm = Farm::start(vec![engine.knobs(slow())], "").await;
        let body = match path {
            "/v1/responses" => r#"{"model":"m","input":"hi","max_output_tokens":500,"stream":true}"#.into(),
            "/api/chat" => r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"options":{"num_predict":500}}"#.into(),
            _ => chat("m", "hi", 500, true),
        };
        let mut coming = farm.begin(path, body).await;
        assert_eq!(coming.head.status, 200, "{path}");
        assert!(coming.until(|text| text.len() > 400).await.unwrap());
        farm.node_mut("a").crash().await;
        let text = coming
            .rest()
            .await
            .expect("its end is one that clients read");
        let end = &text[text
            .rfind(error)
            .unwrap_or_else(|| panic!("{path}: {text}"))..];
        assert!(end.contains("broke off"), "{path}: {end}");
        assert!(!end.contains("[DONE]"));
    }
}

#[tokio::test]
async fn an_engine_that_dies_before_its_first_byte_harms_nobody() {
    let specs = ["a", "b"].map(|name| Spec::llama_cpp(name, "m").knobs(slow()));
    let mut farm = Farm::start(specs.into(), "").await;
    for node in &farm.nodes {
        node.set(|knobs| knobs.hang = true);
    }
    let request = farm.request(CHAT, chat("m", "hi", 5, true));
    let asked = tokio::spawn(farm.scene.client.request(request));
    let has = |seen: &tabane_sim::llm::Seen| chats(seen) == 1;
    let first = tokio::select! {
        () = until(&farm.nodes[0], has) => "a",
        () = until(&farm.nodes[1], has) => "b",
    };
    let other = if first == "a" { "b" } else { "a" };
    farm.node(other).set(|knobs| knobs.hang = false);
    farm.node_mut(first).crash().await;
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["tabane-node"], format!("{other}/http"));
    until(farm.node(other), |seen| {
        seen.work()
            .any(|asked| asked.end == Some(End::Answered(200)))
    })
    .await;
}

#[tokio::test]
async fn an_engine_whose_answers_stand_still_is_left_alone() {
    let farm = Farm::start(vec![Spec::vllm("a", "m").knobs(slow())], "").await;
    let mut coming = farm.begin(CHAT, chat("m", "hi", 500, true)).await;
    assert!(
        coming
            .until(|text| text.matches("data:").count() > 3)
            .await
            .unwrap()
    );
    farm.node("a").set(|knobs| knobs.step_ms = 1e9);
    // Its health is well all the while; ten seconds without a token and without a count are not.
    farm.scene.until_state("a/http", "down").await;
}
