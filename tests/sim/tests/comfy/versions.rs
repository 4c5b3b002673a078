//! What a node says of itself, and how nodes differ.

use crate::client::{ask, finished, get, post, socket, submit};
use crate::prompts::empty_save;
use crate::queue::{sleep, started};
use serde_json::json;
use tabane_sim::comfy::{ComfyNode, Spec, Version};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn it_tells_its_version_card_models_and_classes() {
    let spec = Spec::named("a")
        .model("loras", "style/ink.safetensors", 100)
        .model("embeddings", "bad.pt", 1);
    let node = ComfyNode::start(spec).await.unwrap();
    let stats = get(&node, "/system_stats").await.json();
    assert_eq!(stats["system"]["comfyui_version"], "0.3.64");
    let device = &stats["devices"][0];
    assert_eq!(
        (&device["type"], device["vram_total"].as_u64()),
        (&json!("cuda"), Some(24 << 30))
    );
    assert_eq!(
        get(&node, "/features").await.text(),
        r#"{"supports_preview_metadata": true, "max_upload_size": 104857600}"#
    );
    assert_eq!(
        get(&node, "/models/loras").await.json(),
        json!(["style/ink.safetensors"])
    );
    assert_eq!(get(&node, "/models/odd").await.status, 404);
    assert_eq!(get(&node, "/embeddings").await.json(), json!(["bad"]));
    assert!(
        get(&node, "/models")
            .await
            .json()
            .as_array()
            .unwrap()
            .contains(&json!("checkpoints"))
    );
    let info = get(&node, "/object_info/EmptyImage").await;
    assert_eq!(
        info.text(),
        r#"{"EmptyImage": {"input": {"required": {"width": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}], "height": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}], "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}], "color": ["INT", {"default": 0, "min": 0, "max": 16777215, "step": 1, "display": "color"}]}}, "input_order": {"required": ["width", "height", "batch_size", "color"]}, "output": ["IMAGE"], "output_is_list": [false], "output_name": ["IMAGE"], "name": "EmptyImage", "display_name": "EmptyImage", "description": "", "python_module": "nodes", "category": "image", "output_node": false}}"#
    );
    assert_eq!(get(&node, "/object_info/NoSuchNode").await.text(), "{}");
    let all = get(&node, "/api/object_info").await.json();
    assert_eq!(
        all["LoraLoader"]["input"]["required"]["lora_name"][0],
        json!(["style/ink.safetensors"])
    );
    assert!(
        all.as_object()
            .unwrap()
            .values()
            .all(|class| class["input"].is_object())
    );
}

#[tokio::test]
async fn nodes_differ_in_classes_models_and_how_they_write_names() {
    let mut spec = Spec::named("w").model("checkpoints", "sdxl/base.safetensors", 6000);
    spec.windows = true;
    spec.without = vec!["ImageBlur".into()];
    spec.extra = vec![("MyInvert".into(), "ImageInvert".into())];
    let node = ComfyNode::start(spec).await.unwrap();
    let info = get(&node, "/object_info").await.json();
    assert!(info.get("ImageBlur").is_none());
    assert_eq!(info["MyInvert"]["python_module"], "custom_nodes.myinvert");
    let list = &info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0];
    assert_eq!(
        list,
        &json!(["sdxl\\base.safetensors", "tiny_sd3.safetensors"])
    );
    let prompt = |name: &str| {
        json!({
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
            "6": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
        })
    };
    let refused = post(
        &node,
        "/prompt",
        &json!({"prompt": prompt("sdxl/base.safetensors")}),
    )
    .await;
    assert_eq!(
        refused.json()["node_errors"]["4"]["errors"][0]["type"],
        "value_not_in_list"
    );
    let id = submit(&node, "c", &prompt("sdxl\\base.safetensors")).await;
    assert_eq!(
        finished(&node, &id).await["status"]["status_str"],
        "success"
    );
    let mut saved = empty_save("a/b/x");
    saved["3"] = json!({"class_type": "MyInvert", "inputs": {"image": ["1", 0]}});
    saved["2"]["inputs"]["images"] = json!(["3", 0]);
    let id = submit(&node, "c", &saved).await;
    let entry = finished(&node, &id).await;
    assert_eq!(entry["outputs"]["2"]["images"][0]["subfolder"], "a\\b");
    assert_eq!(
        get(&node, "/view?filename=x_00001_.png&subfolder=a%5Cb")
            .await
            .status,
        200
    );
    assert_eq!(
        get(&node, "/system_stats").await.json()["system"]["os"],
        "nt"
    );
}

