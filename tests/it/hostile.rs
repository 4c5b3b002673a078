//! Clients that mean harm, or whose bytes could be read in two ways: they are cut, and everybody else goes on.

use crate::scene::{Scene, any, eventually, nodes, until_closed};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

/// The status of the first answer in these bytes; 0 where there is none.
fn status(answer: &str) -> u16 {
    let said = answer.strip_prefix("HTTP/1.1 ").and_then(|s| s.get(..3));
    said.and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_reads_two_ways_is_refused_and_reaches_no_node() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    let post = |fields: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    };
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n\r\n");
    let long = "x".repeat(70_000);
    let many = "a: b\r\n".repeat(200);
    for (head, wants) in [
        (get("GET / HTTP/1.1", "A: b"), 400),
        (get("GET / HTTP/1.1", "Host: a\r\nHost: a"), 400),
        (get("GET / HTTP/1.1", "Host: a\r\nHost: b"), 400),
        (get("GET http://b/ HTTP/1.1", "Host: a"), 400),
        (get("GET /a b HTTP/1.1", "Host: a"), 400),
        (get("GET /a#b HTTP/1.1", "Host: a"), 400),
        (get("GET /\u{e9} HTTP/1.1", "Host: a"), 400),
        (get("GET / HTTP/1.2", "Host: a"), 400),
        (get("GET /", "Host: a"), 400),
        (get("GET / HTTP/1.1", "Host: a\r\nA : b"), 400),
        (get("GET / HTTP/1.1", "Host: a\r\nA: b\r\n c"), 400),
        (get("GET / HTTP/1.1", "Host: a\r\nA: b\rc"), 400),
        (get("GET / HTTP/1.1", "Host: a\r\nA: b\0c"), 400),
        (get("GET / HTTP/1.1\nX: y", "Host: a"), 400),
        (get("CONNECT a:1 HTTP/1.1", "Host: a:1"), 405),
        (get("GET / HTTP/1.1", &format!("Host: a\r\nA: {long}")), 431),
        (
            get("GET / HTTP/1.1", &format!("Host: a\r\n{many}a: b")),
            431,
        ),
        (get(&format!("GET /{long} HTTP/1.1"), "Host: a"), 414),
        (post("Content-Length: 5\r\nContent-Length: 5"), 400),
        (post("Content-Length: 5\r\nContent-Length: 6"), 400),
        (post("Content-Length: 5, 5"), 400),
        (post("Content-Length: +5"), 400),
        (post("Content_Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (post("Content-Length: 5\r\nTransfer_Encoding: chunked"), 400),
        (post("Content-Length: 0x5"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            400,
        ),
        (post("Transfer-Encoding: gzip, chunked"), 501),
        (post("Transfer-Encoding: chunked, identity"), 400),
        (post("Transfer-Encoding: xchunked"), 400),
        (post("Transfer-Encoding : chunked"), 400),
        (post("Transfer-Encoding: \x0bchunked"), 400),
        (
            post("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0"),
            400,
        ),
        (post("Expect: something"), 417),
    ] {
        let answer = scene.raw(head.as_bytes()).await;
        let shown = head.get(..200).unwrap_or(&head);
        assert_eq!(status(&answer), wants, "{shown:?}: {answer}");
        assert_eq!(
            answer.matches("content-length: ").count(),
            1,
            "{shown:?}: {answer}"
        );
    }
    assert_eq!(nodes[0].seen().requests, 0, "{:?}", nodes[0].seen().paths);
    assert!(scene.metric("tabane_turned_away_total").await >= 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_chunks_reaches_no_node() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "fffffffffffffffff\r\n",
        "ffffffffffffffff\r\nhello",
        "5\r\nhello\r\nG\r\n",
    ] {
        let head = "POST /work HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = scene.raw(format!("{head}{body}").as_bytes()).await;
        assert_eq!(status(&answer), 400, "{body:?}: {answer}");
    }
    assert_eq!(nodes[0].seen().requests, 0, "{:?}", nodes[0].seen().paths);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_pipeline_are_answered_in_turn_up_to_the_first_bad_one() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    let good = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = "POST /two HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let all = format!(
        "{}{post}{}{bad}{}",
        good("/one"),
        good("/three"),
        good("/never")
    );
    let answer = scene.raw(all.as_bytes()).await;
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses, ["200", "200", "200", "400"], "{answer}");
    assert_eq!(nodes[0].seen().paths, ["/one", "/two", "/three"]);
}

