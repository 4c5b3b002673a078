//! `tabane jobs …` against a gateway, and against one that breaks off where a real one seldom does.

use crate::jobs::stored;
use crate::scene::{Scene, nodes};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::pattern;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

/// Longer than anything here takes on a slow machine: only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

fn command(admin: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tabane"));
    command
        .arg("jobs")
        .args(args)
        .args(["--admin", admin])
        .env_remove("TABANE_CONFIG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(admin: &str, args: &[&str]) -> Output {
    let output = timeout(LONG, command(admin, args).output()).await;
    output.expect("it ends within a minute").unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn admin(scene: &Scene) -> String {
    scene.gateway.admin().unwrap().to_string()
}

/// The id in a job's path.
fn id(job: &str) -> &str {
    job.rsplit('/').next().unwrap()
}

// === with a gateway ===

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_listed_shown_and_fetched() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let admin = admin(&scene);
    let small = scene.submit("/echo?n=1", "a scene").await;
    let large = scene.submit("/echo?n=2", pattern(3_000_000)).await;
    for job in [&small, &large] {
        assert_eq!(scene.over(job).await["state"], "succeeded");
    }
    let (small, large) = (id(&small), id(&large));

    let listed = run(&admin, &["list"]).await;
    let lines: Vec<_> = out(&listed).lines().map(str::to_owned).collect();
    assert_eq!((code(&listed), lines.len()), (0, 3), "{listed:?}");
    assert!(lines[0].starts_with("id "), "{lines:?}");
    assert!(lines[1].starts_with(large), "the newest first: {lines:?}");
    let one = run(&admin, &["list", "--json", "--limit", "1"]).await;
    let one: Vec<Value> = out(&one)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((one.len(), &one[0]["id"]), (1, &json!(large)));
    let none = run(&admin, &["list", "--state", "queued,running"]).await;
    assert_eq!(out(&none).lines().count(), 1, "{none:?}");
    let wrong = run(&admin, &["list", "--state", "lost"]).await;
    assert_eq!(code(&wrong), 1);
    assert!(err(&wrong).contains("`lost` is no state"), "{wrong:?}");

    let shown = run(&admin, &["show", small]).await;
    for wants in ["POST /echo?n=1, 7 B", "a/http", "succeeded", "/result"] {
        assert!(out(&shown).contains(wants), "{wants}: {shown:?}");
    }
    let document = run(&admin, &["show", small, "--json"]).await;
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["id"], small);
    let missing = run(&admin, &["show", "none"]).await;
    assert_eq!(code(&missing), 1);
    assert!(err(&missing).contains("no job `none`"), "{missing:?}");

    assert_eq!(run(&admin, &["result", small]).await.stdout, b"a scene");
    let file = scene.dir.path().join("result");
    let got = run(&admin, &["result", large, "-o", file.to_str().unwrap()]).await;
    assert_eq!(code(&got), 0, "{got:?}");
    assert!(std::fs::read(&file).unwrap() == pattern(3_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_listed_when_all_are_asked_for() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let admin = admin(&scene);
    nodes[0].set(|knobs| knobs.hang = true);
    for _ in 0..60 {
        scene.submit("/work", "").await;
    }
    let usual = run(&admin, &["list"]).await;
    assert_eq!(out(&usual).lines().count(), 51);
    assert!(err(&usual).contains("--all"), "{usual:?}");
    let all = run(&admin, &["list", "--all"]).await;
    assert_eq!((out(&all).lines().count(), err(&all).len()), (61, 0));
    assert!(out(&all).contains("a/http"), "where it is at work: {all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_exits_0_when_all_succeeded_and_1_when_one_did_not() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let admin = admin(&scene);
    let good = [
        scene.submit("/echo", "1").await,
        scene.submit("/echo", "2").await,
    ];
    let waited = run(&admin, &["wait", id(&good[0]), id(&good[1])]).await;
    assert_eq!(code(&waited), 0, "{waited:?}");
    for job in &good {
        let end = format!("{}  succeeded  ", id(job));
        assert!(out(&waited).contains(&end), "{waited:?}");
    }
    let bad = scene.submit("/status/418", "").await;
    let waited = run(&admin, &["wait", id(&good[0]), id(&bad)]).await;
    assert_eq!(code(&waited), 1, "{waited:?}");
    assert!(out(&waited).contains(&format!("{}  failed", id(&bad))));
    let result = run(&admin, &["result", id(&bad)]).await;
    assert_eq!((code(&result), out(&result).as_str()), (1, "as asked"));
    assert!(err(&result).contains("418"), "{result:?}");
    assert_eq!(code(&run(&admin, &["wait", "none"]).await), 1);
    assert_eq!(code(&run(&admin, &["wait"]).await), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_leaves_the_job_alone_and_is_told_so() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let admin = admin(&scene);
    nodes[0].set(|knobs| knobs.hang = true);
    let job = scene.submit("/work", "").await;
    nodes[0].until(|seen| seen.at_work == 1).await;

    let mut waiting = command(&admin, &["wait", id(&job)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let first = timeout(LONG, lines.next_line()).await.unwrap().unwrap();
    assert!(first.unwrap().starts_with(id(&job)));
    let pid = waiting.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.unwrap().success());
    let ended = timeout(LONG, waiting.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(code(&ended), 130, "{ended:?}");
    assert!(err(&ended).contains("the job goes on"), "{ended:?}");

    let late = run(&admin, &["wait", id(&job), "--timeout", "100ms"]).await;
    assert_eq!(code(&late), 1);
    assert!(err(&late).contains("the job goes on"), "{late:?}");
    let early = run(&admin, &["result", id(&job)]).await;
    assert_eq!(code(&early), 1);
    assert!(err(&early).contains("no result yet"), "{early:?}");
    assert_eq!(nodes[0].seen().at_work, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_takes_back_what_is_not_over_and_keeps_the_result_of_what_is() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "cool_down: 1ms")).await;
    let admin = admin(&scene);
    let done = scene.submit("/echo", "kept").await;
    scene.over(&done).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let running = scene.submit("/work", "1").await;
    nodes[0].until(|seen| seen.at_work == 1).await;
    let waiting = scene.submit("/work", "2").await;

    let canceled = run(&admin, &["cancel", id(&waiting), id(&done)]).await;
    assert_eq!(code(&canceled), 1, "one of them is over: {canceled:?}");
    assert!(err(&canceled).contains("it is over: succeeded"));
    assert_eq!(scene.over(&waiting).await["state"], "canceled");
    let again = run(&admin, &["cancel", id(&waiting), id(&running)]).await;
    assert_eq!(code(&again), 0, "{again:?}");
    assert_eq!(scene.over(&running).await["state"], "canceled");

    // The API itself deletes nothing either, for whoever comes a moment late.
    let late = scene.ask("POST", &format!("{done}/cancel")).send().await;
    assert_eq!(late.status, 409, "{late:?}");
    assert_eq!(scene.get(&format!("{done}/result")).await.body, "kept");

    nodes[0].set(|knobs| knobs.hang = false);
    let retried = run(&admin, &["retry", id(&waiting)]).await;
    assert_eq!(code(&retried), 0, "{retried:?}");
    assert_eq!(scene.over(&waiting).await["state"], "succeeded");
    let retried = run(&admin, &["retry", id(&waiting)]).await;
    assert_eq!(code(&retried), 1, "{retried:?}");
    assert!(err(&retried).contains("can be retried"), "{retried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_deletes_what_it_is_told_to_and_never_without_a_yes() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let admin = admin(&scene);
    let good = scene.submit("/echo", "").await;
    let bad = scene.submit("/status/418", "").await;
    scene.over(&good).await;
    scene.over(&bad).await;
    let unasked = run(&admin, &["purge"]).await;
    assert_eq!(code(&unasked), 2, "{unasked:?}");
    assert_eq!(scene.get(&bad).await.status, 200);
    let young = run(&admin, &["purge", "--yes", "--older", "1h"]).await;
    assert_eq!(out(&young), "0 jobs were deleted\n", "{young:?}");
    let purged = run(&admin, &["purge", "--yes", "--state", "failed"]).await;
    assert_eq!(out(&purged), "1 job was deleted\n", "{purged:?}");
    assert_eq!(scene.get(&bad).await.status, 404);
    assert_eq!(scene.get(&good).await.status, 200);
    let wrong = run(&admin, &["purge", "--yes", "--state", "running"]).await;
    assert_eq!(code(&wrong), 1);
    assert!(err(&wrong).contains("no job ends `running`"), "{wrong:?}");
}

// === with one that breaks off ===

/// Answers the requests to it in turn, each on a connection of its own, which it then closes. What was asked comes back.
async fn recited(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answers: Arc<[String]> = answers.into();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers.iter() {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(head(&mut stream).await);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        asked
    });
    (address, asked)
}

/// The head of a request, in small letters.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

async fn asked(asked: tokio::task::JoinHandle<Vec<String>>) -> Vec<String> {
    let asked = timeout(LONG, asked).await;
    asked.expect("all that was to be asked was asked").unwrap()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

fn document(document: &Value) -> String {
    answer("200 OK", "", &document.to_string())
}

fn missing() -> String {
    let body = json!({"error": {"code": "gone", "message": "there is no job `x` any more"}});
    answer("410 Gone", "", &body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_outlives_a_gateway_that_goes_away_and_comes_back() {
    let running = json!({"id": "x", "state": "running"});
    let (admin, asking) = recited(vec![
        document(&running),
        // It ends in the middle of a question, and is not ready at once.
        String::new(),
        answer("503 Service Unavailable", "", "not yet"),
        document(&running),
        document(&json!({"id": "x", "state": "succeeded"})),
    ])
    .await;
    let waited = run(&admin, &["wait", "x"]).await;
    assert_eq!(code(&waited), 0, "{waited:?}");
    let said = out(&waited);
    assert_eq!(said.matches("x  running\n").count(), 1, "{said}");
    assert_eq!(said.matches("asked again").count(), 1, "{said}");
    assert_eq!(said.matches("answers again").count(), 1, "{said}");
    let asked = asked(asking).await;
    assert!(!asked[0].contains("prefer:"), "{asked:?}");
    assert!(asked[4].contains("prefer: wait="), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_nobody_listens_is_not_waited_for() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    drop(taken);
    let waited = run(&admin, &["wait", "x"]).await;
    assert_eq!(code(&waited), 1);
    assert!(err(&waited).contains("cannot reach"), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_waited_for_by_its_own_id() {
    let array = |state: &str, done: u32| {
        document(&json!({
            "id": "x", "array": true, "state": state, "total": 2, "done": done,
            "counts": {"running": 2 - done, "succeeded": done},
        }))
    };
    let (admin, asking) = recited(vec![
        missing(),
        array("running", 0),
        array("running", 1),
        array("succeeded", 2),
    ])
    .await;
    let waited = run(&admin, &["wait", "x"]).await;
    assert_eq!(code(&waited), 0, "{waited:?}");
    assert!(out(&waited).contains("x  running  1 running, 1 succeeded\n"));
    let asked = asked(asking).await;
    assert!(asked[0].starts_with("get /api/v1/jobs/x "), "{asked:?}");
    for asked in &asked[1..] {
        assert!(asked.starts_with("get /api/v1/arrays/x "), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_cut_is_fetched_on_from_there() {
    let head = "job-state: succeeded\r\naccept-ranges: bytes\r\n";
    let whole = answer("200 OK", head, "0123456789");
    let range = format!("{head}content-range: bytes 4-9/10\r\n");
    let (admin, asking) = recited(vec![
        whole[..whole.len() - 6].to_owned(),
        String::new(),
        answer("206 Partial Content", &range, "456789"),
    ])
    .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("result");
    let got = run(&admin, &["result", "x", "-o", file.to_str().unwrap()]).await;
    assert_eq!(code(&got), 0, "{got:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"0123456789");
    assert!(asked(asking).await[2].contains("range: bytes=4-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_result_is_never_left_under_its_name() {
    let head = "job-state: failed\r\n";
    let whole = answer("500 Internal Server Error", head, "0123456789");
    let (admin, _asking) = recited(vec![whole[..whole.len() - 6].to_owned()]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("result");
    let got = run(&admin, &["result", "x", "-o", file.to_str().unwrap()]).await;
    assert_eq!(code(&got), 1, "{got:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_over_a_cut_and_each_line_is_printed_once() {
    let stream = |events: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n{events}"
        )
    };
    let (admin, asking) = recited(vec![
        stream(
            "id: 2\nevent: started\ndata: {\"endpoint\":\"a/http\"}\n\n\
             id: 3\nevent: log\ndata: {\"lines\":[\"one\"]}\n\n\
             event: log\ndata: {\"line\":\"two\"}\n\n",
        ),
        stream(
            "id: 4\nevent: log\ndata: {\"lines\":[\"two\",\"three\"]}\n\n\
             id: 5\nevent: finished\ndata: {\"state\":\"succeeded\"}\n\n",
        ),
    ])
    .await;
    let followed = run(&admin, &["logs", "x", "--follow"]).await;
    assert_eq!(code(&followed), 0, "{followed:?}");
    assert!(err(&followed).contains("started on a/http"), "{followed:?}");
    assert!(asked(asking).await[1].contains("last-event-id: 3"));
    assert_eq!(out(&followed), "one\ntwo\nthree\n");
}
