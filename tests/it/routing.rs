//! Which service a request is for, and which node of it.

use crate::scene::{Reply, Scene, eventually, nodes};
use futures::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use std::sync::Arc;
use tabane_sim::{Node, pattern};

/// Two nodes of four slots, and these services.
async fn scene(services: &str) -> (Vec<Node>, Arc<Scene>) {
    let nodes = nodes(2).await;
    let health = "kind: {http: {probe: /health}}, health: {interval: 50ms, interval_down: 50ms}";
    let yaml = format!(
        "nodes:\n  a: {{url: \"{}\", slots: 4}}\n  b: {{url: \"{}\", slots: 4}}\nservices:\n{}",
        nodes[0].url(),
        nodes[1].url(),
        services.replace("HEALTH", health)
    );
    let scene = Arc::new(Scene::start(&yaml).await);
    (nodes, scene)
}

async fn get(scene: &Scene, host: &str, path: &str, cookie: &str) -> Reply {
    let request = Request::get(scene.url(path))
        .header(header::HOST, host)
        .header(header::COOKIE, cookie);
    scene.send(request.body(Full::default()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_a_port_by_host_and_path() {
    let (_nodes, scene) = scene(
        "  one: {HEALTH, pool: [a], routes: [{host: one.example}, {path: /v1}]}\n  two: {HEALTH, pool: [b], routes: [{host: \"*.two.example\"}, {path: /v1/two/}]}\n",
    )
    .await;
    for (host, path, wants) in [
        ("one.example", "/v1/two/x", "a"),
        ("x.two.example:8080", "/v1", "b"),
        ("other", "/v1/anything", "a"),
        ("other", "/v1/two/x", "b"),
        ("other", "/v1/x//y", "a"),
    ] {
        assert_eq!(
            get(&scene, host, path, "").await.node(),
            wants,
            "{host}{path}"
        );
    }
    let lost = get(&scene, "other", "/v2", "").await;
    assert_eq!(
        (lost.status, lost.json()["error"]["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not_found"))
    );
    for path in ["/v1/../v1/two/x", "/x/..//v1"] {
        assert_eq!(
            get(&scene, "other", path, "").await.status,
            StatusCode::BAD_REQUEST,
            "{path} reads two ways"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_comes_back_to_its_node_by_cookie() {
    let (_nodes, scene) =
        scene("  any: {HEALTH, pool: [a, b], policy: sticky, routes: [/]}\n").await;
    for _ in 0..4 {
        let first = get(&scene, "x", "/", "").await;
        let cookie = first
            .header("set-cookie")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        for _ in 0..5 {
            let again = get(&scene, "x", "/", &cookie).await;
            assert_eq!(
                (again.node(), again.header("set-cookie")),
                (first.node(), "")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_joined_by_its_body_is_followed_by_its_query() {
    // As Gradio does it: POST with `session_hash` in the body, then GET with it in the query.
    let (_nodes, scene) = scene(
        "  join: {HEALTH, pool: &both [a, b], policy: {hash: {key: {json: session_hash}, strict: true}}, routes: [/join]}\n  data: {HEALTH, pool: *both, policy: {hash: {key: {query: session_hash}, strict: true}}, routes: [/data]}\n",
    )
    .await;
    let mut used = std::collections::BTreeSet::new();
    for i in 0..20 {
        let joined = scene
            .post("/join", format!("{{\"session_hash\": \"s{i}\"}}"))
            .await
            .node();
        assert_eq!(
            scene.get(&format!("/data?session_hash=s{i}")).await.node(),
            joined
        );
        used.insert(joined);
    }
    assert_eq!(used.len(), 2, "sessions spread over both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_take_no_slot_and_a_body_may_be_too_large() {
    let (nodes, scene) = scene(
        "  any: {HEALTH, pool: [a], body: {max: 100KiB}, queue: {max: 0}, routes: [/, {path: /assets, slots: 0}]}\n",
    )
    .await;
    nodes[0].set(|knobs| knobs.work_ms = 600_000);
    let working: Vec<_> = (0..4)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move { scene.get("/work").await })
        })
        .collect();
    nodes[0].until(|seen| seen.at_work == 4).await;
    nodes[0].set(|knobs| knobs.work_ms = 0);
    assert_eq!(
        scene.get("/work").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(scene.get("/assets/logo.png").await.status, StatusCode::OK);
    assert_eq!(
        scene.post("/assets", pattern(100 << 10)).await.status,
        StatusCode::OK
    );
    let refused = scene.post("/assets", pattern((100 << 10) + 1)).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large"))
    );
    working.into_iter().for_each(|client| client.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_never_take_more_than_a_nodes_slots_together() {
    let (nodes, scene) = scene(
        "  one: {HEALTH, pool: [a], routes: [/one]}\n  two: {HEALTH, pool: [a], routes: [/two]}\n",
    )
    .await;
    nodes[0].set(|knobs| {
        knobs.slots = 4;
        knobs.work_ms = 5;
    });
    let clients = (0..100).map(|i| {
        let scene = scene.clone();
        tokio::spawn(async move {
            scene
                .get(if i % 2 == 0 { "/one" } else { "/two" })
                .await
                .status
        })
    });
    for status in join_all(clients).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        (nodes[0].seen().at_work_peak, nodes[0].seen().over_slots),
        (4, 0)
    );
    eventually("nothing is at work", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
}
