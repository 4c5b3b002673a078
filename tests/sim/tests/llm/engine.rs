//! How engines work: what a gateway learns from.

use crate::client::{ask, begin, chat, get, post, until};
use serde_json::{Value, json};
use tabane_sim::llm::{End, LlmKnobs, LlmNode, Seen, Spec};

/// A talk that goes on as long as its test.
fn endless(text: &str) -> String {
    chat(text, 8000, true)
}

fn hits(seen: &Seen) -> Vec<Option<usize>> {
    seen.work().map(|asked| asked.hit_tokens).collect()
}

fn words(count: usize) -> String {
    vec!["word"; count].join(" ")
}

#[tokio::test]
async fn a_prompt_takes_as_long_as_it_is() {
    let knobs = LlmKnobs {
        prefill_tps: 10_000.0,
        step_ms: 1.0,
        ..LlmKnobs::default()
    };
    let node = LlmNode::start(Spec::llama_cpp("a", "tiny").knobs(knobs))
        .await
        .unwrap();
    let told = post(&node, "/v1/chat/completions", &chat(&words(1000), 1, false))
        .await
        .json();
    assert!(told["timings"]["prompt_n"].as_u64().unwrap() > 1000);
    assert!(
        told["timings"]["prompt_ms"].as_f64().unwrap() >= 100.0,
        "{told}"
    );
}

#[tokio::test]
async fn an_answer_takes_a_step_for_each_token() {
    let knobs = LlmKnobs {
        step_ms: 5.0,
        ..LlmKnobs::default()
    };
    let node = LlmNode::start(Spec::llama_cpp("a", "tiny").knobs(knobs))
        .await
        .unwrap();
    let told = post(&node, "/v1/chat/completions", &chat("hi", 21, false))
        .await
        .json();
    let timings = &told["timings"];
    assert_eq!(timings["predicted_n"], 21);
    // A step that came late is made up for: only all of them together take at least as long as they should.
    let took = ["prompt_ms", "predicted_ms"].map(|key| timings[key].as_f64().unwrap());
    assert!(took[0] + took[1] >= 105.0, "{told}");
}

