//! Nodes that fail in every way that nodes fail.

use crate::scene::{Scene, any, eventually, nodes};
use http::{Request, StatusCode};
use http_body_util::Full;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tabane_sim::{Drop, Knobs, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Clients that send one request after the other until they are told to stop; panics on any answer but 200.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(scene: &Arc<Scene>, clients: usize, post: bool) -> Load {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut all = JoinSet::new();
        for _ in 0..clients {
            let (scene, stop, done) = (scene.clone(), stop.clone(), done.clone());
            all.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::builder()
                        .method(if post { "POST" } else { "GET" })
                        .uri(scene.url("/work"));
                    let reply = scene.send(request.body(Full::from("x")).unwrap()).await;
                    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Load {
            stop,
            done,
            clients: all,
        }
    }

    /// Waits until so many more requests have succeeded.
    async fn more(&self, n: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + n;
        eventually("more requests succeed", || {
            self.done.load(Ordering::Relaxed) >= wanted
        })
        .await;
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
    }
}

async fn two(work_ms: u64) -> (Node, Node) {
    let a = Node::start(Knobs::named("a", 4).working(work_ms))
        .await
        .unwrap();
    let b = Node::start(Knobs::named("b", 4).working(work_ms))
        .await
        .unwrap();
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_in_the_middle_of_load_fails_no_request() {
    let (a, b) = two(5).await;
    let scene = Arc::new(Scene::start(&any(&[(&a, 4), (&b, 4)], "")).await);
    let load = Load::start(&scene, 16, false);
    load.more(50).await;
    let address = a.kill().await;
    scene.until_state("a/http", "down").await;
    load.more(50).await;
    // Back under its old address, it is used again.
    let a = Node::start_at(address, Knobs::named("a", 4)).await.unwrap();
    scene.until_state("a/http", "up").await;
    a.until(|seen| seen.finished > 0).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_answers_only_503_is_taken_out_and_fails_no_request_not_even_a_post() {
    let (a, b) = two(1).await;
    let scene = Arc::new(Scene::start(&any(&[(&a, 4), (&b, 4)], "")).await);
    let load = Load::start(&scene, 8, true);
    load.more(20).await;
    // Its health page stays as good as before.
    a.set(|knobs| knobs.status = Some(503));
    scene.until_state("a/http", "ejected").await;
    load.more(50).await;
    load.end().await;
    assert!(scene.metric("tabane_retries_total").await >= 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_breaks_connections_off_fails_no_request_that_may_be_repeated() {
    let (a, b) = two(1).await;
    let scene = Arc::new(Scene::start(&any(&[(&a, 4), (&b, 4)], "")).await);
    a.set(|knobs| knobs.drop = Drop::BeforeHead);
    let load = Load::start(&scene, 8, false);
    scene.until_state("a/http", "ejected").await;
    load.more(50).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_run_twice_runs_once() {
    let (a, b) = two(0).await;
    let scene = Scene::start(&any(&[(&a, 4), (&b, 4)], "policy: first")).await;
    a.set(|knobs| knobs.drop = Drop::BeforeHead);
    let reply = scene.post("/render", "x").await;
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (StatusCode::BAD_GATEWAY, Some("node_failed"))
    );
    assert_eq!(b.seen().requests, 0);
    // With a key it may.
    let keyed = Request::post(scene.url("/render"))
        .header("idempotency-key", "k1")
        .body(Full::from("x"))
        .unwrap();
    assert_eq!(scene.send(keyed).await.node(), "b");
    // And where the file says so.
    let scene = Scene::start(&any(&[(&a, 4), (&b, 4)], "policy: first\nretry: unsafe")).await;
    assert_eq!(scene.post("/render", "x").await.node(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_that_does_not_answer_probes_is_not_marked_dead() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let yaml = any(&[(&nodes[0], 1)], "").replace("timeout: 300ms", "timeout: 40ms");
    let scene = Arc::new(Scene::start(&yaml).await);
    let sender = scene.clone();
    let working = tokio::spawn(async move { sender.get("/").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    nodes[0].set(|knobs| knobs.hang_health = true);
    let probes = nodes[0].seen().probes;
    nodes[0].until(|seen| seen.probes >= probes + 6).await;
    assert_eq!(scene.state("a/http"), "up");
    working.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_out_within_stall_after_and_its_requests_go_elsewhere() {
    let nodes = nodes(2).await;
    let yaml = any(&[(&nodes[0], 1), (&nodes[1], 1)], "policy: first")
        .replace("timeout: 300ms", "timeout: 50ms")
        .replace("fall: 2}", "fall: 2, stall_after: 500ms}");
    let scene = Arc::new(Scene::start(&yaml).await);
    nodes[0].set(|knobs| knobs.hang = true);
    let sender = scene.clone();
    let working = tokio::spawn(async move { sender.get("/").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    // The other is full meanwhile, so that the request has to wait for it.
    nodes[1].set(|knobs| knobs.work_ms = 1500);
    let sender = scene.clone();
    let first = tokio::spawn(async move { sender.get("/").await });
    nodes[1].until(|seen| seen.at_work == 1).await;
    nodes[0].set(|knobs| knobs.frozen = true);
    scene.until_state("a/http", "down").await;
    eventually("it waits for the other", || {
        scene.gateway.dispatch().queue().total == 1
    })
    .await;
    // Its connection is open and dead; the request is taken from it and runs on the other.
    let reply = working.await.unwrap();
    assert_eq!((reply.status, reply.node()), (StatusCode::OK, "b".into()));
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    nodes[0].set(|knobs| *knobs = Knobs::named("a", 1));
    scene.until_state("a/http", "up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_freezes_while_it_takes_a_body_is_let_go_of_and_another_gets_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stuck = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut begin = [0; 3];
            // From the first request that is no probe nothing is read any more; connections stay open.
            let probed =
                open.is_empty() && stream.read_exact(&mut begin).await.is_ok() && &begin == b"GET";
            if probed {
                let well = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(well).await;
            } else {
                open.push(stream);
            }
        }
    });
    let other = nodes(1).await;
    let data = tempfile::tempdir().unwrap();
    let scene = Scene::start(&format!(
        "data_dir: {}\nnodes:\n  a: {{url: \"http://{address}\"}}\n  b: {{url: \"{}\"}}\n{}",
        data.path().display(),
        other[0].url(),
        "services:\n  any: {kind: http, pool: [a, b], routes: [/], policy: first, retry: unsafe, health: {interval: 50ms, timeout: 50ms, fall: 2, stall_after: 500ms}}\n"
    ))
    .await;
    // More than the system takes for a connection on its own.
    let reply = scene.post("/work", tabane_sim::pattern(30_000_000)).await;
    assert_eq!(
        (reply.status, reply.header("tabane-node")),
        (StatusCode::OK, "b/http")
    );
    assert_eq!(reply.json()["bytes"], 30_000_000);
    stuck.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_is_not_used_before_its_first_good_probe() {
    let (a, b) = two(0).await;
    b.set(|knobs| knobs.health_status = Some(500));
    let scene = Scene::start_unproven(crate::scene::app(), &any(&[(&a, 4), (&b, 4)], "")).await;
    scene.until_state("a/http", "up").await;
    for _ in 0..20 {
        assert_eq!(scene.get("/").await.node(), "a");
    }
    assert_eq!((scene.state("b/http"), b.seen().requests), ("unproven", 0));
    b.set(|knobs| knobs.health_status = None);
    scene.until_state("b/http", "up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_a_node_that_comes_back() {
    let nodes = nodes(1).await;
    let scene = Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "")).await);
    nodes[0].set(|knobs| knobs.health_status = Some(500));
    scene.until_state("a/http", "down").await;
    assert_eq!(
        scene.admin(http::Method::GET, "/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let sender = scene.clone();
    let waiting = tokio::spawn(async move { sender.get("/").await });
    eventually("it waits", || scene.gateway.dispatch().queue().total == 1).await;
    nodes[0].set(|knobs| knobs.health_status = None);
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_and_the_client_is_told() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(
        &[(&nodes[0], 1)],
        "retry: {attempts: 2}\nqueue: {max: 10, max_wait: 300ms}",
    ))
    .await;
    nodes.into_iter().next().unwrap().kill().await;
    let reply = tokio::time::timeout(Duration::from_secs(20), scene.get("/"))
        .await
        .unwrap();
    assert!(
        matches!(
            reply.status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE
        ),
        "{reply:?}"
    );
}
