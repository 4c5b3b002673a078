//! What engines tell of their load, by their own names.

use crate::client::{Answer, begin, chat, get, post, until};
use crate::streams::start;
use tabane_sim::llm::{Engine, LlmKnobs, LlmNode, Spec};

/// The value of a metric, however it is labelled.
fn value(answer: &Answer, name: &str) -> f64 {
    let text = answer.text();
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("{name} is missing: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn vllm_tells_who_is_at_work_and_who_waits() {
    let node = LlmNode::start(Spec::vllm("a", "tiny").slots(2))
        .await
        .unwrap();
    let mut all = Vec::new();
    for text in ["one", "two", "three"] {
        all.push(begin(&node, "/v1/chat/completions", &chat(text, 8000, true)).await);
    }
    until(&node, |seen| seen.most_waiting == 1).await;
    until(&node, |seen| {
        seen.work().filter(|asked| asked.answer_tokens > 2).count() == 2
    })
    .await;
    let told = get(&node, "/metrics").await;
    assert!(
        told.header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    assert_eq!(value(&told, "vllm:num_requests_running"), 2.0);
    assert_eq!(value(&told, "vllm:num_requests_waiting"), 1.0);
    let used = value(&told, "vllm:kv_cache_usage_perc");
    assert!(used > 0.0 && used < 0.01, "{used}");
    assert!(value(&told, "vllm:generation_tokens_total") >= 6.0);
    assert_eq!(value(&told, "vllm:time_to_first_token_seconds_count"), 2.0);
    assert!(told.text().contains("num_gpu_blocks=\"16384\""));
    assert!(told.text().contains("block_size=\"16\""));
    assert_eq!(get(&node, "/load").await.json()["server_load"], 3);
    drop(all);
    until(&node, |seen| seen.aborted() == 3).await;
    let told = get(&node, "/metrics").await;
    assert_eq!(value(&told, "vllm:num_requests_running"), 0.0);
    assert_eq!(value(&told, "vllm:kv_cache_usage_perc"), 0.0);
}

#[tokio::test]
async fn vllm_counts_what_was_in_its_cache() {
    let node = start(Engine::Vllm, LlmKnobs::instant()).await;
    let body = chat(&vec!["word"; 100].join(" "), 3, false);
    for _ in 0..2 {
        post(&node, "/v1/chat/completions", &body).await;
    }
    let told = get(&node, "/metrics").await;
    assert_eq!(value(&told, "vllm:prefix_cache_queries_total"), 220.0);
    assert_eq!(value(&told, "vllm:prefix_cache_hits_total"), 96.0);
    assert_eq!(value(&told, "vllm:prompt_tokens_total"), 220.0);
    assert_eq!(value(&told, "vllm:generation_tokens_total"), 6.0);
    assert_eq!(value(&told, "vllm:e2e_request_latency_seconds_count"), 2.0);
    assert_eq!(value(&told, "vllm:inter_token_latency_seconds_count"), 4.0);
}

#[tokio::test]
async fn llama_cpp_tells_of_its_slots() {
    let node = LlmNode::start(Spec::llama_cpp("a", "tiny").slots(2))
        .await
        .unwrap();
    let free = get(&node, "/slots?fail_on_no_slot=1").await;
    assert_eq!(
        (free.status, free.json()[1]["is_processing"].clone()),
        (200, false.into())
    );
    assert_eq!(get(&node, "/props").await.json()["total_slots"], 2);
    let mut all = Vec::new();
    for text in ["one", "two", "three"] {
        all.push(begin(&node, "/v1/chat/completions", &chat(text, 8000, true)).await);
    }
    until(&node, |seen| seen.most_waiting == 1).await;
    until(&node, |seen| {
        seen.work().filter(|asked| asked.answer_tokens > 2).count() == 2
    })
    .await;
    let full = get(&node, "/slots?fail_on_no_slot=1").await;
    assert_eq!(full.status, 503);
    assert_eq!(
        full.text(),
        r#"{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}"#
    );
    let slots = get(&node, "/slots").await.json();
    assert!(slots[0]["next_token"][0]["n_decoded"].as_u64().unwrap() > 2);
    let told = get(&node, "/metrics").await;
    assert_eq!(value(&told, "llamacpp:requests_processing"), 2.0);
    assert_eq!(value(&told, "llamacpp:requests_deferred"), 1.0);
    assert!(value(&told, "llamacpp:tokens_predicted_total") >= 6.0);
}

// Recorded with the rest of what a real one says.
#[tokio::test]
async fn llama_cpp_has_the_metrics_of_a_real_one() {
    let node = start(Engine::LlamaCpp, LlmKnobs::instant()).await;
    let told = get(&node, "/metrics").await.text();
    let names: Vec<&str> = told
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches("llamacpp:")
                .split(' ')
                .next()
                .unwrap()
        })
        .collect();
    let real = [
        "prompt_tokens_total",
        "prompt_tokens_cached_total",
        "prompt_seconds_total",
        "tokens_predicted_total",
        "tokens_predicted_seconds_total",
        "n_decode_total",
        "n_tokens_max",
        "spec_decode_num_draft_tokens_total",
        "spec_decode_num_accepted_tokens_total",
        "spec_decode_num_drafts_total",
        "prompt_tokens_seconds",
        "predicted_tokens_seconds",
        "requests_processing",
        "requests_deferred",
        "n_busy_slots_per_decode",
    ];
    assert_eq!(names, real);
}

#[tokio::test]
async fn metrics_are_not_there_where_the_engine_was_started_without() {
    let node = start(
        Engine::LlamaCpp,
        LlmKnobs {
            metrics: false,
            ..LlmKnobs::instant()
        },
    )
    .await;
    for path in ["/metrics", "/slots"] {
        let told = get(&node, path).await;
        assert_eq!(told.status, 501);
        assert_eq!(told.json()["error"]["type"], "not_supported_error");
    }
    let node = start(
        Engine::Vllm,
        LlmKnobs {
            metrics: false,
            ..LlmKnobs::instant()
        },
    )
    .await;
    assert_eq!(get(&node, "/metrics").await.status, 404);
    let node = start(Engine::Ollama, LlmKnobs::instant()).await;
    assert_eq!(get(&node, "/metrics").await.text(), "404 page not found");
}
