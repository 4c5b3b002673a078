//! What is asked of a server, as it is sent.

use crate::client::Connection;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(120);

/// A UUID.
pub fn new_id() -> String {
    let random: u128 = rand::random();
    let id = random & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{id:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// The workflow of ComfyUI's example scripts, small. `seed` makes it another one.
pub fn sampled(seed: u64, steps: usize) -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {"cfg": 8, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0], "sampler_name": "euler", "scheduler": "normal", "seed": seed, "steps": steps}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_sd3.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "masterpiece best quality girl"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "bad hands"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    })
}

/// A picture without any two pixels alike, of somewhat more than 1 MB.
pub fn noise() -> Value {
    json!({
        "1": {"class_type": "StubImage", "inputs": {"content": "NOISE", "width": 600, "height": 600, "batch_size": 1}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "noise", "images": ["1", 0]}},
    })
}

/// Hands a prompt over.
pub fn submission(id: &str, client: &str, prompt: &Value) -> Vec<u8> {
    let body = json!({"prompt": prompt, "client_id": client, "prompt_id": id});
    post("/prompt", &body)
}

pub fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    (head + &body).into_bytes()
}

/// With lines of its head, each ended.
pub fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{more}\r\n").into_bytes()
}

/// Waits until a prompt is in the history, and gives its entry.
pub async fn over(connection: &mut Connection, id: &str) -> Result<Value> {
    let request = get(&format!("/history/{id}"), "");
    let end = Instant::now() + LONG;
    loop {
        let told = connection.told(&request).await?;
        let mut told: Value = serde_json::from_slice(&told)?;
        if let Some(entry) = told.get_mut(id) {
            return Ok(entry.take());
        }
        ensure!(Instant::now() < end, "a prompt does not end");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until so many wait or run.
pub async fn remaining(connection: &mut Connection, so: impl Fn(u64) -> bool) -> Result<()> {
    let request = get("/prompt", "");
    let end = Instant::now() + LONG;
    loop {
        let told: Value = serde_json::from_slice(&connection.told(&request).await?)?;
        let remaining = told["exec_info"]["queue_remaining"].as_u64();
        let remaining = remaining.context("a server does not say what it has to do")?;
        if so(remaining) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "there are {remaining} in the queue");
        sleep(Duration::from_millis(10)).await;
    }
}
