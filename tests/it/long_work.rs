//! Work that a backend takes and finishes by itself: it outlives the gateway, and is never handed over twice unawares.

use crate::crash::Phoenix;
use crate::jobs::stored;
use crate::scene::{Scene, eventually, nodes};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use tabane_sim::{Node, Submission};

/// A service `work` of the kind `batch` on these nodes; `poll` is added to its block, `more` to the service.
fn batch(nodes: &[Node], poll: &str, more: &str) -> String {
    let mut yaml = String::from("data_dir: data\nnodes:\n");
    for (node, name) in nodes.iter().zip('a'..) {
        let _ = writeln!(yaml, "  {name}: {{url: \"{}\", slots: 2}}", node.url());
    }
    let names: Vec<String> = ('a'..).take(nodes.len()).map(String::from).collect();
    let _ = write!(
        yaml,
        r#"services:
  work:
    pool: [{}]
    routes: [/]
    health: {{interval: 50ms, interval_down: 50ms, timeout: 300ms, rise: 1, fall: 2}}
    cool_down: 1ms
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
          every: 50ms
          every_max: 100ms
          {poll}
    {more}
"#,
        names.join(", ")
    );
    yaml
}

fn submits(nodes: &[Node]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (key, count) in nodes.iter().flat_map(|node| node.seen().submits) {
        *all.entry(key).or_default() += count;
    }
    all
}

async fn all_handed_over(phoenix: &Phoenix, jobs: &[String]) {
    for job in jobs {
        loop {
            let (_, body) = phoenix.get(job).await;
            let document: Value = serde_json::from_slice(&body).unwrap();
            if document["state"] == "running" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_where_it_ran_through_restarts_and_is_handed_over_once() {
    let nodes = nodes(2).await;
    for node in &nodes {
        node.set(|knobs| {
            knobs.hold_jobs = true;
            knobs.slots = 2;
            knobs.result_bytes = 100_000;
        });
    }
    let phoenix = Phoenix::rise(&batch(&nodes, "", ""));
    let mut jobs = Vec::new();
    for i in 0..4 {
        let job = phoenix
            .submit("/jobs", &format!("job-{i}"), Bytes::from("{}"))
            .await;
        jobs.push(job);
    }
    all_handed_over(&phoenix, &jobs).await;
    phoenix.die_and_rise();
    all_handed_over(&phoenix, &jobs).await;
    phoenix.end_and_rise();
    // One more waits: the slots of those at work are taken, though this gateway gave them to nobody.
    let waits = phoenix.submit("/jobs", "waits", Bytes::from("{}")).await;
    all_handed_over(&phoenix, &jobs).await;
    let (_, document) = phoenix.get(&waits).await;
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["state"], "queued");
    for node in &nodes {
        node.set(|knobs| knobs.hold_jobs = false);
    }
    for job in jobs.iter().chain([&waits]) {
        let document = phoenix.over(job).await;
        assert_eq!(document["state"], "succeeded", "{document}");
        assert_eq!(
            document["attempts"].as_array().unwrap().len(),
            1,
            "{document}"
        );
        let (status, result) = phoenix.get(&format!("{job}/result")).await;
        assert!(status == 200 && result == tabane_sim::pattern(100_000));
    }
    let submits = submits(&nodes);
    assert!(
        submits.len() == 5 && submits.values().all(|count| *count == 1),
        "{submits:?}"
    );
    assert!(nodes.iter().all(|node| node.seen().over_slots == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_which_nobody_can_say_whether_it_was_taken_goes_as_the_file_says() {
    for (poll, more, state, handed_over) in [
        ("", "jobs: {on_unknown: fail}", "dead", 1),
        (
            "",
            "jobs: {on_unknown: resubmit, backoff: [10ms]}",
            "succeeded",
            2,
        ),
        // A server that can be asked is asked.
        (
            "find: {path: \"/jobs?attempt={attempt}\", id: /jobs/0/id}\n          submit: {headers: {Idempotency-Key: \"{attempt}\"}}",
            "jobs: {on_unknown: fail}",
            "succeeded",
            1,
        ),
    ] {
        let nodes = nodes(1).await;
        nodes[0].set(|knobs| knobs.submission = Submission::Hang);
        let phoenix = Phoenix::rise(&batch(&nodes, poll, more));
        let job = phoenix.submit("/jobs", "one", Bytes::from("{}")).await;
        nodes[0]
            .until(|seen| seen.submits.get("one") == Some(&1))
            .await;
        nodes[0].set(|knobs| knobs.submission = Submission::Answer);
        phoenix.die_and_rise();
        let document = phoenix.over(&job).await;
        assert_eq!(document["state"], state, "{poll} {more} {document}");
        assert_eq!(submits(&nodes)["one"], handed_over, "{poll} {more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_at_work_on_a_backend_is_stopped_there_when_it_is_taken_back() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.hold_jobs = true);
    let scene = Scene::start(&batch(&nodes, "progress: /progress", "")).await;
    let job = scene.submit("/jobs", "{}").await;
    scene.until_job(&job, "running").await;
    scene.ask("DELETE", &job).send().await;
    assert_eq!(scene.over(&job).await["state"], "canceled");
    assert_eq!(nodes[0].seen().jobs_canceled, 1);
    eventually("its slot is free", || {
        scene.gateway.dispatch().at_work() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_forgot_its_work_costs_an_attempt() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.hold_jobs = true);
    let yaml = batch(&nodes, "lost_after: 200ms", "jobs: {backoff: [10ms]}");
    let scene = Scene::start(&yaml).await;
    let job = scene.submit("/jobs", "{}").await;
    scene.until_job(&job, "running").await;
    nodes[0].set(|knobs| knobs.hold_jobs = false);
    nodes[0].forget_jobs();
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "succeeded", "{document}");
    assert_eq!(document["attempts"][0]["outcome"], "lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_may_call_when_it_is_done() {
    let nodes = nodes(1).await;
    nodes[0].set(|knobs| knobs.work_ms = 20);
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let yaml = format!(
        "listen: [\"127.0.0.1:{port}\"]\nnodes_reach_us_at: http://127.0.0.1:{port}\n{}",
        stored(&[(&nodes[0], 1)], "").replace(
            "kind: {http: {probe: /health}}",
            "kind: {batch: {probe: /health, callback: {submit: {headers: {X-Callback: \"{callback}\"}}, id: /id, state: /status, done: [done], failed: [failed]}}}"
        )
    );
    let scene = Scene::start(&yaml).await;
    let job = scene.submit("/jobs", "{}").await;
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "succeeded", "{document}");
    assert_eq!(nodes[0].seen().callbacks, 1);
}
