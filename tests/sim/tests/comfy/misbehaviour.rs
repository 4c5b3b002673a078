//! Each knob does what it says.

use crate::client::{LONG, ask, finished, get, post, socket, submit};
use crate::prompts::empty_save;
use crate::queue::{sleep, started};
use futures::FutureExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tabane_sim::Submission;
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Saw, Spec};
use tokio::time::timeout;

async fn start(knobs: ComfyKnobs) -> ComfyNode {
    ComfyNode::start(Spec::named("a").knobs(knobs))
        .await
        .unwrap()
}

fn load(model: &str) -> Value {
    json!({
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["4", 1]}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["6", 0]}},
    })
}

fn loaded(node: &ComfyNode) -> Vec<String> {
    let loaded = node.seen().into_iter().filter_map(|saw| match saw {
        Saw::Loaded { model } => Some(model),
        _ => None,
    });
    loaded.collect()
}

async fn until(node: &ComfyNode, so: impl FnMut(&[Saw]) -> bool) {
    timeout(LONG, node.until(so)).await.unwrap();
}

#[tokio::test]
async fn time_and_speed_are_as_set() {
    let knobs = ComfyKnobs {
        node_ms: 100,
        ..ComfyKnobs::default()
    };
    let node = start(knobs.clone()).await;
    let begin = Instant::now();
    let id = submit(&node, "c", &empty_save("x")).await;
    finished(&node, &id).await;
    assert!(begin.elapsed() >= Duration::from_millis(200));
    node.set(|knobs| knobs.speed = 1000.0);
    node.set(|knobs| knobs.class_ms = [("SaveImage".to_owned(), 50_000)].into());
    let begin = Instant::now();
    let id = submit(&node, "c", &empty_save("y")).await;
    finished(&node, &id).await;
    assert!(begin.elapsed() >= Duration::from_millis(50));
}

/// How much of the card's memory it says is free, MiB.
async fn free(node: &ComfyNode) -> u64 {
    let stats = get(node, "/system_stats").await.json();
    stats["devices"][0]["vram_free"].as_u64().unwrap() >> 20
}

#[tokio::test]
async fn models_are_loaded_once_while_they_fit() {
    let spec = Spec {
        vram_mib: 10_000,
        ..Spec::named("a")
    };
    let spec = spec.model("checkpoints", "a.safetensors", 6000).model(
        "checkpoints",
        "b.safetensors",
        6000,
    );
    let node = ComfyNode::start(spec.model("checkpoints", "huge.safetensors", 20_000))
        .await
        .unwrap();
    assert_eq!(free(&node).await, 10_000);
    for model in ["a", "a", "b", "a"] {
        let id = submit(&node, "c", &load(&format!("{model}.safetensors"))).await;
        assert_eq!(
            finished(&node, &id).await["status"]["status_str"],
            "success"
        );
    }
    assert_eq!(
        loaded(&node),
        ["a.safetensors", "b.safetensors", "a.safetensors"]
    );
    assert_eq!(free(&node).await, 4_000);
    let id = submit(&node, "c", &load("huge.safetensors")).await;
    let entry = finished(&node, &id).await;
    let error = &entry["status"]["messages"][2][1];
    assert_eq!(error["exception_type"], "torch.OutOfMemoryError");
    assert!(
        error["exception_message"]
            .as_str()
            .unwrap()
            .contains("ran out of memory on your GPU")
    );
    assert_eq!(free(&node).await, 10_000, "it lets go of everything then");
    let id = submit(&node, "c", &load("a.safetensors")).await;
    finished(&node, &id).await;
    post(&node, "/free", &json!({"unload_models": true})).await;
    while free(&node).await != 10_000 {
        tokio::task::yield_now().await;
    }
    node.set(|knobs| knobs.taken_mib = 5_000);
    assert_eq!(free(&node).await, 5_000);
    post(&node, "/free", &json!({"free_memory": true})).await;
    let id = submit(&node, "c", &load("a.safetensors")).await;
    assert_eq!(finished(&node, &id).await["status"]["status_str"], "error");
}

