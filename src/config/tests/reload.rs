//! Files on disk: includes, what is watched, what a reload changes.

use super::fakes::{no_env, registry};
use crate::config::{diff, load, load_text};
use std::fs;
use std::path::Path;

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn shown(dir: &Path) -> String {
    match load(&dir.join("t.yaml"), &registry(), &no_env) {
        Ok(_) => panic!("accepted"),
        Err(problems) => problems
            .iter()
            .map(|p| format!("{p}\n"))
            .collect::<String>()
            .replace(&format!("{}/", dir.display()), ""),
    }
}

#[test]
fn includes_are_joined_and_all_their_folders_watched() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(
        dir,
        "t.yaml",
        "include: [conf.d/*.yaml, more/*.yaml]\nlisten: [':1']\ntenants: {a: '${file:key}'}\n",
    );
    write(dir, "key", "12345678\n");
    write(
        dir,
        "conf.d/a.yaml",
        "listen: [':2']\ndata_dir: ./data\nnodes: {n: {url: 'http://h:1'}}\n",
    );
    write(
        dir,
        "conf.d/b.yaml",
        "include: ../t.yaml\nservices: {s: {pool: [n]}}\n",
    );
    let loaded = load(&dir.join("t.yaml"), &registry(), &no_env).unwrap();
    assert_eq!(loaded.plan.listeners.len(), 2);
    assert_eq!(loaded.plan.data_dir, Some(dir.join("conf.d/./data")));
    assert_eq!(loaded.plan.tenants[0].keys[0].reveal(), "12345678");
    assert_eq!(loaded.files.len(), 4, "{:?}", loaded.files);
    for watched in ["conf.d", "more", ""] {
        let watched = if watched.is_empty() {
            dir.to_owned()
        } else {
            dir.join(watched)
        };
        assert!(
            loaded.watch_dirs.contains(&watched),
            "{:?}",
            loaded.watch_dirs
        );
    }
    // A changed secret is a changed plan.
    write(dir, "key", "87654321\n");
    let again = load(&dir.join("t.yaml"), &registry(), &no_env).unwrap();
    assert_ne!(again.plan.hash, loaded.plan.hash);
    assert_eq!(diff(&loaded.plan, &again.plan).to_string(), "tenants ~a");
}

#[test]
fn a_change_of_what_is_said_of_placement_is_in_the_diff() {
    let plan = |endpoint: &str, tenant: &str, service: &str, route: &str| {
        let text = format!(
            "tenants: {{t: {{key: '12345678'{tenant}}}}}\n\
             nodes: {{n: {{price_per_hour: 1, endpoints: {{x: {{url: 'http://h:1'{endpoint}}}}}}}}}\n\
             services: {{s: {{pool: [n/x]{service}, routes: [{{path: /{route}}}]}}}}\n"
        );
        load_text("t.yaml", &text, &registry(), &no_env)
            .unwrap()
            .plan
    };
    let before = plan("", "", "", "");
    for (endpoint, tenant, service, route, changed) in [
        (", models: a", "", "", "", "endpoints ~n/x"),
        (", max_size: 3", "", "", "", "endpoints ~n/x"),
        ("", ", max_waiting: 3", "", "", "tenants ~t"),
        ("", ", max_at_work: 3", "", "", "tenants ~t"),
        ("", "", ", interactive: true", "", "services ~s"),
        ("", "", ", patience: none", "", "services ~s"),
        ("", "", ", price: {usd_per_job: 3}", "", "services ~s"),
        ("", "", ", scale: {min: 3}", "", "services ~s"),
        ("", "", "", ", interactive: false", "services ~s"),
    ] {
        let after = plan(endpoint, tenant, service, route);
        assert_eq!(diff(&before, &after).to_string(), changed);
    }
}

#[test]
fn a_name_in_two_files_names_both_places() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(
        dir,
        "t.yaml",
        "include: [a.yaml, none.yaml, '**/x']\nadmin: off\nnodes:\n  n: {url: 'http://h:1'}\nservices: {s: {pool: [n]}}\n",
    );
    write(
        dir,
        "a.yaml",
        "admin: off\nnodes: {n: {url: 'http://h:2'}}\n",
    );
    assert_eq!(
        shown(dir),
        "t.yaml:1:19: include[1]: cannot read `none.yaml`: there is no such file\n\
         t.yaml:1:30: include[2]: `**` is not followed; name the folders one by one\n\
         a.yaml:1:8: admin: `admin` may stand in one file only; it stands at t.yaml:2 too\n\
         a.yaml:2:9: nodes.n: the node `n` stands in two files; the other is at t.yaml:4\n"
    );
}

