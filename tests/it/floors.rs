//! The house keeps its floors: who may name whom, read off the sources.
//!
//! Sources are read as text, comments taken out. The compiler would let a room reach into any other; this is
//! the wall. ARCHITECTURE.md draws the same floors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/` and their floors. Floor 0 is `plugins/api`, a crate, which Cargo keeps below.
const FLOORS: [(&str, u8); 20] = [
    ("main", 6),
    ("lib", 6),
    ("cli", 6),
    ("app", 6),
    // Compiled for fuzzing only: the entrances of a crate outside, which sees only what is public.
    ("fuzzing", 6),
    ("edge", 5),
    ("admin", 5),
    ("reload", 5),
    ("wire", 4),
    // The same rooms on virtual time, for commands and benches.
    ("simulate", 4),
    ("dispatch", 3),
    // Compiled for tests only: it stands where dispatch does, and brings fleet and schedule together.
    ("simulation", 3),
    ("fleet", 2),
    ("schedule", 2),
    ("jobs", 2),
    ("access", 1),
    ("store", 1),
    ("telemetry", 1),
    ("config", 1),
    // Compiled for tests only: how properties are tried, in all rooms alike.
    ("cases", 0),
];

/// Who may name a room of the same floor, and why. One that is not needed any more is a failure.
const NEXT_DOOR: [(&str, &str, &str); 3] = [
    ("cli", "app", "the commands start what the app put together"),
    ("access", "config", "keys are read from the plan"),
    (
        "telemetry",
        "config",
        "the form of the log is a word of the plan",
    ),
];

/// What would be IO, a clock, or chance that nobody gave.
const NOT_PURE: [&str; 12] = [
    "tokio",
    "tracing",
    "Instant::now",
    "SystemTime",
    "rand::rng",
    "rand::random",
    "thread_rng",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
];

/// The services that kinds know; the core knows none of them. Compared in lower case.
const SERVICES: [&str; 5] = ["comfyui", "openai", "ollama", "vllm", "llama"];

/// More lines than this, tests not counted, are seldom one idea.
const LONGEST: usize = 600;
#[test]
fn the_floors_are_kept() {
    let (files, crates) = (rust_files("src"), shipped_crates());
    assert!(files.len() > 50, "saw {} files", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| breaches(path, text, &crates))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    for (room, other, why) in NEXT_DOOR {
        let needed = files.iter().any(|(path, text)| {
            let code = Source::read(text).code;
            room_of(path) == room
                && named_rooms(path, &code)
                    .iter()
                    .any(|(_, name)| name == other)
        });
        assert!(
            needed,
            "`{room}` no longer names `{other}` ({why}): take it off the list"
        );
    }
}

#[test]
fn files_hold_one_idea() {
    let mut files = rust_files("src");
    for plugin in fs::read_dir(root().join("plugins")).unwrap() {
        let name = plugin.unwrap().file_name().into_string().unwrap();
        let of_plugin = rust_files(&format!("plugins/{name}/src"));
        assert!(!of_plugin.is_empty(), "no sources in plugins/{name}/src");
        files.extend(of_plugin);
    }
    let too_long: Vec<String> = files.iter().filter_map(|(p, t)| length(p, t)).collect();
    assert!(too_long.is_empty(), "\n{}", too_long.join("\n"));
}

#[test]
fn the_contract_knows_neither_pingora_nor_a_runtime() {
    let manifest = fs::read_to_string(root().join("plugins/api/Cargo.toml")).unwrap();
    assert!(manifest.contains("[dependencies]"));
    for name in ["pingora", "tokio", "axum", "hyper"] {
        assert!(!manifest.contains(name), "plugins/api depends on `{name}`");
    }
    let files = rust_files("plugins/api/src");
    assert!(files.len() > 5, "saw {} files", files.len());
}

