//! WebSockets: nothing is lost at their beginning, nothing cuts them while they live, and they end with a word.

use crate::scene::{Scene, any, nodes};
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A socket through the gateway whose greeting was read.
async fn socket(scene: &Scene) -> Socket {
    let (mut socket, _) = connect_async(format!("ws://{}/ws", scene.address()))
        .await
        .unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Ping(_) => {}
            greeting => break assert!(greeting.is_text(), "{greeting:?}"),
        }
    }
    socket
}

/// Reads on to the close frame: its code, or `None` where the connection ended without one.
async fn close_code(socket: &mut Socket) -> Option<CloseCode> {
    let read = async {
        while let Some(message) = socket.next().await {
            if let Ok(Message::Close(frame)) = message {
                return frame.map(|frame| frame.code);
            }
        }
        None
    };
    let read = timeout(Duration::from_secs(60), read).await;
    read.expect("it ends within a minute")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_sockets_to_a_node_that_answers_at_once_none_is_lost() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    for _ in 0..6 {
        let talks = (0..50).map(|i| {
            let scene = &scene;
            async move {
                let mut socket = socket(scene).await;
                let message = Message::text(format!("hello {i}"));
                socket.send(message.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), message);
                socket.close(None).await.unwrap();
            }
        });
        join_all(talks).await;
    }
    let seen = nodes[0].until(|seen| seen.sockets == 0).await;
    assert_eq!(seen.requests, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_socket_is_pinged_and_outlives_every_other_timeout() {
    let nodes = nodes(1).await;
    let yaml = any(
        &[(&nodes[0], 1)],
        "socket_ping: 100ms\ntimeouts: {read: 300ms}",
    );
    let limits =
        "limits: {client_head: 300ms, client_read: 300ms, client_write: 300ms, keep_alive: 300ms}";
    let scene = Scene::start(&format!("{limits}\n{yaml}")).await;
    let mut socket = socket(&scene).await;
    for _ in 0..12 {
        let said = timeout(Duration::from_secs(60), socket.next()).await;
        let said = said.expect("it is pinged").unwrap().unwrap();
        assert!(said.is_ping(), "{said:?}");
    }
    let message = Message::text("still here");
    socket.send(message.clone()).await.unwrap();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Ping(_) => {}
            said => break assert_eq!(said, message),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_which_nobody_says_anything_ends_though_pings_are_answered() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(
        &[(&nodes[0], 1)],
        "socket_ping: 50ms\nsocket_idle: 500ms",
    ))
    .await;
    let mut socket = socket(&scene).await;
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Away));
    nodes[0].until(|seen| seen.sockets == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_a_removed_node_is_told_to_connect_again_when_its_time_is_over() {
    let nodes = nodes(2).await;
    let both = any(
        &[(&nodes[0], 1), (&nodes[1], 1)],
        "policy: first\ndrain: 400ms",
    );
    let scene = Scene::start(&both).await;
    let mut sockets = join_all((0..20).map(|_| socket(&scene))).await;
    assert_eq!(nodes[0].seen().sockets, 20);
    scene
        .reload(&both.replace("pool: [a, b]", "pool: [b]"))
        .await
        .unwrap();
    // Until then it works as before.
    let message = Message::text("go on");
    sockets[0].send(message.clone()).await.unwrap();
    assert_eq!(sockets[0].next().await.unwrap().unwrap(), message);
    for socket in &mut sockets {
        assert_eq!(close_code(socket).await, Some(CloseCode::Restart));
    }
    nodes[0].until(|seen| seen.sockets == 0).await;
    // Who connects again gets the other.
    let _again = socket(&scene).await;
    nodes[1].until(|seen| seen.sockets == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_whose_node_is_killed_ends_with_a_word() {
    let mut nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    let mut socket = socket(&scene).await;
    nodes.remove(0).kill().await;
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_goes_both_ways_while_pings_are_sent() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "socket_ping: 1ms")).await;
    let mut socket = socket(&scene).await;
    for size in [1, 70_000, 3_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.unwrap();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                said => break assert!(said == message, "{size}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_opens_whatever_the_policy_looks_for() {
    let nodes = nodes(2).await;
    let more = "policy: {hash: {key: [{json: session}, {query: session}]}}";
    let scene = Scene::start(&any(&[(&nodes[0], 1), (&nodes[1], 1)], more)).await;
    for _ in 0..4 {
        let mut socket = socket(&scene).await;
        let hello = Message::text("hello");
        socket.send(hello.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), hello);
    }
    assert_eq!((scene.state("a/http"), scene.state("b/http")), ("up", "up"));
}
