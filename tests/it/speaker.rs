//! A kind that speaks on sockets, answers by itself, sends to one endpoint only, and attends endpoints; and says what it saw.

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{Request, Response};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tabane_api::{
    Ask, Body, Caller, Content, EndpointId, EndpointView, Host, Intent, Kind, Message, Need,
    NodeClient, NodeError, ProbeError, Refusal, Service, Socket, Vitals,
};

/// The kind `speaker`.
pub(crate) struct Speaker {
    settings: Settings,
    seen: Arc<Mutex<Seen>>,
}

/// Its block.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// How it attends an endpoint.
    attends: Attends,
    /// Means nothing; another one makes another kind.
    tag: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Attends {
    #[default]
    Steadily,
    Briefly,
    Panicking,
}

/// What it saw, over all kinds that a reload made of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Sockets that it speaks on.
    pub(crate) open: u32,
    /// How its sockets ended, as it heard.
    pub(crate) ends: Vec<String>,
    /// Messages that it sent.
    pub(crate) sent: u64,
    /// How often it began to attend an endpoint, by the endpoint's name, and how many do now.
    pub(crate) attended: BTreeMap<String, (u32, u32)>,
    #[serde(skip)]
    ids: BTreeMap<String, EndpointId>,
}

/// It does something for as long as this is there.
struct During<F: FnMut(&mut Seen, i32)>(Arc<Mutex<Seen>>, F);

impl<F: FnMut(&mut Seen, i32)> During<F> {
    fn new(seen: &Arc<Mutex<Seen>>, mut count: F) -> Self {
        count(&mut seen.lock(), 1);
        During(seen.clone(), count)
    }
}

impl<F: FnMut(&mut Seen, i32)> Drop for During<F> {
    fn drop(&mut self) {
        (self.1)(&mut self.0.lock(), -1);
    }
}

impl Kind for Speaker {
    const NAME: &'static str = "speaker";
    type Config = Settings;

    fn new(settings: Settings, prior: Option<Arc<Self>>) -> Result<Self, String> {
        let seen = prior.map(|prior| prior.seen.clone()).unwrap_or_default();
        Ok(Speaker { settings, seen })
    }
}

#[async_trait]
impl Service for Speaker {
    fn classify(&self, ask: &Ask<'_>, _body: Option<&Bytes>) -> Result<Intent, Refusal> {
        let path = ask.path;
        if path.starts_with("/own") {
            return Ok(Intent::Own { max: 64 << 20 });
        }
        if let Some(name) = path.strip_prefix("/at/") {
            let ids = &self.seen.lock().ids;
            let id = ids.get(&format!("{name}/http")).copied();
            return id
                .map(Intent::Pinned)
                .ok_or_else(|| Refusal::NotFound(path.to_owned()));
        }
        match path {
            "/work" => Ok(Intent::Forward(Need::of_class("work"))),
            _ => Ok(Intent::Socket),
        }
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        let asked = Request::get("/health").body(Bytes::new())?;
        match node.send(asked).await?.status() {
            status if status.is_success() => Ok(Vitals::default()),
            status => Err(ProbeError::Unhealthy(status.to_string())),
        }
    }

    async fn answer(
        &self,
        request: Request<Content>,
        _caller: &Caller,
        _host: &Arc<dyn Host>,
    ) -> Result<Response<Body>, Refusal> {
        let (head, content) = request.into_parts();
        Ok(Response::new(match head.uri.path() {
            "/own/seen" => {
                let seen = serde_json::to_vec(&*self.seen.lock()).unwrap();
                Body::from(seen)
            }
            "/own/tail" => Body::Part {
                from: content.length() - 1000,
                length: 1000,
                content,
            },
            "/own/live" => {
                let pieces = stream::unfold((content, 0), |(content, at)| async move {
                    let piece = content.read(at, 100_000).await;
                    let piece = piece.map_err(|error| NodeError::Broken(error.to_string()));
                    let read = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                    (read > 0).then_some((piece, (content, at + read)))
                });
                Body::Live(pieces.boxed())
            }
            "/own/broken" => {
                let pieces = [
                    Ok(Bytes::from_static(b"some")),
                    Err(NodeError::Broken("as the test wants it".into())),
                ];
                Body::Live(stream::iter(pieces).boxed())
            }
            _ => Body::whole(content),
        }))
    }

