//! Files that went through a mangle: whatever comes out is accepted, or refused with places and words.
//!
//! `config/oracle.rs` says what holds for every text; here is where the texts come from.

use super::fakes::{no_env, registry};
use super::folders::yaml;
use crate::cases::tried;
use crate::config::plan::Plan;
use crate::config::{Problem, diff, load_text, oracle};
use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Only a text that takes ever longer reaches it, on the slowest machine.
const LONG: Duration = Duration::from_secs(20);

fn texts(folders: &[&str]) -> Vec<String> {
    let files = folders.iter().flat_map(|folder| yaml(folder));
    files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
}

fn good() -> Vec<String> {
    let texts = texts(&["conf", "conf/examples", "tests/conf/good"]);
    let accepted = |text: &String| load_text("t.yaml", text, &registry(), &no_env).is_ok();
    // Those that need their neighbours (an include, a certificate) are not among them.
    let texts: Vec<String> = texts.into_iter().filter(accepted).collect();
    assert!(texts.len() >= 6, "{} are good", texts.len());
    texts
}

/// One turn of the mangle.
#[derive(Clone, Debug)]
enum Turn {
    Character(Index, usize, String),
    Delete(Index),
    Double(Index),
    Swap(Index, Index),
    /// Moves a line to the right, or to the left.
    Shift(Index, i8),
    /// Some lines of another file.
    Splice(Index, Index, Index, usize),
    /// Puts something before a value.
    Mark(Index, &'static str),
    Nest(Index, usize, bool),
    Huge(Index, usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    let at = any::<Index>;
    let odd = "[-{}\\[\\]:,&*!|>'\"#%@`\\t\\n\\r a0$?~é\u{0}\u{85}\u{2028}\u{feff}]{0,4}";
    let marks = prop::sample::select(
        &[
            "&a ", "*a", "&a *a ", "!!str ", "! ", "? ", "| ", "> ", "- ", "'", "\"", "<<: *a",
            "${X", "${", "--- ", "...",
        ][..],
    );
    prop_oneof![
        4 => (at(), 0..6usize, odd).prop_map(|(at, remove, insert)| Turn::Character(at, remove, insert)),
        2 => at().prop_map(Turn::Delete),
        1 => at().prop_map(Turn::Double),
        1 => (at(), at()).prop_map(|(a, b)| Turn::Swap(a, b)),
        2 => (at(), -4..5i8).prop_map(|(at, by)| Turn::Shift(at, by)),
        2 => (at(), at(), at(), 1..12usize).prop_map(|(at, file, from, lines)| Turn::Splice(at, file, from, lines)),
        3 => (at(), marks).prop_map(|(at, mark)| Turn::Mark(at, mark)),
        1 => (at(), 1..80usize, any::<bool>()).prop_map(|(at, deep, flow)| Turn::Nest(at, deep, flow)),
        1 => (at(), 100..60_000usize).prop_map(|(at, long)| Turn::Huge(at, long)),
    ]
}

impl Turn {
    fn make(&self, text: String, all: &[String]) -> String {
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        let count = lines.len();
        match self {
            Turn::Character(at, remove, insert) => {
                let mut chars: Vec<char> = text.chars().collect();
                let at = at.index(chars.len() + 1);
                let end = (at + remove).min(chars.len());
                chars.splice(at..end, insert.chars());
                return chars.into_iter().collect();
            }
            Turn::Delete(at) => drop(lines.remove(at.index(count))),
            Turn::Double(at) => lines.insert(at.index(count), lines[at.index(count)].clone()),
            Turn::Swap(a, b) => lines.swap(a.index(count), b.index(count)),
            Turn::Shift(at, by) => {
                let line = &mut lines[at.index(count)];
                match usize::try_from(*by) {
                    Ok(right) => line.insert_str(0, &" ".repeat(right)),
                    Err(_) => {
                        let blanks = line.len() - line.trim_start_matches(' ').len();
                        line.drain(..blanks.min(usize::from(by.unsigned_abs())));
                    }
                }
            }
            Turn::Splice(at, file, from, some) => {
                let other: Vec<&str> = file.get(all).split('\n').collect();
                let from = from.index(other.len());
                let piece = other[from..]
                    .iter()
                    .take(*some)
                    .map(|line| (*line).to_owned());
                let at = at.index(count);
                lines.splice(at..at, piece);
            }
            Turn::Mark(at, mark) => before_value(&mut lines[at.index(count)], mark),
            Turn::Nest(at, deep, true) => {
                let nest = format!("{}{}", "[".repeat(*deep), "]".repeat(*deep));
                before_value(&mut lines[at.index(count)], &nest);
            }
            Turn::Nest(at, deep, false) => {
                before_value(&mut lines[at.index(count)], &"- ".repeat(*deep))
            }
            Turn::Huge(at, long) => before_value(&mut lines[at.index(count)], &"x".repeat(*long)),
        }
        lines.join("\n")
    }
}

/// Behind the first `: ` of a line, or at its end.
fn before_value(line: &mut String, what: &str) {
    let at = line.find(": ").map_or(line.len(), |at| at + 2);
    line.insert_str(at, what);
}

#[test]
fn a_mangled_file_is_accepted_or_refused_with_places_and_words() {
    let all = texts(&["conf", "conf/examples", "tests/conf/good", "tests/conf/bad"]);
    let (accepted, tries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let turns = prop::collection::vec(turn(), 1..5);
    tried(1200, (any::<Index>(), turns), |(file, turns)| {
        let text = turns
            .iter()
            .fold(file.get(&all).clone(), |text, turn| turn.make(text, &all));
        let begun = Instant::now();
        let told = oracle::text(&text, &registry());
        assert!(begun.elapsed() < LONG, "took {:?}", begun.elapsed());
        tries.fetch_add(1, Ordering::Relaxed);
        accepted.fetch_add(usize::from(told.is_ok()), Ordering::Relaxed);
    });
    let (accepted, tries) = (accepted.into_inner(), tries.into_inner());
    assert!(
        accepted > tries / 50 && accepted < tries / 2,
        "{accepted} of {tries} were accepted"
    );
}

#[test]
fn any_text_is_accepted_or_refused_with_places_and_words() {
    let text = "[-{}\\[\\]:,&*!|>'\"#%@`\\t\\r\\n a0$?~é\u{85}\u{2028}\u{feff}]{0,80}";
    tried(1500, text, |text| drop(oracle::text(&text, &registry())));
}

/// A change that says nothing: it is made at a line.
#[derive(Clone, Debug)]
enum Quiet {
    Comment(Index, usize),
    Blank(Index),
    Trailing(Index, &'static str),
}

fn quiet() -> impl Strategy<Value = Quiet> {
    prop_oneof![
        (any::<Index>(), 0..9usize).prop_map(|(at, indent)| Quiet::Comment(at, indent)),
        any::<Index>().prop_map(Quiet::Blank),
        (
            any::<Index>(),
            prop::sample::select(&[" ", "   ", " # x: [", " #"][..])
        )
            .prop_map(|(at, what)| Quiet::Trailing(at, what)),
    ]
}

/// Makes such changes; the new text, and for each line of the old the number it has now.
fn quietly(text: &str, changes: &[Quiet], crlf: bool) -> (String, Vec<u32>) {
    let mut lines: Vec<(Option<usize>, String)> = text
        .split('\n')
        .enumerate()
        .map(|(nth, line)| (Some(nth), line.to_owned()))
        .collect();
    for change in changes {
        match change {
            Quiet::Comment(at, indent) => {
                let comment = format!("{}# {{ nobody: [reads this", " ".repeat(*indent));
                lines.insert(at.index(lines.len()), (None, comment));
            }
            Quiet::Blank(at) => lines.insert(at.index(lines.len()), (None, String::new())),
            Quiet::Trailing(at, what) => {
                let at = at.index(lines.len());
                let line = &mut lines[at].1;
                if !line.contains('#') {
                    line.push_str(what);
                }
            }
        }
    }
    let mut now = vec![0; text.split('\n').count()];
    for (at, (was, _)) in lines.iter().enumerate() {
        if let Some(was) = was {
            now[*was] = at as u32 + 1;
        }
    }
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    (lines.join(if crlf { "\r\n" } else { "\n" }), now)
}

fn plan(text: &str) -> Plan {
    let loaded = load_text("t.yaml", text, &registry(), &no_env);
    loaded
        .map_err(|problems| format!("{problems:#?}"))
        .unwrap()
        .plan
}

#[test]
fn what_says_nothing_changes_nothing_but_the_places() {
    // What is no YAML at all is found where the text ends, and the end moves.
    let is_yaml = |text: &String| {
        let told = oracle::text(text, &registry()).unwrap_or_else(|problems| problems);
        !told.iter().any(|told| told.what.starts_with("not YAML"))
    };
    let bad = texts(&["tests/conf/bad"]).into_iter().filter(is_yaml);
    let all: Vec<String> = good().into_iter().chain(bad).collect();
    assert!(all.len() >= 16, "{} files", all.len());
    let changes = prop::collection::vec(quiet(), 1..8);
    tried(
        500,
        (any::<Index>(), changes, any::<bool>()),
        |(file, changes, crlf)| {
            let text = file.get(&all);
            let (changed, now) = quietly(text, &changes, crlf);
            let (before, after) = (
                oracle::text(text, &registry()),
                oracle::text(&changed, &registry()),
            );
            assert_eq!(before.is_ok(), after.is_ok(), "{changed}\n{after:#?}");
            if before.is_ok() {
                let differs = diff(&plan(text), &plan(&changed));
                assert!(differs.is_empty(), "{differs}: {changed}");
            }
            // Where a hint names a second line, that moves too; the place itself is compared.
            let places = |told: &[Problem], moved: &dyn Fn(u32) -> u32| -> Vec<_> {
                let mut places: Vec<_> = told
                    .iter()
                    .map(|p| (moved(p.line), p.column, p.path.clone()))
                    .collect();
                places.sort();
                places
            };
            let told = |told: &Result<Vec<Problem>, Vec<Problem>>| {
                told.clone().unwrap_or_else(|problems| problems)
            };
            let moved = |line: u32| now.get(line as usize - 1).copied().unwrap_or_default();
            assert_eq!(
                places(&told(&after), &|line| line),
                places(&told(&before), &moved),
                "{changed}"
            );
        },
    );
}
