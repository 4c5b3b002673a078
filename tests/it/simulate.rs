//! `tabane simulate` as people call it.

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tabane"))
        .arg("simulate")
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn printed(args: &[&str]) -> String {
    let told = simulate(args);
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    String::from_utf8(told.stdout).unwrap()
}

fn single_spaced(table: &str) -> String {
    let lines = table.lines();
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

fn refused(args: &[&str]) -> String {
    let told = simulate(args);
    assert_eq!(
        told.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&told.stdout)
    );
    String::from_utf8(told.stderr).unwrap()
}

/// What the four nodes of the example did: each class once on each, the first three times as fast as the last.
fn recorded(dir: &TempDir) -> PathBuf {
    let nodes = [
        ("tokyo-4090", 10),
        ("osaka-3090", 15),
        ("kyoto-4070", 18),
        ("nara-3060", 30),
    ];
    let lines = (0..400).map(|i| {
        let (node, seconds) = nodes[i % 4];
        let (class, times) = [("image", 1), ("video", 6)][usize::from(i % 7 == 0)];
        let tenant = ["studio", "web"][i % 2];
        format!(
            r#"{{"at_s": {}, "class": "{class}", "tenant": "{tenant}", "node": "{node}", "seconds": {}, "cold": false}}"#,
            i * 3,
            seconds * times
        )
    });
    let file = dir.path().join("trace.jsonl");
    fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    file
}

#[test]
fn an_example_runs_over_a_trace_and_says_what_one_node_more_would_do() {
    let dir = TempDir::new().unwrap();
    let trace = recorded(&dir);
    let example = [
        "-c",
        "conf/examples/simulated.yaml",
        "--trace",
        trace.to_str().unwrap(),
    ];
    let table = single_spaced(&printed(&example));
    for what in [
        "all 400",
        "image",
        "video",
        "studio",
        "web",
        "tokyo-4090",
        "lost: 0",
        "doubled: 0",
    ] {
        assert!(table.contains(what), "{what}\n{table}");
    }
    let more = [&example[..], &["--add", "new=rtx4090", "--json"]].concat();
    let both: Value = serde_json::from_str(&printed(&more)).unwrap();
    let mean = |which: &str| both[which]["latency"]["mean"].as_f64().unwrap();
    assert!(mean("after") < mean("before"), "{both}");
    assert_eq!(both["before"]["nodes"].as_array().unwrap().len(), 4);
    let new = &both["after"]["nodes"][4];
    assert_eq!(
        (new["name"].as_str(), new["gpu"].as_str()),
        (Some("new"), Some("RTX 4090"))
    );
    assert!(new["jobs"].as_u64().unwrap() > 10);
    let beside = printed(&more[..more.len() - 1]);
    let head = beside
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect::<Vec<_>>();
    assert_eq!(head, ["before", "after"]);
    let used = beside
        .lines()
        .find(|line| line.starts_with("new used"))
        .unwrap();
    assert!(used.contains(" - "), "{used}");
    let twice = [&example[..], &["--json"]].concat();
    assert_eq!(printed(&twice), printed(&twice));
}

#[test]
fn a_table_of_times_needs_no_configuration() {
    let table = ["--times", "benches/data/pool8.yaml"];
    let all = |args: &[&str]| single_spaced(&printed(&[&table, args].concat()));
    assert!(all(&["--batch", "50"]).contains("all 50 "));
    assert!(
        all(&[
            "--jobs",
            "200",
            "--lose",
            "h100-1@60",
            "--policy",
            "least_loaded"
        ])
        .contains("lost: 0")
    );
    let without = all(&["--jobs", "200", "--remove", "h100-1"]);
    assert!(without.contains("h100-1 used"), "{without}");
}

#[test]
fn what_cannot_be_simulated_says_why() {
    let dir = TempDir::new().unwrap();
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"at_s\": 1, \"class\": \"a\"}\n{\"at_s\": oops}\n").unwrap();
    let bad = bad.to_str().unwrap();
    let example = ["-c", "conf/examples/simulated.yaml"];
    let of = |args: &[&str]| refused(&[&example, args].concat());
    assert!(of(&["--trace", bad]).contains("bad.jsonl: line 2: not JSON"));
    assert!(of(&["--trace", "nowhere.jsonl"]).contains("cannot read `nowhere.jsonl`"));
    assert!(of(&["--poisson", "0.5"]).contains("no times are known: give `--times FILE`"));
    let trace = recorded(&dir);
    let trace = ["--trace", trace.to_str().unwrap()];
    let of = |args: &[&str]| of(&[&trace, args].concat());
    assert!(of(&["--add", "H100"]).contains("no node has such a card"));
    assert!(of(&["--remove", "kobe"]).contains("there is no node `kobe`"));
    assert!(of(&["--policy", "best"]).contains("there is no `best`"));
    assert!(of(&["--lose", "tokyo-4090"]).contains("say NODE@SECONDS"));
    let both = simulate(&[&trace[..], &["--flood"]].concat());
    assert_eq!(both.status.code(), Some(2), "one trace is enough");
}
