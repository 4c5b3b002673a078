//! Requests that are relayed: changed where their kind says so and nowhere else, by way of the next choice where one cannot be
//! served, with a word while nodes are silent, and with one where an answer breaks off.

use crate::relayer::{Act, Relayer, Scripted, answer, chunk, last_chunk, ok, pieces, stream_head};
use crate::scene::{Scene, app, eventually};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

fn yaml(nodes: &[&Scripted], more: &str) -> String {
    let mut yaml = String::from("nodes:\n");
    let mut names = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let name = char::from(b'a' + i as u8);
        let _ = writeln!(
            yaml,
            "  {name}: {{endpoints: {{http: {{url: \"http://{}\", slots: 1}}}}}}",
            node.address
        );
        names.push(format!("{name}/http"));
    }
    let _ = writeln!(
        yaml,
        "services:\n  any:\n    kind: {{relayer: {{}}}}\n    pool: [{}]\n    routes: [/]",
        names.join(", ")
    );
    yaml.push_str(
        "    health: {interval: 50ms, interval_down: 50ms, timeout: 1s, rise: 1, fall: 2, eject_after: 100}\n",
    );
    yaml.push_str(more);
    yaml
}

async fn start(nodes: &[&Scripted], more: &str) -> Scene {
    let scene = Scene::start_unproven(app().kind::<Relayer>(), &yaml(nodes, more)).await;
    scene.until_up().await;
    scene
}

fn body(said: &Value) -> Bytes {
    // A field that no writer of JSON would write so, and what is to be changed.
    let text = said.to_string();
    format!(
        "{},  \"n\": 1e400, \"it\": \"ORIGINAL\" }}",
        &text[..text.len() - 1]
    )
    .into()
}

