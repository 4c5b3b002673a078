//! Servers that others wrote, as they were recorded: what they need of a gateway beyond plain forwarding.

use crate::scene::{Scene, eventually};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a server answers to a request: bytes as they go over the wire.
pub(crate) type Answer = dyn Fn(&str, &str) -> Vec<u8> + Send + Sync;

/// A server whose answers are bytes.
pub(crate) struct Recorded {
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Recorded {
    /// Starts one; `answer` is given a request's head and body.
    pub(crate) async fn start(answer: Arc<Answer>) -> Recorded {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answer.clone()));
            }
        });
        Recorded {
            address,
            _serving: serving,
        }
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Answer>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        let length = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .and_then(|(_, rest)| rest.split("\r\n").next()?.parse::<usize>().ok())
            .unwrap_or(0);
        while bytes.len() < end + 4 + length {
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
        }
        let rest = bytes.split_off(end + 4 + length);
        let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
        bytes = rest;
        if stream.write_all(&answer(&head, &body)).await.is_err() {
            return;
        }
    }
}

fn json_answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: application/json\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The bytes that a recorded Gradio app sent, by the connection they were sent on.
fn gradio() -> HashMap<u64, String> {
    let mut sent: HashMap<u64, String> = HashMap::new();
    for line in include_str!("recorded/gradio.jsonl").lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["dir"] == "s2c" {
            let text = line["text"].as_str().unwrap();
            sent.entry(line["conn"].as_u64().unwrap())
                .or_default()
                .push_str(text);
        }
    }
    assert_eq!(sent.len(), 4, "the recording is whole");
    sent
}

