//! How letters fare on their way.

use super::fakes::{Got, SECRET, Scene, answered, letter};
use crate::jobs::webhook::{Guard, Outcome, Post, Signer, new_secret};
use crate::store::Delivery;
use async_trait::async_trait;
use http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use standardwebhooks::Webhook;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

const URL: &str = "https://hooks.example/a";
const MINUTE: i64 = 60_000;

/// What the receiver does with a letter: it signs it itself, with its own crate, and compares.
fn verify(got: &Got, secret: &str) {
    let header = |name: &str| got.headers[name].to_str().unwrap().to_owned();
    let at = header("webhook-timestamp").parse().unwrap();
    let signed = Webhook::new(secret).unwrap();
    let signed = signed.sign(&got.id, at, got.body.as_bytes()).unwrap();
    assert!(header("webhook-signature").split(' ').any(|s| s == signed));
}

#[tokio::test]
async fn a_receiver_that_is_down_for_an_hour_gets_every_letter_in_order() {
    let up = Arc::new(AtomicBool::new(false));
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let (is_up, takes) = (up.clone(), taken.clone());
    let scene = Scene::new(move |got| {
        if !is_up.load(Ordering::Relaxed) {
            return Outcome::Failed("cannot connect".into());
        }
        takes.lock().push(got.id.clone());
        answered(204)
    });
    for minute in 0..60 {
        if minute % 20 == 0 {
            for job in ["a", "b", "c"] {
                scene.write(&format!("{job}{minute:02}"), job, URL);
            }
        }
        scene.run_out().await;
        scene.pass_ms(MINUTE);
    }
    assert!(taken.lock().is_empty());
    up.store(true, Ordering::Relaxed);
    let came_up = scene.now();
    for _ in 0..3 * 60 {
        scene.run_out().await;
        scene.pass_ms(MINUTE);
    }
    let mut by_job: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in taken.lock().iter() {
        by_job
            .entry(id[..1].to_owned())
            .or_default()
            .push(id.clone());
    }
    assert_eq!(by_job.len(), 3);
    for (job, ids) in by_job {
        let wants: Vec<String> = ["00", "20", "40"]
            .iter()
            .map(|n| format!("{job}{n}"))
            .collect();
        assert_eq!(ids, wants);
    }
    for got in scene.receiver.got.lock().iter() {
        verify(got, SECRET);
        assert_eq!(got.headers["content-type"], "application/json");
    }
    for letter in scene.outbox.all() {
        // Down for an hour costs at most the step of the ladder that was begun then.
        assert!(
            letter.delivered.unwrap().0 < came_up.0 + 150 * MINUTE,
            "{letter:?}"
        );
    }
}

#[tokio::test]
async fn a_try_is_signed_with_the_time_of_the_try() {
    let scene = Scene::new(|_| answered(500));
    scene.write("m1", "a", URL);
    scene.run_out().await;
    scene.pass_ms(MINUTE);
    scene.run_out().await;
    let got = scene.receiver.got.lock().clone();
    let times: Vec<_> = got
        .iter()
        .map(|got| got.headers["webhook-timestamp"].clone())
        .collect();
    assert_eq!(times, ["1700000000", "1700000060"]);
    assert_eq!(got[0].id, got[1].id);
    got.iter().for_each(|got| verify(got, SECRET));
}

#[tokio::test]
async fn a_new_secret_and_a_new_list_count_from_the_next_try_on() {
    let scene = Scene::new(|_| answered(500));
    scene.write("m1", "a", URL);
    scene.run_out().await;
    let next = new_secret();
    let both = Signer::new([next.as_str(), SECRET]).unwrap();
    scene.deliverer.signer.store(Arc::new(both));
    scene.pass_ms(MINUTE);
    scene.run_out().await;
    let got = scene.receiver.got.lock()[1].clone();
    verify(&got, SECRET);
    verify(&got, &next);

    let elsewhere = Guard::new(["elsewhere.example"]).unwrap();
    scene.deliverer.guard.store(Arc::new(elsewhere));
    scene.pass_ms(60 * MINUTE);
    scene.run_out().await;
    assert_eq!(scene.receiver.got.lock().len(), 2);
    let fate = scene.fate("m1");
    assert_eq!(fate.due, None);
    let why = fate.last.unwrap();
    assert!(why.contains("`webhooks.allow` does not list it"), "{why}");
}

