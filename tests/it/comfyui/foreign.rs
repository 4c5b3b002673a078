//! Prompts that somebody hands to a node directly: they are the node's business, and no reason to wait for it longer than
//! necessary.

use super::client::{Client, LONG};
use super::prompts::{colour, slow};
use super::{Farm, taken, until_at};
use serde_json::{Value, json};
use tabane_sim::comfy::Saw;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_others_are_not_shown_not_ended_and_keep_their_node_for_themselves() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    let direct = Client::new(farm.node("a").addr(), "direct");
    let runs = direct.submit(&slow(60.0, 1)).await;
    until_at(farm.node("a"), &runs).await;
    let waits = direct.submit(&slow(60.0, 2)).await;
    // A probe that began now tells of both.
    let probes = |saw: &[Saw]| {
        let asked = saw.iter();
        asked
            .filter(|saw| matches!(saw, Saw::Request { path, .. } if path == "/prompt"))
            .count()
    };
    let before = probes(&farm.node("a").seen());
    let probed = farm.node("a").until(|saw| probes(saw) > before + 1);
    timeout(LONG, probed).await.expect("it is probed");
    for colour_of in 0..4 {
        let id = client.submit(&colour(colour_of, "x")).await;
        client.finished(&id).await;
        assert!(
            taken(farm.node("b")).contains(&id),
            "the other has nothing to do"
        );
    }
    let nothing = (Vec::<String>::new(), Vec::<String>::new());
    assert_eq!(client.queue().await, nothing);
    assert_eq!(
        client.get("/prompt").await.json()["exec_info"]["queue_remaining"],
        0
    );
    let shown = client
        .get("/api/jobs?status=in_progress,pending")
        .await
        .json();
    assert_eq!(shown["jobs"], json!([]));
    for id in [&runs, &waits] {
        client.post("/interrupt", &json!({})).await;
        client.post("/interrupt", &json!({"prompt_id": id})).await;
        client
            .post("/queue", &json!({"delete": [id], "clear": true}))
            .await;
        let told = client
            .post(&format!("/api/jobs/{id}/cancel"), &json!({}))
            .await;
        assert_eq!(told.json(), json!({"cancelled": false}));
        assert_eq!(
            client.get(&format!("/history/{id}")).await.json(),
            json!({})
        );
    }
    assert_eq!(
        direct.queue().await,
        (vec![runs.clone()], vec![waits.clone()])
    );
    // Its events are nobody's here.
    let own = client.submit(&colour(9, "x")).await;
    let heard = socket.until_end(&own).await;
    let heard: Vec<Value> = heard.iter().filter_map(super::client::event).collect();
    let foreign = |event: &Value| {
        [&runs, &waits]
            .iter()
            .any(|id| event.to_string().contains(id.as_str()))
    };
    assert!(!heard.iter().any(foreign));

    // A prompt of ours that stands behind another's is taken back without hitting that.
    farm.reload(&["a"]).await;
    let behind = client.submit(&colour(10, "x")).await;
    client.until_queue(1, 0).await;
    client
        .post(&format!("/api/jobs/{behind}/cancel"), &json!({}))
        .await;
    client.until_queue(0, 0).await;
    assert_eq!(
        direct.queue().await,
        (vec![runs.clone()], vec![waits.clone()])
    );
    direct.post("/queue", &json!({"delete": [waits]})).await;
    direct.post("/interrupt", &json!({"prompt_id": runs})).await;
    let entry = client.run(&colour(11, "x")).await;
    assert_eq!(entry["status"]["status_str"], "success");
    assert!(!taken(farm.node("a")).is_empty());
}
