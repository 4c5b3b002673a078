//! A prompt that is handed in twice.

use super::Farm;
use super::prompts::colour;
use super::taken;
use futures::future::join_all;
use serde_json::{Value, json};

const ID: &str = "e04d8990-388c-4857-ab8c-26bd918bdeea";

fn body(prompt: &Value) -> Value {
    json!({"prompt": prompt, "client_id": "c", "prompt_id": ID})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_prompt_under_the_same_id_is_executed_once_and_answered_alike_also_after_a_restart()
 {
    let mut farm = Farm::alike(2).await;
    let mut client = farm.client("c");
    let first = client.post("/prompt", &body(&colour(1, "x"))).await;
    assert_eq!(first.status, 200);
    assert_eq!(
        first.json(),
        json!({"prompt_id": ID, "number": 0, "node_errors": {}})
    );
    let entry = client.finished(ID).await;
    for restarted in [false, true] {
        if restarted {
            farm = farm.restarted().await;
            client = farm.client("c");
        }
        let asked = body(&colour(1, "x"));
        for again in join_all((0..8).map(|_| client.post("/prompt", &asked))).await {
            assert_eq!((again.status, &again.body), (first.status, &first.body));
        }
        let other = client.post("/prompt", &body(&colour(2, "x"))).await;
        assert_eq!(other.status, 400);
        assert_eq!(other.json()["error"]["type"], "duplicate_prompt_id");
        assert!(
            other.json()["error"]["details"]
                .as_str()
                .unwrap()
                .contains(ID)
        );
        assert_eq!(client.finished(ID).await, entry);
    }
    let all: usize = farm.nodes.iter().map(|node| taken(node).len()).sum();
    assert_eq!(all, 1);
    // What is not in the history any more is nobody's, from that moment on.
    for i in 3..13 {
        client.post("/history", &json!({"delete": [ID]})).await;
        let next = client.post("/prompt", &body(&colour(i, "x"))).await;
        assert_eq!(next.status, 200, "{next:?}");
        let entry = client.finished(ID).await;
        assert_eq!(entry["prompt"][2], colour(i, "x"));
        assert_eq!(entry["outputs"]["2"]["images"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_hand_in_the_same_prompt_at_the_same_time_have_one() {
    let farm = Farm::alike(3).await;
    let client = farm.client("c");
    let asked = body(&colour(1, "x"));
    let told = join_all((0..16).map(|_| client.post("/prompt", &asked))).await;
    for told in &told {
        assert_eq!(
            (told.status.as_u16(), &told.json()["prompt_id"]),
            (200, &json!(ID))
        );
    }
    client.finished(ID).await;
    let all: usize = farm.nodes.iter().map(|node| taken(node).len()).sum();
    assert_eq!(all, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_whatever_the_nodes_take() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    for id in ["node1:abc/../x", "a b", "ünï", "\"quoted\""] {
        let mut asked = body(&colour(1, "x"));
        asked["prompt_id"] = json!(id);
        let told = client.post("/prompt", &asked).await;
        assert_eq!(
            (told.status.as_u16(), &told.json()["prompt_id"]),
            (200, &json!(id))
        );
        client
            .until("/history", |history| history.get(id).is_some())
            .await;
        let all = client.get("/api/jobs?limit=1").await.json();
        assert_eq!(all["jobs"][0]["id"], id);
        assert_eq!(all["jobs"][0]["status"], "completed");
    }
}
