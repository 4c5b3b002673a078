//! Which engine gets which request.

use super::{CHAT, Farm, chat, chats, talk, until};
use tabane_sim::llm::{LlmKnobs, Spec};

fn knobs(speed: f64) -> LlmKnobs {
    LlmKnobs {
        prefill_tps: 4000.0,
        step_ms: 4.0,
        ..LlmKnobs::default()
    }
    .speed(speed)
}

/// Something is known of each engine: prompts of all lengths.
async fn learns(farm: &Farm) {
    for n in 0..40 {
        let text = format!("{n} {}", "is a number ".repeat(n % 5 * 80));
        let told = farm.post(CHAT, chat("m", &text, 8, true)).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
}

#[tokio::test]
async fn the_next_turn_of_a_talk_goes_where_the_last_one_was() {
    let names = ["a", "b", "c"];
    let specs = names.map(|name| Spec::vllm(name, "m").knobs(knobs(10.0)));
    let farm = Farm::start(specs.into(), "").await;
    learns(&farm).await;
    for n in 0..5 {
        let first = format!("{n}: {}", "once upon a time ".repeat(400));
        let mut coming = farm.begin(CHAT, talk("m", &[&first], 4, true)).await;
        let node = coming.head.headers["tabane-node"].clone();
        coming.until(|_| false).await.unwrap();
        for (answer, next) in [("well", "go on"), ("well", "and then?")] {
            let coming = farm
                .begin(CHAT, talk("m", &[&first, answer, next], 4, true))
                .await;
            assert_eq!(coming.head.headers["tabane-node"], node, "{n}");
            coming.rest().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_faster_engine_gets_more_and_a_long_prompt_stays_where_it_was_read() {
    let specs = vec![
        Spec::vllm("a", "m").knobs(knobs(1.0)),
        Spec::vllm("b", "m").knobs(knobs(4.0)),
    ];
    let farm = Farm::start(specs, "").await;
    learns(&farm).await;
    let fast = farm.worked().matches('b').count();
    assert!(fast > 25, "{}", farm.worked());
    // It was read by the slow one, when there was no other: that is over there sooner than to read it again.
    let long = "once upon a time ".repeat(1500);
    farm.scene
        .admin(http::Method::POST, "/api/v1/nodes/b/drain")
        .await;
    let told = farm.post(CHAT, talk("m", &[&long], 4, true)).await;
    assert_eq!(told.header("tabane-node"), "a/http");
    farm.scene
        .admin(http::Method::POST, "/api/v1/nodes/b/undrain")
        .await;
    farm.scene.until_state("b/http", "up").await;
    let told = farm
        .post(CHAT, talk("m", &[&long, "well", "go on"], 4, true))
        .await;
    assert_eq!(told.header("tabane-node"), "a/http");
    // One that nobody has read goes to the fast one.
    let told = farm
        .post(CHAT, talk("m", &[&format!("now {long}")], 4, true))
        .await;
    assert_eq!(told.header("tabane-node"), "b/http");
}

#[tokio::test]
async fn an_engine_that_was_restarted_has_read_nothing() {
    let specs = vec![
        Spec::vllm("a", "m").knobs(knobs(1.0)),
        Spec::vllm("b", "m").knobs(knobs(4.0)),
    ];
    let mut farm = Farm::start(specs, "").await;
    learns(&farm).await;
    let long = "once upon a time ".repeat(1500);
    farm.scene
        .admin(http::Method::POST, "/api/v1/nodes/b/drain")
        .await;
    farm.post(CHAT, talk("m", &[&long], 4, true)).await;
    farm.scene
        .admin(http::Method::POST, "/api/v1/nodes/b/undrain")
        .await;
    farm.node_mut("a").crash().await;
    farm.scene.until_state("a/http", "down").await;
    farm.node_mut("a").restart().await.unwrap();
    farm.scene.until_state("a/http", "up").await;
    let told = farm
        .post(CHAT, talk("m", &[&long, "well", "go on"], 4, true))
        .await;
    assert_eq!(told.header("tabane-node"), "b/http");
}

#[tokio::test]
async fn no_more_are_sent_to_an_engine_than_it_says_it_works_on() {
    let specs = vec![Spec::llama_cpp("a", "m").slots(3)];
    let farm = Farm::start(specs, "").await;
    farm.node("a").set(|knobs| knobs.hang = true);
    let asks = (0..8).map(|_| {
        let request = farm.request(CHAT, chat("m", "hi", 3, false));
        farm.scene.client.request(request)
    });
    let asks: Vec<_> = asks.map(tokio::spawn).collect();
    farm.scene.until_metric("tabane_waiting", 5.0).await;
    until(farm.node("a"), |seen| chats(seen) == 3).await;
    farm.node("a").set(|knobs| knobs.hang = false);
    for ask in asks {
        assert_eq!(ask.await.unwrap().unwrap().status(), 200);
    }
    let seen = farm.node("a").seen();
    assert_eq!((seen.work().count(), seen.most_waiting), (8, 0));
}