#[tokio::test]
async fn a_class_fails_or_runs_out_of_memory() {
    let node = start(ComfyKnobs::default()).await;
    node.set(|knobs| knobs.fail_at = Some("SaveImage".into()));
    let id = submit(&node, "c", &empty_save("x")).await;
    let entry = finished(&node, &id).await;
    let error = &entry["status"]["messages"][2];
    assert_eq!(
        (&error[0], &error[1]["exception_type"], &error[1]["node_id"]),
        (
            &json!("execution_error"),
            &json!("RuntimeError"),
            &json!("2")
        )
    );
    node.set(|knobs| knobs.fail_at = None);
    node.set(|knobs| knobs.out_of_memory_at = Some("SaveImage".into()));
    let id = submit(&node, "c", &empty_save("x")).await;
    let entry = finished(&node, &id).await;
    assert_eq!(
        entry["status"]["messages"][2][1]["exception_type"],
        "torch.OutOfMemoryError"
    );
}

#[tokio::test]
async fn a_class_hangs_and_hears_nothing() {
    let node = start(ComfyKnobs {
        hang_at: Some("SaveImage".into()),
        ..ComfyKnobs::default()
    })
    .await;
    let mut socket = socket(&node, "c").await;
    let id = submit(&node, "c", &empty_save("x")).await;
    while socket.event_of("executing").await["node"] != "2" {}
    post(&node, "/interrupt", &json!({"prompt_id": id})).await;
    assert_eq!(
        get(&node, "/prompt").await.json()["exec_info"]["queue_remaining"],
        1,
        "it still runs"
    );
    node.set(|knobs| knobs.hang_at = None);
    let entry = finished(&node, &id).await;
    assert_eq!(
        entry["status"]["messages"][2][0], "execution_interrupted",
        "then it hears"
    );
}

#[tokio::test]
async fn its_process_dies_at_a_class() {
    let mut node = start(ComfyKnobs {
        crash_at: Some("SaveImage".into()),
        ..ComfyKnobs::default()
    })
    .await;
    let mut socket = socket(&node, "c").await;
    submit(&node, "c", &empty_save("x")).await;
    while socket.next().await.is_some() {}
    until(&node, |saw| saw.contains(&Saw::Died)).await;
    node.crash().await;
    assert!(ask(&node, "GET", "/queue", &[], "").await.is_err());
    node.set(|knobs| knobs.crash_at = None);
    node.restart().await.unwrap();
    let id = submit(&node, "c", &empty_save("x")).await;
    finished(&node, &id).await;
}

#[tokio::test]
async fn the_answer_to_a_prompt_is_lost_before_or_after_it_was_taken() {
    let node = start(ComfyKnobs {
        submission: Submission::DropBefore,
        ..ComfyKnobs::default()
    })
    .await;
    let own = "e04d8990-388c-4857-ab8c-26bd918bdeea";
    let body = json!({"prompt": empty_save("x"), "prompt_id": own}).to_string();
    assert!(
        ask(&node, "POST", "/prompt", &[], body.clone())
            .await
            .is_err()
    );
    assert_eq!(get(&node, "/history").await.text(), "{}");
    node.set(|knobs| knobs.submission = Submission::DropAfter);
    assert!(
        ask(&node, "POST", "/prompt", &[], body.clone())
            .await
            .is_err()
    );
    finished(&node, own).await;
    node.set(|knobs| knobs.submission = Submission::Hang);
    let hangs = timeout(
        Duration::from_millis(50),
        ask(&node, "POST", "/prompt", &[], body),
    )
    .await;
    assert!(hangs.is_err());
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let node = start(ComfyKnobs {
        queue_limit: Some(1),
        ..ComfyKnobs::default()
    })
    .await;
    let runs = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &runs).await;
    let full = post(&node, "/prompt", &json!({"prompt": empty_save("x")})).await;
    assert_eq!(
        (full.status, &full.json()["error"]["type"]),
        (429, &json!("QUEUE_LIMIT"))
    );
}

