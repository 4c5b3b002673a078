//! The commands. Exit codes: 0 good, 1 bad, 2 usage.

mod admin;
mod explain;
mod jobs;
mod manager;
mod quick;
mod remote;
mod run;
mod simulate;

use crate::app::{App, Source, default_path};
use crate::config::{self, Problem};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes many GPU servers look like one.
#[derive(Parser)]
#[command(name = "tabane", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run(FileArgs),
    /// Check a configuration: prints every problem, exits 0 when there is none
    Check(FileArgs),
    /// Run a gateway in front of some URLs, without a file
    Quick(quick::QuickArgs),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Ask a running gateway whether it is ready: exits 0 or 1, for containers
    Healthcheck(AdminArgs),
    /// List nodes, or take one out of work and back in
    Nodes(admin::NodesArgs),
    /// List, follow, cancel and fetch jobs of a running gateway
    Jobs(jobs::JobsArgs),
    /// List what answers used: tokens by day, tenant, model and node
    Usage(admin::UsageArgs),
    /// Have a running gateway read its files again
    Reload(AdminArgs),
    /// Say why a request would go where it would go
    Explain(admin::ExplainArgs),
    /// Say what waiting, throughput and cost would be: the gateway's decisions on virtual time
    Simulate(simulate::SimulateArgs),
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which configuration.
#[derive(Args, Clone)]
struct FileArgs {
    /// The configuration file
    #[arg(short, long, env = "TABANE_CONFIG", value_name = "FILE", default_value = default_path().as_os_str(),
        global = true)]
    config: PathBuf,
}

/// Which running gateway.
#[derive(Args, Clone)]
struct AdminArgs {
    /// Its admin address; without it, the configuration's
    #[arg(long, env = "TABANE_ADMIN", value_name = "HOST:PORT", global = true)]
    admin: Option<String>,
    /// Its admin token; without it, the configuration's
    #[arg(
        long,
        env = "TABANE_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        global = true
    )]
    token: Option<String>,
    #[command(flatten)]
    file: FileArgs,
}

impl App {
    /// Runs the command line; returns when the command is done, or the gateway has ended.
    pub fn main(self) -> ExitCode {
        let app = self;
        // clap exits with 2 on what it does not understand, and with 0 after help.
        let cli = Cli::parse();
        match cli.command {
            Command::Run(args) => run::run(&app, Source::File(args.config)),
            Command::Check(args) => check(&app, args),
            Command::Quick(args) => quick::quick(&app, &args),
            Command::Schema => print(&config::schema(app.registry())),
            Command::Healthcheck(args) => admin::healthcheck(&app, &args),
            Command::Nodes(args) => admin::nodes(&app, &args),
            Command::Jobs(args) => jobs::jobs(&app, &args),
            Command::Usage(args) => admin::usage(&app, &args),
            Command::Reload(args) => admin::reload(&app, &args),
            Command::Explain(args) => admin::explain(&app, &args),
            Command::Simulate(args) => simulate::simulate(&app, &args),
            Command::Version { json } => version(json),
        }
    }
}

fn check(app: &App, args: FileArgs) -> ExitCode {
    match app.load(&Source::File(args.config)) {
        Ok(loaded) => {
            report(&loaded.warnings, "warning: ");
            let plan = &loaded.plan;
            println!(
                "ok: {} nodes, {} endpoints, {} services, {} listeners",
                plan.nodes.len(),
                plan.endpoints.len(),
                plan.services.len(),
                plan.listeners.len()
            );
            ExitCode::SUCCESS
        }
        Err(problems) => {
            report(&problems, "");
            ExitCode::FAILURE
        }
    }
}

/// Prints problems, one a line.
fn report(problems: &[Problem], prefix: &str) {
    for problem in problems {
        eprintln!("{prefix}{problem}");
    }
}

fn version(json: bool) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        return print(&serde_json::json!({"name": "tabane", "version": version}));
    }
    println!("tabane {version}");
    ExitCode::SUCCESS
}

fn print(value: &serde_json::Value) -> ExitCode {
    println!("{value:#}");
    ExitCode::SUCCESS
}
