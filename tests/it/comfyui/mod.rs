//! Many ComfyUI servers as one, as clients see them: simulated nodes, the real gateway before them.

mod again;
pub(crate) mod client;
mod clients;
mod differing;
mod foreign;
mod history;
mod outputs;
mod pages;
mod parity;
mod placing;
mod previews;
pub(crate) mod prompts;
mod queue;
mod scripts;
mod secrets;
mod uploads;

use crate::scene::{Scene, app, shown};
use bytes::Bytes;
use client::{Client, LONG};
use futures::future::join_all;
use http::Method;
use http_body_util::Full;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use tabane::Source;
use tabane_sim::comfy::{ComfyNode, Saw, Spec};
use tempfile::TempDir;
use tokio::time::timeout;

/// Simulated nodes, and the gateway before them.
pub(crate) struct Farm {
    pub(crate) nodes: Vec<ComfyNode>,
    pub(crate) scene: Scene,
    pub(crate) more: More,
}

/// What is in the file besides nodes: what stands in the kind's block, and lines of the service and at the top.
#[derive(Clone, Copy)]
pub(crate) struct More {
    pub(crate) kind: &'static str,
    pub(crate) service: &'static str,
    /// More of how nodes are probed.
    pub(crate) health: &'static str,
    pub(crate) top: &'static str,
}

impl Default for More {
    fn default() -> Self {
        More {
            kind: "",
            service: "",
            health: "timeout: 2s",
            top: "",
        }
    }
}

// === impl Farm ===

impl Farm {
    /// So many nodes, named a, b, …, all alike.
    pub(crate) async fn alike(n: usize) -> Farm {
        Farm::start(specs(n), More::default()).await
    }

    /// These nodes. All of them are well and known when this returns.
    pub(crate) async fn start(specs: Vec<Spec>, more: More) -> Farm {
        let farm = Farm::start_unproven(specs, more).await;
        farm.scene.until_up().await;
        farm.until_known().await;
        farm
    }

    /// The same, without waiting for any of it.
    pub(crate) async fn start_unproven(specs: Vec<Spec>, more: More) -> Farm {
        let nodes = started(specs).await;
        let yaml = file(&nodes, &names(&nodes), more);
        let scene = Scene::start_unproven(app(), &yaml).await;
        Farm { nodes, scene, more }
    }

    /// Leaves only these nodes in the pool. They are well and known when this returns.
    pub(crate) async fn reload(&self, pool: &[&str]) {
        let pool: Vec<String> = pool.iter().map(ToString::to_string).collect();
        let sockets = |node: &str| {
            let saw = self.node(node).seen().into_iter();
            saw.filter(|saw| matches!(saw, Saw::Opened { .. })).count()
        };
        let before: Vec<usize> = pool.iter().map(|node| sockets(node)).collect();
        let was_there = |node: &str| {
            let saw = self.node(node).seen();
            let mut ends = saw.iter().rev();
            let last = ends.find(|saw| matches!(saw, Saw::Opened { .. } | Saw::Closed { .. }));
            matches!(last, Some(Saw::Opened { .. }))
        };
        let there: Vec<bool> = pool.iter().map(|node| was_there(node)).collect();
        let yaml = file(&self.nodes, &pool, self.more);
        let reloaded = self.scene.reload(&yaml).await;
        reloaded.unwrap_or_else(|problems| panic!("{}", shown(&problems)));
        for ((node, before), there) in pool.iter().zip(before).zip(there) {
            self.scene.until_state(&format!("{node}/http"), "up").await;
            if !there {
                let opened = self.node(node).until(|saw| {
                    let all = saw.iter();
                    all.filter(|saw| matches!(saw, Saw::Opened { .. })).count() > before
                });
                timeout(LONG, opened).await.expect("it is listened to");
            }
        }
        if !pool.is_empty() {
            self.client("nobody").get("/object_info").await;
        }
    }

    /// Waits until each node is listened to and has said what it can do.
    pub(crate) async fn until_known(&self) {
        for node in &self.nodes {
            until(node, |saw| matches!(saw, Saw::Opened { .. })).await;
        }
        // It asks those that have not said it yet.
        let told = self.client("nobody").get("/object_info").await;
        assert_eq!(told.status, 200, "{told:?}");
    }

    /// Lets only this node have new prompts.
    pub(crate) async fn only(&self, node: &str) {
        for name in names(&self.nodes) {
            let how = if name == node { "undrain" } else { "drain" };
            let path = format!("/api/v1/nodes/{name}/{how}");
            let told = self.scene.admin(Method::POST, &path).await;
            assert_eq!(told.status, 200, "{told:?}");
        }
    }

    /// Lets all nodes have prompts again.
    pub(crate) async fn all(&self) {
        for name in names(&self.nodes) {
            let path = format!("/api/v1/nodes/{name}/undrain");
            self.scene.admin(Method::POST, &path).await;
        }
    }

