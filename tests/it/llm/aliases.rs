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
    for broken in ["busy", "dropping", "too small"] {
        let mut specs = two();
        specs[0].models[0].context = 64;
        let farm = Farm::start(specs, KIND).await;
        let told = farm.post(CHAT, chat("good", "hi", 3, true)).await;
        let first = (told.status.as_u16(), farm.worked());
        assert_eq!(first, (200, "a".into()), "{broken}");
        let text = match broken {
            "too small" => "word ".repeat(200),
            _ => "hi".into(),
        };
        farm.node("a").set(|knobs| match broken {
            "busy" => knobs.status = Some(503),
            "dropping" => knobs.drop_after = Some(0),
            _ => {}
        });
        for stream in [true, false] {
            let told = farm.post(CHAT, chat("good", &text, 3, stream)).await;
            assert_eq!(told.status, 200, "{broken}: {told:?}");
            assert_eq!(told.header("tabane-node"), "b/http", "{broken}");
            assert_eq!(last(farm.node("b")).model.as_deref(), Some("small"));
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

#[tokio::test]
async fn a_job_asks_for_the_model_that_its_alias_stands_for() {
    let more = More {
        kind: KIND,
        top: "data_dir: data",
        ..More::default()
    };
    let farm = Farm::with(two(), more).await;
    let mut request = farm.request(CHAT, chat("good", "hi", 3, false));
    let later = "respond-async".parse().unwrap();
    request.headers_mut().insert("prefer", later);
    let taken = farm.scene.send(request).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    until(farm.node("a"), |seen| {
        seen.work().any(|asked| asked.end.is_some())
    })
    .await;
    assert_eq!(last(farm.node("a")).model.as_deref(), Some("large"));
}

#[tokio::test]
async fn what_a_node_keeps_is_asked_of_that_node() {
    let specs = ["a", "b"].map(|name| Spec::vllm(name, "m").knobs(LlmKnobs::instant()));
    let farm = Farm::start(specs.into(), "").await;
    for n in 0..6 {
        let body = format!(r#"{{"model":"m","input":"{n}","stream":{}}}"#, n % 2 == 0);
        let made = farm.post("/v1/responses", body).await;
        assert_eq!(made.status, 200, "{made:?}");
        let text = String::from_utf8_lossy(&made.body);
        let at = text.find("\"resp_").unwrap() + 1;
        let id = text[at..].split('"').next().unwrap();
        let kept = farm.scene.get(&format!("/v1/responses/{id}")).await;
        assert_eq!(kept.header("tabane-node"), made.header("tabane-node"));
        let next = format!(r#"{{"model":"m","input":"on","previous_response_id":"{id}"}}"#);
        let next = farm.post("/v1/responses", next).await;
        assert_eq!(next.header("tabane-node"), made.header("tabane-node"));
    }
    let both = farm.worked();
    assert!(both.contains('a') && both.contains('b'), "{both}");
}

#[tokio::test]
async fn a_key_is_heard_by_the_endpoint_that_it_is_for_and_by_no_other() {
    let kind = "engines: {b/http: openai}, aliases: {good: [{model: large, max_wait: 1s}, {model: small, at: b/http, headers: {authorization: Bearer secret}}]}";
    let farm = Farm::start(two(), kind).await;
    for n in 0..6 {
        farm.node("a")
            .set(|knobs| knobs.status = (n % 2 == 1).then_some(503));
        let mut request = farm.request(CHAT, chat("good", "hi", 3, false));
        let theirs = "Bearer theirs".parse().unwrap();
        request.headers_mut().insert("authorization", theirs);
        let told = farm.scene.send(request).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    let keys = |node: &str| -> std::collections::BTreeSet<String> {
        let asked = farm.node(node).seen().asked;
        let keys = asked
            .iter()
            .filter_map(|asked| asked.header("authorization"));
        keys.map(str::to_owned).collect()
    };
    assert_eq!(keys("a"), ["Bearer theirs".to_owned()].into());
    assert_eq!(keys("b"), ["Bearer secret".to_owned()].into());
    // At least each time the other failed, which may be left alone for a while then.
    assert!(farm.worked().matches('b').count() >= 3);
    // By its own name nobody gets it for the file's money.
    let told = farm.post(CHAT, chat("small", "hi", 3, false)).await;
    assert_eq!(told.status, 404, "{told:?}");
    let all = farm.scene.get("/v1/models").await.json().to_string();
    assert!(all.contains("good") && !all.contains("secret"), "{all}");
}
