//! The gateway goes down, softly or hard, with prompts at work and waiting.

use super::watcher::{Ends, Watcher};
use super::{STUBBORN, at, eventually, farm, times_made, times_taken, until_idle, word};
use crate::comfyui::client::{Client, images_of};
use crate::comfyui::prompts::{colour, slow};
use crate::comfyui::{file, specs};
use crate::crash::Phoenix;
use crate::scene::Scene;
use futures::future::join_all;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::comfy::{ComfyNode, Saw};
use tokio::time::{sleep, timeout};

/// Nodes, and a gateway before them that can be killed.
pub(super) async fn phoenix(n: usize) -> (Vec<ComfyNode>, Arc<Phoenix>) {
    let nodes = join_all(specs(n).into_iter().map(ComfyNode::start)).await;
    let nodes: Vec<ComfyNode> = nodes.into_iter().map(Result::unwrap).collect();
    let names: Vec<String> = ('a'..).take(n).map(String::from).collect();
    let phoenix = Phoenix::rise(&file(&nodes, &names, STUBBORN));
    (nodes, phoenix)
}

/// Hands a prompt in, as often as it takes until it is taken in.
pub(super) async fn submit(phoenix: &Phoenix, client: &str, id: &str, prompt: &serde_json::Value) {
    let body = json!({"prompt": prompt, "client_id": client, "prompt_id": id});
    eventually("it is taken in", async || {
        let client = Client::new(phoenix.address(), client);
        let told = client.try_post("/prompt", &body).await;
        told.is_some_and(|told| {
            assert!(matches!(told.status.as_u16(), 200 | 503), "{told:?}");
            told.status == 200
        })
    })
    .await;
}

pub(super) fn uuid(i: usize) -> String {
    format!("00000000-0000-4000-8000-{i:012}")
}

/// How many of all prompts nodes have ended.
fn ended(nodes: &[ComfyNode]) -> usize {
    let all = nodes.iter().flat_map(ComfyNode::seen);
    all.filter(|saw| matches!(saw, Saw::Ended { .. })).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_in_ends_once_though_the_gateway_ends_again_and_again_and_who_comes_back_hears_it()
 {
    const ALL: usize = 24;
    let (nodes, phoenix) = phoenix(2).await;
    let clients = ["one", "other"];
    let of = |i: usize| clients[i % 2];
    let watchers = [
        Watcher::of(phoenix.address(), "one").await,
        Watcher::of(phoenix.address(), "other").await,
    ];
    let submits = join_all((0..ALL).map(|i| {
        let phoenix = phoenix.clone();
        async move {
            sleep(Duration::from_millis(60 * i as u64)).await;
            let prompt = slow(0.1 + 0.05 * (i % 5) as f64, i as u32);
            submit(&phoenix, of(i), &uuid(i), &prompt).await;
        }
    }));
    let kills = async {
        for (after, softly) in [(4, false), (10, false), (16, true)] {
            eventually("so many are over", async || ended(&nodes) >= after).await;
            match softly {
                true => phoenix.end_and_rise(),
                false => phoenix.die_and_rise(),
            }
            for watcher in &watchers {
                watcher.moves_to(phoenix.address());
            }
        }
    };
    tokio::join!(submits, kills);

    let client = Client::new(phoenix.address(), "looks");
    let mut names = HashSet::new();
    for i in 0..ALL {
        let id = uuid(i);
        let entry = client.finished(&id).await;
        assert_eq!(word(&entry), "execution_success");
        assert_eq!(times_taken(&nodes, &id), 1, "{id} is run once");
        for image in images_of(&entry) {
            assert!(!client.view(&image).await.is_empty());
            names.insert(image.to_string());
        }
        let hears = &watchers[i % 2];
        hears.until_ended(&id).await;
        let words: HashSet<String> = hears.ends(&id).words.into_iter().collect();
        assert_eq!(words, HashSet::from(["execution_success".to_owned()]));
    }
    assert_eq!(names.len(), ALL, "one output each");
    client.until_queue(0, 0).await;
    let history = client.get("/history").await.json();
    assert_eq!(history.as_object().unwrap().len(), ALL);
    let files = client.get("/internal/files/output").await.json();
    assert_eq!(files.as_array().unwrap().len(), ALL, "{files}");
    until_idle(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_there_to_hear_an_end_hears_it_from_the_gateway_that_came_back() {
    let (nodes, phoenix) = phoenix(1).await;
    submit(&phoenix, "c", &uuid(1), &colour(1, "x")).await;
    let client = Client::new(phoenix.address(), "looks");
    let before = client.finished(&uuid(1)).await;
    phoenix.die_and_rise();
    let hears = Watcher::of(phoenix.address(), "c").await;
    hears.hears_once(&uuid(1), "execution_success").await;
    assert_eq!(
        hears.kinds(&uuid(1)),
        ["executed", "execution_success", "null"]
    );
    let client = Client::new(phoenix.address(), "looks");
    assert_eq!(client.finished(&uuid(1)).await, before);
    assert_eq!(times_made(&nodes, &uuid(1)), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_takes_while_the_gateway_is_away_is_not_run_twice() {
    let (nodes, phoenix) = phoenix(2).await;
    for node in &nodes {
        node.set(|knobs| knobs.undecided = true);
    }
    submit(&phoenix, "c", &uuid(1), &slow(0.5, 1)).await;
    let asked = |saw: &Saw| matches!(saw, Saw::Request { method, path } if method == "POST" && path == "/prompt");
    let mut there = 0;
    eventually("it is handed over", async || {
        let found = nodes.iter().position(|node| node.seen().iter().any(asked));
        there = found.unwrap_or_default();
        found.is_some()
    })
    .await;
    phoenix.die_and_rise();
    // The gateway that came back asked for it, and the node did not have it.
    let looked = nodes[there].until(|saw| {
        let since = saw.iter().skip_while(|saw| !asked(saw));
        since
            .into_iter()
            .any(|saw| matches!(saw, Saw::Request { path, .. } if path.starts_with("/history/")))
    });
    timeout(super::LONG, looked).await.unwrap();
    for node in &nodes {
        node.set(|knobs| knobs.undecided = false);
    }
    let hears = Watcher::of(phoenix.address(), "c").await;
    hears.hears_once(&uuid(1), "execution_success").await;
    assert_eq!(times_taken(&nodes, &uuid(1)), 1);
    until_idle(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_down_softly_does_not_wait_for_sockets_that_never_end() {
    let farm = farm(1).await;
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = farm.client("c").submit(&slow(60.0, 1)).await;
    at(&farm, &id).await;
    let Scene { gateway, .. } = farm.scene;
    let down = gateway.shutdown(Duration::from_secs(3600));
    let down = timeout(Duration::from_secs(20), down).await;
    assert!(down.is_ok(), "it waits");
    // The node goes on with it.
    assert_eq!(super::left_on(&farm.nodes[0]).await, 1);
    assert_eq!(
        hears.ends(&id),
        Ends {
            words: vec![],
            nulls: 0
        }
    );
}
