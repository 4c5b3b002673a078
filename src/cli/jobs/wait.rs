//! `tabane jobs wait`.
//!
//! Each id is followed by a thread of its own, which asks again and again and lets the gateway hold its question until
//! something changed. One place hears of all of them, shows how they stand, and notices Ctrl-C and the time-out.

use super::bar::Screen;
use super::found::{Found, is_passing};
use super::words::{counts, fraction, is_over, outcome, plain, standing, state, text};
use crate::cli::remote::{Ask, Remote, done};
use anyhow::{Context, Error, Result};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime};
use tabane_api::JobState;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// How long a question is held at most: where somebody looks at a bar, and elsewhere.
const BAR: u64 = 1;
const LINES: u64 = 30;

/// How long a gateway that does not answer is asked again: a restart with all its jobs takes less.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two questions that were not held.
const PAUSE: Duration = Duration::from_millis(500);

/// A question that is held may be silent for so much longer than it is held.
const GRACE: u64 = 15;

/// How many are followed at once; the others follow when these are over.
const AT_ONCE: usize = 32;

/// What a shell says of a command that was interrupted: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Args)]
pub(super) struct WaitArgs {
    /// The ids of jobs and arrays
    #[arg(required = true, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    /// Wait no longer than this, such as `90s` or `2h`
    #[arg(long, value_name = "TIME")]
    timeout: Option<humantime::Duration>,
}

/// What one hears of an id; which one it is stands beside it.
enum News {
    /// This is how it stands.
    Stands(Value),
    /// The gateway does not answer; it is asked again.
    Silent(Error),
    /// Nothing more can be heard of it.
    Lost(Error),
}

/// What ends the wait.
enum Ended {
    /// All are over.
    All,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// It took too long.
    Late,
}

/// Waits until all are over.
pub(super) fn wait(remote: &Remote, args: &WaitArgs) -> ExitCode {
    let mut ids = args.ids.clone();
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let mut view = View::new(ids);
    let hold = if view.screen.is_terminal() {
        BAR
    } else {
        LINES
    };
    let news = follow(remote, &view.ids, hold);
    let ended = runtime
        .context("cannot wait")
        .and_then(|runtime| runtime.block_on(hear(&mut view, news, args.timeout.map(Into::into))));
    view.screen.clear();
    match ended {
        Err(error) => done(Err(error)),
        Ok(Ended::All) => view.verdict(),
        Ok(Ended::Interrupted) => {
            eprintln!("tabane: {}", view.goes_on("this command ends"));
            ExitCode::from(INTERRUPTED)
        }
        Ok(Ended::Late) => {
            eprintln!("tabane: {}", view.goes_on("the time is over"));
            ExitCode::FAILURE
        }
    }
}

async fn hear(
    view: &mut View,
    mut news: UnboundedReceiver<(usize, News)>,
    timeout: Option<Duration>,
) -> Result<Ended> {
    let late = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(late);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            heard = news.recv() => match heard {
                Some((at, news)) => view.hear(at, news, SystemTime::now()),
                None => return Ok(Ended::All),
            },
            () = &mut late => return Ok(Ended::Late),
            caught = &mut interrupted => {
                caught.context("cannot listen for Ctrl-C")?;
                return Ok(Ended::Interrupted);
            }
        }
    }
}

// === following ===

/// Follows each id until it is over. The channel is closed when all are.
fn follow(remote: &Remote, ids: &[String], hold: u64) -> UnboundedReceiver<(usize, News)> {
    let (tell, news) = mpsc::unbounded_channel();
    let waiting: VecDeque<_> = ids.iter().cloned().enumerate().collect();
    let threads = waiting.len().min(AT_ONCE);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..threads {
        let (remote, waiting, tell) = (remote.clone(), waiting.clone(), tell.clone());
        thread::spawn(move || {
            loop {
                let next = waiting.lock().pop_front();
                let Some((at, id)) = next else { break };
                if let Err(error) = follow_one(&remote, &id, at, hold, &tell) {
                    let _ = tell.send((at, News::Lost(error)));
                }
            }
        });
    }
    news
}

