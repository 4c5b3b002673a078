//! What it costs: printed, not held. `cargo test -p tabane-comfyui --release --test clients cost -- --ignored --nocapture`

use crate::peer::{FEATURES, frame};
use async_trait::async_trait;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tabane_api::{Message, NodeError, Socket};
use tabane_comfyui::clients::Clients;
use tabane_comfyui::frames::Frame;
use tabane_comfyui::json::Json;
use tokio::task::yield_now;

/// A client that takes whatever comes at once.
struct Quick(Arc<AtomicUsize>);

#[async_trait]
impl Socket for Quick {
    async fn receive(&mut self) -> Result<Option<Message>, NodeError> {
        std::future::pending().await
    }

    async fn send(&mut self, message: Message) -> Result<(), NodeError> {
        black_box(message);
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn close(&mut self, _code: u16, _why: &str) {}
}

async fn connect(clients: &Clients, count: usize) -> Arc<AtomicUsize> {
    let sent = Arc::new(AtomicUsize::new(0));
    for id in 0..count {
        let (clients, socket) = (clients.clone(), Box::new(Quick(sent.clone())));
        tokio::spawn(async move {
            let features = || Json::read(FEATURES.as_bytes()).unwrap();
            clients
                .attach(Some(&id.to_string()), socket, features)
                .await;
        });
    }
    while sent.load(Ordering::Relaxed) < count {
        yield_now().await;
    }
    sent
}

/// A step of a sampler in a graph of thirty nodes: progress, the state of all nodes, and a preview of 64 KiB.
fn step(prompt: &str, n: usize) -> [Message; 3] {
    let progress = format!(
        r#"{{"type": "progress", "data": {{"value": {n}, "max": 20, "prompt_id": "{prompt}", "node": "3"}}}}"#
    );
    let nodes: Vec<String> = (0..30)
        .map(|node| {
            format!(
                r#""{node}": {{"value": {n}, "max": 20, "state": "running", "node_id": "{node}", "prompt_id": "{prompt}", "display_node_id": "{node}", "parent_node_id": null, "real_node_id": "{node}"}}"#
            )
        })
        .collect();
    let state = format!(
        r#"{{"type": "progress_state", "data": {{"prompt_id": "{prompt}", "nodes": {{{}}}}}}}"#,
        nodes.join(", ")
    );
    let json = format!(
        r#"{{"node_id": "3", "prompt_id": "{prompt}", "display_node_id": "3", "parent_node_id": null, "real_node_id": "3", "image_type": "image/jpeg"}}"#
    );
    let length = (json.len() as u32).to_be_bytes();
    let preview = [&4u32.to_be_bytes(), &length, json.as_bytes(), &[7; 65_536]].concat();
    [
        Message::Text(state),
        Message::Binary(preview.into()),
        Message::Text(progress),
    ]
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse().ok());
    pages.unwrap_or(0) * 4096
}

#[tokio::test]
#[ignore = "prints figures"]
async fn cost_of_a_frame_with_fifty_streams_of_previews() {
    const STREAMS: usize = 50;
    const STEPS: usize = 100;
    let clients = Clients::default();
    let sent = connect(&clients, STREAMS).await;
    let prompts: Vec<String> = (0..STREAMS)
        .map(|id| format!("475094a6-54ab-442d-abe1-6758adc8{id:04}"))
        .collect();
    for (id, prompt) in prompts.iter().enumerate() {
        clients.send(&id.to_string(), frame("execution_start", prompt, 0));
    }
    let (mut reading, mut sending, mut frames) = ([0.0; 3], 0.0, 0);
    for n in 0..STEPS {
        let steps: Vec<_> = prompts.iter().map(|prompt| step(prompt, n)).collect();
        for (id, step) in steps.into_iter().enumerate() {
            let id = id.to_string();
            for (kind, message) in step.into_iter().enumerate() {
                let before = sent.load(Ordering::Relaxed);
                let began = Instant::now();
                let frame = Frame::read(message);
                reading[kind] += began.elapsed().as_secs_f64();
                let began = Instant::now();
                clients.send(&id, frame);
                while sent.load(Ordering::Relaxed) == before {
                    yield_now().await;
                }
                sending += began.elapsed().as_secs_f64();
                frames += 1;
            }
        }
    }
    let each = |time: f64, of: usize| time * 1e6 / of as f64;
    println!(
        "reading, us: state {:.2}, preview {:.2}, progress {:.2}; from send to socket, us: {:.2}",
        each(reading[0], frames / 3),
        each(reading[1], frames / 3),
        each(reading[2], frames / 3),
        each(sending, frames),
    );
}

#[tokio::test]
#[ignore = "prints figures"]
async fn cost_of_a_thousand_who_are_idle() {
    const IDLE: usize = 1000;
    let clients = Clients::default();
    let before = resident();
    let sent = connect(&clients, IDLE).await;
    let each = (resident() - before) / IDLE;
    let began = Instant::now();
    for remaining in 0..100 {
        clients.status(remaining);
    }
    let status = began.elapsed().as_secs_f64() * 1e6 / 100.0;
    while sent.load(Ordering::Relaxed) < 2 * IDLE {
        yield_now().await;
    }
    println!(
        "{each} bytes each with its task; a count for all takes {status:.0} us under the lock"
    );
}
