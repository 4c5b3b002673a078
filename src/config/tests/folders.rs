//! Files in folders: the examples that people copy, and files with their expected problems beside them.

use super::fakes::{no_env, registry, repository};
use crate::config::load;
use std::fs;
use std::path::PathBuf;

/// All YAML files of a folder. Every test over them has to see some.
pub(super) fn yaml(folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(repository(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no file in {folder}");
    found
}

#[test]
fn good_files_are_accepted_with_the_expected_warnings() {
    for file in yaml("tests/conf/good") {
        let loaded = load(&file, &registry(), &no_env);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let shown = loaded.warnings.iter().map(|w| format!("{w}\n")).collect();
        expect(&file, shown);
    }
}

#[test]
fn bad_files_are_refused_with_the_expected_problems() {
    let files = yaml("tests/conf/bad");
    assert!(files.len() >= 10);
    for file in files {
        let Err(problems) = load(&file, &registry(), &no_env) else {
            panic!("accepted {}", file.display());
        };
        expect(&file, problems.iter().map(|p| format!("{p}\n")).collect());
    }
}

/// Compares with the `.expect` file beside it; `UPDATE_EXPECT=1` writes it.
fn expect(file: &std::path::Path, shown: String) {
    let folder = format!("{}/", file.parent().unwrap().display());
    let shown = shown.replace(&folder, "");
    let beside = file.with_extension("expect");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        match shown.is_empty() {
            true => drop(fs::remove_file(&beside)),
            false => fs::write(&beside, &shown).unwrap(),
        }
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    assert_eq!(
        shown,
        expected,
        "{}: UPDATE_EXPECT=1 cargo test writes what is said now",
        file.display()
    );
}
