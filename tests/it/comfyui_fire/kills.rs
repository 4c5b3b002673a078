//! Nodes whose process dies, and comes back.

use super::watcher::Watcher;
use super::{at, eventually, farm, left_on, times_made, until_idle};
use crate::comfyui::client::images_of;
use crate::comfyui::prompts::{colour, slow};
use crate::comfyui::taken;
use tabane_sim::comfy::Saw;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_was_at_as_it_was_killed_is_made_by_another_and_its_client_hears_one_end() {
    let mut farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&slow(2.0, 1)).await;
    let killed = at(&farm, &id).await;
    let other = 1 - killed;
    let others = farm.client("others");
    let mut waiting = Vec::new();
    for i in 0..6 {
        waiting.push(others.submit(&slow(0.1, 10 + i)).await);
    }
    farm.nodes[killed].crash().await;

    hears.hears_once(&id, "execution_success").await;
    let kinds = hears.kinds(&id);
    assert!(kinds.contains(&"executed".to_owned()), "{kinds:?}");
    let entry = client.finished(&id).await;
    assert_eq!(images_of(&entry).len(), 1, "{entry}");
    assert_eq!(client.images(&entry).await.len(), 1);
    assert!(taken(&farm.nodes[other]).contains(&id), "under its id");
    assert_eq!(times_made(&farm.nodes, &id), 1);
    for id in &waiting {
        client.finished(id).await;
        assert_eq!(times_made(&farm.nodes, id), 1, "what waits is not touched");
    }
    client.until_queue(0, 0).await;
    let history = client.get("/history").await.json();
    assert_eq!(history.as_object().unwrap().len(), 7);

    farm.nodes[killed].restart().await.unwrap();
    let before = taken(&farm.nodes[killed]).len();
    farm.scene.until_up().await;
    let again = [
        client.submit(&slow(0.5, 20)).await,
        client.submit(&slow(0.5, 21)).await,
    ];
    for id in &again {
        client.finished(id).await;
    }
    assert_eq!(taken(&farm.nodes[killed]).len(), before + 1, "it is used");
    until_idle(&farm.nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_was_at_as_it_was_restarted_is_made_though_there_is_no_other() {
    let mut farm = farm(1).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&slow(1.0, 1)).await;
    let next = client.submit(&slow(0.1, 2)).await;
    at(&farm, &id).await;
    farm.nodes[0].restart().await.unwrap();
    hears.hears_once(&id, "execution_success").await;
    hears.hears_once(&next, "execution_success").await;
    for id in [&id, &next] {
        assert_eq!(times_made(&farm.nodes, id), 1);
        let entry = client.finished(id).await;
        assert_eq!(client.images(&entry).await.len(), 1);
    }
    assert_eq!(left_on(&farm.nodes[0]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_right_after_the_last_word_and_takes_the_history_with_it_is_not_believed()
{
    let mut farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    for node in &farm.nodes {
        node.set(|knobs| knobs.history_lag_ms = 1_000);
    }
    let id = client.submit(&colour(1, "x")).await;
    let killed = at_end(&farm, &id).await;
    farm.nodes[killed].crash().await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(times_made(&farm.nodes, &id), 2);
    let entry = client.finished(&id).await;
    assert_eq!(client.images(&entry).await.len(), 1);
}

/// The node that said the last word of a prompt.
async fn at_end(farm: &crate::comfyui::Farm, id: &str) -> usize {
    let mut found = None;
    eventually("a node made it", async || {
        let made = |saw: &Saw| matches!(saw, Saw::Ended { prompt_id, .. } if prompt_id == id);
        let mut nodes = farm.nodes.iter();
        found = nodes.position(|node| node.seen().iter().any(made));
        found.is_some()
    })
    .await;
    found.unwrap()
}
