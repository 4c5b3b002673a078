//! Never more than `slots` at work, order among those who wait, and a bound on how many may.

use crate::scene::{Scene, any, eventually, nodes};
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::{Knobs, Node};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn never_more_than_slots_are_at_work_under_clients_that_leave_at_random() {
    let a = Node::start(Knobs::named("a", 2).working(10)).await.unwrap();
    let b = Node::start(Knobs::named("b", 3).working(15)).await.unwrap();
    let scene = Arc::new(
        Scene::start(&any(
            &[(&a, 2), (&b, 3)],
            "queue: {max: 5000, max_wait: 60s}\ncool_down: 100ms",
        ))
        .await,
    );
    let mut draw = StdRng::seed_from_u64(1);
    let clients = (0..1500).map(|i| {
        let scene = scene.clone();
        // A third leave: some while they wait, some while they are served.
        let leaves = (i % 3 == 0).then(|| Duration::from_millis(draw.next_u64() % 400));
        tokio::spawn(async move {
            let request = Request::get(scene.url("/work"))
                .body(Full::default())
                .unwrap();
            match leaves {
                Some(after) => timeout(after, scene.try_send(request))
                    .await
                    .map(|_| ())
                    .unwrap_or(()),
                None => assert_eq!(
                    scene.try_send(request).await.unwrap().status,
                    StatusCode::OK
                ),
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    eventually("everything is given back", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
    for (node, slots) in [(&a, 2), (&b, 3)] {
        let seen = node.seen();
        assert_eq!((seen.over_slots, seen.at_work_peak), (0, slots), "{seen:?}");
    }
    assert!(scene.gateway.dispatch().queue().total == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_served_by_urgency_and_then_in_order() {
    let nodes = nodes(1).await;
    let scene = Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "priority: header")).await);
    nodes[0].set(|knobs| knobs.work_ms = 300);
    let mut clients = Vec::new();
    for (i, urgency) in [3, 5, 3, 1, 5, 1, 3].into_iter().enumerate() {
        let sender = scene.clone();
        let request = Request::get(scene.url(&format!("/{urgency}/{i}")))
            .header("priority", format!("u={urgency}"));
        let request = request.body(Full::default()).unwrap();
        clients.push(tokio::spawn(async move { sender.send(request).await }));
        if i == 0 {
            nodes[0].until(|seen| seen.at_work == 1).await;
            nodes[0].set(|knobs| knobs.work_ms = 0);
        } else {
            eventually("one more waits", || {
                scene.gateway.dispatch().queue().total == i
            })
            .await;
        }
    }
    for client in join_all(clients).await {
        assert_eq!(client.unwrap().status, StatusCode::OK);
    }
    assert_eq!(
        nodes[0].seen().paths,
        ["/3/0", "/1/3", "/1/5", "/3/2", "/3/6", "/5/1", "/5/4"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back_and_a_long_wait_ends() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let scene =
        Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "queue: {max: 1, max_wait: 700ms}")).await);
    let sender = scene.clone();
    let hanging = tokio::spawn(async move { sender.get("/hangs").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    let sender = scene.clone();
    let waiting = tokio::spawn(async move { sender.get("/waits").await });
    eventually("one waits", || scene.gateway.dispatch().queue().total == 1).await;
    let refused = scene.get("/refused").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json()["error"]["code"], "queue_full");
    let waited = waiting.await.unwrap();
    assert_eq!(
        (waited.status, waited.json()["error"]["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("waited_too_long"))
    );
    assert_eq!(nodes[0].seen().paths, ["/hangs"]);
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_leaves_the_queue_frees_the_place() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let scene = Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "queue: {max: 1}")).await);
    let sender = scene.clone();
    let hanging = tokio::spawn(async move { sender.get("/hangs").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    for _ in 0..3 {
        let sender = scene.clone();
        let waiting = tokio::spawn(async move { sender.post("/waits", "a body").await });
        eventually("one waits", || scene.gateway.dispatch().queue().total == 1).await;
        waiting.abort();
        eventually("nobody waits", || {
            scene.gateway.dispatch().queue().total == 0
        })
        .await;
    }
    hanging.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_works_on_keeps_its_slot_until_it_says_that_it_is_idle() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| {
        knobs.notices_disconnect = false;
        knobs.work_ms = 600;
    });
    let yaml = any(&[(&nodes[0], 1)], "cool_down: 10m")
        .replace("probe: /health", "probe: {path: /health, busy: /busy}");
    let scene = Arc::new(Scene::start(&yaml).await);
    let sender = scene.clone();
    let leaves = tokio::spawn(async move { sender.get("/render").await });
    nodes[0].until(|seen| seen.at_work == 1).await;
    leaves.abort();
    // The next one waits for the renderer, not for ten minutes, and the card never has two.
    assert_eq!(scene.get("/next").await.status, StatusCode::OK);
    assert_eq!(nodes[0].seen().at_work_peak, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_slots_are_free_and_by_weight() {
    let nodes = [
        Node::start(Knobs::named("a", 8)).await.unwrap(),
        Node::start(Knobs::named("b", 8)).await.unwrap(),
    ];
    let yaml = any(&[(&nodes[0], 8), (&nodes[1], 8)], "")
        .replace("pool: [a, b]", "pool: [{endpoint: a, weight: 3}, b]");
    let scene = Scene::start(&yaml).await;
    for node in &nodes {
        node.set(|knobs| knobs.hang = true);
    }
    let streams: Vec<_> = (0..8)
        .map(|_| {
            scene
                .client
                .request(Request::get(scene.url("/")).body(Full::default()).unwrap())
        })
        .collect();
    let all = tokio::spawn(join_all(streams));
    eventually("eight are at work", || {
        nodes.iter().map(|node| node.seen().at_work).sum::<u32>() == 8
    })
    .await;
    assert_eq!((nodes[0].seen().at_work, nodes[1].seen().at_work), (6, 2));
    all.abort();
}
