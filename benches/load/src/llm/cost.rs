//! What a router costs in front of engines that answer at once: CPU a request and an event, what it adds to the first byte, and its
//! memory after many prompts.

use super::engines::Engines;
use super::quick::EVENTS;
use super::router::{Router, body};
use super::sessions::text;
use super::{Farm, Llm};
use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is asked.
#[derive(Clone, Copy)]
struct Load {
    /// How many at once.
    at_once: usize,
    /// How long prompts are, bytes.
    bytes: usize,
    /// Whether answers stream.
    streams: bool,
    /// Whether each prompt is another.
    distinct: bool,
}

/// How it went.
struct Went {
    requests: usize,
    /// Until the head of the answer, seconds, sorted.
    first: Vec<f64>,
}

/// Measures all routers in turn, and prints a table.
pub async fn run(args: &Llm, routers: &[Router]) -> Result<()> {
    let engines = Engines::start(Farm::Quick).await?;
    let direct = SocketAddr::from(([127, 0, 0, 1], engines.ports[0]));
    let time = Duration::from_secs_f64(args.seconds.min(8.0));
    let loads = [
        (
            "1 at once, 200 B",
            Load {
                at_once: 1,
                bytes: 200,
                streams: false,
                distinct: true,
            },
        ),
        (
            "32 at once, 200 B",
            Load {
                at_once: 32,
                bytes: 200,
                streams: false,
                distinct: true,
            },
        ),
        (
            "32 at once, 16 KB",
            Load {
                at_once: 32,
                bytes: 16 << 10,
                streams: false,
                distinct: true,
            },
        ),
        (
            "16 streams at once",
            Load {
                at_once: 16,
                bytes: 200,
                streams: true,
                distinct: true,
            },
        ),
    ];
    println!(
        "\nCost in front of engines that answer at once ({} events a stream)\n",
        EVENTS + 2
    );
    let names: Vec<String> = routers.iter().map(Router::name).collect();
    println!(
        "| | {} | none |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len() + 1)
    );
    let mut running = Vec::new();
    for router in routers {
        running.push(router.start(&engines.ports).await?);
    }
    for (name, load) in loads {
        let mut cells = Vec::new();
        for run in &running {
            // Once without being measured: connections, and what is learned.
            ask(run.address, load, time / 4, None).await?;
            let cpu = run.tree()?.cpu()?;
            let went = ask(run.address, load, time, None).await?;
            let cpu = run.tree()?.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6;
            let each = cpu / went.requests as f64;
            let event = match load.streams {
                true => format!(", {:.1} µs an event", each / (EVENTS + 2) as f64),
                false => String::new(),
            };
            cells.push(format!(
                "{each:.0} µs CPU{event}; first byte {}",
                shown(&went)
            ));
        }
        let went = ask(direct, load, time, None).await?;
        println!(
            "| {name} | {} | first byte {} |",
            cells.join(" | "),
            shown(&went)
        );
    }
    if args.prompts > 0 {
        let load = Load {
            at_once: 32,
            bytes: 1200,
            streams: false,
            distinct: true,
        };
        let mut cells = Vec::new();
        for run in &running {
            let before = run.tree()?.memory()?;
            ask(run.address, load, Duration::MAX, Some(args.prompts)).await?;
            let after = run.tree()?.memory()?;
            cells.push(format!(
                "{:.0} MB, {:.0} before",
                after as f64 / 1e6,
                before as f64 / 1e6
            ));
        }
        println!(
            "| memory after {} prompts | {} | |",
            args.prompts,
            cells.join(" | ")
        );
    }
    for run in running {
        run.end().await?;
    }
    engines.end().await
}

fn shown(went: &Went) -> String {
    let at = |share: f64| {
        let place = (went.first.len() as f64 * share) as usize;
        went.first[place.min(went.first.len() - 1)] * 1e6
    };
    format!("{:.0} / {:.0} µs (p50/p99)", at(0.5), at(0.99))
}

/// Asks for a time, or so often.
async fn ask(to: SocketAddr, load: Load, time: Duration, most: Option<usize>) -> Result<Went> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let began = Instant::now();
    let asked = Arc::new(AtomicUsize::new(0));
    let filler = Arc::new(text(&mut StdRng::seed_from_u64(7), load.bytes));
    static ROUND: AtomicUsize = AtomicUsize::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let tasks: Vec<_> = (0..load.at_once)
        .map(|_| {
            let (client, asked, filler) = (client.clone(), asked.clone(), filler.clone());
            tokio::spawn(async move {
                let mut first = Vec::new();
                loop {
                    let n = asked.fetch_add(1, Ordering::Relaxed);
                    if began.elapsed() >= time || most.is_some_and(|most| n >= most) {
                        return Ok::<_, anyhow::Error>(first);
                    }
                    let name = if load.distinct { n } else { 0 };
                    let content = format!("{round}-{name} {filler}");
                    let said = format!("{{\"role\":\"user\",\"content\":\"{content}\"}}");
                    let mut sent = body(&said, 16, "u");
                    if !load.streams {
                        sent = sent.replace(
                            "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
                            "\"stream\":false",
                        );
                    }
                    let request = Request::post(format!("http://{to}/v1/chat/completions"))
                        .header("content-type", "application/json")
                        .body(Full::new(Bytes::from(sent)))?;
                    let at = Instant::now();
                    let answer = client.request(request).await?;
                    ensure!(answer.status() == 200, "answered {}", answer.status());
                    first.push(at.elapsed().as_secs_f64());
                    answer.into_body().collect().await?;
                }
            })
        })
        .collect();
    let mut first = Vec::new();
    for task in tasks {
        first.extend(task.await??);
    }
    first.sort_unstable_by(f64::total_cmp);
    Ok(Went {
        requests: first.len(),
        first,
    })
}
