//! The program itself: exit codes, signals, commands against a running gateway.

use crate::jobs::stored;
use crate::scene::{any, exchange, nodes, on_free_ports};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
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
pub(crate) struct Running {
    child: Child,
    admin: String,
    pub(crate) address: String,
    /// Its log from there on.
    log: Box<dyn Iterator<Item = std::io::Result<String>> + Send>,
}

impl Running {
    /// Starts it and reads its log until it says where it is.
    pub(crate) fn start(args: &[&str]) -> Running {
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
        let up: serde_json::Value = serde_json::from_str(&up).unwrap();
        let said = |what: &str| up[what].as_str().unwrap().to_owned();
        Running {
            child,
            admin: said("admin"),
            address: said("addresses"),
            log: Box::new(lines),
        }
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn end(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
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
async fn the_log_names_the_job_that_a_request_became() {
    let nodes = nodes(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let yaml = on_free_ports(&stored(&[(&nodes[0], 1)], ""));
    std::fs::write(&file, yaml).unwrap();
    let mut running = Running::start(&["run", "-c", file.to_str().unwrap()]);
    let address = running.address.trim_matches(['[', ']']).to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut line_of = async |path: &str, header: &str| -> (String, serde_json::Value) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
        let answer = exchange(&mut stream, &head).await;
        let path = format!("\"path\":\"{path}\"");
        let mut log = running.log.by_ref().map(Result::unwrap);
        let line = log.find(|line| line.contains(&path)).unwrap();
        (answer, serde_json::from_str(&line).unwrap())
    };
    let (answer, line) = line_of("/one", "Prefer: respond-async").await;
    let job = line["job"].as_str().unwrap();
    let place = format!("/_tabane/jobs/{job}\r\n");
    assert!(answer.contains(&place), "{answer} {line}");
    let (_, line) = line_of("/two", "X-No: job").await;
    assert!(line.get("job").is_none(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_a_trace_to_simulate_over() {
    let nodes = nodes(2).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let kind = "kind: {http: {probe: /health, class: [{header: X-Class}], size: {multiply: [header: X-Size]}}}";
    let yaml = any(&[(&nodes[0], 1), (&nodes[1], 1)], "");
    let yaml = yaml.replace("kind: {http: {probe: /health}}", kind);
    std::fs::write(&file, on_free_ports(&yaml)).unwrap();
    let file = file.to_str().unwrap();
    let mut running = Running::start(&["run", "-c", file]);
    let address = running.address.trim_matches(['[', ']']).to_owned();
    let mut lines = Vec::new();
    for (i, class) in ["image", "video", "image"].into_iter().enumerate() {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!("GET /{i} HTTP/1.1\r\nHost: a\r\nX-Class: {class}\r\nX-Size: 4\r\n\r\n");
        exchange(&mut stream, &head).await;
        let mut log = running.log.by_ref().map(Result::unwrap);
        let line = log
            .find(|line| line.contains(&format!("\"path\":\"/{i}\"")))
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (said["class"].as_str(), said["size"].as_f64()),
            (Some(class), Some(4.0))
        );
        lines.push(line);
    }
    let log = dir.path().join("access.jsonl");
    std::fs::write(&log, lines.join("\n")).unwrap();
    let args = [
        "simulate",
        "-c",
        file,
        "--trace",
        log.to_str().unwrap(),
        "--json",
    ];
    let told = tabane(&args);
    assert!(told.status.success(), "{}", text(&told.stderr));
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let classes: Vec<_> = report["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(classes, ["image", "video"]);
    assert_eq!(
        (report["latency"]["count"].as_u64(), report["lost"].as_u64()),
        (Some(3), Some(0))
    );
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
    let served = async { while ask().await.0.as_deref() != Some("200") {} };
    let served = tokio::time::timeout(Duration::from_secs(60), served).await;
    served.expect("its clients are served again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_no_request() {
    let nodes = nodes(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let yaml = any(&[(&nodes[0], 100)], "");
    std::fs::write(&file, crate::scene::on_free_ports(&yaml)).unwrap();
    let running = Running::start(&["run", "-c", file.to_str().unwrap()]);
    let address = running.address.trim_matches(['[', ']']);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (path, mut answer) = ("x".repeat(400), [0; 16 << 10]);
    // A pipe holds 64 KiB; these lines are four times as long.
    for _ in 0..600 {
        let request = format!("HEAD /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer));
        let read = read.await.expect("nobody waits for the log").unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
    }
}

// === under a service manager ===

/// A service manager's end of `NOTIFY_SOCKET`.
struct Ear {
    socket: UnixDatagram,
    name: String,
    /// Where a path leads.
    _dir: tempfile::TempDir,
}

impl Ear {
    /// On a path.
    fn at_a_path() -> Ear {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Ear::of(socket, path.to_str().unwrap().to_owned(), dir)
    }

    /// On a name without a file; the kernel's own list keeps it from being taken twice.
    #[cfg(target_os = "linux")]
    fn at_a_name() -> Ear {
        use std::os::linux::net::SocketAddrExt;
        let dir = tempfile::tempdir().unwrap();
        let name = format!("tabane{}", dir.path().display());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Ear::of(socket, format!("@{name}"), dir)
    }

    fn of(socket: UnixDatagram, name: String, dir: tempfile::TempDir) -> Ear {
        let patience = Some(Duration::from_secs(60));
        socket.set_read_timeout(patience).unwrap();
        Ear {
            socket,
            name,
            _dir: dir,
        }
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tabane"));
        command
            .args(["run", "-c", config.to_str().unwrap()])
            .env("NOTIFY_SOCKET", &self.name)
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        command
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut message = [0; 8192];
        let length = self.socket.recv(&mut message).expect("a word in time");
        text(&message[..length])
    }

    /// Everything up to the message of which `so` holds, which is the last.
    fn hear_until(&self, so: impl Fn(&str) -> bool) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.hear());
            if heard.last().is_some_and(|last| so(last)) {
                return heard;
            }
        }
    }

    fn has_heard_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let nothing = self.socket.recv(&mut [0; 1]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        nothing
    }
}

/// The value of a name in a message.
fn word<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = message.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn number(message: &str, name: &str) -> u128 {
    let said = word(message, name).unwrap_or_else(|| panic!("no {name} in {message:?}"));
    said.parse().unwrap()
}

/// Starts it, and looks at the port the moment the manager hears that it is ready.
async fn ready_means_ready(ear: Ear) {
    let nodes = nodes(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let yaml = crate::scene::on_free_ports(&any(&[(&nodes[0], 1)], ""));
    std::fs::write(&file, yaml).unwrap();
    let mut child = ear.command(&file).stdout(Stdio::null()).spawn().unwrap();
    let said = ear.hear();
    let status = word(&said, "STATUS").unwrap_or_default();
    let address = status.split_once(" on ").map(|(_, rest)| rest);
    let address = address.and_then(|rest| rest.split(';').next());
    let connected = std::net::TcpStream::connect(address.unwrap_or_default());
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(word(&said, "READY"), Some("1"), "the first word: {said:?}");
    assert!(connected.is_ok(), "{status:?} is where nobody listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_ready_when_the_port_answers() {
    ready_means_ready(Ear::at_a_path()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_without_a_file_hears_it_too() {
    ready_means_ready(Ear::at_a_name()).await;
}

#[test]
fn a_gateway_that_cannot_start_never_says_ready() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let listen = taken.local_addr().unwrap();
    let yaml = format!(
        "listen: [\"{listen}\"]\nadmin: off\nservices: {{any: {{pool: [http://127.0.0.1:1], routes: [/]}}}}\n"
    );
    std::fs::write(&file, yaml).unwrap();
    let ear = Ear::at_a_path();
    let output = ear.command(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("cannot listen on"),
        "{}",
        text(&output.stderr)
    );
    assert!(ear.has_heard_nothing());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_of_reloads_and_of_the_end() {
    let nodes = nodes(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let good = crate::scene::on_free_ports(&any(&[(&nodes[0], 1)], ""));
    let write = |yaml: &str| std::fs::write(&file, yaml).unwrap();
    write(&format!("{good}limits: {{grace: 7s}}\n"));
    let ear = Ear::at_a_path();
    let mut running = Running::start_as(ear.command(&file));
    let ready = ear.hear();
    assert_eq!(word(&ready, "READY"), Some("1"), "{ready:?}");
    assert!(
        ready.contains("serving any on ") && ready.ends_with("configuration 1"),
        "{ready:?}"
    );

    // A signal: the manager may be waiting for the answer to it.
    running.signal("HUP");
    let began = ear.hear();
    assert_eq!(word(&began, "RELOADING"), Some("1"), "{began:?}");
    let first = number(&began, "MONOTONIC_USEC");
    assert_eq!(ear.hear(), "READY=1");
    let status = ear.hear();
    assert!(status.ends_with("configuration 2"), "{status:?}");

    // A file with a problem stays out, and whoever asks for the status reads which.
    write("services: {any: {pool: nobody}}\nMAINPID: 1\n");
    let heard = ear.hear_until(|said| said.contains("the files have problems"));
    let told = heard.last().unwrap();
    assert!(
        told.contains("configuration 2; ")
            && told.contains("tabane.yaml:")
            && word(told, "MAINPID").is_none(),
        "{told:?}"
    );
    running.signal("HUP");
    let heard = ear.hear_until(|said| said == "READY=1");
    let began = heard.iter().find(|said| said.contains("RELOADING=1"));
    let second = number(
        began.expect("a reload begins before it ends"),
        "MONOTONIC_USEC",
    );
    assert!(second > first, "{first} {second}");
    ear.hear_until(|said| said.contains("the files have problems"));

    // Mended: as it was, so that nothing changes but this.
    write(&format!("{good}limits: {{grace: 7s}}\n"));
    ear.hear_until(|said| word(said, "STATUS").is_some_and(|s| s.ends_with("configuration 3")));

    // By the operator.
    assert!(running.ask(&["reload"]).status.success());
    ear.hear_until(|said| word(said, "STATUS").is_some_and(|s| s.ends_with("configuration 4")));

    running.signal("TERM");
    let end = ear.hear();
    assert_eq!(word(&end, "STOPPING"), Some("1"), "{end:?}");
    assert!(number(&end, "EXTEND_TIMEOUT_USEC") > 9_000_000, "{end:?}");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert!(ear.has_heard_nothing());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_managers_watchdog_is_fed_after_the_start() {
    let nodes = nodes(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let yaml = crate::scene::on_free_ports(&any(&[(&nodes[0], 1)], ""));
    std::fs::write(&file, yaml).unwrap();
    let ear = Ear::at_a_path();
    let mut command = ear.command(&file);
    command.env("WATCHDOG_USEC", "100000");
    let _running = Running::start_as(command);
    assert!(ear.hear().starts_with("READY=1"));
    for _ in 0..3 {
        assert_eq!(ear.hear(), "WATCHDOG=1");
    }
}
