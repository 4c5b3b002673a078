//! `tabane jobs cancel`, `retry` and `purge`.

use super::found::Found;
use super::words::{is_over, state, text};
use crate::cli::remote::{Ask, Remote, done};
use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use tabane_api::JobState;

/// How long a purge may go on without a word: it deletes one job after the other and answers at the end.
const PURGE: Duration = Duration::from_secs(3600);

#[derive(Args)]
pub(super) struct PurgeArgs {
    /// Only those in these states; without it, all that are over
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    /// Only those that were over so long ago, such as `24h`
    #[arg(long, value_name = "TIME")]
    older: Option<humantime::Duration>,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Only those of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Does something to each; good when all went well.
pub(super) fn each(ids: &[String], act: impl Fn(&str) -> Result<()>) -> ExitCode {
    let mut bad = 0_usize;
    for id in ids {
        if let Err(error) = act(id) {
            eprintln!("tabane: `{id}`: {error:#}");
            bad += 1;
        }
    }
    match bad {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Takes a job back, or those of an array that are not over.
pub(super) fn cancel(remote: &Remote, id: &str) -> Result<()> {
    let found = Found::by_id(remote, id)?;
    // To cancel what is over would delete it, and its results with it.
    match state(&found.document) {
        Some(JobState::Canceled) => {
            println!("`{id}` was canceled before");
            return Ok(());
        }
        Some(state) if state.is_over() => bail!("it is over: {state}"),
        _ => {}
    }
    let document = match found.is_array() {
        true => remote.json(&Ask::new(Method::DELETE, &found.path))?,
        false => remote.json(&Ask::new(Method::POST, &format!("{}/cancel", found.path)))?,
    };
    match is_over(&document) {
        true => println!("`{id}` is canceled"),
        false => println!("`{id}` is being canceled: its node is told to stop"),
    }
    Ok(())
}

/// Lets a job wait again, or those of an array that did not succeed.
pub(super) fn retry(remote: &Remote, id: &str) -> Result<()> {
    let found = Found::by_id(remote, id)?;
    let path = format!("{}/retry", found.path);
    let document = remote.json(&Ask::new(Method::POST, &path))?;
    println!("`{id}` is {}", text(&document["state"]));
    Ok(())
}

/// Deletes jobs that are over.
pub(super) fn purge(remote: &Remote, args: &PurgeArgs) -> ExitCode {
    if !args.yes {
        if !io::stdin().is_terminal() {
            eprintln!("tabane: nobody is there to be asked; say --yes");
            return ExitCode::from(2);
        }
        if !agreed(args) {
            println!("nothing was deleted");
            return ExitCode::FAILURE;
        }
    }
    let path = format!("/api/v1/jobs/purge?{}", query(args));
    let ask = Ask {
        silence: PURGE,
        ..Ask::new(Method::POST, &path)
    };
    done(
        remote
            .json(&ask)
            .map(|purged| match purged["deleted"].as_u64() {
                Some(1) => println!("1 job was deleted"),
                count => println!("{} jobs were deleted", count.unwrap_or_default()),
            }),
    )
}

fn agreed(args: &PurgeArgs) -> bool {
    print!("{} [y/N] ", question(args));
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// What is asked before anything is deleted.
fn question(args: &PurgeArgs) -> String {
    let mut which = match &args.state {
        Some(state) => format!("jobs that are {}", state.replace(',', " or ")),
        None => "jobs that are over, whatever they came to,".to_owned(),
    };
    if let Some(service) = &args.service {
        which.push_str(&format!(" of the service `{service}`"));
    }
    if let Some(tenant) = &args.tenant {
        which.push_str(&format!(" of the tenant `{tenant}`"));
    }
    if let Some(older) = &args.older {
        which.push_str(&format!(" and ended more than {older} ago"));
    }
    format!("Delete all {which} and their results?")
}

fn query(args: &PurgeArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let older = args.older.map(|older| older.to_string());
    for (name, value) in [
        ("state", &args.state),
        ("older", &older),
        ("service", &args.service),
        ("tenant", &args.tenant),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_says_all_that_it_would_delete_before_it_does() {
        let mut args = PurgeArgs {
            state: None,
            older: None,
            service: None,
            tenant: None,
            yes: false,
        };
        let wants = "Delete all jobs that are over, whatever they came to, and their results?";
        assert_eq!(question(&args), wants);
        args.state = Some("dead,failed".into());
        args.service = Some("render".into());
        args.older = Some("24h".parse().unwrap());
        let wants = "Delete all jobs that are dead or failed of the service `render` and ended more than 1day ago \
                     and their results?";
        assert_eq!(question(&args), wants);
        assert_eq!(
            query(&args),
            "state=dead%2Cfailed&older=1day&service=render"
        );
    }
}
