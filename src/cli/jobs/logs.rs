//! `tabane jobs logs`.

use super::Id;
use super::found::{is_passing, segment};
use super::words::{plain, text};
use crate::cli::remote::{Ask, Remote, refusal};
use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A stream that is silent for longer is dead: a living one says at least a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// How long a gateway that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    of: Id,
    /// Print lines as they come, until the job is over
    #[arg(short, long)]
    follow: bool,
}

/// Prints what a job's backend logged.
pub(super) fn logs(remote: &Remote, args: &LogsArgs) -> Result<()> {
    let path = format!("/api/v1/jobs/{}", segment(&args.of.id));
    match args.follow {
        true => follow(remote, &format!("{path}/events")),
        false => print_all(remote, &format!("{path}/log")),
    }
}

fn print_all(remote: &Remote, path: &str) -> Result<()> {
    let answer = remote.send(&Ask::new(Method::GET, path))?;
    if !answer.status().is_success() {
        return Err(refusal(answer).into());
    }
    let mut lines = BufReader::new(answer.into_body().into_reader());
    let mut out = io::stdout().lock();
    while let Some(line) = line(&mut lines)? {
        say(&mut out, &line)?;
    }
    Ok(())
}

/// Follows the job's events; comes back for what was missed when the stream is cut.
fn follow(remote: &Remote, path: &str) -> Result<()> {
    let mut log = Log::default();
    let mut last = String::new();
    let mut heard: Option<Instant> = None;
    loop {
        let headers = [("last-event-id", last.as_str())];
        let ask = Ask {
            headers: if last.is_empty() { &[] } else { &headers },
            silence: SILENCE,
            ..Ask::new(Method::GET, path)
        };
        let answer = remote.send(&ask).and_then(|answer| match answer.status() {
            status if status.is_success() => Ok(answer),
            _ => Err(refusal(answer).into()),
        });
        match answer {
            Ok(answer) => {
                heard = Some(Instant::now());
                let mut events = Events::new(BufReader::new(answer.into_body().into_reader()));
                while let Some(event) = events.next() {
                    heard = Some(Instant::now());
                    if tell(&mut log, &event)? {
                        return Ok(());
                    }
                    if !event.id.is_empty() {
                        last = event.id;
                    }
                }
            }
            Err(error) if heard.is_some() && is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        if heard.is_none_or(|heard| heard.elapsed() > PATIENCE) {
            bail!("nothing was heard from the gateway for too long");
        }
        sleep(PAUSE);
    }
}

/// Prints what an event says; whether it was the last.
fn tell(log: &mut Log, event: &Event) -> io::Result<bool> {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let mut out = io::stdout().lock();
    match event.kind.as_str() {
        "log" => {
            for line in log.fresh(&data) {
                say(&mut out, &line)?;
            }
        }
        "started" => eprintln!("-- started on {}", text(&data["endpoint"])),
        "retry" => eprintln!("-- it will be tried again: {}", text(&data["error"])),
        "finished" => eprintln!("-- {}", text(&data["state"])),
        _ => {}
    }
    Ok(event.kind == "finished")
}

/// Prints a line, as it is where it is kept, and without what would command a terminal.
fn say(out: &mut io::StdoutLock<'_>, line: &str) -> io::Result<()> {
    match out.is_terminal() {
        true => writeln!(out, "{}", plain(line)),
        false => writeln!(out, "{line}"),
    }
}

/// A line without its end; bytes that are no text are replaced.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

// === which lines are new ===

/// The lines that were printed as they came, and are not yet known to be kept.
///
/// A line is told at once, without a number, and again a few seconds later in an event of all that were kept since:
/// that is how one that was missed still comes.
#[derive(Default)]
struct Log {
    live: VecDeque<String>,
}

// === impl Log ===

impl Log {
    /// Those of an event that were not printed yet.
    fn fresh(&mut self, data: &Value) -> Vec<String> {
        if let Some(line) = data["line"].as_str() {
            self.live.push_back(line.to_owned());
            return vec![line.to_owned()];
        }
        let lines = data["lines"].as_array().into_iter().flatten();
        let lines = lines.filter_map(|line| Some(line.as_str()?.to_owned()));
        self.kept(lines.collect())
    }

    /// What was printed stands among what is kept, in the same order: between lines that were logged before anybody
    /// listened, or while nobody did. What was printed since is not kept yet.
    fn kept(&mut self, lines: Vec<String>) -> Vec<String> {
        let mut live = self.live.clone();
        let mut fresh = lines.clone();
        fresh.retain(|line| live.pop_front_if(|printed| printed == line).is_none());
        if fresh.len() == lines.len() {
            // The line that was printed first is not among them: of very many, the oldest are not kept.
            fresh.retain(
                |line| match live.iter().position(|printed| printed == line) {
                    Some(at) => live.drain(..=at).next().is_none(),
                    None => true,
                },
            );
        }
        self.live = live;
        fresh
    }
}

// === reading events ===

/// A server-sent event (HTML 9.2).
#[derive(Debug, Default, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: String,
}