/// What is wrong with a file of `src/`, by the rules of the house.
fn breaches(path: &str, text: &str, shipped: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let room = room_of(path);
    let Some(here) = floor(room) else {
        return vec![format!(
            "{path}: the room `{room}` has no floor; give it one in tests/it/floors.rs"
        )];
    };
    let source = Source::read(text);
    let mut breach = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));

    for (line, other) in named_rooms(path, &source.code) {
        let next_door = NEXT_DOOR.iter().any(|(a, b, _)| *a == room && *b == other);
        match floor(&other) {
            _ if other == room || next_door => {}
            // `crate::App`: what the library shows to the outside is of its highest floor.
            None => breach(line, format!("names `crate::{other}`, which is no room")),
            Some(there) if there < here => {}
            Some(there) => breach(
                line,
                format!("floor {here} names `{other}` of floor {there}"),
            ),
        }
    }
    for (i, code) in source.code.lines().enumerate() {
        if !matches!(room, "edge" | "app") && words(code).any(|word| word.starts_with("pingora")) {
            breach(i + 1, "speaks of Pingora outside the edge".into());
        }
    }
    if is_test_file(path) {
        return found;
    }
    let (code, told) = (without_tests(&source.code), without_tests(&source.told));
    if matches!(room, "fleet" | "schedule") {
        for (i, line) in code.lines().enumerate() {
            for word in NOT_PURE.iter().filter(|word| line.contains(*word)) {
                breach(
                    i + 1,
                    format!("`{word}` is IO, a clock, or chance that nobody gave"),
                );
            }
        }
    }
    if room != "main" {
        for (i, line) in told.lines().enumerate() {
            let line = line.to_lowercase();
            let names = SERVICES
                .iter()
                .copied()
                .chain(shipped.iter().map(String::as_str));
            for name in names.filter(|name| line.contains(name)) {
                breach(
                    i + 1,
                    format!("names `{name}`; the core knows no service and no shipped kind"),
                );
            }
        }
    }
    found
}

/// What is wrong with a file's length.
fn length(path: &str, text: &str) -> Option<String> {
    let tests_taken_out = without_tests(text);
    let lines = tests_taken_out
        .lines()
        .filter(|line| *line != TAKEN_OUT)
        .count();
    (lines > LONGEST && !is_test_file(path))
        .then(|| format!("{path}: {lines} lines without tests; most ideas fit into {LONGEST}"))
}

// === rooms ===

/// The room of a file: the first step below `src/`.
fn room_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split(['/', '.']).next().unwrap_or_default()
}

fn floor(room: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}

/// Every room that is named by `crate::…` or by as many `super::` as lead to the crate's root, with its line.
fn named_rooms(path: &str, code: &str) -> Vec<(usize, String)> {
    let below = path.strip_prefix("src/").unwrap_or(path);
    let own_name = !below.ends_with("mod.rs") && below != "lib.rs" && below != "main.rs";
    let depth = below.matches('/').count() + usize::from(own_name);
    let mut found = Vec::new();
    let (mut start, mut inside) = (0, 0);
    for (i, line) in code.lines().enumerate() {
        // What rustfmt leaves at the margin opens and closes a module inside the file.
        if line.ends_with('{') && words(line).any(|word| word == "mod") && !line.starts_with(' ') {
            inside = 1;
        } else if line == "}" {
            inside = 0;
        }
        let mut at = 0;
        while let Some(next) = ["crate::", "super::"]
            .iter()
            .filter_map(|step| line[at..].find(step))
            .min()
        {
            let from = at + next;
            let steps = line[from..].strip_prefix("crate::").map_or_else(
                || {
                    line[from..]
                        .split("super::")
                        .take_while(|s| s.is_empty())
                        .count()
                },
                |_| usize::MAX,
            );
            at = from + 7 * if steps == usize::MAX { 1 } else { steps.max(1) };
            let before = line[..from].chars().next_back();
            if steps >= depth + inside && !before.is_some_and(is_word) {
                let rooms = first_steps(&code[start + at..]);
                found.extend(rooms.into_iter().map(|room| (i + 1, room)));
            }
        }
        start += line.len() + 1;
    }
    found
}

