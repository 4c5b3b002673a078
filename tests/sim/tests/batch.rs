//! Jobs that a node takes: what is asked for is told, and each knob does what it says.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::time::Duration;
use tabane_sim::{Knobs, Node, Submission, pattern};
use tokio::time::timeout;

/// Sends a request; an error is a connection that broke.
async fn ask(
    node: &Node,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Result<Response<Bytes>, String> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::new(Full::<Bytes>::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = format!("{}{path}", node.url()).parse().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = client
        .request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

async fn get(node: &Node, path: &str) -> Response<Bytes> {
    ask(node, Method::GET, path, &[], "").await.unwrap()
}

fn json(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn a_job_is_taken_asked_for_and_fetched() {
    let knobs = Knobs {
        hold_jobs: true,
        result_bytes: 300,
        ..Knobs::named("a", 1)
    };
    let node = Node::start(knobs).await.unwrap();
    let headers = [("client-key", "k"), ("idempotency-key", "j-1")];
    let taken = ask(&node, Method::POST, "/jobs", &headers, "{}")
        .await
        .unwrap();
    assert_eq!(
        (taken.status().as_u16(), json(&taken)["id"].as_str()),
        (202, Some("a-1"))
    );
    assert_eq!(json(&get(&node, "/jobs/a-1").await)["status"], "running");
    assert_eq!(
        json(&get(&node, "/jobs?attempt=j-1").await)["jobs"][0]["id"],
        "a-1"
    );
    assert_eq!(
        json(&get(&node, "/jobs?attempt=j-2").await)["jobs"],
        serde_json::json!([])
    );
    assert_eq!(get(&node, "/jobs/a-1/result").await.status(), 409);
    assert_eq!(node.seen().at_work, 1);

    node.set(|knobs| knobs.hold_jobs = false);
    node.until(|seen| seen.jobs_ended == 1).await;
    let about = json(&get(&node, "/jobs/a-1").await);
    assert_eq!(
        (about["status"].as_str(), about["progress"].as_f64()),
        (Some("done"), Some(1.0))
    );
    assert_eq!(get(&node, "/jobs/a-1/result").await.body(), &pattern(300));
    let seen = node.seen();
    assert_eq!((seen.submits["k"], seen.at_work, seen.finished), (1, 0, 1));

    node.forget_jobs();
    assert_eq!(get(&node, "/jobs/a-1").await.status(), 404);
}

#[tokio::test]
async fn a_job_can_be_stopped_and_can_come_to_nothing() {
    let knobs = Knobs {
        hold_jobs: true,
        job_error: Some("CUDA out of memory".into()),
        ..Knobs::named("a", 2)
    };
    let node = Node::start(knobs).await.unwrap();
    for _ in 0..2 {
        ask(&node, Method::POST, "/jobs", &[], "").await.unwrap();
    }
    ask(&node, Method::DELETE, "/jobs/a-1", &[], "")
        .await
        .unwrap();
    node.until(|seen| seen.at_work == 1).await;
    assert_eq!(json(&get(&node, "/jobs/a-1").await)["status"], "canceled");
    node.set(|knobs| knobs.hold_jobs = false);
    node.until(|seen| seen.jobs_ended == 1).await;
    let about = json(&get(&node, "/jobs/a-2").await);
    assert_eq!(
        (about["status"].as_str(), about["error"].as_str()),
        (Some("failed"), Some("CUDA out of memory"))
    );
    let seen = node.seen();
    assert_eq!((seen.jobs_ended, seen.jobs_canceled), (1, 1));
}

#[tokio::test]
async fn it_speaks_other_dialects() {
    let node = Node::start(Knobs::named("a", 9)).await.unwrap();
    let taken = ask(&node, Method::POST, "/v2/x/run", &[], "{}")
        .await
        .unwrap();
    assert_eq!(json(&taken)["status"], "IN_QUEUE");
    node.until(|seen| seen.jobs_ended == 1).await;
    let about = json(&get(&node, "/v2/x/status/a-1").await);
    assert_eq!(about["status"], "COMPLETED");
    assert!(about["output"].is_string());
    let taken = ask(&node, Method::POST, "/tasks", &[], "{}").await.unwrap();
    assert_eq!(
        taken.headers()["location"],
        "http://nowhere.invalid/jobs/a-2"
    );
}

#[tokio::test]
async fn an_answer_may_never_come_and_the_job_was_taken_or_not() {
    for (submission, taken) in [
        (Submission::DropBefore, 0),
        (Submission::DropAfter, 1),
        (Submission::Hang, 1),
    ] {
        let knobs = Knobs {
            submission,
            ..Knobs::named("a", 1)
        };
        let node = Node::start(knobs).await.unwrap();
        let body = r#"{"key": "k"}"#;
        let asked = ask(&node, Method::POST, "/jobs", &[], body);
        let answer = timeout(Duration::from_secs(60), async {
            match submission {
                // Its job is there while its answer is not.
                Submission::Hang => tokio::select! {
                    answer = asked => answer.map(|_| ()),
                    _ = node.until(|seen| seen.jobs_ended == 1) => Err("none so far".into()),
                },
                _ => asked.await.map(|_| ()),
            }
        });
        assert!(answer.await.unwrap().is_err(), "{submission:?}");
        node.until(|seen| seen.jobs_ended == taken && seen.submits["k"] == 1)
            .await;
    }
}

#[tokio::test]
async fn it_calls_whoever_wants_to_hear_until_somebody_listens() {
    let knobs = Knobs {
        callback_tries: 1000,
        ..Knobs::named("a", 1)
    };
    let node = Node::start(knobs).await.unwrap();
    let listener = Node::start(Knobs::named("b", 1)).await.unwrap();
    listener.set(|knobs| knobs.status = Some(503));
    let called = format!("{}/cb/t", listener.url());
    ask(&node, Method::POST, "/jobs", &[("x-callback", &called)], "")
        .await
        .unwrap();
    listener.until(|seen| seen.requests >= 2).await;
    assert_eq!(node.seen().callbacks, 0);
    listener.set(|knobs| knobs.status = None);
    node.until(|seen| seen.callbacks == 1).await;
    let paths = listener.seen().paths;
    assert!(paths.iter().all(|path| path == "/cb/t"), "{paths:?}");
}
