//! What is refused, in which words, and what is taken although not all of it is right.

use crate::client::{Answer, ask, finished, get, post, submit};
use serde_json::{Value, json};
use tabane_sim::comfy::{ComfyNode, Saw, Spec, Version};

pub fn empty_save(prefix: &str) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    })
}

async fn start(version: Version) -> ComfyNode {
    ComfyNode::start(Spec::named("a").version(version))
        .await
        .unwrap()
}

async fn offer(node: &ComfyNode, prompt: &Value) -> Answer {
    post(node, "/prompt", &json!({"prompt": prompt})).await
}

/// What is wrong with the node `1` of a prompt that has `SaveImage` behind it.
async fn wrong(node: &ComfyNode, class: &str, inputs: Value) -> Value {
    let prompt = json!({
        "1": {"class_type": class, "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    });
    let answer = offer(node, &prompt).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["error"]["type"], "prompt_outputs_failed_validation");
    let error = &told["node_errors"]["1"];
    assert_eq!(error["dependent_outputs"], json!(["2"]));
    assert_eq!(error["class_type"], class);
    error["errors"][0].clone()
}

#[tokio::test]
async fn without_a_prompt_or_an_output_it_says_so() {
    let node = start(Version::RECORDED).await;
    let answer = post(&node, "/prompt", &json!({})).await;
    assert_eq!(
        (answer.status, answer.text()),
        (
            400,
            r#"{"error": {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}}, "node_errors": {}}"#
        )
    );
    let answer = offer(
        &node,
        &json!({"1": {"class_type": "EmptyImage", "inputs": {}}}),
    )
    .await;
    assert_eq!(
        (answer.status, answer.text()),
        (
            400,
            r#"{"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}, "node_errors": {}}"#
        )
    );
    for nothing in ["[]", r#"{"prompt": []}"#] {
        let answer = ask(&node, "POST", "/prompt", &[], nothing).await.unwrap();
        assert_eq!(answer.status, 400, "{nothing}");
    }
    for odd in ["{", "", r#"{"prompt": 3}"#, r#"{"prompt": {"1": 3}}"#] {
        let answer = ask(&node, "POST", "/prompt", &[], odd).await.unwrap();
        assert_eq!(answer.status, 500, "{odd}");
    }
}

#[tokio::test]
async fn each_wrong_value_has_its_own_error() {
    let node = start(Version::RECORDED).await;
    let image = |changes: Value| {
        let mut inputs = json!({"width": 16, "height": 16, "batch_size": 1, "color": 0});
        inputs
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        inputs
    };
    let config = json!(["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}]);
    let error = wrong(
        &node,
        "EmptyImage",
        json!({"width": 16, "height": 16, "batch_size": 1}),
    )
    .await;
    assert_eq!(
        error,
        json!({"type": "required_input_missing", "message": "Required input is missing", "details": "color", "extra_info": {"input_name": "color"}})
    );
    let error = wrong(&node, "EmptyImage", image(json!({"width": 20000}))).await;
    assert_eq!(
        error,
        json!({"type": "value_bigger_than_max", "message": "Value 20000 bigger than max of 16384", "details": "width", "extra_info": {"input_name": "width", "input_config": config, "received_value": 20000}})
    );
    let error = wrong(&node, "EmptyImage", image(json!({"width": "wide"}))).await;
    assert_eq!(
        error,
        json!({"type": "invalid_input_type", "message": "Failed to convert an input value to a INT value", "details": "width, wide, invalid literal for int() with base 10: 'wide'", "extra_info": {"input_name": "width", "input_config": config, "received_value": "wide", "exception_message": "invalid literal for int() with base 10: 'wide'"}})
    );
    let error = wrong(&node, "EmptyImage", image(json!({"width": ["1"]}))).await;
    assert_eq!(error["type"], "bad_linked_input");
    assert_eq!(error["extra_info"]["received_value"], json!(["1"]));
    let error = wrong(
        &node,
        "StubImage",
        json!({"content": "RED", "height": 8, "width": 8, "batch_size": 1}),
    )
    .await;
    assert_eq!(
        error,
        json!({"type": "value_not_in_list", "message": "Value not in list", "details": "content: 'RED' not in ['WHITE', 'BLACK', 'NOISE']", "extra_info": {"input_name": "content", "input_config": [["WHITE", "BLACK", "NOISE"], {}], "received_value": "RED"}})
    );
    // A file that is not here: uploads have to be where the prompt goes.
    let error = wrong(&node, "LoadImage", json!({"image": "notthere.png"})).await;
    assert_eq!(
        error,
        json!({"type": "custom_validation_failed", "message": "Custom validation failed for node", "details": "image - Invalid image file: notthere.png", "extra_info": {"input_name": "image"}})
    );
    let saw = node.seen();
    assert!(saw.contains(&Saw::Refused {
        why: "prompt_outputs_failed_validation".into()
    }));
}

#[tokio::test]
async fn a_link_that_leads_nowhere_or_to_the_wrong_thing_is_told() {
    let node = start(Version::RECORDED).await;
    let prompt = json!({
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    });
    let told = offer(&node, &prompt).await.json();
    assert_eq!(
        told["error"]["details"],
        "Return type mismatch between linked nodes: images, received_type(LATENT) mismatch input_type(IMAGE)"
    );
    let error = &told["node_errors"]["2"]["errors"][0];
    assert_eq!(error["type"], "return_type_mismatch");
    assert_eq!(error["extra_info"]["received_type"], "LATENT");
    assert_eq!(error["extra_info"]["linked_node"], json!(["1", 0]));
    let prompt = json!({"2": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}});
    let told = offer(&node, &prompt).await.json();
    let error = &told["node_errors"]["2"]["errors"][0];
    assert_eq!(
        (&error["type"], &error["details"]),
        (&json!("exception_during_validation"), &json!("'9'"))
    );
    let error = wrong(&node, "ImageInvert", json!({"image": ["9", 0]})).await;
    assert_eq!(error["type"], "exception_during_inner_validation");
    assert_eq!(error["extra_info"]["exception_type"], "KeyError");
}

#[tokio::test]
async fn newer_servers_name_a_missing_class_and_find_cycles() {
    let node = start(Version::LATE).await;
    let prompt =
        json!({"7": {"class_type": "NoSuchNode", "inputs": {}, "_meta": {"title": "My node"}}});
    let answer = offer(&node, &prompt).await;
    assert_eq!(
        (answer.status, answer.text()),
        (
            400,
            r#"{"error": {"type": "missing_node_type", "message": "Node 'My node' not found. The custom node may not be installed.", "details": "Node ID '#7'", "extra_info": {"node_id": "7", "class_type": "NoSuchNode", "node_title": "My node"}}, "node_errors": {}}"#
        )
    );
    let prompt = json!({
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let told = offer(&node, &prompt).await.json();
    let error = &told["node_errors"]["2"]["errors"][0];
    assert_eq!(error["type"], "dependency_cycle");
    assert_eq!(
        error["details"],
        "1 (ImageInvert) -> 2 (ImageInvert) -> 1 (ImageInvert)"
    );
}

#[tokio::test]
async fn outputs_that_are_right_are_executed_where_others_are_not() {
    let node = start(Version::RECORDED).await;
    let mut prompt = empty_save("good");
    prompt["3"] = json!({"class_type": "LoadImage", "inputs": {"image": "nope.png"}});
    prompt["4"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}});
    let answer = offer(&node, &prompt).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["node_errors"]["3"]["dependent_outputs"],
        json!(["4"])
    );
    let entry = finished(&node, answer.json()["prompt_id"].as_str().unwrap()).await;
    assert_eq!(entry["prompt"][4], json!(["2"]));
    assert_eq!(
        entry["outputs"]["2"]["images"][0]["filename"],
        "good_00001_.png"
    );
    assert!(entry["outputs"].get("4").is_none());
}

#[tokio::test]
async fn a_client_names_its_prompts_as_its_version_allows() {
    let named = |id: Value| json!({"prompt": empty_save("x"), "prompt_id": id});
    let uuid = "e04d8990-388c-4857-ab8c-26bd918bdeea";
    let node = start(Version::RECORDED).await;
    for id in [uuid, uuid, "node1:abc/../x"] {
        let answer = post(&node, "/prompt", &named(json!(id))).await;
        assert_eq!(answer.json()["prompt_id"], id);
        finished(&node, id).await;
    }
    let history = get(&node, "/history").await.json();
    assert_eq!(
        history.as_object().unwrap().len(),
        2,
        "the same id is the same entry"
    );
    let node = start(Version::LATE).await;
    assert_eq!(
        post(&node, "/prompt", &named(json!(uuid))).await.json()["prompt_id"],
        uuid
    );
    assert_eq!(
        post(&node, "/prompt", &named(json!(null))).await.status,
        200
    );
    for id in [json!(uuid.to_uppercase()), json!("x"), json!(3)] {
        let answer = post(&node, "/prompt", &named(id)).await;
        assert_eq!(answer.json()["error"]["type"], "invalid_prompt_id");
    }
    let node = start(Version(0, 3, 40)).await;
    let answer = post(&node, "/prompt", &named(json!(uuid))).await;
    assert_ne!(
        answer.json()["prompt_id"],
        uuid,
        "an old server makes its own"
    );
}

#[tokio::test]
async fn only_the_outputs_that_are_wanted_are_executed() {
    let node = start(Version::RECORDED).await;
    let mut prompt = empty_save("one");
    prompt["3"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}});
    let asked = json!({"prompt": prompt, "partial_execution_targets": ["3"]});
    let id = post(&node, "/prompt", &asked).await.json()["prompt_id"].clone();
    let entry = finished(&node, id.as_str().unwrap()).await;
    assert_eq!(entry["prompt"][4], json!(["3"]));
    assert!(entry["outputs"].get("2").is_none());
}

