//! What is in conf/deploy and the Dockerfile fits together, as far as that can be seen without running it.

use serde_yaml::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tabane::config::Loaded;

/// How long the gateway takes beside its grace: last words to clients, and the process's own end.
const BESIDE_THE_GRACE: Duration = Duration::from_secs(5);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn load(file: &Path) -> Loaded {
    let app = tabane::app().with(tabane_standard::registry());
    let secret = |name: &str| name.contains("KEY") || name.contains("TOKEN");
    let env = |name: &str| secret(name).then(|| format!("value-of-{name}"));
    tabane::config::load(file, app.registry(), &env)
        .unwrap_or_else(|problems| panic!("{}", crate::scene::shown(&problems)))
}

// === the image ===

/// The instructions of the Dockerfile, each on one line, with their first word.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    let said = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    said.filter_map(|line| line.split_once(' '))
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// What is copied from this folder: sources and destination.
fn copied() -> Vec<(Vec<String>, String)> {
    let copies = instructions().into_iter().filter(|(word, rest)| {
        assert!(word != "ADD", "COPY says what it does");
        word == "COPY" && !rest.contains("--from=")
    });
    copies
        .map(|(_, rest)| {
            let mut paths: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            let to = paths.pop().unwrap();
            (paths, to)
        })
        .collect()
}

/// Whether .dockerignore keeps a path out: the last line that means it, or a folder above it, decides.
fn is_ignored(path: &str) -> bool {
    let mut ignored = false;
    for line in read(".dockerignore").lines().map(str::trim) {
        let (pattern, out) = match line.strip_prefix('!') {
            Some(pattern) => (pattern, false),
            None => (line, true),
        };
        if pattern.is_empty() || pattern.starts_with('#') {
            continue;
        }
        let pattern = glob::Pattern::new(pattern.trim_matches('/')).unwrap();
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..Default::default()
        };
        let means = Path::new(path)
            .ancestors()
            .any(|above| pattern.matches_path_with(above, options));
        if means {
            ignored = out;
        }
    }
    ignored
}

#[test]
fn the_image_is_given_all_that_cargo_needs_to_build_it() {
    let context = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (sources, to) in copied() {
        for source in sources {
            assert!(
                root().join(&source).exists(),
                "COPY {source}: it is not there"
            );
            assert!(
                !is_ignored(&source),
                "COPY {source}: .dockerignore keeps it out"
            );
            let to = match to.as_str() {
                "./" => context.path().join(&source),
                to => context.path().join(to),
            };
            copy(&root().join(&source), &to);
            seen += 1;
        }
    }
    assert!(seen >= 5, "saw {seen} sources");
    assert!(
        is_ignored("target/debug/tabane")
            && is_ignored(".git/config")
            && is_ignored("tests/it/deploy.rs")
    );

    // Cargo reads the manifests of all members there, and says where it expects the sources.
    let told = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--locked",
            "--format-version",
            "1",
        ])
        .current_dir(context.path())
        .output()
        .unwrap();
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let packages = told["packages"].as_array().unwrap();
    let mut built = 0;
    for target in packages
        .iter()
        .flat_map(|p| p["targets"].as_array().unwrap())
    {
        let kind = target["kind"][0].as_str().unwrap();
        if kind == "bin" || kind == "lib" {
            let path = target["src_path"].as_str().unwrap();
            assert!(Path::new(path).exists(), "{path} is not copied");
            built += 1;
        }
    }
    assert!(built >= 6, "saw {built} targets");
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

#[test]
fn the_image_runs_what_was_built_and_not_as_root() {
    let all = instructions();
    let said = |wanted: &str| -> Vec<&str> {
        let of_it = all.iter().filter(|(word, _)| word == wanted);
        of_it.map(|(_, rest)| rest.as_str()).collect()
    };
    let build = said("RUN").join("\n");
    assert!(
        build.contains("--locked") && build.contains("--profile dist"),
        "{build}"
    );
    assert!(build.contains("target/dist/tabane "), "{build}");
    assert!(read("Cargo.toml").contains("\n[profile.dist]\n"));

    let user = *said("USER").last().unwrap();
    let (uid, gid) = user.split_once(':').unwrap();
    assert!(uid.parse::<u32>().unwrap() > 0 && gid.parse::<u32>().unwrap() > 0);

    let words = |line: &str| -> Vec<String> {
        let list = &line[line.find('[').unwrap()..];
        serde_json::from_str(list).unwrap()
    };
    let entry = words(said("ENTRYPOINT")[0]);
    let installed = said("COPY")
        .into_iter()
        .any(|copy| copy.ends_with(&format!(" {}", entry[0])));
    assert!(installed, "{entry:?} is not copied");
    assert_eq!(words(said("CMD")[0]), ["run"]);
    assert_is_healthcheck(&words(said("HEALTHCHECK")[0]));
}

/// A command that this program understands, in the form that runs without a shell.
fn assert_is_healthcheck(words: &[String]) {
    assert_eq!(words[0], "/usr/local/bin/tabane");
    assert_eq!(words[1], "healthcheck");
    let told = Command::new(env!("CARGO_BIN_EXE_tabane"))
        .args(&words[1..])
        .arg("--help")
        .output()
        .unwrap();
    assert!(told.status.success(), "{words:?}");
}

