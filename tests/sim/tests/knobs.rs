//! Each knob does what it says.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use tabane_sim::{Drop, Knobs, Node, Overload, pattern};
use tokio::time::timeout;

/// Sends a request; an error is a connection that broke.
async fn send(node: &Node, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("{}{}", node.url(), parts.uri).parse().unwrap();
    let answer = client
        .request(Request::from_parts(parts, body))
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    Ok(Response::from_parts(head, body))
}

async fn get(node: &Node, path: &str) -> Result<Response<Bytes>, String> {
    send(node, Request::get(path).body(Full::default()).unwrap()).await
}

async fn put(node: &Node, knobs: &'static str) -> Response<Bytes> {
    send(node, Request::put("/sim").body(Full::from(knobs)).unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_node_names_itself_and_what_it_got() {
    let node = Node::start(Knobs::named("a", 1)).await.unwrap();
    let answer = send(
        &node,
        Request::post("/x?q=1").body(Full::from("abc")).unwrap(),
    )
    .await
    .unwrap();
    let told: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(
        (
            told["node"].as_str(),
            told["bytes"].as_u64(),
            told["query"].as_str()
        ),
        (Some("a"), Some(3), Some("q=1"))
    );
    assert_eq!(
        get(&node, "/bytes/1000").await.unwrap().into_body(),
        pattern(1000)
    );
    assert_eq!(node.seen().finished, 2);
}

#[tokio::test]
async fn statuses_are_as_set_and_health_has_its_own() {
    let node = Node::start(Knobs {
        status: Some(503),
        ..Knobs::default()
    })
    .await
    .unwrap();
    assert_eq!(
        get(&node, "/").await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        get(&node, "/health").await.unwrap().status(),
        StatusCode::OK
    );
    node.set(|knobs| (knobs.status, knobs.health_status) = (None, Some(500)));
    assert_eq!(get(&node, "/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        get(&node, "/health").await.unwrap().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    node.set(|knobs| knobs.fail_after = Some(3));
    assert_eq!(get(&node, "/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        get(&node, "/").await.unwrap().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
}

#[tokio::test]
async fn knobs_change_over_http_and_an_unknown_one_is_refused() {
    let node = Node::start(Knobs::named("a", 1)).await.unwrap();
    assert_eq!(
        put(&node, r#"{"name": "b", "drop": "before_head"}"#)
            .await
            .status(),
        StatusCode::OK
    );
    assert!(get(&node, "/").await.is_err());
    let refused = put(&node, r#"{"speeed": 2}"#).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(refused.body()).contains("speeed"));
    let shown = get(&node, "/sim").await.unwrap();
    assert!(String::from_utf8_lossy(shown.body()).contains("\"name\":\"b\""));
}

#[tokio::test]
async fn what_hangs_freezes_breaks_or_trickles_does_so() {
    let soon = Duration::from_millis(300);
    let node = Node::start(Knobs {
        hang: true,
        ..Knobs::default()
    })
    .await
    .unwrap();
    assert!(timeout(soon, get(&node, "/")).await.is_err());
    node.until(|seen| seen.client_gone == 1).await;
    node.set(|knobs| (knobs.hang, knobs.drop) = (false, Drop::MidBody));
    assert!(get(&node, "/bytes/100").await.is_err());
    node.set(|knobs| (knobs.drop, knobs.trickle_bytes) = (Drop::Never, 7));
    assert_eq!(
        get(&node, "/bytes/100").await.unwrap().into_body(),
        pattern(100)
    );
    node.set(|knobs| knobs.frozen = true);
    assert!(timeout(soon, get(&node, "/health")).await.is_err());
    node.set(|knobs| knobs.frozen = false);
    assert_eq!(
        get(&node, "/health").await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn more_than_its_slots_are_counted_or_refused() {
    let node = Node::start(Knobs::named("a", 1).working(60_000))
        .await
        .unwrap();
    let first = tokio::spawn({
        let url = node.url();
        async move {
            Client::builder(TokioExecutor::new())
                .build_http::<Full<Bytes>>()
                .get(url.parse().unwrap())
                .await
                .map(|_| ())
        }
    });
    node.until(|seen| seen.at_work == 1).await;
    node.set(|knobs| (knobs.work_ms, knobs.overload) = (0, Overload::Refuse));
    assert_eq!(
        get(&node, "/").await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    node.set(|knobs| knobs.overload = Overload::Accept);
    assert_eq!(get(&node, "/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(node.seen().over_slots, 1);
    first.abort();
}

#[tokio::test]
async fn a_killed_node_leaves_its_port_and_no_connection() {
    let node = Node::start(Knobs::named("a", 1)).await.unwrap();
    assert!(get(&node, "/").await.is_ok());
    let address = node.kill().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(Node::start_at(address, Knobs::default()).await.is_ok());
}
