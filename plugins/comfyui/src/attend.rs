//! Looking after a node: what it can do, and its one event socket. What it tells of a prompt goes to whoever runs that.
//!
//! The socket may break at any time, or stay silent: nothing depends on it but how soon things are known. Whoever runs a
//! prompt asks the node, too.

use crate::facts;
use crate::farm::{Merged, Node};
use crate::frames::{Event, Frame};
use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::ledger::Prompt;
use crate::object_info::ObjectInfo;
use crate::probe;
use crate::strays;
use crate::version::Version;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Request, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{Content, EndpointView, Host, Message, NodeClient, NodeError};
use tokio::time::{sleep, timeout};

/// The largest description of a node's classes that is read, bytes. A server with every pack there is has some 20 MB.
const LARGEST: usize = 128 << 20;

/// How long a node may take to describe its classes: some packs look into every model then.
const LONGEST: Duration = Duration::from_secs(120);

/// A node is asked again what it can do so often, though nothing says that it changed.
const AGAIN: Duration = Duration::from_secs(300);

/// Looks after a node until its socket ends.
pub async fn attend(
    kind: &Comfyui,
    at: EndpointView,
    client: Arc<dyn NodeClient>,
    host: &Arc<dyn Host>,
) {
    let farm = &kind.desk.farm;
    let mut known: Vec<_> = host.endpoints().iter().map(|at| at.id).collect();
    known.push(at.id);
    farm.keep_only(&known);
    let node = farm.node(at.id, &at.name);
    // It may have been restarted since.
    node.forgets();
    node.lost_copies();
    let asked = async {
        // What is new of it is held against what waits as it is told.
        let mut looked = node.info().is_none();
        loop {
            let wait = match ask(kind, &node, &*client, Duration::ZERO).await {
                Ok(()) => {
                    // What came while it was not in the pool was not held against it, though it says nothing new.
                    if !std::mem::replace(&mut looked, true) {
                        look_again(kind, &node).await;
                    }
                    AGAIN
                }
                Err(error) => {
                    tracing::debug!(endpoint = %node.name, %error, "a node does not say what it can do");
                    Duration::from_secs(2)
                }
            };
            sleep(wait).await;
        }
    };
    tokio::select! {
        () = asked => {}
        () = strays::end(&node, &*client) => {}
        told = keep_listening(kind, &node, &*client) => {
            if let Err(error) = told {
                tracing::debug!(endpoint = %node.name, %error, "a node's event socket ended");
            }
        }
    }
}

/// Asks a node what it can do, unless it said so within `fresh`. One at a time: who comes meanwhile takes what the other got.
///
/// Errors: the exchange failed, or what it said is no description.
pub async fn ask(
    kind: &Comfyui,
    node: &Arc<Node>,
    client: &dyn NodeClient,
    fresh: Duration,
) -> Result<(), NodeError> {
    let came = Instant::now();
    let _one = node.asking.lock().await;
    let is_fresh = |at: Instant| at.elapsed() < fresh || at >= came;
    if node.told().at.is_some_and(is_fresh) {
        return Ok(());
    }
    let stats = probe::get(client, "/system_stats").await?;
    let version = stats
        .get("system")
        .and_then(|system| Version::of(system.get("comfyui_version")?.text()?));
    // Older servers have none.
    let features = probe::get(client, "/features").await.ok();
    let bytes = timeout(LONGEST, description(client)).await;
    let bytes = bytes.map_err(|_| NodeError::Timeout)??;
    let at = Instant::now();
    let is_new = node.tells(|told| {
        told.version = version;
        told.stats = Some(Arc::new(stats));
        told.features = features.map(Arc::new);
        told.at = Some(at);
        told.bytes != bytes || told.info.is_none()
    });
    if !is_new {
        return Ok(());
    }
    let read = bytes.clone();
    let read = tokio::task::spawn_blocking(move || ObjectInfo::read(&read)).await;
    let read = read.map_err(|_| NodeError::Broken("its description cannot be read".into()))?;
    let info = read.map_err(|error| NodeError::Broken(format!("its description is {error}")))?;
    node.tells(|told| {
        told.info = Some(Arc::new(info));
        told.bytes = bytes;
    });
    kind.desk.farm.is_told();
    look_again(kind, node).await;
    Ok(())
}