#[tokio::test]
async fn what_vllm_read_before_it_does_not_read_again() {
    let mut spec = Spec::vllm("a", "tiny").knobs(LlmKnobs::instant());
    spec.tells_hits = true;
    let node = LlmNode::start(spec).await.unwrap();
    let cached = |told: &Value| {
        told["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    let body = chat(&words(100), 5, false);
    let first = post(&node, "/v1/chat/completions", &body).await.json();
    assert_eq!(cached(&first), 0);
    let again = post(&node, "/v1/chat/completions", &body).await.json();
    // Whole blocks of 16, of 100 words and 10 tokens around them.
    assert_eq!(
        (again["usage"]["prompt_tokens"].as_u64(), cached(&again)),
        (Some(110), 96)
    );
    assert_eq!(hits(&node.seen()), [Some(0), Some(96)]);
}

#[tokio::test]
async fn the_next_turn_finds_the_answer_of_this_one_in_the_cache() {
    let node = LlmNode::start(Spec::llama_cpp("a", "tiny").knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    let mut said = vec![json!({"role": "user", "content": words(20)})];
    let mut known = 0;
    for _ in 0..3 {
        let body = json!({"model": "tiny", "messages": said, "max_tokens": 30}).to_string();
        let told = post(&node, "/v1/chat/completions", &body).await.json();
        let cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        assert_eq!(cached, known, "{told}");
        // All but the last token, which was not read again.
        known = told["usage"]["total_tokens"].as_u64().unwrap() - 1;
        said.push(told["choices"][0]["message"].clone());
        said.push(json!({"role": "user", "content": "more"}));
    }
}

#[tokio::test]
async fn a_node_that_crashed_has_forgotten_what_it_read() {
    let mut node = LlmNode::start(Spec::vllm("a", "tiny").knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    let body = chat(&words(100), 5, false);
    let before = post(&node, "/v1/chat/completions", &body).await.json();
    node.restart().await.unwrap();
    let after = post(&node, "/v1/chat/completions", &body).await.json();
    assert_eq!(hits(&node.seen()), [Some(0), Some(0)]);
    assert_eq!(node.seen().lives, 2);
    let text = |told: &Value| told["choices"][0]["message"]["content"].clone();
    assert_eq!(
        text(&before),
        text(&after),
        "the same question has the same answer"
    );
    assert_ne!(before["id"], after["id"]);
}

#[tokio::test]
async fn more_than_its_slots_wait_and_whoever_leaves_makes_room() {
    for spec in [
        Spec::vllm("a", "tiny"),
        Spec::llama_cpp("a", "tiny"),
        Spec::ollama("a", "tiny"),
    ] {
        let node = LlmNode::start(spec.slots(2)).await.unwrap();
        let first = begin(&node, "/v1/chat/completions", &endless("one")).await;
        until(&node, |seen| seen.most_running == 1).await;
        let _second = begin(&node, "/v1/chat/completions", &endless("two")).await;
        let _third = begin(&node, "/v1/chat/completions", &endless("three")).await;
        until(&node, |seen| seen.most_waiting == 1).await;
        assert_eq!(node.seen().most_running, 2);
        let told = hits(&node.seen()).iter().flatten().count();
        assert!(told <= 2, "the third one is not at work");
        drop(first);
        let third = |seen: &Seen| {
            seen.work()
                .last()
                .is_some_and(|third| third.hit_tokens.is_some())
        };
        until(&node, third).await;
        until(&node, |seen| seen.aborted() == 1).await;
        assert_eq!(node.seen().most_running, 2, "never more than the slots");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_wherever_it_was() {
    let node = LlmNode::start(Spec::vllm("a", "tiny").slots(1))
        .await
        .unwrap();
    let runs = begin(&node, "/v1/chat/completions", &endless("one")).await;
    until(&node, |seen| {
        seen.work().any(|asked| asked.answer_tokens > 2)
    })
    .await;
    for stream in [true, false] {
        let waits = begin(&node, "/v1/chat/completions", &chat("two", 5, stream)).await;
        let count = node.seen().asked.len();
        until(&node, |seen| {
            seen.asked.len() > count || seen.most_waiting == 1
        })
        .await;
        until(&node, |seen| {
            seen.asked
                .last()
                .is_some_and(|asked| asked.prompt_tokens > 0)
        })
        .await;
        drop(waits);
        until(&node, |seen| {
            seen.asked
                .last()
                .is_some_and(|asked| asked.end == Some(End::Aborted))
        })
        .await;
        assert_eq!(node.seen().asked.last().unwrap().answer_tokens, 0);
    }
    drop(runs);
    until(&node, |seen| seen.aborted() == 3).await;
    let after = post(&node, "/v1/chat/completions", &chat("three", 5, false)).await;
    assert_eq!(after.status, 200, "its slot is free");
}

#[tokio::test]
async fn requests_are_kept_as_they_came() {
    let node = LlmNode::start(Spec::vllm("a", "tiny").knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    let body = "{ \"max_tokens\" : 1,\"model\":\"tiny\", \"n_big\": 12345678901234567890123,\n\"messages\":[{\"role\":\"user\",\"content\":\"\\u0068i\"}] , \"max_tokens\": 2}";
    let answer = ask(&node, "POST", "/v1/chat/completions?x=1", body)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let seen = node.seen();
    let asked = seen.work().next().unwrap();
    assert_eq!(asked.body, body.as_bytes());
    assert_eq!(
        (asked.method.as_str(), asked.path.as_str()),
        ("POST", "/v1/chat/completions?x=1")
    );
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(
        (asked.model.as_deref(), asked.end),
        (Some("tiny"), Some(End::Answered(200)))
    );
}

#[tokio::test]
async fn an_answer_is_as_long_as_its_request_says_and_else_as_long_as_drawn() {
    let node = LlmNode::start(Spec::vllm("a", "tiny").knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    let asked = post(&node, "/v1/chat/completions", &chat("hi", 17, false))
        .await
        .json();
    assert_eq!(asked["usage"]["completion_tokens"], 17);
    assert_eq!(asked["choices"][0]["finish_reason"], "length");
    let free = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#;
    let drawn = post(&node, "/v1/chat/completions", free).await.json();
    let again = post(&node, "/v1/chat/completions", free).await.json();
    assert_eq!(drawn["choices"][0]["finish_reason"], "stop");
    assert_eq!(drawn["usage"], again["usage"]);
    // It would have ended by itself before that.
    node.set(|knobs| knobs.stops_early = true);
    let early = post(&node, "/v1/chat/completions", &chat("hi", 8000, false))
        .await
        .json();
    assert_eq!(
        early["usage"]["completion_tokens"],
        drawn["usage"]["completion_tokens"]
    );
    assert_eq!(early["choices"][0]["finish_reason"], "stop");
    let forced = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":900,"ignore_eos":true}"#;
    let forced = post(&node, "/v1/chat/completions", forced).await.json();
    assert_eq!(forced["usage"]["completion_tokens"], 900);
}

#[tokio::test]
async fn embeddings_are_decided_by_their_texts() {
    for spec in [
        Spec::new(tabane_sim::llm::Engine::Vllm, "a").embedder("e", 500),
        Spec::new(tabane_sim::llm::Engine::LlamaCpp, "a").embedder("e", 500),
        Spec::ollama("a", "e"),
    ] {
        let node = LlmNode::start(spec.knobs(LlmKnobs::instant()))
            .await
            .unwrap();
        let body = r#"{"model":"e","input":["one","two","one"],"dimensions":8}"#;
        let told = post(&node, "/v1/embeddings", body).await.json();
        let vector = |at: usize| told["data"][at]["embedding"].clone();
        assert_eq!(vector(0).as_array().unwrap().len(), 8);
        assert_eq!(vector(0), vector(2));
        assert_ne!(vector(0), vector(1));
        assert_eq!(told["usage"]["prompt_tokens"], 3);
    }
    let node = LlmNode::start(Spec::ollama("a", "e").knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    let told = post(&node, "/api/embed", r#"{"model":"e","input":"one"}"#)
        .await
        .json();
    assert_eq!(told["embeddings"].as_array().unwrap().len(), 1);
    assert_eq!(told["prompt_eval_count"], 1);
    assert_eq!(
        get(&node, "/api/ps").await.json()["models"][0]["name"],
        "e:latest"
    );
}
