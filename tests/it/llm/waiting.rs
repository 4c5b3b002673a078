//! What is said to whoever waits long.

use super::{CHAT, Farm, chat};
use tabane_sim::llm::{LlmKnobs, Spec};

#[tokio::test]
async fn whoever_waits_for_a_slot_hears_that_the_gateway_lives() {
    let knobs = LlmKnobs {
        step_ms: 20.0,
        ..LlmKnobs::default()
    };
    let spec = Spec::llama_cpp("a", "m").slots(1).knobs(knobs);
    let farm = Farm::start(vec![spec], "keep_alive: 1s").await;
    let mut first = farm.begin(CHAT, chat("m", "hi", 5000, true)).await;
    assert!(first.until(|text| text.contains("data:")).await.unwrap());
    // For a while nothing is said, so that an engine's own status could pass.
    let mut waits = farm.begin(CHAT, chat("m", "hi", 5, true)).await;
    assert_eq!(waits.head.status, 200);
    assert_eq!(
        waits.head.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let comment = ": keep-alive\n\n";
    assert!(
        waits
            .until(|text| text.matches(comment).count() == 3)
            .await
            .unwrap()
    );
    assert_eq!(waits.text, comment.repeat(3));
    drop(first);
    let text = waits.rest().await.unwrap();
    let answer = text.trim_start_matches(comment);
    assert!(
        answer.starts_with("data: {") && answer.ends_with("data: [DONE]\n\n"),
        "{text}"
    );
}

#[tokio::test]
async fn an_error_after_the_first_word_is_told_in_the_stream() {
    let spec = Spec::llama_cpp("a", "m").knobs(LlmKnobs {
        answer_ms: 3000,
        ..LlmKnobs::instant()
    });
    let farm = Farm::start(vec![spec], "keep_alive: 1s").await;
    farm.node("a").set(|knobs| knobs.status = Some(400));
    let waits = farm.begin(CHAT, chat("m", "hi", 5, true)).await;
    let (status, text) = (waits.head.status, waits.rest().await.unwrap());
    match status.as_u16() {
        // Its status came in time.
        400 => {}
        _ => assert!(
            text.contains("\ndata: {\"error\":{") && text.contains("400"),
            "{text}"
        ),
    }
}
