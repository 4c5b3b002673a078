//! Names by purpose: what stands for them, and what is tried next.

use super::{CHAT, Farm, More, chat, chats, last, until};
use serde_json::json;
use tabane_sim::llm::{LlmKnobs, Spec};

fn two() -> Vec<Spec> {
    vec![
        Spec::vllm("a", "large").knobs(LlmKnobs::instant()),
        Spec::llama_cpp("b", "small").knobs(LlmKnobs::instant()),
    ]
}

const KIND: &str = "aliases: {good: [large, small]}";

#[tokio::test]
async fn the_next_model_serves_where_the_first_cannot() {
    for broken in ["status", "drop", "long"] {
        let farm = Farm::start(two(), KIND).await;
        let told = farm.post(CHAT, chat("good", "hi", 3, true)).await;
        assert_eq!(
            (told.status.as_u16(), farm.worked().as_str()),
            (200, "a"),
            "{broken}"
        );
        let mut text = "hi".to_owned();
        farm.node("a").set(|knobs| match broken {
            "status" => knobs.status = Some(503),
            "drop" => knobs.drop_after = Some(0),
            // Longer than the first one's context, which is as long as the other's, but for what the knobs say.
            _ => knobs.status = Some(400),
        });
        if broken == "long" {
            farm.node("a").set(|knobs| knobs.status = None);
            text = "word ".repeat(9000);
        }
        let told = farm.post(CHAT, chat("good", &text, 3, true)).await;
        let asked = farm.node("b").seen().asked;
        let asked = asked.iter().rfind(|asked| asked.path == CHAT).unwrap();
        assert!(asked.body.windows(7).any(|w| w == b"\"small\""), "{broken}");
        if broken != "long" {
            assert_eq!(told.status, 200, "{broken}: {told:?}");
        }
    }
}

#[tokio::test]
async fn the_next_model_serves_where_nobody_listens_for_the_first() {
    let mut farm = Farm::start(two(), KIND).await;
    farm.node_mut("a").crash().await;
    let told = farm.post(CHAT, chat("good", "hi", 3, false)).await;
    assert_eq!(
        (told.status.as_u16(), farm.worked().as_str()),
        (200, "b"),
        "{told:?}"
    );
    assert_eq!(told.json()["model"], "small");
}

#[tokio::test]
async fn the_first_model_is_waited_for_no_longer_than_the_file_says() {
    let more = More {
        kind: "aliases: {good: [{model: large, max_wait: 200ms}, small]}",
        ..More::default()
    };
    let mut specs = two();
    specs[0] = Spec::llama_cpp("a", "large").slots(1);
    let farm = Farm::with(specs, more).await;
    farm.node("a").set(|knobs| knobs.hang = true);
    let hangs = farm
        .scene
        .client
        .request(farm.request(CHAT, chat("large", "hi", 3, false)));
    let hangs = tokio::spawn(hangs);
    until(farm.node("a"), |seen| chats(seen) == 1).await;
    let told = farm.post(CHAT, chat("good", "hi", 3, false)).await;
    assert_eq!(told.json()["model"], "small", "{told:?}");
    assert_eq!(chats(&farm.node("a").seen()), 1);
    hangs.abort();
}

#[tokio::test]
async fn an_error_of_the_last_model_is_its_own() {
    let farm = Farm::start(two(), KIND).await;
    for node in &farm.nodes {
        node.set(|knobs| knobs.status = Some(429));
        node.set(|knobs| knobs.retry_after = Some("7".into()));
    }
    let told = farm.post(CHAT, chat("good", "hi", 3, false)).await;
    assert_eq!(
        (told.status.as_u16(), told.header("retry-after")),
        (429, "7"),
        "{told:?}"
    );
    assert!(last(farm.node("b")).path == CHAT);
}

#[tokio::test]
async fn a_model_that_nobody_has_is_told_in_the_clients_words() {
    let farm = Farm::start(two(), KIND).await;
    let told = farm.post(CHAT, chat("lrage", "hi", 3, true)).await;
    assert_eq!(told.status, 404);
    assert_eq!(
        told.json()["error"],
        json!({"message": "The model `lrage` does not exist. Did you mean `large`?", "type": "invalid_request_error",
               "param": "model", "code": "model_not_found"})
    );
    let told = farm
        .post("/v1/messages", chat("lrage", "hi", 3, true))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    let told = farm.post("/api/chat", chat("lrage", "hi", 3, true)).await;
    assert!(
        told.json()["error"]
            .as_str()
            .unwrap()
            .contains("Did you mean"),
        "{told:?}"
    );
    assert_eq!(farm.worked(), "");
}

#[tokio::test]
async fn each_model_is_asked_where_it_is() {
    let farm = Farm::start(two(), "").await;
    for (model, wants) in [("small", "b"), ("large", "ab"), ("small", "abb")] {
        let told = farm.post(CHAT, chat(model, "hi", 3, true)).await;
        assert_eq!(
            (told.status.as_u16(), farm.worked().as_str()),
            (200, wants),
            "{told:?}"
        );
    }
}
