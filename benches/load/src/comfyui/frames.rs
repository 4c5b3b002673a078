//! Frames from a server's event socket to a client's: previews carry the moment at which they were sent.

use super::ask::{LONG, new_id, remaining, sampled, submission};
use super::farm::Farm;
use super::pairs::{Pairs, head};
use crate::Comfyui;
use crate::client::{Connection, spawn};
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Spec, Version};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A step, and a preview of it, takes so long: 15 a second.
const STEP_MS: u64 = 66;

/// What a measurement begins and ends with is told apart: all prompts begin then, and all clients are told of each.
const SETTLES: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a client heard of its prompt.
struct Heard {
    /// Of each preview that was sent while all prompts ran, and of the others.
    times: Vec<Duration>,
    edges: Vec<Duration>,
    previews: usize,
    texts: usize,
    bytes: usize,
}

/// One prompt on each node.
struct Round {
    heard: Vec<Heard>,
    took: Duration,
}

pub async fn run(args: &Comfyui) -> Result<()> {
    let since = Instant::now();
    let mut nodes = Vec::new();
    for i in 0..args.nodes {
        nodes.push(ComfyNode::start(spec(i, args.nodes, since)).await?);
    }
    let farm = Farm::start(&args.tabane, nodes).await?;
    let gateway = farm.gateway.running.tree()?;
    let mut idle = Vec::new();
    let before = gateway.memory()?;
    for i in 0..args.sockets {
        idle.push(Idle::open(farm.address(), i).await?);
    }
    let behind = vec![farm.address(); args.nodes];
    let alone: Vec<_> = farm.nodes.iter().map(ComfyNode::addr).collect();
    sleep(SETTLES).await;
    let sockets = (gateway.memory()? as f64 - before as f64) / args.sockets.max(1) as f64;

    let (mut all_run, mut edges) = (Pairs::default(), Pairs::default());
    let mut told = Vec::new();
    for round in 0..args.rounds {
        let direct = all(args, &alone, since).await?;
        all_run.direct.extend(direct.times(|heard| &heard.times));
        edges.direct.extend(direct.times(|heard| &heard.edges));
        settled(&farm).await?;
        let cpu = gateway.cpu()?;
        let (through, memory) = tokio::join!(all(args, &behind, since), async {
            sleep(Duration::from_secs_f64(args.seconds / 2.0)).await;
            gateway.memory()
        });
        let through = through?;
        let cpu = gateway.cpu()? - cpu;
        told.push(through.told(args, round, cpu, memory?));
        all_run.through.extend(through.times(|heard| &heard.times));
        edges.through.extend(through.times(|heard| &heard.edges));
        settled(&farm).await?;
    }
    head();
    let what = format!(
        "a preview of 30 to 60 kB, {} nodes, {} idle sockets",
        args.nodes, args.sockets
    );
    all_run.print(&what, "1 ms");
    edges.print("the same while all of these prompts begin or end", "");
    println!();
    for line in told {
        println!("- {line}");
    }
    println!("- an idle socket of a client takes {:.1} kB", sockets / 1e3);
    println!();
    drop(idle);
    farm.end().await
}

fn spec(i: usize, of: usize, since: Instant) -> Spec {
    let knobs = ComfyKnobs {
        step_ms: STEP_MS,
        preview_bytes: 30_000 + 30_000 * i / of.max(1),
        ..ComfyKnobs::default()
    };
    Spec {
        stamps_since: Some(since),
        ..Spec::named(&format!("node-{i}"))
            .version(Version::LATE)
            .knobs(knobs)
    }
}

