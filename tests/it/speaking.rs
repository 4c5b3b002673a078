//! Kinds that speak on sockets, answer by themselves, send to one endpoint only, and attend endpoints.

use crate::scene::{Reply, Scene, any, app, eventually, exchange, nodes};
use crate::speaker::{Seen, Speaker};
use bytes::Bytes;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::Full;
use std::time::Duration;
use tabane_sim::{Node, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Handshake};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async_with_config,
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const LONG: Duration = Duration::from_secs(60);

/// A service of the kind `speaker` on these nodes.
fn speaker(nodes: &[Node], settings: &str, more: &str) -> String {
    let nodes: Vec<_> = nodes.iter().map(|node| (node, 2)).collect();
    let yaml = any(&nodes, more);
    let kind = format!("{{speaker: {{{settings}}}}}");
    yaml.replace("{http: {probe: /health}}", &kind)
}

async fn start(yaml: &str) -> Scene {
    let scene = Scene::start_unproven(app().kind::<Speaker>(), yaml).await;
    scene.until_up().await;
    scene
}

async fn seen(scene: &Scene) -> Seen {
    serde_json::from_value(scene.get("/own/seen").await.json()).unwrap()
}

async fn until_seen(scene: &Scene, what: &str, mut so: impl FnMut(&Seen) -> bool) -> Seen {
    let mut look = interval(Duration::from_millis(5));
    let looked = timeout(LONG, async {
        loop {
            let seen = seen(scene).await;
            if so(&seen) {
                return seen;
            }
            look.tick().await;
        }
    });
    looked
        .await
        .unwrap_or_else(|_| panic!("it never came to be that {what}"))
}

async fn socket(scene: &Scene, path: &str) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    let url = format!("ws://{}{path}", scene.address());
    let opened = timeout(LONG, connect_async_with_config(url, Some(config), true));
    opened.await.unwrap().unwrap().0
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        let next = timeout(LONG, socket.next()).await.expect("a message");
        match next.expect("a message").unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

