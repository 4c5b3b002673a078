//! What Ollama says, to the byte, but for ids, times and texts: from what it publishes, since no recording was to be had.

use crate::client::{Answer, post};
use crate::replay::masked;
use crate::streams::{anything, start};
use tabane_sim::llm::{Engine, LlmKnobs};

async fn said(path: &str, stream: bool) -> Answer {
    let node = start(Engine::Ollama, LlmKnobs::instant()).await;
    post(&node, path, &anything(stream).to_string()).await
}

/// Without what is another's every time: times are texts here.
fn parts(answer: &Answer) -> Vec<String> {
    let mut parts = masked(&answer.parts);
    for part in &mut parts {
        for key in [
            "total_duration",
            "load_duration",
            "prompt_eval_count",
            "prompt_eval_duration",
            "eval_count",
            "eval_duration",
        ] {
            let before = format!("\"{key}\":");
            if let Some((head, rest)) = part.split_once(&before) {
                let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                *part = format!("{head}{before}~{rest}");
            }
        }
        if let Some((head, rest)) = part.split_once("\"response\":\"")
            && let Some((_, rest)) = rest.split_once('"')
        {
            *part = format!("{head}\"response\":~{rest}");
        }
    }
    parts.dedup();
    parts
}

const DONE: &str = r#""done":true,"done_reason":"length","total_duration":~,"load_duration":~,"prompt_eval_count":~,"prompt_eval_duration":~,"eval_count":~,"eval_duration":~}"#;

#[tokio::test]
async fn its_own_apis_answer_in_lines() {
    for (path, answer) in [
        ("/api/chat", r#""message":{"role":"assistant","content":~}"#),
        ("/api/generate", r#""response":~"#),
    ] {
        let stream = said(path, true).await;
        assert_eq!(stream.header("content-type"), "application/x-ndjson");
        let head = format!(r#"{{"model":"tiny","created_at":~,{answer},"#);
        let told = [
            format!("{head}\"done\":false}}\n"),
            format!("{head}{DONE}\n"),
        ];
        assert_eq!(parts(&stream), told, "{path}");
        let whole = said(path, false).await;
        assert_eq!(
            whole.header("content-type"),
            "application/json; charset=utf-8"
        );
        assert_eq!(parts(&whole), [format!("{head}{DONE}")], "{path}");
    }
}

#[tokio::test]
async fn its_openai_apis_answer_in_events() {
    let stream = said("/v1/chat/completions", true).await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let chunk = |delta: &str, reason: &str| {
        format!(
            "data: {{\"id\":~,\"object\":\"chat.completion.chunk\",\"created\":~,\"model\":\"tiny\",\
             \"system_fingerprint\":~,\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let told = [
        chunk(r#"{"role":"assistant","content":~}"#, "null"),
        chunk(r#"{"content":~}"#, "null"),
        chunk("{}", "\"length\"") + "data: [DONE]\n\n",
    ];
    assert_eq!(parts(&stream), told);
    let whole = said("/v1/chat/completions", false).await;
    assert_eq!(whole.header("content-type"), "application/json");
    let told = "{\"id\":~,\"object\":\"chat.completion\",\"created\":~,\"model\":\"tiny\",\"system_fingerprint\":~,\
        \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":~},\"finish_reason\":\"length\"}],\
        \"usage\":{\"prompt_tokens\":~,\"completion_tokens\":~,\"total_tokens\":~}}\n";
    assert_eq!(parts(&whole), [told]);
}

#[tokio::test]
async fn its_messages_answer_in_named_events() {
    let told = said("/v1/messages", true).await.text();
    let names: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let mut names = names;
    names.dedup();
    let all = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, all);
}

#[tokio::test]
async fn what_could_be_taken_for_html_is_written_otherwise() {
    let node = start(Engine::Ollama, LlmKnobs::instant()).await;
    let told = post(&node, "/api/chat", r#"{"model":"<b>"}"#).await;
    assert_eq!(
        told.text(),
        r#"{"error":"model '\u003cb\u003e' not found"}"#
    );
}
