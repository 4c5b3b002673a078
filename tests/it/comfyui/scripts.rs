//! ComfyUI's three example scripts, as they are (`script_examples/` of its repository), and many of them at once.

use super::client::{Client, Socket, event};
use super::{Farm, More, specs};
use crate::comfyui::prompts::sampled;
use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::HashSet;
use tabane_sim::comfy::{ComfyNode, Spec};
use tokio_tungstenite::tungstenite::Message;

const MODEL: &str = "v1-5-pruned-emaonly.safetensors";

/// Python's `urllib.request` says this of any body that it sends.
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn node(name: &str) -> Spec {
    Spec::named(name).model("checkpoints", MODEL, 4_000)
}

async fn farm() -> Farm {
    let nodes = specs(3)
        .into_iter()
        .map(|spec| spec.model("checkpoints", MODEL, 4_000));
    Farm::start(nodes.collect(), More::default()).await
}

fn prompt(seed: u64) -> Value {
    sampled(MODEL, seed, "masterpiece best quality man")
}

/// What one server alone makes of these prompts, each on its own.
async fn made_alone(prompts: &[Value]) -> Vec<Bytes> {
    let alone = ComfyNode::start(node("alone")).await.unwrap();
    let client = Client::new(alone.addr(), "alone");
    let mut all = Vec::new();
    for prompt in prompts {
        let entry = client.run(prompt).await;
        all.extend(client.images(&entry).await);
    }
    assert_eq!(all.len(), prompts.len());
    all
}

// === basic_api_example.py ===

async fn queue_prompt(client: &Client, prompt: &Value) {
    let body = json!({"prompt": prompt}).to_string();
    let answer = client.ask("POST", "/prompt", &[FORM], body).await;
    // `urlopen` raises at anything else.
    assert_eq!(answer.status, 200, "{answer:?}");
}

// === websockets_api_example.py ===

/// Images by node.
async fn get_images(client: &Client, socket: &mut Socket, prompt: &Value, id: &str) -> Vec<Bytes> {
    let body = json!({"prompt": prompt, "client_id": client.id, "prompt_id": id}).to_string();
    let answer = client.ask("POST", "/prompt", &[FORM], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    loop {
        let Some(message) = socket.next().await else {
            panic!("the socket is closed")
        };
        let Some(message) = event(&message) else {
            continue;
        };
        if message["type"] == "executing" {
            let data = &message["data"];
            // It looks at the first before it looks at the second, which has to be there then.
            if data["node"].is_null() && data["prompt_id"].as_str().unwrap() == id {
                break;
            }
        }
    }
    let history = client.get(&format!("/history/{id}")).await.json();
    let outputs = history[id]["outputs"]
        .as_object()
        .expect("it is there already");
    let mut all = Vec::new();
    for output in outputs.values() {
        for image in output["images"].as_array().into_iter().flatten() {
            all.push(client.view(image).await);
        }
    }
    all
}

// === websockets_api_example_ws_images.py ===

async fn get_ws_images(client: &Client, socket: &mut Socket, prompt: &Value) -> Vec<Bytes> {
    let body = json!({"prompt": prompt, "client_id": client.id}).to_string();
    let answer = client.ask("POST", "/prompt", &[FORM], body).await;
    let id = answer.json()["prompt_id"].clone();
    let (mut images, mut current_node) = (Vec::new(), String::new());
    loop {
        match socket.next().await.expect("the socket is open") {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "executing" {
                    let data = &message["data"];
                    assert!(data["prompt_id"].is_string(), "it would be a KeyError");
                    if data["prompt_id"] == id {
                        match data["node"].as_str() {
                            None => return images,
                            Some(node) => current_node = node.into(),
                        }
                    }
                }
            }
            Message::Binary(bytes) if current_node == "save_image_websocket_node" => {
                images.push(bytes.slice(8..));
            }
            _ => {}
        }
    }
}

fn to_socket(mut prompt: Value) -> Value {
    prompt.as_object_mut().unwrap().remove("9");
    prompt["save_image_websocket_node"] =
        json!({"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}});
    prompt
}

// === the promises ===

#[tokio::test(flavor = "multi_thread")]
async fn the_basic_script_gets_its_prompts_executed_without_a_client_id() {
    let farm = farm().await;
    let client = farm.client("");
    for seed in 0..4 {
        queue_prompt(&client, &prompt(seed)).await;
    }
    let expected = made_alone(&[0, 1, 2, 3].map(prompt)).await;
    let all = |history: &Value| history.as_object().is_some_and(|all| all.len() == 4);
    let history = client.until("/history", all).await;
    let mut made = Vec::new();
    for entry in history.as_object().unwrap().values() {
        made.extend(client.images(entry).await);
    }
    let made: HashSet<Bytes> = made.into_iter().collect();
    assert!(made == expected.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_copies_of_the_websocket_script_at_once_each_get_their_own_images() {
    let farm = farm().await;
    let prompts: Vec<Value> = (0..20).map(prompt).collect();
    let expected = made_alone(&prompts).await;
    let scripts = prompts.iter().enumerate().map(|(i, prompt)| {
        let farm = &farm;
        async move {
            let client = farm.client(&format!("script-{i}"));
            let mut socket = client.listen().await;
            let id = format!("00000000-0000-4000-8000-0000000000{i:02}");
            get_images(&client, &mut socket, prompt, &id).await
        }
    });
    let made = join_all(scripts).await;
    for (i, (made, expected)) in made.iter().zip(&expected).enumerate() {
        assert!(made == std::slice::from_ref(expected), "script {i}");
    }
    let different: HashSet<&Bytes> = expected.iter().collect();
    assert_eq!(different.len(), 20);
    for node in &farm.nodes {
        assert!(!super::taken(node).is_empty(), "all nodes work");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_copies_of_the_script_that_takes_images_from_the_socket_each_get_their_own() {
    let farm = farm().await;
    let prompts: Vec<Value> = (0..20).map(|seed| to_socket(prompt(seed))).collect();
    let alone = ComfyNode::start(node("alone")).await.unwrap();
    let client = Client::new(alone.addr(), "alone");
    let mut socket = client.listen().await;
    let mut expected = Vec::new();
    for prompt in &prompts {
        expected.push(get_ws_images(&client, &mut socket, prompt).await);
    }
    let scripts = prompts.iter().enumerate().map(|(i, prompt)| {
        let farm = &farm;
        async move {
            let client = farm.client(&format!("script-{i}"));
            let mut socket = client.listen().await;
            get_ws_images(&client, &mut socket, prompt).await
        }
    });
    let made = join_all(scripts).await;
    for (i, (made, expected)) in made.iter().zip(&expected).enumerate() {
        assert_eq!(made.len(), 1, "script {i}");
        assert!(made == expected, "script {i}");
    }
}
