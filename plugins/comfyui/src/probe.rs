//! Whether a node is well, and letting go of its card.

use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::version::Version;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{NodeClient, NodeError, ProbeError, Released, Vitals};
use tokio::time::{Instant, sleep};

/// How long until a card's memory is looked at again, and how long at most.
const LOOK: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// So much of a card's memory may stay taken by a server that has let go: what its libraries hold.
const LEFT: f64 = 0.1;

/// Asks a node how it is.
pub async fn probe(kind: &Comfyui, client: &dyn NodeClient) -> Result<Vitals, ProbeError> {
    let stats = get(client, "/system_stats").await?;
    let version = stats
        .get("system")
        .and_then(|system| system.get("comfyui_version")?.text());
    let version = version.and_then(Version::of);
    if let Some(version) = version.filter(|version| *version < Version::OLDEST) {
        let oldest = Version::OLDEST;
        return Err(ProbeError::Unhealthy(format!(
            "its ComfyUI is {version}, and at least {oldest} is needed (older ones give prompts ids of their own); update it"
        )));
    }
    let queue = get(client, "/prompt").await?;
    let remaining = remaining(queue.get("exec_info"));
    let known = kind
        .nodes()
        .into_iter()
        .find(|node| *node.name == *client.name());
    if let Some(node) = known {
        node.has_remaining(remaining.unwrap_or_default());
        node.tells(|told| {
            told.version = version.or(told.version);
            told.stats = Some(Arc::new(stats.clone()));
        });
    }
    Ok(Vitals {
        busy: remaining.and_then(|remaining| u32::try_from(remaining).ok()),
        vram_free_mib: memory(&stats, "vram_free").map(|bytes| (bytes / (1 << 20) as f64) as u64),
        ..Vitals::default()
    })
}

/// Has a node let go of its card.
pub async fn release(client: &dyn NodeClient) -> Result<Released, NodeError> {
    let asked = object! {"unload_models": true, "free_memory": true};
    let answer = client.send(post("/free", &asked)?).await?;
    if !answer.status().is_success() {
        let status = answer.status();
        return Err(NodeError::Broken(format!("it answered {status} to /free")));
    }
    let until = Instant::now() + LONGEST;
    loop {
        sleep(LOOK).await;
        let stats = get(client, "/system_stats").await?;
        let total = memory(&stats, "vram_total").unwrap_or_default();
        let taken = memory(&stats, "torch_vram_total").unwrap_or_default();
        if taken <= total * LEFT {
            return Ok(Released::Freed);
        }
        if Instant::now() >= until {
            return Err(NodeError::Timeout);
        }
    }
}

/// How many wait or run, as `exec_info` says it.
pub fn remaining(exec_info: Option<&Json>) -> Option<usize> {
    let remaining = exec_info?.get("queue_remaining")?.number()?;
    usize::try_from(remaining.integer()?).ok()
}

/// A number of bytes that the first card of a server's says of itself.
fn memory(stats: &Json, key: &str) -> Option<f64> {
    let devices = stats.get("devices")?.list()?;
    Some(devices.first()?.get(key)?.number()?.value())
}

/// Asks a node for a document.
pub async fn get(client: &dyn NodeClient, path: &str) -> Result<Json, NodeError> {
    let answer = client.send(Request::get(path).body(Bytes::new())?).await?;
    if answer.status() != StatusCode::OK {
        let status = answer.status();
        return Err(NodeError::Broken(format!("it answered {status} to {path}")));
    }
    let wrong = |error| NodeError::Broken(format!("what it answered to {path} is {error}"));
    Json::read(answer.body()).map_err(wrong)
}

/// A document to be sent.
pub fn post(path: &str, document: &Json) -> Result<Request<Bytes>, NodeError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(document.to_string().into())?;
    Ok(request)
}
