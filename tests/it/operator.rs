//! What operators see and do, and who is let in.

use crate::scene::{Scene, any, app, eventually, nodes};
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_needed_where_the_file_says_so_and_the_node_never_sees_it() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "access: {{anonymous: deny}}\ntenants: {{studio: {{key: studio-key-1}}}}\n{}",
        any(&[(&nodes[0], 1)], "")
    );
    let scene = Scene::start(&yaml).await;
    let refused = scene.get("/").await;
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (StatusCode::UNAUTHORIZED, Some("unauthorized"))
    );
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
    for (name, value) in [
        ("authorization", "Bearer studio-key-1"),
        ("x-api-key", "studio-key-1"),
    ] {
        let request = Request::get(scene.url("/"))
            .header(name, value)
            .body(Full::default())
            .unwrap();
        let told = scene.send(request).await.json();
        assert!(told["headers"].get(name).is_none(), "{told}");
    }
    let request = Request::get(scene.url("/"))
        .header("x-api-key", "studio-key-1")
        .header("authorization", "Bearer the-nodes-own")
        .body(Full::default())
        .unwrap();
    assert_eq!(
        scene.send(request).await.json()["headers"]["authorization"],
        "Bearer the-nodes-own"
    );
    let socket = tokio_tungstenite::connect_async(format!("ws://{}/ws", scene.address())).await;
    assert!(
        matches!(socket, Err(tokio_tungstenite::tungstenite::Error::Http(response)) if response.status() == 401),
        "a socket asks the same question"
    );
    let shown = scene.admin(Method::GET, "/api/v1/config").await;
    assert!(
        !String::from_utf8_lossy(&shown.body).contains("studio-key"),
        "no key is shown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_shows_the_farm() {
    let nodes = nodes(2).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1), (&nodes[1], 2)], "")).await;
    scene.get("/").await;
    assert_eq!(
        scene.admin(Method::GET, "/healthz").await.status,
        StatusCode::OK
    );
    assert_eq!(
        scene.admin(Method::GET, "/readyz").await.status,
        StatusCode::OK
    );
    let shown = scene.admin(Method::GET, "/api/v1/nodes").await.json();
    assert_eq!(
        (
            shown[0]["name"].as_str(),
            shown[1]["endpoints"][0]["slots"].as_u64()
        ),
        (Some("a"), Some(2))
    );
    assert_eq!(
        scene.admin(Method::GET, "/api/v1/services").await.json()[0]["usable_endpoints"],
        2
    );
    assert_eq!(
        scene.admin(Method::GET, "/api/v1/pools").await.json()[0]["members"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let explained = scene
        .admin(Method::GET, "/api/v1/explain?service=any&path=/x")
        .await
        .json();
    assert!(
        explained["would_pick"].is_string()
            && explained["candidates"].as_array().unwrap().len() == 2,
        "{explained}"
    );
    assert_eq!(
        scene
            .admin(Method::GET, "/api/v1/explain?service=none")
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        scene.admin(Method::GET, "/nothing").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        scene.admin(Method::GET, "/api/v1/reload").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(
        scene
            .admin(Method::GET, "/api/v1/openapi.json")
            .await
            .json()["paths"]
            .is_object()
    );
    assert_eq!(
        scene
            .metric("tabane_requests_total{service=\"any\",outcome=\"ok\"")
            .await,
        1.0
    );
    assert_eq!(scene.metric("tabane_upstream_requests_total{").await, 1.0);
    assert!(scene.metric("tabane_probes_total{").await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_token_is_asked_for_and_pages_change_nothing() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "admin: {{address: \"127.0.0.1:0\", token: admin-token-1}}\n{}",
        any(&[(&nodes[0], 1)], "")
    );
    let scene = Scene::start(&yaml).await;
    assert_eq!(
        scene.admin(Method::GET, "/api/v1/nodes").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        scene.admin(Method::GET, "/readyz").await.status,
        StatusCode::OK,
        "an orchestrator has no token"
    );
    let with = |method: Method, path: &str, origin: Option<&str>| {
        let url = format!("http://{}{path}", scene.gateway.admin().unwrap());
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", "Bearer admin-token-1");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        scene.send(request.body(Full::default()).unwrap())
    };
    assert_eq!(
        with(Method::GET, "/api/v1/nodes", None).await.status,
        StatusCode::OK
    );
    assert_eq!(
        with(Method::POST, "/api/v1/reload", Some("https://evil.example"))
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        with(Method::POST, "/api/v1/reload", None).await.status,
        StatusCode::OK
    );
    // A token that was changed in the file counts at once.
    let changed = yaml.replace("admin-token-1", "admin-token-2");
    scene.reload(&changed).await.unwrap();
    assert_eq!(
        with(Method::GET, "/api/v1/nodes", None).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happens() {
    let nodes = nodes(2).await;
    let scene = Scene::start(&any(&[(&nodes[0], 1), (&nodes[1], 1)], "")).await;
    let url = format!(
        "http://{}/api/v1/events?node=b",
        scene.gateway.admin().unwrap()
    );
    let mut stream = scene
        .client
        .request(Request::get(url).body(Full::default()).unwrap())
        .await
        .unwrap()
        .into_body();
    for node in ["a", "b"] {
        scene
            .admin(Method::POST, &format!("/api/v1/nodes/{node}/drain"))
            .await;
    }
    let frame = tokio::time::timeout(Duration::from_secs(20), stream.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(frame.data_ref().unwrap()).into_owned();
    assert!(
        text.contains("event: node_drained") && text.contains("\"node\":\"b\""),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_what_is_at_work_and_takes_nothing_new() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.work_ms = 400);
    let scene = Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "")).await);
    let address = scene.address();
    let sender = scene.clone();
    let working = tokio::spawn(async move { sender.get("/").await.status });
    nodes[0].until(|seen| seen.at_work == 1).await;
    scene.gateway.dispatch().close();
    assert_eq!(
        scene.admin(Method::GET, "/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(scene.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(working.await.unwrap(), StatusCode::OK);
    let scene = Arc::into_inner(scene).unwrap();
    scene.gateway.shutdown(Duration::from_secs(10)).await;
    eventually("nobody listens", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_on_kept_connections_lose_no_request_to_a_shutdown() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 100)], "")).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut stream = scene.connect().await;
        clients.spawn(async move {
            loop {
                let answer =
                    crate::scene::exchange(&mut stream, "HEAD /work HTTP/1.1\r\nHost: a\r\n\r\n");
                let answer = answer.await;
                assert!(answer.starts_with("HTTP/1.1 "), "{answer:?}");
                if answer.to_ascii_lowercase().contains("connection: close") {
                    return;
                }
            }
        });
    }
    nodes[0].until(|seen| seen.requests > 100).await;
    scene.gateway.shutdown(Duration::from_secs(10)).await;
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_that_cannot_wait_answers_requests_and_closes_sockets_with_a_word() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let scene = Arc::new(Scene::start(&any(&[(&nodes[0], 1)], "")).await);
    let url = format!("ws://{}/ws", scene.address());
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let request = http::Request::get(scene.url("/")).body(Default::default());
    let hanging = scene.client.request(request.unwrap());
    let hanging = tokio::spawn(hanging);
    nodes[0].until(|seen| seen.at_work == 1).await;
    let request = http::Request::get(scene.url("/")).body(Default::default());
    let waiting = tokio::spawn(scene.client.request(request.unwrap()));
    eventually("one waits", || scene.gateway.dispatch().queue().total == 1).await;
    let scene = Arc::into_inner(scene).unwrap();
    scene.gateway.shutdown(Duration::from_millis(100)).await;
    for asked in [hanging, waiting] {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let close = socket.next().await.unwrap().unwrap();
    assert!(
        matches!(&close, Message::Close(Some(frame)) if frame.code == CloseCode::Restart),
        "{close:?}"
    );
}

#[test]
fn the_schema_in_conf_is_what_the_code_says() {
    let made = format!("{:#}\n", tabane::config::schema(app().registry()));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/tabane.schema.json");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == made,
        "conf/tabane.schema.json is stale: run `tabane schema > conf/tabane.schema.json`"
    );
}

#[test]
fn every_file_in_conf_loads_without_a_warning() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut seen = 0;
    // In `deploy`, each configuration has a folder of its own: a folder is what gets mounted.
    for dir in [
        "",
        "examples",
        "examples/render",
        "deploy/sidecar",
        "deploy/gateway",
    ] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                seen += 1;
                // Secrets have no default; everything else in these files does.
                let secret = |name: &str| name.contains("KEY") || name.contains("TOKEN");
                let env = |name: &str| secret(name).then(|| format!("value-of-{name}"));
                let loaded = tabane::config::load(&path, app().registry(), &env);
                let loaded =
                    loaded.unwrap_or_else(|problems| panic!("{}", crate::scene::shown(&problems)));
                assert!(
                    loaded.warnings.is_empty(),
                    "{}",
                    crate::scene::shown(&loaded.warnings)
                );
            }
        }
    }
    assert!(seen >= 8, "{seen}");
}
