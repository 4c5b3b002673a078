//! Nodes whose event socket breaks or falls silent, and nodes that answer nothing, while a job goes on there.

use super::watcher::Watcher;
use super::{STUBBORN, at, eventually, farm, is_at, times_made, times_taken, until_idle};
use crate::comfyui::prompts::slow;
use crate::comfyui::{Farm, More, specs, taken};
use tabane_sim::comfy::Saw;

/// A prompt with two parts, of which a client wants to see both.
fn two(seconds: f64) -> serde_json::Value {
    let mut prompt = slow(seconds, 7);
    prompt["4"] = serde_json::json!({"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}});
    prompt
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_breaks_takes_nothing_with_it() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&two(3.0)).await;
    let there = at(&farm, &id).await;
    farm.nodes[there].cut_sockets();
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1, "it is not run twice");
    let kinds = hears.kinds(&id);
    let shown = kinds.iter().filter(|kind| *kind == "executed").count();
    assert_eq!(shown, 2, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_socket_does_not_tell_is_told_by_the_history_and_the_socket_is_opened_anew() {
    let farm = farm(1).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&two(1.0)).await;
    at(&farm, &id).await;
    farm.nodes[0].set(|knobs| knobs.silent_sockets = true);
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1, "it is not run twice");
    let kinds = hears.kinds(&id);
    let end = ["executed", "executed", "execution_success", "null"];
    assert_eq!(kinds[kinds.len() - 4..], end, "{kinds:?}");
    let entry = client.finished(&id).await;
    for event in hears.events(&id) {
        if event["type"] == "executed" {
            let node = event["data"]["node"].as_str().unwrap();
            assert_eq!(event["data"]["output"], entry["outputs"][node]);
        }
    }
    let opened = |saw: &Saw| matches!(saw, Saw::Opened { .. });
    eventually("it is opened anew", async || {
        let saw = farm.nodes[0].seen();
        saw.into_iter().filter(opened).count() >= 2
    })
    .await;
    // And is heard again.
    farm.nodes[0].set(|knobs| knobs.silent_sockets = false);
    let id = client.submit(&slow(0.2, 8)).await;
    hears.hears_once(&id, "execution_success").await;
    let kinds = hears.kinds(&id);
    assert!(kinds.contains(&"progress_state".to_owned()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_answers_nothing_for_a_while_is_waited_for() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&two(1.0)).await;
    let there = at(&farm, &id).await;
    farm.nodes[there].set(|knobs| {
        knobs.hang = true;
        knobs.silent_sockets = true;
    });
    let waited = farm.nodes[there].until(|saw| {
        let asked = saw
            .iter()
            .rev()
            .take_while(|saw| !matches!(saw, Saw::Ended { .. }));
        asked.count() > 3
    });
    waited.await;
    farm.nodes[there].set(|knobs| knobs.hang = false);
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1, "it is not run twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_node_had_is_made_by_another_and_ended_there_when_it_thaws() {
    let more = More {
        health: "timeout: 300ms, stall_after: 1s, eject_after: 1000",
        ..STUBBORN
    };
    let farm = Farm::start(specs(2), more).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.node("a").set(|knobs| knobs.speed = 0.01);
    farm.only("a").await;
    let id = client.submit(&slow(0.5, 1)).await;
    assert_eq!(at(&farm, &id).await, 0);
    farm.node("a").set(|knobs| knobs.frozen = true);
    farm.all().await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(taken(farm.node("b")), std::slice::from_ref(&id));
    assert!(is_at(farm.node("a"), &id));
    farm.node("a").set(|knobs| knobs.frozen = false);
    until_idle(&farm.nodes).await;
    assert_eq!(times_made(&farm.nodes, &id), 1);
    hears.hears_once(&id, "execution_success").await;
}