async fn close_code(socket: &mut Socket) -> CloseCode {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_any_length_come_through_in_order_both_ways() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    let (mut out, mut back) = socket(&scene, "/echo").await.split();
    // Longer than what one client may send.
    let mut big = socket(&scene, "/flood?n=1&size=20000000").await;
    let messages: Vec<Message> = [0, 1, 125, 126, 65_535, 65_536, 3_000_000, 16 << 20, 5]
        .into_iter()
        .flat_map(|size| {
            let text = "é".repeat(size / 2);
            [Message::binary(pattern(size)), Message::text(text)]
        })
        .collect();
    let sent = messages.clone();
    let sending = tokio::spawn(async move {
        for message in sent {
            out.send(message).await.unwrap();
        }
        out
    });
    for (i, wants) in messages.iter().enumerate() {
        let got = loop {
            match timeout(LONG, back.next()).await.unwrap().unwrap().unwrap() {
                Message::Ping(_) => {}
                message => break message,
            }
        };
        assert!(
            got == *wants,
            "{i}: {} bytes for {}",
            got.len(),
            wants.len()
        );
    }
    let mut socket = sending.await.unwrap().reunite(back).unwrap();
    assert_eq!(next(&mut big).await, Message::binary(vec![7; 20_000_000]));
    socket.close(None).await.unwrap();
    big.close(None).await.unwrap();
    let seen = until_seen(&scene, "both are closed", |seen| seen.ends.len() == 2).await;
    assert_eq!(
        (seen.open, &*seen.ends),
        (0, &["closed".into(), "closed".to_owned()][..])
    );
    scene.until_metric("tabane_sockets", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_the_handshake_at_once_is_heard() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    let mut stream = scene.connect().await;
    let head = "GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
    let early = [head.as_bytes(), &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']].concat();
    stream.write_all(&early).await.unwrap();
    let answer = exchange(&mut stream, "").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let answer = answer.to_ascii_lowercase();
    assert!(
        answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("\r\nupgrade: websocket\r\nconnection: upgrade\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nx-request-id: "), "{answer}");
    for not_ours in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        assert!(!answer.contains(not_ours), "{answer}");
    }
    // The echo may have come with the head.
    let mut rest = answer.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
    while rest.len() < 4 {
        let read = timeout(LONG, stream.read_buf(&mut rest)).await.unwrap();
        assert!(read.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused_and_who_asks_is_known() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    for path in ["/echo", "/who"] {
        let reply = scene.get(path).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{reply:?}");
    }
    let mut who = socket(&scene, "/who?clientId=7").await;
    assert_eq!(
        next(&mut who).await,
        Message::text("anonymous /who?clientId=7")
    );
    assert_eq!(close_code(&mut who).await, CloseCode::Normal);
    // A kind that forwards still has its sockets forwarded.
    let refused = connect_async_with_config(format!("ws://{}/work", scene.address()), None, true);
    assert!(matches!(refused.await, Err(Error::Http(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_its_kinds_socket() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    // One of them listens to nothing: it is dropped in the end.
    let paths = (0..20).map(|i| if i == 7 { "/deaf" } else { "/echo" });
    let sockets = join_all(paths.map(|path| socket(&scene, path))).await;
    scene.until_metric("tabane_sockets", 20.0).await;
    assert_eq!(seen(&scene).await.open, 20);
    drop(sockets);
    let seen = until_seen(&scene, "all are over", |seen| seen.open == 0).await;
    assert_eq!(seen.ends.len(), 19);
    assert!(
        seen.ends.iter().all(|end| end != "closed"),
        "{:?}",
        seen.ends
    );
    scene.until_metric("tabane_sockets", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_waits_for_a_client_that_reads_slowly_and_gives_one_up_that_never_reads() {
    let nodes = nodes(1).await;
    let yaml = speaker(&nodes, "", "socket_ping: none");
    let scene = start(&format!("limits: {{client_write: 3s}}\n{yaml}")).await;
    let mut slow = socket(&scene, "/flood?n=60&size=1000000").await;
    // As much as two systems hold for a connection, and one message more.
    let held = until_steady(&scene).await;
    assert!(
        held < 30,
        "{held} MB are on their way to one that does not read"
    );
    let mut pause = interval(Duration::from_millis(20));
    for _ in 0..60 {
        pause.tick().await;
        assert_eq!(next(&mut slow).await.len(), 1_000_000);
    }
    assert_eq!(close_code(&mut slow).await, CloseCode::Normal);
    let _never = socket(&scene, "/flood?size=1000000").await;
    let seen = until_seen(&scene, "it is given up", |seen| seen.ends.len() == 2).await;
    assert_eq!(seen.ends, ["closed", "no answer in time"]);
}

/// How many messages were sent when no more go.
async fn until_steady(scene: &Scene) -> u64 {
    let mut look = interval(Duration::from_millis(100));
    let mut last = None;
    loop {
        look.tick().await;
        let sent = seen(scene).await.sent;
        if last == Some(sent) && sent > 0 {
            return sent;
        }
        last = Some(sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_pinged_and_stays_while_it_answers() {
    let more = "socket_ping: 700ms\nsocket_idle: 1s";
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", more)).await;
    let mut answers = socket(&scene, "/echo").await;
    let silent = socket(&scene, "/echo").await;
    let mut pings = 0;
    // Reading is answering; the other one reads nothing.
    let answering = async {
        while pings < 5 {
            let said = answers.next().await.unwrap().unwrap();
            assert!(said.is_ping(), "{said:?}");
            pings += 1;
        }
    };
    timeout(LONG, answering).await.unwrap();
    answers.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut answers).await, Message::text("still here"));
    let seen = until_seen(&scene, "the other is gone", |seen| seen.open == 1).await;
    assert_eq!(seen.ends, ["no answer in time"]);
    drop(silent);
    // And a client's pings are answered.
    answers
        .send(Message::Ping(Bytes::from_static(b"there?")))
        .await
        .unwrap();
    let pong = async {
        loop {
            match answers.next().await.unwrap().unwrap() {
                Message::Pong(payload) => break payload,
                other => assert!(other.is_ping(), "{other:?}"),
            }
        }
    };
    assert_eq!(timeout(LONG, pong).await.unwrap(), "there?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_with_the_word_that_fits() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    for (path, code) in [
        ("/panic", CloseCode::Error),
        ("/bye", CloseCode::Library(4000)),
        ("/leave", CloseCode::Normal),
        ("/forget", CloseCode::Normal),
    ] {
        let mut socket = socket(&scene, path).await;
        // Some are over before they hear it.
        let _ = socket.send(Message::text("hello")).await;
        assert_eq!(close_code(&mut socket).await, code, "{path}");
        assert!(
            timeout(LONG, socket.next()).await.unwrap().is_none(),
            "{path}"
        );
    }
    let mut talkative = socket(&scene, "/echo").await;
    let _ = talkative
        .send(Message::binary(vec![0; (16 << 20) + 1]))
        .await;
    assert_eq!(close_code(&mut talkative).await, CloseCode::Size);
    let mut goes_on = socket(&scene, "/echo").await;
    goes_on.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut goes_on).await, Message::text("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_outlive_reloads_until_their_service_leaves() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    let mut stays = socket(&scene, "/echo").await;
    let mut deaf = socket(&scene, "/deaf").await;
    for yaml in [
        speaker(&nodes, "tag: other", ""),
        speaker(&nodes, "tag: other", "socket_ping: 1m"),
    ] {
        scene.reload(&yaml).await.unwrap();
        stays.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut stays).await, Message::text("hello"));
    }
    let renamed = speaker(&nodes, "tag: other", "").replace("  any:", "  other:");
    scene.reload(&renamed).await.unwrap();
    for socket in [&mut stays, &mut deaf] {
        assert_eq!(close_code(socket).await, CloseCode::Restart);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_connected_as_the_gateway_goes_down_is_told_to_connect_again() {
    let nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    let mut sockets = join_all(["/echo", "/deaf", "/echo"].map(|path| socket(&scene, path))).await;
    let down = tokio::spawn(scene.gateway.shutdown(Duration::from_millis(200)));
    for socket in &mut sockets {
        assert_eq!(close_code(socket).await, CloseCode::Restart);
    }
    timeout(LONG, down).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_request_goes_to_its_endpoint_or_nowhere() {
    let mut nodes = nodes(3).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    until_seen(&scene, "all are attended", |seen| seen.attended.len() == 3).await;
    for name in ["a", "b", "c", "b", "c", "a", "b"] {
        assert_eq!(scene.get(&format!("/at/{name}")).await.node(), name);
    }
    // It waits for no slot.
    nodes[1].set(|knobs| knobs.hang = true);
    let work: Vec<_> = (0..2).map(|_| scene.get("/at/b")).collect();
    let pinned = join_all(work);
    let asked = async {
        nodes[1].until(|seen| seen.at_work == 2).await;
        nodes[1].set(|knobs| knobs.hang = false);
        assert_eq!(scene.get("/at/b").await.node(), "b");
    };
    tokio::select! {
        _ = pinned => panic!("they hang"),
        () = asked => {}
    }
    nodes.remove(1).kill().await;
    scene.until_state("b/http", "down").await;
    let refused = scene.get("/at/b").await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY, "{refused:?}");
    assert_eq!(scene.get("/at/c").await.node(), "c");
    let counted: u64 = nodes.iter().map(|node| node.seen().requests).sum();
    assert_eq!(counted, 2 + 3, "none of b's went elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_request_takes_no_slot_whatever_its_route_says() {
    let nodes = nodes(2).await;
    let yaml = speaker(&nodes, "", "policy: first\ncool_down: 1ms");
    let yaml = yaml.replace("routes: [/]", "routes: [{path: /, slots: 2}]");
    let scene = start(&yaml).await;
    until_seen(&scene, "both are attended", |seen| seen.attended.len() == 2).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let work = scene.get("/work");
    let pinned = async {
        nodes[0].until(|seen| seen.at_work == 1).await;
        nodes[0].set(|knobs| knobs.hang = false);
        for _ in 0..3 {
            assert_eq!(scene.get("/at/a").await.node(), "a");
            assert_eq!(scene.metric("tabane_endpoint_slots_used").await, 2.0);
        }
    };
    tokio::select! {
        _ = work => panic!("it hangs"),
        () = pinned => {}
    }
    scene.until_metric("tabane_endpoint_slots_used", 0.0).await;
    eventually("nothing is at work", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
    // What leaves the pool is gone to whoever kept its number.
    scene
        .reload(&yaml.replace("pool: [a, b]", "pool: [a]"))
        .await
        .unwrap();
    scene.until_state("b/http", "gone").await;
    assert_eq!(scene.get("/at/b").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_answers_at_any_length_from_a_body_on_disk() {
    let data = tempfile::tempdir().unwrap();
    let nodes = nodes(1).await;
    let yaml = speaker(&nodes, "", "body: {hold: 64KiB}");
    let scene = start(&format!("data_dir: {}\n{yaml}", data.path().display())).await;
    let body = pattern(30_000_000);
    for (path, wants) in [
        ("/own/all", body.clone()),
        ("/own/live", body.clone()),
        ("/own/tail", body.slice(body.len() - 1000..)),
    ] {
        let reply = scene.post(path, body.clone()).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body == wants, "{path}: {} bytes", reply.body.len());
        let length = reply.header("content-length");
        let known = path != "/own/live";
        assert_eq!(
            length,
            if known {
                wants.len().to_string()
            } else {
                String::new()
            }
        );
    }
    scene.until_metric("tabane_spooled_bytes", 0.0).await;
    scene.until_metric("tabane_held_bytes", 0.0).await;
    let too_long = scene.post("/own/all", pattern((64 << 20) + 1)).await;
    assert_eq!(too_long.status, StatusCode::PAYLOAD_TOO_LARGE);
    // What breaks off is not taken for whole.
    let request = Request::get(scene.url("/own/broken")).body(Full::default());
    let broken: Result<Reply, _> = scene.try_send(request.unwrap()).await;
    assert!(broken.is_err(), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_attended_until_it_leaves_or_its_kind_is_another() {
    let nodes = nodes(2).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    let both = |n, now| {
        move |seen: &Seen| {
            let all = ["a/http", "b/http"].map(|name| seen.attended.get(name).copied());
            all == [Some((n, now)); 2]
        }
    };
    until_seen(&scene, "both are attended", both(1, 1)).await;
    // How they are probed is not the attending's business.
    let yaml = speaker(&nodes, "", "").replace("interval: 50ms", "interval: 60ms");
    scene.reload(&yaml).await.unwrap();
    let yaml = yaml.replace("pool: [a, b]", "pool: [a]");
    scene.reload(&yaml).await.unwrap();
    let left = until_seen(&scene, "b is left", |seen| seen.attended["b/http"].1 == 0).await;
    assert_eq!(left.attended["a/http"], (1, 1));
    assert_eq!(left.attended["b/http"], (1, 0));
    scene
        .reload(&speaker(&nodes, "tag: other", ""))
        .await
        .unwrap();
    until_seen(&scene, "the new kind attends", both(2, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_attended_again_whenever_that_ends() {
    for how in ["briefly", "panicking"] {
        let nodes = nodes(1).await;
        let scene = start(&speaker(&nodes, &format!("attends: {how}"), "")).await;
        let again = |seen: &Seen| seen.attended.get("a/http").is_some_and(|(n, _)| *n >= 2);
        until_seen(&scene, "it is attended again", again).await;
        assert_eq!(scene.get("/at/a").await.node(), "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_speaks_with_a_node_over_a_socket_of_its_own() {
    let mut nodes = nodes(1).await;
    let scene = start(&speaker(&nodes, "", "")).await;
    let mut client = socket(&scene, "/bridge").await;
    let greeting = next(&mut client).await;
    assert!(greeting.is_text(), "{greeting:?}");
    for message in [
        Message::text("hello"),
        Message::binary(pattern(1_000_000)),
        Message::text(""),
    ] {
        client.send(message.clone()).await.unwrap();
        assert!(next(&mut client).await == message);
    }
    client.close(None).await.unwrap();
    nodes[0].until(|seen| seen.sockets == 0).await;
    // No socket there, and no node.
    let mut refused = socket(&scene, "/bridge?to=/status/403").await;
    let why = next(&mut refused).await;
    assert!(
        why.to_text().unwrap().contains("the node answered 403"),
        "{why:?}"
    );
    nodes.remove(0).kill().await;
    scene.until_state("a/http", "down").await;
    let mut nobody = socket(&scene, "/bridge").await;
    let why = next(&mut nobody).await;
    assert!(why.to_text().unwrap().contains("cannot connect"), "{why:?}");
}

/// A node that is well, and takes one socket; it tells what the handshake said.
async fn one_socket(listener: TcpListener) -> (WebSocketStream<TcpStream>, Handshake) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut began = [0; 11];
        while stream.peek(&mut began).await.unwrap() < began.len() {}
        if began == *b"GET /health" {
            exchange(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            continue;
        }
        let mut asked = None;
        #[allow(clippy::result_large_err)]
        let look = |request: &Handshake, answer| {
            asked = Some(request.clone());
            Ok::<_, ErrorResponse>(answer)
        };
        let socket = accept_hdr_async(stream, look).await.unwrap();
        return (socket, asked.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_hears_its_own_name_and_whatever_it_sends_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let yaml = format!(
        "services:\n  any:\n    kind: {{speaker: {{}}}}\n    pool: [\"http://localhost:{port}\"]\n    routes: [/]\n"
    );
    let node = tokio::spawn(one_socket(listener));
    let scene = start(&yaml).await;
    let mut client = socket(&scene, "/bridge?to=/deep/er%20?x=1").await;
    let (mut node, asked) = timeout(LONG, node).await.unwrap().unwrap();
    assert_eq!(asked.uri(), "/deep/er%20?x=1");
    let header = |name| {
        asked
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(header("host"), Some(&*format!("localhost:{port}")));
    assert_eq!(header("x-speaker"), Some("yes"));
    assert_eq!(header("origin"), None);
    let big = Message::binary(pattern(40_000_000));
    let sending = tokio::spawn({
        let big = big.clone();
        async move {
            node.send(big).await.unwrap();
            node
        }
    });
    assert!(next(&mut client).await == big);
    let mut node = sending.await.unwrap();
    // The node leaves without a word; the kind hears that.
    client.send(Message::text("last")).await.unwrap();
    let last = timeout(LONG, node.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(last, Message::text("last"));
    drop(node);
    assert_eq!(close_code(&mut client).await, CloseCode::Normal);
    let ends = until_seen(&scene, "it is over", |seen| seen.open == 0)
        .await
        .ends;
    assert!(
        ends.iter()
            .any(|end| end.contains("left without a word") || end.contains("reset")),
        "{ends:?}"
    );
}
