//! Clients that come, read, stand still, leave and come again while frames of all sorts are sent, as a seed draws it.
//!
//! Held against: each hears what is never left out exactly once and in order, but for the one message that was on its way
//! when a newer socket came; of the rest a part, in order, and the latest of each; after a gap, the ends.

use crate::peer::{Peer, frame, of_node, preview, said};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use tabane_api::Message;
use tabane_comfyui::clients::Clients;
use tabane_comfyui::frames::{Event, Frame};
use tokio::task::yield_now;

const SEEDS: u64 = 300;
const STEPS: usize = 400;
const CLIENTS: usize = 3;

/// What is known of a frame by its number.
#[derive(Clone, PartialEq, Debug)]
enum Sort {
    Kept,
    Lasting,
    /// The latest of its key has to come.
    Passing(String),
}

#[derive(Default)]
struct Client {
    peer: Option<Peer>,
    /// Numbers of what has to come yet, in order.
    due: VecDeque<usize>,
    sorts: BTreeMap<usize, Sort>,
    /// Of what may be left out: the latest, sent since somebody is there.
    latest: BTreeMap<String, usize>,
    /// The number that was heard last, and whether it may come once more.
    last: Option<usize>,
    repeats: bool,
    greeted: bool,
    heard: usize,
}

fn number(message: &Message) -> Option<usize> {
    match message {
        Message::Text(text) if text.contains("sid") => None,
        Message::Text(text) => {
            let (_, rest) = text.split_once("\"n\": ").expect("a number");
            rest.split('}').next().unwrap().parse().ok()
        }
        Message::Binary(bytes) => {
            Some(u32::from_be_bytes(bytes[bytes.len() - 4..].try_into().unwrap()) as usize)
        }
    }
}

impl Client {
    fn hears(&mut self, message: &Message) {
        let Some(n) = number(message) else {
            assert!(!self.greeted, "greeted twice");
            self.greeted = true;
            return;
        };
        assert!(self.greeted, "{n} came before the greeting");
        self.heard += 1;
        let is_repeated = self.repeats && self.last == Some(n);
        self.repeats = false;
        if is_repeated {
            return;
        }
        assert!(self.last.is_none_or(|last| last < n), "{n} is late");
        self.last = Some(n);
        match &self.sorts[&n] {
            Sort::Passing(key) => {
                if self.latest.get(key) == Some(&n) {
                    self.latest.remove(key);
                }
            }
            _ => assert_eq!(self.due.pop_front(), Some(n), "out of turn"),
        }
    }

    fn is_sent(&mut self, n: usize, frame: &Frame, id: usize) -> Sort {
        let sort = match &frame.event {
            Event::Progress(_)
            | Event::Preview {
                is_result: false, ..
            } => Sort::Passing(format!("{:?} {:?}", frame.prompt, frame.event)),
            Event::Executed | Event::Success | Event::Executing(None) => Sort::Lasting,
            _ => Sort::Kept,
        };
        let is_here = self.peer.is_some();
        match &sort {
            Sort::Passing(key) if is_here => {
                self.latest.insert(key.clone(), n);
            }
            Sort::Passing(_) => {}
            sort if is_here || *sort == Sort::Lasting => self.due.push_back(n),
            _ => {}
        }
        assert!(id < CLIENTS);
        self.sorts.insert(n, sort.clone());
        sort
    }

    /// What was on its way to an older socket is not sent again if it may be left out.
    fn loses_one(&mut self) {
        let first = self.latest.iter().min_by_key(|(_, n)| **n);
        let first = first.map(|(key, n)| (key.clone(), *n));
        if let Some((key, n)) = first
            && self.due.front().is_none_or(|due| n < *due)
        {
            self.latest.remove(&key);
        }
    }

    /// Reads what is there, at most so much.
    fn reads(&mut self, most: usize) {
        for _ in 0..most {
            let arrived = self.peer.as_mut().and_then(Peer::arrived);
            let Some(message) = arrived else { return };
            self.hears(&message);
        }
    }
}

fn drawn(draw: &mut StdRng, n: usize) -> Frame {
    let prompt = ["p", "q"][draw.random_range(0..2)];
    let node = ["3", "4"][draw.random_range(0..2)];
    let image = (n as u32).to_be_bytes();
    match draw.random_range(0..10) {
        0 | 1 => of_node("progress", prompt, node, n),
        2 => preview(prompt, node, "jpeg", &image),
        3 | 4 => preview(prompt, node, "png", &image),
        5 => frame("execution_cached", prompt, n),
        6 => of_node("executed", prompt, node, n),
        7 => frame("execution_success", prompt, n),
        8 => said(&format!(
            r#"{{"type": "executing", "data": {{"node": null, "prompt_id": "{prompt}", "n": {n}}}}}"#
        )),
        _ => frame("notification", prompt, n),
    }
}

