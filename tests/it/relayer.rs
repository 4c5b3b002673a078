//! A kind whose requests are relayed as they say themselves, and nodes that answer as a test says.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{
    Ask, Choice, Edit, EndpointId, EndpointView, Host, Intent, KeepAlive, Kind, Need, NoConfig,
    NodeClient, Own, ProbeError, Refusal, Seen, Service, Usage, Vitals,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

// === the kind ===

/// The kind `relayer`: a request's body says how it is to be served.
#[derive(Default)]
pub(crate) struct Relayer {
    ids: Arc<Mutex<HashMap<String, EndpointId>>>,
    told: Arc<Mutex<Vec<String>>>,
}

/// A request's body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    ways: Vec<Way>,
    /// Something is said in its answer so often, ms.
    speaks_ms: Option<u64>,
    /// It is over its limit.
    limited: bool,
}

/// A way to serve it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Way {
    /// Only there.
    at: Option<String>,
    /// Put in place of `ORIGINAL` in the body.
    with: Option<String>,
    /// Sent as `x-key`.
    key: Option<String>,
    max_wait_ms: Option<u64>,
}

struct State {
    said: Said,
    at: Option<EndpointId>,
}

impl Kind for Relayer {
    const NAME: &'static str = "relayer";
    const REPEATS: bool = true;
    type Config = NoConfig;

    fn new(_config: NoConfig, prior: Option<Arc<Self>>) -> Result<Self, String> {
        Ok(prior.map_or_else(Relayer::default, |prior| Relayer {
            ids: prior.ids.clone(),
            told: prior.told.clone(),
        }))
    }
}

fn state(need: &Need) -> &State {
    need.own.get().unwrap()
}

#[async_trait]
impl Service for Relayer {
    fn classify(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal> {
        if ask.path == "/plain" {
            return Ok(Intent::Forward(Need::of_class("plain")));
        }
        if ask.path == "/told" {
            let told = self.told.lock().join(",");
            return Err(Refusal::NoSuch(told));
        }
        let Some(body) = body else {
            return Ok(Intent::NeedBody { max: 1 << 20 });
        };
        let said: Said = serde_json::from_slice(body).unwrap_or_default();
        let original = memchr::memmem::find(body, b"ORIGINAL");
        let choices = said.ways.iter().map(|way| {
            let at = way.at.as_ref();
            let state = State {
                said: said.clone(),
                at: at.map(|at| self.ids.lock()[&format!("{at}/http")]),
            };
            let edits = original.zip(way.with.clone()).map(|(at, with)| Edit {
                range: at..at + 8,
                with: with.into(),
            });
            let mut headers = HeaderMap::new();
            if let Some(key) = &way.key {
                headers.insert("x-key", key.parse().unwrap());
            }
            Choice {
                need: Need {
                    own: Own::new(Arc::new(state)),
                    ..Need::of_class("work")
                },
                edits: edits.into_iter().collect(),
                headers,
                max_wait: way.max_wait_ms.map(Duration::from_millis),
            }
        });
        Ok(Intent::Relay(choices.collect()))
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        node.send(Request::get("/health").body(Bytes::new())?)
            .await?;
        Ok(Vitals::default())
    }

    async fn attend(&self, at: EndpointView, _node: Arc<dyn NodeClient>, _host: &Arc<dyn Host>) {
        self.ids.lock().insert(at.name.to_string(), at.id);
        std::future::pending().await
    }

    fn lacks(&self, need: &Need, at: EndpointId) -> Option<String> {
        let only = need.own.get::<State>()?.at?;
        (only != at).then(|| "is another".into())
    }

    fn admit(&self, need: &Need, _now: Instant) -> Result<(), Refusal> {
        match state(need).said.limited {
            true => Err(Refusal::Limited {
                what: "enough for today".into(),
                retry_after: Duration::from_secs(7),
            }),
            false => Ok(()),
        }
    }

    fn granted(&self, _need: &Need, _at: EndpointId, _now: Instant) {
        self.told.lock().push("granted".into());
    }

    fn released(&self, _need: &Need, _at: EndpointId, _now: Instant) {
        self.told.lock().push("released".into());
    }

    fn observe(&self, _need: &Need, seen: Seen<'_>, notes: &mut Extensions) {
        if matches!(seen, Seen::End | Seen::Broken) {
            notes.insert(Usage {
                model: "m".into(),
                read: 7,
                made: 3,
                first: Some(Duration::from_millis(5)),
                ..Usage::default()
            });
        }
        let word = match seen {
            Seen::Head(status, _) => status.as_u16().to_string(),
            Seen::Bytes(_) => return,
            Seen::End => "end".into(),
            Seen::Broken => "broken".into(),
        };
        self.told.lock().push(word);
    }

    fn keep_alive(&self, need: &Need, _notes: &Extensions) -> Option<KeepAlive> {
        let every = need.own.get::<State>()?.said.speaks_ms?;
        Some(KeepAlive {
            every: Duration::from_millis(every),
            content_type: "text/event-stream",
            says: Bytes::from_static(b": wait\n\n"),
        })
    }

    fn broken(&self, need: &Need, why: &Refusal, _notes: &Extensions) -> Option<Bytes> {
        need.own.get::<State>()?.said.speaks_ms?;
        Some(format!("data: broken: {why}\n\n").into())
    }

    fn falls_back(&self, _need: &Need, status: StatusCode, body: &[u8]) -> bool {
        status == 400 && body.starts_with(b"too long")
    }
}

// === nodes ===

/// What a node does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// These bytes.
    Say(Bytes),
    /// Nothing for so long, ms.
    Wait(u64),
    /// It closes.
    Close,
    /// Nothing more, until its client closes.
    Hang,
}

