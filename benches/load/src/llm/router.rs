//! What stands before the engines.

use super::engines::MODEL;
use crate::rivals::{Running, free_port};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

/// smg's two that did best, as llm-d and others name them: with a difference of load that matters on four engines.
pub const POLICIES: [&str; 2] = ["cache_aware", "least_load"];

/// A router.
pub enum Router {
    /// The gateway.
    Tabane(PathBuf),
    /// smg, by one of its policies.
    Smg(PathBuf, &'static str),
}

impl Router {
    pub fn name(&self) -> String {
        match self {
            Router::Tabane(_) => "tabane".into(),
            Router::Smg(_, policy) => format!("smg {policy}"),
        }
    }

    /// Starts it, and waits until it serves.
    pub async fn start(&self, engines: &[u16]) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let mut command = match self {
            Router::Tabane(tabane) => {
                let mut text = format!(
                    "listen: [\"127.0.0.1:{port}\"]\nlog: {{access: false}}\nservices:\n  chat:\n    kind: {{llm: {{}}}}\n    health: {{interval: 1s}}\n    routes: [/]\n    pool:\n"
                );
                for engine in engines {
                    let _ = writeln!(text, "      - http://127.0.0.1:{engine}");
                }
                let file = folder.path().join("tabane.yaml");
                fs::write(&file, text)?;
                let mut command = Command::new(tabane);
                command.arg("run").arg("-c").arg(file);
                command
            }
            Router::Smg(smg, policy) => {
                let (metrics, health) = (free_port()?, free_port()?);
                let mut command = Command::new(smg);
                command.args(["launch", "--host", "127.0.0.1", "--log-level", "error"]);
                command.args(["--port", &port.to_string(), "--policy", policy]);
                command.args(["--prometheus-port", &metrics.to_string()]);
                command.args(["--health-check-port", &health.to_string()]);
                // Its own default never finds four engines out of balance.
                command.args(["--balance-abs-threshold", "4"]);
                command.args(["--load-monitor-interval", "1"]);
                command.args(["--disable-tokenizer-autoload", "--worker-urls"]);
                command.args(
                    engines
                        .iter()
                        .map(|port| format!("http://127.0.0.1:{port}")),
                );
                command
            }
        };
        command.stdout(Stdio::null());
        let mut running = Running::begin(command, folder, port)
            .with_context(|| format!("cannot start {}", self.name()))?;
        running.answers_at(&self.name(), "/v1/models").await?;
        Ok(running)
    }
}

/// A body that all of them take.
pub fn body(messages: &str, max_tokens: u32, session: &str) -> String {
    format!(
        "{{\"model\":\"{MODEL}\",\"messages\":[{messages}],\"max_tokens\":{max_tokens},\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\"user\":\"{session}\"}}"
    )
}
