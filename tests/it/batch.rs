//! Long work on servers that are asked for it or call back: it outlives the gateway, and is handed over once.

use crate::crash::Phoenix;
use crate::scene::Scene;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tabane_sim::{Knobs, Node, Submission};
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(60);

/// A service on one node that is asked for its jobs.
fn polled(node: &Node, poll: &str, jobs: &str) -> String {
    format!(
        r#"
data_dir: data
nodes: {{a: {{url: "{}", slots: 3}}}}
services:
  any:
    kind:
      batch:
        probe: /health
        poll:
          id: /id
          status: "/jobs/{{id}}"
          state: /status
          done: [done]
          failed: [failed]
          canceled: [canceled]
          result: "/jobs/{{id}}/result"
          cancel: {{method: DELETE, path: "/jobs/{{id}}"}}
          every: 20ms
          lost_after: 500ms
{poll}
    health: {{interval: 50ms, interval_down: 50ms, timeout: 300ms, rise: 1, fall: 2}}
    jobs: {{mode: always, {jobs}}}
    cool_down: 10m
    pool: [a]
    routes: [/]
"#,
        node.url()
    )
}

async fn holding(slots: u32) -> Node {
    let knobs = Knobs {
        hold_jobs: true,
        ..Knobs::named("a", slots)
    };
    Node::start(knobs).await.unwrap()
}

async fn until_running(phoenix: &Arc<Phoenix>, job: &str) {
    let running = async {
        loop {
            let (_, document) = phoenix.get(job).await;
            let document: Value = serde_json::from_slice(&document).unwrap();
            if document["state"] == "running" {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, running).await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_on_a_node_outlives_the_gateway_and_is_not_handed_over_again() {
    let node = holding(3).await;
    let phoenix = Phoenix::rise(&polled(&node, "", ""));
    let mut jobs = Vec::new();
    for key in ["k0", "k1", "k2"] {
        let body = format!("{{\"key\": \"{key}\"}}");
        jobs.push((key, phoenix.submit("/jobs", key, body.into()).await));
    }
    for (_, job) in &jobs {
        // Then its handle is on disk.
        until_running(&phoenix, job).await;
    }
    phoenix.die_and_rise();
    node.set(|knobs| knobs.hold_jobs = false);
    for (key, job) in &jobs {
        let document = phoenix.over(job).await;
        assert_eq!(document["state"], "succeeded", "{document}");
        let (status, result) = phoenix.get(&format!("{job}/result")).await;
        let result: Value = serde_json::from_slice(&result).unwrap();
        assert_eq!(status, 200);
        assert_eq!(result["body"], format!("{{\"key\": \"{key}\"}}"));
        assert_eq!(node.seen().submits[*key], 1);
    }
    assert_eq!(node.seen().over_slots, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_being_handed_over_when_the_gateway_died_follows_on_unknown() {
    let find = r#"
          submit: {headers: {Idempotency-Key: "{attempt}"}}
          find: {path: "/jobs?attempt={attempt}", id: /jobs/0/id}
"#;
    for (poll, jobs, state, submits) in [
        ("", "on_unknown: fail", "dead", 1),
        ("", "on_unknown: resubmit", "succeeded", 2),
        (find, "on_unknown: fail", "succeeded", 1),
    ] {
        let node = Node::start(Knobs {
            submission: Submission::Hang,
            ..Knobs::named("a", 3)
        });
        let node = node.await.unwrap();
        let phoenix = Phoenix::rise(&polled(&node, poll, jobs));
        let job = phoenix
            .submit("/jobs", "k", "{\"key\": \"k\"}".into())
            .await;
        timeout(
            LONG,
            node.until(|seen| seen.submits.contains_key("k") && seen.jobs_ended == 1),
        )
        .await
        .expect("the node has it");
        node.set(|knobs| knobs.submission = Submission::Answer);
        phoenix.die_and_rise();
        let document = phoenix.over(&job).await;
        assert_eq!(document["state"], state, "{jobs}: {document}");
        assert_eq!(node.seen().submits["k"], submits, "{jobs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_taken_back_is_stopped_on_its_node_and_its_slot_is_free() {
    let node = holding(3).await;
    let yaml = polled(&node, "", "").replace("slots: 3", "slots: 1");
    let scene = Scene::start(&yaml).await;
    let job = scene.submit("/jobs", "{}").await;
    scene.until_job(&job, "running").await;
    scene.ask("DELETE", &job).send().await;
    assert_eq!(scene.over(&job).await["state"], "canceled");
    // It was stopped before its end was written.
    let seen = node.seen();
    assert_eq!((seen.jobs_canceled, seen.jobs_ended), (1, 0));
    // Without a word from the node, the slot would cool for ten minutes.
    node.set(|knobs| knobs.hold_jobs = false);
    let next = scene.submit("/jobs", "{}").await;
    assert_eq!(scene.over(&next).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_a_node_forgets_is_handed_over_again() {
    let node = holding(3).await;
    let scene = Scene::start(&polled(&node, "", "backoff: [1ms]")).await;
    let job = scene.submit("/jobs", "{\"key\": \"k\"}").await;
    scene.until_job(&job, "running").await;
    node.forget_jobs();
    node.set(|knobs| knobs.hold_jobs = false);
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "succeeded", "{document}");
    assert_eq!(node.seen().submits["k"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_calls_back_ends_its_job_by_that() {
    let node = holding(3).await;
    node.set(|knobs| knobs.callback_tries = 1000);
    let yaml = |reached: &str| {
        format!(
            r#"
data_dir: data
{reached}
nodes: {{a: {{url: "{}", slots: 3}}}}
services:
  any:
    kind:
      batch:
        probe: /health
        callback:
          submit: {{set: {{/webhook: "{{callback}}"}}}}
          state: /status
          done: [done]
          failed: [failed]
    jobs: always
    pool: [a]
    routes: [/]
"#,
            node.url()
        )
    };
    let scene = Scene::start(&yaml("")).await;
    let impossible = scene.submit("/jobs", "{}").await;
    let document = scene.over(&impossible).await;
    assert_eq!(document["state"], "failed", "{document}");
    assert!(
        document.to_string().contains("nodes_reach_us_at"),
        "{document}"
    );

    let reached = format!("nodes_reach_us_at: \"http://{}\"", scene.address());
    scene.reload(&yaml(&reached)).await.unwrap();
    let job = scene.submit("/jobs", "{}").await;
    scene.until_job(&job, "running").await;
    node.set(|knobs| knobs.hold_jobs = false);
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "succeeded", "{document}");
    let result = scene.get(&format!("{job}/result")).await.json();
    assert_eq!(result["status"], "done");
    assert_eq!(node.until(|seen| seen.callbacks == 1).await.jobs_ended, 1);
}