#[tokio::test]
async fn an_address_that_is_gone_gets_no_more_letters() {
    let scene = Scene::new(|got| match got.url.ends_with("/gone") {
        true => answered(410),
        false => answered(200),
    });
    let gone = "https://hooks.example/gone";
    for n in 0..20 {
        scene.write(&format!("g{n:02}"), &format!("job{n}"), gone);
        scene.write(&format!("x{n:02}"), &format!("job{n}"), URL);
    }
    scene.run_out().await;
    let to_gone = scene.ids().iter().filter(|id| id.starts_with('g')).count();
    // Those that were on their way when the first answer came.
    assert_eq!(to_gone, 4);
    for letter in scene.outbox.all() {
        assert_eq!(letter.due, None);
        let taken = letter.delivered.is_some();
        assert_eq!(taken, *letter.letter.url == *URL, "{letter:?}");
        assert!(taken || letter.last.unwrap().contains("410 Gone"));
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let scene = Scene::new(|_| Outcome::Answered {
        status: StatusCode::TOO_MANY_REQUESTS,
        retry_after: Some("600".into()),
    });
    scene.write("m1", "a", URL);
    scene.run_out().await;
    for _ in 0..10 {
        assert_eq!(scene.ids().len(), 1);
        scene.pass_ms(MINUTE);
        scene.run_out().await;
    }
    // The asked time, and its jitter.
    scene.pass_ms(MINUTE);
    scene.run_out().await;
    assert_eq!(scene.ids().len(), 2);
}

#[tokio::test]
async fn hundreds_of_letters_to_a_dead_host_cost_four_timeouts_and_hold_up_nobody() {
    let scene = Scene::new(|got| match got.url.contains("DEAD") {
        true => Outcome::TimedOut,
        false => answered(200),
    });
    for n in 0..100 {
        scene.write(
            &format!("d{n:02}"),
            &format!("job{n}"),
            "https://DEAD.example/",
        );
    }
    scene.write("m1", "a", URL);
    assert_eq!(scene.deliverer.run_due().await, 101);
    let ids = scene.ids();
    assert_eq!(ids.len(), 5, "{ids:?}");
    assert!(ids.contains(&"m1".to_owned()));
    for letter in scene.outbox.all() {
        let dead = letter.letter.id.starts_with('d');
        assert_eq!(letter.due.is_some(), dead, "{letter:?}");
    }
}

#[tokio::test]
async fn what_one_letter_comes_to_does_not_count_against_its_host() {
    let scene = Scene::new(|got| match &*got.id {
        "slow" => Outcome::TimedOut,
        id if id.starts_with("bad") => answered(400),
        _ => answered(200),
    });
    scene.write("slow", "slow", URL);
    for n in 0..7 {
        scene.write(&format!("bad{n}"), &format!("bad{n}"), URL);
    }
    scene.write("m1", "a", URL);
    scene.deliverer.run_due().await;
    assert_eq!(scene.ids().len(), 9);
    assert!(scene.fate("m1").delivered.is_some());
}

#[tokio::test]
async fn what_cannot_be_kept_is_sent_again_under_the_same_id() {
    let scene = Scene::new(|_| answered(200));
    scene.write("m1", "a", URL);
    scene.outbox.full.store(true, Ordering::Relaxed);
    assert_eq!(scene.deliverer.run_due().await, 0);
    assert!(scene.counted.lock().is_empty());
    scene.outbox.full.store(false, Ordering::Relaxed);
    assert_eq!(scene.deliverer.run_due().await, 1);
    assert_eq!(scene.ids(), ["m1", "m1"]);
    assert_eq!(*scene.counted.lock(), [Delivery::Delivered]);
}

/// Counts how many letters are on their way.
#[derive(Default)]
struct Busy {
    now: Mutex<BTreeMap<String, usize>>,
    most_per_host: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Post for Busy {
    async fn post(&self, url: &Uri, _: HeaderMap, _: String) -> Outcome {
        let host = url.host().unwrap().to_owned();
        {
            let mut now = self.now.lock();
            *now.entry(host.clone()).or_default() += 1;
            self.most_per_host.fetch_max(now[&host], Ordering::Relaxed);
            self.most.fetch_max(now.values().sum(), Ordering::Relaxed);
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        *self.now.lock().get_mut(&host).unwrap() -= 1;
        answered(200)
    }
}

#[tokio::test]
async fn no_more_than_64_are_on_their_way_and_four_to_one_host() {
    let busy = Arc::new(Busy::default());
    let mut scene = Scene::new(|_| answered(200));
    scene.deliverer.post = busy.clone();
    for n in 0..480 {
        scene.write(
            &format!("m{n}"),
            &format!("job{n}"),
            &format!("https://h{}.example/", n % 20),
        );
    }
    scene.run_out().await;
    assert_eq!(busy.most_per_host.load(Ordering::Relaxed), 4);
    assert_eq!(busy.most.load(Ordering::Relaxed), 64);
    assert!(
        scene
            .outbox
            .all()
            .iter()
            .all(|letter| letter.delivered.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn a_letter_goes_out_when_it_is_written_and_when_it_is_due() {
    let (sees, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let fails = AtomicBool::new(true);
    let scene = Scene::new(move |got| {
        sees.send(got.id.clone()).unwrap();
        answered(if fails.swap(false, Ordering::Relaxed) {
            500
        } else {
            200
        })
    });
    let Scene {
        outbox,
        mut deliverer,
        ..
    } = scene;
    // The clock of letters is that of the paused runtime.
    let began = tokio::time::Instant::now();
    deliverer.clock = Arc::new(move || crate::store::Moment(began.elapsed().as_millis() as i64));
    let clock = deliverer.clock.clone();
    let written = Arc::new(tokio::sync::Notify::new());
    let bell = written.clone();
    let running = tokio::spawn(deliverer.run(move || {
        let bell = bell.clone();
        async move { bell.notified().await }
    }));
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    outbox.write(letter("m1", "a", URL), clock());
    written.notify_one();
    assert_eq!(seen.recv().await.unwrap(), "m1");
    assert_eq!(began.elapsed().as_millis(), 500);
    // Nobody rings for the second try.
    assert_eq!(seen.recv().await.unwrap(), "m1");
    let waited = began.elapsed().as_millis();
    assert!((6_000..9_000).contains(&waited), "{waited}");
    running.abort();
}

#[tokio::test]
async fn each_fate_is_counted_once() {
    let tries = AtomicI64::new(0);
    let scene = Scene::new(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => answered(302),
        _ => answered(200),
    });
    scene.write("m1", "a", URL);
    scene.write("m2", "b", "https://elsewhere.invalid/");
    scene.run_out().await;
    scene.pass_ms(MINUTE);
    scene.run_out().await;
    let counted = scene.counted.lock();
    let words: Vec<_> = counted
        .iter()
        .map(|fate| match fate {
            Delivery::Delivered => "delivered",
            Delivery::Again { .. } => "again",
            Delivery::GivenUp { .. } => "given up",
        })
        .collect();
    assert_eq!(words, ["given up", "again", "delivered"]);
    let ids: BTreeSet<_> = scene.ids().into_iter().collect();
    assert_eq!(ids, BTreeSet::from(["m1".to_owned()]));
}
