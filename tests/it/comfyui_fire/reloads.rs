//! The pool changes under load: no request fails, no socket is dropped, and what was taken in ends once.

use super::watcher::{Ends, Watcher};
use super::{Farm, STUBBORN, at, farm, times_made, times_taken, until_idle};
use crate::comfyui::client::Client;
use crate::comfyui::prompts::slow;
use crate::comfyui::{file, taken, until};
use crate::scene::shown;
use futures::future::join_all;
use http::Method;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tabane_sim::comfy::Saw;
use tokio::time::sleep;

/// What a client does all the time until it is told to stop; the prompts that it handed in.
async fn works(client: Client, seed: u32, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut ids = Vec::new();
    for i in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        ids.push(client.submit(&slow(0.05, seed + i)).await);
        for path in [
            "/queue",
            "/history?max_items=3",
            "/api/jobs?limit=5",
            "/prompt",
            "/object_info",
            "/system_stats",
        ] {
            let told = client.get(path).await;
            assert_eq!(told.status, 200, "{path}: {told:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_go_and_weigh_more_and_nobody_notices() {
    let farm = farm(4).await;
    let names = ["one", "two", "three"];
    let mut watchers = Vec::new();
    for name in names {
        watchers.push(Watcher::of(farm.scene.address(), name).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut at_work = Vec::new();
    for (i, name) in names.iter().enumerate() {
        at_work.push(tokio::spawn(works(
            farm.client(name),
            1000 * (1 + i as u32),
            stop.clone(),
        )));
    }
    let pools: [&[&str]; 7] = [
        &["a", "b"],
        &["c", "d"],
        &["a"],
        &["a", "{endpoint: b, weight: 5}"],
        &["d", "c", "b", "a"],
        &["{endpoint: a, weight: 7}", "b", "c"],
        &["a", "b", "c", "d"],
    ];
    for pool in pools {
        let pool: Vec<String> = pool.iter().map(ToString::to_string).collect();
        let reloaded = farm.scene.reload(&file(&farm.nodes, &pool, STUBBORN)).await;
        reloaded.unwrap_or_else(|problems| panic!("{}", shown(&problems)));
        sleep(Duration::from_millis(300)).await;
    }
    for node in ["a", "b", "c"] {
        for how in ["drain", "undrain"] {
            let path = format!("/api/v1/nodes/{node}/{how}");
            assert_eq!(farm.scene.admin(Method::POST, &path).await.status, 200);
            sleep(Duration::from_millis(150)).await;
        }
    }
    stop.store(true, Ordering::Release);
    let ids = join_all(at_work).await.into_iter();
    let looks = farm.client("looks");
    let mut all = 0;
    for (ids, hears) in ids.zip(&watchers) {
        for id in &ids.unwrap() {
            hears.until_ended(id).await;
            assert_eq!(hears.ends(id), Ends::once("execution_success"));
            assert_eq!(times_made(&farm.nodes, id), 1, "{id}");
            all += 1;
        }
        assert_eq!(hears.sockets(), 1, "no socket was dropped");
    }
    assert!(all > 20, "{all}");
    looks.until_queue(0, 0).await;
    let jobs = looks.get("/api/jobs?status=completed").await.json();
    assert_eq!(jobs["pagination"]["total"], json!(all));
    for node in &farm.nodes {
        assert!(!taken(node).is_empty(), "all were used");
    }
    until_idle(&farm.nodes).await;
}

/// Puts these nodes into the pool.
async fn reload(farm: &Farm, pool: &[&str]) {
    let pool: Vec<String> = pool.iter().map(ToString::to_string).collect();
    let reloaded = farm.scene.reload(&file(&farm.nodes, &pool, STUBBORN)).await;
    reloaded.unwrap_or_else(|problems| panic!("{}", shown(&problems)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_as_a_node_comes_is_made_by_it_when_its_own_is_lost() {
    let mut farm = farm(2).await;
    reload(&farm, &["a"]).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.node("a").set(|knobs| knobs.speed = 0.001);
    let id = client.submit(&slow(0.5, 1)).await;
    assert_eq!(at(&farm, &id).await, 0);
    reload(&farm, &["a", "b"]).await;
    farm.nodes[0].crash().await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(taken(farm.node("b")), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_as_a_node_comes_back_that_says_nothing_new_is_made_by_it() {
    let farm = farm(2).await;
    let client = farm.client("c");
    farm.only("b").await;
    let its = client.submit(&slow(600.0, 1)).await;
    assert_eq!(at(&farm, &its).await, 1);
    farm.all().await;
    reload(&farm, &["a"]).await;
    let first = client.submit(&slow(600.0, 2)).await;
    assert_eq!(at(&farm, &first).await, 0);
    let waits = client.submit(&slow(0.1, 3)).await;
    reload(&farm, &["a", "b"]).await;
    let told = client.post("/interrupt", &json!({"prompt_id": its})).await;
    assert_eq!(told.status, 200);
    client.finished(&waits).await;
    assert_eq!(taken(farm.node("b")), [its, waits]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_with_a_prompt_and_comes_back_is_heard_to_its_end() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.only("a").await;
    let id = client.submit(&slow(3.0, 1)).await;
    at(&farm, &id).await;
    farm.all().await;
    reload(&farm, &["b"]).await;
    until(farm.node("a"), |saw| matches!(saw, Saw::Closed { .. })).await;
    reload(&farm, &["b", "a"]).await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_taken(&farm.nodes, &id), 1);
    let sids = farm.node("a").seen().into_iter();
    let sids: HashSet<String> = sids
        .filter_map(|saw| match saw {
            Saw::Opened { sid } => Some(sid),
            _ => None,
        })
        .collect();
    assert_eq!(sids.len(), 1, "the gateway is called the same");
}
