//! Simulated servers, and the gateway before them.

use super::ask::LONG;
use crate::client::Connection;
use crate::gateway::Gateway;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tabane_sim::comfy::{ComfyNode, Saw};
use tempfile::TempDir;
use tokio::time::timeout;

pub struct Farm {
    pub nodes: Vec<ComfyNode>,
    pub gateway: Gateway,
    data: TempDir,
}

// === impl Farm ===

impl Farm {
    /// All of the nodes are well and known when this returns.
    pub async fn start(tabane: &Path, nodes: Vec<ComfyNode>) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let text = file(data.path(), &nodes);
        let gateway = Gateway::start_with(tabane, "/queue", move |_| text.clone()).await?;
        for node in &nodes {
            let is_heard = |saw: &[Saw]| saw.iter().any(|saw| matches!(saw, Saw::Opened { .. }));
            let heard = timeout(LONG, node.until(is_heard)).await;
            heard.context("the gateway does not listen to a node")?;
        }
        let farm = Farm {
            nodes,
            gateway,
            data,
        };
        // It asks those that have not said yet what they can do.
        farm.connect().await?.get("/object_info").await?;
        Ok(farm)
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.running.address
    }

    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address()).await
    }

    /// Where the gateway keeps its files.
    pub fn folder(&self, kind: &str) -> PathBuf {
        self.data.path().join("services/image").join(kind)
    }

    /// A folder on the disk that the gateway writes to.
    pub fn disk(&self) -> &Path {
        self.data.path()
    }

    pub async fn end(self) -> Result<()> {
        self.gateway.running.end().await
    }
}

fn file(data: &Path, nodes: &[ComfyNode]) -> String {
    let (mut lines, mut pool) = (String::new(), Vec::new());
    for (i, node) in nodes.iter().enumerate() {
        // Into a text, everything can be written.
        let _ = writeln!(lines, "  node-{i}: {{url: \"{}\"}}", node.url());
        pool.push(format!("node-{i}"));
    }
    let (data, pool) = (data.display(), pool.join(", "));
    format!(
        "data_dir: {data}\nlimits: {{connections: 20000, connections_per_address: 20000}}\nnodes:\n{lines}services:\n  image:\n    pool: [{pool}]\n    kind: {{comfyui: {{}}}}\n    jobs: {{max: 10000}}\n    routes: [/]\n"
    )
}