/// What a node was sent: head and body.
pub(crate) type Asked = (String, Bytes);

/// A node that answers as a test says.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    left: Arc<Mutex<usize>>,
}

impl Scripted {
    /// `acts`: by the body, and how many requests came before.
    pub(crate) async fn start(
        acts: impl Fn(usize, &[u8]) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, left) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::default());
        let acts = Arc::new(acts);
        tokio::spawn({
            let (asked, left) = (asked.clone(), Arc::clone(&left));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (asked, left, acts) = (asked.clone(), Arc::clone(&left), acts.clone());
                    tokio::spawn(async move {
                        let _ = serve(stream, &asked, &left, &*acts).await;
                    });
                }
            }
        });
        Scripted {
            address,
            asked,
            left,
        }
    }

    /// What it was sent, but for probes.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// How often a client closed while it was at work.
    pub(crate) fn left(&self) -> usize {
        *self.left.lock()
    }
}

async fn serve(
    mut stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    left: &Mutex<usize>,
    acts: &(dyn Fn(usize, &[u8]) -> Vec<Act> + Send + Sync),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length: usize = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = Bytes::copy_from_slice(&buffer[end..end + length]);
        buffer.drain(..end + length);
        if head.starts_with("GET /health") {
            stream.write_all(&ok("well")).await?;
            continue;
        }
        let number = {
            let mut all = asked.lock();
            all.push((head, body.clone()));
            all.len() - 1
        };
        for act in acts(number, &body) {
            match act {
                Act::Say(bytes) => stream.write_all(&bytes).await?,
                Act::Close => return Ok(()),
                Act::Wait(ms) => {
                    tokio::select! {
                        () = sleep(Duration::from_millis(ms)) => {}
                        _ = stream.read_buf(&mut buffer) => {
                            *left.lock() += 1;
                            return Ok(());
                        }
                    }
                }
                Act::Hang => {
                    let _ = stream.read_buf(&mut buffer).await;
                    *left.lock() += 1;
                    return Ok(());
                }
            }
        }
    }
}

/// A whole answer.
pub(crate) fn ok(body: &str) -> Bytes {
    answer(200, body)
}

/// The same with another status.
pub(crate) fn answer(status: u16, body: &str) -> Bytes {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nX-Odd: a  b\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

/// The head of a stream.
pub(crate) fn stream_head() -> Act {
    Act::Say(Bytes::from_static(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    ))
}

/// A piece of a stream.
pub(crate) fn chunk(text: &str) -> Act {
    Act::Say(format!("{:x}\r\n{text}\r\n", text.len()).into())
}

/// Its end.
pub(crate) fn last_chunk() -> Act {
    Act::Say(Bytes::from_static(b"0\r\n\r\n"))
}

/// Where a test's pieces come out as they come in.
pub(crate) fn pieces(mut body: hyper::body::Incoming) -> mpsc::UnboundedReceiver<Bytes> {
    let (give, take) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        use http_body_util::BodyExt;
        let gives = async {
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    let _ = give.send(data);
                }
            }
        };
        tokio::select! {
            () = gives => {}
            () = give.closed() => {}
        }
    });
    take
}
