//! Nodes that break as they are handed a prompt: did they take it?

use super::watcher::Watcher;
use super::{eventually, farm, times_made, times_taken, until_idle};
use crate::comfyui::prompts::slow;
use crate::comfyui::{taken, until};
use tabane_sim::Submission;
use tabane_sim::comfy::Saw;

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_taken_without_an_answer_is_not_run_twice() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    for node in &farm.nodes {
        node.set(|knobs| knobs.submission = Submission::DropAfter);
    }
    let id = client.submit(&slow(1.0, 1)).await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1);
    let kinds = hears.kinds(&id);
    assert!(kinds.contains(&"progress_state".to_owned()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_taken_late_without_an_answer_is_not_run_twice() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    for node in &farm.nodes {
        node.set(|knobs| knobs.take_ms = 800);
    }
    let id = client.submit(&slow(0.5, 1)).await;
    let asked = |saw: &Saw| matches!(saw, Saw::Request { method, path } if method == "POST" && path == "/prompt");
    eventually("it is handed over", async || {
        farm.nodes.iter().any(|node| node.seen().iter().any(asked))
    })
    .await;
    for node in &farm.nodes {
        node.drop_connections();
    }
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1);
    until_idle(&farm.nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_not_taken_is_run_by_another() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.only("a").await;
    farm.node("a")
        .set(|knobs| knobs.submission = Submission::DropBefore);
    let id = client.submit(&slow(0.2, 1)).await;
    until(
        farm.node("a"),
        |saw| matches!(saw, Saw::Request { method, path } if method == "POST" && path == "/prompt"),
    )
    .await;
    farm.all().await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(taken(farm.node("b")), [id]);
    assert!(taken(farm.node("a")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_between_taking_a_prompt_and_saying_so_has_it_no_more() {
    for comes_back in [false, true] {
        let mut farm = farm(2).await;
        let client = farm.client("c");
        let hears = Watcher::of(farm.scene.address(), "c").await;
        farm.only("a").await;
        farm.node("a").set(|knobs| {
            knobs.submission = Submission::Hang;
            knobs.speed = 0.01;
        });
        let id = client.submit(&slow(0.5, 1)).await;
        until(farm.node("a"), |saw| matches!(saw, Saw::Accepted { .. })).await;
        farm.nodes[0].crash().await;
        farm.node("a").set(|knobs| {
            knobs.submission = Submission::Answer;
            knobs.speed = 1.0;
        });
        if comes_back {
            farm.nodes[0].restart().await.unwrap();
        }
        farm.all().await;
        hears.hears_once(&id, "execution_success").await;
        assert_eq!(times_taken(&farm.nodes, &id), 2);
        assert_eq!(times_made(&farm.nodes, &id), 1);
    }
}
