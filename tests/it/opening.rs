//! Kinds are opened once, and their hosts outlive reloads.

use crate::keeper::{Desk, Keeper, doing, work};
use crate::scene::{app, eventually, nodes, on_free_ports, shown};
use crate::taking_in::{keeper, start};
use http::StatusCode;
use tabane_api::{JobState, Refusal};

/// By these tags, and what each took over.
fn opened(desk: &Desk) -> Vec<(String, Option<String>)> {
    desk.opened()
}

fn by(tag: &str, before: Option<&str>) -> (String, Option<String>) {
    (tag.into(), before.map(Into::into))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_is_opened_once_and_again_only_where_its_block_changed() {
    let nodes = nodes(2).await;
    let desk = Desk::of("opened");
    let yaml = keeper("opened", &nodes, "");
    let scene = start(&yaml).await;
    desk.host().await;
    assert_eq!(opened(&desk), [by("", None)]);
    let tagged =
        |tag: &str| yaml.replace("{desk: opened}", &format!("{{desk: opened, tag: {tag}}}"));
    // All else may change.
    for other in [
        yaml.replace("pool: [a, b]", "pool: [b]"),
        yaml.replace("routes: [/]", "routes: [/x]"),
        yaml.clone() + "    policy: fastest\n",
        yaml.clone() + "  second:\n    pool: [a]\n    routes: [/second]\n",
        yaml.clone(),
    ] {
        scene.reload(&other).await.unwrap();
    }
    scene.reload(&tagged("one")).await.unwrap();
    eventually("it is opened again", || opened(&desk).len() > 1).await;
    assert_eq!(opened(&desk)[1..], [by("one", Some(""))]);
    // A file that is not taken opens nothing, and the next takes over from what is there.
    let broken = tagged("two").replace("pool: [a, b]", "pool: [nobody]");
    scene.reload(&broken).await.unwrap_err();
    scene.reload(&tagged("three")).await.unwrap();
    eventually("it is opened again", || opened(&desk).len() > 2).await;
    assert_eq!(opened(&desk)[2..], [by("three", Some("one"))]);
    // One that left and came back is another.
    let renamed = tagged("three").replace("  any:", "  other:");
    scene.reload(&renamed).await.unwrap();
    eventually("it is opened again", || opened(&desk).len() > 3).await;
    assert_eq!(opened(&desk)[3..], [by("three", None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_fails_as_it_is_opened_serves_all_the_same() {
    let nodes = nodes(1).await;
    let desk = Desk::of("unopened");
    desk.fails_on("open", true);
    let scene = start(&keeper("unopened", &nodes, "")).await;
    let job = desk.host().await.submit(work("w")).await.unwrap();
    desk.until_told(&job.id, JobState::Succeeded).await;
    assert_eq!(scene.get("/x").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_outlives_reloads_and_sees_the_service_as_it_is() {
    let nodes = nodes(2).await;
    let desk = Desk::of("hosts");
    let yaml = keeper("hosts", &nodes, "policy: first");
    let scene = start(&yaml).await;
    let host = desk.host().await;
    let names = || {
        let all = host.endpoints();
        all.iter().map(|at| at.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["a/http", "b/http"]);
    let all = host.endpoints();
    assert!(
        all.iter()
            .all(|at| at.usable && (at.slots, at.used) == (1, 0))
    );
    let folder = host.folder().unwrap();
    assert_eq!(folder, scene.dir.path().join("data/services/any"));
    scene
        .reload(&yaml.replace("pool: [a, b]", "pool: [b]"))
        .await
        .unwrap();
    assert_eq!(names(), ["b/http"]);
    scene.until_state("a/http", "gone").await;
    assert!(host.client(all[0].id).is_none());
    assert_eq!(host.client(all[1].id).unwrap().name(), "b/http");
    let held = host.submit(doing("held", "wait:go")).await.unwrap();
    assert_eq!(desk.until_runs("held").await.on, "b/http");
    assert_eq!(host.endpoints()[0].used, 1);
    // The file's order, and a node that came back.
    scene
        .reload(&yaml.replace("pool: [a, b]", "pool: [b, a]"))
        .await
        .unwrap();
    assert_eq!(names(), ["b/http", "a/http"]);
    scene.until_up().await;
    // The service leaves: its work waits, and its host says so.
    let renamed = yaml.replace("  any:", "  other:");
    let waiting = host.submit(doing("waiting", "")).await.unwrap();
    desk.until_told(&waiting.id, JobState::Succeeded).await;
    scene.reload(&renamed).await.unwrap();
    assert!(host.endpoints().is_empty());
    host.changed();
    let refused = host.submit(work("w")).await.unwrap_err();
    let Refusal::NoSuch(why) = &refused else {
        panic!("{refused}");
    };
    assert!(why.contains("`any`"), "{why}");
    for refused in [
        host.cancel(&held.id).await.err(),
        host.forget(&held.id).await.err(),
        host.jobs(None, 10).await.err(),
        host.request(&held.id).await.err(),
        host.result(&held.id).await.err(),
    ] {
        assert!(matches!(refused, Some(Refusal::NoSuch(_))), "{refused:?}");
    }
    // And comes back.
    scene.reload(&yaml).await.unwrap();
    assert_eq!(names(), ["a/http", "b/http"]);
    assert_eq!(host.jobs(None, 10).await.unwrap().len(), 2);
    desk.say("go");
    desk.until_told(&held.id, JobState::Succeeded).await;
    let job = host.submit(work("back")).await.unwrap();
    desk.until_told(&job.id, JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_work_is_not_served_without_a_place_for_it() {
    let nodes = nodes(1).await;
    let yaml = keeper("homeless", &nodes, "").replace("data_dir: data\n", "");
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("tabane.yaml");
    std::fs::write(&path, on_free_ports(&yaml)).unwrap();
    let loaded = app().kind::<Keeper>().load(&tabane::Source::File(path));
    let problems = loaded.err().unwrap();
    let told = shown(&problems);
    assert!(
        told.contains("services.any.kind") && told.contains("data_dir"),
        "{told}"
    );
    assert!(told.contains("tabane.yaml:"), "{told}");
}
