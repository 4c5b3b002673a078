//! Everything at once, by chance: what was taken in ends once all the same.

use super::cancels::WAYS;
use super::gateway::{phoenix, submit, uuid};
use super::watcher::{Ends, Watcher};
use super::{Farm, STUBBORN, eventually, times_made, times_taken, until_idle, word};
use crate::comfyui::client::Client;
use crate::comfyui::prompts::slow;
use crate::comfyui::{More, file, specs};
use crate::scene::shown;
use futures::future::join_all;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::Submission;
use tabane_sim::comfy::{ComfyKnobs, ComfyNode};
use tokio::time::sleep;

const CLIENTS: [&str; 4] = ["one", "two", "three", "four"];

/// So many prompts of each.
const EACH: usize = 18;

/// So many blows.
const BLOWS: usize = 80;

/// A prompt that was taken in: whose it is, by its place, and its id.
type Taken = (usize, String);

async fn submits(client: Client, i: usize, seed: u64, all: Arc<Mutex<Vec<Taken>>>) {
    let mut draw = StdRng::seed_from_u64(seed + i as u64);
    for n in 0..EACH {
        let seconds = f64::from(draw.random_range(0..40)) / 100.0;
        let id = client.submit(&slow(seconds, (100 * i + n) as u32)).await;
        all.lock().push((i, id));
        sleep(Duration::from_millis(draw.random_range(0..200))).await;
    }
}

/// Does the nodes some harm, or undoes it. `Some`: these should be the pool from now on.
async fn blow(
    nodes: &mut [ComfyNode],
    dead: &mut HashSet<usize>,
    draw: &mut StdRng,
) -> Option<Vec<String>> {
    let at = draw.random_range(0..nodes.len());
    match draw.random_range(0..16) {
        0 | 1 if dead.len() + 2 < nodes.len() => {
            nodes[at].crash().await;
            dead.insert(at);
        }
        0..=3 => {
            nodes[at].restart().await.unwrap();
            dead.remove(&at);
        }
        4 | 5 => nodes[at].cut_sockets(),
        6 | 7 => nodes[at].set(|knobs| knobs.silent_sockets ^= true),
        8 => nodes[at].set(|knobs| knobs.hang ^= true),
        9 => nodes[at].set(|knobs| knobs.frozen ^= true),
        10 => nodes[at].drop_connections(),
        11 => nodes[at].set(|knobs| {
            knobs.view_status = knobs.view_status.xor(Some(500));
        }),
        12 => nodes[at].set(|knobs| knobs.history_lag_ms = 400 - knobs.history_lag_ms.min(400)),
        13 => nodes[at].set(|knobs| knobs.take_ms = 300 - knobs.take_ms.min(300)),
        14 => nodes[at].set(|knobs| {
            knobs.submission = match knobs.submission {
                Submission::Answer => Submission::DropAfter,
                Submission::DropAfter => Submission::DropBefore,
                _ => Submission::Answer,
            };
        }),
        _ => {
            let most = draw.random_range(2..=nodes.len());
            let mut pool = names(nodes.len());
            pool.rotate_left(at);
            pool.truncate(most);
            return Some(pool);
        }
    }
    None
}

fn names(n: usize) -> Vec<String> {
    ('a'..).take(n).map(String::from).collect()
}

/// All nodes are well again.
async fn calm(nodes: &mut [ComfyNode], dead: HashSet<usize>) {
    for node in &*nodes {
        node.set(|knobs| *knobs = ComfyKnobs::default());
    }
    for at in dead {
        nodes[at].restart().await.unwrap();
    }
}

async fn reload(farm: &Farm, pool: &[String]) {
    let reloaded = farm.scene.reload(&file(&farm.nodes, pool, farm.more)).await;
    reloaded.unwrap_or_else(|problems| panic!("{}", shown(&problems)));
}