/// Follows one until it is over.
///
/// Errors: it is not there, or the gateway did not answer for too long.
fn follow_one(
    remote: &Remote,
    id: &str,
    at: usize,
    most: u64,
    tell: &UnboundedSender<(usize, News)>,
) -> Result<()> {
    // An address that never answered is wrong rather than restarted.
    let Found { mut document, path } = Found::by_id(remote, id)?;
    let mut answered = Instant::now();
    // What happens between two questions would be noticed when the next is answered: ask soon while things change.
    let mut hold = 1;
    let stands = |document: &Value| {
        let told = tell.send((at, News::Stands(document.clone())));
        told.is_ok() && !is_over(document)
    };
    let mut goes_on = stands(&document);
    while goes_on {
        let asked = Instant::now();
        match held(remote, &path, hold) {
            Ok(now) => {
                answered = Instant::now();
                let changed = now["state"] != document["state"] || now["done"] != document["done"];
                hold = if changed { 1 } else { (hold * 2).min(most) };
                document = now;
                goes_on = stands(&document);
                // A gateway that goes down holds no question.
                if !changed && asked.elapsed() < PAUSE {
                    sleep(PAUSE);
                }
            }
            Err(error) if is_passing(&error) && answered.elapsed() < PATIENCE => {
                let _ = tell.send((at, News::Silent(error)));
                sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How it stands when its state has changed, or after so many seconds.
fn held(remote: &Remote, path: &str, seconds: u64) -> Result<Value> {
    let prefer = format!("wait={seconds}");
    let headers = [("prefer", prefer.as_str())];
    let ask = Ask {
        headers: &headers,
        silence: Duration::from_secs(seconds + GRACE),
        ..Ask::new(Method::GET, path)
    };
    remote.json(&ask)
}

// === showing ===

/// What was heard, and how it is shown.
struct View {
    ids: Vec<String>,
    stand: Vec<Option<Value>>,
    lost: Vec<bool>,
    /// What was said last of each.
    said: Vec<String>,
    /// The gateway does not answer, and that was said.
    silent: bool,
    screen: Screen,
}

// === impl View ===

impl View {
    fn new(ids: Vec<String>) -> Self {
        View {
            stand: vec![None; ids.len()],
            lost: vec![false; ids.len()],
            said: vec![String::new(); ids.len()],
            silent: false,
            screen: Screen::new(),
            ids,
        }
    }

    fn hear(&mut self, at: usize, news: News, now: SystemTime) {
        let id = plain(&self.ids[at]);
        match news {
            News::Stands(document) => {
                if std::mem::take(&mut self.silent) {
                    self.screen.say("the gateway answers again");
                }
                let key = key(&document);
                let over = is_over(&document);
                if self.said[at] != key && (over || !self.screen.is_terminal()) {
                    self.screen.say(&format!("{id}  {}", said(&document, now)));
                }
                self.said[at] = key;
                self.stand[at] = Some(document);
            }
            News::Silent(error) => {
                if !self.silent {
                    let patience = PATIENCE.as_secs();
                    let why = format!("{error:#}; it is asked again for {patience} s");
                    self.screen.say(&why);
                }
                self.silent = true;
            }
            News::Lost(error) => {
                self.screen.clear();
                eprintln!("tabane: `{id}`: {error:#}");
                self.lost[at] = true;
            }
        }
        let known: Vec<_> = self.stand.iter().flatten().collect();
        if !known.iter().all(|one| is_over(one)) {
            self.screen.draw(&known);
        }
    }

    /// Good when all succeeded.
    fn verdict(&self) -> ExitCode {
        let succeeded =
            |one: &Option<Value>| one.as_ref().and_then(state) == Some(JobState::Succeeded);
        match self.stand.iter().all(succeeded) && !self.lost.contains(&true) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// That nothing happens to what is not over.
    fn goes_on(&self, why: &str) -> String {
        let over = |at: &usize| self.lost[*at] || self.stand[*at].as_ref().is_some_and(is_over);
        let left: Vec<_> = (0..self.ids.len()).filter(|at| !over(at)).collect();
        let named: Vec<_> = left.iter().map(|at| plain(&self.ids[*at])).collect();
        let (what, them) = match left.len() {
            1 => ("the job goes on", "it"),
            _ => ("the jobs go on", "them"),
        };
        let named = named.join(" ");
        format!("{why}, {what}; `tabane jobs wait {named}` waits for {them} again")
    }
}

/// What has to change for a line to be worth it: the state, a tenth of the way, how many of an array are over.
fn key(document: &Value) -> String {
    let tenth = fraction(document).map(|fraction| (fraction * 10.0).floor());
    format!(
        "{} {tenth:?} {} {}",
        document["state"], document["canceling"], document["done"]
    )
}

/// How it stands, in a line that stays.
fn said(document: &Value, now: SystemTime) -> String {
    let more = match (is_over(document), document["array"] == true) {
        (true, _) => outcome(document, now),
        (false, true) => counts(document),
        (false, false) => standing(document),
    };
    let said = format!("{}  {more}", text(&document["state"]));
    said.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_said_once_per_change_and_not_for_every_percent() {
        let at =
            |fraction: f64| key(&json!({"state": "running", "progress": {"fraction": fraction}}));
        assert_eq!(at(0.51), at(0.59));
        assert_ne!(at(0.59), at(0.60));
        assert_ne!(
            key(&json!({"state": "queued"})),
            key(&json!({"state": "running"}))
        );
        let array = |done| key(&json!({"state": "running", "array": true, "done": done}));
        assert_ne!(array(1), array(2));
    }

    #[test]
    fn what_it_came_to_is_said_at_the_end() {
        let now = SystemTime::now();
        let good = json!({
            "state": "succeeded", "result": {"status": 200, "length": 2048, "content_type": "image/png"},
            "accepted": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z",
        });
        assert_eq!(
            said(&good, now),
            "succeeded  2.0 KiB image/png, after 1m 0s"
        );
        let bad = json!({"state": "dead", "error": "3 attempts failed"});
        assert_eq!(said(&bad, now), "dead  3 attempts failed");
        let array =
            json!({"state": "running", "array": true, "counts": {"queued": 2, "succeeded": 1}});
        assert_eq!(said(&array, now), "running  2 queued, 1 succeeded");
    }

    #[test]
    fn whoever_stops_waiting_is_told_what_goes_on() {
        let mut view = View::new(vec!["a".into(), "b".into(), "c".into()]);
        view.stand[1] = Some(json!({"state": "succeeded"}));
        let wants =
            "this command ends, the jobs go on; `tabane jobs wait a c` waits for them again";
        assert_eq!(view.goes_on("this command ends"), wants);
    }
}
