//! Nodes that differ: a prompt goes where it can be executed, and nowhere else; where it cannot be, its client is told why.

use super::client::{Client, LONG};
use super::prompts::{colour, sampled};
use super::{Farm, More, specs, taken, until};
use http::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;
use tabane_sim::comfy::{Saw, Spec, Version};
use tokio::time::{interval, timeout};

async fn refused(client: &Client, prompt: &Value) -> Value {
    let answer = client.post("/prompt", &json!({"prompt": prompt})).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.json()
}

/// Runs a prompt on each node in turn.
async fn on_each(farm: &Farm, client: &Client, prompt: &Value) {
    for node in ["a", "b"] {
        farm.only(node).await;
        let id = client.submit(prompt).await;
        let entry = client.finished(&id).await;
        assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        assert!(taken(farm.node(node)).contains(&id));
    }
    farm.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_only_where_its_models_and_classes_are() {
    let mut nodes = specs(3);
    nodes[0] = Spec::named("a").model("checkpoints", "red.safetensors", 10);
    nodes[1] = Spec::named("b").model("checkpoints", "blue.safetensors", 10);
    nodes[2].extra = vec![("MyInvert".into(), "ImageInvert".into())];
    let farm = Farm::start(nodes, More::default()).await;
    let client = farm.client("c");
    let mut mine = colour(7, "mine");
    mine["3"] = json!({"class_type": "MyInvert", "inputs": {"image": ["1", 0]}});
    mine["2"]["inputs"]["images"] = json!(["3", 0]);
    for seed in 0..4 {
        for (node, prompt) in [
            ("a", &sampled("red.safetensors", seed, "x")),
            ("b", &sampled("blue.safetensors", seed, "x")),
            ("c", &mine),
        ] {
            let id = client.submit(prompt).await;
            let entry = client.finished(&id).await;
            assert_eq!(entry["status"]["status_str"], "success", "{entry}");
            assert!(taken(farm.node(node)).contains(&id), "{node}");
        }
    }
    let tried: usize = farm.nodes.iter().map(|node| taken(node).len()).sum();
    assert_eq!(tried, 12, "none was tried where it could not be executed");
    let all = client.get("/object_info/CheckpointLoaderSimple").await;
    let all = &all.json()["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0];
    let all: HashSet<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let every = [
        "red.safetensors",
        "blue.safetensors",
        "tiny_sd3.safetensors",
    ];
    assert_eq!(all, HashSet::from(every));
    let models = client.get("/models/checkpoints").await.json();
    assert_eq!(models.as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_no_single_node_can_execute_is_refused_with_what_each_node_lacks() {
    let mut nodes = specs(2);
    nodes[0] = Spec::named("a").model("checkpoints", "red.safetensors", 10);
    nodes[1].extra = vec![("MyInvert".into(), "ImageInvert".into())];
    let farm = Farm::start(nodes, More::default()).await;
    let client = farm.client("c");
    let mut mixed = sampled("red.safetensors", 1, "x");
    mixed["10"] = json!({"class_type": "MyInvert", "inputs": {"image": ["8", 0]}});
    mixed["9"]["inputs"]["images"] = json!(["10", 0]);
    let told = refused(&client, &mixed).await;
    assert_eq!(told["error"]["type"], "prompt_outputs_failed_validation");
    assert_eq!(
        told["error"]["details"],
        "a/http lacks the node type MyInvert\nb/http lacks ckpt_name 'red.safetensors'"
    );
    let reason = |node: &str| told["node_errors"][node]["errors"][0].clone();
    assert_eq!(reason("10")["type"], "missing_node_type");
    assert_eq!(
        reason("10")["details"],
        "the node type MyInvert: only b/http has it"
    );
    assert_eq!(reason("4")["type"], "value_not_in_list");
    assert_eq!(
        reason("4")["details"],
        "ckpt_name 'red.safetensors': only a/http has it"
    );

    // What nobody has is told as one server tells it.
    let one = tabane_sim::comfy::ComfyNode::start(Spec::named("one").model(
        "checkpoints",
        "red.safetensors",
        10,
    ));
    let one = one.await.unwrap();
    let one = Client::new(one.addr(), "c");
    let mut unknown = colour(1, "x");
    unknown["1"]["class_type"] = json!("NoSuchNode");
    for prompt in [sampled("green.safetensors", 1, "x"), unknown] {
        let (told, wants) = (
            refused(&client, &prompt).await,
            refused(&one, &prompt).await,
        );
        // Names are in the order of the nodes, and not by their letters.
        if told["error"]["type"] == "prompt_outputs_failed_validation" {
            let names = &told["node_errors"]["4"]["errors"][0]["extra_info"]["input_config"][0];
            assert_eq!(names, &json!(["red.safetensors", "tiny_sd3.safetensors"]));
        }
        assert_eq!(told, wants);
    }
    assert!(farm.nodes.iter().all(|node| taken(node).is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_workflow_runs_on_windows_and_on_linux_whoever_wrote_it() {
    let mut nodes: Vec<Spec> = specs(2)
        .into_iter()
        .map(|spec| spec.model("checkpoints", "flux/dev.safetensors", 10))
        .collect();
    nodes[1].windows = true;
    let farm = Farm::start(nodes, More::default()).await;
    let client = farm.client("c");
    let linux = sampled("flux/dev.safetensors", 1, "x");
    let windows = sampled(r"flux\dev.safetensors", 2, "x");
    on_each(&farm, &client, &linux).await;
    on_each(&farm, &client, &windows).await;
    let list = client
        .get("/object_info/CheckpointLoaderSimple")
        .await
        .json();
    let list = &list["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0];
    let names = json!(["flux/dev.safetensors", "tiny_sd3.safetensors"]);
    assert_eq!(list, &names, "each is there once");
    // It is shown as it was handed in.
    let id = client.submit(&windows).await;
    let entry = client.finished(&id).await;
    assert_eq!(entry["prompt"][2], windows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_another_name_on_another_node_is_found_by_the_table_of_the_file() {
    let mut nodes = specs(2);
    nodes[0] = nodes[0]
        .clone()
        .model("checkpoints", "sdxl.safetensors", 10);
    nodes[1] = nodes[1]
        .clone()
        .model("checkpoints", "xl/base.safetensors", 10);
    let more = More {
        kind: "aliases: [[sdxl.safetensors, xl/base.safetensors]]",
        ..More::default()
    };
    let farm = Farm::start(nodes, more).await;
    let client = farm.client("c");
    let (short, long) = (
        sampled("sdxl.safetensors", 1, "x"),
        sampled("xl/base.safetensors", 2, "x"),
    );
    on_each(&farm, &client, &short).await;
    on_each(&farm, &client, &long).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_put_on_one_node_leads_its_prompts_there() {
    let farm = Farm::alike(3).await;
    let client = farm.client("c");
    std::fs::write(farm.node("b").folder("input").join("only-b.png"), "b").unwrap();
    let prompt = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "only-b.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    });
    let body = json!({"prompt": prompt});
    let mut offer = interval(Duration::from_millis(20));
    let offered = timeout(LONG, async {
        // The nodes are asked again before it is said that none has it, unless they were a moment ago.
        while client.post("/prompt", &body).await.status != 200 {
            offer.tick().await;
        }
    });
    offered.await.expect("it is found");
    for _ in 0..3 {
        let id = client.submit(&prompt).await;
        let entry = client.finished(&id).await;
        assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        assert!(taken(farm.node("b")).contains(&id));
    }
    let shown = client.get("/view?filename=only-b.png&type=input").await;
    assert_eq!((shown.status.as_u16(), &shown.body[..]), (200, &b"b"[..]));
    let nowhere = client.get("/view?filename=nowhere.png&type=input").await;
    assert_eq!(nowhere.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_executed_follows_the_pool() {
    let mut nodes = specs(2);
    nodes[0] = Spec::named("a").model("checkpoints", "red.safetensors", 10);
    let farm = Farm::start(nodes, More::default()).await;
    let client = farm.client("c");
    let id = client.submit(&sampled("red.safetensors", 1, "x")).await;
    client.finished(&id).await;
    farm.reload(&["b"]).await;
    let told = refused(&client, &sampled("red.safetensors", 2, "x")).await;
    assert_eq!(told["error"]["type"], "prompt_outputs_failed_validation");
    farm.reload(&["a", "b"]).await;
    let id = client.submit(&sampled("red.safetensors", 2, "x")).await;
    client.finished(&id).await;
    assert!(taken(farm.node("a")).contains(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_comfyui_is_too_old_gets_nothing_and_the_operator_reads_why() {
    let mut nodes = specs(2);
    nodes[1] = Spec::named("b").version(Version(0, 3, 44));
    let farm = Farm::start_unproven(nodes, More::default()).await;
    farm.scene.until_state("a/http", "up").await;
    until(farm.node("a"), |saw| matches!(saw, Saw::Opened { .. })).await;
    let why = "its ComfyUI is 0.3.44, and at least 0.3.45 is needed";
    let mut look = interval(Duration::from_millis(5));
    let told = timeout(LONG, async {
        loop {
            look.tick().await;
            let told = farm.scene.admin(Method::GET, "/api/v1/nodes").await;
            if String::from_utf8_lossy(&told.body).contains(why) {
                return;
            }
        }
    });
    told.await.expect("it says why");
    assert_eq!(farm.scene.state("b/http"), "unproven");
    let client = farm.client("c");
    for seed in 0..4 {
        client.run(&colour(seed, "x")).await;
    }
    assert!(taken(farm.node("b")).is_empty());
    assert_eq!(taken(farm.node("a")).len(), 4);
}
