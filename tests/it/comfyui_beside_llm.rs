//! ComfyUI and a language model on one card, each behind its own kind: what holds of cards that are shared holds of them.

use crate::comfyui::client::Client;
use crate::comfyui::prompts::sampled;
use crate::scene::{Scene, app};
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tabane_sim::Gpu;
use tabane_sim::comfy::{self, ComfyKnobs, ComfyNode};
use tabane_sim::llm::{self, LlmKnobs, LlmNode};

const CARD_MIB: u64 = 24 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn comfyui_and_a_language_model_take_turns_on_one_card_and_all_are_served() {
    let gpu = Gpu::new(CARD_MIB);
    // Together they do not fit.
    let images = comfy::Spec::named("a")
        .model("checkpoints", "sd.safetensors", 16 << 10)
        .knobs(ComfyKnobs {
            model_load_ms: 20,
            step_ms: 2,
            ..ComfyKnobs::default()
        })
        .on(&gpu);
    let images = ComfyNode::start(images).await.unwrap();
    let talks = llm::Spec::new(llm::Engine::Ollama, "b")
        .model("llama3", 12 << 10)
        .slots(2)
        .knobs(LlmKnobs {
            load_ms: 20,
            step_ms: 1.0,
            ..LlmKnobs::default()
        })
        .on(&gpu);
    let talks = LlmNode::start(talks).await.unwrap();
    let health = "health: {interval: 50ms, interval_down: 20ms, timeout: 2s, rise: 1, fall: 3}";
    let yaml = format!(
        r#"listen:
  - {{address: "127.0.0.1:0", service: image}}
  - {{address: "127.0.0.1:0", service: chat}}
data_dir: data
nodes:
  gpu:
    gpu: {{vram: 24GiB}}
    sharing: exclusive
    endpoints:
      image: {{url: "{}", vram: 16GiB}}
      chat: {{url: "{}", slots: 2, vram: 12GiB}}
services:
  image:
    kind: {{comfyui: {{}}}}
    pool: [gpu/image]
    {health}
    gpu_hold: {{min: 50ms, max: 300ms}}
  chat:
    kind: {{llm: {{}}}}
    pool: [gpu/chat]
    interactive: true
    {health}
    gpu_hold: {{min: 50ms, max: 200ms}}
"#,
        images.url(),
        talks.url()
    );
    let scene = Scene::start_unproven(app(), &yaml).await;
    scene.until_up().await;
    let addresses = scene.gateway.addresses();
    let client = Client::new(addresses[0], "studio");
    let drawn = (0..8).map(|n| {
        let client = &client;
        async move {
            let entry = client.run(&sampled("sd.safetensors", n, "a cat")).await;
            assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        }
    });
    let said = (0..12).map(|n| {
        let (scene, to) = (&scene, addresses[1]);
        async move {
            // Spread over the time that images take.
            tokio::time::sleep(std::time::Duration::from_millis(40 * n)).await;
            let body = json!({
                "model": "llama3", "stream": false, "messages": [{"role": "user", "content": format!("{n}?")}],
                "options": {"num_predict": 5},
            });
            let request = Request::post(format!("http://{to}/api/chat"))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body.to_string())))
                .unwrap();
            let reply = scene.send(request).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.json()["done"], true);
        }
    });
    futures::join!(join_all(drawn), join_all(said));
    let counts = gpu.counts();
    assert_eq!(
        (
            counts.both_at_work,
            counts.out_of_memory,
            counts.unloads_at_work
        ),
        (0, 0, 0),
        "{counts:?}"
    );
    // Each had the card, and let go of it.
    assert!(counts.loads >= 2 && counts.unloads >= 1, "{counts:?}");
}