async fn storm(seed: u64) {
    let more = More {
        health: "timeout: 500ms, stall_after: 2s, eject_after: 1000",
        ..STUBBORN
    };
    let mut farm = Farm::start(specs(4), more).await;
    let mut watchers = Vec::new();
    for name in CLIENTS {
        watchers.push(Watcher::of(farm.scene.address(), name).await);
    }
    let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
    let at_work: Vec<_> = (0..CLIENTS.len())
        .map(|i| tokio::spawn(submits(farm.client(CLIENTS[i]), i, seed, taken.clone())))
        .collect();
    let mut draw = StdRng::seed_from_u64(seed);
    let mut dead = HashSet::new();
    let mut taken_back = HashSet::new();
    let cancels = farm.client("cancels");
    for n in 0..BLOWS {
        sleep(Duration::from_millis(draw.random_range(0..250))).await;
        if let Some(pool) = blow(&mut farm.nodes, &mut dead, &mut draw).await {
            reload(&farm, &pool).await;
        }
        if n % 3 == 0 {
            let chosen = {
                let all = taken.lock();
                (!all.is_empty()).then(|| all[draw.random_range(0..all.len())].clone())
            };
            if let Some((_, id)) = chosen {
                let path = WAYS[n / 3 % WAYS.len()].replace("ID", &id);
                let body = json!({"prompt_id": id, "delete": [id]});
                taken_back.insert(id);
                let cancels = cancels.clone();
                // A node that hangs is told for as long as it takes.
                tokio::spawn(async move { cancels.post(&path, &body).await });
            }
        }
    }
    calm(&mut farm.nodes, dead).await;
    reload(&farm, &names(farm.nodes.len())).await;
    for works in at_work {
        works.await.unwrap();
    }
    let taken = taken.lock().clone();
    assert_eq!(taken.len(), CLIENTS.len() * EACH);

    let looks = farm.client("looks");
    eventually("the queue is empty", async || {
        let (running, waiting) = looks.queue().await;
        running.len() + waiting.len() == 0
    })
    .await;
    let history = looks.get("/history").await.json();
    for (i, id) in &taken {
        let hears = &watchers[*i];
        let Some(entry) = history.get(id) else {
            assert!(taken_back.contains(id), "{seed}: {id} is lost");
            assert_eq!(hears.ends(id).nulls, 0, "{seed}: {id}");
            continue;
        };
        hears.until_ended(id).await;
        let how = word(entry);
        assert_eq!(hears.ends(id), Ends::once(how), "{seed}: {id}");
        if !taken_back.contains(id) {
            assert_eq!(how, "execution_success", "{seed}: {id} {entry}");
            assert!(times_made(&farm.nodes, id) > 0);
            assert_eq!(looks.images(entry).await.len(), 1);
        }
    }
    let again = taken
        .iter()
        .filter(|(_, id)| times_taken(&farm.nodes, id) > 1);
    assert!(again.count() > 0, "{seed}: some were lost and made again");
    for hears in &watchers {
        assert_eq!(hears.sockets(), 1, "{seed}: no client's socket was dropped");
    }
    until_idle(&farm.nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_nodes_what_was_taken_in_ends_once_and_nothing_is_left() {
    storm(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_otherwise_too() {
    storm(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_nodes_and_the_gateway_what_was_taken_in_ends_well() {
    const ALL: usize = 40;
    let (mut nodes, phoenix) = phoenix(3).await;
    let hears = Watcher::of(phoenix.address(), "c").await;
    let submits = join_all((0..ALL).map(|i| {
        let phoenix = phoenix.clone();
        async move {
            sleep(Duration::from_millis(150 * i as u64)).await;
            let prompt = slow(0.05 * (i % 8) as f64, i as u32);
            submit(&phoenix, "c", &uuid(i), &prompt).await;
        }
    }));
    let blows = async {
        let mut draw = StdRng::seed_from_u64(3);
        let mut dead = HashSet::new();
        for n in 1..=BLOWS {
            sleep(Duration::from_millis(draw.random_range(0..200))).await;
            blow(&mut nodes, &mut dead, &mut draw).await;
            if n % 20 == 0 {
                match n % 40 == 0 {
                    true => phoenix.end_and_rise(),
                    false => phoenix.die_and_rise(),
                }
                hears.moves_to(phoenix.address());
            }
        }
        calm(&mut nodes, dead).await;
    };
    tokio::join!(submits, blows);
    let looks = Client::new(phoenix.address(), "looks");
    for i in 0..ALL {
        let entry = looks.finished(&uuid(i)).await;
        assert_eq!(word(&entry), "execution_success", "{entry}");
        assert_eq!(looks.images(&entry).await.len(), 1);
        hears.until_ended(&uuid(i)).await;
        let words: HashSet<String> = hears.ends(&uuid(i)).words.into_iter().collect();
        assert_eq!(words, HashSet::from(["execution_success".to_owned()]));
    }
    looks.until_queue(0, 0).await;
    until_idle(&nodes).await;
}