#[tokio::test]
async fn what_was_made_before_is_not_made_again() {
    let node = start(Version::RECORDED).await;
    let first = submit(&node, "c", &empty_save("a")).await;
    finished(&node, &first).await;
    // The same under other ids, and then all the same.
    let mut other = json!({"8": empty_save("b")["1"], "9": empty_save("b")["2"]});
    other["9"]["inputs"]["images"] = json!(["8", 0]);
    let second = submit(&node, "c", &other).await;
    let third = submit(&node, "c", &other).await;
    let again = finished(&node, &third).await;
    assert_eq!(
        again["outputs"]["9"]["images"][0]["filename"], "b_00001_.png",
        "it is shown again"
    );
    let fourth = submit(&node, "c", &empty_save("a")).await;
    finished(&node, &fourth).await;
    let cached: Vec<Vec<String>> = node
        .seen()
        .into_iter()
        .filter_map(|saw| match saw {
            Saw::Started { prompt_id, cached } => Some((prompt_id, cached))
                .filter(|(id, _)| [&first, &second, &third, &fourth].contains(&id))
                .map(|(_, c)| c),
            _ => None,
        })
        .collect();
    // Only the last prompt's nodes are kept: the first one's `SaveImage` is not.
    assert_eq!(cached, [vec![], vec!["8"], vec!["8", "9"], vec!["1"]]);
}
