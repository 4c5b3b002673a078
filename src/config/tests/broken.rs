//! Files cut short, misspelt and mangled: never a panic, and every problem has file and line.

use super::fakes::{no_env, registry, repository};
use crate::config::{load_text, oracle};
use std::fs;

fn commented() -> String {
    fs::read_to_string(repository("conf/tabane.yaml")).unwrap()
}

/// Loads it; whether it was refused. Every problem must say where it is.
fn refused(text: &str) -> bool {
    oracle::text(text, &registry()).is_err()
}

#[test]
fn a_file_cut_anywhere_is_refused_with_a_place_or_accepted() {
    let text = commented();
    let cuts = text.char_indices().map(|(at, _)| at);
    assert!(cuts.filter(|at| refused(&text[..*at])).count() > 0);
}

#[test]
fn a_value_of_another_type_is_refused_with_a_place() {
    let text = everything();
    let mut swapped = 0;
    for (at, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once(": ") else {
            continue;
        };
        for odd in [
            "[[]]",
            "{odd: {}}",
            "\"\\0odd ${ text\"",
            "-1",
            "!!str x",
            "&a [*a]",
            "99999999999999999999",
        ] {
            let new = format!("{key}: {odd}");
            let mutated = text.replacen(line, &new, 1);
            // Some values may be odd text, such as a label; most may not.
            swapped += usize::from(refused(&mutated));
            assert!(!value.is_empty() || at > 0);
        }
    }
    assert!(swapped > 50, "{swapped}");
}

#[test]
fn a_misspelt_key_is_refused_where_it_stands() {
    let text = everything();
    let mut seen = 0;
    for (at, line) in text.lines().enumerate() {
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        let name = key.trim_start_matches([' ', '-']);
        let free = [
            "tokyo", "osaka", "os", "site", "image", "comfyui", "pipeline", "http", "chat",
        ];
        if name.is_empty()
            || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            || free.contains(&name)
        {
            continue;
        }
        let misspelt = format!("{name}x");
        let mutated: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(i, l)| {
                if i == at {
                    l.replacen(name, &misspelt, 1)
                } else {
                    l.to_owned()
                }
            })
            .collect();
        let Err(problems) = load_text("t.yaml", &mutated.join("\n"), &registry(), &no_env) else {
            panic!("accepted {misspelt}");
        };
        seen += 1;
        assert!(
            problems
                .iter()
                .any(|p| p.line as usize == at + 1 && p.what.contains(&misspelt)),
            "{misspelt}: {problems:#?}"
        );
    }
    assert!(seen > 10, "{seen}");
}

/// A file with every key there is, each on a line of its own.
fn everything() -> String {
    fs::read_to_string(repository("tests/conf/good/everything.yaml")).unwrap()
}