struct Events<R> {
    from: R,
}

// === impl Events ===

impl<R: BufRead> Events<R> {
    fn new(from: R) -> Self {
        Events { from }
    }

    /// The next whole event; `None` when the stream ends or breaks.
    fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = line(&mut self.from).ok()??;
            if line.is_empty() {
                match event == Event::default() {
                    true => continue,
                    false => return Some(event),
                }
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut event.id),
                "event" => value.clone_into(&mut event.kind),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_printed_once_although_it_is_told_twice() {
        for (live, kept, fresh, left) in [
            // All that was kept was printed.
            ("a b", "a b", "", ""),
            // Some had been logged before anybody listened.
            ("c", "a b c", "a b", ""),
            // Some were logged while nobody listened.
            ("b", "a b c", "a c", ""),
            // Newer ones are not kept yet, even if they read like older ones.
            ("a b x", "x a b", "x", "x"),
            ("a b c", "a b", "", "c"),
            // Nobody listened.
            ("", "a b", "a b", ""),
            // A backend that repeats itself.
            ("x", "x x", "x", ""),
            ("x x", "x", "", "x"),
            // So many that the oldest were not kept.
            ("a b c d", "b c", "", "d"),
            // What was printed last got lost with the gateway.
            ("lost a", "a b", "b", ""),
            ("a", "", "", "a"),
        ] {
            let mut log = Log::default();
            log.live.extend(lines(live));
            assert_eq!(log.kept(lines(kept)), lines(fresh), "{live} | {kept}");
            assert_eq!(Vec::from(log.live), lines(left), "{live} | {kept}");
        }
    }

    #[test]
    fn a_line_of_the_moment_is_printed_at_once() {
        let mut log = Log::default();
        assert_eq!(log.fresh(&json!({"line": "a"})), ["a"]);
        assert!(log.fresh(&json!({"lines": ["a"], "at": "now"})).is_empty());
        assert_eq!(log.fresh(&json!({"lines": ["b"]})), ["b"]);
    }

    #[test]
    fn events_are_read_as_html_says_and_one_that_was_cut_does_not_count() {
        let stream =
            ":\n\nid: 3\r\nevent: log\r\ndata: {\"a\":\ndata:1}\n\n\nevent: x\n\nid: 4\ndata: cut";
        let mut events = Events::new(stream.as_bytes());
        let event = |id: &str, kind: &str, data: &str| {
            Some(Event {
                id: id.into(),
                kind: kind.into(),
                data: data.into(),
            })
        };
        assert_eq!(events.next(), event("3", "log", "{\"a\":\n1}"));
        assert_eq!(events.next(), event("", "x", ""));
        assert_eq!(events.next(), None);
    }
}
