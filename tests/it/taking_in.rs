//! Work that a kind takes in by itself: it is a job as any other, and its kind sees and touches its own only.

use crate::jobs::stored;
use crate::keeper::{Desk, Keeper, doing, kind, work};
use crate::scene::{Scene, app, eventually, nodes};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use http::StatusCode;
use serde_json::json;
use std::time::Duration;
use tabane_api::{Caller, JobState, Refusal, Stop, Work};
use tabane_sim::{Node, pattern};
use tokio::time::timeout;

/// A service `any` of the kind `keeper`, with this desk, on these nodes of one slot each.
pub(crate) fn keeper(desk: &str, nodes: &[Node], more: &str) -> String {
    let nodes: Vec<_> = nodes.iter().map(|node| (node, 1)).collect();
    stored(&nodes, more).replace("{http: {probe: /health}}", &kind(desk))
}

pub(crate) async fn start(yaml: &str) -> Scene {
    let scene = Scene::start_unproven(app().kind::<Keeper>(), yaml).await;
    scene.until_up().await;
    scene
}

/// Another gateway after this one, which has a moment to go down, with the same file and the same data.
pub(crate) async fn restart(scene: Scene, yaml: &str) -> Scene {
    scene.gateway.shutdown(Duration::from_millis(200)).await;
    let again = async {
        loop {
            // What was at work lets go of the store when it hears that all is over.
            match Scene::try_start(app().kind::<Keeper>(), yaml).await {
                Ok(scene) => return scene,
                Err(error) => assert!(
                    format!("{error:#}").contains("another gateway"),
                    "{error:#}"
                ),
            }
            tokio::task::yield_now().await;
        }
    };
    let scene = timeout(Duration::from_secs(60), again).await.unwrap();
    scene.until_up().await;
    scene
}

/// The same file, with its data in this folder.
pub(crate) fn data_in(data: &std::path::Path, yaml: &str) -> String {
    yaml.replace("data_dir: data", &format!("data_dir: {}", data.display()))
}

/// What `/_tabane` calls a job.
pub(crate) fn at(job: &str) -> String {
    format!("/_tabane/jobs/{job}")
}

fn named(name: &str) -> Work {
    Work {
        name: Some(name.into()),
        ..work(name)
    }
}

fn of(tenant: &str, work: Work) -> Work {
    let caller = Caller {
        tenant: tenant.into(),
        ..work.caller
    };
    Work { caller, ..work }
}

// === taking in ===

