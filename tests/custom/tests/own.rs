//! A user's own kind and policy do in the gateway what its own do.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use custom_gateway::{Cheapest, Renderer};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use tabane::{Gateway, Source};
use tabane_sim::{Knobs, Node};
use tokio::time::{interval, timeout};

async fn start(yaml: String) -> Gateway {
    let app = tabane::app()
        .with(tabane_standard::registry())
        .kind::<Renderer>()
        .policy::<Cheapest>();
    let source = Source::Text(yaml);
    let loaded = app
        .load(&source)
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    app.start(source, loaded).await.unwrap()
}

async fn ask(gateway: &Gateway, path: &str, body: &'static str) -> (StatusCode, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let url = format!("http://{}{path}", gateway.addresses()[0]);
    let request = Request::post(url).body(Full::<Bytes>::from(body)).unwrap();
    let answer = timeout(Duration::from_secs(30), client.request(request))
        .await
        .unwrap()
        .unwrap();
    let status = answer.status();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_kind_and_policy_work() {
    // The simulated nodes' health page names them: that is their licence here.
    let dear = Node::start(Knobs::named("studio-dear", 4)).await.unwrap();
    let cheap = Node::start(Knobs::named("studio-cheap", 4)).await.unwrap();
    let other = Node::start(Knobs::named("pirate", 4)).await.unwrap();
    let gateway = start(format!(
        r#"
listen: ["127.0.0.1:0"]
admin: {{address: "127.0.0.1:0"}}
nodes:
  dear: {{url: "{}", slots: 4, price_per_hour: 2.5, gpu: {{vram: 24GiB}}}}
  cheap: {{url: "{}", slots: 4, price_per_hour: 0.5, gpu: {{vram: 12GiB}}}}
  other: {{url: "{}", slots: 4, price_per_hour: 0.1, gpu: {{vram: 48GiB}}}}
services:
  render:
    kind: {{renderer: {{licence: studio}}}}
    policy: cheapest
    health: {{interval: 50ms, interval_down: 50ms}}
    pool: [dear, cheap, other]
    routes: [/]
"#,
        dear.url(),
        cheap.url(),
        other.url()
    ))
    .await;
    let states = || {
        gateway
            .dispatch()
            .nodes()
            .iter()
            .map(|node| node.endpoints[0].state)
            .collect::<Vec<_>>()
    };
    let mut look = interval(Duration::from_millis(5));
    timeout(Duration::from_secs(30), async {
        while states().iter().filter(|state| **state == "up").count() < 2 {
            look.tick().await;
        }
    })
    .await
    .unwrap();

    let (status, text) = ask(&gateway, "/any", "").await;
    assert!(
        status == 200 && text.contains("studio-cheap"),
        "the cheapest with a licence: {text}"
    );
    let (status, text) = ask(&gateway, "/frame", "20000").await;
    assert!(
        status == 200 && text.contains("studio-dear"),
        "the scene needs the larger card: {text}"
    );
    let (status, text) = ask(&gateway, "/frame", "99999").await;
    assert!(
        status == 503 && text.starts_with("renderer: no node of service `render`"),
        "{status} {text}"
    );
    let (status, text) = ask(&gateway, "/frame", "many").await;
    assert_eq!(
        (status, text.as_str()),
        (
            StatusCode::BAD_REQUEST,
            "renderer: the body is the scene's memory in MiB"
        )
    );
    let (status, text) = ask(&gateway, "/farm", "").await;
    assert_eq!(
        (status, text.as_str()),
        (
            StatusCode::OK,
            "anonymous sees dear/http, cheap/http, other/http"
        )
    );
    let (status, _) = ask(&gateway, "/panic", "").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let (status, _) = ask(&gateway, "/any", "").await;
    assert_eq!(status, StatusCode::OK, "the gateway goes on");
    assert_eq!(other.seen().requests, 0);
}
