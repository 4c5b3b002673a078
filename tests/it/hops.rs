//! What goes from one hop to the next: heads are ours towards both sides, and nobody switches protocols behind our back.

use crate::scene::{Scene, eventually, exchange};
use crate::servers::Recorded;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use std::sync::Arc;

/// A node that keeps the heads it gets, and a gateway before it.
async fn before(answer: &'static [u8], more: &str) -> (Recorded, Arc<Mutex<Vec<String>>>, Scene) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let node = Recorded::start(Arc::new({
        let heads = heads.clone();
        move |head: &str, _: &str| {
            if head.starts_with("GET /well ") {
                return b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
            }
            heads.lock().push(head.to_ascii_lowercase());
            answer.to_vec()
        }
    }))
    .await;
    let scene = Scene::start(&format!(
        "nodes:\n  a: {{url: \"http://{}\", slots: 1}}\n{}{more}",
        node.address,
        "services:\n  any:\n    kind: {http: {probe: /well}}\n    pool: [a]\n    routes: [/]\n    cool_down: 10ms\n"
    ))
    .await;
    (node, heads, scene)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_for_another_protocol_is_served_as_if_it_had_not() {
    let (_node, heads, scene) = before(OK, "").await;
    for upgrade in [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
        "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade",
        "Upgrade: h2c, websocket\r\nConnection: Upgrade",
        "Upgrade: websocket\r\nConnection: close",
        "Upgrade: foo\r\nConnection: upgrade",
    ] {
        let head = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n{KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let mut stream = scene.connect().await;
        let answer = exchange(&mut stream, &head).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{upgrade:?}: {answer}");
        let head = heads.lock().pop().unwrap();
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert!(
                !head.contains(&format!("\r\n{gone}:")),
                "{upgrade:?}: {head}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_is_refused_and_reaches_no_node() {
    let (_node, heads, scene) = before(OK, "").await;
    let asks = "Host: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
    let whole = format!("{KEY}\r\nSec-WebSocket-Version: 13");
    for (line, fields) in [
        ("GET / HTTP/1.1", "Sec-WebSocket-Version: 13".into()),
        ("GET / HTTP/1.1", KEY.into()),
        (
            "GET / HTTP/1.1",
            format!("{KEY}\r\nSec-WebSocket-Version: 8"),
        ),
        ("GET / HTTP/1.1", format!("{whole}\r\nContent-Length: 5")),
        (
            "GET / HTTP/1.1",
            format!("{whole}\r\nTransfer-Encoding: chunked"),
        ),
        ("POST / HTTP/1.1", whole.clone()),
        (
            "GET / HTTP/1.1",
            "Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13".into(),
        ),
    ] {
        let mut stream = scene.connect().await;
        let head = format!("{line}\r\n{asks}{fields}\r\n\r\n");
        let answer = exchange(&mut stream, &head).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields:?}: {answer}");
    }
    assert!(heads.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_switches_to_what_nobody_asked_for_is_not_followed() {
    let to_h2c = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\x00\x00\x00\x04";
    let (_node, heads, scene) = before(to_h2c, "    health: {eject_after: 1000}\n").await;
    let socket = format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\n{KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for fields in ["Connection: close\r\n", &socket] {
        let mut stream = scene.connect().await;
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = exchange(&mut stream, &head).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{fields:?}: {answer}");
        let idle = || scene.gateway.dispatch().at_work() == 0;
        eventually("its slot is free", idle).await;
    }
    assert!(!heads.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_from_hop_to_hop_is_not_passed_on() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: x-secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 2\r\n\r\nok";
    let (_node, heads, scene) = before(answer, "").await;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 1\r\nProxy-Connection: 1\r\nTE: gzip\r\nX-Kept: 2\r\n\r\n";
    let answer = scene.raw(head.as_bytes()).await.to_ascii_lowercase();
    assert!(answer.contains("x-kept: 2"), "{answer}");
    for gone in ["x-secret", "keep-alive"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    assert_eq!(answer.matches("content-length").count(), 1, "{answer}");
    let head = heads.lock().pop().unwrap();
    assert!(head.contains("x-kept: 2"), "{head}");
    for gone in ["x-mine", "keep-alive", "proxy-connection", "\r\nte:"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    // Who is asked, and who asks, nobody takes away on the way.
    for named in ["Host", "x-forwarded-for"] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, {named}\r\n\r\n");
        let answer = scene.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert!(heads.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_asked_in_the_form_that_servers_read() {
    let (node, heads, scene) = before(OK, "").await;
    for (asked, wants) in [
        (
            "GET http://a/b?c HTTP/1.1\r\nHost: a",
            "get /b?c http/1.1\r\n",
        ),
        (
            "OPTIONS http://a HTTP/1.1\r\nHost: a",
            "options * http/1.1\r\n",
        ),
        (
            "GET http://b:1?old HTTP/1.0",
            "get /?old http/1.1\r\nhost: b:1\r\n",
        ),
        ("GET /old HTTP/1.0", "get /old http/1.1\r\n"),
    ] {
        let answer = scene
            .raw(format!("{asked}\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{asked:?}: {answer}");
        let head = heads.lock().pop().unwrap();
        assert!(head.starts_with(wants), "{asked:?}: {head}");
        assert_eq!(head.matches("\r\nhost: ").count(), 1, "{asked:?}: {head}");
    }
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = Request::get(scene.url("/"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::<Bytes>::default());
    assert_eq!(
        client.request(request.unwrap()).await.unwrap().status(),
        200
    );
    let head = heads.lock().pop().unwrap();
    assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_what_it_can_read() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (_node, _, scene) = before(answer, "").await;
    let head = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let answer = scene.raw(head.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "{answer}"
    );
    assert!(
        head.to_ascii_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert_eq!(body, "hello");
}
