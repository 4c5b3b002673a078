//! A kind hears of each change of its service's jobs, whatever led to it.

use crate::keeper::{Desk, doing, kind, work};
use crate::scene::{Scene, eventually, nodes};
use crate::taking_in::{at, data_in, keeper, restart, start};
use serde_json::json;
use tabane_api::JobState::{self, *};

async fn hears(desk: &Desk, scene: &Scene, job: &str, wants: &[JobState]) {
    desk.until_told(job, *wants.last().unwrap()).await;
    assert_eq!(
        desk.states(job),
        wants,
        "{}",
        scene.get(&at(job)).await.json()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_hears_of_each_step_of_a_job_in_its_order() {
    let nodes = nodes(1).await;
    let desk = Desk::of("steps");
    let scene = start(&keeper(
        "steps",
        &nodes,
        "jobs: {backoff: [1ms], attempts: 2}",
    ))
    .await;
    let host = desk.host().await;
    for (steps, wants) in [
        ("handle:h", &[Queued, Starting, Running, Succeeded][..]),
        ("handle:h,failed", &[Queued, Starting, Running, Failed]),
        ("impossible", &[Queued, Starting, Failed]),
        (
            "again:done",
            &[Queued, Starting, Queued, Starting, Succeeded],
        ),
        ("panic", &[Queued, Starting, Queued, Starting, Dead]),
    ] {
        let job = host.submit(doing("w", steps)).await.unwrap();
        hears(&desk, &scene, &job.id, wants).await;
    }
    // As the job stands, not only where.
    let job = host.submit(doing("last", "again:done")).await.unwrap();
    let over = desk.until_told(&job.id, Succeeded).await;
    assert_eq!(
        (over.attempt, over.has_result, &over.error),
        (2, true, &None)
    );
    assert!(over.accepted_ms <= over.started_ms.unwrap() && over.started_ms <= over.ended_ms);
    assert_eq!(over.need.work.as_deref(), Some("last"));
    let views = desk.views(&job.id);
    assert!(
        views[2]
            .error
            .as_ref()
            .unwrap()
            .contains("as the test wants it")
    );
    assert_eq!(
        views.iter().map(|view| view.attempt).collect::<Vec<_>>(),
        [0, 1, 1, 2, 2]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_hears_of_what_clients_time_and_the_gateway_do_to_its_jobs() {
    let nodes = nodes(1).await;
    let desk = Desk::of("others");
    let scene = start(&keeper("others", &nodes, "jobs: {backoff: [1ms]}")).await;
    let host = desk.host().await;
    let held = host.submit(doing("held", "wait:go")).await.unwrap();
    desk.until_runs("held").await;
    // A client takes one back that waits, lets it wait again, and makes it more urgent; then it expires.
    let waiting = host.submit(work("waiting")).await.unwrap();
    let path = at(&waiting.id);
    assert_eq!(scene.ask("DELETE", &path).send().await.status, 200);
    let again = scene.ask("POST", &format!("{path}/retry")).send().await;
    assert_eq!(again.status, 202);
    let wanted = json!({"priority": 5, "start_by": "1ms"}).to_string();
    let patched = scene.ask("PATCH", &path).body(wanted).send().await;
    assert_eq!(patched.status, 200, "{patched:?}");
    hears(
        &desk,
        &scene,
        &waiting.id,
        &[Queued, Canceled, Queued, Queued, Expired],
    )
    .await;
    let views = desk.views(&waiting.id);
    assert_eq!(views[3].need.urgency.value(), 5);
    // And one that is at work.
    let deleted = scene.ask("DELETE", &at(&held.id)).send().await;
    assert!([200, 202].contains(&deleted.status.as_u16()), "{deleted:?}");
    desk.until_told(&held.id, Canceled).await;
    let views = desk.views(&held.id);
    let last: Vec<_> = views
        .iter()
        .rev()
        .take(2)
        .map(|view| (view.state, view.canceling))
        .collect();
    assert_eq!(last[0], (Canceled, false));
    assert!(last[1].1, "{views:?}");
    // One that no node can serve today: the only one ran out of memory for it, twice.
    let job = host.submit(doing("oom", "oom")).await.unwrap();
    let starts = [Queued, Starting, Queued, Starting, Queued];
    hears(&desk, &scene, &job.id, &[&starts[..], &[Dead]].concat()).await;
    // All of an array.
    let array = json!({
        "service": "any", "path": "/frames?wait:frames", "frames": "1-3", "body": "{frame}"
    });
    let array = scene
        .ask("POST", "/_tabane/arrays")
        .body(array.to_string())
        .send()
        .await;
    assert_eq!(array.status, 202, "{array:?}");
    let jobs = host.jobs(None, 3).await.unwrap();
    for job in &jobs {
        assert_eq!(desk.states(&job.id).first(), Some(&Queued));
    }
    desk.say("frames");
    for job in &jobs {
        hears(&desk, &scene, &job.id, &[Queued, Starting, Succeeded]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_hears_of_its_own_jobs_only_and_after_a_restart_too() {
    let data = tempfile::tempdir().unwrap();
    let nodes = nodes(1).await;
    let (desk, other) = (Desk::of("hears"), Desk::of("deaf"));
    let yaml = data_in(data.path(), &keeper("hears", &nodes, ""))
        + &format!(
            "  other:\n    kind: {}\n    pool: [a]\n    routes: [/other]\n",
            kind("deaf")
        );
    let scene = start(&yaml).await;
    let host = desk.host().await;
    // One that its node keeps, and one that begins again.
    let kept = host
        .submit(doing("kept", "handle:h,wait:kept"))
        .await
        .unwrap();
    desk.until_told(&kept.id, Running).await;
    let waiting = host.submit(work("waiting")).await.unwrap();
    let before = desk.states(&kept.id).len();
    let scene = restart(scene, &yaml).await;
    eventually_runs_twice(&desk).await;
    desk.say("kept");
    hears(&desk, &scene, &waiting.id, &[Queued, Starting, Succeeded]).await;
    desk.until_told(&kept.id, Succeeded).await;
    assert_eq!(desk.states(&kept.id)[before..], [Succeeded]);
    let runs = desk.runs();
    let kept: Vec<_> = runs.iter().filter(|run| run.job == kept.id).collect();
    assert_eq!(kept[1].handle.as_deref(), Some("h"), "{kept:?}");
    assert_eq!((kept.len(), kept[1].number), (2, 1));
    assert!(other.states(&waiting.id).is_empty());
}

async fn eventually_runs_twice(desk: &Desk) {
    let kept = || {
        desk.runs()
            .iter()
            .filter(|run| run.work.as_deref() == Some("kept"))
            .count()
    };
    eventually("it is taken up again", || kept() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_fails_over_a_change_harms_nobody() {
    let nodes = nodes(1).await;
    let desk = Desk::of("fails");
    let scene = start(&keeper("fails", &nodes, "")).await;
    let host = desk.host().await;
    desk.fails_on("job_changed", true);
    let job = host.submit(work("w")).await.unwrap();
    let over = scene.over(&at(&job.id)).await;
    assert_eq!(over["state"], "succeeded");
    assert_eq!(desk.states(&job.id), [Queued, Starting, Succeeded]);
    let held = host.submit(doing("held", "wait:never")).await.unwrap();
    desk.until_runs("held").await;
    host.cancel(&held.id).await.unwrap();
    assert_eq!(scene.over(&at(&held.id)).await["state"], "canceled");
    scene.until_metric("tabane_endpoint_slots_used", 0.0).await;
}
