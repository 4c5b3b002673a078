//! Durable submissions a second beside what the disk itself can do, and what a backlog costs.
//!
//! The one node is drained while jobs gather, so that nothing but accepting and asking is measured; then it is let
//! work, and the backlog is worked off.

use crate::Jobs;
use crate::client::{Connection, Times, spawn};
use crate::gateway::Gateway;
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tabane_sim::{Knobs, Node};
use tempfile::TempDir;
use tokio::time::sleep;

/// What each job's body has.
const BODY: usize = 1024;

pub async fn run(args: &Jobs) -> Result<()> {
    let time = Duration::from_secs_f64(args.seconds);
    let data = tempfile::tempdir()?;
    let raw = raw_rate(&data, time)?;
    println!("the disk: {raw:.0} appends of {BODY} B a second, each made durable by itself");

    let node = Node::start(Knobs::named("node", 1000)).await?;
    let gateway = start(args, &node, data.path(), true).await?;
    let to = gateway.running.address;
    for clients in [1, 8, 64] {
        let times = submit_for(to, clients, time).await?;
        let rate = times.count() as f64 / args.seconds;
        let (p50, p99) = (times.at(0.5) / 1e3, times.at(0.99) / 1e3);
        println!(
            "{clients:>3} clients: {rate:>6.0} jobs of {BODY} B accepted a second ({:.2} of the disk's rate), p50 {p50:.1} ms, p99 {p99:.1} ms",
            rate / raw
        );
    }
    gateway.running.end().await?;

    let data = tempfile::tempdir()?;
    let mut gateway = start(args, &node, data.path(), true).await?;
    let to = gateway.running.address;
    let mut waiting = 0;
    println!();
    println!("| jobs waiting | submit p50 | submit p99 | status p50 | status p99 | memory |");
    println!("|---|---|---|---|---|---|");
    for goal in [100, 10_000, 50_000, args.backlog] {
        if goal > waiting {
            fill(to, goal - waiting).await?;
            waiting = goal;
        }
        let (submit, status) = one_client(to, time / 3).await?;
        waiting += submit.count();
        let memory = gateway.running.tree()?.memory()? as f64 / 1e6;
        println!(
            "| {waiting} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {memory:.0} MB |",
            submit.at(0.5) / 1e3,
            submit.at(0.99) / 1e3,
            status.at(0.5) / 1e3,
            status.at(0.99) / 1e3,
        );
    }
    println!();
    gateway.running.end().await?;
    let began = Instant::now();
    gateway = start(args, &node, data.path(), false).await?;
    let restart = began.elapsed().as_secs_f64();
    let memory = gateway.running.tree()?.memory()? as f64 / 1e6;
    println!("a restart takes {waiting} jobs up in {restart:.1} s, then with {memory:.0} MB");
    let began = Instant::now();
    let done = worked_off(&node, waiting).await?;
    let rate = done as f64 / began.elapsed().as_secs_f64();
    println!("{done} of them are worked off at {rate:.0} a second, by a node that answers at once");
    Ok(())
}

/// Appends and makes durable, as fast as it goes.
fn raw_rate(folder: &TempDir, time: Duration) -> Result<f64> {
    let mut file = File::create(folder.path().join("raw"))?;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        file.write_all(&[b'x'; BODY])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn start(args: &Jobs, node: &Node, data: &Path, drained: bool) -> Result<Gateway> {
    let (url, data, max) = (node.url(), data.display().to_string(), args.backlog * 2);
    let text = move |_| {
        format!(
            "data_dir: {data}\nlog: {{access: false}}\nnodes:\n  node: {{url: \"{url}\", slots: 64, drained: {drained}}}\nservices:\n  any:\n    pool: [node]\n    kind: {{http: {{probe: /health}}}}\n    jobs: {{mode: opt-in, max: {max}}}\n    routes: [/]\n"
        )
    };
    Gateway::start_with(&args.tabane, "/_tabane/jobs?limit=1", text).await
}

fn submission() -> Vec<u8> {
    let mut request = format!(
        "POST /work HTTP/1.1\r\nHost: bench\r\nPrefer: respond-async\r\nContent-Length: {BODY}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + BODY, b'x');
    request
}

/// So many clients submit as fast as they are answered.
async fn submit_for(to: SocketAddr, clients: usize, time: Duration) -> Result<Times> {
    let end = Instant::now() + time;
    let all = (0..clients).map(|_| {
        spawn(async move {
            let (request, mut times) = (submission(), Vec::new());
            let mut connection = Connection::open(to).await?;
            loop {
                let began = Instant::now();
                if began >= end {
                    return Ok(times);
                }
                connection.ask(&request, 202).await?;
                times.push(began.elapsed());
            }
        })
    });
    Ok(Times::of(try_join_all(all).await?))
}

/// So many more jobs.
async fn fill(to: SocketAddr, count: usize) -> Result<()> {
    let left = Arc::new(AtomicUsize::new(count));
    let all = (0..64).map(|_| {
        let left = left.clone();
        spawn(async move {
            let request = submission();
            let mut connection = Connection::open(to).await?;
            let take = |left: usize| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                connection.ask(&request, 202).await?;
            }
            Ok(())
        })
    });
    try_join_all(all).await?;
    Ok(())
}

/// One client submits a job and asks how it stands, in turn.
async fn one_client(to: SocketAddr, time: Duration) -> Result<(Times, Times)> {
    let mut connection = Connection::open(to).await?;
    let (request, end) = (submission(), Instant::now() + time);
    let (mut submits, mut statuses) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        connection.ask(&request, 202).await?;
        submits.push(began.elapsed());
        let job = connection.header("location").context("no Location")?;
        let status = format!("GET {job} HTTP/1.1\r\nHost: bench\r\n\r\n");
        let began = Instant::now();
        connection.ask(status.as_bytes(), 200).await?;
        statuses.push(began.elapsed());
    }
    Ok((Times::of(vec![submits]), Times::of(vec![statuses])))
}

/// Waits until the node has done enough of them to tell the rate.
async fn worked_off(node: &Node, waiting: usize) -> Result<u64> {
    let enough = waiting.min(20_000) as u64;
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let done = node.seen().finished;
        if done >= enough {
            return Ok(done);
        }
        ensure!(Instant::now() < end, "only {done} jobs were done");
        sleep(Duration::from_millis(20)).await;
    }
}
