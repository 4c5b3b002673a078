//! Where prompts go among nodes that could all execute them: by how fast nodes are, and by what is loaded.

use super::prompts::{sampled, slow};
use super::{Farm, More, taken};
use futures::future::join_all;
use tabane_sim::comfy::{ComfyKnobs, Saw, Spec};

/// Nodes of these speeds, each with two models of which one fits.
fn specs(speeds: &[f64]) -> Vec<Spec> {
    let names = ('a'..).zip(speeds);
    let spec = |(name, speed): (char, &f64)| {
        let knobs = ComfyKnobs {
            // What its work takes, not what this machine does.
            step_ms: 20,
            model_load_ms: 5000,
            previews: false,
            ..ComfyKnobs::default()
        };
        let mut spec = Spec::named(&name.to_string())
            .model("checkpoints", "one.safetensors", 16 << 10)
            .model("checkpoints", "two.safetensors", 16 << 10)
            .knobs(knobs.speed(*speed));
        spec.vram_mib = 24 << 10;
        spec
    };
    names.map(spec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_equal_prompts_on_nodes_of_speed_three_to_one_are_over_as_soon_as_they_could_be() {
    let farm = Farm::start(specs(&[3.0, 1.0]), More::default()).await;
    let client = farm.client("c");
    let run = (0..40).map(|n| {
        let client = &client;
        async move {
            let id = client.submit(&slow(0.6, n)).await;
            let entry = client.finished(&id).await;
            assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        }
    });
    join_all(run).await;
    let (fast, slow) = (taken(farm.node("a")).len(), taken(farm.node("b")).len());
    // Thirty and ten are ideal; 33 and 11 take 10 % longer. One more is for a machine that does other things meanwhile.
    assert!(fast <= 34 && slow <= 12, "{fast} and {slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_in_turn_are_not_loaded_for_every_prompt() {
    let farm = Farm::start(specs(&[1.0, 1.0]), More::default()).await;
    let client = farm.client("c");
    let run = (0..40).map(|n| {
        let client = &client;
        async move {
            let model = ["one.safetensors", "two.safetensors"][n % 2];
            let id = client.submit(&sampled(model, n as u64, "a cat")).await;
            let entry = client.finished(&id).await;
            assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        }
    });
    join_all(run).await;
    let seen = farm.nodes.iter().flat_map(|node| node.seen());
    let loads = seen.filter(|saw| matches!(saw, Saw::Loaded { .. })).count();
    // Two to four where the machine has time for them; by load alone it would be some forty.
    assert!(loads <= 8, "{loads} loads");
}