/// The first steps of the paths after `crate::`: one, or those of a group `{a::…, b, …}`.
fn first_steps(rest: &str) -> Vec<String> {
    let one = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![one(rest)];
    };
    let (mut depth, mut members) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            _ if depth == 0 => members.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    let named = members.iter().map(|member| one(member.trim()));
    named.filter(|name| !name.is_empty()).collect()
}

// === sources ===

/// A source without its comments.
struct Source {
    /// What is said in strings is blanked out, too.
    code: String,
    /// With what is said in strings.
    told: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Code,
    Text,
    Comment,
}

impl Source {
    fn read(text: &str) -> Source {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, mut told, mut at) = (String::new(), String::new(), 0);
        while at < chars.len() {
            let (piece, length) = piece(&chars, at);
            let end = (at + length).min(chars.len());
            for &c in &chars[at..end] {
                let blank = if c == '\n' { c } else { ' ' };
                code.push(if piece == Piece::Code { c } else { blank });
                told.push(if piece == Piece::Comment { blank } else { c });
            }
            at = end;
        }
        Source { code, told }
    }
}

/// What begins at `at`, and how many characters it has.
fn piece(chars: &[char], at: usize) -> (Piece, usize) {
    let rest = &chars[at..];
    let to = |from: usize, end: &[char]| {
        let found = rest[from..].windows(end.len()).position(|w| w == end);
        found.map_or(rest.len(), |i| from + i + end.len())
    };
    match rest {
        ['/', '/', ..] => (Piece::Comment, to(2, &['\n']) - 1),
        ['/', '*', ..] => (Piece::Comment, to(2, &['*', '/'])),
        ['"', ..] => {
            let mut i = 1;
            while i < rest.len() && rest[i] != '"' {
                i += if rest[i] == '\\' { 2 } else { 1 };
            }
            (Piece::Text, i + 1)
        }
        ['r', '#' | '"', ..] if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return (Piece::Code, 1);
            }
            let end: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            (Piece::Text, to(2 + hashes, &end))
        }
        ['\'', '\\', _, ..] => (Piece::Text, to(3, &['\''])),
        ['\'', _, '\'', ..] => (Piece::Text, 3),
        _ => (Piece::Code, 1),
    }
}

/// What stands for a line of a test: it counts for nothing, and the lines after it keep their numbers.
const TAKEN_OUT: &str = "\u{0}";

/// The text without its `#[cfg(test)]` modules, which rustfmt ends with a `}` at the margin.
fn without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut kept, mut inside) = (Vec::new(), false);
    for (i, line) in lines.iter().enumerate() {
        let opens = lines.get(i + 1).is_some_and(|next| {
            next.ends_with('{') && words(next).any(|w| w == "mod") && !next.starts_with(' ')
        });
        inside |= line.starts_with("#[cfg(test)]") && opens;
        kept.push(if inside { TAKEN_OUT } else { line });
        inside &= *line != "}";
    }
    kept.join("\n")
}

