//! One node behind the gateway is that node: what was recorded of a real server is said by the gateway, too, but for ids and
//! times, and whatever a front end asks is answered as the node answers it.
//!
//! What is the gateway's own way is allowed: of progress, previews and counts, one that is followed by a later one may be left
//! out; and for clients that do not understand what previews are of, a preview comes before the number of its step, not after.

#[path = "../../sim/tests/comfy/recording.rs"]
mod recording;

use super::client::{Client, event};
use super::prompts::colour;
use super::{Farm, More};
use futures::future::join_all;
use recording::{Recorded, SID, between, mask, told};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tabane_sim::comfy::{ComfyKnobs, Spec, Version};
use tokio_tungstenite::tungstenite::Message;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/tests/comfy/recorded")
}

fn recorded(name: &str) -> Recorded {
    recording::recorded(&folder(), name)
}

/// Whether one may be left out where a later one follows.
fn is_passing(frame: &str) -> bool {
    let kinds = ["status", "progress", "progress_state"];
    kinds
        .iter()
        .any(|kind| frame.starts_with(&format!("{{\"type\": \"{kind}\"")))
        || frame == "binary 1 1"
        || frame.starts_with("binary 4 ")
}

/// Frames that are never left out, each with what stands before it and may be.
fn segments(frames: &[String]) -> Vec<(HashSet<&str>, Option<&str>)> {
    let mut all = vec![(HashSet::new(), None)];
    for frame in frames {
        let last = all.last_mut().unwrap();
        if is_passing(frame) {
            last.0.insert(frame.as_str());
        } else {
            last.1 = Some(frame.as_str());
            all.push((HashSet::new(), None));
        }
    }
    all
}

/// A preview before the number of its step, as clients are told it that do not understand what it is of.
fn with_previews_first(mut frames: Vec<String>) -> Vec<String> {
    for at in 1..frames.len() {
        if frames[at].starts_with("binary 1 ")
            && frames[at - 1].starts_with("{\"type\": \"progress\"")
        {
            frames.swap(at - 1, at);
        }
    }
    frames
}

async fn hold(name: &str) {
    let wants = recorded(name);
    let spec = Spec::named("a").knobs(ComfyKnobs::default().speed(100.0));
    let farm = Farm::start(vec![spec], More::default()).await;
    let client = farm.client(SID);
    let post = |recorded: Recorded| {
        let client = client.clone();
        async move {
            client
                .ask("POST", "/prompt", &[], recorded.body_to_post())
                .await
        }
    };
    if let Some(before) = &wants.after {
        let mut socket = client.listen().await;
        let id = post(recorded(before)).await.json()["prompt_id"]
            .as_str()
            .unwrap()
            .to_owned();
        socket.until_end(&id).await;
        socket.close().await;
    }
    let mut socket = client.listen().await;
    let mut frames = Vec::new();
    if let Some(flags) = &wants.flags {
        socket.say(flags).await;
        frames.extend([socket.next().await.unwrap(), socket.next().await.unwrap()]);
    }
    let answer = post(recorded(name)).await;
    assert_eq!(answer.status, wants.status, "{name}: status");
    let body = answer.json();
    let id = body["prompt_id"].as_str().unwrap_or("no id");
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert_eq!(mask(text, id), wants.body, "{name}: answer");
    if wants.status != 200 {
        return;
    }
    frames.extend(socket.until_end(id).await);
    hold_frames(name, &frames, id, &wants);
    if let Some(history) = &wants.history {
        let answer = client.get(&format!("/history/{id}")).await;
        let text = std::str::from_utf8(&answer.body).unwrap();
        assert_eq!(&mask(text, id), history, "{name}: history");
    }
}