/// Clients that send a byte now and then, all of which must end by the gateway's doing; others go on meanwhile.
async fn drip(
    scene: Arc<Scene>,
    clients: usize,
    first: &'static str,
    byte: &'static [u8],
) -> Vec<String> {
    let dripping = (0..clients).map(|_| {
        let scene = scene.clone();
        tokio::spawn(async move {
            let stream = scene.connect().await;
            let (mut read, mut write) = stream.into_split();
            write.write_all(first.as_bytes()).await.unwrap();
            let dripping = tokio::spawn(async move {
                let mut pace = interval(Duration::from_millis(50));
                loop {
                    pace.tick().await;
                    if write.write_all(byte).await.is_err() {
                        return;
                    }
                }
            });
            let mut answer = Vec::new();
            let _ = read.read_to_end(&mut answer).await;
            dripping.abort();
            String::from_utf8_lossy(&answer).into_owned()
        })
    });
    let dripping = tokio::spawn(join_all(dripping.collect::<Vec<_>>()));
    while !dripping.is_finished() {
        assert_eq!(scene.get("/work").await.status, StatusCode::OK);
    }
    let ended = dripping.await.unwrap();
    ended.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_drip_are_cut_and_others_go_on() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 9)], "");
    let scene = Arc::new(Scene::start(&format!("limits: {{client_head: 3s}}\n{yaml}")).await);
    for answer in drip(scene, 300, "GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x").await {
        assert_eq!(status(&answer), 408, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_drip_are_cut_and_reach_no_node() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 9)], "");
    let limits = "limits: {client_read: 700ms, client_rate: 1MiB}";
    let scene = Arc::new(Scene::start(&format!("{limits}\n{yaml}")).await);
    let head = "POST /slow-body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    for answer in drip(scene.clone(), 200, head, b"x").await {
        assert_eq!(status(&answer), 408, "{answer}");
    }
    let paths = nodes[0].seen().paths;
    assert!(!paths.iter().any(|path| path == "/slow-body"), "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_to_its_node_gives_the_slot_back() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 2)], "body: stream\ncool_down: 10ms");
    let limits = "limits: {client_read: 500ms, client_rate: 1MiB}";
    let scene = Arc::new(Scene::start(&format!("{limits}\n{yaml}")).await);
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    drip(scene.clone(), 1, head, b"x").await;
    eventually("its slot is free", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_are_cut() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 200)], "cool_down: 10ms");
    let scene = Scene::start(&format!("limits: {{client_write: 500ms}}\n{yaml}")).await;
    let clients = join_all((0..100).map(|_| async {
        let mut stream = scene.connect().await;
        let request = b"GET /bytes/20000000 HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream
    }))
    .await;
    nodes[0].until(|seen| seen.requests >= 100).await;
    assert_eq!(
        scene.get("/work").await.status,
        StatusCode::OK,
        "others go on"
    );
    eventually("they are gone", || scene.gateway.dispatch().at_work() == 0).await;
    nodes[0].until(|seen| seen.connections <= 2).await;
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_bounds_are_told_so_and_places_are_given_back() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 9)], "");
    let limits = "limits: {connections: 8, connections_per_address: 3}";
    let scene = Scene::start(&format!("{limits}\n{yaml}")).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut inside: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = scene.connect().await;
        stream.write_all(request).await.unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        inside.push(stream);
    }
    let refused = scene.raw(request).await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(
        refused.contains("retry-after: 5") && refused.contains("your address"),
        "{refused}"
    );
    inside.pop();
    let one_is_gone = || scene.gateway.dispatch().at_work() == 0;
    eventually("nothing is at work", one_is_gone).await;
    let mut again = scene.connect().await;
    loop {
        // The place is free when the gateway has seen that its client left.
        again
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let answer = until_closed(&mut again).await;
        if status(&answer) == 200 {
            break;
        }
        again = scene.connect().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_of_http_2_that_never_ends_is_cut_like_a_head() {
    let nodes = nodes(1).await;
    let yaml = any(&[(&nodes[0], 9)], "");
    let scene = Scene::start(&format!("limits: {{client_head: 1s}}\n{yaml}")).await;
    for begun in ["P", "PRI ", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = scene.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert_eq!(status(&answer), 408, "{begun:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_line_before_a_request_may_come_in_halves() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    let mut stream = scene.connect().await;
    stream.set_nodelay(true).unwrap();
    for piece in [
        "\r",
        "\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r",
        "\n",
    ] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        // The halves must not be read at once.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = until_closed(&mut stream).await;
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_heads_are_bounded_and_a_body_ends_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let node = tokio::spawn({
        let seen = seen.clone();
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                        let probe = bytes.starts_with(b"GET") && bytes.ends_with(b"\r\n\r\n");
                        if probe || bytes.ends_with(b"0\r\n\r\n") {
                            let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                            stream.write_all(ok).await.unwrap();
                        }
                    }
                    if bytes.starts_with(b"POST") {
                        seen.lock().extend(bytes);
                    }
                });
            }
        }
    });
    let service = "services:\n  any: {kind: http, pool: [a], routes: [/], body: stream}\n";
    let scene = Scene::start(&format!(
        "nodes:\n  a: {{url: \"{url}\", slots: 9}}\n{service}"
    ))
    .await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    // A body whose length is not known, and whose end comes in a frame of its own.
    let pieces = futures::stream::iter(["hello", " world"])
        .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
    let request = Request::post(scene.url("/")).body(StreamBody::new(pieces).boxed_unsync());
    let answer = client.request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut many = Request::get(scene.url("/"));
    for i in 0..200 {
        many = many.header(format!("x-{i}"), "x");
    }
    let nothing = http_body_util::Empty::new().map_err(|never| match never {});
    let refused = client
        .request(many.body(nothing.boxed_unsync()).unwrap())
        .await;
    assert_eq!(
        refused.unwrap().status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    drop(scene);
    eventually("the node's connection ends", || !seen.lock().is_empty()).await;
    let text = String::from_utf8(seen.lock().clone()).unwrap();
    assert_eq!(text.matches("0\r\n\r\n").count(), 1, "{text:?}");
    node.abort();
}
