use super::report;
use crate::app::{App, Source, default_path};
use crate::simulate::{
    Change, Farm, Known, Options, Recorded, Report, Setup, Shape, Table, Trace, What, same_card,
};
use crate::store::SqliteStore;
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What would be simulated.
#[derive(Args)]
pub(super) struct SimulateArgs {
    /// The configuration file; not needed with a `--times` that names nodes
    #[arg(short, long, env = "TABANE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long work takes: a table of classes and cards (YAML). Else what the trace says, and what a gateway learned
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,
    /// Times as a gateway learned them, from this data directory instead of the configuration's
    #[arg(long, value_name = "DIR")]
    learned: Option<PathBuf>,
    /// Who asked, and when: JSON lines, or the gateway's log
    #[arg(long, value_name = "FILE", group = "shape")]
    trace: Option<PathBuf>,
    /// Work that comes independently, at this share of what the nodes could do at most; 0.7 if nothing else is said
    #[arg(long, value_name = "SHARE", group = "shape")]
    poisson: Option<f64>,
    /// The same, with three times as much in six minutes of each hour
    #[arg(long, value_name = "SHARE", group = "shape")]
    bursts: Option<f64>,
    /// So many jobs at once
    #[arg(long, value_name = "JOBS", group = "shape")]
    batch: Option<usize>,
    /// 2000 jobs of one tenant at once, and single ones of another beside them
    #[arg(long, group = "shape")]
    flood: bool,
    /// How many jobs, where they come by chance
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    jobs: usize,
    /// Of chance: the same seed, the same report
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The policy of all services, as in a configuration: a name, or `{name: {…}}`
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Tell the scheduler how large each job is, as a kind may
    #[arg(long)]
    told_sizes: bool,
    /// What if there were one more: a node like those with this card; several times for several
    #[arg(long, value_name = "[NODE=]GPU")]
    add: Vec<String>,
    /// What if this node were not there
    #[arg(long, value_name = "NODE")]
    remove: Vec<String>,
    /// A node that goes down with all it is at, so many seconds from the beginning
    #[arg(long, value_name = "NODE@SECONDS")]
    lose: Vec<String>,
    /// Jobs that are not counted, while times are learned
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the gateway's decisions on virtual time and prints what came of it.
pub(super) fn simulate(app: &App, args: &SimulateArgs) -> ExitCode {
    match run(app, args) {
        Ok(printed) => {
            println!("{}", printed.trim_end());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(app: &App, args: &SimulateArgs) -> Result<String, String> {
    let recorded = args.trace.as_deref().map(read_trace).transpose()?;
    let table = args.times.as_deref().map(read_table).transpose()?;
    let mut setup = before(app, args, table.as_ref(), recorded.as_ref())?;
    if let Some(policy) = &args.policy {
        setup = setup.with_policy(app.registry().clone(), policy)?;
    }
    let trace = match (&recorded, &args.trace) {
        (Some(recorded), Some(file)) => recorded.trace(&setup).map_err(in_file(file))?,
        _ => Trace::draw(
            shape(args)?,
            &setup,
            args.batch.unwrap_or(args.jobs),
            args.seed,
        )?,
    };
    if args.skip >= trace.arrivals.len() {
        return Err(format!("--skip: there are {} jobs", trace.arrivals.len()));
    }
    let was = report_of(&setup, &trace, args)?;
    if args.add.is_empty() && args.remove.is_empty() {
        return match args.json {
            true => json(&was),
            false => Ok(was.table()),
        };
    }
    let is = report_of(&after(setup, args, table.as_ref())?, &trace, args)?;
    match args.json {
        true => json(&serde_json::json!({"before": was, "after": is})),
        false => Ok(was.beside(&is)),
    }
}

/// The farm as it is.
fn before(
    app: &App,
    args: &SimulateArgs,
    table: Option<&Table>,
    recorded: Option<&Recorded>,
) -> Result<Setup, String> {
    if let (None, Some(table)) = (&args.config, table)
        && !table.nodes.is_empty()
    {
        let policy = args.policy.as_deref().unwrap_or("match");
        return Setup::of_table(table, app.registry(), policy);
    }
    let file = args.config.as_deref().unwrap_or(default_path());
    let loaded = app.load(&Source::File(file.to_owned()));
    let loaded = loaded.map_err(|problems| {
        report(&problems, "");
        format!("{}: it cannot be simulated", file.display())
    })?;
    let data_dir = args.learned.clone().or(loaded.plan.data_dir.clone());
    let setup = Setup::of_plan(loaded.plan)?;
    if let Some(table) = table {
        return setup.with_table(table);
    }
    let mut known = Known::default();
    if let Some(dir) = data_dir {
        let times = SqliteStore::look_at_times(&dir).map_err(|error| error.to_string())?;
        known.import(times);
    }
    if let (Some(recorded), Some(file)) = (recorded, &args.trace) {
        known.learn(recorded, &setup).map_err(in_file(file))?;
    }
    known.into_setup(setup)
}

/// The farm as it would be.
fn after(mut setup: Setup, args: &SimulateArgs, table: Option<&Table>) -> Result<Setup, String> {
    for node in &args.remove {
        setup = setup.without(node)?;
    }
    for (i, add) in args.add.iter().enumerate() {
        let (name, gpu) = match add.split_once('=') {
            Some((name, gpu)) => (name.to_owned(), gpu),
            None => (format!("added-{}", i + 1), add.as_str()),
        };
        let alike = |node: &usize| {
            same_card(&setup.plan.nodes[*node].facts.gpu, gpu) && setup.is_used(*node)
        };
        let like = (0..setup.plan.nodes.len()).find(alike);
        match (like, table) {
            (Some(like), _) => {
                let like = setup.plan.nodes[like].facts.name.clone();
                setup.add(&name, &like)?;
            }
            (None, Some(table)) => setup.add_card(&name, gpu, table)?,
            (None, None) => {
                return Err(format!(
                    "--add {add}: no node has such a card, so nothing is known of its times; give `--times FILE`"
                ));
            }
        }
    }
    Ok(setup)
}

fn report_of(setup: &Setup, trace: &Trace, args: &SimulateArgs) -> Result<Report, String> {
    let changes = args.lose.iter().map(|lose| {
        let parts = lose.rsplit_once('@');
        let parts = parts.and_then(|(node, at_s)| Some((node, at_s.parse::<f64>().ok()?)));
        let (node, at_s) = parts.ok_or_else(|| format!("--lose {lose}: say NODE@SECONDS"))?;
        Ok(Change {
            at_s,
            node: node.into(),
            what: What::Lost,
        })
    });
    let changes: Vec<Change> = changes.collect::<Result<_, String>>()?;
    let options = Options {
        seed: args.seed,
        told_sizes: args.told_sizes,
        stopwatch: false,
    };
    let outcome = Farm::run(setup, trace, &changes, options)?;
    Ok(Report::of(setup, trace, &outcome, args.skip))
}

fn shape(args: &SimulateArgs) -> Result<Shape, String> {
    let shape = match (args.poisson, args.bursts, args.batch, args.flood) {
        (Some(load), ..) => Shape::Poisson(load),
        (_, Some(load), ..) => Shape::Bursts(load),
        (_, _, Some(_), _) => Shape::Batch,
        (.., true) => Shape::Flood,
        _ => Shape::Poisson(0.7),
    };
    match shape {
        Shape::Poisson(load) | Shape::Bursts(load) if !(load > 0.0 && load.is_finite()) => {
            Err("a share of what the nodes could do is above 0, such as 0.7".into())
        }
        shape => Ok(shape),
    }
}

fn read_trace(file: &Path) -> Result<Recorded, String> {
    let text = fs::read_to_string(file).map_err(cannot_read(file))?;
    Recorded::read(&text).map_err(in_file(file))
}

fn read_table(file: &Path) -> Result<Table, String> {
    let text = fs::read_to_string(file).map_err(cannot_read(file))?;
    Table::read(&text).map_err(in_file(file))
}

fn cannot_read(file: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("cannot read `{}`: {error}", file.display())
}

fn in_file(file: &Path) -> impl Fn(String) -> String {
    move |why| format!("{}: {why}", file.display())
}

fn json(of: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(of).map_err(|error| error.to_string())
}
