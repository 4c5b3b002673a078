//! Reloads that harm nobody, and files that change nothing.

use crate::scene::{Scene, any, app, eventually, nodes, on_free_ports, shown};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tabane_sim::{Knobs, Node, pattern};
use tokio::time::interval;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn reloads_that_change_the_pool_harm_no_request_stream_socket_or_upload() {
    let nodes = [
        Node::start(Knobs::named("a", 100).working(2))
            .await
            .unwrap(),
        Node::start(Knobs::named("b", 100).working(2))
            .await
            .unwrap(),
        Node::start(Knobs::named("c", 100).working(2))
            .await
            .unwrap(),
    ];
    let with = |which: &[usize]| {
        // Names stay with their nodes: a pool is chosen, not renamed.
        let all: Vec<(&Node, u32)> = nodes.iter().map(|node| (node, 100)).collect();
        let pool: Vec<&str> = which.iter().map(|i| ["a", "b", "c"][*i]).collect();
        any(&all, "").replace("pool: [a, b, c]", &format!("pool: [{}]", pool.join(", ")))
    };
    let scene = Arc::new(Scene::start(&with(&[0, 1, 2])).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut busy = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (scene, stop) = (scene.clone(), stop.clone());
        busy.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(scene.get("/work").await.status, StatusCode::OK);
            }
        });
    }
    for _ in 0..5 {
        let (scene, stop) = (scene.clone(), stop.clone());
        busy.spawn(async move {
            let (mut socket, _) = connect_async(format!("ws://{}/ws", scene.address()))
                .await
                .unwrap();
            socket.next().await.unwrap().unwrap();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                socket.send(Message::text(format!("{n}"))).await.unwrap();
                assert_eq!(
                    socket.next().await.unwrap().unwrap(),
                    Message::text(format!("{n}")),
                    "no gap, no close"
                );
                n += 1;
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..3 {
        let scene = scene.clone();
        busy.spawn(async move {
            let mut stream = scene.stream("/sse?events=100&every_ms=20").await;
            let mut text = String::new();
            while let Some(frame) = stream.frame().await {
                text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
            }
            for i in 0..100 {
                assert!(
                    text.contains(&format!("\"i\":{i},")),
                    "event {i} is missing"
                );
            }
        });
    }
    for _ in 0..2 {
        let url = scene.url("/echo");
        busy.spawn(async move {
            // Two mebibytes in pieces, over the time of many reloads.
            let whole = pattern(2 << 20);
            let pieces: Vec<Bytes> = (0..64)
                .map(|i| whole.slice(i * (32 << 10)..(i + 1) * (32 << 10)))
                .collect();
            let paced = futures::stream::unfold(
                (pieces.into_iter(), interval(Duration::from_millis(20))),
                |(mut pieces, mut pace)| async move {
                    pace.tick().await;
                    let piece = pieces.next()?;
                    Some((Ok::<_, std::io::Error>(Frame::data(piece)), (pieces, pace)))
                },
            );
            let client = Client::builder(TokioExecutor::new()).build_http();
            let request = Request::post(url)
                .body(StreamBody::new(Box::pin(paced)))
                .unwrap();
            let back = client
                .request(request)
                .await
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes();
            assert!(back == whole, "{} bytes came back", back.len());
        });
    }
    let mut pace = interval(Duration::from_millis(25));
    let pools: [&[usize]; 6] = [&[0], &[1, 2], &[2], &[0, 1], &[1], &[0, 1, 2]];
    for round in 0..60 {
        pace.tick().await;
        scene
            .reload(&with(pools[round % pools.len()]))
            .await
            .unwrap_or_else(|problems| panic!("{}", shown(&problems)));
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = busy.join_next().await {
        done.unwrap();
    }
    assert!(scene.metric("tabane_config_generation").await >= 60.0);
    assert_eq!(scene.metric("tabane_config_reload_success").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_keeps_its_state_and_a_drain_mark_outlives_restarts() {
    let nodes = nodes(2).await;
    let with = |labels: &str| {
        any(&[(&nodes[0], 1), (&nodes[1], 1)], "").replace(
            "slots: 1}",
            &format!("slots: 1, labels: {{{labels}}}, gpu: {{vram: 24GiB}}}}"),
        )
    };
    let scene = Scene::start(&with("os: linux")).await;
    assert_eq!(
        scene
            .admin(Method::POST, "/api/v1/nodes/a/drain")
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(scene.state("a/http"), "draining");
    let applied = scene.reload(&with("os: windows")).await.unwrap();
    assert_eq!(applied.diff.nodes.changed.len(), 2, "{}", applied.diff);
    // No endpoint was proven anew: b serves at once, a keeps its mark.
    assert_eq!(
        (scene.state("a/http"), scene.state("b/http")),
        ("draining", "up")
    );
    for _ in 0..10 {
        assert_eq!(scene.get("/").await.node(), "b");
    }
    assert_eq!(
        scene
            .admin(Method::POST, "/api/v1/nodes/a/undrain")
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(scene.state("a/http"), "up");
    assert_eq!(
        scene
            .admin(Method::POST, "/api/v1/nodes/nobody/drain")
            .await
            .status,
        StatusCode::NOT_FOUND
    );

    let data = tempfile::tempdir().unwrap();
    let kept = format!("data_dir: {}\n{}", data.path().display(), with("os: linux"));
    let scene = Scene::start(&kept).await;
    scene.admin(Method::POST, "/api/v1/nodes/b/drain").await;
    scene.gateway.shutdown(Duration::from_secs(1)).await;
    let scene = Scene::start_unproven(app(), &kept).await;
    scene.until_state("a/http", "up").await;
    assert_eq!(scene.state("b/http"), "draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_ends_what_it_is_at_and_gets_nothing_new() {
    let nodes = nodes(2).await;
    let scene =
        Arc::new(Scene::start(&any(&[(&nodes[0], 1), (&nodes[1], 1)], "policy: first")).await);
    nodes[0].set(|knobs| knobs.work_ms = 500);
    let sender = scene.clone();
    let working = tokio::spawn(async move { sender.get("/").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    scene
        .reload(&any(&[(&nodes[0], 1), (&nodes[1], 1)], "").replace("pool: [a, b]", "pool: [b]"))
        .await
        .unwrap();
    assert_eq!(scene.state("a/http"), "leaving");
    assert_eq!(scene.get("/").await.node(), "b");
    assert_eq!(working.await.unwrap().node(), "a");
    scene.until_state("a/http", "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_let_go_when_its_time_to_drain_is_over() {
    let nodes = nodes(2).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let scene = Arc::new(
        Scene::start(&any(
            &[(&nodes[0], 1), (&nodes[1], 1)],
            "policy: first\ndrain: 200ms",
        ))
        .await,
    );
    let sender = scene.clone();
    let working = tokio::spawn(async move { sender.get("/").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    let (mut socket, _) = connect_async(format!("ws://{}/ws", scene.address()))
        .await
        .unwrap();
    socket.next().await.unwrap().unwrap();
    scene
        .reload(
            &any(
                &[(&nodes[0], 1), (&nodes[1], 1)],
                "policy: first\ndrain: 200ms",
            )
            .replace("pool: [a, b]", "pool: [b]"),
        )
        .await
        .unwrap();
    assert_eq!(
        working.await.unwrap().node(),
        "b",
        "its request, which may be repeated, runs on the other"
    );
    scene.until_state("a/http", "gone").await;
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_sees_a_new_node_at_once() {
    let nodes = nodes(2).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let scene = Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "")).await);
    let sender = scene.clone();
    let hanging = tokio::spawn(async move { sender.get("/").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    let sender = scene.clone();
    let waiting = tokio::spawn(async move { sender.get("/").await });
    eventually("one waits", || scene.gateway.dispatch().queue().total == 1).await;
    scene
        .reload(&any(&[(&nodes[0], 1), (&nodes[1], 1)], ""))
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap().node(), "b");
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_says_where() {
    let nodes = nodes(1).await;
    let good = any(&[(&nodes[0], 1)], "");
    let scene = Scene::start(&good).await;
    let hash = scene.admin(Method::GET, "/api/v1/config").await.json()["hash"].clone();
    let full = on_free_ports(&good);
    let mut refused = 0;
    for cut in (0..full.len()).step_by(7) {
        scene.replace(&full[..cut]);
        let reply = scene.admin(Method::POST, "/api/v1/reload").await;
        if reply.status == StatusCode::UNPROCESSABLE_ENTITY {
            refused += 1;
            for problem in reply.json()["problems"].as_array().unwrap() {
                let problem = problem.as_str().unwrap();
                assert!(
                    problem.contains("tabane.yaml:")
                        && problem.split(':').nth(1).unwrap().parse::<u32>().is_ok(),
                    "{problem}"
                );
            }
        }
        assert!(matches!(
            reply.status,
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::OK
        ));
    }
    assert!(refused > 10, "{refused}");
    scene.replace(&full.replace("slots: 1", "slotz: 1"));
    let reply = scene.admin(Method::POST, "/api/v1/reload").await;
    assert!(
        reply.json()["problems"][0]
            .as_str()
            .unwrap()
            .contains("slots"),
        "{reply:?}"
    );
    assert_eq!(scene.metric("tabane_config_reload_success").await, 0.0);
    scene.replace(&full);
    assert_eq!(
        scene.admin(Method::POST, "/api/v1/reload").await.status,
        StatusCode::OK
    );
    assert_eq!(
        scene.admin(Method::GET, "/api/v1/config").await.json()["hash"],
        hash
    );
    assert_eq!(scene.get("/").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_found_by_itself_however_it_is_written() {
    let nodes = nodes(2).await;
    let one = on_free_ports(&any(&[(&nodes[0], 1)], ""));
    let two = on_free_ports(&any(&[(&nodes[0], 1), (&nodes[1], 1)], ""));
    let scene = Scene::start(&one).await;
    let knows = |n: usize| scene.gateway.dispatch().nodes().len() == n;
    // Renamed over, as editors do.
    scene.replace(&two);
    eventually("the new node is known", || knows(2)).await;
    // Written in place.
    std::fs::write(&scene.file, &one).unwrap();
    eventually("it is gone again", || knows(1)).await;
    // A symlink that is swapped, as mounted config maps do.
    for (name, text) in [("v1", &one), ("v2", &two)] {
        std::fs::create_dir(scene.dir.path().join(name)).unwrap();
        std::fs::write(scene.dir.path().join(name).join("tabane.yaml"), text).unwrap();
    }
    let swap = |to: &str| {
        let link = scene.dir.path().join("swap");
        std::os::unix::fs::symlink(format!("{to}/tabane.yaml"), &link).unwrap();
        std::fs::rename(&link, &scene.file).unwrap();
    };
    swap("v1");
    swap("v2");
    eventually("the swapped file is read", || knows(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_is_not_read_though_it_is_good_yaml() {
    use std::io::{Seek, Write};
    let nodes = nodes(2).await;
    let both = on_free_ports(&any(&[(&nodes[0], 1), (&nodes[1], 1)], ""));
    let scene = Scene::start(&both).await;
    let mut slow = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&scene.file)
        .unwrap();
    let first = on_free_ports(&any(&[(&nodes[0], 1)], ""));
    slow.write_all(first.as_bytes()).unwrap();
    // The writer takes its time; what stands there now means something else than what it will say.
    let mut pace = interval(Duration::from_millis(400));
    pace.tick().await;
    pace.tick().await;
    slow.set_len(0).unwrap();
    slow.seek(std::io::SeekFrom::Start(0)).unwrap();
    slow.write_all(both.replace("fall: 2}", "fall: 3}").as_bytes())
        .unwrap();
    drop(slow);
    eventually("the whole file is read", || {
        scene.gateway.dispatch().world().unwrap().plan.services[0]
            .health
            .fall
            == 3
    })
    .await;
    assert_eq!(
        scene.gateway.dispatch().world().unwrap().generation,
        2,
        "once, and whole"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_comes_and_goes_with_the_file() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1)], "")).await;
    let two = format!(
        "listen: [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n{}",
        any(&[(&nodes[0], 1)], "")
    );
    scene.reload(&two).await.unwrap();
    let addresses = scene.gateway.addresses();
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        let request = Request::get(format!("http://{address}/"))
            .body(Full::default())
            .unwrap();
        assert_eq!(scene.send(request).await.status, StatusCode::OK);
    }
    scene.reload(&any(&[(&nodes[0], 1)], "")).await.unwrap();
    assert_eq!(scene.gateway.addresses(), addresses[..1]);
    assert_eq!(scene.get("/").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_moves_from_one_services_pool_to_anothers_under_load_and_nobody_notices_but_by_speed()
 {
    let working = ["a", "b", "c"].map(|name| Node::start(Knobs::named(name, 1).working(3)));
    let nodes = futures::future::try_join_all(working).await.unwrap();
    let yaml = |image: &str, chat: &str| {
        let node = |i: usize, name: &str| format!("  {name}: {{url: \"{}\"}}\n", nodes[i].url());
        let service = |name: &str, pool: &str| {
            format!(
                "  {name}:\n    kind: {{http: {{probe: /health}}}}\n    pool: [{pool}]\n    routes: [/{name}]\n    health: {{interval: 50ms, interval_down: 50ms, rise: 1}}\n"
            )
        };
        format!(
            "nodes:\n{}{}{}services:\n{}{}",
            node(0, "a"),
            node(1, "b"),
            node(2, "c"),
            service("image", image),
            service("chat", chat)
        )
    };
    let scene = Arc::new(Scene::start(&yaml("a, b", "c")).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut busy = tokio::task::JoinSet::new();
    for path in ["/image", "/chat"].repeat(4) {
        let (scene, stop) = (scene.clone(), stop.clone());
        busy.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let reply = scene.get(path).await;
                assert_eq!(reply.status, StatusCode::OK, "{path}: {reply:?}");
            }
        });
    }
    let moved = &nodes[1];
    for (image, chat, gets) in [
        ("a, b", "c", "/image"),
        ("a", "b, c", "/chat"),
        ("a, b", "c", "/image"),
    ] {
        scene.reload(&yaml(image, chat)).await.unwrap();
        let before = moved.seen().requests;
        moved.until(|seen| seen.requests >= before + 20).await;
        // The last 15 at least were given after what was under way had ended.
        let paths = moved.seen().paths;
        let last = &paths[paths.len() - 15..];
        assert!(last.iter().all(|path| path == gets), "{gets}: {last:?}");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = busy.join_next().await {
        client.unwrap();
    }
    for node in &nodes {
        assert_eq!(node.seen().over_slots, 0);
    }
}
