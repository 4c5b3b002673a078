//! The history: what was, in the order in which it ended, on whichever node, and over a restart of the gateway.

use super::client::{Client, event, kinds};
use super::prompts::{colour, slow};
use super::{Farm, More, taken, until, until_at};
use serde_json::{Value, json};
use tabane_sim::comfy::{ComfyKnobs, Saw, Spec};

async fn ids(client: &Client, query: &str) -> Vec<String> {
    let history = client.get(&format!("/history{query}")).await;
    // Not from what was parsed: its keys would be sorted.
    let text = String::from_utf8(history.body.to_vec()).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut all: Vec<String> = all.as_object().unwrap().keys().cloned().collect();
    all.sort_by_key(|id| text.find(&format!("\"{id}\": {{\"prompt\"")));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_in_the_order_in_which_prompts_ended_and_read_in_parts() {
    let nodes = [("a", 1.0), ("b", 4.0)]
        .map(|(name, speed)| Spec::named(name).knobs(ComfyKnobs::default().speed(speed)));
    let farm = Farm::start(nodes.to_vec(), More::default()).await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    let mut ended = Vec::new();
    for colour in 0..6 {
        client.submit(&slow(0.1, colour)).await;
    }
    while ended.len() < 6 {
        let data = socket.event_of("executing").await;
        if data["node"].is_null() {
            ended.push(data["prompt_id"].as_str().unwrap().to_owned());
        }
    }
    assert!(farm.nodes.iter().all(|node| !taken(node).is_empty()));
    assert_eq!(ids(&client, "").await, ended);
    assert_eq!(ids(&client, "?max_items=2").await, ended[4..]);
    assert_eq!(ids(&client, "?max_items=2&offset=1").await, ended[1..3]);
    assert_eq!(ids(&client, "?offset=4").await, ended[4..]);
    assert_eq!(ids(&client, "?max_items=64").await, ended);
    assert_eq!(ids(&client, "?max_items=2&offset=-1").await, ended[4..]);
    assert_eq!(ids(&client, &format!("/{}", ended[3])).await, ended[3..4]);
    let nothing = client.get("/api/history/unknown").await;
    assert_eq!(
        (nothing.status.as_u16(), &nothing.body[..]),
        (200, &b"{}"[..])
    );
    assert_eq!(client.get("/history?max_items=x").await.status, 500);

    let gone = client
        .post("/history", &json!({"delete": [ended[0], "unknown"]}))
        .await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (200, 0));
    assert_eq!(ids(&client, "").await, ended[1..]);
    client.post("/history", &json!({"clear": true})).await;
    assert!(ids(&client, "").await.is_empty());
    // What was made stays.
    assert_eq!(
        client.get("/view?filename=slow_00006_.png").await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_holds_as_much_as_the_file_says() {
    let more = More {
        kind: "history: {max: 3}",
        ..More::default()
    };
    let farm = Farm::start(super::specs(1), more).await;
    let client = farm.client("c");
    let mut all = Vec::new();
    for i in 0..5 {
        let id = client.submit(&colour(i, "x")).await;
        client.finished(&id).await;
        all.push(id);
    }
    assert_eq!(ids(&client, "").await, all[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_what_a_server_says_of_it() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let lone = tabane_sim::comfy::ComfyNode::start(Spec::named("a"))
        .await
        .unwrap();
    let lone = Client::new(lone.addr(), "c");
    for prompt in [slow(0.01, 1), colour(2, "sub/x")] {
        let masked = |mut entry: Value| {
            entry["prompt"][1] = json!("ID");
            for message in entry["status"]["messages"].as_array_mut().unwrap() {
                message[1]["prompt_id"] = json!("ID");
                message[1]["timestamp"] = json!(0);
            }
            entry
        };
        let (made, expected) = (client.run(&prompt).await, lone.run(&prompt).await);
        assert_eq!(masked(made), masked(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_and_what_waits_is_there_after_a_restart_of_the_gateway() {
    let mut farm = Farm::alike(1).await;
    let client = farm.client("c");
    let mut wrong = colour(2, "x");
    wrong["3"] = json!({"class_type": "TestSyncError", "inputs": {"value": ["1", 0]}});
    wrong["2"]["inputs"]["images"] = json!(["3", 0]);
    let before = [
        client.submit(&colour(1, "x")).await,
        client.submit(&wrong).await,
    ];
    for id in &before {
        client.finished(id).await;
    }
    let entry = client.finished(&before[0]).await;
    let image = client.images(&entry).await;
    let all = client.get("/history").await.body;
    // It ends when it is let.
    farm.node("a")
        .set(|knobs| knobs.hang_at = Some("TestSleep".into()));
    let runs = client.submit(&slow(0.0, 3)).await;
    until_at(farm.node("a"), &runs).await;
    let front = json!({"number": 0.25});
    let waits = client.submit_with(&slow(0.0, 4), front).await;

    farm = farm.restarted().await;
    let client = farm.client("c");
    assert_eq!(client.get("/history").await.body, all);
    client.until_queue(1, 1).await;
    assert_eq!(
        client.queue().await,
        (vec![runs.clone()], vec![waits.clone()])
    );
    let mut socket = client.listen().await;
    farm.node("a").set(|knobs| knobs.hang_at = None);
    let heard = kinds(&socket.until_end(&runs).await);
    assert!(heard.contains(&"executed".to_owned()), "{heard:?}");
    client.finished(&waits).await;
    assert_eq!(taken(farm.node("a")).len(), 4, "each once");
    assert!(client.images(&entry).await == image);
    let next = json!({"prompt": colour(5, "x")});
    let next = client.post("/prompt", &next).await;
    assert_eq!(next.json()["number"], 3, "it counts on where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_ended_while_the_gateway_was_away_is_told_with_all_that_it_made() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    farm.node("a")
        .set(|knobs| knobs.hang_at = Some("TestSleep".into()));
    let id = client.submit(&slow(0.0, 3)).await;
    until_at(farm.node("a"), &id).await;
    let down = farm.down().await;
    down.nodes[0].set(|knobs| knobs.hang_at = None);
    until(&down.nodes[0], |saw| matches!(saw, Saw::Ended { .. })).await;
    let farm = down.up().await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    let heard = socket.until_end(&id).await;
    let entry = client.finished(&id).await;
    let events: Vec<Value> = heard.iter().filter_map(event).collect();
    let executed = events.iter().find(|event| event["type"] == "executed");
    let executed = &executed.expect("what was made is told")["data"];
    assert_eq!(executed["node"], "3");
    assert_eq!(executed["output"], entry["outputs"]["3"]);
    assert!(kinds(&heard).contains(&"execution_success".to_owned()));
    assert_eq!(taken(farm.node("a")).len(), 1);
    assert_eq!(client.images(&entry).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_whose_node_takes_no_sockets_is_told_of_all_the_same() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    farm.node("a").set(|knobs| knobs.refuse_sockets = true);
    farm.node("a").cut_sockets();
    until(farm.node("a"), |saw| matches!(saw, Saw::Closed { .. })).await;
    let id = client.submit(&colour(3, "x")).await;
    let heard = socket.until_end(&id).await;
    let kinds = kinds(&heard);
    for kind in ["executed", "execution_success", "executing"] {
        assert!(kinds.contains(&kind.to_owned()), "{kinds:?}");
    }
    assert_eq!(kinds.last().unwrap(), "executing");
}