/// Whether a whole file is compiled for tests only.
fn is_test_file(path: &str) -> bool {
    path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || matches!(room_of(path), "simulation" | "cases")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !is_word(c))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder: their paths from the root, and what they hold.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy();
                found.push((name.into_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The names of the crates in `plugins/`, as code writes them; the contract is not one of them.
fn shipped_crates() -> Vec<String> {
    let folders = fs::read_dir(root().join("plugins")).unwrap();
    let names: BTreeSet<String> = folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "api")
        .map(|name| format!("tabane_{name}"))
        .collect();
    assert!(names.contains("tabane_standard"), "{names:?}");
    names.into_iter().collect()
}

// === the rules themselves ===

#[test]
fn every_breach_is_found() {
    let crates = shipped_crates();
    for (path, text) in [
        // Floors.
        ("src/fleet/mod.rs", "use crate::dispatch::Lease;"),
        ("src/fleet/mod.rs", "use crate::schedule::Ticket;"),
        ("src/dispatch/mod.rs", "use crate::edge::Front;"),
        ("src/admin/mod.rs", "fn a(front: &crate::edge::Front) {}"),
        ("src/reload.rs", "use crate::{config::Plan, app::App};"),
        (
            "src/reload.rs",
            "use crate::{\n    config::{Plan, Diff},\n    edge,\n};",
        ),
        ("src/telemetry/mod.rs", "use crate::store::Marks;"),
        ("src/config/mod.rs", "use crate::telemetry::Metrics;"),
        ("src/app.rs", "use crate::cli::main;"),
        ("src/dispatch/mod.rs", "use crate::App;"),
        ("src/config/mod.rs", "use super::dispatch::Lease;"),
        ("src/config/check/mod.rs", "use super::super::fleet::Fleet;"),
        (
            "src/config/load.rs",
            "#[cfg(test)]\nmod tests {\n    use super::super::super::edge::Front;\n}",
        ),
        (
            "src/store/mod.rs",
            "let a = \"http://\"; use crate::edge::Front;",
        ),
        ("src/store/mod.rs", "let a = '\"'; use crate::edge::Front;"),
        (
            "src/store/mod.rs",
            "let a = r#\"\"//\"#; use crate::edge::Front;",
        ),
        ("src/store/mod.rs", "/* a */ use crate::edge::Front;"),
        ("src/attic/mod.rs", ""),
        // Pingora.
        ("src/dispatch/mod.rs", "use pingora::Error;"),
        ("src/cli/mod.rs", "use pingora_proxy as proxy;"),
        // Purity.
        ("src/fleet/mod.rs", "use tokio::sync::watch;"),
        (
            "src/schedule/mod.rs",
            "let now = std::time::Instant::now();",
        ),
        ("src/schedule/mod.rs", "let chance = rand::rng();"),
        (
            "src/fleet/mod.rs",
            "#[cfg(test)]\nmod tests {\n}\nfn late() { Instant::now(); }",
        ),
        // Names of services.
        ("src/edge/mod.rs", "const PATH: &str = \"/ComfyUI\";"),
        ("src/config/mod.rs", "struct OpenAiBlock;"),
        ("src/dispatch/mod.rs", "const ENGINE: &str = \"vLLM\";"),
        ("src/app.rs", "use tabane_standard::registry;"),
        ("src/app.rs", "use tabane_http::Http;"),
    ] {
        let found = breaches(path, text, &crates);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn what_is_no_breach_is_let_be() {
    let crates = shipped_crates();
    for (path, text) in [
        (
            "src/dispatch/mod.rs",
            "use crate::fleet::Fleet;\n// pingora and comfyui are elsewhere",
        ),
        (
            "src/dispatch/mod.rs",
            "/// As [`crate::edge::Front`] does.\nuse super::fleet::Fleet;",
        ),
        (
            "src/dispatch/lease.rs",
            "use super::upstream::Upstream;\nuse super::super::fleet::End;",
        ),
        (
            "src/edge/mod.rs",
            "use pingora::Error;\nuse crate::{config::plan, dispatch::Lease};",
        ),
        ("src/fleet/mod.rs", "use crate::config::plan::HealthPlan;"),
        (
            "src/telemetry/log.rs",
            "const QUIET: &str = \"pingora=warn,crate::edge\";",
        ),
        (
            "src/schedule/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use super::*;\n    fn b() { Instant::now(); }\n}",
        ),
        (
            "src/config/tests/broken.rs",
            "const SOME: &str = \"comfyui\";",
        ),
        ("src/main.rs", "tabane_standard::registry()"),
    ] {
        assert_eq!(
            breaches(path, text, &crates),
            Vec::<String>::new(),
            "{path}"
        );
    }
}

#[test]
fn a_long_file_is_found() {
    let code = "fn a() {}\n".repeat(LONGEST);
    assert_eq!(length("src/edge/mod.rs", &code), None);
    assert!(length("src/edge/mod.rs", &(code.clone() + "fn b() {}\n")).is_some());
    let tested = code + "#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
    assert_eq!(length("src/edge/mod.rs", &tested), None);
}
