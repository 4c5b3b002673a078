//! Prompts that are taken back at every moment: each ends once, soon, and is left on no node.

use super::watcher::{Ends, Watcher};
use super::{Farm, STUBBORN, at, eventually, farm, left_on, spec, times_taken, until_idle, word};
use crate::comfyui::client::Client;
use crate::comfyui::prompts::slow;
use crate::comfyui::{More, specs, taken, until};
use serde_json::json;
use std::time::Duration;
use tabane_sim::Submission;
use tabane_sim::comfy::{Saw, Version};
use tokio::time::{sleep, timeout};

/// The ways to take a prompt back.
pub(super) const WAYS: [&str; 3] = ["/interrupt", "/api/jobs/ID/cancel", "/queue"];

/// Takes a prompt back in one of the ways.
pub(super) async fn take_back(client: &Client, id: &str, way: &str) {
    let path = way.replace("ID", id);
    let body = json!({"prompt_id": id, "delete": [id]});
    let told = client.post(&path, &body).await;
    assert_eq!(told.status, 200, "{way}: {told:?}");
}

/// Waits until a prompt is not in the queue any more.
async fn until_out(client: &Client, id: &str) {
    eventually("it is out of the queue", async || {
        let (running, waiting) = client.queue().await;
        !running.iter().chain(&waiting).any(|it| it == id)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_and_however_it_is_taken_back_it_ends_once_and_no_node_is_left_at_it() {
    let often = [0, 5, 10, 20, 40, 60, 70, 80, 120, 200, 250, 270, 290, 320];
    taken_back_after(Version::RECORDED, &often).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_a_server_that_cancels_by_a_name() {
    taken_back_after(Version::LATE, &[0, 15, 50, 65, 100, 240, 260, 280]).await;
}

/// Takes prompts back after so many milliseconds, and others that wait behind them.
async fn taken_back_after(version: Version, times: &[u32]) {
    let farm = Farm::start(vec![spec("a").version(version)], STUBBORN).await;
    // Being handed over takes a while, too.
    farm.node("a").set(|knobs| knobs.take_ms = 60);
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let mut ended = 0;
    for &ms in times {
        for way in WAYS {
            let id = client.submit(&slow(0.2, ms)).await;
            // And one that waits behind it.
            let second = client.submit(&slow(0.0, 1000 + ms)).await;
            sleep(Duration::from_millis(ms.into())).await;
            tokio::join!(
                take_back(&client, &id, way),
                take_back(&client, &second, way)
            );
            for id in [&id, &second] {
                until_out(&client, id).await;
                let history = client.get(&format!("/history/{id}")).await.json();
                let Some(entry) = history.get(id) else {
                    // It never ran: then nobody is told of it.
                    let told = hears.ends(id);
                    assert_eq!(
                        (told.words.len(), told.nulls),
                        (0, 0),
                        "{way} {ms} {told:?}"
                    );
                    continue;
                };
                hears.hears_once(id, word(entry)).await;
                ended += 1;
            }
            assert_eq!(left_on(&farm.nodes[0]).await, 0, "{way} {ms}");
        }
    }
    assert!(ended > times.len(), "some of them ran: {ended}");
    client.until_queue(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_as_its_node_is_gone_ends_and_runs_nowhere_else() {
    let mut farm = farm(1).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&slow(60.0, 1)).await;
    at(&farm, &id).await;
    farm.nodes[0].crash().await;
    take_back(&client, &id, "/interrupt").await;
    hears.hears_once(&id, "execution_interrupted").await;
    farm.nodes[0].restart().await.unwrap();
    farm.scene.until_up().await;
    client.run(&slow(0.0, 2)).await;
    assert_eq!(times_taken(&farm.nodes, &id), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_as_it_waits_to_be_tried_again_ends_at_once() {
    let more = More {
        service: "jobs: {attempts: 3, backoff: [1h]}",
        ..STUBBORN
    };
    let mut farm = Farm::start(specs(2), more).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&slow(60.0, 1)).await;
    let there = at(&farm, &id).await;
    farm.nodes[there].crash().await;
    client.until_queue(0, 1).await;
    take_back(&client, &id, "/api/jobs/ID/cancel").await;
    hears.hears_once(&id, "execution_interrupted").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_as_a_node_breaks_off_taking_it_is_not_handed_to_another() {
    let mut farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.only("a").await;
    farm.node("a")
        .set(|knobs| knobs.submission = Submission::Hang);
    let id = client.submit(&slow(60.0, 1)).await;
    until(farm.node("a"), |saw| matches!(saw, Saw::Accepted { .. })).await;
    farm.all().await;
    let (_, ()) = tokio::join!(take_back(&client, &id, "/interrupt"), async {
        sleep(Duration::from_millis(50)).await;
        farm.nodes[0].crash().await;
    });
    hears.hears_once(&id, "execution_interrupted").await;
    assert!(taken(farm.node("b")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_from_a_node_that_hears_no_interrupt_ends_all_the_same() {
    let farm = farm(1).await;
    farm.node("a")
        .set(|knobs| knobs.hang_at = Some("TestSleep".into()));
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&slow(600.0, 1)).await;
    at(&farm, &id).await;
    take_back(&client, &id, "/interrupt").await;
    hears.hears_once(&id, "execution_interrupted").await;
    client.until_queue(0, 0).await;
    farm.node("a").set(|knobs| knobs.hang_at = None);
    until_idle(&farm.nodes).await;
    assert_eq!(hears.ends(&id), Ends::once("execution_interrupted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_something_back_does_not_wait_for_a_node_that_answers_nothing() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let mut ids = Vec::new();
    for i in 0..2 {
        ids.push(client.submit(&slow(600.0, i)).await);
        at(&farm, &ids[ids.len() - 1]).await;
    }
    for node in &farm.nodes {
        node.set(|knobs| knobs.hang = true);
    }
    let told = timeout(
        Duration::from_secs(10),
        client.post("/interrupt", &json!({})),
    )
    .await;
    assert_eq!(told.unwrap().status, 200);
    for id in &ids {
        hears.hears_once(id, "execution_interrupted").await;
    }
    for node in &farm.nodes {
        node.set(|knobs| knobs.hang = false);
    }
    until_idle(&farm.nodes).await;
}
