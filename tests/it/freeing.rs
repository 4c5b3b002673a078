//! Attempts whose node is done with them before they are over, and what is learned of how long they take.

use crate::keeper::{Desk, doing, work};
use crate::scene::{Scene, eventually, nodes};
use crate::taking_in::{at, data_in, keeper, restart, start};
use http::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tabane_api::{JobState, Stop, Work};
use tabane_sim::pattern;
use tokio::time::sleep;

async fn used(scene: &Scene) -> f64 {
    scene.metric("tabane_endpoint_slots_used").await
}

/// Seconds that work of the class `keep` is taken to run on the first endpoint.
async fn run_s(scene: &Scene) -> f64 {
    let path = "/api/v1/explain?service=any&path=/x&class=keep";
    let explained: Value = scene.admin(Method::GET, path).await.json();
    let terms = &explained["candidates"][0]["terms"];
    terms["run_s"].as_f64().unwrap() + terms["load_s"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_given_on_when_its_node_is_done_and_is_not_given_back_twice() {
    let nodes = nodes(1).await;
    let desk = Desk::of("frees");
    let scene = start(&keeper("frees", &nodes, "")).await;
    let host = desk.host().await;
    let steps = "wait:node,freed,freed,wait:fetched";
    let first = host.submit(doing("first", steps)).await.unwrap();
    desk.until_runs("first").await;
    let second = host.submit(doing("second", "wait:second")).await.unwrap();
    let third = host.submit(doing("third", "wait:third")).await.unwrap();
    assert_eq!(desk.runs().len(), 1);
    desk.say("node");
    desk.until_runs("second").await;
    assert_eq!(desk.states(&first.id).last(), Some(&JobState::Starting));
    assert_eq!(used(&scene).await, 1.0);
    // Its end frees nothing: the second has the slot still.
    desk.say("fetched");
    desk.until_told(&first.id, JobState::Succeeded).await;
    host.changed();
    assert_eq!((desk.runs().len(), used(&scene).await), (2, 1.0));
    assert_eq!(desk.states(&third.id), [JobState::Queued]);
    desk.say("second");
    desk.until_told(&second.id, JobState::Succeeded).await;
    desk.until_runs("third").await;
    desk.say("third");
    desk.until_told(&third.id, JobState::Succeeded).await;
    scene.until_metric("tabane_endpoint_slots_used", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_given_on_while_what_came_of_the_work_is_still_read() {
    let nodes = nodes(1).await;
    let desk = Desk::of("reads");
    let scene = start(&keeper("reads", &nodes, "")).await;
    let host = desk.host().await;
    // It says so with its last breath.
    let first = host
        .submit(doing("first", "later:read,freed"))
        .await
        .unwrap();
    let second = host.submit(work("second")).await.unwrap();
    desk.until_told(&second.id, JobState::Succeeded).await;
    assert_eq!(desk.states(&first.id).last(), Some(&JobState::Starting));
    desk.say("read");
    desk.until_told(&first.id, JobState::Succeeded).await;
    assert_eq!(used(&scene).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_slot_is_given_on_ends_as_any_other() {
    let nodes = nodes(2).await;
    let desk = Desk::of("ends");
    let more = "jobs: {timeout: 2s, backoff: [1ms], attempts: 2}\ncool_down: 1m";
    let yaml = keeper("ends", &nodes, more);
    let scene = start(&yaml).await;
    let host = desk.host().await;
    let mut over = Vec::new();
    for (name, steps, state) in [
        ("canceled", "freed,wait:never", JobState::Canceled),
        ("timeout", "freed,wait:never", JobState::Dead),
        ("lost", "freed,again:x", JobState::Succeeded),
        ("panic", "freed,panic", JobState::Dead),
        ("failed", "freed,failed", JobState::Failed),
    ] {
        let job = host.submit(doing(name, steps)).await.unwrap();
        desk.until_runs(name).await;
        if name == "canceled" {
            eventually("its slot is free", || {
                host.endpoints().iter().all(|at| at.used == 0)
            })
            .await;
            host.cancel(&job.id).await.unwrap();
        }
        desk.until_told(&job.id, state).await;
        over.push((job, state));
    }
    let stopped: Vec<Stop> = desk.stops().into_iter().map(|(_, why)| why).collect();
    assert_eq!(stopped, [Stop::Cancel, Stop::Timeout]);
    // Nothing cools that was given on before.
    assert_eq!(used(&scene).await, 0.0);
    assert_eq!(scene.metric("tabane_endpoint_slots_cooling").await, 0.0);
    for (job, state) in over {
        let views = desk.views(&job.id);
        let ends = views.iter().filter(|view| view.state.is_over()).count();
        assert_eq!((ends, views.last().unwrap().state), (1, state));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_work_is_fetched_from_a_node_that_left_meanwhile() {
    let nodes = nodes(2).await;
    let desk = Desk::of("leaves");
    let yaml = keeper("leaves", &nodes, "policy: first");
    let scene = start(&yaml).await;
    let host = desk.host().await;
    let job = host.submit(doing("w", "freed,wait:fetched")).await.unwrap();
    assert_eq!(desk.until_runs("w").await.on, "a/http");
    scene
        .reload(&yaml.replace("pool: [a, b]", "pool: [b]"))
        .await
        .unwrap();
    scene.until_state("a/http", "gone").await;
    desk.say("fetched");
    desk.until_told(&job.id, JobState::Succeeded).await;
    assert_eq!(desk.runs().len(), 1);
    let held = host.submit(doing("held", "wait:held")).await.unwrap();
    assert_eq!(desk.until_runs("held").await.on, "b/http");
    desk.say("held");
    desk.until_told(&held.id, JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_slot_was_given_on_is_taken_up_again_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let nodes = nodes(1).await;
    let desk = Desk::of("resumes");
    let yaml = data_in(data.path(), &keeper("resumes", &nodes, ""));
    let scene = start(&yaml).await;
    let host = desk.host().await;
    let first = host
        .submit(doing("first", "handle:1,freed,wait:first"))
        .await
        .unwrap();
    desk.until_told(&first.id, JobState::Running).await;
    let second = host
        .submit(doing("second", "handle:2,wait:second"))
        .await
        .unwrap();
    desk.until_told(&second.id, JobState::Running).await;
    let waits = host.submit(work("waits")).await.unwrap();
    let scene = restart(scene, &yaml).await;
    let again = |name: &str| {
        let runs = desk.runs();
        runs.iter()
            .filter(|run| run.work.as_deref() == Some(name))
            .count()
            == 2
    };
    eventually("both are taken up again", || {
        again("first") && again("second")
    })
    .await;
    // One of the two frees its slot at once, and the other has the only one there is.
    scene.until_metric("tabane_endpoint_slots_used", 1.0).await;
    assert_eq!(desk.states(&waits.id), [JobState::Queued]);
    desk.say("second");
    desk.until_told(&waits.id, JobState::Succeeded).await;
    desk.say("first");
    for job in [&first, &second] {
        desk.until_told(&job.id, JobState::Succeeded).await;
    }
    scene.until_metric("tabane_endpoint_slots_used", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_learned_is_how_long_the_node_took_and_nothing_of_what_is_untypical() {
    let nodes = nodes(1).await;
    let desk = Desk::of("learns");
    let scene = start(&keeper("learns", &nodes, "policy: match")).await;
    let host = desk.host().await;
    let unknown_s = run_s(&scene).await;
    let untypical = ["untypical", "untypical,freed,wait:a", "wait:a,untypical"];
    for steps in untypical.iter().chain(&["failed", "impossible"]) {
        let job = host.submit(doing("w", steps)).await.unwrap();
        desk.say("a");
        scene.over(&at(&job.id)).await;
        assert_eq!(run_s(&scene).await, unknown_s, "{steps}");
    }
    let began = Instant::now();
    let job = host.submit(doing("w", "freed,wait:fetched")).await.unwrap();
    desk.until_runs("w").await;
    eventually("its slot is free", || host.endpoints()[0].used == 0).await;
    let node_s = began.elapsed().as_secs_f64();
    // Fetching takes as long again, and more.
    sleep(Duration::from_secs_f64(2.0 * node_s + 0.3)).await;
    desk.say("fetched");
    desk.until_told(&job.id, JobState::Succeeded).await;
    let learned_s = run_s(&scene).await;
    assert!(learned_s <= node_s, "{learned_s} {node_s}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_at_its_node_is_canceled_and_what_is_left_of_it_is_kept() {
    let nodes = nodes(1).await;
    let desk = Desk::of("taken-back");
    let scene = start(&keeper("taken-back", &nodes, "")).await;
    let host = desk.host().await;
    let left = Work {
        body: pattern(100_000),
        ..doing("w", "canceled")
    };
    let job = host.submit(left).await.unwrap();
    let canceled = desk.until_told(&job.id, JobState::Canceled).await;
    assert_eq!((canceled.has_result, canceled.error), (true, None));
    assert!(desk.stops().is_empty());
    let kept = host.result(&job.id).await.unwrap().unwrap();
    assert!(kept.to_bytes(1 << 20).await.unwrap() == pattern(100_000));
    let document = scene.get(&at(&job.id)).await.json();
    assert_eq!(document["state"], "canceled");
    assert_eq!(document["attempts"][0]["outcome"], "canceled");
    let result = scene.get(&format!("{}/result", at(&job.id))).await;
    assert_eq!(result.status, StatusCode::CREATED, "as its kind made it");
    assert!(result.body == pattern(100_000));
    // It may wait again, and is canceled again.
    let again = scene
        .ask("POST", &format!("{}/retry", at(&job.id)))
        .send()
        .await;
    assert_eq!(again.status, 202);
    assert_eq!(scene.over(&at(&job.id)).await["state"], "canceled");
    assert_eq!(desk.runs().len(), 2);
    assert_eq!(used(&scene).await, 0.0);
}
