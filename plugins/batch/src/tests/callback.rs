use super::fakes::{Node, Told, attempt, run};
use bytes::Bytes;
use http::Request;
use std::time::Duration;
use tabane_api::{Attempt, RunError, Verdict};
use tokio::time::{sleep, timeout};

const WORK: &str = "POST /render?draft=1";

/// It calls once for each image, and at the end.
const CALLS: &str = r#"{"callback": {"submit": {"set": {"/webhook": "{callback}"}}, "state": "/event",
    "done": ["prompt.complete"], "failed": ["prompt.failed"], "progress": "/p"}}"#;

/// It says what the work is called, and can be asked.
const BOTH: &str = r#"{"callback": {"submit": {"headers": {"X-Callback": "{callback}"}}, "id": "/id",
    "state": "/state", "done": ["done"], "failed": ["failed"], "status": "/jobs/{id}", "result": "/jobs/{id}/out"}}"#;

fn called(body: &'static str) -> Request<Bytes> {
    let call = Request::post("/cb").header("content-type", "application/json");
    call.header("x-secret", "s").body(body.into()).unwrap()
}

fn attempt_with_callback(body: &str) -> Attempt {
    let mut attempt = attempt(body);
    attempt.callback = Some("http://10.0.0.1:8080/_tabane/cb/t0ken".parse().unwrap());
    attempt
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_whom_to_call_and_its_call_is_the_result() {
    let node = Node::default().on(WORK, 202, "ok");
    let (told, caller) = Told::new();
    for said in [
        "who knows",
        r#"{"about": "something else"}"#,
        r#"{"event": "prompt.step", "p": 0.5}"#,
        r#"{"event": "prompt.complete", "images": 1}"#,
    ] {
        // Calls that come before anybody listens are kept.
        caller.send(called(said)).unwrap();
    }
    let attempt = attempt_with_callback(r#"{"prompt": {"1": 1.0}}"#);
    let came = run(CALLS, &attempt, &node, &told).await;
    let result = r#"{"event": "prompt.complete", "images": 1}"#;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, result.into())));
    assert_eq!(
        node.request(WORK).body(),
        r#"{"webhook":"http://10.0.0.1:8080/_tabane/cb/t0ken","prompt": {"1": 1.0}}"#
    );
    assert_eq!(
        told.lines(),
        ["submitting", "handle 01J/8-2", "progress 0.5 -"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_may_say_that_the_work_came_to_nothing() {
    let node = Node::default().on(WORK, 202, "ok");
    let (told, caller) = Told::new();
    caller
        .send(called(r#"{"event": "prompt.failed"}"#))
        .unwrap();
    let came = run(CALLS, &attempt_with_callback("{}"), &node, &told).await;
    assert_eq!(
        came,
        Ok((Verdict::Failed, 200, r#"{"event": "prompt.failed"}"#.into()))
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_state_the_first_call_is_the_end_whatever_it_holds() {
    let block = r#"{"callback": {"submit": {"path": "/go?to={callback}"}}}"#;
    let asked = "POST /go?to=http%3A%2F%2F10.0.0.1%3A8080%2F_tabane%2Fcb%2Ft0ken";
    let node = Node::default().on(asked, 200, "");
    let (told, caller) = Told::new();
    caller.send(called("pixels")).unwrap();
    let came = run(block, &attempt_with_callback("{}"), &node, &told).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_lost_is_made_up_for_by_asking() {
    let node = Node::default()
        .on(WORK, 202, r#"{"id": "k"}"#)
        .on("GET /jobs/k", 200, r#"{"state": "running"}"#)
        .on("GET /jobs/k", 200, r#"{"state": "done"}"#)
        .on("GET /jobs/k/out", 200, "pixels");
    let (told, _caller) = Told::new();
    let came = run(BOTH, &attempt_with_callback("{}"), &node, &told).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));
    assert_eq!(
        node.request(WORK).headers()["x-callback"],
        "http://10.0.0.1:8080/_tabane/cb/t0ken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_is_heard_while_the_server_does_not_answer_questions() {
    let node = Node::default()
        .on(WORK, 202, r#"{"id": "k"}"#)
        .hangs("GET /jobs/k")
        .on("GET /jobs/k/out", 200, "pixels");
    let (told, caller) = Told::new();
    tokio::spawn(async move {
        sleep(Duration::from_secs(40)).await;
        caller.send(called(r#"{"state": "done"}"#)).unwrap();
    });
    let came = run(BOTH, &attempt_with_callback("{}"), &node, &told).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));
    assert_eq!(node.count("GET /jobs/k"), 1);
}

#[tokio::test(start_paused = true)]
async fn work_with_a_handle_waits_for_its_call_and_is_not_submitted_again() {
    let node = Node::default();
    let (told, caller) = Told::new();
    let mut attempt = attempt_with_callback("{}");
    attempt.handle = Some("01J/8-2".into());
    let waiting = run(CALLS, &attempt, &node, &told);
    assert!(timeout(Duration::from_secs(9999), waiting).await.is_err());
    caller
        .send(called(r#"{"event": "prompt.complete"}"#))
        .unwrap();
    assert!(run(CALLS, &attempt, &node, &told).await.is_ok());
    assert!(node.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_an_address_for_nodes_the_job_is_impossible_and_the_key_is_named() {
    let told = Told::alone();
    let came = run(CALLS, &attempt("{}"), &Node::default(), &told).await;
    let Err(RunError::Impossible(why)) = came else {
        panic!("{came:?}");
    };
    assert!(why.contains("`nodes_reach_us_at`"), "{why}");
    assert!(told.lines().is_empty());
    // What can be asked for is taken up all the same.
    let node = Node::default()
        .on("GET /jobs/k", 200, r#"{"state": "done"}"#)
        .on("GET /jobs/k/out", 200, "pixels");
    let mut attempt = attempt("{}");
    attempt.handle = Some("k".into());
    assert!(run(BOTH, &attempt, &node, &told).await.is_ok());
}