/// A client of each of these addresses hands a prompt over, and hears it to its end.
async fn all(args: &Comfyui, to: &[SocketAddr], since: Instant) -> Result<Round> {
    let steps = steps(args);
    let mut sockets = Vec::new();
    for to in to {
        // A client that comes back is told what it may have missed of what was before.
        let client = new_id();
        sockets.push((*to, connect(*to, &client).await?, client));
    }
    let began = Instant::now();
    let all_run = began + SETTLES..began + Duration::from_secs_f64(args.seconds) - SETTLES;
    let watching = sockets
        .into_iter()
        .enumerate()
        .map(|(i, (to, socket, client))| {
            let all_run = all_run.clone();
            spawn(async move {
                // Not all in the same moment.
                sleep(Duration::from_millis(i as u64 * STEP_MS / 10)).await;
                let mut connection = Connection::open(to).await?;
                let seed = u64::from(rand::random::<u32>());
                let request = submission(&new_id(), &client, &sampled(seed, steps));
                connection.ask(&request, 200).await?;
                hear(socket, since, all_run).await
            })
        });
    Ok(Round {
        heard: try_join_all(watching).await?,
        took: began.elapsed(),
    })
}

fn steps(args: &Comfyui) -> usize {
    (args.seconds * 1e3 / STEP_MS as f64) as usize
}

/// Nothing is left to be done.
async fn settled(farm: &Farm) -> Result<()> {
    let mut connection = farm.connect().await?;
    remaining(&mut connection, |remaining| remaining == 0).await?;
    sleep(SETTLES).await;
    Ok(())
}

async fn connect(to: SocketAddr, client: &str) -> Result<Socket> {
    let (mut socket, _) = connect_async(format!("ws://{to}/ws?clientId={client}")).await?;
    let flags = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#;
    socket.send(Message::text(flags)).await?;
    Ok(socket)
}

async fn hear(mut socket: Socket, since: Instant, all_run: Range<Instant>) -> Result<Heard> {
    let mut heard = Heard {
        times: Vec::new(),
        edges: Vec::new(),
        previews: 0,
        texts: 0,
        bytes: 0,
    };
    loop {
        let next = timeout(LONG, socket.next()).await;
        let message = next.context("a frame is missing")?;
        let message = message.context("a socket ended")??;
        let now = Instant::now();
        heard.bytes += message.len();
        match message {
            Message::Binary(bytes) => {
                heard.previews += 1;
                let stamp = bytes.last_chunk().context("a preview has no stamp")?;
                let sent = since + Duration::from_nanos(u64::from_be_bytes(*stamp));
                let times = match all_run.contains(&sent) {
                    true => &mut heard.times,
                    false => &mut heard.edges,
                };
                times.push(now.saturating_duration_since(sent));
            }
            Message::Text(text) => {
                heard.texts += 1;
                ensure!(!text.contains("execution_error"), "a prompt failed: {text}");
                if text.contains("execution_success") {
                    return Ok(heard);
                }
            }
            _ => {}
        }
    }
}

// === impl Round ===

impl Round {
    fn times(&self, of: fn(&Heard) -> &Vec<Duration>) -> impl Iterator<Item = Duration> {
        self.heard.iter().flat_map(of).copied()
    }

    fn told(&self, args: &Comfyui, round: usize, cpu: Duration, memory: u64) -> String {
        let sum = |of: fn(&Heard) -> usize| self.heard.iter().map(of).sum::<usize>();
        let sent = args.nodes * steps(args);
        let (previews, texts) = (sum(|heard| heard.previews), sum(|heard| heard.texts));
        let seconds = self.took.as_secs_f64();
        format!(
            "round {}: {:.0} frames and {:.1} MB a second to clients; previews: {previews} of {sent}, {} left out; gateway: {:.1} s of CPU in {seconds:.1} s, {:.0} µs a frame, {:.0} MB",
            round + 1,
            (previews + texts) as f64 / seconds,
            sum(|heard| heard.bytes) as f64 / 1e6 / seconds,
            sent.saturating_sub(previews),
            cpu.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / (previews + texts).max(1) as f64,
            memory as f64 / 1e6,
        )
    }
}

/// A client that only listens.
struct Idle(AbortHandle);

// === impl Idle ===

impl Idle {
    async fn open(to: SocketAddr, i: usize) -> Result<Self> {
        let mut socket = connect(to, &format!("idle-{i}")).await?;
        let listens = tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
        Ok(Idle(listens.abort_handle()))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.abort();
    }
}
