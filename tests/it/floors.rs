//! The house keeps its floors: who may import whom, read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor; `config` is the base of floor 1, since its words (`Plan`) are read all over the house.
const FLOORS: [(&str, u8); 13] = [
    ("main", 9),
    ("lib", 9),
    ("app", 8),
    ("cli", 9),
    ("edge", 6),
    ("admin", 6),
    ("reload", 6),
    ("dispatch", 5),
    ("fleet", 4),
    ("schedule", 4),
    ("access", 3),
    ("store", 3),
    ("telemetry", 3),
];

/// A room's floor; `config` stands below the other rooms of its floor.
fn floor(room: &str) -> Option<u8> {
    if room == "config" {
        return Some(2);
    }
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}

/// What is wrong with a file, by the rules of the house. `path` is below `src/`.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let room = path.split(['/', '.']).next().unwrap_or_default();
    let Some(here) = floor(room) else {
        return vec![format!("{path}: nobody knows the room `{room}`")];
    };
    // Tests may look anywhere; comments are not code.
    let code: String = text
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    for other in code.split("crate::").skip(1) {
        let other = other
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default();
        if other != room
            && other.starts_with(char::is_lowercase)
            && floor(other).is_none_or(|there| there >= here)
        {
            found.push(format!(
                "{path}: imports `crate::{other}`, which is not below it"
            ));
        }
    }
    if code.contains("pingora::") && !matches!(room, "edge" | "app") {
        found.push(format!("{path}: speaks of Pingora outside the edge"));
    }
    if matches!(room, "fleet" | "schedule") {
        for word in [
            "tokio",
            "Instant::now",
            "SystemTime",
            "rand::rng",
            "tracing",
            "std::fs",
            "std::net",
        ] {
            if code.contains(word) {
                found.push(format!("{path}: `{word}` is IO, a clock or chance"));
            }
        }
    }
    if path != "main.rs" {
        let lower = code.to_lowercase();
        for word in [
            "comfyui",
            "openai",
            "ollama",
            "vllm",
            "llama",
            "tabane_http",
            "tabane_standard",
        ] {
            if lower.contains(word) {
                found.push(format!("{path}: names `{word}`"));
            }
        }
    }
    let lines = text.lines().count();
    if lines > 900 {
        found.push(format!("{path}: {lines} lines are more than one idea"));
    }
    found
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path
            .file_stem()
            .is_some_and(|stem| stem == "tests" || stem == "simulation");
        match path.is_dir() {
            _ if is_test => {}
            true => sources(&path, into),
            false if path.extension().is_some_and(|extension| extension == "rs") => into.push(path),
            false => {}
        }
    }
}

#[test]
fn the_floors_are_kept() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "{} files", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            breaches(
                &file.strip_prefix(&src).unwrap().to_string_lossy(),
                &fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_breach_is_found() {
    for (path, text) in [
        ("fleet/mod.rs", "use crate::schedule::Ticket;"),
        ("schedule/mod.rs", "let now = std::time::Instant::now();"),
        ("dispatch/mod.rs", "use crate::edge::Front;"),
        ("dispatch/mod.rs", "use pingora::Error;"),
        ("admin/mod.rs", "use crate::edge::Front;"),
        ("telemetry/mod.rs", "use crate::store::Marks;"),
        ("config/mod.rs", "use crate::telemetry::Metrics;"),
        ("edge/mod.rs", "let path = \"/comfyui\";"),
        ("app.rs", "use tabane_standard::registry;"),
        ("attic/mod.rs", ""),
    ] {
        assert!(!breaches(path, text).is_empty(), "{path}: {text}");
    }
    for (path, text) in [
        (
            "dispatch/mod.rs",
            "use crate::fleet::Fleet;\n// pingora is elsewhere",
        ),
        ("fleet/mod.rs", "use crate::config::plan::HealthPlan;"),
        (
            "schedule/mod.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests { use std::time::Instant; fn b() { Instant::now(); } }",
        ),
        ("main.rs", "tabane_standard::registry()"),
    ] {
        assert_eq!(breaches(path, text), Vec::<String>::new());
    }
}