    async fn socket(
        &self,
        request: Request<()>,
        caller: &Caller,
        mut socket: Box<dyn Socket>,
        host: &Arc<dyn Host>,
    ) {
        let _open = During::new(&self.seen, |seen, by| {
            seen.open = seen.open.wrapping_add_signed(by);
        });
        let query: BTreeMap<_, _> = request
            .uri()
            .query()
            .iter()
            .flat_map(|query| query.split('&'))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let number = |name: &str| query.get(name).and_then(|n| n.parse::<usize>().ok());
        let ended = match request.uri().path() {
            "/flood" => self.flood(&mut *socket, number("n"), number("size")).await,
            "/panic" => {
                let _ = socket.receive().await;
                panic!("as the test wants it");
            }
            "/bye" => {
                let _ = socket.receive().await;
                socket.close(4000, "bye").await;
                Ok(())
            }
            "/leave" => Ok(()),
            "/who" => {
                let who = format!("{} {}", caller.tenant, request.uri());
                socket.send(Message::Text(who)).await
            }
            // Whoever has the seat has the socket; but the request is over when this returns.
            "/forget" => {
                tokio::spawn(async move {
                    let _seat = socket;
                    std::future::pending::<()>().await;
                });
                return;
            }
            "/deaf" => std::future::pending().await,
            "/bridge" => bridge(&mut *socket, host, query.get("to")).await,
            _ => echo(&mut *socket).await,
        };
        let how = ended.map_or_else(|error| error.to_string(), |()| "closed".into());
        self.seen.lock().ends.push(how);
    }

    async fn attend(&self, at: EndpointView, node: Arc<dyn NodeClient>, _host: &Arc<dyn Host>) {
        assert_eq!(node.name(), &*at.name);
        self.seen.lock().ids.insert(at.name.to_string(), at.id);
        let name = at.name.to_string();
        let _now = During::new(&self.seen, move |seen, by| {
            let (begun, now) = seen.attended.entry(name.clone()).or_default();
            *begun += u32::from(by > 0);
            *now = now.wrapping_add_signed(by);
        });
        match self.settings.attends {
            Attends::Steadily => std::future::pending().await,
            Attends::Briefly => {}
            Attends::Panicking => panic!("as the test wants it"),
        }
    }
}

impl Speaker {
    async fn flood(
        &self,
        socket: &mut dyn Socket,
        n: Option<usize>,
        size: Option<usize>,
    ) -> Result<(), NodeError> {
        let piece = Bytes::from(vec![7; size.unwrap_or(1000)]);
        for _ in 0..n.unwrap_or(usize::MAX) {
            socket.send(Message::Binary(piece.clone())).await?;
            self.seen.lock().sent += 1;
        }
        Ok(())
    }
}

async fn echo(socket: &mut dyn Socket) -> Result<(), NodeError> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Carries messages between a client and the first endpoint.
async fn bridge(
    client: &mut dyn Socket,
    host: &Arc<dyn Host>,
    path: Option<&String>,
) -> Result<(), NodeError> {
    let node = host
        .endpoints()
        .first()
        .and_then(|first| host.client(first.id));
    let node = node.ok_or(NodeError::Unreachable("no endpoint".into()))?;
    let path = path.map_or("/ws", |path| path);
    let request = Request::get(path)
        .header("x-speaker", "yes")
        .header("origin", "http://elsewhere")
        .body(())?;
    let mut node = match node.socket(request).await {
        Ok(node) => node,
        Err(why) => {
            let _ = client.send(Message::Text(why.to_string())).await;
            return Err(why);
        }
    };
    loop {
        futures::select_biased! {
            message = client.receive().fuse() => match message? {
                Some(message) => node.send(message).await?,
                None => return Ok(()),
            },
            message = node.receive().fuse() => match message? {
                Some(message) => client.send(message).await?,
                None => return Ok(()),
            },
        }
    }
}