#[tokio::test]
async fn old_servers_lack_what_came_later() {
    let node = ComfyNode::start(Spec::named("old").version(Version(0, 3, 40)))
        .await
        .unwrap();
    let mut socket = socket(&node, "c").await;
    socket.event().await;
    socket
        .say(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
        .await;
    let id = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &id).await;
    // It hears no name: whatever runs is interrupted.
    post(&node, "/interrupt", &json!({"prompt_id": "another"})).await;
    let heard = socket.until_end().await;
    let told = |word: &str| {
        heard
            .iter()
            .any(|m| matches!(m, Message::Text(text) if text.contains(word)))
    };
    assert!(told("execution_interrupted"));
    assert!(!told("progress_state") && !told("feature_flags"));
    assert_eq!(get(&node, "/api/jobs").await.status, 404);
    assert_eq!(get(&node, "/features").await.status, 404);
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_ask_a_loopback_name() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let port = node.addr().port();
    let own = format!("http://127.0.0.1:{port}");
    let ask_from = |headers: Vec<(&'static str, String)>| {
        let node = &node;
        async move {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            ask(node, "GET", "/queue", &headers, "")
                .await
                .unwrap()
                .status
        }
    };
    assert_eq!(ask_from(vec![("origin", own.clone())]).await, 200);
    assert_eq!(
        ask_from(vec![("origin", "http://evil.example".into())]).await,
        403
    );
    assert_eq!(
        ask_from(vec![("origin", format!("http://localhost:{port}"))]).await,
        403
    );
    let host = ("host", "comfy.example".to_owned());
    assert_eq!(
        ask_from(vec![
            host.clone(),
            ("origin", "http://comfy.example".into())
        ])
        .await,
        200
    );
    assert_eq!(
        ask_from(vec![host, ("origin", "http://evil.example".into())]).await,
        200,
        "no loopback name"
    );
    let late = ComfyNode::start(Spec::named("a").version(Version::LATE))
        .await
        .unwrap();
    let cross = ask(
        &late,
        "GET",
        "/queue",
        &[("sec-fetch-site", "cross-site")],
        "",
    )
    .await
    .unwrap();
    assert_eq!(cross.status, 403);
    let spec = Spec {
        cors: Some("*".into()),
        ..Spec::named("a")
    };
    let open = ComfyNode::start(spec).await.unwrap();
    let asked = ask(
        &open,
        "OPTIONS",
        "/prompt",
        &[("origin", "http://evil.example")],
        "",
    )
    .await
    .unwrap();
    assert_eq!(
        (asked.status, asked.header("access-control-allow-origin")),
        (200, "*")
    );
}

#[tokio::test]
async fn a_late_server_keeps_what_more_than_one_prompt_made() {
    let node = ComfyNode::start(Spec::named("a").version(Version::LATE))
        .await
        .unwrap();
    for prefix in ["a", "b", "a"] {
        let id = submit(&node, "c", &empty_save(prefix)).await;
        finished(&node, &id).await;
    }
    let history = get(&node, "/history").await;
    assert_eq!(
        history.text().matches("a_00001_.png").count(),
        2,
        "it was not made again"
    );
    assert!(history.text().contains("create_time"));
}

#[tokio::test]
async fn what_is_asked_for_in_the_wrong_way_is_refused() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    for (method, path, status) in [
        ("POST", "/system_stats", 405),
        ("POST", "/nowhere", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/api/internal/files/output", 404),
        ("GET", "/internal/files/odd", 400),
        ("GET", "/ws", 400),
    ] {
        let answer = ask(&node, method, path, &[], "").await.unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
    }
    let id = submit(&node, "c", &empty_save("x")).await;
    finished(&node, &id).await;
    assert_eq!(
        get(&node, "/internal/files/output").await.json(),
        json!(["x_00001_.png"])
    );
}