async fn told(scene: &Scene) -> String {
    scene.get("/told").await.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_out_byte_for_byte_and_its_answer_comes_back_so() {
    let node = Scripted::start(|_, _| vec![Act::Say(ok("hello\r\n\0"))]).await;
    let scene = start(&[&node], "").await;
    let sent = body(&json!({"ways": [{}]}));
    for _ in 0..3 {
        let reply = scene.post("/v1/x?y=%2f", sent.clone()).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body[..]),
            (200, &b"hello\r\n\0"[..])
        );
        assert_eq!(reply.header("x-odd"), "a  b");
        assert_eq!(reply.header("tabane-node"), "a/http");
    }
    let asked = node.asked();
    assert_eq!(asked.len(), 3);
    for (head, got) in asked {
        assert!(head.starts_with("POST /v1/x?y=%2f HTTP/1.1\r\n"), "{head}");
        assert_eq!(got, sent);
    }
    eventually("all is told", || true).await;
    assert_eq!(
        told(&scene).await,
        ["granted,200,end,released"; 3].join(",")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_is_changed_in_place_and_a_key_goes_to_its_node_alone() {
    let node = Scripted::start(|_, _| vec![Act::Say(ok("x"))]).await;
    let scene = start(&[&node], "").await;
    let sent = body(&json!({"ways": [{"with": "another one", "key": "secret"}]}));
    let request = Request::post(scene.url("/x"))
        .header("x-key", "the client's")
        .body(Full::new(sent.clone()))
        .unwrap();
    let reply = scene.send(request).await;
    assert_eq!(reply.status, 200);
    let (head, got) = node.asked().remove(0);
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("x-key: secret\r\n") && !head.contains("client's"),
        "{head}"
    );
    let wants = String::from_utf8_lossy(&sent).replace("ORIGINAL", "another one");
    assert_eq!(got, wants);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_choice_is_tried_until_an_answer_has_begun() {
    let bad = Scripted::start(|_, body| {
        vec![match () {
            () if body.ends_with(b"\"closes\" }") => Act::Close,
            () if body.ends_with(b"\"refuses\" }") => Act::Say(answer(400, "too long, by far")),
            () if body.ends_with(b"\"is busy\" }") => Act::Say(answer(503, "busy")),
            () => Act::Say(answer(400, "no")),
        }]
    })
    .await;
    let good = Scripted::start(|_, _| vec![Act::Say(ok("well"))]).await;
    let scene = start(&[&bad, &good], "    retry: {attempts: 1}\n").await;
    for first in ["closes", "refuses", "is busy"] {
        let ways = json!({"ways": [{"at": "a", "with": first}, {"at": "b", "with": "second"}]});
        let reply = scene.post("/x", body(&ways)).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body[..]),
            (200, &b"well"[..]),
            "{first}"
        );
        let (_, got) = good.asked().pop().unwrap();
        assert!(got.ends_with(b"\"second\" }"), "{got:?}");
    }
    // An error that no other way would mend is the answer, whole.
    let ways = json!({"ways": [{"at": "a"}, {"at": "b"}]});
    let reply = scene.post("/x", body(&ways)).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (400, &b"no"[..]));
    // And so is the last one's.
    let ways = json!({"ways": [{"at": "a", "with": "refuses"}]});
    let reply = scene.post("/x", body(&ways)).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..]),
        (400, &b"too long, by far"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_has_no_room_in_its_time_is_passed_over() {
    let full = Scripted::start(|_, _| vec![Act::Hang]).await;
    let free = Scripted::start(|_, _| vec![Act::Say(ok("well"))]).await;
    let scene = start(&[&full, &free], "").await;
    let first = tokio::spawn(
        scene.client.request(
            Request::post(scene.url("/x"))
                .body(Full::new(body(&json!({"ways": [{"at": "a"}]}))))
                .unwrap(),
        ),
    );
    eventually("the slot is taken", || full.asked().len() == 1).await;
    let ways = json!({"ways": [{"at": "a", "max_wait_ms": 50}, {"at": "b"}]});
    let reply = scene.post("/x", body(&ways)).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..]),
        (200, &b"well"[..])
    );
    assert_eq!(full.asked().len(), 1);
    first.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn something_is_said_while_it_waits_and_before_its_node_says_anything() {
    let node = Scripted::start(|n, _| match n {
        0 => vec![Act::Hang],
        _ => vec![
            Act::Wait(300),
            stream_head(),
            Act::Wait(300),
            chunk("data: 1\n\n"),
            Act::Wait(300),
            last_chunk(),
        ],
    })
    .await;
    let scene = start(&[&node], "").await;
    let holds = tokio::spawn(
        scene.client.request(
            Request::post(scene.url("/x"))
                .body(Full::new(body(&json!({"ways": [{}]}))))
                .unwrap(),
        ),
    );
    eventually("the slot is taken", || node.asked().len() == 1).await;
    let request = Request::post(scene.url("/x"))
        .body(Full::new(body(&json!({"ways": [{}], "speaks_ms": 100}))))
        .unwrap();
    let reply = timeout(LONG, scene.client.request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "text/event-stream");
    let mut pieces = pieces(reply.into_body());
    // It waits for a slot.
    for _ in 0..2 {
        assert_eq!(pieces.recv().await.unwrap(), ": wait\n\n");
    }
    holds.abort();
    let mut all = String::new();
    while let Some(piece) = pieces.recv().await {
        all.push_str(&String::from_utf8_lossy(&piece));
    }
    let (before, after) = all.split_once("data: 1\n\n").unwrap();
    assert!(before.matches(": wait\n\n").count() >= 3, "{all:?}");
    assert!(after.matches(": wait\n\n").count() >= 1, "{all:?}");
    assert_eq!(all.replace(": wait\n\n", ""), "data: 1\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_ends_with_a_word_and_one_that_has_none_is_cut() {
    let node = Scripted::start(|_, _| vec![stream_head(), chunk("data: 1\n\n"), Act::Close]).await;
    let scene = start(&[&node], "").await;
    let reply = scene
        .post("/x", body(&json!({"ways": [{}], "speaks_ms": 60_000})))
        .await;
    let text = String::from_utf8_lossy(&reply.body);
    let (first, word) = text.split_once("data: broken: ").unwrap();
    assert_eq!(first, "data: 1\n\n");
    assert!(word.contains("`a/http` broke off"), "{word}");
    let request = Request::post(scene.url("/x"))
        .body(Full::new(body(&json!({"ways": [{}]}))))
        .unwrap();
    let cut = scene.try_send(request).await.unwrap_err();
    assert!(cut.contains("body"), "{cut}");
    let all = told(&scene).await;
    assert_eq!(all, ["granted,200,broken,released"; 2].join(","));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_words_of_ours_is_told_in_the_stream() {
    let node =
        Scripted::start(|_, _| vec![Act::Wait(300), Act::Say(answer(500, "out of luck"))]).await;
    let scene = start(&[&node], "").await;
    let reply = scene
        .post("/x", body(&json!({"ways": [{}], "speaks_ms": 50})))
        .await;
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, 200);
    assert!(text.starts_with(": wait\n\n"), "{text}");
    assert!(
        text.contains("data: broken: ") && text.contains("out of luck"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_closes_its_node_in_every_phase() {
    let node = Scripted::start(|n, _| match n {
        0 => vec![Act::Hang],
        _ => vec![stream_head(), chunk("data: 1\n\n"), Act::Hang],
    })
    .await;
    let scene = start(&[&node], "    cool_down: 10ms\n").await;
    let request = || {
        Request::post(scene.url("/x"))
            .body(Full::new(body(&json!({"ways": [{}], "speaks_ms": 60_000}))))
            .unwrap()
    };
    // Before the first byte; and one who waits behind it.
    let first = tokio::spawn(scene.client.request(request()));
    eventually("the slot is taken", || node.asked().len() == 1).await;
    let waits = tokio::spawn(scene.client.request(request()));
    scene.until_metric("tabane_waiting", 1.0).await;
    waits.abort();
    scene.until_metric("tabane_waiting", 0.0).await;
    first.abort();
    eventually("its node is left", || node.left() == 1).await;
    // In the middle of it.
    let reply = timeout(LONG, scene.client.request(request()))
        .await
        .unwrap()
        .unwrap();
    let mut pieces = pieces(reply.into_body());
    assert_eq!(pieces.recv().await.unwrap(), "data: 1\n\n");
    drop(pieces);
    eventually("its node is left", || node.left() == 2).await;
    eventually("its kind hears of it", || true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_may_not_have_it_now_hears_when() {
    let node = Scripted::start(|_, _| vec![Act::Say(ok("x"))]).await;
    let scene = start(&[&node], "").await;
    let reply = scene
        .post("/x", body(&json!({"ways": [{}], "limited": true})))
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("retry-after")),
        (429, "7")
    );
    assert_eq!(reply.json()["error"]["code"], "limited");
    assert!(node.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_free_when_its_node_is_done_however_slowly_its_client_reads() {
    let node = Scripted::start(|n, _| match n {
        0 => {
            let mut acts = vec![stream_head()];
            acts.extend((0..20).map(|_| chunk(&"x".repeat(10_000))));
            acts.push(last_chunk());
            acts
        }
        _ => vec![Act::Say(ok("next"))],
    })
    .await;
    let scene = start(&[&node], "").await;
    let request = Request::post(scene.url("/x"))
        .body(Full::new(body(&json!({"ways": [{}]}))))
        .unwrap();
    let unread = timeout(LONG, scene.client.request(request))
        .await
        .unwrap()
        .unwrap();
    let reply = scene.post("/x", body(&json!({"ways": [{}]}))).await;
    assert_eq!(&reply.body[..], b"next");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_breaks_off_before_its_first_byte_is_replaced_by_another() {
    let broken = Scripted::start(|_, _| vec![Act::Wait(50), Act::Close]).await;
    let good = Scripted::start(|_, _| vec![Act::Wait(50), Act::Say(ok("well"))]).await;
    let scene = start(&[&broken, &good], "").await;
    let asks = (0..8).map(|_| scene.post("/x", body(&json!({"ways": [{}]}))));
    for reply in futures::future::join_all(asks).await {
        assert_eq!(
            (reply.status.as_u16(), &reply.body[..]),
            (200, &b"well"[..])
        );
    }
    assert!(!broken.asked().is_empty());
    assert_eq!(good.asked().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_its_node_closed_meanwhile_costs_no_attempt() {
    let node = Scripted::start(|_, _| vec![Act::Say(ok("x")), Act::Close]).await;
    let scene = start(&[&node], "    retry: off\n").await;
    for _ in 0..20 {
        let reply = scene.post("/x", body(&json!({"ways": [{}]}))).await;
        assert_eq!(reply.status, 200);
    }
    assert_eq!(scene.metric("tabane_retries_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http2_gets_a_stream_with_words_in_it() {
    let node = Scripted::start(|_, _| {
        vec![
            Act::Wait(300),
            stream_head(),
            chunk("data: 1\n\n"),
            last_chunk(),
        ]
    })
    .await;
    let scene = start(&[&node], "").await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    for speaks in [json!(50), json!(null)] {
        let request = Request::post(scene.url("/x"))
            .body(Full::new(body(&json!({"ways": [{}], "speaks_ms": speaks}))))
            .unwrap();
        let reply = timeout(LONG, client.request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply.version(), http::Version::HTTP_2);
        let mut pieces = pieces(reply.into_body());
        let mut all = String::new();
        while let Some(piece) = timeout(LONG, pieces.recv()).await.unwrap() {
            all.push_str(&String::from_utf8_lossy(&piece));
        }
        assert_eq!(all.contains(": wait\n\n"), speaks.is_number(), "{all}");
        assert_eq!(all.replace(": wait\n\n", ""), "data: 1\n\n");
    }
    let (head, _) = node.asked().remove(0);
    let host = format!("host: {}", scene.address());
    assert!(head.to_ascii_lowercase().contains(&host), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_used_is_told_by_whoever_asks() {
    let node = Scripted::start(|n, _| match n {
        0 => vec![Act::Say(ok("x"))],
        _ => vec![stream_head(), chunk("data: 1\n\n"), Act::Close],
    })
    .await;
    let scene = start(&[&node], "").await;
    for _ in 0..2 {
        let request = Request::post(scene.url("/x"))
            .body(Full::new(body(&json!({"ways": [{}]}))))
            .unwrap();
        let _ = scene.try_send(request).await;
    }
    let told = scene.admin(http::Method::GET, "/api/v1/usage").await.json();
    let rows = told["usage"].as_array().unwrap();
    let [row] = rows.as_slice() else {
        panic!("{told}")
    };
    assert_eq!(
        (&row["service"], &row["tenant"], &row["model"], &row["node"]),
        (&json!("any"), &json!("anonymous"), &json!("m"), &json!("a"))
    );
    assert_eq!(
        (&row["requests"], &row["read"], &row["made"]),
        (&json!(2), &json!(14), &json!(6))
    );
    assert_eq!(scene.metric("tabane_tokens_total").await, 20.0);
    let none = "/api/v1/usage?from=2020-01-01&to=2020-12-31";
    let told = scene.admin(http::Method::GET, none).await.json();
    assert_eq!(told["usage"], json!([]));
    let wrong = scene
        .admin(http::Method::GET, "/api/v1/usage?from=monday")
        .await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_another_form_than_was_announced_is_told_as_an_error() {
    let node = Scripted::start(|_, _| vec![Act::Wait(300), Act::Say(ok("not a stream"))]).await;
    let scene = start(&[&node], "").await;
    let said = json!({"ways": [{}], "speaks_ms": 50});
    let reply = scene.post("/x", body(&said)).await;
    let text = String::from_utf8_lossy(&reply.body);
    assert!(
        text.starts_with(": wait\n\n") && text.contains("data: broken: "),
        "{text}"
    );
    assert!(!text.contains("not a stream"), "{text}");
}