// === compose ===

#[test]
fn the_compose_files_fit_their_configurations() {
    for name in ["compose.sidecar.yaml", "compose.yaml"] {
        let text = read(&format!("conf/deploy/{name}"));
        let mut file: Value = serde_yaml::from_str(&text).unwrap();
        file.apply_merge().unwrap();
        let services = &file["services"];
        let tabane = &services["tabane"];
        let list = |value: &Value| -> Vec<String> {
            let list = value.as_sequence().into_iter().flatten();
            list.map(|item| item.as_str().unwrap().to_owned()).collect()
        };

        // As little as it can do with.
        assert_eq!(tabane["image"], "tabane:latest", "{name}");
        assert_eq!(tabane["read_only"], true, "{name}");
        assert_eq!(list(&tabane["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            list(&tabane["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        let check = list(&tabane["healthcheck"]["test"]);
        assert_eq!(check[0], "CMD", "{name}");
        assert_is_healthcheck(&check[1..]);

        // A folder is mounted where the image looks for its file.
        let mounts = list(&tabane["volumes"]);
        let mount = mounts
            .iter()
            .find(|mount| mount.contains(":/etc/tabane:ro"));
        let folder = mount.and_then(|mount| mount.split(':').next()).unwrap();
        let folder: PathBuf = root().join("conf/deploy").join(folder);
        assert!(folder.is_dir(), "{name}: {} is no folder", folder.display());
        assert!(read("Dockerfile").contains("ENV TABANE_CONFIG=/etc/tabane/tabane.yaml\n"));
        let plan = load(&folder.join("tabane.yaml")).plan;

        // What it may write to is mounted, too.
        if let Some(data) = &plan.data_dir {
            let to = format!(":{}", data.display());
            assert!(
                mounts.iter().any(|mount| mount.ends_with(&to)),
                "{name}: {to} is not mounted"
            );
            assert!(read("Dockerfile").contains(&format!(
                "--chown=65532:65532 /out/data {}\n",
                data.display()
            )));
        }
        let patience = humantime::parse_duration(tabane["stop_grace_period"].as_str().unwrap());
        assert!(
            patience.unwrap() >= plan.limits.grace + BESIDE_THE_GRACE,
            "{name}"
        );

        // Published by whoever owns the network, and listened on.
        let owner = match tabane["network_mode"].as_str() {
            Some(mode) => mode.strip_prefix("service:").unwrap(),
            None => "tabane",
        };
        let ports = list(&services[owner]["ports"]);
        assert!(!ports.is_empty(), "{name}");
        for port in ports {
            let inside: u16 = port.rsplit(':').next().unwrap().parse().unwrap();
            let mut listeners = plan.listeners.iter().map(|listener| listener.address);
            let open = listeners.any(|at| at.port() == inside && at.ip().is_unspecified());
            assert!(open, "{name}: nobody listens on {port}");
        }
        let admin = plan.admin.as_ref().unwrap().address;
        assert!(
            check.contains(&format!("127.0.0.1:{}", admin.port())),
            "{name}"
        );

        // Its nodes are the other services, or on the loopback that they share.
        assert!(!plan.endpoints.is_empty());
        for endpoint in &plan.endpoints {
            let host = &*endpoint.target.host;
            let there = services[host].is_mapping() || (host == "127.0.0.1" && owner != "tabane");
            assert!(there, "{name}: there is no `{host}`");
        }
        // Each variable that the configuration wants is passed on.
        let yaml = std::fs::read_to_string(folder.join("tabane.yaml")).unwrap();
        for variable in yaml.split("${").skip(1) {
            let variable = variable.split(['}', ':']).next().unwrap();
            assert!(
                tabane["environment"][variable].is_string(),
                "{name}: `{variable}` is not passed on"
            );
        }
    }
}

// === systemd ===

#[test]
fn the_unit_speaks_of_what_the_program_does() {
    let unit = read("conf/deploy/tabane.service");
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    let pairs: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once('=')).collect();
    let said = |name: &str| {
        let found = pairs.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no {name}")).1
    };
    // What the program says to its manager (`tests/it/process.rs`) is listened to.
    assert_eq!((said("Type"), said("NotifyAccess")), ("notify", "main"));
    assert!(humantime::parse_duration(said("WatchdogSec")).is_ok());
    for command in ["ExecStart", "ExecReload"] {
        let words: Vec<&str> = said(command).split(' ').collect();
        assert_eq!(words[0], "/usr/local/bin/tabane");
        let told = Command::new(env!("CARGO_BIN_EXE_tabane"))
            .args(&words[1..])
            .arg("--help")
            .output()
            .unwrap();
        assert!(told.status.success(), "{command}");
    }
    let grace = load(&root().join("conf/tabane.yaml")).plan.limits.grace;
    let patience = humantime::parse_duration(said("TimeoutStopSec")).unwrap();
    assert!(patience >= grace + BESIDE_THE_GRACE);
    assert!(unit.contains(&format!("Above `limits.grace` ({}s)", grace.as_secs())));
}
