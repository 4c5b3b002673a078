//! Has the sessions, and measures them.

use super::router::body;
use super::sessions::{Session, Turn};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Longer than this nobody waits for an answer.
const LONGEST: Duration = Duration::from_secs(120);

/// What was measured of all requests of a run.
#[derive(Default)]
pub struct Measured {
    /// Until the first token, sorted.
    first: Vec<f64>,
    /// Until the last, sorted.
    whole: Vec<f64>,
    pub failed: usize,
    /// Tokens that were read, and those of them that had been computed before.
    read: u64,
    cached: u64,
    /// Of the router, for all requests, those of the time before too.
    pub cpu: Duration,
    requests: usize,
    pub memory: u64,
}

/// One request.
struct Answer {
    first: f64,
    whole: f64,
    text: String,
    read: u64,
    cached: u64,
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// Has all sessions; what begins within `before` is not measured.
pub async fn all(to: SocketAddr, sessions: Vec<Session>, before: Duration) -> Result<Measured> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Http = Client::builder(TokioExecutor::new()).build(connector);
    let start = Instant::now();
    let talks: Vec<_> = sessions
        .into_iter()
        .map(|session| tokio::spawn(talk(client.clone(), to, session, start, before)))
        .collect();
    let mut measured = Measured::default();
    for talk in talks {
        for answer in talk.await? {
            measured.requests += 1;
            match answer {
                (false, _) => {}
                (true, Ok(answer)) => {
                    measured.first.push(answer.first);
                    measured.whole.push(answer.whole);
                    measured.read += answer.read;
                    measured.cached += answer.cached;
                }
                (true, Err(error)) => {
                    eprintln!("a request failed: {error:#}");
                    measured.failed += 1;
                }
            }
        }
    }
    measured.first.sort_unstable_by(f64::total_cmp);
    measured.whole.sort_unstable_by(f64::total_cmp);
    Ok(measured)
}

/// The answers of a session, each with whether it is measured.
async fn talk(
    client: Http,
    to: SocketAddr,
    session: Session,
    start: Instant,
    before: Duration,
) -> Vec<(bool, Result<Answer>)> {
    sleep_until(start + session.at).await;
    let mut said = message("system", &session.system);
    let mut answers = Vec::new();
    for Turn {
        after,
        asks,
        tokens,
    } in session.turns
    {
        sleep(after).await;
        said.push(',');
        said.push_str(&message("user", &asks));
        let counts = start.elapsed() >= before;
        let asked = ask(&client, to, body(&said, tokens, &session.name));
        let answer = match timeout(LONGEST, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("no answer within {LONGEST:?}")),
        };
        if let Ok(answer) = &answer {
            said.push(',');
            said.push_str(&message("assistant", &answer.text));
        }
        let failed = answer.is_err();
        answers.push((counts, answer));
        if failed {
            break;
        }
    }
    answers
}

fn message(role: &str, text: &str) -> String {
    serde_json::json!({"role": role, "content": text}).to_string()
}

async fn ask(client: &Http, to: SocketAddr, body: String) -> Result<Answer> {
    let began = Instant::now();
    let request = Request::post(format!("http://{to}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answer = client.request(request).await?;
    let status = answer.status();
    let mut body = answer.into_body();
    let (mut first, mut done, mut usage) = (None, false, Value::Null);
    let (mut text, mut line) = (String::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if status != 200 {
            bail!("answered {status}: {}", String::from_utf8_lossy(&data));
        }
        for byte in data {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let event = std::mem::take(&mut line);
            let Some(event) = event.strip_prefix(b"data: ") else {
                continue;
            };
            if event.starts_with(b"[DONE]") {
                done = true;
                continue;
            }
            let event: Value = serde_json::from_slice(event).context("an event")?;
            if let Some(error) = event.get("error") {
                bail!("broke off: {error}");
            }
            if !event["usage"].is_null() {
                usage = event["usage"].clone();
            }
            let content = event["choices"][0]["delta"]["content"].as_str();
            if let Some(content) = content.filter(|content| !content.is_empty()) {
                first.get_or_insert_with(|| began.elapsed());
                text.push_str(content);
            }
        }
    }
    if !done {
        bail!("the answer is cut short");
    }
    Ok(Answer {
        first: first.context("no token came")?.as_secs_f64(),
        whole: began.elapsed().as_secs_f64(),
        text,
        read: usage["prompt_tokens"].as_u64().unwrap_or(0),
        cached: usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap_or(0),
    })
}

// === impl Measured ===

fn at(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    let place = place.min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

impl Measured {
    pub fn first_s(&self, share: f64) -> f64 {
        at(&self.first, share)
    }

    pub fn whole_s(&self, share: f64) -> f64 {
        at(&self.whole, share)
    }

    pub fn whole_mean_s(&self) -> f64 {
        self.whole.iter().sum::<f64>() / self.whole.len() as f64
    }

    pub fn hit(&self) -> f64 {
        self.cached as f64 / (self.read as f64).max(1.0)
    }

    pub fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.requests.max(1) as f64
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} requests, first token {:.3} / {:.3} / {:.3} s (p50/p95/p99), whole {:.3} s, hit {:.2}, {} failed",
            self.whole.len(),
            self.first_s(0.5),
            self.first_s(0.95),
            self.first_s(0.99),
            self.whole_mean_s(),
            self.hit(),
            self.failed
        )
    }
}
