//! Images on sockets: what is shown while a sampler works, and results that are sent as images.

use super::client::{Client, event};
use super::prompts::sampled;
use super::{Farm, More};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashSet;
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Spec};
use tokio_tungstenite::tungstenite::Message;

fn number(bytes: &Bytes, at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn binary(messages: &[Message]) -> Vec<Bytes> {
    let bytes = messages.iter().filter_map(|message| match message {
        Message::Binary(bytes) => Some(bytes.clone()),
        _ => None,
    });
    bytes.collect()
}

/// The image of a frame, and what is said of it if anything is.
fn read(frame: &Bytes) -> (Option<Value>, Bytes) {
    match number(frame, 0) {
        1 => (None, frame.slice(8..)),
        4 => {
            let length = number(frame, 4) as usize;
            let told = serde_json::from_slice(&frame[8..8 + length]).unwrap();
            (Some(told), frame.slice(8 + length..))
        }
        other => panic!("an event of kind {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_previews_as_it_understands_them_whatever_others_do() {
    let knobs = ComfyKnobs {
        step_ms: 5,
        ..ComfyKnobs::default()
    };
    let spec = Spec::named("a").knobs(knobs);
    let prompt = sampled("tiny_sd3.safetensors", 5, "a cat");
    let lone = ComfyNode::start(spec.clone()).await.unwrap();
    let lone = Client::new(lone.addr(), "c").run_heard(&prompt).await;
    let expected: HashSet<Bytes> = binary(&lone).iter().map(|frame| read(frame).1).collect();
    assert_eq!(expected.len(), 20);

    let farm = Farm::start(vec![spec], More::default()).await;
    let [old, new] = ["old", "new"].map(|id| farm.client(id));
    let (mut old_hears, mut new_hears) = (old.listen().await, new.listen_to_metadata().await);
    let old_id = old.submit(&prompt).await;
    let heard = old_hears.until_end(&old_id).await;
    let frames = binary(&heard);
    assert!(frames.len() > 5, "{}", frames.len());
    for frame in &frames {
        assert_eq!((number(frame, 0), number(frame, 4)), (1, 1), "JPEG, plain");
        assert!(expected.contains(&read(frame).1));
    }
    let mut other = prompt.clone();
    other["3"]["inputs"]["seed"] = json!(6);
    let new_id = new.submit(&other).await;
    let heard = new_hears.until_end(&new_id).await;
    let frames = binary(&heard);
    assert!(frames.len() > 5, "{}", frames.len());
    for frame in &frames {
        let (told, image) = read(frame);
        let told = told.expect("it is told what it is of");
        assert_eq!(
            (&told["prompt_id"], &told["node_id"]),
            (&json!(new_id), &json!("3"))
        );
        assert_eq!(told["image_type"], "image/jpeg");
        assert!(!expected.contains(&image), "another seed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_sent_as_images_come_byte_for_byte_and_all_of_them_however_large() {
    // Noise, which nothing makes smaller: more than one frame of 16 MiB may hold.
    let prompt = json!({
        "1": {"class_type": "StubImage", "inputs": {"content": "NOISE", "height": 2200, "width": 2800, "batch_size": 1}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 50, "color": 7}},
        "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["3", 0]}},
    });
    let lone = ComfyNode::start(Spec::named("a")).await.unwrap();
    let lone = Client::new(lone.addr(), "c");
    let farm = Farm::alike(1).await;
    let many = farm.client("c");
    let (expected, made) = tokio::join!(lone.run_heard(&prompt), many.run_heard(&prompt));
    let (expected, made) = (binary(&expected), binary(&made));
    assert_eq!(expected.len(), 51);
    assert!(expected.iter().any(|frame| frame.len() > 16 << 20));
    assert!(made == expected, "{} frames", made.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_between_the_events_of_their_node() {
    let prompt = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 3, "color": 7}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 3, "color": 9}},
        "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["3", 0]}},
    });
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    let mut socket = client.listen_to_metadata().await;
    let id = client.submit(&prompt).await;
    let mut current = Value::Null;
    let mut many = 0;
    for message in socket.until_end(&id).await {
        match &message {
            Message::Binary(frame) => {
                let told = read(frame).0.unwrap();
                assert_eq!(told["node_id"], current);
                many += 1;
            }
            _ => {
                let event = event(&message).unwrap();
                if event["type"] == "executing" {
                    current = event["data"]["node"].clone();
                }
            }
        }
    }
    assert_eq!(many, 6);
}
