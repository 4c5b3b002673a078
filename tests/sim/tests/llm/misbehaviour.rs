//! Each knob does what it says.

use crate::client::{Coming, LONG, ask, begin, chat, get, post, until};
use crate::streams::{anything, start};
use futures::FutureExt;
use tabane_sim::llm::{End, Engine, LlmKnobs};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ENGINES: [Engine; 3] = [Engine::Vllm, Engine::LlamaCpp, Engine::Ollama];

const CHAT: &str = "/v1/chat/completions";

/// Where each engine says that it is well.
fn health(engine: Engine) -> &'static str {
    if engine == Engine::Ollama {
        "/"
    } else {
        "/health"
    }
}

#[tokio::test]
async fn work_fails_with_a_status_before_the_first_byte_as_often_as_told() {
    for engine in ENGINES {
        let knobs = LlmKnobs {
            status: Some(429),
            status_times: Some(2),
            retry_after: Some("7".into()),
            ..LlmKnobs::instant()
        };
        let node = start(engine, knobs).await;
        for stream in [true, false] {
            let failed = post(&node, CHAT, &chat("hi", 5, stream)).await;
            assert_eq!(
                (failed.status, failed.header("retry-after")),
                (429, "7"),
                "{engine}"
            );
            assert!(failed.json()["error"]["message"].is_string(), "{engine}");
        }
        assert_eq!(get(&node, health(engine)).await.status, 200);
        assert_eq!(
            post(&node, CHAT, &chat("hi", 5, true)).await.status,
            200,
            "{engine}"
        );
        assert_eq!(node.knobs().status_times, Some(0));
    }
}

