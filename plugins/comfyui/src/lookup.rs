//! Where a prompt is on a node, and taking it back there.

use crate::entry::Entry;
use crate::farm::Node;
use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::probe::{self, post};
use std::time::Duration;
use tabane_api::{Attempt, Found, NodeClient, NodeError, Stopped};
use tokio::time::{Instant, sleep};

/// How long a prompt that was taken back may take to be gone.
pub const STOPS: Duration = Duration::from_secs(10);

/// How long a prompt may be on its way to a node that did not say whether it took it: one that is busy, or has much to look at,
/// takes it that much later, whether or not anybody waits for its answer.
pub const ARRIVES: Duration = Duration::from_secs(2);

/// How long until it is looked for again.
const AGAIN: Duration = Duration::from_millis(300);

/// Where a prompt is on a node.
pub enum Look {
    /// It waits or runs.
    There,
    /// It is over.
    Over(Box<Entry>),
    /// The node does not know it.
    Nowhere,
}

/// Looks for a prompt on a node.
///
/// First among what is not over: what ends meanwhile is in the history by then. And what ran there under this id before, and is
/// in the history still, is not taken for it.
pub async fn look(client: &dyn NodeClient, id: &str) -> Result<Look, NodeError> {
    if waits_or_runs(client, id).await? {
        return Ok(Look::There);
    }
    Ok(match entry(client, id).await? {
        Some(entry) => Look::Over(Box::new(entry)),
        None => Look::Nowhere,
    })
}

async fn entry(client: &dyn NodeClient, id: &str) -> Result<Option<Entry>, NodeError> {
    let path = format!(
        "/history/{}",
        percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC)
    );
    let told = probe::get(client, &path).await?;
    Ok(told.get(id).map(Entry::of))
}

async fn waits_or_runs(client: &dyn NodeClient, id: &str) -> Result<bool, NodeError> {
    let queue = probe::get(client, "/queue").await?;
    let lists = ["queue_running", "queue_pending"];
    let all = lists.iter().filter_map(|list| queue.get(list)?.list());
    let mut ids = all.flatten().filter_map(|item| item.list()?.get(1)?.text());
    Ok(ids.any(|known| known == id))
}

/// Looks for a prompt that was handed over as the gateway went down.
pub async fn find(attempt: &Attempt, client: &dyn NodeClient) -> Result<Found, NodeError> {
    let Some(id) = &attempt.need.work else {
        return Ok(Found::CannotTell);
    };
    let until = Instant::now() + ARRIVES;
    loop {
        match look(client, id).await? {
            Look::Nowhere if Instant::now() < until => sleep(AGAIN).await,
            Look::Nowhere => return Ok(Found::Nothing),
            _ => return Ok(Found::Handle(id.clone())),
        }
    }
}

/// Takes a prompt back that was handed over; returns when the node is not at it any more.
pub async fn cancel(
    kind: &Comfyui,
    attempt: &Attempt,
    client: &dyn NodeClient,
) -> Result<Stopped, NodeError> {
    let Some(id) = &attempt.need.work else {
        return Ok(Stopped::Unknown);
    };
    let node = kind.node_named(client.name());
    // Whoever handed it over may have been broken off before the node took it.
    let arrives = match &attempt.handle {
        Some(_) => Duration::ZERO,
        None => ARRIVES,
    };
    let came = Instant::now();
    loop {
        interrupt(node.as_deref(), client, id).await?;
        let is_there = waits_or_runs(client, id).await?;
        if !is_there && came.elapsed() >= arrives {
            if let (Some(prompt), Some(node)) = (kind.desk.ledger.get(id), &node) {
                prompt.is_off(node.id);
            }
            return Ok(Stopped::Idle);
        }
        if came.elapsed() >= STOPS {
            return Ok(Stopped::Unknown);
        }
        sleep(AGAIN).await;
    }
}

/// Ends a prompt on a node. Whether the node is not at it any more.
pub async fn end(node: &Node, client: &dyn NodeClient, id: &str) -> Result<bool, NodeError> {
    if !waits_or_runs(client, id).await? {
        return Ok(true);
    }
    interrupt(Some(node), client, id).await?;
    Ok(!waits_or_runs(client, id).await?)
}

/// Ends a prompt on a node, and no other one.
pub async fn interrupt(
    node: Option<&Node>,
    client: &dyn NodeClient,
    id: &str,
) -> Result<(), NodeError> {
    let version = node.and_then(Node::version);
    if version.is_some_and(|version| version.cancels_one()) {
        let path = format!("/api/jobs/{id}/cancel");
        let answer = client.send(post(&path, &object! {})?).await?;
        if answer.status().is_success() {
            return Ok(());
        }
    }
    let ids = Json::List(vec![id.into()]);
    client
        .send(post("/queue", &object! {"delete": ids})?)
        .await?;
    // An old one ends whatever runs: only if that is ours.
    let named = version.is_none_or(|version| version.interrupts_one());
    if named || runs(client, id).await? {
        let asked = object! {"prompt_id": id};
        client.send(post("/interrupt", &asked)?).await?;
    }
    Ok(())
}

async fn runs(client: &dyn NodeClient, id: &str) -> Result<bool, NodeError> {
    let queue = probe::get(client, "/queue").await?;
    let running = queue.get("queue_running").and_then(Json::list);
    let mut ids = running
        .unwrap_or(&[])
        .iter()
        .filter_map(|item| item.list()?.get(1)?.text());
    Ok(ids.any(|known| known == id))
}
