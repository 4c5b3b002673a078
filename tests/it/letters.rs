//! Whoever asked to be told of a job's end is told, signed, and also when everybody was away for a while.

use crate::crash::Phoenix;
use crate::jobs::stored;
use crate::scene::{Scene, nodes};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Takes one letter and says that it has it.
async fn receive(listener: &TcpListener) -> (HeaderMap, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut all = Vec::new();
    let end = loop {
        stream.read_buf(&mut all).await.unwrap();
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(&all[..end]).unwrap().lines().skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, HeaderValue::from_str(value.trim()).unwrap());
        }
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    while all.len() < end + length {
        stream.read_buf(&mut all).await.unwrap();
    }
    let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    (headers, all[end..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_outlives_its_receivers_absence_and_the_gateways_and_its_link_needs_no_key() {
    let nodes = nodes(1).await;
    let receiver: SocketAddr = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let yaml = format!(
        "webhooks: {{allow: [127.0.0.0/8], secret: \"{SECRET}\"}}\npublic_url: https://gpu.studio.example\n{}",
        stored(&[(&nodes[0], 1)], "")
    );
    let phoenix = Phoenix::rise(&yaml);
    let url = format!("http://{receiver}/done");
    let headers = [("prefer", "respond-async"), ("job-webhook", &*url)];
    let body = Bytes::from("a scene");
    let sent = phoenix
        .try_send(http::Method::POST, "/echo", &headers, body)
        .await;
    let (status, headers, _) = sent.unwrap();
    assert_eq!(status, 202);
    let place = headers["location"].strip_prefix("https://gpu.studio.example");
    phoenix.over(place.unwrap()).await;
    phoenix.die_and_rise();

    let listener = TcpListener::bind(receiver).await.unwrap();
    let (signed, body) = receive(&listener).await;
    Webhook::new(SECRET)
        .unwrap()
        .verify(&body, &signed)
        .unwrap();
    let letter: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(letter["type"], "job.succeeded");
    let link = letter["data"]["links"]["result"].as_str().unwrap();
    let link = link.strip_prefix("https://gpu.studio.example").unwrap();
    assert!(link.contains("token="), "{link}");
    // Once more, by hand: the same letter.
    let again = format!("{}/letters", place.unwrap());
    loop {
        // That it was taken has to be on record first.
        let (_, letters) = phoenix.get(&again).await;
        let letters: Value = serde_json::from_slice(&letters).unwrap();
        if letters["letters"][0]["delivered"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = phoenix
        .try_send(http::Method::POST, &again, &[], Bytes::new())
        .await;
    assert_eq!(sent.unwrap().0, 202);
    let (headers_again, body_again) = receive(&listener).await;
    assert_eq!(headers_again["webhook-id"], signed["webhook-id"]);
    assert_eq!(body_again, body);
    let (status, result) = phoenix.get(link).await;
    assert_eq!((status.as_u16(), &result[..]), (200, &b"a scene"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_keeps_nobody_elses_letters_waiting() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "webhooks: {{allow: [127.0.0.0/8]}}\n{}",
        stored(&[(&nodes[0], 1)], "")
    );
    let scene = Scene::start(&yaml).await;
    // The system takes its connections, and nobody reads.
    let tarpit = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let submit = async |to: &TcpListener| {
        let url = format!("http://{}/", to.local_addr().unwrap());
        let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
        let job = ask.with("job-webhook", &url).send().await;
        scene.over(job.header("location")).await;
    };
    submit(&tarpit).await;
    let (_held, _) = tarpit.accept().await.unwrap();
    submit(&receiver).await;
    // Well before the tarpit's time is over.
    let received = tokio::time::timeout(Duration::from_secs(8), receive(&receiver));
    received.await.expect("it comes at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_links_of_an_arrays_letter_need_no_key_and_open_nothing_else() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "webhooks: {{allow: [127.0.0.0/8]}}\naccess: {{anonymous: deny}}\ntenants: {{studio: studio-key}}\n{}",
        stored(&[(&nodes[0], 1)], "")
    );
    let scene = Scene::start(&yaml).await;
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", receiver.local_addr().unwrap());
    let wanted = serde_json::json!({"service": "any", "path": "/echo", "body": "{frame}", "frames": "1-2", "webhook": url});
    let ask = scene
        .ask("POST", "/_tabane/arrays")
        .with("x-api-key", "studio-key");
    let array = ask.body(wanted.to_string()).send().await;
    assert_eq!(array.status, 202);
    let (_, letter) = receive(&receiver).await;
    let letter: Value = serde_json::from_slice(&letter).unwrap();
    let link = |name: &str| letter["data"]["links"][name].as_str().unwrap().to_owned();
    assert_eq!(
        scene.get(&link("self")).await.json()["counts"]["succeeded"],
        2
    );
    assert_eq!(scene.get(&link("results")).await.status, 200);
    let deleted = scene.ask("DELETE", &link("self")).send().await;
    assert_eq!(deleted.status, 401);
    assert_eq!(scene.get(array.header("location")).await.status, 401);
}
