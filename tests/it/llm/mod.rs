//! Many engines for language models as one: simulated engines, the real gateway before them.

mod aliases;
mod bodies;
mod breaking;

mod leaving;
mod limits;
mod lists;
mod placing;
mod reloading;
mod waiting;

use crate::scene::{Reply, Scene, app};
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;
use tabane_sim::llm::{Asked, LlmNode, Seen, Spec};
use tokio::time::timeout;

const CHAT: &str = "/v1/chat/completions";

/// Longer than anything here takes on a slow machine: only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

/// Simulated engines, named a, b, …, and the gateway before them.
pub(crate) struct Farm {
    pub(crate) nodes: Vec<LlmNode>,
    pub(crate) scene: Scene,
}

/// What is in the file besides nodes: what stands in the kind's block, lines of the service, lines at the top, and a node of
/// each its lines.
#[derive(Clone, Copy, Default)]
pub(crate) struct More {
    pub(crate) kind: &'static str,
    pub(crate) service: &'static str,
    pub(crate) top: &'static str,
}

/// An answer that comes piece by piece.
pub(crate) struct Coming {
    pub(crate) head: http::response::Parts,
    body: Incoming,
    pub(crate) text: String,
}

// === impl Farm ===

impl Farm {
    /// These nodes, all of them well when this returns.
    pub(crate) async fn start(specs: Vec<Spec>, kind: &'static str) -> Farm {
        let more = More {
            kind,
            ..More::default()
        };
        Farm::with(specs, more).await
    }

    /// The same, with more in the file.
    pub(crate) async fn with(specs: Vec<Spec>, more: More) -> Farm {
        let started = join_all(specs.into_iter().map(LlmNode::start)).await;
        let nodes: Vec<LlmNode> = started.into_iter().map(Result::unwrap).collect();
        let scene = Scene::start_unproven(app(), &file(&nodes, &all(&nodes), more)).await;
        scene.until_up().await;
        Farm { nodes, scene }
    }

    /// A node, by its name.
    pub(crate) fn node(&self, name: &str) -> &LlmNode {
        &self.nodes[usize::from(name.as_bytes()[0] - b'a')]
    }

    /// The same, to kill it.
    pub(crate) fn node_mut(&mut self, name: &str) -> &mut LlmNode {
        &mut self.nodes[usize::from(name.as_bytes()[0] - b'a')]
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.scene.send(self.request(path, body)).await
    }

    pub(crate) fn request(&self, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        Request::post(self.scene.url(path))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap()
    }

    /// Posts JSON, and waits for the head of an answer.
    pub(crate) async fn begin(&self, path: &str, body: impl Into<Bytes>) -> Coming {
        let request = self.request(path, body);
        let answer = timeout(LONG, self.scene.client.request(request)).await;
        let (head, body) = answer.unwrap().unwrap().into_parts();
        Coming {
            head,
            body,
            text: String::new(),
        }
    }

    /// Where a request for work went: the nodes' names, each as often as it had one.
    pub(crate) fn worked(&self) -> String {
        let names = ('a'..).zip(&self.nodes);
        names
            .flat_map(|(name, node)| {
                let count = node.seen().work().count();
                std::iter::repeat_n(name, count)
            })
            .collect()
    }
}

// === impl Coming ===

impl Coming {
    /// Reads until so much is there that this is so, or it is over, or broke off.
    pub(crate) async fn until(&mut self, mut so: impl FnMut(&str) -> bool) -> Result<bool, String> {
        let read = async {
            while !so(&self.text) {
                match self.body.frame().await {
                    None => return Ok(false),
                    Some(Err(error)) => return Err(error.to_string()),
                    Some(Ok(frame)) => {
                        let bytes = frame.into_data().unwrap_or_default();
                        self.text += std::str::from_utf8(&bytes).unwrap();
                    }
                }
            }
            Ok(true)
        };
        timeout(LONG, read).await.expect("it never comes")
    }

    /// Reads it to its end.
    pub(crate) async fn rest(mut self) -> Result<String, String> {
        self.until(|_| false).await?;
        Ok(self.text)
    }
}

fn all(nodes: &[LlmNode]) -> Vec<String> {
    ('a'..).take(nodes.len()).map(String::from).collect()
}

/// A service `chat`, probed often, whose pool these are.
pub(crate) fn file(nodes: &[LlmNode], pool: &[String], more: More) -> String {
    let mut yaml = format!("{}\nnodes:\n", more.top);
    for (name, node) in ('a'..).zip(nodes) {
        let _ = writeln!(yaml, "  {name}: {{url: \"{}\"}}", node.url());
    }
    let kind = more.kind;
    let _ = writeln!(yaml, "services:\n  chat:\n    kind: {{llm: {{{kind}}}}}");
    yaml.push_str(
        "    health: {interval: 50ms, interval_down: 50ms, timeout: 2s, rise: 1, fall: 2}\n",
    );
    let _ = writeln!(yaml, "    pool: [{}]\n    routes: [/]", pool.join(", "));
    for line in more.service.lines() {
        let _ = writeln!(yaml, "    {line}");
    }
    yaml
}

/// A talk of one turn.
pub(crate) fn chat(model: &str, text: &str, most: usize, stream: bool) -> String {
    talk(model, &[text], most, stream)
}

/// A talk: what each said in turn, the user first.
pub(crate) fn talk(model: &str, said: &[&str], most: usize, stream: bool) -> String {
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages: Vec<Value> = roles
        .zip(said)
        .map(|(role, text)| json!({"role": role, "content": text}))
        .collect();
    let asked = json!({"model": model, "messages": messages, "max_tokens": most, "stream": stream});
    asked.to_string()
}

/// Waits until what a node saw is so.
pub(crate) async fn until(node: &LlmNode, so: impl FnMut(&Seen) -> bool) {
    timeout(LONG, node.until(so))
        .await
        .expect("a node never came to it");
}

/// The last request for work that a node had.
pub(crate) fn last(node: &LlmNode) -> Asked {
    node.seen().work().last().expect("it was asked").clone()
}

/// How many talks a node was asked for, whether it reads them or hangs.
pub(crate) fn chats(seen: &Seen) -> usize {
    seen.asked.iter().filter(|asked| asked.path == CHAT).count()
}