#[tokio::test(flavor = "multi_thread")]
async fn work_waits_with_all_others_and_runs_with_what_it_was_taken_in_with() {
    let nodes = nodes(1).await;
    let desk = Desk::of("waits");
    let scene = start(&keeper("waits", &nodes, "cool_down: 1ms")).await;
    let host = desk.host().await;
    // Somebody who holds a connection has the only slot.
    nodes[0].set(|knobs| knobs.hang = true);
    let forwarded = scene.get("/held");
    let taken_in = async {
        nodes[0].until(|seen| seen.at_work == 1).await;
        let work = Work {
            body: pattern(200_000),
            ..doing("w", "x=1,y")
        };
        let job = host
            .submit(Work {
                name: Some("shot-010".into()),
                ..of("studio", work)
            })
            .await
            .unwrap();
        assert_eq!((job.state, job.attempt), (JobState::Queued, 0));
        assert_eq!(job.name.as_deref(), Some("shot-010"));
        assert_eq!((&*job.tenant, &*job.need.tenant), ("studio", "studio"));
        let operators = format!("/api/v1/jobs/{}", job.id);
        let document = scene.admin(http::Method::GET, &operators).await.json();
        assert_eq!(document["position"], 0, "{document}");
        assert_eq!(document["client_id"], "shot-010");
        assert_eq!(document["request"]["target"], "/keep?x=1,y");
        assert!(desk.runs().is_empty());
        job
    };
    // And leaves.
    let job = tokio::select! {
        _ = forwarded => panic!("it hangs"),
        job = taken_in => job,
    };
    desk.until_told(&job.id, JobState::Succeeded).await;
    let run = desk.until_runs("w").await;
    assert_eq!((&run.job, run.number, &*run.tenant), (&job.id, 1, "studio"));
    assert_eq!(run.uri, "/keep?x=1,y");
    assert!(run.body == pattern(200_000));
    let request = host.request(&job.id).await.unwrap().unwrap();
    let result = host.result(&job.id).await.unwrap().unwrap();
    for kept in [request, result] {
        assert!(kept.to_bytes(1 << 20).await.unwrap() == pattern(200_000));
    }
    assert!(host.request("none").await.unwrap().is_none());
    assert!(host.result("none").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_taken_in_outlives_its_gateway() {
    let data = tempfile::tempdir().unwrap();
    let nodes = nodes(1).await;
    let desk = Desk::of("outlives");
    let yaml = data_in(data.path(), &keeper("outlives", &nodes, ""));
    let scene = start(&yaml).await;
    let host = desk.host().await;
    // The endpoint lacks something for all of it, so it only waits.
    let own = host.endpoints()[0].id;
    desk.lacks("w", own, Some("lacks time"));
    let job = host
        .submit(Work {
            name: Some("later".into()),
            body: Bytes::from_static(b"all of it"),
            ..doing("w", "z")
        })
        .await
        .unwrap();
    let scene = restart(scene, &yaml).await;
    assert_eq!(desk.runs().len(), 0);
    desk.lacks("w", own, None);
    desk.host().await.changed();
    let run = desk.until_runs("w").await;
    assert_eq!((&run.job, &*run.uri), (&job.id, "/keep?z"));
    assert_eq!(
        (run.work.as_deref(), &*run.body),
        (Some("w"), &b"all of it"[..])
    );
    assert_eq!(scene.over(&at("later")).await["state"], "succeeded");
    // The host of the gateway that is gone says so.
    assert_eq!(
        host.submit(work("w")).await.unwrap_err(),
        Refusal::ShuttingDown
    );
    assert!(host.endpoints().is_empty() && host.client(own).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_is_the_same_work_and_one_of_another_service_is_refused() {
    let nodes = nodes(1).await;
    let desk = Desk::of("names");
    let yaml = keeper("names", &nodes, "")
        + "  other:\n    pool: [a]\n    jobs: always\n    routes: [/other]\n";
    let scene = start(&yaml).await;
    let host = desk.host().await;
    let all = join_all((0..16).map(|_| host.submit(named("one")))).await;
    let first = all[0].as_ref().unwrap().id.clone();
    assert!(all.iter().all(|job| job.as_ref().unwrap().id == first));
    desk.until_told(&first, JobState::Succeeded).await;
    let again = host.submit(named("one")).await.unwrap();
    assert_eq!((&again.id, again.state), (&first, JobState::Succeeded));
    assert_eq!(desk.runs().len(), 1);
    // Of another tenant it is other work.
    let theirs = host.submit(of("other", named("one"))).await.unwrap();
    assert_ne!(theirs.id, first);
    // A client gave this one to a job of another service.
    let put = scene.ask("PUT", "/_tabane/jobs/two?service=other&path=%2Fother");
    assert_eq!(put.send().await.status, 202);
    let refused = host.submit(named("two")).await.unwrap_err();
    assert!(matches!(refused, Refusal::Conflict(_)), "{refused}");
    // None of these could be found by.
    let long = "x".repeat(129);
    for name in ["", ".", "a/b", "ä", &long, "01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        let refused = host.submit(named(name)).await.unwrap_err();
        assert!(
            matches!(refused, Refusal::BadRequest(_)),
            "{name}: {refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_much_work_is_taken_in_as_may_wait_and_no_more() {
    let nodes = nodes(1).await;
    let desk = Desk::of("full");
    let more = "jobs: {max: 3, max_per_tenant: 2}";
    let scene = start(&keeper("full", &nodes, more)).await;
    let host = desk.host().await;
    let waits = |tenant: &str, name: &str| {
        let name = Some(name.into());
        let held = Work {
            name,
            ..doing("w", "wait:go")
        };
        host.submit(of(tenant, held))
    };
    waits("a", "1").await.unwrap();
    waits("a", "2").await.unwrap();
    let refused = waits("a", "3").await.unwrap_err();
    let Refusal::TenantFull { tenant, has, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!((&**tenant, *has), ("a", 2));
    waits("b", "1").await.unwrap();
    let refused = waits("c", "1").await.unwrap_err();
    let Refusal::QueueFull {
        service, waiting, ..
    } = &refused
    else {
        panic!("{refused}");
    };
    assert_eq!((&**service, *waiting), ("any", 3));
    // What is there already is no more of it.
    waits("a", "2").await.unwrap();
    // Whoever asks over HTTP hears it with its status.
    assert_eq!(scene.get("/own").await.status, 429);
    desk.say("go");
    for job in host.jobs(None, 10).await.unwrap() {
        desk.until_told(&job.id, JobState::Succeeded).await;
    }
    waits("c", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_taken_in_to_its_end_though_whoever_asked_has_left() {
    let nodes = nodes(1).await;
    let desk = Desk::of("left");
    let _scene = start(&keeper("left", &nodes, "")).await;
    let host = desk.host().await;
    for size in [10, 3_000_000] {
        let name = format!("w{size}");
        let left = Work {
            body: pattern(size),
            ..named(&name)
        };
        // Begun, and let go of at once.
        assert!(host.submit(left).now_or_never().is_none());
        let run = desk.until_runs(&name).await;
        assert!(run.body == pattern(size));
        desk.until_told(&run.job, JobState::Succeeded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_goes_down_takes_no_work_in() {
    let nodes = nodes(1).await;
    let desk = Desk::of("down");
    let scene = start(&keeper("down", &nodes, "")).await;
    let host = desk.host().await;
    let held = host.submit(doing("held", "wait:go")).await.unwrap();
    desk.until_runs("held").await;
    let dispatch = scene.gateway.dispatch().clone();
    let down = tokio::spawn(scene.gateway.shutdown(Duration::from_secs(60)));
    eventually("it goes down", || dispatch.is_closing()).await;
    let refused = host.submit(work("late")).await.unwrap_err();
    assert_eq!(refused, Refusal::ShuttingDown);
    desk.say("go");
    timeout(Duration::from_secs(60), down)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(desk.states(&held.id).last(), Some(&JobState::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_kind_says_how_long_work_is_kept_and_how_urgent_it_is() {
    let nodes = nodes(1).await;
    let desk = Desk::of("keep");
    let scene = start(&keeper(
        "keep",
        &nodes,
        "jobs: {keep: 2h, keep_dead: 3h}\npriority: 4",
    ))
    .await;
    let host = desk.host().await;
    let minute = Some(Duration::from_secs(60));
    for (keep, steps, kept_s) in [
        (None, "", 7200),
        (None, "impossible", 7200),
        (minute, "", 60),
        (minute, "impossible", 60),
        (Some(Duration::MAX), "", 1 << 30),
    ] {
        let job = host
            .submit(Work {
                keep,
                ..doing("w", steps)
            })
            .await
            .unwrap();
        let over = scene.over(&at(&job.id)).await;
        let moment = |name: &str| {
            let text = over[name].as_str().unwrap_or_else(|| panic!("{over}"));
            chrono_s(text)
        };
        let kept = moment("keep_until") - moment("ended");
        match kept_s < 1 << 30 {
            true => assert_eq!(kept, kept_s, "{over}"),
            false => assert!(kept > kept_s, "{over}"),
        }
    }
    // What is more urgent to its kind than usual is by as much more urgent than the file says.
    for (own, wants) in [(3, 4), (2, 3), (0, 1), (7, 7)] {
        let mut urgent = work("w");
        urgent.need.urgency = tabane_api::Urgency::new(own);
        let job = host.submit(urgent).await.unwrap();
        assert_eq!(job.need.urgency.value(), wants, "{own}");
        assert_eq!(scene.get(&at(&job.id)).await.json()["priority"], wants);
    }
}

/// Whole seconds since 1970 of a moment as documents have it.
fn chrono_s(text: &str) -> i64 {
    let moment =
        humantime::parse_rfc3339_weak(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    moment
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_take_turns_by_whose_work_it_is() {
    let nodes = nodes(1).await;
    let desk = Desk::of("turns");
    let _scene = start(&keeper("turns", &nodes, "")).await;
    let host = desk.host().await;
    // How long such work takes is known from here on.
    let known = host.submit(of("c", work("known"))).await.unwrap();
    desk.until_told(&known.id, JobState::Succeeded).await;
    let first = of("a", doing("first", "wait:go"));
    host.submit(first).await.unwrap();
    desk.until_runs("first").await;
    let mut all = Vec::new();
    for (tenant, n) in [("a", 8), ("b", 2)] {
        for _ in 0..n {
            all.push(host.submit(of(tenant, work("w"))).await.unwrap());
        }
    }
    desk.say("go");
    for job in &all {
        desk.until_told(&job.id, JobState::Succeeded).await;
    }
    let runs = desk.runs();
    let of_b = runs.iter().position(|run| &*run.tenant == "b").unwrap();
    assert!(of_b <= 4, "{runs:?}");
}

// === what was taken in ===

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_takes_back_what_waits_at_once_and_has_stopped_what_is_at_work() {
    let nodes = nodes(1).await;
    let desk = Desk::of("back");
    let scene = start(&keeper("back", &nodes, "")).await;
    let host = desk.host().await;
    let running = host.submit(doing("running", "wait:never")).await.unwrap();
    desk.until_runs("running").await;
    let waiting = host.submit(work("waiting")).await.unwrap();
    let canceled = host.cancel(&waiting.id).await.unwrap().unwrap();
    assert_eq!(canceled.state, JobState::Canceled);
    assert_eq!(
        scene.get(&at(&waiting.id)).await.json()["state"],
        "canceled"
    );
    assert!(desk.stops().is_empty());
    let canceled = host.cancel(&running.id).await.unwrap().unwrap();
    assert!(canceled.canceling || canceled.state == JobState::Canceled);
    desk.until_told(&running.id, JobState::Canceled).await;
    assert_eq!(desk.stops(), [(running.id.clone(), Stop::Cancel)]);
    // What is over stays as it is.
    let over = host.submit(work("over")).await.unwrap();
    desk.until_told(&over.id, JobState::Succeeded).await;
    let again = host.cancel(&over.id).await.unwrap().unwrap();
    assert_eq!(again.state, JobState::Succeeded);
    assert!(host.cancel("none").await.unwrap().is_none());
    assert_eq!(desk.stops().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_over_is_forgotten_with_all_that_was_kept_of_it() {
    let nodes = nodes(1).await;
    let desk = Desk::of("forgets");
    let scene = start(&keeper("forgets", &nodes, "")).await;
    let host = desk.host().await;
    let blobs = scene.dir.path().join("data/blobs");
    let files = || {
        let all = walk(&blobs);
        all.iter().filter(|path| path.is_file()).count()
    };
    let before = files();
    let held = Work {
        body: pattern(200_000),
        ..doing("held", "wait:go")
    };
    let held = host.submit(held).await.unwrap();
    assert_eq!(files(), before + 1);
    desk.until_runs("held").await;
    let waiting = host.submit(work("waiting")).await.unwrap();
    for job in [&held, &waiting] {
        let refused = host.forget(&job.id).await.unwrap_err();
        assert!(matches!(refused, Refusal::Conflict(_)), "{refused}");
    }
    desk.say("go");
    for job in [&held, &waiting] {
        desk.until_told(&job.id, JobState::Succeeded).await;
        host.forget(&job.id).await.unwrap();
        assert_eq!(scene.get(&at(&job.id)).await.status, StatusCode::NOT_FOUND);
        assert!(host.request(&job.id).await.unwrap().is_none());
        assert!(host.result(&job.id).await.unwrap().is_none());
        host.forget(&job.id).await.unwrap();
    }
    assert!(host.jobs(None, 10).await.unwrap().is_empty());
    eventually("their bodies are gone", || files() == before).await;
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| {
            let mut below = walk(&path);
            below.push(path);
            below
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_sees_and_touches_the_jobs_of_its_service_only() {
    let nodes = nodes(1).await;
    let (own, other) = (Desk::of("own"), Desk::of("other"));
    let yaml = keeper("own", &nodes, "")
        + &format!(
            "  other:\n    kind: {}\n    pool: [a]\n    routes: [/other]\n",
            kind("other")
        );
    let scene = start(&yaml).await;
    let (own, other) = (own.host().await, other.host().await);
    assert_eq!((own.service(), other.service()), ("any", "other"));
    let mut all = Vec::new();
    for i in 0..25 {
        // Of many tenants.
        let work = of(&format!("t{i}"), work("w"));
        all.push(own.submit(work).await.unwrap());
    }
    let theirs = other.submit(doing("w", "wait:go")).await.unwrap();
    let seqs = |jobs: &[tabane_api::JobView]| jobs.iter().map(|job| job.seq).collect::<Vec<_>>();
    let wanted: Vec<i64> = all.iter().rev().map(|job| job.seq).collect();
    for page in [1, 7, 25, 26, usize::MAX] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let jobs = own.jobs(before, page).await.unwrap();
            seen.extend(seqs(&jobs));
            if jobs.len() < page {
                break;
            }
            before = jobs.last().map(|job| job.seq);
        }
        assert_eq!(seen, wanted, "{page}");
    }
    assert!(own.jobs(None, 0).await.unwrap().is_empty());
    let seen = other.jobs(None, 100).await.unwrap();
    assert_eq!(seqs(&seen), [theirs.seq]);
    // By its id it is not there to another.
    assert!(own.cancel(&theirs.id).await.unwrap().is_none());
    assert!(own.request(&theirs.id).await.unwrap().is_none());
    assert!(own.result(&theirs.id).await.unwrap().is_none());
    own.forget(&theirs.id).await.unwrap();
    assert_eq!(
        scene.get(&at(&theirs.id)).await.json()["canceling"],
        json!(null)
    );
    Desk::of("other").say("go");
    assert_eq!(scene.over(&at(&theirs.id)).await["state"], "succeeded");
    own.forget(&theirs.id).await.unwrap();
    assert_eq!(scene.get(&at(&theirs.id)).await.status, StatusCode::OK);
}
