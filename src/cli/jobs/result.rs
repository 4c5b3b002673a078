//! `tabane jobs result`.

use super::Id;
use super::found::{is_missing, is_passing, segment};
use crate::cli::remote::{Ask, Remote, refusal};
use anyhow::{Context, Error, Result, anyhow, bail};
use clap::Args;
use http::{Method, Response, StatusCode, header};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use tabane_api::JobState;
use ureq::Body;

/// How often a download that got no further is tried again.
const TRIES: u32 = 60;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How much is read at once.
const PIECE: usize = 64 << 10;

#[derive(Args)]
pub(super) struct ResultArgs {
    #[command(flatten)]
    of: Id,
    /// Write it to this file, which is there only once it is whole; without it, to the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Downloads the result of a job, or the results of an array as one zip.
///
/// Errors: there is none, it cannot be fetched, or the job did not succeed; what its node answered is written then, too.
pub(super) fn result(remote: &Remote, args: &ResultArgs) -> Result<()> {
    let id = segment(&args.of.id);
    let path = format!("/api/v1/jobs/{id}/result");
    let begun = match begin(remote, &path, 0) {
        Err(no_job) if is_missing(&no_job) => {
            let path = format!("/api/v1/arrays/{id}/results.zip");
            match begin(remote, &path, 0) {
                Err(no_array) if is_missing(&no_array) => Err(no_job),
                begun => begun.map(|begun| (path, begun)),
            }
        }
        begun => begun.map(|begun| (path, begun)),
    };
    let (path, begun) = begun?;
    let state = state(&begun);
    let status = begun.status();
    let download = Download {
        remote,
        path: &path,
        length: length(&begun),
        resumes: status == StatusCode::OK && begun.headers().contains_key(header::ACCEPT_RANGES),
    };
    match &args.output {
        Some(file) => download.to_file(begun, file)?,
        None => download.to_stdout(begun)?,
    }
    match state {
        None | Some(JobState::Succeeded) => Ok(()),
        Some(state) => bail!("the job is {state}: its node answered {status}"),
    }
}

/// Asks for what is there from a byte on. A node's answer of any status is a result; who says so is the job's state in
/// the head.
///
/// Errors: there is no result (yet), or the gateway cannot be asked.
fn begin(remote: &Remote, path: &str, from: u64) -> Result<Response<Body>> {
    let range = format!("bytes={from}-");
    let headers = [("range", range.as_str())];
    let answer = remote.send(&Ask {
        headers: if from > 0 { &headers } else { &[] },
        ..Ask::new(Method::GET, path)
    })?;
    match state(&answer) {
        Some(state) if state.is_over() => Ok(answer),
        Some(state) => Err(anyhow!("there is no result yet: the job is {state}")),
        None if answer.status().is_success() => Ok(answer),
        None => Err(refusal(answer).into()),
    }
}

fn state(answer: &Response<Body>) -> Option<JobState> {
    JobState::from_word(answer.headers().get("job-state")?.to_str().ok()?)
}

fn length(answer: &Response<Body>) -> Option<u64> {
    let length = answer.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Whether an answer goes on where the last one was cut.
fn goes_on(answer: &Response<Body>, from: u64, length: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE);
    let wants = format!("bytes {from}-{}/{length}", length.saturating_sub(1));
    answer.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.as_bytes() == wants.as_bytes())
}

/// A result on its way.
struct Download<'a> {
    remote: &'a Remote,
    path: &'a str,
    /// How long it is, where that is known before.
    length: Option<u64>,
    /// The rest can be asked for when it is cut.
    resumes: bool,
}

// === impl Download ===

impl Download<'_> {
    /// Into a file beside, which takes the name once it is whole.
    fn to_file(&self, begun: Response<Body>, file: &Path) -> Result<()> {
        let what = || format!("cannot write `{}`", file.display());
        let folder = match file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let named = file.file_name().with_context(what)?;
        let mut beside = named.to_owned();
        beside.push(".part");
        let beside = folder.join(beside);
        let mut part = File::create(&beside).with_context(what)?;
        let got = self.to(begun, &mut part);
        let got = got.and_then(|()| {
            part.sync_all().with_context(what)?;
            std::fs::rename(&beside, file).with_context(what)
        });
        if got.is_err() {
            // Half of a result is of no use to anybody.
            let _ = std::fs::remove_file(&beside);
        }
        got
    }

    fn to_stdout(&self, begun: Response<Body>) -> Result<()> {
        let mut out = io::stdout().lock();
        if out.is_terminal() && !is_text(&begun) {
            bail!("the result is not text; name a file with -o, or send it elsewhere");
        }
        self.to(begun, &mut out)?;
        out.flush()?;
        Ok(())
    }

    /// Copies all of it; asks for the rest when it is cut.
    fn to(&self, mut answer: Response<Body>, out: &mut impl Write) -> Result<()> {
        let (mut written, mut tries) = (0_u64, 0);
        loop {
            let before = written;
            let cut = match copy(&mut answer, out, &mut written)? {
                None if self.length.is_none_or(|length| written == length) => return Ok(()),
                None => anyhow!("it ended early"),
                Some(cut) => cut.into(),
            };
            let Some(length) = self.length.filter(|_| self.resumes) else {
                return Err(
                    cut.context("the result broke off, and only the whole can be asked for again")
                );
            };
            if written > before {
                tries = 0;
            }
            answer = self.resume(written, length, &mut tries, cut)?;
        }
    }

    /// The rest of it, once the gateway gives it.
    fn resume(
        &self,
        from: u64,
        length: u64,
        tries: &mut u32,
        mut cut: Error,
    ) -> Result<Response<Body>> {
        while *tries < TRIES {
            *tries += 1;
            sleep(PAUSE);
            match begin(self.remote, self.path, from) {
                Ok(answer) if goes_on(&answer, from, length) => return Ok(answer),
                Ok(_) => bail!("the result is another one than before"),
                Err(error) if is_passing(&error) => cut = error,
                Err(error) => return Err(error),
            }
        }
        Err(cut.context(format!("the result broke off at {from} of {length} bytes")))
    }
}

/// Copies what comes; `Some`: why no more came.
///
/// Errors: it cannot be written.
fn copy(
    answer: &mut Response<Body>,
    out: &mut impl Write,
    written: &mut u64,
) -> Result<Option<io::Error>> {
    let mut from = answer.body_mut().as_reader();
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(read) => {
                out.write_all(&piece[..read])
                    .context("cannot write the result")?;
                *written += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Some(error)),
        }
    }
}

/// Whether it can be shown to a person.
fn is_text(answer: &Response<Body>) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let coded = answer.headers().contains_key(header::CONTENT_ENCODING);
    !coded && (kind.starts_with("text/") || kind.contains("json") || kind.contains("xml"))
}