/// A Gradio app: it knows the sessions that joined it, and no others.
async fn gradio_app(joined: Arc<AtomicU32>) -> Recorded {
    let sent = gradio();
    let sessions = parking_lot::Mutex::new(Vec::<String>::new());
    let answer = move |head: &str, body: &str| -> Vec<u8> {
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/config") {
            return sent[&1].clone().into_bytes();
        }
        if path.starts_with("/gradio_api/info") {
            return sent[&2].clone().into_bytes();
        }
        let mut sessions = sessions.lock();
        if path.starts_with("/gradio_api/queue/join") {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            sessions.push(body["session_hash"].as_str().unwrap().to_owned());
            joined.fetch_add(1, Ordering::Relaxed);
            return sent[&3].clone().into_bytes();
        }
        match path.split_once("session_hash=") {
            Some((_, session)) if sessions.iter().any(|known| known == session) => {
                sent[&4].clone().into_bytes()
            }
            // What Gradio says to a session that it does not know.
            _ => json_answer("404 Not Found", r#"{"detail":"Session not found"}"#),
        }
    };
    Recorded::start(Arc::new(answer)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gradio_session_that_joins_by_its_body_is_followed_by_its_query_on_the_same_node() {
    let counts = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
    let apps = [
        gradio_app(counts[0].clone()).await,
        gradio_app(counts[1].clone()).await,
    ];
    let scene = Scene::start(&format!(
        "nodes:\n  a: {{url: \"http://{}\", slots: 4}}\n  b: {{url: \"http://{}\", slots: 4}}\n{}",
        apps[0].address,
        apps[1].address,
        "services:\n  gradio:\n    kind: {http: {probe: /config}}\n    pool: [a, b]\n    routes: [/]\n    policy: {hash: {key: [{query: session_hash}, {json: session_hash}], strict: true}}\n"
    ))
    .await;
    assert_eq!(scene.get("/config").await.json()["version"], "6.31.0");
    assert!(
        scene.get("/gradio_api/info?serialize=False").await.json()["named_endpoints"].is_object()
    );
    for i in 0..20 {
        let body = format!(r#"{{"data":["hello"],"fn_index":1,"session_hash":"session-{i}"}}"#);
        let joined = scene.post("/gradio_api/queue/join", body).await;
        let event = joined.json()["event_id"].as_str().unwrap().to_owned();
        let followed = scene
            .get(&format!("/gradio_api/queue/data?session_hash=session-{i}"))
            .await;
        let text = std::str::from_utf8(&followed.body).unwrap();
        assert_eq!(followed.status, 200, "{text}");
        assert_eq!(followed.header("tabane-node"), joined.header("tabane-node"));
        assert!(
            text.contains(&event) && text.contains("\"close_stream\""),
            "{text}"
        );
    }
    let joined = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(joined.iter().sum::<u32>(), 20);
    assert!(joined.iter().all(|n| *n > 2), "sessions spread: {joined:?}");
}

/// A Cog server: 409 while it predicts for somebody.
async fn cog(busy: Arc<AtomicBool>, predictions: Arc<AtomicU32>) -> Recorded {
    let answer = move |head: &str, _: &str| -> Vec<u8> {
        match head {
            _ if head.starts_with("GET /health-check") => {
                let status = if busy.load(Ordering::Relaxed) {
                    "BUSY"
                } else {
                    "READY"
                };
                json_answer("200 OK", &format!("{{\"status\":\"{status}\"}}"))
            }
            _ if busy.load(Ordering::Relaxed) => json_answer(
                "409 Conflict",
                r#"{"detail":"Already running a prediction"}"#,
            ),
            _ => {
                predictions.fetch_add(1, Ordering::Relaxed);
                json_answer("200 OK", r#"{"status":"succeeded","output":"done"}"#)
            }
        }
    };
    Recorded::start(Arc::new(answer)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cog_server_that_says_409_is_passed_over_and_not_blamed() {
    let busy = [
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(false)),
    ];
    let counts = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
    let servers = [
        cog(busy[0].clone(), counts[0].clone()).await,
        cog(busy[1].clone(), counts[1].clone()).await,
    ];
    let scene = Scene::start(&format!(
        "nodes:\n  a: {{url: \"http://{}\"}}\n  b: {{url: \"http://{}\"}}\n{}",
        servers[0].address,
        servers[1].address,
        "services:\n  cog:\n    kind: {http: {probe: /health-check}}\n    pool: [a, b]\n    routes: [/]\n    policy: first\n    retry: {busy: [409]}\n"
    ))
    .await;
    // More than a budget of retries holds: that a node is busy costs nothing.
    for _ in 0..200 {
        let reply = scene.post("/predictions", r#"{"input":{}}"#).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("tabane-node")),
            (200, "b/http")
        );
    }
    assert_eq!(scene.state("a/http"), "up", "busy is not dead");
    // All are busy with something that did not come this way: the client hears what they say.
    busy[1].store(true, Ordering::Relaxed);
    let reply = scene.post("/predictions", r#"{"input":{}}"#).await;
    assert_eq!(reply.status.as_u16(), 409, "{reply:?}");
    busy[0].store(false, Ordering::Relaxed);
    let reply = scene.post("/predictions", r#"{"input":{}}"#).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("tabane-node")),
        (200, "a/http")
    );
    let made = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(made, [1, 200]);
    eventually("nothing is at work", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_file_passes_as_it_is() {
    let file = |head: &str, _: &str| -> Vec<u8> {
        if head.to_ascii_lowercase().contains("range: bytes=2-5") {
            b"HTTP/1.1 206 Partial Content\r\nServer: nginx/1.22.1\r\nContent-Length: 4\r\nContent-Range: bytes 2-5/10\r\nETag: \"65f-1\"\r\n\r\n2345".to_vec()
        } else {
            b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 10\r\nAccept-Ranges: bytes\r\nETag: \"65f-1\"\r\n\r\n0123456789".to_vec()
        }
    };
    let server = Recorded::start(Arc::new(file)).await;
    let yaml = format!(
        "services: {{files: {{pool: [\"http://{}\"], routes: [/]}}}}",
        server.address
    );
    let scene = Scene::start(&yaml).await;
    let part = http::Request::get(scene.url("/clip.mp4")).header("range", "bytes=2-5");
    let part = scene.send(part.body(Default::default()).unwrap()).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &b"2345"[..]));
    assert_eq!(
        (
            part.header("content-range"),
            part.header("etag"),
            part.header("server")
        ),
        ("bytes 2-5/10", "\"65f-1\"", "nginx/1.22.1")
    );
    let whole = scene.get("/clip.mp4").await;
    assert_eq!(
        (whole.status.as_u16(), whole.header("accept-ranges")),
        (200, "bytes")
    );
}
