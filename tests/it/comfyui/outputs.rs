//! What nodes make under names that are alike: each has one name here, and keeps its bytes.

use super::client::{Client, images_of};
use super::prompts::colour;
use super::{Farm, alone};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashSet;

/// A picture that a node made.
struct Made {
    node: &'static str,
    /// What it is called here.
    image: Value,
    /// As the node wrote it.
    bytes: Bytes,
}

/// One prompt on each node.
async fn one_on_each(farm: &Farm, client: &Client) -> Vec<Made> {
    let mut made = Vec::new();
    for (node, colour_of) in [("a", 0x00ff_0000), ("b", 0x0000_00ff)] {
        farm.only(node).await;
        let entry = client.run(&colour(colour_of, "made")).await;
        let written = farm.node(node).folder("output").join("made_00001_.png");
        made.push(Made {
            node,
            image: images_of(&entry)[0].clone(),
            bytes: std::fs::read(written).unwrap().into(),
        });
    }
    farm.all().await;
    made
}

fn loaded(image: &Value) -> Value {
    let named = format!("{} [output]", image["filename"].as_str().unwrap());
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": named}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inverted"}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_two_nodes_made_are_two_names_each_with_its_own_bytes_also_when_a_node_has_left()
{
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    let made = one_on_each(&farm, &client).await;
    let names: HashSet<&str> = made
        .iter()
        .map(|made| made.image["filename"].as_str().unwrap())
        .collect();
    assert_eq!(names, HashSet::from(["made_00001_.png", "made_00002_.png"]));
    assert_ne!(made[0].bytes, made[1].bytes);
    for made in &made {
        assert!(client.view(&made.image).await == made.bytes);
    }
    farm.reload(&["a"]).await;
    for made in &made {
        assert!(client.view(&made.image).await == made.bytes);
    }
    farm.reload(&[]).await;
    for made in &made {
        assert!(client.view(&made.image).await == made.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_made_is_loaded_by_another_that_made_something_else_under_this_name() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    for made in one_on_each(&farm, &client).await {
        let other = if made.node == "a" { "b" } else { "a" };
        farm.only(other).await;
        let name = made.image["filename"].as_str().unwrap();
        let file = (name, &made.bytes[..], [("type", "output")]);
        let expected = alone(&loaded(&made.image), &[file]).await;
        let entry = client.run(&loaded(&made.image)).await;
        assert!(client.images(&entry).await == expected, "{name} on {other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_the_history_and_the_list_of_jobs_say_the_same_names() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    one_on_each(&farm, &client).await;
    let client = farm.client("another");
    let mut socket = client.listen().await;
    let id = client.submit(&colour(0x0012_3456, "made")).await;
    let told = socket.event_of("executed").await;
    let image = json!({"filename": "made_00003_.png", "subfolder": "", "type": "output"});
    assert_eq!(told["output"]["images"], json!([image]));
    let entry = client.finished(&id).await;
    assert_eq!(images_of(&entry), [image]);
    let job = client.get(&format!("/api/jobs/{id}")).await.json();
    assert_eq!(job["outputs"], entry["outputs"]);
    assert_eq!(job["preview_output"]["filename"], "made_00003_.png");
    let list = client.get("/internal/files/output").await.json();
    assert_eq!(list.as_array().unwrap().len(), 3, "{list}");
}
