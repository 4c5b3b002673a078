//! Clients that leave: their engine stops at once, in every phase.

use super::{CHAT, Farm, chat, until};
use std::time::Duration;
use tabane_sim::llm::{End, LlmKnobs, Spec};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn whoever_leaves_is_not_worked_for() {
    let knobs = LlmKnobs {
        step_ms: 20.0,
        prefill_tps: 100.0,
        ..LlmKnobs::default()
    };
    let farm = Farm::start(vec![Spec::llama_cpp("a", "m").knobs(knobs)], "").await;
    let node = farm.node("a");
    let long = "word ".repeat(2000);
    // An answer that comes at once; one whose prompt is being read; one in the middle of its tokens.
    for (n, (text, stream)) in [("hi", false), (&*long, true), ("hi", true)]
        .into_iter()
        .enumerate()
    {
        let request = farm.request(CHAT, chat("m", text, 5000, stream));
        let asked = farm.scene.client.request(request);
        let mut asked = Box::pin(asked);
        let begun = async {
            tokio::select! {
                answer = &mut asked => Some(answer.unwrap()),
                () = until(node, |seen| seen.work().count() > n && n < 2) => None,
            }
        };
        let answer = timeout(super::LONG, begun).await.unwrap();
        let left = Instant::now();
        drop(answer);
        drop(asked);
        until(node, |seen| {
            let mut work = seen.work();
            work.nth(n)
                .is_some_and(|asked| asked.end == Some(End::Aborted))
        })
        .await;
        // Seconds are what a gateway takes that does not look.
        assert!(
            left.elapsed() < Duration::from_secs(2),
            "{n}: {:?}",
            left.elapsed()
        );
    }
}

#[tokio::test]
async fn whoever_leaves_while_waiting_never_comes_to_an_engine() {
    let knobs = LlmKnobs {
        step_ms: 20.0,
        ..LlmKnobs::default()
    };
    let farm = Farm::start(vec![Spec::llama_cpp("a", "m").slots(1).knobs(knobs)], "").await;
    let mut first = farm.begin(CHAT, chat("m", "hi", 5000, true)).await;
    assert!(first.until(|text| text.contains("data:")).await.unwrap());
    let waits = farm
        .scene
        .client
        .request(farm.request(CHAT, chat("m", "hi", 5, true)));
    let waits = tokio::spawn(waits);
    farm.scene.until_metric("tabane_waiting", 1.0).await;
    waits.abort();
    farm.scene.until_metric("tabane_waiting", 0.0).await;
    assert_eq!(farm.node("a").seen().work().count(), 1);
}