#[tokio::test]
async fn a_silent_socket_stays_open_and_says_nothing() {
    let node = start(ComfyKnobs::default()).await;
    let mut socket = socket(&node, "c").await;
    socket.event().await;
    node.set(|knobs| knobs.silent_sockets = true);
    let id = submit(&node, "c", &empty_save("x")).await;
    finished(&node, &id).await;
    assert!(socket.next().now_or_never().is_none());
    node.set(|knobs| knobs.silent_sockets = false);
    submit(&node, "c", &empty_save("y")).await;
    socket.until_end().await;
}

#[tokio::test]
async fn sockets_are_cut_while_what_runs_goes_on() {
    let node = start(ComfyKnobs::default()).await;
    let mut first = socket(&node, "c").await;
    let id = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &id).await;
    node.set(|knobs| knobs.refuse_sockets = true);
    node.cut_sockets();
    while first.next().await.is_some() {}
    let url = format!("ws://{}/ws?clientId=c", node.addr());
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
    assert_eq!(
        get(&node, "/queue").await.json()["queue_running"][0][1],
        id.as_str()
    );
    node.set(|knobs| knobs.refuse_sockets = false);
    let mut again = socket(&node, "c").await;
    again.event_of("progress").await;
}

#[tokio::test]
async fn it_hangs_freezes_or_answers_only_one_status() {
    let node = start(ComfyKnobs {
        hang: true,
        ..ComfyKnobs::default()
    })
    .await;
    let never = |node| {
        let asked = get(node, "/queue");
        async move { timeout(Duration::from_millis(50), asked).await.is_err() }
    };
    assert!(never(&node).await);
    node.set(|knobs| knobs.hang = false);
    assert_eq!(get(&node, "/queue").await.status, 200);
    let id = submit(&node, "c", &sleep(0.2)).await;
    started(&node, &id).await;
    node.set(|knobs| knobs.frozen = true);
    assert!(never(&node).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = node
        .seen()
        .iter()
        .any(|saw| matches!(saw, Saw::Ended { .. }));
    assert!(!ended, "what is stopped executes nothing");
    node.set(|knobs| knobs.frozen = false);
    finished(&node, &id).await;
    node.set(|knobs| knobs.status = Some(503));
    assert_eq!(get(&node, "/queue").await.status, 503);
    let changed = ask(
        &node,
        "PUT",
        "/sim",
        &[],
        r#"{"status": null, "clock_skew_ms": -3600000}"#,
    )
    .await
    .unwrap();
    assert_eq!(changed.json()["clock_skew_ms"], -3_600_000);
    let id = submit(&node, "c", &empty_save("x")).await;
    let entry = finished(&node, &id).await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let told = entry["status"]["messages"][0][1]["timestamp"]
        .as_i64()
        .unwrap();
    assert!(
        (now - told - 3_600_000).abs() < 60_000,
        "its clock is behind"
    );
    let odd = ask(&node, "PUT", "/sim", &[], r#"{"odd": 1}"#)
        .await
        .unwrap();
    assert_eq!(odd.status, 400);
}

#[tokio::test]
async fn the_end_may_be_told_before_it_is_in_the_history() {
    let node = start(ComfyKnobs {
        history_lag_ms: 100,
        ..ComfyKnobs::default()
    })
    .await;
    let mut socket = socket(&node, "c").await;
    let id = submit(&node, "c", &empty_save("x")).await;
    socket.event_of("execution_success").await;
    assert_eq!(get(&node, &format!("/history/{id}")).await.text(), "{}");
    while !socket.event_of("executing").await["node"].is_null() {}
    assert_ne!(
        get(&node, &format!("/history/{id}")).await.text(),
        "{}",
        "this one is"
    );
}
