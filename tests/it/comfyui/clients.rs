//! Several clients of one service: what each hears, whose prompts an interrupt ends, and whose turn it is.

use super::client::{Client, event};
use super::prompts::{colour, sampled, slow};
use super::{Farm, More, taken, until, until_at};
use serde_json::{Value, json};
use std::collections::HashSet;
use tabane_sim::comfy::{ComfyKnobs, Saw, Spec};
use tokio_tungstenite::tungstenite::Message;

/// The prompts that messages are of.
fn prompts_of(messages: &[Message]) -> HashSet<String> {
    let events = messages.iter().filter_map(event);
    let ids = events.filter_map(|event| Some(event["data"]["prompt_id"].as_str()?.to_owned()));
    ids.collect()
}

fn status(entry: &Value) -> &str {
    entry["status"]["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()[0]
        .as_str()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_hears_of_its_own_prompts_and_of_how_many_there_are() {
    let knobs = ComfyKnobs {
        step_ms: 5,
        texts: true,
        ..ComfyKnobs::default()
    };
    let nodes = super::specs(2)
        .into_iter()
        .map(|spec| spec.knobs(knobs.clone()));
    let farm = Farm::start(nodes.collect(), More::default()).await;
    let [one, other, third] = ["one", "other", "third"].map(|id| farm.client(id));
    let (mut hears, mut hears_too) = (
        one.listen_to_metadata().await,
        other.listen_to_metadata().await,
    );
    let mut stands_by = third.listen().await;
    for seed in 0..3 {
        let (id, id_too) = tokio::join!(
            async {
                one.submit(&sampled("tiny_sd3.safetensors", seed, "one"))
                    .await
            },
            async {
                other
                    .submit(&sampled("tiny_sd3.safetensors", seed, "other"))
                    .await
            },
        );
        let (heard, heard_too) = tokio::join!(hears.until_end(&id), hears_too.until_end(&id_too));
        for (heard, id) in [(&heard, &id), (&heard_too, &id_too)] {
            assert_eq!(prompts_of(heard), HashSet::from([id.clone()]));
            let previews = heard.iter().filter_map(|message| match message {
                Message::Binary(bytes) if bytes[3] == 4 => Some(bytes),
                _ => None,
            });
            let mut many = 0;
            for preview in previews {
                let text = String::from_utf8_lossy(preview);
                assert!(text.contains(id.as_str()));
                many += 1;
            }
            assert!(many > 0, "it sees what it will be");
            // What a node tells of its progress names no prompt, and goes to its client all the same.
            let texts = heard
                .iter()
                .filter(|m| matches!(m, Message::Binary(b) if b[3] == 3));
            assert!(texts.count() >= 3, "one of each node that is executed");
        }
    }
    // The third heard nothing but how many there are.
    let id = third.submit(&colour(1, "x")).await;
    let heard = stands_by.until_end(&id).await;
    assert_eq!(prompts_of(&heard), HashSet::from([id]));
    assert!(
        heard
            .iter()
            .all(|m| !matches!(m, Message::Binary(b) if b[3] != 3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_without_an_id_ends_what_runs_for_who_sends_it_and_for_nobody_else() {
    let keys = More {
        top: "access: {anonymous: deny}\ntenants: {one: {key: key-of-one-1}, other: {key: key-of-other-1}}",
        ..More::default()
    };
    for (more, header, values) in [
        (More::default(), "comfy-user", ["one", "other"]),
        (keys, "x-api-key", ["key-of-one-1", "key-of-other-1"]),
    ] {
        let farm = Farm::start_unproven(super::specs(2), more).await;
        farm.scene.until_up().await;
        for node in &farm.nodes {
            until(node, |saw| matches!(saw, Saw::Opened { .. })).await;
        }
        let [one, other] = values.map(|value| farm.client(value).with(header, value));
        one.get("/object_info").await;
        let (id, id_too) = (
            one.submit(&slow(60.0, 1)).await,
            other.submit(&slow(60.0, 2)).await,
        );
        one.until_queue(2, 0).await;
        for id in [&id, &id_too] {
            let node = if taken(farm.node("a")).contains(id) {
                "a"
            } else {
                "b"
            };
            until_at(farm.node(node), id).await;
        }
        for nothing in ["", "{}"] {
            let answer = one.ask("POST", "/interrupt", &[], nothing).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
        }
        let entry = one.finished(&id).await;
        assert_eq!(status(&entry), "execution_interrupted");
        assert_eq!(entry["status"]["status_str"], "error");
        let (running, _) = other.queue().await;
        assert_eq!(running, std::slice::from_ref(&id_too), "{header}");
        // By its id, anybody's.
        one.post("/interrupt", &json!({"prompt_id": id_too})).await;
        assert_eq!(
            status(&other.finished(&id_too).await),
            "execution_interrupted"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_what_runs_for_everybody_where_the_file_says_so() {
    let more = More {
        kind: "interrupt: all",
        ..More::default()
    };
    let farm = Farm::start(super::specs(2), more).await;
    let [one, other] = ["one", "other"].map(|id| farm.client(id).with("comfy-user", id));
    let ids = [
        one.submit(&slow(60.0, 1)).await,
        other.submit(&slow(60.0, 2)).await,
    ];
    one.until_queue(2, 0).await;
    one.post("/interrupt", &json!({})).await;
    for id in ids {
        assert_eq!(status(&one.finished(&id).await), "execution_interrupted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_one_has_its_turn_after_what_runs_behind_fifty_of_another() {
    let keys = More {
        top: "access: {anonymous: deny}\ntenants: {one: {key: key-of-one-1}, other: {key: key-of-other-1}}",
        ..More::default()
    };
    for (more, header, values) in [
        (More::default(), "comfy-user", ["one", "other"]),
        (keys, "x-api-key", ["key-of-one-1", "key-of-other-1"]),
    ] {
        let farm = Farm::start_unproven(vec![Spec::named("a")], more).await;
        farm.scene.until_up().await;
        let node = farm.node("a");
        until(node, |saw| matches!(saw, Saw::Opened { .. })).await;
        let [one, other] = values.map(|value| farm.client(value).with(header, value));
        one.get("/object_info").await;
        // How long such prompts take is known.
        one.run(&slow(0.1, 0)).await;
        let first = one.submit(&slow(0.1, 1)).await;
        for colour in 2..=50 {
            one.submit(&slow(0.1, colour)).await;
        }
        until_at(node, &first).await;
        let id = other.submit(&slow(0.1, 100)).await;
        let before = taken(node).len();
        other.finished(&id).await;
        let place = taken(node).iter().position(|taken| *taken == id);
        // What runs may turn out shorter than was expected, and the one after it too: then its owner has had less.
        assert!(place.unwrap() <= before + 2, "{header}: {place:?} {before}");
        one.post("/queue", &json!({"clear": true})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_while_its_prompt_runs_is_told_where_it_is_and_how_it_ends() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    let id = client.submit(&slow(60.0, 1)).await;
    loop {
        if socket.event_of("executing").await["node"] == "2" {
            break;
        }
    }
    socket.close().await;
    let mut socket = client.listen().await;
    let greeting = socket.event().await;
    assert_eq!(greeting["type"], "status");
    assert_eq!(greeting["data"]["sid"], "c");
    assert_eq!(
        greeting["data"]["status"]["exec_info"]["queue_remaining"],
        1
    );
    let executing = socket.event_of("executing").await;
    assert_eq!(
        (&executing["node"], &executing["prompt_id"]),
        (&json!("2"), &json!(id))
    );
    let state = socket.event_of("progress_state").await;
    assert_eq!(state["nodes"]["2"]["state"], "running");
    client.post("/interrupt", &json!({"prompt_id": id})).await;
    let heard = socket.until_end(&id).await;
    assert!(super::client::kinds(&heard).contains(&"execution_interrupted".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_came_while_a_client_was_away_is_told_when_it_is_back() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let socket = client.listen().await;
    let id = client.submit(&slow(0.1, 1)).await;
    socket.close().await;
    client.finished(&id).await;
    let mut socket = client.listen().await;
    let heard = socket.until_end(&id).await;
    let kinds = super::client::kinds(&heard);
    assert_eq!(kinds[0], "status");
    assert!(kinds.contains(&"executed".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"execution_success".to_owned()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_socket_of_a_client_hears_everything_and_the_older_one_nothing_more() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let mut older = client.listen().await;
    older.event_of("status").await;
    let mut newer = client.listen().await;
    newer.event_of("status").await;
    let id = client.submit(&colour(1, "x")).await;
    newer.until_end(&id).await;
    newer.close().await;
    // Its place is free: an older one does not get it back.
    let mut last = client.listen().await;
    let id = client.submit(&colour(2, "x")).await;
    last.until_end(&id).await;
    let told = tokio::time::timeout(std::time::Duration::from_millis(50), older.next()).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_without_an_id_is_given_one_and_hears_of_prompts_under_it() {
    let farm = Farm::alike(1).await;
    let mut socket = farm.client("").listen().await;
    let id = socket.event_of("status").await["sid"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 32);
    let client = farm.client(&id);
    let id = client.submit(&colour(1, "x")).await;
    socket.until_end(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_without_a_client_is_executed_and_nobody_hears_of_it() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    let answer = client
        .post("/prompt", &json!({"prompt": colour(1, "x")}))
        .await;
    let id = answer.json()["prompt_id"].as_str().unwrap().to_owned();
    let entry = client.finished(&id).await;
    assert_eq!(entry["prompt"][3].get("client_id"), None);
    let own = client.submit(&colour(2, "x")).await;
    let heard = socket.until_end(&own).await;
    assert_eq!(prompts_of(&heard), HashSet::from([own]));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_file_says_so_a_client_has_one_prompt_at_work_at_a_time() {
    let more = More {
        kind: "one_running_per_client: true",
        ..More::default()
    };
    let farm = Farm::start(super::specs(2), more).await;
    let client = farm.client("c");
    let mut socket = client.listen().await;
    let ids = [
        client.submit(&slow(0.05, 1)).await,
        client.submit(&slow(0.05, 2)).await,
    ];
    let other: Client = farm.client("other");
    let its = other.submit(&slow(0.05, 3)).await;
    let mut heard = socket.until_end(&ids[0]).await;
    heard.extend(socket.until_end(&ids[1]).await);
    let order = heard.iter().filter_map(event);
    let order: Vec<String> = order
        .filter_map(|event| Some(event["data"]["prompt_id"].as_str()?.to_owned()))
        .collect();
    let mut changes = order.clone();
    changes.dedup();
    assert_eq!(changes, ids, "one after the other");
    other.finished(&its).await;
}
