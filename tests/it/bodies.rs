//! Request bodies of any size: held in memory or on disk, given to a second node as they were given to the first.

use crate::scene::{Scene, any, nodes, until_closed};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tabane_sim::{Drop, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn hex(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

const RETRIED: &str = "policy: first\nretry: unsafe\ncool_down: 0\nhealth: {interval: 50ms, interval_down: 50ms, timeout: 2s, rise: 1, fall: 9, eject_after: 900}";

/// The health block of [`any`] gives way to the one in `RETRIED`: a node that breaks off stays in use here.
fn without_other_health(yaml: &str) -> String {
    let of_any =
        "    health: {interval: 50ms, interval_down: 50ms, timeout: 300ms, rise: 1, fall: 2}\n";
    yaml.replacen(of_any, "", 1)
}

async fn retried_whole(h2: bool, sizes: &[usize]) {
    let nodes = nodes(2).await;
    let data = tempfile::tempdir().unwrap();
    let mut yaml = without_other_health(&any(&[(&nodes[0], 9), (&nodes[1], 9)], RETRIED));
    if h2 {
        for node in &nodes {
            let short = format!("{{url: \"{}\", slots: 9}}", node.url());
            let endpoint = format!("{{url: \"{}\", slots: 9, h2: true}}", node.url());
            yaml = yaml.replace(&short, &format!("{{endpoints: {{http: {endpoint}}}}}"));
        }
    }
    let scene = Scene::start(&format!("data_dir: {}\n{yaml}", data.path().display())).await;
    nodes[0].set(|knobs| knobs.drop = Drop::BeforeHead);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let over_h2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build::<_, Full<Bytes>>(connector);
    for size in sizes.iter().copied() {
        let body = pattern(size);
        let wants = (Some(size as u64), hex(&body));
        let told = scene.post("/work", body.clone()).await;
        assert_eq!(told.status, StatusCode::OK, "{size}: {told:?}");
        let told = told.json();
        assert_eq!(told["node"], "b", "{size} bytes");
        let got = (
            told["bytes"].as_u64(),
            told["sha256"].as_str().unwrap().to_owned(),
        );
        assert_eq!(got, wants, "{size} bytes over HTTP/1.1");

        let request = Request::post(scene.url("/work")).body(Full::new(body));
        let answer = over_h2.request(request.unwrap()).await.unwrap();
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let got = (
            told["bytes"].as_u64(),
            told["sha256"].as_str().unwrap().to_owned(),
        );
        assert_eq!(got, wants, "{size} bytes over HTTP/2");
    }
    assert_eq!(
        nodes[0].seen().requests as usize,
        2 * sizes.len(),
        "the first node was asked each time, and broke off"
    );
    // The answer may be read before the gateway has let go of the body.
    scene.until_metric("tabane_spooled_bytes", 0.0).await;
    scene.until_metric("tabane_held_bytes", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_is_whole_at_the_second_node() {
    retried_whole(
        false,
        &[0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 64 << 20],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_any_size_is_whole_at_the_second_node_over_http_2() {
    retried_whole(true, &[1, 65_537, (1 << 20) + 1, 8 << 20]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_streams_is_sent_once() {
    let nodes = nodes(2).await;
    let more = "policy: first\nretry: unsafe\nbody: stream";
    let scene = Scene::start(&any(&[(&nodes[0], 9), (&nodes[1], 9)], more)).await;
    nodes[0].set(|knobs| knobs.drop = Drop::BeforeHead);
    let reply = scene.post("/work", pattern(3_000_000)).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{reply:?}");
    assert_eq!(nodes[1].seen().requests, 0);
    assert_eq!(nodes[0].seen().bytes_in, 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_streams_does_not_wait_for_a_kind_that_would_look_into_it() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 9)], "")
        .replace("probe: /health", "probe: /health, class: {json: /model}")
        .replace("routes: [/]", "routes: [{path: /, body: stream}]");
    assert!(yaml.contains("json") && yaml.contains("stream"), "{yaml}");
    let scene = Scene::start(&yaml).await;
    let mut stream = scene.connect().await;
    let head = "POST /work HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"half ").await.unwrap();
    let begun = nodes[0].until(|seen| seen.at_work == 1);
    let begun = tokio::time::timeout(Duration::from_secs(10), begun).await;
    assert!(begun.is_ok(), "the node waits for all of the body");
    stream.write_all(b"whole").await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(nodes[0].seen().bytes_in, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_past_the_bounds_of_memory_and_disk_are_refused_and_small_ones_go_on() {
    let nodes = nodes(1).await;
    let data = tempfile::tempdir().unwrap();
    let yaml = any(&[(&nodes[0], 9)], "body: {hold: 10KB}");
    let limits = "limits: {held_bytes: 1MB, spool_bytes: 2MB}";
    let scene = Scene::start(&format!(
        "data_dir: {}\n{limits}\n{yaml}",
        data.path().display()
    ))
    .await;
    let refused = scene.post("/work", pattern(3_000_000)).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("overloaded"))
    );
    assert!(refused.header("retry-after").parse::<u64>().is_ok());
    assert_eq!(nodes[0].seen().requests, 0);
    for size in [9_000, 1_900_000] {
        assert_eq!(
            scene.post("/work", pattern(size)).await.json()["bytes"],
            size
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_is_told_to_go_on_and_one_too_large_is_not() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "body: {max: 1MB}")).await;
    let head = |length: usize| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let mut stream = scene.connect().await;
    stream.write_all(head(5).as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("hello"),
        "{answer}"
    );
    let refused = scene.raw(head(2_000_000).as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
}

/// Sends a head that waits for `100 Continue`, then a body, and reads the answer proper.
async fn after_100(scene: &Scene) -> String {
    let head = "POST /work HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let mut stream = scene.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    until_closed(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_told_to_go_on_is_refused_and_retried_like_any_other() {
    let nodes = nodes(2).await;
    let more = format!("{RETRIED}\nqueue: {{max: 0}}");
    let yaml = without_other_health(&any(&[(&nodes[0], 1), (&nodes[1], 1)], &more));
    let scene = Scene::start(&yaml).await;
    nodes[0].set(|knobs| knobs.drop = Drop::BeforeHead);
    let answer = after_100(&scene).await;
    assert!(answer.contains("tabane-node: b/http"), "{answer}");
    nodes[1].set(|knobs| knobs.drop = Drop::BeforeHead);
    let answer = after_100(&scene).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    for node in &nodes {
        node.set(|knobs| knobs.drop = Drop::Never);
    }
    let taken = ["/slow?ms=60000", "/slow?ms=60000"].map(|path| {
        let url = scene.url(path);
        tokio::spawn(async move {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let _ = client
                .request(Request::get(url).body(Full::<Bytes>::default()).unwrap())
                .await;
        })
    });
    scene.until_metric("tabane_endpoint_slots_used", 2.0).await;
    let answer = after_100(&scene).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    for task in taken {
        task.abort();
    }
}
