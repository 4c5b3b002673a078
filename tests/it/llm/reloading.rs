//! Changes of the file while streams run.

use super::{CHAT, Farm, More, chat, file};
use futures::future::join_all;
use std::sync::Arc;
use tabane_sim::llm::{LlmKnobs, Spec};

#[tokio::test]
async fn no_stream_is_harmed_by_a_change_of_the_file() {
    let names = ["a", "b", "c"];
    let specs = names.map(|name| {
        Spec::llama_cpp(name, "m")
            .slots(8)
            .knobs(LlmKnobs::default())
    });
    let farm = Arc::new(Farm::start(specs.into(), "").await);
    let all: Vec<String> = names.map(String::from).into();
    let client = |n: usize| {
        let farm = farm.clone();
        async move {
            for turn in 0..6 {
                let coming = farm
                    .begin(CHAT, chat("m", &format!("{n} {turn}"), 30, true))
                    .await;
                assert_eq!(coming.head.status, 200);
                let text = coming.rest().await.unwrap();
                assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            }
        }
    };
    let clients: Vec<_> = (0..12).map(|n| tokio::spawn(client(n))).collect();
    // Blocks of the kind change, and nodes go and come back.
    let kinds = ["keep_alive: 20s", "prefix: false", "aliases: {fast: m}", ""];
    for (n, kind) in kinds.into_iter().cycle().take(12).enumerate() {
        let more = More {
            kind,
            ..More::default()
        };
        let mut pool = all.clone();
        if n % 3 == 1 {
            pool.remove(n % 2);
        }
        farm.scene
            .reload(&file(&farm.nodes, &pool, more))
            .await
            .unwrap();
        // Each pool is used for a while.
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    for ended in join_all(clients).await {
        ended.unwrap();
    }
    let seen: usize = farm
        .nodes
        .iter()
        .map(|node| node.seen().work().count())
        .sum();
    assert_eq!(seen, 72);
}
