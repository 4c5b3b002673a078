//! Uploads: kept once, named as one server names them, and there wherever a prompt runs.

use super::client::{Client, images_of, path_of};
use super::prompts::colour;
use super::{Farm, alone, specs, taken};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashSet;
use tabane_sim::comfy::{ComfyNode, Saw};

/// A picture of 16 by 16, whose alpha grows from row to row.
const FADING: &str = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAYAAAAf8/9hAAAAWElEQVR42qXMMRWAIAAAUSKQgGcEIxCBmckIRCCCEYhgBEdHIhiBCLzLcMO/8cKXajBINBgcBoPTYJANBsVgcBkMmsGgGwxug8EwGDwGg9dgMA0Gv8FgGRv5WbgQgCHRhAAAAABJRU5ErkJggg==";

fn loaded(image: &str) -> Value {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "loaded"}},
    })
}

/// Runs a prompt on each node in turn, and gives what each made.
async fn on_each(farm: &Farm, client: &Client, prompt: &Value) -> Vec<Bytes> {
    let mut all = Vec::new();
    for node in ["a", "b", "c"].iter().take(farm.nodes.len()) {
        farm.only(node).await;
        let id = client.submit(prompt).await;
        let entry = client.finished(&id).await;
        all.extend(client.images(&entry).await);
        assert!(taken(farm.node(node)).contains(&id));
    }
    all
}

fn uploads(node: &ComfyNode) -> usize {
    let saw = node.seen().into_iter();
    saw.filter(|saw| matches!(saw, Saw::Uploaded { .. }))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_named_as_one_server_names_it() {
    let farm = Farm::alike(2).await;
    let one = ComfyNode::start(specs(1).remove(0)).await.unwrap();
    let (many, one) = (farm.client("c"), Client::new(one.addr(), "c"));
    for (name, bytes, fields) in [
        ("u.png", "one", vec![]),
        ("u.png", "one", vec![]),
        ("u.png", "two", vec![]),
        ("u.png", "three", vec![]),
        ("u.png", "two", vec![]),
        ("u.png", "new", vec![("overwrite", "true")]),
        ("u.png", "one", vec![]),
        ("u.png", "newer", vec![("overwrite", "1")]),
        ("u.png", "other", vec![("subfolder", "a/b")]),
        ("u.png", "another", vec![("subfolder", "a/b")]),
        ("no ending", "1", vec![]),
        ("no ending", "2", vec![]),
        ("ü (1).tar.gz", "1", vec![]),
        ("ü (1).tar.gz", "2", vec![]),
        ("v.png", "v", vec![("type", "temp")]),
        ("v.png", "w", vec![("type", "temp"), ("subfolder", "x")]),
        ("v.png", "w", vec![("type", "output")]),
        ("v.png", "w", vec![("type", "odd")]),
        ("../v.png", "w", vec![]),
        ("v.png", "w", vec![("subfolder", "../..")]),
        ("", "w", vec![]),
    ] {
        let told = many.upload(name, bytes.as_bytes(), &fields).await;
        let wants = one.upload(name, bytes.as_bytes(), &fields).await;
        assert_eq!(
            (told.status, &told.body),
            (wants.status, &wants.body),
            "{name} {bytes} {fields:?}"
        );
        if told.status == 200 {
            let at = told.json();
            let at =
                json!({"filename": at["name"], "subfolder": at["subfolder"], "type": at["type"]});
            assert_eq!(many.get(&path_of(&at)).await.body, bytes, "{at}");
        }
    }
    let list = |client: Client| async move {
        let info = client.get("/object_info/LoadImage").await.json();
        let list = &info["LoadImage"]["input"]["required"]["image"][0];
        let list = list.as_array().unwrap().iter();
        let names = list.map(|name| name.as_str().unwrap().to_owned());
        names.collect::<HashSet<_>>()
    };
    assert_eq!(list(many).await, list(one).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_there_on_whichever_node_its_prompt_runs_and_brought_there_once() {
    let farm = Farm::alike(3).await;
    let client = farm.client("c");
    for (bytes, named, uploaded) in [
        ("a cat", "u.png", 1),
        ("a dog", "u (1).png", 2),
        ("a cat", "u.png", 2),
    ] {
        let told = client.upload("u.png", bytes.as_bytes(), &[]).await.json();
        assert_eq!(told["name"], named);
        let file = (named, bytes.as_bytes(), [("type", "input")]);
        let expected = alone(&loaded(named), &[file]).await;
        let made = on_each(&farm, &client, &loaded(named)).await;
        assert!(made.iter().all(|made| *made == expected[0]), "{bytes}");
        for node in &farm.nodes {
            assert_eq!(uploads(node), uploaded, "{bytes}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_replaces_another_is_brought_to_every_node_again() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    for bytes in ["a cat", "a dog", "a cat"] {
        let fields = [("overwrite", "true"), ("subfolder", "sub")];
        let told = client.upload("u.png", bytes.as_bytes(), &fields).await;
        assert_eq!(told.json()["name"], "u.png");
        let file = ("u.png", bytes.as_bytes(), [("subfolder", "sub")]);
        let expected = alone(&loaded("sub/u.png"), &[file]).await;
        let made = on_each(&farm, &client, &loaded("sub/u.png")).await;
        assert!(made.iter().all(|made| *made == expected[0]), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_is_laid_on_a_picture_that_was_made_on_another_node() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    farm.only("a").await;
    let entry = client.run(&colour(0x0040_8020, "orig")).await;
    let original = images_of(&entry)[0].clone();
    let picture = client.view(&original).await;
    let mask = BASE64_STANDARD.decode(FADING).unwrap();
    let fields = [("original_ref", &*original.to_string()), ("type", "input")];
    let told = client
        .upload_to("/upload/mask", "m.png", &mask, &fields)
        .await;
    assert_eq!(told.json()["name"], "m.png", "{told:?}");

    farm.only("b").await;
    // What is shown of the mask is the same for the same mask.
    let masked = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "m.png"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "masked"}},
    });
    let entry = client.run(&masked).await;

    let one = ComfyNode::start(specs(1).remove(0)).await.unwrap();
    let alone = Client::new(one.addr(), "c");
    let name = original["filename"].as_str().unwrap();
    alone.upload(name, &picture, &[("type", "output")]).await;
    alone
        .upload_to("/upload/mask", "m.png", &mask, &fields)
        .await;
    let expected = alone.run(&masked).await;
    assert_eq!(entry["outputs"]["2"], expected["outputs"]["2"]);
    assert!(client.images(&entry).await == alone.images(&expected).await);
    assert_eq!(client.view(&original).await, picture, "it stays as it was");
}