async fn description(client: &dyn NodeClient) -> Result<Bytes, NodeError> {
    let request = Request::get("/object_info").body(Content::default())?;
    let answer = client.stream(request).await?;
    if answer.status() != StatusCode::OK {
        let status = answer.status();
        return Err(NodeError::Broken(format!(
            "it answered {status} to /object_info"
        )));
    }
    let mut pieces = answer.into_body();
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if all.len() + piece.len() > LARGEST {
            return Err(NodeError::TooLarge { max: LARGEST });
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// A node can do something else than before: who waits is looked at again.
pub async fn look_again(kind: &Comfyui, node: &Arc<Node>) {
    let (own, node) = (kind.clone(), node.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let Some(merged) = own.merged() else { return };
        for prompt in own.desk.ledger.open() {
            if prompt.signatures().is_empty() {
                sign(&own, &prompt, &merged);
            }
            look_at(&own, &prompt, &merged, &node);
        }
    });
    if looked.await.is_ok()
        && let Some(host) = kind.desk.host.get()
    {
        host.changed();
    }
}

/// Notes what a node lacks for a prompt. Whether it lacks nothing.
pub fn look_at(kind: &Comfyui, prompt: &Prompt, merged: &Merged, node: &Node) -> bool {
    let (Some(own), Some(stored)) = (node.info(), prompt.stored()) else {
        return false;
    };
    let Some(nodes) = stored.prompt() else {
        return false;
    };
    let is_kept = |path: crate::needs::FilePath<'_>| kind.keeps(path);
    let lacks = facts::lacks(nodes, &merged.info, &own, &kind.setup.names, &is_kept);
    let has_all = lacks.is_none();
    prompt.note_lacks(node.id, lacks);
    has_all
}

/// Signs a prompt that was kept over a restart.
fn sign(kind: &Comfyui, prompt: &Prompt, merged: &Merged) {
    if let Some(stored) = prompt.stored()
        && let Some(nodes) = stored.prompt()
    {
        let holds = |path: crate::needs::FilePath<'_>| kind.holds(path);
        let facts = facts::Facts::of(nodes, &merged.info, &holds);
        prompt.sign(facts.signatures);
    }
}

/// Hears what a node says, until its socket ends by itself.
async fn keep_listening(
    kind: &Comfyui,
    node: &Arc<Node>,
    client: &dyn NodeClient,
) -> Result<(), NodeError> {
    loop {
        tokio::select! {
            ended = listen(kind, node, client) => return ended,
            () = node.line.is_to_be_anew() => {
                tracing::debug!(endpoint = %node.name, "nothing comes on a node's event socket; it is opened anew");
            }
        }
    }
}

/// Hears what a node says, until its socket ends.
async fn listen(
    kind: &Comfyui,
    node: &Arc<Node>,
    client: &dyn NodeClient,
) -> Result<(), NodeError> {
    node.line.settles().await;
    let path = format!("/ws?clientId={}", node.sid);
    let mut socket = client.socket(Request::get(path).body(())?).await?;
    let flags = object! {"supports_preview_metadata": true};
    let flags = object! {"type": "feature_flags", "data": flags};
    socket.send(Message::Text(flags.to_string())).await?;
    if kind.desk.logs.is_wanted() {
        crate::logs::subscribe(node, client, true).await;
    }
    let _open = node.line.opened();
    while let Some(message) = socket.receive().await? {
        node.line.heard();
        take(kind, node, Frame::read(message)).await;
    }
    Ok(())
}

/// One message of a node's.
async fn take(kind: &Comfyui, node: &Arc<Node>, mut frame: Frame) {
    match &frame.event {
        Event::Status => {
            let told = frame
                .text()
                .and_then(|text| Json::read(text.as_bytes()).ok());
            let told = told
                .as_ref()
                .and_then(|told| told.get("data")?.get("status"));
            let remaining = probe::remaining(told.and_then(|status| status.get("exec_info")));
            if let Some(remaining) = remaining {
                node.has_remaining(remaining);
            }
            return;
        }
        Event::FeatureFlags => return,
        Event::Logs => return kind.desk.logs.told(kind, node, &frame),
        Event::Start => {
            if let Some(prompt) = &frame.prompt {
                node.executes(prompt);
            }
        }
        _ => {}
    }
    if frame.prompt.is_none() {
        frame.prompt = node.current();
    }
    match node.inbox(frame.prompt.as_deref()) {
        // Whoever runs it may be writing to disk: previews are not worth waiting for.
        Some(inbox) if is_passing(&frame.event) => {
            let _ = inbox.try_send(frame);
        }
        Some(inbox) => {
            let _ = inbox.send(frame).await;
        }
        // Of nobody's prompt, and so of the server itself: what packs tell all. What others' prompts do is nobody's business.
        None if frame.prompt.is_none() && frame.event == Event::Other => {
            kind.desk.clients.broadcast(frame);
        }
        None => {}
    }
}

/// Whether nothing is lost where it does not come.
fn is_passing(event: &Event) -> bool {
    matches!(
        event,
        Event::Progress(_)
            | Event::ProgressState
            | Event::Preview {
                is_result: false,
                ..
            }
    )
}
