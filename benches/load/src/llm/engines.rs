//! The engines: a process of their own, so that what they do is nobody else's time.

use super::{Farm, quick};
use crate::rivals::Running;
use anyhow::{Context, Result};
use std::process::Stdio;
use tabane_sim::llm::{LlmKnobs, LlmNode, Spec};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The model of all of them.
pub const MODEL: &str = "qwen3-8b";

/// Prompt tokens a second, milliseconds a step and for each stream beside it, requests at once.
type Speed = (f64, f64, f64, usize);
const FAST: Speed = (20_000.0, 8.0, 0.15, 48);
const MIDDLING: Speed = (8_000.0, 13.0, 0.4, 24);
const SLOW: Speed = (2_500.0, 28.0, 1.5, 8);

/// Engines that run.
pub struct Engines {
    running: Running,
    pub ports: Vec<u16>,
}

impl Engines {
    /// Starts them anew: nothing is computed yet.
    pub async fn start(farm: Farm) -> Result<Engines> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = match farm {
            Farm::Unequal => "unequal",
            Farm::Equal => "equal",
            Farm::Quick => "quick",
        };
        command.args(["engines", name]).stdout(Stdio::piped());
        let mut running = Running::begin(command, tempfile::tempdir()?, 0)?;
        let said = running.output().context("the engines have no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).await?;
        let ports = line.split_whitespace().map(str::parse);
        let ports = ports.collect::<Result<Vec<u16>, _>>()?;
        running
            .address
            .set_port(*ports.first().context("the engines told no port")?);
        Ok(Engines { running, ports })
    }

    pub async fn end(self) -> Result<()> {
        self.running.end().await
    }
}

/// Runs them until they are told to end.
pub async fn serve(farm: Farm) -> Result<()> {
    let speeds = match farm {
        Farm::Quick => return quick::serve(2).await,
        Farm::Unequal => [FAST, MIDDLING, MIDDLING, SLOW],
        Farm::Equal => [MIDDLING; 4],
    };
    let mut nodes = Vec::new();
    for (n, (prefill_tps, step_ms, step_ms_per_stream, slots)) in speeds.into_iter().enumerate() {
        let knobs = LlmKnobs {
            prefill_tps,
            step_ms,
            step_ms_per_stream,
            ..LlmKnobs::default()
        };
        let mut spec = Spec::vllm(&format!("n{n}"), MODEL)
            .slots(slots)
            .knobs(knobs);
        spec.tells_hits = true;
        for model in &mut spec.models {
            model.context = 32 * 1024;
        }
        nodes.push(LlmNode::start(spec).await?);
    }
    let ports: Vec<String> = nodes.iter().map(|n| n.addr().port().to_string()).collect();
    println!("{}", ports.join(" "));
    std::future::pending().await
}
