//! What the README and the map speak of is there.

use std::fs;
use std::path::Path;
use std::process::Command;
use tabane::{App, Source};

fn app() -> App {
    tabane::app().with(tabane_standard::registry())
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks of a language in a text.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fences = text.split("```").skip(1).step_by(2);
    let of_it = fences.filter_map(|block| block.strip_prefix(&format!("{language}\n")));
    of_it.map(str::to_owned).collect()
}

/// What stands between single backticks, outside of blocks.
fn quoted(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let quoted = prose.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn the_configurations_in_the_readme_load() {
    let whole: Vec<String> = blocks(&read("README.md"), "yaml")
        .into_iter()
        .filter(|block| block.contains("services:"))
        .collect();
    assert!(!whole.is_empty());
    for yaml in whole {
        if let Err(problems) = app().load(&Source::Text(yaml.clone())) {
            panic!("{yaml}\n{problems:#?}");
        }
    }
}

#[test]
fn every_command_in_the_readme_is_one() {
    let readme = read("README.md");
    let mut said: Vec<String> = blocks(&readme, "sh");
    said.extend(quoted(&readme));
    let mut seen = 0;
    for line in said.iter().flat_map(|said| said.lines()) {
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            "tabane" | "target/release/tabane" => {
                let Some(command) = words.next() else {
                    continue;
                };
                let told = Command::new(env!("CARGO_BIN_EXE_tabane"))
                    .args([command, "--help"])
                    .output()
                    .unwrap();
                assert!(told.status.success(), "`{line}`: there is no `{command}`");
                seen += 1;
            }
            "make" => {
                let Some(target) = words.next() else { continue };
                let rule = format!("\n{target}: ");
                assert!(read("Makefile").contains(&rule), "`{line}`: no such target");
                seen += 1;
            }
            _ => {}
        }
    }
    assert!(seen > 10, "saw {seen} commands");
}

#[test]
fn every_command_there_is_stands_in_the_readme() {
    let told = Command::new(env!("CARGO_BIN_EXE_tabane"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(told.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let mut seen = 0;
    for line in commands.lines().take_while(|line| line.starts_with("  ")) {
        let command = line.split_whitespace().next().unwrap();
        seen += 1;
        assert!(
            command == "help" || read("README.md").contains(&format!("`tabane {command}")),
            "the README does not name `tabane {command}`"
        );
    }
    assert!(seen > 5, "saw {seen} commands in\n{help}");
}

#[test]
fn every_file_that_is_named_is_there() {
    let mut seen = 0;
    for name in ["README.md", "ARCHITECTURE.md"] {
        for path in quoted(&read(name)) {
            let of_a_file = path.contains('/')
                && !path.starts_with('/')
                && !path.contains([' ', ':', '{', '$', '*'])
                && (path.ends_with('/') || path.contains('.') || path.starts_with("plugins"));
            if of_a_file {
                seen += 1;
                let there = root().join(&path).exists() || root().join("src").join(&path).exists();
                assert!(there, "{name} names `{path}`, which is not there");
            }
        }
    }
    assert!(seen > 20, "saw {seen} paths");
}

#[test]
fn the_map_names_every_room_and_is_short() {
    let map = read("ARCHITECTURE.md");
    assert!(map.lines().count() <= 200, "{} lines", map.lines().count());
    let mut seen = 0;
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let entry = entry.unwrap();
        let mut name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            name.push('/');
        }
        seen += 1;
        let named = map.contains(&format!("`{name}`")) || map.contains(&format!("`src/{name}`"));
        assert!(named || name == "lib.rs", "the map does not name `{name}`");
    }
    assert!(seen > 10, "saw {seen} rooms");
}