    /// The gateway goes down and comes back, on the same data and another port.
    pub(crate) async fn restarted(self) -> Farm {
        self.down().await.up().await
    }

    /// The gateway goes down.
    pub(crate) async fn down(self) -> Down {
        let Scene {
            gateway,
            file,
            dir,
            client,
        } = self.scene;
        gateway.shutdown(Duration::from_millis(100)).await;
        Down {
            nodes: self.nodes,
            more: self.more,
            file,
            dir,
            client,
        }
    }

    /// A client of the gateway's.
    pub(crate) fn client(&self, id: &str) -> Client {
        Client::new(self.scene.address(), id)
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> &ComfyNode {
        let at = usize::from(name.as_bytes()[0] - b'a');
        &self.nodes[at]
    }
}

/// Nodes without their gateway.
pub(crate) struct Down {
    pub(crate) nodes: Vec<ComfyNode>,
    pub(crate) more: More,
    file: PathBuf,
    dir: TempDir,
    client: Http<HttpConnector, Full<Bytes>>,
}

// === impl Down ===

impl Down {
    /// The gateway comes back, on the same data and another port.
    pub(crate) async fn up(self) -> Farm {
        // Within one process, the last tasks of the one that went down may still have its data.
        let started = timeout(LONG, async {
            loop {
                let source = Source::File(self.file.clone());
                let loaded = app().load(&source).unwrap();
                match app().start(source, loaded).await {
                    Ok(gateway) => return gateway,
                    Err(error) => assert!(format!("{error:#}").contains("another gateway")),
                }
                tokio::task::yield_now().await;
            }
        });
        let gateway = started.await.expect("its data is free");
        let scene = Scene {
            gateway,
            client: self.client,
            file: self.file,
            dir: self.dir,
        };
        scene.until_up().await;
        Farm {
            nodes: self.nodes,
            scene,
            more: self.more,
        }
    }
}

/// So many nodes, named a, b, …, all alike.
pub(crate) fn specs(n: usize) -> Vec<Spec> {
    let names = ('a'..).take(n);
    names.map(|name| Spec::named(&name.to_string())).collect()
}

async fn started(specs: Vec<Spec>) -> Vec<ComfyNode> {
    let started = join_all(specs.into_iter().map(ComfyNode::start)).await;
    started.into_iter().map(Result::unwrap).collect()
}

/// A file to upload: its name, what is in it, and a field of the form.
pub(crate) type Upload<'a> = (&'a str, &'a [u8], [(&'a str, &'a str); 1]);

/// What one server alone makes of a prompt, with these files uploaded before.
pub(crate) async fn alone(prompt: &Value, files: &[Upload<'_>]) -> Vec<Bytes> {
    let one = ComfyNode::start(Spec::named("alone")).await.unwrap();
    let client = Client::new(one.addr(), "c");
    for (name, bytes, fields) in files {
        let told = client.upload(name, bytes, fields).await;
        assert_eq!(told.json()["name"], *name);
    }
    let entry = client.run(prompt).await;
    client.images(&entry).await
}

fn names(nodes: &[ComfyNode]) -> Vec<String> {
    ('a'..).take(nodes.len()).map(String::from).collect()
}

/// A service `image`, probed often, whose pool these are.
pub(crate) fn file(nodes: &[ComfyNode], pool: &[String], more: More) -> String {
    let mut yaml = format!("{}\ndata_dir: data\nnodes:\n", more.top);
    for (name, node) in names(nodes).iter().zip(nodes) {
        let url = node.url();
        let _ = writeln!(yaml, "  {name}: {{url: \"{url}\"}}");
    }
    let kind = more.kind;
    let _ = writeln!(
        yaml,
        "services:\n  image:\n    kind: {{comfyui: {{{kind}}}}}"
    );
    let health = more.health;
    let _ = writeln!(
        yaml,
        "    health: {{interval: 50ms, interval_down: 50ms, rise: 1, fall: 2, {health}}}"
    );
    let _ = writeln!(yaml, "    pool: [{}]\n    routes: [/]", pool.join(", "));
    for line in more.service.lines() {
        let _ = writeln!(yaml, "    {line}");
    }
    yaml
}

/// Waits until a node saw or did something.
pub(crate) async fn until(node: &ComfyNode, mut so: impl FnMut(&Saw) -> bool) {
    let waited = timeout(LONG, node.until(|saw| saw.iter().any(&mut so)));
    waited.await.expect("a node never came to it");
}

/// Waits until a node is at a prompt.
pub(crate) async fn until_at(node: &ComfyNode, id: &str) {
    until(
        node,
        |saw| matches!(saw, Saw::Started { prompt_id, .. } if prompt_id == id),
    )
    .await;
}

/// The prompts that a node took, in this order.
pub(crate) fn taken(node: &ComfyNode) -> Vec<String> {
    let saw = node.seen().into_iter();
    saw.filter_map(|saw| match saw {
        Saw::Accepted { prompt_id, .. } => Some(prompt_id),
        _ => None,
    })
    .collect()
}
