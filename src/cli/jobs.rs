//! Commands about jobs. They ask the admin API as clients ask theirs, over all tenants.
//!
//! An id is that of a job or of an array of jobs: when no job has it, an array is asked for.

mod bar;
mod change;
mod found;
mod list;
mod logs;
mod result;
mod show;
mod table;
mod wait;
mod words;

use super::AdminArgs;
use super::remote::{Remote, done};
use crate::app::App;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct JobsArgs {
    #[command(subcommand)]
    what: JobsCommand,
    #[command(flatten)]
    at: AdminArgs,
}

#[derive(Subcommand)]
enum JobsCommand {
    /// List them, the newest first
    List(list::ListArgs),
    /// Say all that is known of one
    Show(show::ShowArgs),
    /// Wait until they are over: exits 0 when all succeeded
    Wait(wait::WaitArgs),
    /// Print what the backend of one logged
    Logs(logs::LogsArgs),
    /// Fetch the result of one
    Result(result::ResultArgs),
    /// Take them back; what is over stays as it is
    Cancel(Ids),
    /// Let them wait again; those that succeeded cannot
    Retry(Ids),
    /// Delete jobs that are over, with their results
    Purge(change::PurgeArgs),
}

/// Of a job or an array.
#[derive(Args)]
struct Id {
    /// Its id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    id: String,
}

/// Of jobs and arrays.
#[derive(Args)]
struct Ids {
    /// Their ids
    #[arg(required = true, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
}

/// Does what is asked about jobs.
pub(super) fn jobs(app: &App, args: &JobsArgs) -> ExitCode {
    let remote = match Remote::find(app, &args.at) {
        Ok(remote) => remote,
        Err(error) => return done(Err(error)),
    };
    match &args.what {
        JobsCommand::List(list) => done(list::list(&remote, list)),
        JobsCommand::Show(show) => done(show::show(&remote, show)),
        JobsCommand::Wait(wait) => wait::wait(&remote, wait),
        JobsCommand::Logs(logs) => done(logs::logs(&remote, logs)),
        JobsCommand::Result(result) => done(result::result(&remote, result)),
        JobsCommand::Cancel(Ids { ids }) => change::each(ids, |id| change::cancel(&remote, id)),
        JobsCommand::Retry(Ids { ids }) => change::each(ids, |id| change::retry(&remote, id)),
        JobsCommand::Purge(purge) => change::purge(&remote, purge),
    }
}
