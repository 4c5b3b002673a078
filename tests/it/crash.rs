//! The gateway is killed, and nodes are: whoever got a 202 gets a result, once, and the right one.

use crate::process::Running;
use crate::scene::{any, nodes};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tabane_sim::{Knobs, Node};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(120);

/// A gateway that comes back after it was killed, each time on another port.
pub(crate) struct Phoenix {
    dir: TempDir,
    running: Mutex<Option<Running>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Phoenix {
    pub(crate) fn rise(yaml: &str) -> Arc<Phoenix> {
        let dir = tempfile::tempdir().unwrap();
        let yaml = crate::scene::on_free_ports(yaml);
        std::fs::write(dir.path().join("tabane.yaml"), yaml).unwrap();
        let phoenix = Phoenix {
            running: Mutex::new(None),
            client: Client::builder(TokioExecutor::new()).build_http(),
            dir,
        };
        phoenix.start();
        Arc::new(phoenix)
    }

    fn start(&self) {
        let file = self.dir.path().join("tabane.yaml");
        let running = Running::start(&["run", "-c", file.to_str().unwrap()]);
        *self.running.lock() = Some(running);
    }

    /// Where it listens now.
    pub(crate) fn address(&self) -> SocketAddr {
        let running = self.running.lock();
        running.as_ref().unwrap().address.parse().unwrap()
    }

    /// SIGTERM, and a new one on the same data once the old one has ended.
    pub(crate) fn end_and_rise(&self) {
        if let Some(running) = self.running.lock().take() {
            running.end();
        }
        self.start();
    }

    /// `kill -9`, and a new one on the same data.
    pub(crate) fn die_and_rise(&self) {
        drop(self.running.lock().take());
        self.start();
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<(StatusCode, HashMap<String, String>, Bytes)> {
        let address = self.running.lock().as_ref()?.address.clone();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let answer = timeout(LONG, self.client.request(request))
            .await
            .ok()?
            .ok()?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Some((head.status, headers.collect(), body))
    }

    /// Asks until there is an answer that is not for want of a gateway.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        loop {
            match self.try_send(Method::GET, path, &[], Bytes::new()).await {
                Some((status, _, body)) if status != 503 => return (status, body),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Hands a request in, as often as it takes until there is a 202; its job's path.
    pub(crate) async fn submit(&self, path: &str, key: &str, body: Bytes) -> String {
        let headers = [
            ("prefer", "respond-async"),
            ("idempotency-key", key),
            ("client-key", key),
        ];
        loop {
            let sent = self
                .try_send(Method::POST, path, &headers, body.clone())
                .await;
            match sent {
                Some((StatusCode::ACCEPTED, headers, _)) => return headers["location"].clone(),
                Some((status, _, body)) if status != 503 => panic!("{status} {body:?}"),
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub(crate) async fn over(&self, job: &str) -> Value {
        let last = Mutex::new(Value::Null);
        let until = async {
            loop {
                let (status, body) = self.get(job).await;
                assert_eq!(status, 200, "{job} {body:?}");
                let document: Value = serde_json::from_slice(&body).unwrap();
                let state = document["state"].as_str().unwrap();
                if !["queued", "starting", "running"].contains(&state) {
                    return document;
                }
                *last.lock() = document;
                sleep(Duration::from_millis(20)).await;
            }
        };
        let over = timeout(LONG, until).await;
        over.unwrap_or_else(|_| panic!("not over after two minutes: {}", last.lock()))
    }
}

/// A body like no other: short ones, and some that are kept in files.
fn body(i: usize) -> Bytes {
    let size = if i.is_multiple_of(50) {
        100_000
    } else {
        20 + i % 700
    };
    let mut draw = StdRng::seed_from_u64(i as u64);
    let mut bytes = vec![0; size];
    draw.fill_bytes(&mut bytes);
    bytes.into()
}

/// Submits so many jobs from 16 clients, while `harm` is done when a random one of them was accepted.
async fn under_harm(
    phoenix: &Arc<Phoenix>,
    jobs: usize,
    harms: usize,
    seed: u64,
    harm: &dyn Fn(usize),
) {
    let mut draw = StdRng::seed_from_u64(seed);
    let mut at: Vec<usize> = (0..harms)
        .map(|_| draw.next_u64() as usize % jobs)
        .collect();
    at.sort_unstable();
    let accepted = Arc::new(AtomicUsize::new(0));
    let next = Arc::new(AtomicUsize::new(0));
    let places: Arc<Mutex<HashMap<usize, String>>> = Arc::default();
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (phoenix, accepted, next, places) = (
                phoenix.clone(),
                accepted.clone(),
                next.clone(),
                places.clone(),
            );
            tokio::spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= jobs {
                        return;
                    }
                    let place = phoenix.submit("/echo", &format!("job-{i}"), body(i)).await;
                    places.lock().insert(i, place);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for (n, at) in at.into_iter().enumerate() {
        while accepted.load(Ordering::Relaxed) < at {
            sleep(Duration::from_millis(1)).await;
        }
        harm(n);
    }
    for client in join_all(clients).await {
        client.unwrap();
    }
    let places = places.lock().clone();
    let distinct: HashSet<_> = places.values().collect();
    assert_eq!(distinct.len(), jobs, "a key is one job");
    for (i, place) in places {
        let document = phoenix.over(&place).await;
        assert_eq!(document["state"], "succeeded", "{document}");
        let (status, result) = phoenix.get(&format!("{place}/result")).await;
        assert!(
            status == 200 && result == body(i),
            "job {i}: {status}, {} bytes",
            result.len()
        );
        let (_, events) = phoenix.get(&format!("{place}/events")).await;
        let events = String::from_utf8(events.to_vec()).unwrap();
        assert_eq!(events.matches("event: finished").count(), 1, "{events}");
        let attempts = document["attempts"].as_array().unwrap();
        let good = attempts
            .iter()
            .filter(|a| a["outcome"] == "succeeded")
            .count();
        assert_eq!(good, 1, "{document}");
    }
    let (_, list) = phoenix
        .get("/_tabane/jobs?state=queued,starting,running")
        .await;
    assert!(String::from_utf8_lossy(&list).contains("\"jobs\":[]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_with_a_202_ends_once_and_right_though_the_gateway_is_killed_at_random() {
    let nodes = nodes(3).await;
    let slots: Vec<_> = nodes.iter().map(|node| (node, 4)).collect();
    let yaml = format!("data_dir: data\n{}", any(&slots, "cool_down: 1ms"));
    let phoenix = Phoenix::rise(&yaml);
    under_harm(&phoenix, 1000, 5, 4, &|_| phoenix.die_and_rise()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_with_a_202_ends_once_and_right_though_nodes_are_killed_at_random() {
    let nodes = nodes(3).await;
    let slots: Vec<_> = nodes.iter().map(|node| (node, 4)).collect();
    let more = "cool_down: 1ms\njobs: {attempts: 50, backoff: [10ms]}";
    let yaml = format!("data_dir: data\n{}", any(&slots, more));
    let phoenix = Phoenix::rise(&yaml);
    let nodes = Mutex::new(nodes.into_iter().map(Some).collect::<Vec<_>>());
    let runtime = tokio::runtime::Handle::current();
    under_harm(&phoenix, 500, 12, 5, &|n| {
        let which = n % 3;
        let node = nodes.lock()[which].take().unwrap();
        let again = tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let address = node.kill().await;
                Node::start_at(address, Knobs::named("again", 4))
                    .await
                    .unwrap()
            })
        });
        nodes.lock()[which] = Some(again);
    })
    .await;
}
