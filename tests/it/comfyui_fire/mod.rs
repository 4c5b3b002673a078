//! Many ComfyUI servers as one, under fire: nodes die, come back, fall silent; the gateway dies; people change their minds. What
//! was taken in ends once, and whoever listens hears it.

mod cancels;
mod gateway;
mod handing;
mod kills;
mod outputs;
mod reloads;
mod silences;
mod storm;
mod watcher;

use crate::comfyui::{Farm, More, specs, taken};
use serde_json::Value;
use std::time::Duration;
use tabane_sim::comfy::{ComfyNode, Saw, Spec};
use tokio::time::{interval, timeout};

/// Longer than anything here takes on a slow machine.
const LONG: Duration = Duration::from_secs(90);

/// As many attempts as it takes, one soon after the other.
const STUBBORN: More = More {
    kind: "",
    service: "jobs: {attempts: 100, backoff: [50ms]}",
    health: "timeout: 2s, eject_after: 1000",
    top: "",
};

/// So many nodes, all alike, of a service that does not give up.
async fn farm(n: usize) -> Farm {
    Farm::start(specs(n), STUBBORN).await
}

/// Waits until something is so.
async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let mut look = interval(Duration::from_millis(10));
    let waited = timeout(LONG, async {
        while !so().await {
            look.tick().await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("it never came to be that {what}"));
}

/// The node that is at a prompt, waited for; its place among the nodes.
async fn at(farm: &Farm, id: &str) -> usize {
    let mut found = None;
    eventually("a node is at it", async || {
        let mut nodes = farm.nodes.iter();
        found = nodes.position(|node| is_at(node, id));
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Whether a node began with a prompt, and neither ended it nor died since.
fn is_at(node: &ComfyNode, id: &str) -> bool {
    let mut at = false;
    for saw in node.seen() {
        match saw {
            Saw::Started { prompt_id, .. } if prompt_id == id => at = true,
            Saw::Ended { prompt_id, .. } if prompt_id == id => at = false,
            Saw::Died => at = false,
            _ => {}
        }
    }
    at
}

/// How often nodes took a prompt.
fn times_taken(nodes: &[ComfyNode], id: &str) -> usize {
    let all = nodes.iter().flat_map(taken);
    all.filter(|taken| taken == id).count()
}

/// How often nodes made all of a prompt.
fn times_made(nodes: &[ComfyNode], id: &str) -> usize {
    let all = nodes.iter().flat_map(ComfyNode::seen);
    all.filter(|saw| matches!(saw, Saw::Ended { prompt_id, how } if prompt_id == id && how == "execution_success"))
        .count()
}

/// What a node has in its queue, whoever put it there.
async fn left_on(node: &ComfyNode) -> usize {
    let queue = crate::comfyui::client::Client::new(node.addr(), "looks");
    let queue = queue.get("/queue").await.json();
    let many = |key: &str| queue[key].as_array().map_or(0, Vec::len);
    many("queue_running") + many("queue_pending")
}

/// Waits until nothing runs or waits on these nodes.
async fn until_idle(nodes: &[ComfyNode]) {
    for node in nodes {
        eventually("nothing is left on a node", async || {
            left_on(node).await == 0
        })
        .await;
    }
}

/// How an entry of the history ended.
fn word(entry: &Value) -> &str {
    let messages = entry["status"]["messages"].as_array().unwrap();
    messages.last().unwrap()[0].as_str().unwrap()
}

fn spec(name: &str) -> Spec {
    Spec::named(name)
}
