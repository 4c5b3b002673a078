//! Commands that talk to a running gateway.

use super::AdminArgs;
use super::explain;
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
    /// The service, for a request that nobody made yet
    #[arg(required_unless_present_any = ["job", "request"])]
    service: Option<String>,
    /// The path asked for
    #[arg(default_value = "/")]
    path: String,
    /// Its class, where the path does not say
    #[arg(long)]
    class: Option<String>,
    /// The model it needs
    #[arg(long)]
    model: Option<String>,
    /// How much work it is
    #[arg(long)]
    size: Option<f64>,
    /// Who would ask
    #[arg(long)]
    tenant: Option<String>,
    /// A job, that waits or has run
    #[arg(long, value_name = "ID", conflicts_with_all = ["service", "request"])]
    job: Option<String>,
    /// A request, by its X-Request-Id
    #[arg(long, value_name = "ID", conflicts_with = "service")]
    request: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AdminArgs,
}

#[derive(Args)]
pub(super) struct UsageArgs {
    /// The first day, in UTC (2026-11-27); without it, the last one
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day; without it, today
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
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

/// Lists what answers used.
pub(super) fn usage(app: &App, args: &UsageArgs) -> ExitCode {
    done(Remote::find(app, &args.at).and_then(|remote| {
        let days = [("from", &args.from), ("to", &args.to)];
        let said = days.iter().filter_map(|(name, value)| {
            let value = value.as_deref()?;
            Some(format!("{name}={}", percent(value)))
        });
        let query = said.collect::<Vec<_>>().join("&");
        let mut told: Value =
            serde_json::from_str(&remote.get(&format!("/api/v1/usage?{query}"))?)?;
        if let (Some(tenant), Some(rows)) = (&args.tenant, told["usage"].as_array_mut()) {
            rows.retain(|row| row["tenant"] == tenant.as_str());
        }
        match args.json {
            true => println!("{told:#}"),
            false => table(&told["usage"]),
        }
        Ok(())
    }))
}

fn table(rows: &Value) {
    println!(
        "{:<10} {:<14} {:<14} {:<28} {:<14} {:>8} {:>12} {:>12} {:>12}",
        "day", "service", "tenant", "model", "node", "requests", "read", "cached", "made"
    );
    for row in rows.as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        println!(
            "{:<10} {:<14} {:<14} {:<28} {:<14} {:>8} {:>12} {:>12} {:>12}",
            text("day"),
            text("service"),
            text("tenant"),
            text("model"),
            text("node"),
            row["requests"],
            row["read"],
            row["cached"],
            row["made"]
        );
    }
}

/// Says why a request would go where it would go.
pub(super) fn explain(app: &App, args: &ExplainArgs) -> ExitCode {
    done(Remote::find(app, &args.at).and_then(|remote| {
        let text = remote.get(&format!("/api/v1/explain?{}", args.query()))?;
        if args.json {
            println!("{text}");
        } else {
            explain::print(&serde_json::from_str(&text)?);
        }
        Ok(())
    }))
}

impl ExplainArgs {
    fn query(&self) -> String {
        let size = self.size.map(|size| size.to_string());
        let path = self.service.is_some().then(|| self.path.clone());
        let all = [
            ("service", &self.service),
            ("path", &path),
            ("class", &self.class),
            ("model", &self.model),
            ("size", &size),
            ("tenant", &self.tenant),
            ("job", &self.job),
            ("request", &self.request),
        ];
        let said = all.iter().filter_map(|(name, value)| {
            let value = value.as_deref()?;
            Some(format!("{name}={}", percent(value)))
        });
        said.collect::<Vec<_>>().join("&")
    }
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
