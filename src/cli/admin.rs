//! Commands that talk to a running gateway.

use super::AdminArgs;
use super::remote::{Remote, done, percent};
use crate::app::App;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct NodesArgs {
    #[command(subcommand)]
    what: Option<NodesCommand>,
    #[command(flatten)]
    at: AdminArgs,
}

#[derive(Subcommand)]
enum NodesCommand {
    /// List them
    List,
    /// Give a node no new work; kept over reload and restart
    Drain {
        /// Its name
        name: String,
    },
    /// Give it work again
    Undrain {
        /// Its name
        name: String,
    },
}

#[derive(Args)]
pub(super) struct ExplainArgs {
    /// The service
    service: String,
    /// The path asked for
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    at: AdminArgs,
}

/// Exits 0 when the gateway is ready.
pub(super) fn healthcheck(app: &App, args: &AdminArgs) -> ExitCode {
    done(
        Remote::find(app, args)
            .and_then(|remote| remote.get("/readyz"))
            .map(|_| println!("ready")),
    )
}

/// Lists nodes, or drains one.
pub(super) fn nodes(app: &App, args: &NodesArgs) -> ExitCode {
    let asked = Remote::find(app, &args.at).and_then(|remote| match &args.what {
        None | Some(NodesCommand::List) => {
            let nodes: Value = serde_json::from_str(&remote.get("/api/v1/nodes")?)?;
            list(&nodes);
            Ok(())
        }
        Some(NodesCommand::Drain { name }) => {
            remote.post(&format!("/api/v1/nodes/{name}/drain"))?;
            println!("`{name}` gets no new work; what it is at goes on");
            Ok(())
        }
        Some(NodesCommand::Undrain { name }) => {
            remote.post(&format!("/api/v1/nodes/{name}/undrain"))?;
            println!("`{name}` gets work again");
            Ok(())
        }
    });
    done(asked)
}

/// Has the gateway read its files again.
pub(super) fn reload(app: &App, args: &AdminArgs) -> ExitCode {
    let asked = Remote::find(app, args).and_then(|remote| {
        let applied: Value = serde_json::from_str(&remote.post("/api/v1/reload")?)?;
        println!(
            "generation {}\n{:#}",
            applied["generation"], applied["diff"]
        );
        Ok(())
    });
    done(asked)
}

/// Says why a request would go where it would go.
pub(super) fn explain(app: &App, args: &ExplainArgs) -> ExitCode {
    let asked = Remote::find(app, &args.at).and_then(|remote| {
        let query = |text: &str| percent(text);
        let told: Value = serde_json::from_str(&remote.get(&format!(
            "/api/v1/explain?service={}&path={}",
            query(&args.service),
            query(&args.path)
        ))?)?;
        println!(
            "{:<28} {:>6} {:>5} {:>8}  verdict",
            "endpoint", "weight", "used", "load"
        );
        for candidate in told["candidates"].as_array().into_iter().flatten() {
            let name = candidate["endpoint"].as_str().unwrap_or_default();
            let used = format!("{}/{}", candidate["used"], candidate["slots"]);
            let verdict = match candidate["excluded"].as_str() {
                Some(why) => why,
                None if told["would_pick"].as_str() == Some(name) => "picked",
                None => "",
            };
            println!(
                "{name:<28} {:>6} {used:>5} {:>8.3}  {verdict}",
                candidate["weight"],
                candidate["load"].as_f64().unwrap_or_default()
            );
        }
        let pick = told["would_pick"].as_str().map_or_else(
            || "it would wait".to_owned(),
            |pick| format!("it would go to {pick}"),
        );
        println!(
            "policy {}, class {}: {pick}; {} waiting",
            told["policy"], told["class"], told["waiting"]
        );
        Ok(())
    });
    done(asked)
}

fn list(nodes: &Value) {
    println!(
        "{:<28} {:<10} {:>9} {:>7} {:<12}  last error",
        "endpoint", "state", "at work", "vram", "card"
    );
    for node in nodes.as_array().into_iter().flatten() {
        for endpoint in node["endpoints"].as_array().into_iter().flatten() {
            let at_work = format!("{}/{}", endpoint["at_work"], endpoint["slots"]);
            let vram = node["vram_mib"]
                .as_u64()
                .filter(|mib| *mib > 0)
                .map(|mib| format!("{} GiB", mib / 1024))
                .unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            println!(
                "{:<28} {:<10} {at_work:>9} {vram:>7} {:<12}  {}",
                text(&endpoint["name"]),
                text(&endpoint["state"]),
                text(&endpoint["card"]),
                text(&endpoint["last_error"])
            );
        }
    }
}
