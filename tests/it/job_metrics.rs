//! What operators see of jobs: the numbers, and what is told as it happens.

use crate::jobs::stored;
use crate::scene::{Scene, eventually, nodes};
use http::Method;
use std::sync::Arc;
use tabane::store::Moment;
use tabane::telemetry::Told;
use tabane_sim::pattern;
use tokio::sync::broadcast::Receiver;

/// All series of a metric, as they are shown.
async fn series(scene: &Scene, beginning: &str) -> Vec<String> {
    let text = scene.admin(Method::GET, "/metrics").await.body;
    let lines = std::str::from_utf8(&text).unwrap().lines();
    let own = lines.filter(|line| line.starts_with(beginning));
    own.map(str::to_owned).collect()
}

/// What was told of a job, as JSON, until it is over.
async fn told_of(heard: &mut Receiver<Arc<Told>>, job: &str) -> Vec<(String, Arc<Told>)> {
    let id = job.rsplit('/').next().unwrap();
    let mut own = Vec::new();
    loop {
        let told = heard.recv().await.unwrap();
        let json = serde_json::to_value(&*told).unwrap();
        if json["job"] == id {
            own.push((json.to_string(), told.clone()));
            if told.name() == "job_finished" {
                return own;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_jobs_is_counted() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "cool_down: 1ms")).await;
    let finished =
        |state: &str| format!("tabane_jobs_finished_total{{service=\"any\",state=\"{state}\"}}");
    let attempts = |outcome: &str| {
        format!("tabane_job_attempts_total{{service=\"any\",outcome=\"{outcome}\"}}")
    };
    // Before the first of anything, so that it is seen as a rise.
    for state in ["succeeded", "failed", "canceled", "expired", "dead"] {
        assert_eq!(series(&scene, &finished(state)).await.len(), 1, "{state}");
    }

    let good = scene.submit("/echo", "x").await;
    scene.over(&good).await;
    let bad = scene.submit("/status/418", "").await;
    scene.over(&bad).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let unwanted = scene.submit("/work", "").await;
    scene.until_job(&unwanted, "running").await;
    let late = scene.ask("POST", "/work").with("prefer", "respond-async");
    let late = late.with("job-start-by", "1s").send().await;
    scene.over(late.header("location")).await;
    scene.ask("DELETE", &unwanted).send().await;
    scene.over(&unwanted).await;

    for (state, count) in [
        ("succeeded", 1.0),
        ("failed", 1.0),
        ("canceled", 1.0),
        ("expired", 1.0),
        ("dead", 0.0),
    ] {
        scene.until_metric(&finished(state), count).await;
    }
    for (outcome, count) in [
        ("succeeded", 1.0),
        ("failed", 1.0),
        ("canceled", 1.0),
        ("timeout", 0.0),
        ("lost", 0.0),
    ] {
        assert_eq!(scene.metric(&attempts(outcome)).await, count, "{outcome}");
    }
    for (name, count) in [
        ("tabane_jobs_accepted_total{service=\"any\"}", 4.0),
        // One never began, and one brought nothing.
        ("tabane_job_wait_seconds_count{service=\"any\"}", 3.0),
        ("tabane_job_run_seconds_count{service=\"any\"}", 2.0),
    ] {
        assert_eq!(scene.metric(name).await, count, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_shown_as_long_as_it_is_kept() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "cool_down: 1ms")).await;
    let dispatch = scene.gateway.dispatch();
    let done = scene.submit("/echo", pattern(100_000)).await;
    scene.over(&done).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let running = scene.submit("/work", "").await;
    scene.until_job(&running, "running").await;
    for _ in 0..3 {
        scene.submit("/work", "").await;
    }
    dispatch.measure_jobs().await;
    let state = |state: &str| {
        format!("tabane_jobs{{service=\"any\",tenant=\"anonymous\",state=\"{state}\"}}")
    };
    for (name, count) in [
        (state("succeeded"), 1.0),
        (state("running"), 1.0),
        (state("queued"), 3.0),
        ("tabane_jobs{".into(), 5.0),
        ("tabane_job_class_waiting{service=\"any\",".into(), 3.0),
        // The request's body, and the result's.
        ("tabane_job_bytes ".into(), 200_000.0),
        ("tabane_letters_waiting ".into(), 0.0),
    ] {
        scene.until_metric(&name, count).await;
    }
    assert!(scene.metric("tabane_database_bytes ").await > 0.0);
    let limit = scene.metric("tabane_job_bytes_limit ").await;
    assert_eq!(limit, (100_u64 << 30) as f64);

    dispatch.sweep_jobs(Moment(i64::MAX)).await;
    // Files go after their rows.
    let blobs = dispatch.jobs().unwrap().blobs();
    eventually("the bodies are deleted", || blobs.used() == 0).await;
    dispatch.measure_jobs().await;
    scene.until_metric("tabane_jobs{", 4.0).await;
    scene.until_metric("tabane_job_bytes ", 0.0).await;
    let left = series(&scene, &state("succeeded")).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_left_the_file_brings_no_series_and_leaves_none() {
    let nodes = nodes(1).await;
    let with = |tenants: &str| format!("{tenants}{}", stored(&[(&nodes[0], 1)], ""));
    let scene = Scene::start(&with("tenants: {studio: studio-key}\n")).await;
    let dispatch = scene.gateway.dispatch();
    let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
    let job = ask.with("x-api-key", "studio-key").send().await;
    assert_eq!(job.status, 202);
    let studios = "tabane_jobs{service=\"any\",tenant=\"studio\",state=\"succeeded\"}";
    eventually("the job is over", || {
        let counted = scene.gateway.dispatch().at_work();
        counted == 0 && nodes[0].seen().requests == 1
    })
    .await;
    dispatch.measure_jobs().await;
    scene.until_metric(studios, 1.0).await;
    let before = series(&scene, "tabane_").await;

    scene.reload(&with("")).await.unwrap();
    dispatch.measure_jobs().await;
    let names = |lines: &[String]| -> Vec<String> {
        let jobs = lines.iter().filter(|line| line.starts_with("tabane_job"));
        let names = jobs.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.collect()
    };
    let after = series(&scene, "tabane_").await;
    assert_eq!(names(&after), names(&before));

    dispatch.sweep_jobs(Moment(i64::MAX)).await;
    dispatch.measure_jobs().await;
    scene.until_metric("tabane_jobs{", 0.0).await;
    let left = series(&scene, "tabane_").await;
    assert!(left.iter().all(|line| !line.contains("studio")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_counted_by_what_their_tries_came_to() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "webhooks: {{allow: [\"127.0.0.0/8\"]}}\n{}",
        stored(&[(&nodes[0], 1)], "")
    );
    let scene = Scene::start(&yaml).await;
    let submit = |path: &str| {
        let url = format!("{}{path}", nodes[0].url());
        let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
        ask.with("job-webhook", &url).send()
    };
    submit("/status/200").await;
    scene
        .until_metric("tabane_letters_total{outcome=\"delivered\"}", 1.0)
        .await;
    submit("/status/500").await;
    scene
        .until_metric("tabane_letters_total{outcome=\"again\"}", 1.0)
        .await;
    scene.gateway.dispatch().measure_jobs().await;
    scene.until_metric("tabane_letters_waiting ", 1.0).await;
    assert!(scene.metric("tabane_letters_oldest_seconds ").await < 60.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_told_of_by_service_and_node() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let mut heard = scene.gateway.dispatch().events().subscribe();
    let job = scene.submit("/status/418", "").await;
    let told = told_of(&mut heard, &job).await;
    let names: Vec<&str> = told.iter().map(|(_, told)| told.name()).collect();
    assert_eq!(names, ["job_accepted", "job_started", "job_finished"]);
    for (told, parts) in told.iter().zip([
        ["\"tenant\":\"anonymous\"", "\"jobs\":1"],
        ["\"endpoint\":\"a/http\"", "\"attempt\":1"],
        ["\"endpoint\":\"a/http\"", "\"state\":\"failed\""],
    ]) {
        assert!(parts.iter().all(|part| told.0.contains(part)), "{}", told.0);
    }
    for (_, told) in &told {
        assert!(told.concerns(None, Some("any")) && !told.concerns(None, Some("other")));
        assert!(!told.concerns(Some("b"), None));
        // Where it is, nobody knows before it starts.
        let on_a = told.concerns(Some("a"), None);
        assert_eq!(on_a, told.name() != "job_accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_is_what_waits_by_the_times_that_were_learned() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let backlog = "tabane_backlog_seconds{service=\"any\"}";
    assert_eq!(scene.metric(backlog).await, 0.0);
    let learned = scene.submit("/work", "").await;
    scene.over(&learned).await;
    nodes[0].set(|knobs| knobs.hang = true);
    for _ in 0..3 {
        scene.submit("/work", "").await;
    }
    nodes[0].until(|seen| seen.at_work == 1).await;
    assert!(scene.metric(backlog).await > 0.0);
    assert_eq!(scene.metric("tabane_waiting{service=\"any\"}").await, 0.0);
}
