//! Reloads that change the pool all the time, under every kind of traffic: none of it may be harmed.

use crate::Storm;
use crate::client::Connection;
use crate::gateway::Gateway;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tabane_sim::{Knobs, Node, pattern};
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const NODES: usize = 4;
const CLIENTS: usize = 16;
const SOCKETS: usize = 50;
const STREAMS: usize = 20;
const UPLOADS: usize = 10;

pub async fn run(args: &Storm) -> Result<()> {
    let mut nodes = Vec::new();
    for i in 0..NODES {
        let knobs = Knobs::named(&format!("node-{i}"), 1000).working(2);
        nodes.push(Node::start(knobs).await?);
    }
    let gateway = Gateway::start(&args.tabane, config(&nodes)).await?;
    let sky = Arc::new(Sky {
        address: gateway.running.address,
        over: AtomicBool::new(false),
        counts: Default::default(),
    });
    let mut busy = JoinSet::new();
    for _ in 0..CLIENTS {
        busy.spawn(sky.clone().requests());
        busy.spawn(sky.clone().new_connections());
    }
    for _ in 0..SOCKETS {
        busy.spawn(sky.clone().socket());
    }
    for _ in 0..STREAMS {
        busy.spawn(sky.clone().events());
    }
    for _ in 0..UPLOADS {
        busy.spawn(sky.clone().uploads());
    }
    let time = Duration::from_secs(args.seconds);
    let began = Instant::now();
    let mut pace = interval(time / args.reloads.max(1));
    let mut longest = Duration::ZERO;
    for n in 1..=args.reloads {
        pace.tick().await;
        longest = longest.max(gateway.reload(n as usize).await?);
        if let Some(ended) = busy.try_join_next() {
            ended??;
            bail!("a client ended before the storm was over");
        }
    }
    tokio::time::sleep(time.saturating_sub(began.elapsed())).await;
    sky.over.store(true, Ordering::Relaxed);
    let mut harmed = 0;
    while let Some(ended) = busy.join_next().await {
        if let Err(error) = ended? {
            eprintln!("harmed: {error:#}");
            harmed += 1;
        }
    }
    println!(
        "{} reloads in {:.0} s, the longest of {:.0} ms; meanwhile, through {NODES} nodes:",
        args.reloads,
        began.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1e3,
    );
    let [requests, new, messages, events, uploads] = &sky.counts;
    for (count, of) in [
        (requests, format!("requests on {CLIENTS} kept connections")),
        (
            new,
            format!("requests on new connections, {CLIENTS} at once"),
        ),
        (
            messages,
            format!("messages there and back over {SOCKETS} WebSockets, none of which ended"),
        ),
        (
            events,
            format!("events over {STREAMS} streams, without a gap"),
        ),
        (
            uploads,
            format!("slow uploads of 1 MiB, {UPLOADS} at once, echoed whole"),
        ),
    ] {
        println!("- {} {of}", count.load(Ordering::Relaxed));
    }
    gateway.running.end().await?;
    ensure!(harmed == 0, "{harmed} clients were harmed");
    println!("nobody was harmed");
    Ok(())
}

/// What all clients share.
struct Sky {
    address: SocketAddr,
    over: AtomicBool,
    counts: [AtomicU64; 5],
}

impl Sky {
    fn blows(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn count(&self, which: usize) {
        self.counts[which].fetch_add(1, Ordering::Relaxed);
    }

    async fn requests(self: Arc<Self>) -> Result<()> {
        let mut connection = Connection::open(self.address).await?;
        while self.blows() {
            connection.get("/work").await.context("a request")?;
            self.count(0);
        }
        Ok(())
    }

    async fn new_connections(self: Arc<Self>) -> Result<()> {
        while self.blows() {
            let mut connection = Connection::open(self.address).await?;
            let asked = connection.get("/work").await;
            asked.context("a request on a new connection")?;
            self.count(1);
        }
        Ok(())
    }

    async fn socket(self: Arc<Self>) -> Result<()> {
        let (mut socket, _) = connect_async(format!("ws://{}/ws", self.address)).await?;
        let next = async |socket: &mut _| -> Result<Message> {
            let socket: &mut tokio_tungstenite::WebSocketStream<_> = socket;
            loop {
                let message = socket.next().await.context("a WebSocket ended")??;
                if !message.is_ping() {
                    return Ok(message);
                }
            }
        };
        next(&mut socket).await?;
        let mut pace = interval(Duration::from_millis(20));
        let mut n = 0;
        while self.blows() {
            pace.tick().await;
            socket.send(Message::text(format!("{n}"))).await?;
            let back = next(&mut socket).await?;
            ensure!(
                back == Message::text(format!("{n}")),
                "a WebSocket lost message {n}"
            );
            n += 1;
            self.count(2);
        }
        Ok(())
    }

    async fn events(self: Arc<Self>) -> Result<()> {
        while self.blows() {
            let url = format!("http://{}/sse?events=100&every_ms=50", self.address);
            let mut body = ask(Request::get(url).body(Full::<Bytes>::default())?).await?;
            let mut text = String::new();
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.context("an event stream broke")?.into_data() {
                    text.push_str(std::str::from_utf8(&data)?);
                }
            }
            for i in 0..100 {
                ensure!(
                    text.contains(&format!("\"i\":{i},")),
                    "event {i} is missing"
                );
                self.count(3);
            }
        }
        Ok(())
    }

    async fn uploads(self: Arc<Self>) -> Result<()> {
        let whole = pattern(1 << 20);
        while self.blows() {
            let pieces = stream::iter((0..64).map({
                let whole = whole.clone();
                move |i| whole.slice(i * (16 << 10)..(i + 1) * (16 << 10))
            }));
            let paced = pieces.zip(stream::unfold(
                interval(Duration::from_millis(100)),
                |mut pace| async move {
                    pace.tick().await;
                    Some(((), pace))
                },
            ));
            let body =
                StreamBody::new(paced.map(|(piece, ())| Ok::<_, Infallible>(Frame::data(piece))));
            let url = format!("http://{}/echo", self.address);
            let back = ask(Request::post(url).body(Box::pin(body))?).await?;
            let back = back.collect().await.context("an upload broke")?.to_bytes();
            ensure!(
                back == whole,
                "an upload came back with {} bytes",
                back.len()
            );
            self.count(4);
        }
        Ok(())
    }
}

/// On a connection of its own.
async fn ask<B>(request: Request<B>) -> Result<Incoming>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await?;
    let status = answer.status();
    ensure!(status == 200, "answered {status}");
    Ok(answer.into_body())
}

/// A file whose pool is another one at every reload: of the four nodes one is never in it, and their order turns.
fn config(nodes: &[Node]) -> impl Fn(usize) -> String + use<> {
    let urls: Vec<_> = nodes.iter().map(Node::url).collect();
    move |n| {
        let mut text = String::from("nodes:\n");
        for (i, url) in urls.iter().enumerate() {
            text.push_str(&format!("  node-{i}: {{url: \"{url}\", slots: 1000}}\n"));
        }
        text.push_str(
            "services:\n  any:\n    kind: {http: {probe: /health}}\n    routes: [/]\n    pool:\n",
        );
        for turn in 0..urls.len() - 1 {
            let (node, weight) = ((n + turn) % urls.len(), 1 + (n + turn) % 3);
            text.push_str(&format!(
                "      - {{endpoint: node-{node}, weight: {weight}}}\n"
            ));
        }
        text
    }
}
