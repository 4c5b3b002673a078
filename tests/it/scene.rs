//! What every scene needs: a gateway on free ports, a file it was read from, a client.

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tabane::config::{Applied, Problem};
use tabane::reload::Trigger;
use tabane::{App, Gateway, Source};
use tabane_sim::{Knobs, Node};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longer than anything here takes on a slow machine: only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

/// A gateway with its file.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) file: PathBuf,
    /// Removed when the scene ends.
    pub(crate) dir: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The simulated node that answered.
    pub(crate) fn node(&self) -> String {
        self.json()["node"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

// === impl Scene ===

impl Scene {
    /// Starts a gateway from a file that says `yaml`, on free ports. Every endpoint of the file is up when this returns.
    pub(crate) async fn start(yaml: &str) -> Scene {
        let scene = Scene::start_unproven(app(), yaml).await;
        scene.until_up().await;
        scene
    }

    /// The same, without waiting for first probes, and with an app of one's own.
    pub(crate) async fn start_unproven(app: App, yaml: &str) -> Scene {
        let started = Scene::try_start(app, yaml).await;
        started.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The same. Errors: the gateway does not start.
    pub(crate) async fn try_start(app: App, yaml: &str) -> anyhow::Result<Scene> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tabane.yaml");
        std::fs::write(&file, on_free_ports(yaml)).unwrap();
        let source = Source::File(file.clone());
        let loaded = app
            .load(&source)
            .unwrap_or_else(|problems| panic!("{}", shown(&problems)));
        let gateway = app.start(source, loaded).await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Scene {
            gateway,
            client,
            file,
            dir,
        })
    }

    /// Puts another text in place of the file, by renaming over it, and reloads.
    pub(crate) async fn reload(&self, yaml: &str) -> Result<Applied, Vec<Problem>> {
        self.replace(&on_free_ports(yaml));
        self.gateway.reload(Trigger::Operator).await
    }

    /// Puts another text in place of the file, by renaming over it.
    pub(crate) fn replace(&self, text: &str) {
        let beside = self.dir.path().join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }

    /// The first listener's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.addresses()[0]
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(self.url(path)).body(Full::default()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(
            Request::post(self.url(path))
                .body(Full::new(body.into()))
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str) -> Reply {
        let url = format!("http://{}{path}", self.gateway.admin().unwrap());
        self.send(
            Request::builder()
                .method(method)
                .uri(url)
                .body(Full::default())
                .unwrap(),
        )
        .await
    }

    /// One number of `/metrics`: the sum over the series whose line begins like this.
    pub(crate) async fn metric(&self, beginning: &str) -> f64 {
        let text = self.admin(Method::GET, "/metrics").await.body;
        let lines = std::str::from_utf8(&text)
            .unwrap()
            .lines()
            .filter(|line| line.starts_with(beginning));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until a number of `/metrics` has this value.
    pub(crate) async fn until_metric(&self, beginning: &str, value: f64) {
        let mut look = interval(Duration::from_millis(5));
        let waited = timeout(LONG, async {
            while self.metric(beginning).await != value {
                look.tick().await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{beginning} never came to be {value}"));
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends a request and reads the answer; an error says how it failed.
    pub(crate) async fn try_send(&self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = timeout(LONG, async {
            let (head, body) = self
                .client
                .request(request)
                .await
                .map_err(|error| format!("{error:?}"))?
                .into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| format!("body: {error:?}"))?
                .to_bytes();
            Ok(Reply {
                status: head.status,
                headers: head.headers,
                body,
            })
        });
        answer
            .await
            .unwrap_or_else(|_| Err("no answer for a minute".into()))
            .map_err(|error: String| format!("{what}: {error}"))
    }

    /// Sends a request and gives the answer's body as it comes.
    pub(crate) async fn stream(&self, path: &str) -> Incoming {
        let request = Request::get(self.url(path)).body(Full::default()).unwrap();
        timeout(LONG, self.client.request(request))
            .await
            .unwrap()
            .unwrap()
            .into_body()
    }

    /// A connection of one's own to the first listener, for bytes that no client library would send.
    pub(crate) async fn connect(&self) -> TcpStream {
        let stream = timeout(LONG, TcpStream::connect(self.address())).await;
        let stream = stream.unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends bytes as they are on a connection of their own, and gives all that comes back until it is closed.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The gateway may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        until_closed(&mut stream).await
    }

    /// The state of an endpoint, in a word; `gone` when nobody knows it.
    pub(crate) fn state(&self, endpoint: &str) -> &'static str {
        let nodes = self.gateway.dispatch().nodes();
        let mut endpoints = nodes.iter().flat_map(|node| &node.endpoints);
        endpoints
            .find(|e| e.name == endpoint)
            .map_or("gone", |e| e.state)
    }

    pub(crate) async fn until_state(&self, endpoint: &str, state: &str) {
        eventually(&format!("{endpoint} is {state}"), || {
            self.state(endpoint) == state
        })
        .await;
    }

    pub(crate) async fn until_up(&self) {
        let dispatch = self.gateway.dispatch();
        let all_up = || {
            dispatch
                .nodes()
                .iter()
                .flat_map(|node| &node.endpoints)
                .all(|endpoint| endpoint.state == "up")
        };
        eventually("every endpoint is up", all_up).await;
    }
}

/// Sends a head as it is and reads one answer's head, or what comes until the end.
pub(crate) async fn exchange(stream: &mut TcpStream, head: &str) -> String {
    let mut answer = Vec::new();
    let read = async {
        stream.write_all(head.as_bytes()).await.unwrap();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                break;
            }
        }
    };
    timeout(LONG, read).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// All that comes until the connection is closed, or broken.
pub(crate) async fn until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut all)).await;
    let (Ok(_) | Err(_)) = read.expect("it is closed within a minute");
    String::from_utf8_lossy(&all).into_owned()
}

/// The gateway as it ships.
pub(crate) fn app() -> App {
    tabane::app().with(tabane_standard::registry())
}

/// Simulated nodes of one slot each, named a, b, ….
pub(crate) async fn nodes(n: usize) -> Vec<Node> {
    let started = ('a'..)
        .take(n)
        .map(|name| Node::start(Knobs::named(&name.to_string(), 1)));
    join_all(started)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

/// A service `any` on these nodes, each `(node, slots)`, probed every 50 ms; `more` is appended to the service.
pub(crate) fn any(nodes: &[(&Node, u32)], more: &str) -> String {
    let mut yaml = String::from("nodes:\n");
    for (i, (node, slots)) in nodes.iter().enumerate() {
        let name = char::from(b'a' + i as u8);
        let _ = writeln!(
            yaml,
            "  {name}: {{url: \"{}\", slots: {slots}}}",
            node.url()
        );
    }
    yaml.push_str("services:\n  any:\n    kind: {http: {probe: /health}}\n");
    yaml.push_str(
        "    health: {interval: 50ms, interval_down: 50ms, timeout: 300ms, rise: 1, fall: 2}\n",
    );
    let names: Vec<String> = (0..nodes.len())
        .map(|i| char::from(b'a' + i as u8).to_string())
        .collect();
    let _ = writeln!(yaml, "    pool: [{}]\n    routes: [/]", names.join(", "));
    for line in more.lines() {
        let _ = writeln!(yaml, "    {line}");
    }
    yaml
}

/// Free ports for whoever says nothing about ports.
pub(crate) fn on_free_ports(yaml: &str) -> String {
    let mut text = String::new();
    if !yaml.contains("listen:") {
        text.push_str("listen: [\"127.0.0.1:0\"]\n");
    }
    if !yaml.contains("admin:") {
        text.push_str("admin: {address: \"127.0.0.1:0\"}\n");
    }
    text + yaml
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let mut look = interval(Duration::from_millis(2));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waited = timeout(LONG, async {
        while !so() {
            look.tick().await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("it never came to be that {what}"));
}

pub(crate) fn shown(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
