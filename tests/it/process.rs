//! The program itself: exit codes, signals, commands against a running gateway.

use crate::scene::{any, nodes};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn tabane(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tabane"))
        .args(args)
        .env_remove("TABANE_CONFIG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A gateway as its own process, and where its admin API listens.
struct Running {
    child: Child,
    admin: String,
    address: String,
}

impl Running {
    /// Starts it and reads its log until it says where it is.
    fn start(args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tabane"));
        command.args(args);
        Running::start_as(command)
    }

    /// The same, by a command that becomes it.
    fn start_as(mut command: Command) -> Running {
        let mut child = command
            .env("TABANE_LOG", "info")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let up = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("tabane is up"))
            .expect("it comes up");
        // Whoever logs into a pipe that nobody reads would stop some day.
        std::thread::spawn(move || lines.for_each(drop));
        let up: serde_json::Value = serde_json::from_str(&up).unwrap();
        let said = |what: &str| up[what].as_str().unwrap().to_owned();
        Running {
            child,
            admin: said("admin"),
            address: said("addresses"),
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn ask(&self, args: &[&str]) -> Output {
        tabane(&[args, &["--admin", &self.admin]].concat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until it succeeds.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let tried = tokio::time::timeout(Duration::from_secs(60), async {
        while !so() {
            look.tick().await;
        }
    });
    tried
        .await
        .unwrap_or_else(|_| panic!("it never came to be that {what}"));
}

#[test]
fn exit_codes_are_0_for_good_1_for_bad_and_2_for_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file(
        "good.yaml",
        "services: {any: {pool: [http://127.0.0.1:1]}}\n",
    );
    let bad = file(
        "bad.yaml",
        "services:\n  any:\n    pool: [http://127.0.0.1:1]\n    quue: {max: 3}\n",
    );
    assert_eq!(tabane(&["check", "-c", &good]).status.code(), Some(0));
    let refused = tabane(&["check", "-c", &bad]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(
        told.contains("bad.yaml:4:5: ") && told.contains("did you mean `queue`?"),
        "{told}"
    );
    assert_eq!(tabane(&["run", "-c", &bad]).status.code(), Some(1));
    assert_eq!(
        tabane(&["check", "-c", "/no/such/file.yaml"]).status.code(),
        Some(1)
    );
    assert_eq!(tabane(&["chekc"]).status.code(), Some(2));
    assert_eq!(tabane(&["quick"]).status.code(), Some(2));
    assert!(text(&tabane(&["version"]).stdout).starts_with("tabane "));
    assert!(serde_json::from_slice::<serde_json::Value>(&tabane(&["schema"]).stdout).unwrap()["properties"].is_object());
    assert_eq!(
        tabane(&["healthcheck", "--admin", "127.0.0.1:1"])
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn a_port_that_is_taken_is_said_and_not_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tabane(&[
        "quick",
        "--to",
        "http://127.0.0.1:1",
        "--listen",
        &address,
        "--admin",
        "off",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains(&format!("cannot listen on {address}")),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_asked_reloaded_and_ended_from_the_command_line() {
    let nodes = nodes(2).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let with = |pool: &str| {
        let yaml = any(&[(&nodes[0], 1), (&nodes[1], 1)], "")
            .replace("pool: [a, b]", &format!("pool: [{pool}]"));
        std::fs::write(
            &file,
            format!("listen: [\"127.0.0.1:0\"]\nadmin: \"127.0.0.1:0\"\n{yaml}"),
        )
        .unwrap();
    };
    with("a");
    let mut running = Running::start(&["run", "-c", Path::to_str(&file).unwrap()]);
    until("it is ready", || {
        running.ask(&["healthcheck"]).status.success()
    })
    .await;
    assert!(text(&running.ask(&["nodes"]).stdout).contains("a/http"));
    assert!(text(&running.ask(&["explain", "any", "/x"]).stdout).contains("picked"));
    assert_eq!(running.ask(&["explain", "nobody"]).status.code(), Some(1));
    assert!(running.ask(&["nodes", "drain", "a"]).status.success());
    assert!(text(&running.ask(&["nodes"]).stdout).contains("draining"));
    assert!(running.ask(&["nodes", "undrain", "a"]).status.success());
    assert_eq!(
        running.ask(&["nodes", "drain", "nobody"]).status.code(),
        Some(1)
    );
    with("a, b");
    assert!(running.ask(&["reload"]).status.success());
    until("b is known", || {
        text(&running.ask(&["nodes"]).stdout).contains("b/http")
    })
    .await;
    with("b");
    running.signal("HUP");
    until("a is gone", || {
        !text(&running.ask(&["nodes"]).stdout).contains("a/http")
    })
    .await;
    running.signal("TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert!(std::net::TcpStream::connect(&running.address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_needs_no_file() {
    let nodes = nodes(2).await;
    let to: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    let running = Running::start(&[
        "quick",
        "--to",
        &to[0],
        "--to",
        &to[1],
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    until("both are up", || {
        text(&running.ask(&["nodes"]).stdout)
            .matches(" up ")
            .count()
            == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_descriptors_refuses_politely_and_recovers() {
    let nodes = nodes(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    std::fs::write(
        &file,
        crate::scene::on_free_ports(&any(&[(&nodes[0], 100)], "")),
    )
    .unwrap();
    let mut command = Command::new("sh");
    let few = "ulimit -n 160; exec \"$0\" run -c \"$1\"";
    command
        .args(["-c", few, env!("CARGO_BIN_EXE_tabane")])
        .arg(&file);
    let running = Running::start_as(command);
    let address: std::net::SocketAddr = running.address.trim_matches(['[', ']']).parse().unwrap();
    let ask = || async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let _ = stream.write_all(request).await;
        let mut begin = [0; 12];
        let read = stream.read_exact(&mut begin).await;
        let status = std::str::from_utf8(&begin[9..]).unwrap().to_owned();
        (read.is_ok().then_some(status), stream)
    };
    while ask().await.0.as_deref() != Some("200") {}
    // Far more than there are descriptors for, all of which stay.
    let all = futures::future::join_all((0..400).map(|_| ask())).await;
    let count = |wanted: &str| {
        let answers = all.iter().filter(|(s, _)| s.as_deref() == Some(wanted));
        answers.count()
    };
    let (served, refused) = (count("200"), count("503"));
    assert!(served >= 20, "{served} were served");
    assert!(refused >= 20, "{refused} were told why");
    let status = running.ask(&["healthcheck"]).status;
    assert!(status.success(), "the operator still gets in");
    drop(all);
    until("it serves again", || {
        running.ask(&["healthcheck"]).status.success()
    })
    .await;
    while ask().await.0.as_deref() != Some("200") {}
}
