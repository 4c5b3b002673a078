use super::fakes::{Node, Told, attempt, kind, run};
use std::time::Duration;
use tabane_api::{Found, NodeError, RunError, Service, Verdict};
use tokio::time::{Instant, timeout};

/// The most usual API of its kind.
const JOBS: &str = r#"{"poll": {"id": "/id", "status": "/jobs/{id}", "state": "/status", "done": ["done"],
    "failed": ["failed"], "canceled": ["canceled"], "result": "/jobs/{id}/result"}}"#;

/// The same, where it can be asked for an attempt's own id.
const FINDABLE: &str = r#"{"poll": {"submit": {"headers": {"Idempotency-Key": "{attempt}"}},
    "id": "/id", "status": "/jobs/{id}", "state": "/status", "done": ["done"],
    "find": {"path": "/jobs?key={attempt}", "id": "/jobs/0/id"}}}"#;

const WORK: &str = "POST /render?draft=1";

fn broken() -> NodeError {
    NodeError::Broken("reset".into())
}

#[tokio::test(start_paused = true)]
async fn work_is_submitted_once_and_followed_to_its_result() {
    let node = Node::default()
        .on(WORK, 202, r#"{"id": 7}"#)
        .on("GET /jobs/7", 200, r#"{"status": "queued"}"#)
        .on("GET /jobs/7", 200, r#"{"status": "anything else"}"#)
        .on("GET /jobs/7", 200, r#"{"status": "done"}"#)
        .on_with(
            "GET /jobs/7/result",
            200,
            ("content-type", "image/png"),
            "pixels",
        );
    let told = Told::alone();
    let came = run(JOBS, &attempt("{}"), &node, &told).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));
    assert_eq!(told.lines(), ["submitting", "handle 7"]);
    assert_eq!(node.count(WORK), 1);
    assert_eq!(node.count("GET /jobs/7"), 3);
    let sent = node.request(WORK);
    assert_eq!(
        (&sent.body()[..], sent.headers().len()),
        (&b"{}"[..], 2),
        "as it came"
    );
}

#[tokio::test(start_paused = true)]
async fn work_with_a_handle_is_taken_up_and_not_submitted_again() {
    let node = Node::default()
        .on("GET /jobs/a%2F7", 200, r#"{"status": "done"}"#)
        .on("GET /jobs/a%2F7/result", 200, "pixels");
    let told = Told::alone();
    let mut attempt = attempt("{}");
    attempt.handle = Some("a/7".into());
    let began = Instant::now();
    let came = run(JOBS, &attempt, &node, &told).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));
    assert!(told.lines().is_empty(), "{:?}", told.lines());
    assert_eq!(began.elapsed(), Duration::ZERO, "it may be done for long");
}

#[tokio::test(start_paused = true)]
async fn a_superseded_attempt_submits_nothing_and_follows_nothing() {
    for (at, asked) in [("submitting", 0), ("handle", 1)] {
        let node = Node::default().on(WORK, 202, r#"{"id": 7}"#);
        let mut told = Told::alone();
        told.superseded_at = Some(at);
        let came = run(JOBS, &attempt("{}"), &node, &told).await;
        assert_eq!(came, Err(RunError::Superseded), "{at}");
        assert_eq!(node.asked().len(), asked, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_to_a_submission_decides() {
    for (status, body, wants) in [
        (429, "", Err(RunError::Busy)),
        (503, "", Ok((Verdict::ByStatus, 503, String::new()))),
        (400, "no such scene", Ok((Verdict::ByStatus, 400, "no such scene".into()))),
        (500, "oops", Ok((Verdict::ByStatus, 500, "oops".into()))),
        (302, "elsewhere", Ok((Verdict::Failed, 302, "elsewhere".into()))),
        (
            200,
            r#"{"error": "?"}"#,
            Err(RunError::Unknown(
                "POST /render on tokyo/batch was answered, but nothing at `/id` says what the work is called".into(),
            )),
        ),
    ] {
        let node = Node::default().on(WORK, status, body);
        let came = run(JOBS, &attempt("{}"), &node, &Told::alone()).await;
        assert_eq!(came, wants, "{status}");
        assert_eq!(node.asked().len(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_breaks_after_bytes_were_sent_is_unknown_and_one_before_is_not() {
    let unreachable = NodeError::Unreachable("refused".into());
    for (error, wants) in [
        (unreachable.clone(), RunError::Node(unreachable)),
        (
            broken(),
            RunError::Unknown("POST /render on tokyo/batch: the exchange broke: reset".into()),
        ),
        (
            NodeError::Timeout,
            RunError::Unknown("POST /render on tokyo/batch: no answer in time".into()),
        ),
    ] {
        let node = Node::default().fails(WORK, error);
        let came = run(JOBS, &attempt("{}"), &node, &Told::alone()).await;
        assert_eq!(came, Err(wants));
    }
    let node = Node::default().hangs(WORK);
    let came = run(JOBS, &attempt("{}"), &node, &Told::alone()).await;
    let wants = "POST /render on tokyo/batch was not answered within 600s";
    assert_eq!(came, Err(RunError::Unknown(wants.into())));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_the_attempts_own_id_settles_what_is_unknown() {
    let asked = "GET /jobs?key=01J%2F8-2";
    let attempt = attempt("{}");
    let node = || Node::default().fails(WORK, broken());
    let found = node()
        .fails(asked, NodeError::Timeout)
        .on(asked, 200, r#"{"jobs": [{"id": "k"}]}"#)
        .on("GET /jobs/k", 200, r#"{"status": "done"}"#);
    let told = Told::alone();
    let came = run(FINDABLE, &attempt, &found, &told).await;
    assert_eq!(
        came,
        Ok((Verdict::Succeeded, 200, r#"{"status": "done"}"#.into()))
    );
    assert_eq!(told.lines(), ["submitting", "handle k"]);
    assert_eq!(found.count(WORK), 1);

    let nothing = node().on(asked, 200, r#"{"jobs": []}"#);
    let came = run(FINDABLE, &attempt, &nothing, &Told::alone()).await;
    assert!(matches!(came, Err(RunError::Lost(_))), "{came:?}");

    let silent = node().fails(asked, NodeError::Timeout);
    let came = run(FINDABLE, &attempt, &silent, &Told::alone()).await;
    assert!(matches!(came, Err(RunError::Unknown(_))), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn work_is_found_by_the_attempts_own_id_or_nobody_can_tell() {
    let asked = "GET /jobs?key=01J%2F8-2";
    for (status, body, wants) in [
        (
            200,
            r#"{"jobs": [{"id": 7}]}"#,
            Ok(Found::Handle("7".into())),
        ),
        (200, r#"{"jobs": []}"#, Ok(Found::Nothing)),
        (404, "", Ok(Found::Nothing)),
        (
            500,
            "",
            Err(NodeError::Broken(
                "poll.find: the server answered 500 Internal Server Error".into(),
            )),
        ),
    ] {
        let node = Node::default().on(asked, status, body);
        let found = kind(FINDABLE).unwrap().find(&attempt("{}"), &node).await;
        assert_eq!(found, wants, "{status} {body}");
    }
    let found = kind(JOBS)
        .unwrap()
        .find(&attempt("{}"), &Node::default())
        .await;
    assert_eq!(found, Ok(Found::CannotTell));
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_is_forgiven_until_lost_after() {
    let passing = Node::default()
        .on(WORK, 202, r#"{"id": 7}"#)
        .fails("GET /jobs/7", broken())
        .on("GET /jobs/7", 404, "")
        .on("GET /jobs/7", 502, "<html>")
        .on("GET /jobs/7", 200, "not JSON")
        .on("GET /jobs/7", 200, "{}")
        .on("GET /jobs/7", 200, r#"{"status": "done"}"#)
        .fails("GET /jobs/7/result", broken())
        .on("GET /jobs/7/result", 503, "")
        .on("GET /jobs/7/result", 200, "pixels");
    let came = run(JOBS, &attempt("{}"), &passing, &Told::alone()).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));

    let lost = |why: &str| RunError::Lost(format!("tokyo/batch: GET poll.status: {why}"));
    let node = || Node::default().on(WORK, 202, r#"{"id": 7}"#);
    let asked = "GET /jobs/7";
    let refused = NodeError::Unreachable("refused".into());
    for (node, wants) in [
        (
            node().on(asked, 404, ""),
            lost("the server answered 404 Not Found"),
        ),
        (
            node().on(asked, 401, ""),
            lost("the server answered 401 Unauthorized"),
        ),
        (
            node().on(asked, 200, "{}"),
            lost("of the answer: it has no state at `/status`"),
        ),
        (
            node().fails(asked, refused.clone()),
            RunError::Node(refused),
        ),
    ] {
        let began = Instant::now();
        let came = run(JOBS, &attempt("{}"), &node, &Told::alone()).await;
        assert_eq!(came, Err(wants));
        let took = began.elapsed().as_secs();
        assert!((120..140).contains(&took), "{took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn good_answers_in_between_end_the_silence() {
    let mut node = Node::default().on(WORK, 202, r#"{"id": 7}"#);
    for _ in 0..100 {
        node = node
            .on("GET /jobs/7", 500, "")
            .on("GET /jobs/7", 200, r#"{"status": "running"}"#);
    }
    let node = node.on("GET /jobs/7", 200, r#"{"status": "failed"}"#);
    let came = run(JOBS, &attempt("{}"), &node, &Told::alone()).await;
    assert_eq!(
        came,
        Ok((Verdict::Failed, 200, r#"{"status": "failed"}"#.into()))
    );
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_by_a_tenth_up_to_the_longest() {
    let node = Node::default().on(WORK, 202, r#"{"id": 7}"#).on(
        "GET /jobs/7",
        200,
        r#"{"status": "running"}"#,
    );
    let told = Told::alone();
    let hour = Duration::from_secs(3600);
    assert!(
        timeout(hour, run(JOBS, &attempt("{}"), &node, &told))
            .await
            .is_err()
    );
    let asked = node.count("GET /jobs/7");
    // 22 pauses lead from 2 s to 15 s, and take some 130 s.
    assert!((240..265).contains(&asked), "{asked}");

    let waits = Node::default().on(WORK, 202, r#"{"id": 7}"#).on_with(
        "GET /jobs/7",
        200,
        ("retry-after", "3600"),
        r#"{"status": "running"}"#,
    );
    assert!(
        timeout(hour, run(JOBS, &attempt("{}"), &waits, &told))
            .await
            .is_err()
    );
    assert_eq!(
        waits.count("GET /jobs/7"),
        240,
        "what the server asks for counts up to the longest pause"
    );
}

#[tokio::test(start_paused = true)]
async fn progress_words_and_new_lines_are_told_once() {
    let block = r#"{"poll": {"id": "/id", "status": "/jobs/{id}", "state": "/status", "done": ["done"],
        "progress": PROGRESS, "message": "/doing", "log": "/log"}}"#;
    for (progress, first, second) in [
        (r#""/p""#, r#""p": 0.25"#, r#""p": "0.5""#),
        (
            r#"{"at": "/p", "max": 100}"#,
            r#""p": 25"#,
            r#""p": "50 %""#,
        ),
        (
            r#"{"at": "/n", "of": "/m"}"#,
            r#""n": 60, "m": 240"#,
            r#""n": 120, "m": 240"#,
        ),
    ] {
        let status = |said: &str, log: &str| {
            let body = format!(r#"{{"status": "x", "doing": "frame", "log": "{log}", {said}}}"#);
            &*body.leak()
        };
        let node = Node::default()
            .on(WORK, 202, r#"{"id": 7}"#)
            .on("GET /jobs/7", 200, status(first, r"one\ntw"))
            .on("GET /jobs/7", 200, status(first, r"one\ntwo\n"))
            .on("GET /jobs/7", 200, status(second, r"one\ntwo\nthree\n"))
            .on("GET /jobs/7", 200, r#"{"status": "done", "log": "anew\n"}"#);
        let told = Told::alone();
        let block = block.replace("PROGRESS", progress);
        run(&block, &attempt("{}"), &node, &told).await.unwrap();
        assert_eq!(
            told.lines()[2..],
            [
                "progress 0.25 frame",
                "log one",
                "log two",
                "progress 0.5 frame",
                "log three",
                "log anew",
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_card_that_was_too_small_is_told_from_other_failures() {
    let block = r#"{"poll": {"id": "/id", "status": "/status/{id}", "state": "/status", "done": ["COMPLETED"],
        "failed": ["FAILED"], "error": "/error", "out_of_memory": ["CUDA out of memory"]}}"#;
    let small = r#"{"status": "FAILED", "error": "torch: cuda out of memory. Tried to"}"#;
    let other = r#"{"status": "FAILED", "error": {"why": "no such scene"}}"#;
    for (said, wants) in [
        (
            small,
            Err(RunError::OutOfMemory(
                "torch: cuda out of memory. Tried to".into(),
            )),
        ),
        (other, Ok((Verdict::Failed, 200, other.into()))),
    ] {
        let node =
            Node::default()
                .on(WORK, 200, r#"{"id": "x-7"}"#)
                .on("GET /status/x-7", 200, said);
        assert_eq!(
            run(block, &attempt("{}"), &node, &Told::alone()).await,
            wants
        );
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_lead_to_the_same_node_whatever_host_they_name() {
    let block = r#"{"poll": {"id": {"header": "Location"}, "status": "{location}", "state": "/state",
        "done": ["ok"], "result_url": "/files/0"}}"#;
    for location in [
        "/v1/tasks/t%207?key=a",
        "https://evil.example/v1/tasks/t%207?key=a",
        "//evil.example/v1/tasks/t%207?key=a#top",
    ] {
        for status in [201, 202, 303] {
            let node = Node::default()
                .on_with(WORK, status, ("location", location), "")
                .on(
                    "GET /v1/tasks/t%207?key=a",
                    200,
                    r#"{"state": "ok", "files": ["http://evil.example:1/out/7.exr?x=1"]}"#,
                )
                .on("GET /out/7.exr?x=1", 200, "pixels");
            let told = Told::alone();
            let came = run(block, &attempt("{}"), &node, &told).await;
            assert_eq!(came, Ok((Verdict::Succeeded, 200, "pixels".into())));
            assert_eq!(told.lines()[1], "handle /v1/tasks/t%207?key=a");
        }
    }
    // Of an address, the id is the last part.
    let block = r#"{"poll": {"id": {"header": "Location"}, "status": "/s/{id}", "state": "/state", "done": ["ok"]}}"#;
    let node = Node::default()
        .on_with(WORK, 201, ("location", "/v1/tasks/t%207"), "")
        .on("GET /s/t%207", 200, r#"{"state": "ok"}"#);
    assert!(
        run(block, &attempt("{}"), &node, &Told::alone())
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_file_adds_is_in_every_request() {
    let block = r#"{"headers": {"Authorization": "Bearer secret"}, "poll": {
        "submit": {"method": "PUT", "path": "/v2/abc{path}/{job}", "headers": {"X-Try": "{attempt}"},
                   "set": {"/meta/key": "{job}"}},
        "id": "/id", "status": {"path": "/s", "method": "POST", "json": {"ids": ["{id}"], "n": 1}},
        "state": "/0", "done": [true]}}"#;
    let mut attempt = attempt(r#"{"n": 1.0}"#);
    attempt
        .headers
        .insert("authorization", "of the client".parse().unwrap());
    let node = Node::default()
        .on("PUT /v2/abc/render/01J%2F8", 200, r#"{"id": "q\"7"}"#)
        .on("POST /s", 200, "[true]");
    let came = run(block, &attempt, &node, &Told::alone()).await;
    assert_eq!(came, Ok((Verdict::Succeeded, 200, "[true]".into())));
    let submitted = node.request("PUT /v2/abc/render/01J%2F8");
    assert_eq!(submitted.headers()["x-try"], "01J/8-2");
    assert_eq!(submitted.headers()["authorization"], "Bearer secret");
    assert!(
        !submitted.headers().contains_key("content-length"),
        "the body is longer now"
    );
    assert_eq!(submitted.body(), r#"{"meta":{"key":"01J/8"},"n": 1.0}"#);
    let asked = node.request("POST /s");
    assert_eq!(asked.headers()["authorization"], "Bearer secret");
    assert_eq!(asked.headers()["content-type"], "application/json");
    assert_eq!(asked.body(), r#"{"ids":["q\"7"],"n":1}"#);
    assert!(!format!("{:?}", kind(block).unwrap().headers).contains("secret"));
    let config: crate::Config = serde_json::from_str(block).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nothing_can_be_put_into_is_impossible_and_reaches_no_node() {
    let block = r#"{"poll": {"submit": {"set": {"/key": "{attempt}"}}, "id": "/id", "status": "/s/{id}",
        "state": "/s", "done": ["ok"]}}"#;
    let told = Told::alone();
    let came = run(block, &attempt("frame=7"), &Node::default(), &told).await;
    let Err(RunError::Impossible(why)) = came else {
        panic!("{came:?}");
    };
    assert!(
        why.starts_with("poll.submit: its body is not JSON, and `/key`"),
        "{why}"
    );
    assert!(told.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_status_answer_that_is_the_result_may_be_long() {
    let block = r#"{"poll": {"id": "/id", "status": "/s/{id}", "state": "/s", "done": ["ok"]}}"#;
    let node = Node::default()
        .on(WORK, 200, r#"{"id": 7}"#)
        .fails("GET /s/7", NodeError::TooLarge { max: 8 << 20 })
        .on_with(
            "GET /s/7",
            200,
            ("transfer-encoding", "chunked"),
            r#"{"s": "ok", "image": "…"}"#,
        );
    let came = run(block, &attempt("{}"), &node, &Told::alone()).await;
    assert_eq!(
        came,
        Ok((
            Verdict::Succeeded,
            200,
            r#"{"s": "ok", "image": "…"}"#.into()
        ))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_the_result_unless_the_file_says_otherwise() {
    for block in ["{}", r#"{"sync": {}}"#] {
        let node = Node::default().on(WORK, 422, "no");
        let told = Told::alone();
        let came = run(block, &attempt("scene"), &node, &told).await;
        assert_eq!(came, Ok((Verdict::ByStatus, 422, "no".into())));
        assert_eq!(node.request(WORK).body(), "scene");
        assert!(told.lines().is_empty());
    }
}
