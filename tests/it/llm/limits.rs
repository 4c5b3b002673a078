//! What tenants may ask for.

use super::{CHAT, Farm, chat, until};
use tabane_sim::llm::{LlmKnobs, Spec};

#[tokio::test]
async fn who_asks_for_more_than_may_be_hears_when_there_is_more() {
    let kind = "limits: [{requests_per_minute: 2}]";
    let farm = Farm::start(vec![Spec::vllm("a", "m").knobs(LlmKnobs::instant())], kind).await;
    for _ in 0..2 {
        assert_eq!(farm.post(CHAT, chat("m", "hi", 3, false)).await.status, 200);
    }
    let told = farm.post(CHAT, chat("m", "hi", 3, false)).await;
    assert_eq!(told.status, 429);
    assert_eq!(told.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(told.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(told.header("x-ratelimit-remaining-requests"), "0");
    let after: u64 = told.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&after), "{told:?}");
    let told = farm.post("/v1/messages", chat("m", "hi", 3, false)).await;
    assert_eq!(told.json()["error"]["type"], "rate_limit_error");
    assert_eq!(told.header("anthropic-ratelimit-requests-limit"), "2");
    // What is no work is not limited.
    assert_eq!(farm.scene.get("/v1/models").await.status, 200);
    assert_eq!(farm.worked(), "aa");
}

#[tokio::test]
async fn so_many_at_once_and_their_place_is_free_when_they_leave() {
    let kind = "limits: [{at_once: 1}]";
    let farm = Farm::start(vec![Spec::vllm("a", "m")], kind).await;
    let mut first = farm.begin(CHAT, chat("m", "hi", 5000, true)).await;
    assert!(first.until(|text| text.contains("data:")).await.unwrap());
    let told = farm.post(CHAT, chat("m", "hi", 3, false)).await;
    assert_eq!(
        (told.status.as_u16(), told.header("retry-after")),
        (429, "1"),
        "{told:?}"
    );
    drop(first);
    until(farm.node("a"), |seen| seen.aborted() == 1).await;
    // Its place is given back with the last that is kept of it.
    let again = async { while farm.post(CHAT, chat("m", "hi", 3, false)).await.status != 200 {} };
    tokio::time::timeout(super::LONG, again).await.unwrap();
}

#[tokio::test]
async fn tokens_are_counted_as_the_engine_counts_them() {
    let kind = "limits: [{tokens_per_day: 60}]";
    let farm = Farm::start(vec![Spec::vllm("a", "m").knobs(LlmKnobs::instant())], kind).await;
    let told = farm.post(CHAT, chat("m", "hi", 40, false)).await;
    let used = told.json()["usage"]["total_tokens"].as_u64().unwrap();
    assert!((40..60).contains(&used), "{told:?}");
    farm.scene
        .until_metric("tabane_tokens_total", used as f64)
        .await;
    let told = farm.post(CHAT, chat("m", "hi", 40, false)).await;
    assert_eq!(told.status, 429, "{told:?}");
    let message = told.json()["error"]["message"].to_string();
    assert!(message.contains("60 tokens in a day"), "{message}");
}