#[test]
fn includes_are_bounded_in_depth_and_number() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(
        dir,
        "t.yaml",
        "include: 1.yaml\nservices: {s: {pool: ['http://h:1']}}\n",
    );
    for i in 1..12 {
        write(
            dir,
            &format!("{i}.yaml"),
            &format!("include: {}.yaml\n", i + 1),
        );
    }
    assert!(
        shown(dir).contains("8.yaml:1:10: include: includes more than 8 deep"),
        "{}",
        shown(dir)
    );
    write(
        dir,
        "t.yaml",
        "include: many/*.yaml\nservices: {s: {pool: ['http://h:1']}}\n",
    );
    for i in 0..150 {
        write(dir, &format!("many/{i}.yaml"), "listen: []\n");
    }
    assert!(shown(dir).contains("more than 100 files"), "{}", shown(dir));
}

#[test]
fn files_that_are_no_text_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("t.yaml"), b"services:\n  a\xff: 1\n").unwrap();
    assert!(
        shown(dir).contains("t.yaml:2:4: this is not UTF-8 text"),
        "{}",
        shown(dir)
    );
    fs::write(dir.join("t.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(
        shown(dir).contains("t.yaml:1:1: cannot read the file: it is larger than 1024 KiB"),
        "{}",
        shown(dir)
    );
    fs::remove_file(dir.join("t.yaml")).unwrap();
    assert!(
        shown(dir).contains("t.yaml:1:1: cannot read the file: there is no such file"),
        "{}",
        shown(dir)
    );
    fs::create_dir(dir.join("t.yaml")).unwrap();
    assert!(shown(dir).contains("it is not a file"), "{}", shown(dir));
}

#[test]
fn a_certificate_is_read_when_the_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = "nodes: {n: {endpoints: {x: {url: 'https://h', tls: {ca: ca.pem, server_name: gpu.lan}}}}}\nservices: {s: {pool: [n]}}\n";
    write(dir, "t.yaml", text);
    assert!(
        shown(dir).contains("t.yaml:1:57: nodes.n.endpoints.x.tls.ca: cannot read `ca.pem`"),
        "{}",
        shown(dir)
    );
    write(dir, "ca.pem", "what");
    assert!(
        shown(dir).contains("holds no PEM certificate"),
        "{}",
        shown(dir)
    );
    write(
        dir,
        "ca.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let loaded = load(&dir.join("t.yaml"), &registry(), &no_env).unwrap();
    let tls = loaded.plan.endpoints[0].target.tls.clone().unwrap();
    assert_eq!((&*tls.server_name, tls.verify), ("gpu.lan", true));
    assert_eq!(tls.ca, Some(dir.join("ca.pem")));
    assert!(loaded.files.contains(&dir.join("ca.pem")));
}

#[test]
fn a_diff_goes_by_names_and_not_by_order() {
    let load = |text: &str| {
        let result = crate::config::load_text("t.yaml", text, &registry(), &no_env);
        result.map_err(|p| format!("{p:?}")).unwrap().plan
    };
    let before = load(
        "nodes: {a: {url: 'http://a'}, b: {url: 'http://b'}}\nservices: {s: {pool: [a, b], routes: [/]}}\n",
    );
    let swapped = load(
        "nodes: {b: {url: 'http://b'}, a: {url: 'http://a'}}\nservices: {s: {pool: [a, b], routes: [/]}}\n",
    );
    assert!(diff(&before, &swapped).is_empty());
    let after = load(
        "listen: [127.0.0.1:1]\nlog: {format: json, access: false}\nnodes: {b: {url: 'http://b', drained: true}, c: {url: 'http://c'}}\nservices: {s: {pool: [b, c], routes: [/v1], policy: {hash: {key: address}}}}\n",
    );
    let diff = diff(&before, &after);
    assert_eq!(
        diff.to_string(),
        "nodes +c ~b -a, endpoints +c/http -a/http, pools ~s, services ~s, listeners +127.0.0.1:1 -127.0.0.1:8080, log.access, log.format (after a restart: log.format)"
    );
    assert_eq!(
        serde_json::to_value(&diff).unwrap()["nodes"]["added"][0],
        "c"
    );
}
