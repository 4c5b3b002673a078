//! What a real server, 0.3.64, said of thirteen workflows, against what this one says: every byte of every answer and every
//! frame, but for ids, times, pictures and where its code lies.
//!
//! `recorded/` holds what was said. There, frames of progress that only repeat each other are told once.

use crate::client::{Answer, ask, get, socket};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Spec};
use tokio_tungstenite::tungstenite::Message;

#[derive(Deserialize)]
struct Recorded {
    /// What had been executed on that server shortly before.
    after: Option<String>,
    /// What the client said first.
    flags: Option<Value>,
    prompt: String,
    status: u16,
    body: String,
    frames: Vec<String>,
    history: Option<String>,
}

fn recorded(name: &str) -> Recorded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/comfy/recorded")
        .join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const SID: &str = "6f074b6a-091f-44be-b965-04ce9466c4de";

async fn submit(node: &ComfyNode, prompt: &str) -> Answer {
    let body = format!("{{\"prompt\": {prompt}, \"client_id\": \"{SID}\"}}");
    ask(node, "POST", "/prompt", &[], body).await.unwrap()
}

async fn hold(name: &str) {
    let told = recorded(name);
    // Times are masked: what took five seconds there takes fifty milliseconds.
    let node = ComfyNode::start(Spec::named("a").knobs(ComfyKnobs::default().speed(100.0)))
        .await
        .unwrap();
    if let Some(before) = &told.after {
        let mut other = socket(&node, SID).await;
        submit(&node, &recorded(before).prompt).await;
        other.until_end().await;
        other.close().await;
        node.until(|saw| {
            saw.iter()
                .any(|s| matches!(s, tabane_sim::comfy::Saw::Closed { .. }))
        })
        .await;
    }
    let mut socket = socket(&node, SID).await;
    let mut frames = Vec::new();
    if let Some(flags) = &told.flags {
        socket.say(flags).await;
        frames.extend([socket.next().await.unwrap(), socket.next().await.unwrap()]);
    }
    let answer = submit(&node, &told.prompt).await;
    assert_eq!(answer.status, told.status, "{name}: status");
    let id = answer.json()["prompt_id"]
        .as_str()
        .unwrap_or("no id")
        .to_owned();
    assert_eq!(mask(answer.text(), &id), told.body, "{name}: answer");
    if told.status != 200 {
        return;
    }
    frames.extend(socket.until_end().await);
    let mut said = Vec::new();
    for frame in frames {
        said.push(match frame {
            Message::Text(text) => mask(&text, &id),
            Message::Binary(bytes) => {
                let number = |at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                format!("binary {} {}", number(0), number(4))
            }
            other => panic!("{name}: {other:?}"),
        });
        let n = said.len();
        if n >= 4 && said[n - 2..] == said[n - 4..n - 2] {
            said.truncate(n - 2);
        }
    }
    // The recorder stopped listening at an error; what follows is the same as at any other end.
    let heard = &said[..said.len().min(told.frames.len())];
    for (heard, told) in heard.iter().zip(&told.frames) {
        assert_eq!(heard, told, "{name}");
    }
    let last = told.frames.last().unwrap();
    let all = heard.len() == said.len() || last.contains("execution_error");
    assert!(
        all,
        "{name}: more than was recorded: {:?}",
        &said[heard.len()..]
    );
    if let Some(history) = &told.history {
        let answer = get(&node, &format!("/history/{id}")).await;
        assert_eq!(&mask(answer.text(), &id), history, "{name}: history");
    }
}

/// Takes out what is another's every time.
fn mask(text: &str, id: &str) -> String {
    let mut text = text.replace(id, "ID").replace(SID, "SID");
    for (before, after) in [
        ("\"timestamp\": ", "}"),
        ("\"number\": ", ","),
        ("\"prompt\": [", ","),
    ] {
        text = between(&text, before, after, |_| Some("0"));
    }
    text = between(&text, "\"traceback\": ", ", \"timestamp\"", |_| Some("~"));
    text = between(&text, "ComfyUI_temp_", "_0", |_| Some("xxxxx"));
    // How long it slept: not when it is done.
    for (before, after) in [
        ("\"value\": ", ", \"max\": 5.0"),
        ("\"value\": ", ", \"max\": 3.0"),
    ] {
        text = between(&text, before, after, |value| {
            (!matches!(value, "5.0" | "3.0")).then_some("\"~\"")
        });
    }
    text
}

/// Replaces what stands between two texts, everywhere, unless the second one is farther than the next first one.
pub fn between(
    text: &str,
    before: &str,
    after: &str,
    put: impl Fn(&str) -> Option<&'static str>,
) -> String {
    let mut parts = text.split(before);
    let mut whole = parts.next().unwrap_or("").to_owned();
    for part in parts {
        whole.push_str(before);
        match part
            .find(after)
            .and_then(|end| Some((put(&part[..end])?, &part[end..])))
        {
            // A value ends before the next comma: one that does not is another's.
            Some((put, rest))
                if before != "\"value\": " || !part[..part.len() - rest.len()].contains(',') =>
            {
                whole.push_str(put);
                whole.push_str(rest);
            }
            _ => whole.push_str(part),
        }
    }
    whole
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            hold(stringify!($name)).await;
        })*

        #[test]
        fn nothing_that_was_recorded_is_left_out() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/comfy/recorded");
            let files = fs::read_dir(folder).unwrap().count();
            assert_eq!(files, [$(stringify!($name)),*].len());
        }
    };
}

replays! {
    async_progress
    empty_preview
    empty_save
    error
    invalid
    load_scale_blur_save
    sleep
    slow_blur_batch
    tiny_sd3_featureflags
    tiny_sd3_ksampler
    tiny_sd3_ksampler_ws
    unknown_node
    ws_image
}
