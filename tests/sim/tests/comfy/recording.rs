//! What a real server, 0.3.64, said of thirteen workflows (`recorded/`), and how what another says is held against it: without
//! ids, times, pictures and where its code lies.
//!
//! Frames of progress that only repeat each other are told once there.

use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tokio_tungstenite::tungstenite::Message;

#[derive(Deserialize)]
pub struct Recorded {
    /// What had been executed on that server shortly before.
    pub after: Option<String>,
    /// What the client said first.
    pub flags: Option<Value>,
    pub prompt: String,
    pub status: u16,
    pub body: String,
    pub frames: Vec<String>,
    pub history: Option<String>,
}

/// The client of all recordings.
pub const SID: &str = "6f074b6a-091f-44be-b965-04ce9466c4de";

/// Reads a recording of a folder.
pub fn recorded(folder: &Path, name: &str) -> Recorded {
    let path = folder.join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Recorded {
    /// What is posted to have it executed.
    pub fn body_to_post(&self) -> String {
        format!("{{\"prompt\": {}, \"client_id\": \"{SID}\"}}", self.prompt)
    }
}

/// A frame as recordings have it.
pub fn told(frame: &Message, id: &str) -> String {
    match frame {
        Message::Text(text) => mask(text, id),
        Message::Binary(bytes) => {
            let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            format!("binary {} {}", number(0), number(4))
        }
        other => panic!("{other:?}"),
    }
}

/// Takes out what is another's every time.
pub fn mask(text: &str, id: &str) -> String {
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
