//! The pool changes under load: no request fails, no socket is dropped, and what was taken in ends once.

use super::watcher::{Ends, Watcher};
use super::{STUBBORN, farm, times_made, until_idle};
use crate::comfyui::client::Client;
use crate::comfyui::file;
use crate::comfyui::prompts::slow;
use crate::scene::shown;
use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
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
    let ids: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
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
    for works in at_work {
        ids.lock().push(works.await.unwrap());
    }
    let ids = ids.lock().clone();
    let looks = farm.client("looks");
    let mut all = 0;
    for (ids, hears) in ids.iter().zip(&watchers) {
        for id in ids {
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
        assert!(!crate::comfyui::taken(node).is_empty(), "all were used");
    }
    until_idle(&farm.nodes).await;
}
