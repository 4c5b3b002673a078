//! What real servers said, against what these say: status, headers, and every part of every answer, but for ids, times, texts
//! and numbers of tokens.
//!
//! `recorded/` holds what was said by vLLM 0.32 and by llama.cpp's server of October 2026, to plain requests and to the
//! `openai` SDK. Parts that only repeat the one before, but for what is left out, are told once: that a text has more tokens
//! there than here says nothing.

use crate::client::{Answer, ask_at};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tabane_sim::llm::{LlmKnobs, LlmNode, Spec};

#[derive(Deserialize)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub body: String,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub parts: Vec<String>,
    /// What the SDK said besides.
    #[serde(default)]
    pub sdk: BTreeMap<String, String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llm/recorded")
}

pub fn recorded(name: &str) -> Vec<Recorded> {
    let text = fs::read_to_string(folder().join(format!("{name}.jsonl"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn hold(name: &str, mut spec: Spec) {
    spec.models[0].context = 2048;
    let node = LlmNode::start(spec.knobs(LlmKnobs::instant()))
        .await
        .unwrap();
    let all = recorded(name);
    assert!(!all.is_empty());
    for told in all {
        let own = [("content-type", "application/json")];
        let sdk: Vec<(&str, &str)> = told
            .sdk
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let headers = if sdk.is_empty() { &own[..] } else { &sdk[..] };
        let address = node.addr().to_string();
        let said = ask_at(&address, &told.method, &told.path, headers, &told.body)
            .await
            .unwrap();
        let what = format!("{name}: {} {} {}", told.method, told.path, told.body);
        assert_eq!(said.status, told.status, "{what}: {}", said.text());
        assert_eq!(headers_of(&said), told.headers, "{what}");
        let (said, told) = (masked(&said.parts), masked(&told.parts));
        for (said, told) in said.iter().zip(&told) {
            assert_eq!(said, told, "{what}");
        }
        assert_eq!(said.len(), told.len(), "{what}: {said:?}");
    }
}

/// Those that say something of the answer, not of the connection.
pub fn headers_of(answer: &Answer) -> BTreeMap<String, String> {
    let others = [
        "date",
        "content-length",
        "connection",
        "keep-alive",
        "process-start-time-unix",
    ];
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| !others.contains(&name.as_str()));
    headers.cloned().collect()
}

/// What is another's every time.
const MASKED: &[&str] = &[
    "id",
    "item_id",
    "call_id",
    "created",
    "created_at",
    "completed_at",
    "content",
    "text",
    "delta",
    "arguments",
    "partial_json",
    "system_fingerprint",
    "sequence_number",
    "prompt",
    "tokens",
    "id_slot",
    "media_marker",
    "model_path",
    "model_ftype",
    "ftype",
    "n_vocab",
    "n_ctx_train",
    "n_embd",
    "n_params",
    "size",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "input_tokens",
    "output_tokens",
    "original_input_tokens",
    "cache_read_input_tokens",
    "tokens_predicted",
    "tokens_evaluated",
    "tokens_cached",
    "cache_n",
    "prompt_n",
    "prompt_ms",
    "prompt_per_token_ms",
    "prompt_per_second",
    "predicted_n",
    "predicted_ms",
    "predicted_per_token_ms",
    "predicted_per_second",
];

pub fn masked(parts: &[String]) -> Vec<String> {
    let mut masked: Vec<String> = parts.iter().map(|part| mask(part)).collect();
    masked.dedup();
    masked
}

fn mask(part: &str) -> String {
    let mut part = part.to_owned();
    for key in MASKED {
        let before = format!("\"{key}\":");
        let mut pieces = part.split(before.as_str());
        let mut whole = pieces.next().unwrap_or("").to_owned();
        for piece in pieces {
            whole += &before;
            match value(piece) {
                Some(length) => {
                    whole.push('~');
                    whole += &piece[length..];
                }
                None => whole += piece,
            }
        }
        part = whole;
    }
    match part.split_once("<dict of ") {
        Some((before, after)) => {
            let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
            format!("{before}<dict of ~ {rest}")
        }
        None => part,
    }
}

/// How long the text, the number or the list of numbers is that comes first.
fn value(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    match first {
        '"' => {
            let mut escaped = false;
            let end = text.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map(|(at, _)| at + 1)
        }
        '-' | '0'..='9' => text.find([',', '}', ']']),
        '[' if text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            text.find(']').map(|at| at + 1)
        }
        _ => None,
    }
}

#[tokio::test]
async fn vllm_says_what_a_real_one_said() {
    hold("vllm", Spec::vllm("a", "tiny")).await;
}

#[tokio::test]
async fn vllm_calls_tools_as_a_real_one_did() {
    let mut spec = Spec::vllm("a", "tiny");
    spec.tells_hits = true;
    spec.models[0].context = 2048;
    let knobs = LlmKnobs {
        calls_tools: true,
        ..LlmKnobs::instant()
    };
    let node = LlmNode::start(spec.knobs(knobs)).await.unwrap();
    for told in recorded("vllm_tools") {
        // The model there called with three tokens, of which not all could be told.
        let body = told.body.replace("\"max_tokens\":200", "\"max_tokens\":3");
        let address = node.addr().to_string();
        let said = ask_at(&address, &told.method, &told.path, &[], &body)
            .await
            .unwrap();
        assert_eq!(said.status, told.status, "{body}");
        assert_eq!(masked(&said.parts), masked(&told.parts), "{body}");
    }
}

#[tokio::test]
async fn vllm_says_to_the_sdk_what_a_real_one_said() {
    hold("vllm_openai_sdk", Spec::vllm("a", "tiny")).await;
}

#[tokio::test]
async fn llama_cpp_says_what_a_real_one_said() {
    hold("llama_cpp", Spec::llama_cpp("a", "tiny.gguf")).await;
}

#[tokio::test]
async fn llama_cpp_says_to_the_sdk_what_a_real_one_said() {
    hold(
        "llama_cpp_openai_sdk",
        Spec::llama_cpp("a", "/models/tiny.gguf"),
    )
    .await;
}

#[test]
fn nothing_that_was_recorded_is_left_out() {
    assert_eq!(fs::read_dir(folder()).unwrap().count(), 5);
}