async fn run(seed: u64) -> usize {
    let draw = &mut StdRng::seed_from_u64(seed);
    let hub = Clients::default();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::default()).collect();
    for n in 0..STEPS {
        let id = draw.random_range(0..CLIENTS);
        let name = id.to_string();
        let client = &mut clients[id];
        match draw.random_range(0..40) {
            0..26 => {
                let frame = drawn(draw, n);
                client.is_sent(n, &frame, id);
                hub.send(&name, frame);
            }
            26..34 => client.reads(draw.random_range(1..6)),
            34..38 => {
                for _ in 0..draw.random_range(1..6) {
                    yield_now().await;
                }
            }
            // Another socket, while the one before is open.
            38 => {
                let new = Peer::connects(&hub, &name);
                let old = client.peer.replace(new);
                let first = client.peer.as_mut().unwrap().next().await.unwrap();
                if let Some(mut old) = old {
                    // What it got until then, and what was on its way.
                    while let Some(message) = old.arrived() {
                        client.hears(&message);
                    }
                    client.repeats = true;
                    client.loses_one();
                    let rest = old.leaves().await;
                    assert!(rest.len() <= 1, "the older one hears no more");
                    // It heard that twice, or will.
                    for message in &rest {
                        let due = client.due.front();
                        let sent = number(message);
                        let passing = matches!(client.sorts[&sent.unwrap()], Sort::Passing(_));
                        assert!(passing || sent.as_ref() == due);
                        if passing {
                            client.hears(message);
                            client.repeats = false;
                        }
                    }
                }
                client.greeted = false;
                client.hears(&first);
            }
            _ => {
                if let Some(peer) = client.peer.take() {
                    for message in peer.leaves().await {
                        client.hears(&message);
                    }
                    let sorts = &client.sorts;
                    client.due.retain(|n| sorts[n] == Sort::Lasting);
                    client.latest.clear();
                    client.repeats = false;
                }
            }
        }
        assert_eq!(hub.is_attached(&name), clients[id].peer.is_some());
    }
    let mut heard = 0;
    for (id, client) in clients.iter_mut().enumerate() {
        if client.peer.is_none() {
            let mut peer = Peer::connects(&hub, &id.to_string());
            client.greeted = false;
            client.hears(&peer.next().await.unwrap());
            client.peer = Some(peer);
        }
        let last = frame("notification", "p", STEPS);
        client.is_sent(STEPS, &last, id);
        hub.send(&id.to_string(), last);
        while client.last != Some(STEPS) {
            let message = client.peer.as_mut().unwrap().next().await.unwrap();
            client.hears(&message);
        }
        assert!(client.due.is_empty(), "{:?}", client.due);
        assert!(client.latest.is_empty(), "{:?}", client.latest);
        heard += client.heard;
    }
    heard
}

#[tokio::test]
async fn each_hears_what_is_never_left_out_once_and_in_order() {
    let mut heard = 0;
    for seed in 0..SEEDS {
        let run = tokio::spawn(run(seed)).await;
        heard += run.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(heard > SEEDS as usize * 50, "heard {heard}");
}

/// Threads of their own send, read and count; nobody is forgotten asleep.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sleeps_through_what_it_is_told() {
    const FRAMES: usize = 2000;
    let hub = Clients::default();
    let mut reading = Vec::new();
    for id in 0..8 {
        let name = id.to_string();
        let mut peer = Peer::greeted(&hub, &name).await;
        let hub = hub.clone();
        tokio::spawn(async move {
            for n in 0..FRAMES {
                hub.send(&name, of_node("progress", "p", "3", n));
                hub.send(&name, frame("executed", "p", n));
                hub.status(n as u64);
                if n % 7 == id {
                    yield_now().await;
                }
            }
        });
        reading.push(tokio::spawn(async move {
            let mut next = 0;
            while next < FRAMES {
                let text = peer.text().await;
                if text.contains("executed") {
                    assert!(text.contains(&format!("\"n\": {next}}}")), "{text}");
                    next += 1;
                }
            }
        }));
    }
    for reading in reading {
        reading.await.unwrap();
    }
}
