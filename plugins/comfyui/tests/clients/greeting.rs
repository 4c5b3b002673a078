//! The first words of a socket, held against recordings of a real server.

use crate::peer::{FEATURES, Peer};
use std::path::Path;
use tabane_api::Message;
use tabane_comfyui::clients::Clients;
use tabane_comfyui::frames::{Event, Frame};
use tabane_comfyui::json::Json;

/// The recorded frames of the simulated node's own tests, by the name of their conversation. Ids are masked.
fn recorded() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sim/tests/comfy/recorded");
    let files = std::fs::read_dir(folder).unwrap();
    let all: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let told = Json::read(&std::fs::read(&path).unwrap()).unwrap();
            let frames = told.get("frames").and_then(Json::list).unwrap_or_default();
            // `~` stands for what only that machine can know.
            let frames = frames
                .iter()
                .map(|frame| frame.text().unwrap().replace(": ~", ": []"));
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, frames.collect())
        })
        .collect();
    assert!(all.len() > 10, "saw {}", all.len());
    all
}

#[tokio::test]
async fn the_greeting_and_the_counts_are_those_of_a_real_server_to_the_byte() {
    let mut seen = 0;
    for (name, frames) in recorded() {
        let Some(greeting) = frames.first() else {
            continue;
        };
        let clients = Clients::default();
        let mut peer = Peer::connects(&clients, "SID");
        assert_eq!(&peer.text().await, greeting, "{name}");
        clients.status(1);
        assert!(frames.contains(&peer.text().await), "{name}");
        seen += 1;
    }
    assert!(seen > 8, "saw {seen}");
}

#[tokio::test]
async fn whoever_says_first_what_it_understands_is_told_what_the_gateway_does() {
    let clients = Clients::default();
    let mut peer = Peer::greeted(&clients, "SID").await;
    // Neither counts as a first word on a real server.
    peer.says("{");
    peer.says("[1]");
    let flags = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#;
    peer.says(flags);
    let told = format!(r#"{{"type": "feature_flags", "data": {FEATURES}}}"#);
    assert_eq!(peer.text().await, told);
    let all = recorded();
    let (_, frames) = all.iter().find(|(_, f)| f.contains(&told)).unwrap();
    assert_eq!(frames[1], told, "it comes right after the greeting");

    peer.says(flags);
    clients.status(7);
    assert!(peer.text().await.contains(": 7}"), "asked twice, told once");

    let mut other = Peer::greeted(&clients, "other").await;
    other.says(r#"{"type": "hello"}"#);
    other.says(flags);
    clients.status(8);
    assert!(
        other.text().await.contains(": 8}"),
        "it was not the first word"
    );
}

#[tokio::test]
async fn who_has_no_id_gets_one_as_from_a_real_server() {
    let clients = Clients::default();
    let mut ids = Vec::new();
    for id in ["", ""] {
        let greeting = Peer::connects(&clients, id).text().await;
        let greeting = Json::read(greeting.as_bytes()).unwrap();
        let sid = greeting
            .get("data")
            .and_then(|data| data.get("sid")?.text());
        ids.push(sid.unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        let bytes = id.as_bytes();
        assert_eq!(bytes.len(), 32, "{id}");
        assert!(
            bytes.iter().all(|b| b"0123456789abcdef".contains(b)),
            "{id}"
        );
        assert!(bytes[12] == b'4' && b"89ab".contains(&bytes[16]), "{id}");
    }
    let greeting = Peer::connects(&clients, "a\"\n\u{e9}").text().await;
    assert!(
        greeting.ends_with(r#""sid": "a\"\n\u00e9"}}"#),
        "{greeting}"
    );
}

#[tokio::test]
async fn recorded_conversations_are_passed_on_as_they_are() {
    let mut events = 0;
    for (name, frames) in recorded() {
        let clients = Clients::default();
        let mut peer = Peer::greeted(&clients, "SID").await;
        for text in frames.iter().skip(1).filter(|text| text.starts_with('{')) {
            let frame = Frame::read(Message::Text(text.clone()));
            assert_ne!(frame.event, Event::Other, "{name}: {text}");
            let told = !matches!(frame.event, Event::Status | Event::FeatureFlags);
            assert_eq!(frame.prompt.is_some(), told, "{name}: {text}");
            clients.send("SID", frame);
            assert_eq!(&peer.text().await, text, "{name}");
            events += 1;
        }
        let end = Frame::end("ID").text().unwrap().to_owned();
        let last = frames.last().filter(|last| !last.contains("_error"));
        assert!(last.is_none_or(|last| *last == end), "{name}: {end}");
    }
    assert!(events > 100, "saw {events}");
}
