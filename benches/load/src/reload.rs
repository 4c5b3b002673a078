//! What a reload costs with many nodes, and what many reloads leave behind.

use crate::gateway::Gateway;
use crate::rivals::nodes;
use crate::table::{Table, median};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;

const MANY: usize = 1000;
const FEW: usize = 20;
const AGAIN: usize = 5000;
/// Reloads until what a gateway keeps anyway is there.
const WARM: usize = 500;

pub async fn run(tabane: &Path, table: &mut Table) -> Result<()> {
    let (nodes, ports) = nodes(MANY).await?;
    cost(tabane, &ports, table).await?;
    memory(tabane, &ports[..FEW], table).await?;
    nodes.end().await
}

async fn cost(tabane: &Path, ports: &[u16], table: &mut Table) -> Result<()> {
    let gateway = Gateway::start(tabane, config(ports)).await?;
    let mut times = Vec::new();
    for n in 1..=50 {
        times.push(gateway.reload(n).await?.as_secs_f64() * 1e3);
    }
    let longest = times.iter().copied().fold(0.0, f64::max);
    let middle = median(times);
    table.line(format!(
        "A reload that changes {MANY} of {MANY} nodes takes {middle:.0} ms, at most {longest:.0} ms of 50."
    ));
    gateway.running.end().await
}

async fn memory(tabane: &Path, ports: &[u16], table: &mut Table) -> Result<()> {
    let gateway = Gateway::start(tabane, config(ports)).await?;
    let tree = gateway.running.tree()?;
    let mut warm = 0;
    for n in 1..=AGAIN {
        gateway
            .reload(n)
            .await
            .with_context(|| format!("reload {n}"))?;
        if n == WARM {
            warm = tree.memory()?;
        }
    }
    let end = tree.memory()?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    table.line(format!(
        "Memory is {:.1} MB after {WARM} reloads of {FEW} nodes, and {:.1} MB after {AGAIN}.",
        mb(warm),
        mb(end)
    ));
    gateway.running.end().await
}

/// A file in which every reload changes something of every node.
fn config(ports: &[u16]) -> impl Fn(usize) -> String + use<> {
    let ports = ports.to_vec();
    move |n| {
        let mut text = String::from("nodes:\n");
        for (i, port) in ports.iter().enumerate() {
            let vram = 8 + (n + i) % 17;
            let _ = writeln!(
                text,
                "  node-{i}: {{url: \"http://127.0.0.1:{port}\", slots: 4, gpu: {{model: RTX 4090, vram: {vram}GiB}}, labels: {{site: a}}}}"
            );
        }
        text.push_str("pools:\n  all:\n");
        for i in 0..ports.len() {
            let weight = 1 + (n + i) % 5;
            let _ = writeln!(text, "    - {{endpoint: node-{i}, weight: {weight}}}");
        }
        text.push_str("services:\n  any: {kind: http, pool: all, routes: [/]}\n");
        text
    }
}