fn hold_frames(name: &str, frames: &[Message], id: &str, wants: &Recorded) {
    let heard: Vec<String> = frames.iter().map(|frame| told(frame, id)).collect();
    let wanted = match wants.flags {
        Some(_) => wants.frames.clone(),
        None => with_previews_first(wants.frames.clone()),
    };
    let (heard, wanted) = (segments(&heard), segments(&wanted));
    for (at, ((passing, frame), (may_pass, wanted))) in heard.iter().zip(&wanted).enumerate() {
        // The recorder stopped listening at an error.
        if wanted.is_none() {
            break;
        }
        assert_eq!(frame, wanted, "{name}: {at}");
        let more: Vec<_> = passing.difference(may_pass).collect();
        assert!(more.is_empty(), "{name}: {more:?} before {frame:?}");
    }
    assert!(heard.len() >= wanted.len(), "{name}: too few");
    let end = frames.iter().rev().filter_map(event).take(2);
    let [end, count]: [serde_json::Value; 2] = end.collect::<Vec<_>>().try_into().unwrap();
    assert!(end["data"]["node"].is_null());
    let remaining = &count["data"]["status"]["exec_info"]["queue_remaining"];
    assert_eq!(
        remaining, 0,
        "{name}: who waits for the end sees the count before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_of_a_server_is_said_by_the_gateway_before_one_node() {
    let files = std::fs::read_dir(folder()).unwrap();
    let names: Vec<String> = files
        .map(|file| {
            file.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(names.len(), 13);
    join_all(names.iter().map(|name| hold(name))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_front_end_asks_is_answered_as_the_one_node_answers_it() {
    for version in [Version::RECORDED, Version::LATE] {
        let spec = Spec::named("a")
            .version(version)
            .model("loras", "sub/a.safetensors", 10);
        let farm = Farm::start(vec![spec], More::default()).await;
        let many = farm.client("c");
        let one = Client::new(farm.node("a").addr(), "c");
        let id = many.submit(&colour(1, "x")).await;
        many.finished(&id).await;
        for path in [
            "/",
            "/prompt",
            "/queue",
            "/api/queue",
            "/history/unknown",
            "/object_info",
            "/object_info/LoadImage",
            "/object_info/NoSuchNode",
            "/models",
            "/models/loras",
            "/models/nothing",
            "/embeddings",
            "/experiment/models",
            "/experiment/models/loras",
            "/system_stats",
            "/features",
            "/extensions",
            "/i18n",
            "/workflow_templates",
            "/internal/folder_paths",
            "/internal/logs",
            "/internal/logs/raw",
            "/internal/files/output",
            "/internal/files/temp",
            "/internal/files/odd",
            "/api/internal/files/output",
            "/users",
            "/settings",
            "/userdata?dir=workflows",
            "/node_replacements",
            "/global_subgraphs",
            "/view?filename=x_00001_.png",
            "/no/such/path",
            "/missing.png",
        ] {
            let (told, wants) = (many.get(path).await, one.get(path).await);
            assert_eq!(
                (told.status, &told.body),
                (wants.status, &wants.body),
                "{version} {path}"
            );
            for header in ["content-type", "cache-control"] {
                assert_eq!(
                    told.header(header),
                    wants.header(header),
                    "{version} {path} {header}"
                );
            }
        }
        // What one prompt left is said alike, its times aside.
        for path in [
            "/history",
            "/api/history?max_items=1",
            "/api/jobs",
            &format!("/api/jobs/{id}"),
        ] {
            let (told, wants) = (many.get(path).await, one.get(path).await);
            // Older ones have no list of jobs.
            if wants.status == 404 {
                continue;
            }
            let masked = |reply: &crate::scene::Reply, sid: &str| {
                let text = std::str::from_utf8(&reply.body)
                    .unwrap()
                    .replace(sid, "SID");
                ["create_time", "execution_start_time", "execution_end_time"]
                    .iter()
                    .fold(mask(&text, &id), |text, key| {
                        between(&text, &format!("\"{key}\": "), ",", |_| Some("0"))
                    })
            };
            let sid = one.get("/history").await.json()[&id]["prompt"][3]["client_id"].clone();
            let (told, wants) = (masked(&told, "\"c\""), masked(&wants, &sid.to_string()));
            let told = between(&told, "\"create_time\": ", "}", |_| Some("0"));
            let wants = between(&wants, "\"create_time\": ", "}", |_| Some("0"));
            assert_eq!(told, wants, "{version} {path}");
        }
        for (path, body) in [
            ("/prompt", json!({})),
            ("/prompt", json!([])),
            ("/prompt", json!(3)),
            ("/prompt", json!({"prompt": {}})),
            ("/prompt", json!({"prompt": {"1": 3}})),
            ("/prompt", json!({"prompt": colour(1, "x"), "number": "x"})),
            (
                "/prompt",
                json!({"prompt": colour(1, "x"), "prompt_id": null, "partial_execution_targets": ["9"]}),
            ),
            ("/queue", json!({})),
            ("/queue", json!({"delete": ["unknown"]})),
            ("/interrupt", json!({})),
            ("/interrupt", json!({"prompt_id": "unknown"})),
            ("/history", json!({"delete": ["unknown"]})),
            ("/free", json!({"unload_models": true, "free_memory": true})),
            ("/no/such/path", json!({})),
        ] {
            let (told, wants) = (many.post(path, &body).await, one.post(path, &body).await);
            assert_eq!(
                (told.status, &told.body),
                (wants.status, &wants.body),
                "{version} {path} {body}"
            );
        }
    }
}
