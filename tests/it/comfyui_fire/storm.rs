//! Everything at once, by chance: what was taken in ends once all the same.

use super::cancels::WAYS;
use super::watcher::{Ends, Watcher};
use super::{Farm, STUBBORN, eventually, times_made, times_taken, until_idle, word};
use crate::comfyui::client::Client;
use crate::comfyui::prompts::slow;
use crate::comfyui::{More, file, specs};
use crate::scene::shown;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::Submission;
use tabane_sim::comfy::ComfyKnobs;
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

/// Does the nodes some harm, or undoes it.
async fn blow(farm: &mut Farm, dead: &mut HashSet<usize>, draw: &mut StdRng) {
    let at = draw.random_range(0..farm.nodes.len());
    match draw.random_range(0..16) {
        0 | 1 if dead.len() + 2 < farm.nodes.len() => {
            farm.nodes[at].crash().await;
            dead.insert(at);
        }
        0..=3 => {
            farm.nodes[at].restart().await.unwrap();
            dead.remove(&at);
        }
        4 | 5 => farm.nodes[at].cut_sockets(),
        6 | 7 => farm.nodes[at].set(|knobs| knobs.silent_sockets ^= true),
        8 => farm.nodes[at].set(|knobs| knobs.hang ^= true),
        9 => farm.nodes[at].set(|knobs| knobs.frozen ^= true),
        10 => farm.nodes[at].drop_connections(),
        11 => farm.nodes[at].set(|knobs| {
            knobs.view_status = knobs.view_status.xor(Some(500));
        }),
        12 => {
            farm.nodes[at].set(|knobs| knobs.history_lag_ms = 400 - knobs.history_lag_ms.min(400))
        }
        13 => farm.nodes[at].set(|knobs| knobs.take_ms = 300 - knobs.take_ms.min(300)),
        14 => farm.nodes[at].set(|knobs| {
            knobs.submission = match knobs.submission {
                Submission::Answer => Submission::DropAfter,
                Submission::DropAfter => Submission::DropBefore,
                _ => Submission::Answer,
            };
        }),
        _ => {
            let most = draw.random_range(2..=farm.nodes.len());
            let mut pool: Vec<String> = ('a'..).take(farm.nodes.len()).map(String::from).collect();
            pool.rotate_left(at);
            pool.truncate(most);
            reload(farm, &pool).await;
        }
    }
}

async fn reload(farm: &Farm, pool: &[String]) {
    let reloaded = farm.scene.reload(&file(&farm.nodes, pool, farm.more)).await;
    reloaded.unwrap_or_else(|problems| panic!("{}", shown(&problems)));
}

/// All nodes are well again.
async fn calm(farm: &mut Farm, dead: HashSet<usize>) {
    for node in &farm.nodes {
        node.set(|knobs| *knobs = ComfyKnobs::default());
    }
    for at in dead {
        farm.nodes[at].restart().await.unwrap();
    }
    let pool: Vec<String> = ('a'..).take(farm.nodes.len()).map(String::from).collect();
    reload(farm, &pool).await;
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
        blow(&mut farm, &mut dead, &mut draw).await;
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
    calm(&mut farm, dead).await;
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