#[tokio::test]
async fn a_connection_drops_before_the_head_or_after_so_many_tokens() {
    for engine in ENGINES {
        let node = start(
            engine,
            LlmKnobs {
                drop_after: Some(0),
                ..LlmKnobs::instant()
            },
        )
        .await;
        for stream in [true, false] {
            let dropped = ask(&node, "POST", CHAT, &chat("hi", 5, stream)).await;
            assert!(dropped.is_err(), "{engine}");
        }
        node.set(|knobs| knobs.drop_after = Some(3));
        let asked = begin(&node, CHAT, &chat("hi", 5, true)).await;
        let mut coming = Coming::head(asked).await.unwrap();
        let mut text = String::new();
        let broken = loop {
            match coming.part().await {
                Ok(Some(part)) => text += &part,
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broken, "{engine}");
        assert!(!text.contains("[DONE]"));
        assert!(
            ask(&node, "POST", CHAT, &chat("hi", 5, false))
                .await
                .is_err()
        );
        let seen = node.seen();
        let ends: Vec<_> = seen
            .work()
            .map(|asked| (asked.answer_tokens, asked.end))
            .collect();
        let broken = Some(End::Broken);
        assert_eq!(
            ends,
            [(0, broken), (0, broken), (3, broken), (3, broken)],
            "{engine}"
        );
    }
}

#[tokio::test]
async fn an_answer_breaks_off_in_the_words_of_its_engine() {
    for (engine, path, end) in [
        (
            Engine::Vllm,
            CHAT,
            "data: {\"error\": {\"message\": \"failing as the knobs say\", \"type\": \"InternalServerError\", \"param\": null, \"code\": 500}}\n\ndata: [DONE]\n\n",
        ),
        (
            Engine::LlamaCpp,
            CHAT,
            "data: {\"error\":{\"code\":500,\"message\":\"failing as the knobs say\",\"type\":\"server_error\"}}\n\n",
        ),
        (
            Engine::Ollama,
            "/api/chat",
            "{\"error\":\"failing as the knobs say\"}\n",
        ),
    ] {
        let node = start(
            engine,
            LlmKnobs {
                error_after: Some(4),
                ..LlmKnobs::instant()
            },
        )
        .await;
        let broken = post(&node, path, &anything(true).to_string()).await;
        assert_eq!(broken.status, 200);
        assert_eq!(
            broken
                .parts
                .concat()
                .split_at(broken.text().len() - end.len())
                .1,
            end
        );
        assert_eq!(node.seen().work().next().unwrap().answer_tokens, 4);
        let whole = post(&node, path, &anything(false).to_string()).await;
        assert_eq!(whole.status, 500, "{engine}");
        node.set(|knobs| knobs.error_after = Some(0));
        let early = post(&node, path, &anything(true).to_string()).await;
        // vLLM has said that all is well by then.
        assert_eq!(
            early.status,
            if engine == Engine::Vllm { 200 } else { 500 },
            "{engine}"
        );
    }
}

#[tokio::test]
async fn a_stream_stalls_until_the_knob_lets_it_go() {
    for engine in ENGINES {
        let node = start(
            engine,
            LlmKnobs {
                stall_after: Some(3),
                ..LlmKnobs::instant()
            },
        )
        .await;
        let asked = begin(&node, CHAT, &chat("hi", 5, true)).await;
        until(&node, |seen| {
            seen.work().any(|asked| asked.answer_tokens == 3)
        })
        .await;
        let coming = Coming::head(asked).await.unwrap();
        let mut rest = Box::pin(coming.rest());
        assert!(
            timeout(std::time::Duration::from_millis(50), &mut rest)
                .await
                .is_err(),
            "{engine}"
        );
        assert_eq!(node.seen().work().next().unwrap().answer_tokens, 3);
        node.set(|knobs| knobs.stall_after = None);
        let whole = timeout(LONG, rest).await.unwrap().unwrap();
        assert!(whole.text().ends_with("data: [DONE]\n\n"), "{engine}");
    }
}

#[tokio::test]
async fn a_node_that_hangs_takes_work_and_is_well_and_the_other_way_round() {
    for engine in ENGINES {
        let node = start(
            engine,
            LlmKnobs {
                hang: true,
                ..LlmKnobs::instant()
            },
        )
        .await;
        let asked = begin(&node, CHAT, &chat("hi", 5, false)).await;
        until(&node, |seen| {
            seen.asked.iter().any(|asked| !asked.body.is_empty())
        })
        .await;
        assert_eq!(get(&node, health(engine)).await.status, 200);
        let mut head = Box::pin(Coming::head(asked));
        assert!((&mut head).now_or_never().is_none());
        node.set(|knobs| {
            knobs.hang = false;
            knobs.hang_health = true;
        });
        assert_eq!(
            timeout(LONG, head).await.unwrap().unwrap().status,
            200,
            "{engine}"
        );
        let probe = Coming::ask(&node.addr().to_string(), "GET", health(engine), &[], "")
            .await
            .unwrap();
        until(&node, |seen| {
            seen.asked
                .last()
                .is_some_and(|asked| asked.path == health(engine))
        })
        .await;
        assert!(Coming::head(probe).now_or_never().is_none());
    }
}

#[tokio::test]
async fn health_can_be_another_and_slow() {
    for engine in ENGINES {
        let knobs = LlmKnobs {
            health_status: Some(503),
            health_ms: 30,
            ..LlmKnobs::instant()
        };
        let node = start(engine, knobs).await;
        let began = std::time::Instant::now();
        assert_eq!(get(&node, health(engine)).await.status, 503, "{engine}");
        assert!(began.elapsed().as_millis() >= 30);
        assert_eq!(get(&node, "/v1/models").await.status, 200);
        assert_eq!(post(&node, CHAT, &chat("hi", 5, false)).await.status, 200);
    }
}

#[tokio::test]
async fn a_node_that_refuses_is_as_one_that_is_not_there_and_comes_back() {
    for engine in ENGINES {
        let node = start(engine, LlmKnobs::instant()).await;
        assert_eq!(get(&node, health(engine)).await.status, 200);
        node.set(|knobs| knobs.refuse = true);
        let refused = async {
            // The port closes when the node comes to it.
            while TcpStream::connect(node.addr()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, refused).await.unwrap();
        node.set(|knobs| knobs.refuse = false);
        let back = async {
            while TcpStream::connect(node.addr()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, back).await.unwrap();
        assert_eq!(
            post(&node, CHAT, &chat("hi", 5, false)).await.status,
            200,
            "{engine}"
        );
    }
}

#[tokio::test]
async fn a_frozen_node_takes_connections_and_goes_on_where_it_was() {
    let node = start(Engine::Vllm, LlmKnobs::default()).await;
    let asked = begin(&node, CHAT, &chat("hi", 8, true)).await;
    until(&node, |seen| {
        seen.work().any(|asked| asked.answer_tokens > 1)
    })
    .await;
    node.set(|knobs| knobs.frozen = true);
    let probe = Coming::ask(&node.addr().to_string(), "GET", "/health", &[], "")
        .await
        .unwrap();
    let mut head = Box::pin(Coming::head(probe));
    assert!(
        timeout(std::time::Duration::from_millis(100), &mut head)
            .await
            .is_err()
    );
    node.set(|knobs| knobs.frozen = false);
    assert_eq!(timeout(LONG, head).await.unwrap().unwrap().status, 200);
    let whole = Coming::head(asked).await.unwrap().rest().await.unwrap();
    assert!(whole.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_node_that_does_not_notice_works_on_for_nobody() {
    let knobs = LlmKnobs {
        notices_disconnect: false,
        ..LlmKnobs::default()
    };
    let node = start(Engine::LlamaCpp, knobs).await;
    let asked = begin(&node, CHAT, &chat("hi", 4000, true)).await;
    until(&node, |seen| {
        seen.work().any(|asked| asked.answer_tokens > 1)
    })
    .await;
    drop(asked);
    until(&node, |seen| seen.aborted() == 1).await;
    let slots = get(&node, "/slots").await.json();
    let at_work = slots
        .as_array()
        .unwrap()
        .iter()
        .filter(|slot| slot["is_processing"] == true);
    assert_eq!(at_work.count(), 1);
}

#[tokio::test]
async fn knobs_are_told_and_changed_over_http() {
    let node = start(Engine::Vllm, LlmKnobs::default()).await;
    assert_eq!(get(&node, "/sim").await.json()["prefill_tps"], 8000.0);
    let changed = ask(&node, "POST", "/sim", r#"{"prefill_tps":5,"hang":true}"#)
        .await
        .unwrap();
    assert_eq!(changed.json()["prefill_tps"], 5.0);
    assert!(node.knobs().hang);
    let refused = ask(&node, "POST", "/sim", r#"{"no_such":1}"#)
        .await
        .unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("no_such"), "{}", refused.text());
    assert!(node.seen().asked.is_empty(), "a real one has no such path");
}

#[tokio::test]
async fn a_crash_closes_everything_and_its_port_is_free() {
    let mut node = start(Engine::Ollama, LlmKnobs::default()).await;
    let asked = begin(&node, CHAT, &chat("hi", 4000, true)).await;
    let coming = Coming::head(asked).await.unwrap();
    let address = node.addr();
    node.crash().await;
    assert!(coming.rest().await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
    node.restart().await.unwrap();
    assert_eq!(node.addr(), address);
    assert_eq!(get(&node, "/").await.text(), "Ollama is running");
    node.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}
