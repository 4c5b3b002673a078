//! Bytes go through untouched, whatever their shape.

use crate::scene::{Scene, any, eventually, nodes};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::{Drop, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_a_node_and_its_answer_comes_back() {
    let nodes = nodes(2).await;
    let scene = Scene::start(&any(
        &[(&nodes[0], 1), (&nodes[1], 1)],
        "policy: round_robin",
    ))
    .await;
    let request = Request::post(scene.url("/render/1?frame=7"))
        .header("x-custom", "kept")
        .header(header::HOST, "studio.example");
    let reply = scene
        .send(request.body(Full::new("scene".into())).unwrap())
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    let told = reply.json();
    assert_eq!(
        (
            told["method"].as_str(),
            told["path"].as_str(),
            told["query"].as_str()
        ),
        (Some("POST"), Some("/render/1"), Some("frame=7"))
    );
    assert_eq!(
        (
            told["headers"]["x-custom"].as_str(),
            told["headers"]["host"].as_str()
        ),
        (Some("kept"), Some("studio.example"))
    );
    assert_eq!(
        told["headers"]["x-request-id"].as_str(),
        Some(reply.header("x-request-id")),
        "the node and the client know the same id"
    );
    assert!(
        reply.header("tabane-node").ends_with("/http")
            && reply.header("tabane-wait-ms").parse::<u64>().is_ok()
    );
    let first = scene.get("/").await.node();
    let second = scene.get("/").await.node();
    assert_ne!(first, second, "turns are taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_go_through_untouched_over_both_versions() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    let h2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    for size in [
        0,
        1,
        1000,
        65_535,
        65_536,
        65_537,
        300_000,
        1 << 20,
        (1 << 20) + 1,
        5_000_000,
    ] {
        let body = pattern(size);
        let echoed = scene.post("/echo", body.clone()).await;
        assert_eq!(
            (echoed.status, echoed.body == body),
            (StatusCode::OK, true),
            "{size} bytes over HTTP/1.1"
        );
        let request = Request::post(scene.url("/echo"))
            .body(Full::new(body.clone()))
            .unwrap();
        let echoed = h2
            .request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert!(
            echoed == body,
            "{size} bytes over HTTP/2, {} came back",
            echoed.len()
        );
        let down = scene.get(&format!("/bytes/{size}")).await;
        assert!(down.body == body, "{size} bytes down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_the_node_passes_as_it_is() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    for status in [200, 201, 204, 301, 400, 404, 409, 422, 429, 500, 501] {
        let reply = scene.get(&format!("/status/{status}")).await;
        assert_eq!(reply.status.as_u16(), status);
    }
    // One that counts as failure passes too when nobody else is left to ask.
    assert_eq!(scene.get("/status/503").await.status.as_u16(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_are_made() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    // The second event is an hour away: the first comes all the same.
    let mut stream = scene.stream("/sse?events=2&every_ms=3600000").await;
    let first = timeout(Duration::from_secs(20), stream.frame()).await;
    let first = first.expect("it is not kept back").unwrap().unwrap();
    let text = std::str::from_utf8(first.data_ref().unwrap()).unwrap();
    assert!(text.starts_with("id: 0\ndata: {"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_closes_its_upstream_and_frees_its_slot() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "cool_down: 20ms")).await;
    let mut stream = scene.stream("/sse?events=100000&every_ms=10").await;
    stream.frame().await.unwrap().unwrap();
    drop(stream);
    nodes[0].until(|seen| seen.connections <= 1).await;
    let after = scene.get("/").await;
    assert_eq!(after.status, StatusCode::OK, "the slot is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_seen_to_leave_though_it_had_begun_to_say_more() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "cool_down: 20ms")).await;
    for more in ["\r\n", "GET /next HTTP/1.1\r\nHost: a\r\n\r\n", "x"] {
        let mut stream = scene.connect().await;
        let request = "GET /slow?ms=6000000 HTTP/1.1\r\nHost: a\r\n\r\n";
        stream
            .write_all(format!("{request}{more}").as_bytes())
            .await
            .unwrap();
        nodes[0].until(|seen| seen.at_work == 1).await;
        drop(stream);
        let seen = nodes[0].until(|seen| seen.at_work == 0).await;
        assert!(!seen.paths.contains(&"/next".to_owned()), "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_talks_both_ways_and_takes_no_slot() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    let mut sockets = Vec::new();
    for i in 0..20 {
        let (mut socket, response) = connect_async(format!("ws://{}/ws", scene.address()))
            .await
            .unwrap();
        assert_eq!(response.status(), 101);
        assert!(
            socket.next().await.unwrap().unwrap().is_text(),
            "the greeting of socket {i}"
        );
        sockets.push(socket);
    }
    assert_eq!(
        scene.get("/").await.status,
        StatusCode::OK,
        "twenty sockets hold no slot"
    );
    for (i, socket) in sockets.iter_mut().enumerate() {
        let message = Message::binary(pattern(i * 10_000));
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    for mut socket in sockets {
        socket.close(None).await.unwrap();
    }
    nodes[0].until(|seen| seen.sockets == 0).await;
    eventually("no lease is left", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_the_node_refuses_is_refused_with_the_nodes_answer() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    let error = connect_async(format!("ws://{}/status/403", scene.address()))
        .await
        .unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = error else {
        panic!("{error}")
    };
    assert_eq!(response.status(), 403);
    assert_eq!(response.body().as_deref(), Some(&b"as asked"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.drop = Drop::MidBody);
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    let request = Request::get(scene.url("/bytes/100000"))
        .body(Full::default())
        .unwrap();
    let error = scene.try_send(request).await.unwrap_err();
    assert!(error.contains("body"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    for (sent, wants) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        // Shorter than HTTP/2's preface: nothing may wait for more.
        ("GET / HTTP/1.0\r\n\r\n", "200"),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "400",
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
    ] {
        let mut stream = TcpStream::connect(scene.address()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = timeout(Duration::from_secs(20), stream.read(&mut answer))
            .await
            .expect(sent)
            .unwrap();
        let line = String::from_utf8_lossy(&answer[..n])
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        assert!(line.contains(wants), "{sent:?}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    let mut stream = TcpStream::connect(scene.address()).await.unwrap();
    let sent = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let at = |path: &str| {
        text.find(&format!("\"path\":\"{path}\""))
            .unwrap_or_else(|| panic!("{path} in {text}"))
    };
    assert!(at("/1") < at("/2") && at("/2") < at("/3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_reached_by_name_and_over_http2() {
    let nodes = nodes(1).await;
    // `localhost` stands for two addresses, of which the node listens on one.
    let named = format!("http://localhost:{}", nodes[0].address().port());
    let yaml = any(&[(&nodes[0], 9)], "").replace(&nodes[0].url(), &named);
    let scene = Scene::start(&yaml).await;
    assert_eq!(scene.get("/").await.node(), "a");
    let yaml = any(&[(&nodes[0], 9)], "").replace(
        &format!("{{url: \"{}\", slots: 9}}", nodes[0].url()),
        &format!(
            "{{endpoints: {{http: {{url: \"{}\", slots: 9, h2: true}}}}}}",
            nodes[0].url()
        ),
    );
    let scene = Scene::start(&yaml).await;
    for size in [0, 1000, 300_000, 3_000_000] {
        let body = pattern(size);
        assert!(
            scene.post("/echo", body.clone()).await.body == body,
            "{size} bytes over HTTP/2 to the node"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_from_http2_to_http2_and_harm_nobody_elsewhere() {
    let nodes = nodes(1).await;
    let url = nodes[0].url();
    let scene = Scene::start(&format!(
        "nodes:\n  a: {{endpoints: {{http: {{url: \"{url}\", slots: 9, h2: true}}}}}}\n{}",
        "services:\n  any: {kind: http, pool: [a], routes: [/]}\n"
    ))
    .await;
    for (h2, passes) in [(true, true), (false, false)] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(h2)
            .build_http();
        let asked = Request::get(scene.url("/trailers")).body(Full::<Bytes>::default());
        let answer = client.request(asked.unwrap()).await.unwrap();
        let whole = answer.into_body().collect().await.unwrap();
        let status = whole.trailers().and_then(|lines| lines.get("grpc-status"));
        assert_eq!(status.is_some(), passes, "a client of HTTP/2: {h2}");
        assert_eq!(whole.to_bytes(), "body");
    }
    // What a client sends behind its body is no part of it, nor of its next request.
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = scene.raw(format!("{chunked}{next}").as_bytes()).await;
    assert!(
        answers.contains("hello") && answers.contains("\"path\":\"/next\""),
        "{answers}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_known_length_goes_on_piece_by_piece_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Notify::new());
    let node = tokio::spawn({
        let seen = seen.clone();
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.unwrap_or(0);
                if !head[..read].starts_with(b"GET /slowly ") {
                    let probed = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                    stream.write_all(probed).await.unwrap();
                    continue;
                }
                let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\none";
                stream.write_all(begun).await.unwrap();
                for piece in [b"two", b"six"] {
                    seen.notified().await;
                    stream.write_all(piece).await.unwrap();
                }
            }
        }
    });
    let scene = Scene::start(&format!(
        "nodes:\n  a: {{url: \"http://{address}\"}}\nservices:\n  any: {{kind: http, pool: [a], routes: [/]}}\n"
    ))
    .await;
    let mut body = scene.stream("/slowly").await;
    for piece in ["one", "two", "six"] {
        let frame = timeout(Duration::from_secs(10), body.frame()).await;
        let data = frame.expect("the piece is not kept back").unwrap().unwrap();
        assert_eq!(data.into_data().unwrap(), piece);
        seen.notify_one();
    }
    node.abort();
}
