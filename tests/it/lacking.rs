//! What an endpoint lacks for a piece of work, as its kind knows it.

use crate::keeper::{Desk, doing, kind, work};
use crate::scene::{Scene, eventually, nodes};
use crate::taking_in::{at, keeper, start};
use http::{Method, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use tabane_api::{EndpointId, Host, JobState, JobView};

const POLICIES: [&str; 3] = ["match", "fastest", "least_loaded"];

fn id(host: &Arc<dyn Host>, name: &str) -> EndpointId {
    let all = host.endpoints();
    all.iter().find(|at| *at.name == *name).unwrap().id
}

async fn explained(scene: &Scene, of: &str) -> Value {
    let path = format!("/api/v1/explain?{of}");
    scene.admin(Method::GET, &path).await.json()
}

/// Why an endpoint is out of the question, as it is explained.
fn excluded(explained: &Value, endpoint: &str) -> Value {
    let candidates = explained["candidates"].as_array().unwrap();
    let found = candidates.iter().find(|view| view["endpoint"] == endpoint);
    found.unwrap_or_else(|| panic!("{explained}"))["excluded"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn work_waits_for_an_endpoint_that_lacks_nothing_of_it_and_is_told_why() {
    let nodes = nodes(2).await;
    for policy in POLICIES {
        let name = format!("lacks-{policy}");
        let desk = Desk::of(&name);
        let scene = start(&keeper(&name, &nodes, &format!("policy: {policy}"))).await;
        let host = desk.host().await;
        let (a, b) = (id(&host, "a/http"), id(&host, "b/http"));
        desk.lacks("w", a, Some("lacks the file x.png"));
        for _ in 0..4 {
            let job = host.submit(work("w")).await.unwrap();
            desk.until_told(&job.id, JobState::Succeeded).await;
            let explained = explained(&scene, &format!("job={}", job.id)).await;
            assert_eq!(
                excluded(&explained, "a/http"),
                "it lacks the file x.png",
                "{policy}"
            );
        }
        assert!(desk.runs().iter().all(|run| run.on == "b/http"), "{policy}");
        // Nobody has it: it waits beside two that are idle, until its kind says that this has changed.
        desk.lacks("w", b, Some("lacks it, too"));
        let job = host.submit(work("w")).await.unwrap();
        let waits = explained(&scene, &format!("job={}", job.id)).await;
        assert_eq!(waits["state"], "waits", "{policy}: {waits}");
        assert_eq!(excluded(&waits, "b/http"), "it lacks it, too");
        desk.lacks("w", a, None);
        host.changed();
        desk.until_told(&job.id, JobState::Succeeded).await;
        assert_eq!(desk.runs().last().unwrap().on, "a/http", "{policy}");
        // Whoever holds a connection, too.
        desk.lacks("w", b, None);
        desk.lacks("w", a, Some("lacks it again"));
        for _ in 0..3 {
            assert_eq!(scene.get("/x?work=w").await.node(), "b", "{policy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_which_an_endpoint_lacks_something_holds_up_no_other_of_its_class() {
    let nodes = nodes(2).await;
    for policy in POLICIES {
        let name = format!("beside-{policy}");
        let desk = Desk::of(&name);
        let scene = start(&keeper(&name, &nodes, &format!("policy: {policy}"))).await;
        let host = desk.host().await;
        let (a, b) = (id(&host, "a/http"), id(&host, "b/http"));
        for (name, lacks) in [("nowhere", &[a, b][..]), ("on-a", &[b]), ("on-b", &[a])] {
            for at in lacks {
                desk.lacks(name, *at, Some("lacks it"));
            }
        }
        let mut first = None;
        for _ in 0..40 {
            first = Some(host.submit(work("nowhere")).await.unwrap());
        }
        // One has to wait for a, the others can go to b.
        host.submit(doing("on-a", "wait:go")).await.unwrap();
        assert_eq!(desk.until_runs("on-a").await.on, "a/http", "{policy}");
        let mut others = Vec::new();
        for name in ["on-a", "on-b", "on-a", "on-b"] {
            others.push((name, host.submit(work(name)).await.unwrap()));
        }
        for (_, job) in others.iter().filter(|(name, _)| *name == "on-b") {
            desk.until_told(&job.id, JobState::Succeeded).await;
        }
        assert_eq!(desk.runs().len(), 3, "{policy}");
        desk.say("go");
        for (name, job) in &others {
            desk.until_told(&job.id, JobState::Succeeded).await;
            let runs = desk.runs();
            let run = runs.iter().find(|run| run.job == job.id).unwrap();
            assert_eq!(run.on, format!("{}/http", &name[3..]), "{policy}");
        }
        assert_eq!(host.jobs(None, 100).await.unwrap().len(), 45);
        let waits = scene.get(&at(&first.unwrap().id)).await.json();
        assert_eq!(waits["state"], "queued", "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_comes_to_lack_something_holds_up_none_that_came_later() {
    let nodes = nodes(2).await;
    for policy in POLICIES {
        let name = format!("later-{policy}");
        let desk = Desk::of(&name);
        let _scene = start(&keeper(&name, &nodes, &format!("policy: {policy}"))).await;
        let host = desk.host().await;
        let mut held = Vec::new();
        for name in ["held-1", "held-2"] {
            host.submit(doing(name, &format!("wait:{name}")))
                .await
                .unwrap();
            held.push((desk.until_runs(name).await.on, name));
        }
        held.sort();
        for name in ["first", "second"] {
            host.submit(work(name)).await.unwrap();
        }
        // They were alike as they came.
        desk.lacks("first", id(&host, "b/http"), Some("lacks it now"));
        host.changed();
        desk.say(held[1].1);
        assert_eq!(desk.until_runs("second").await.on, "b/http", "{policy}");
        assert_eq!(desk.runs().len(), 3, "{policy}");
        desk.say(held[0].1);
        assert_eq!(desk.until_runs("first").await.on, "a/http", "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_away_together_goes_where_nothing_is_lacking() {
    let nodes = nodes(3).await;
    let names = ["a/http", "b/http", "c/http"];
    for policy in POLICIES {
        let name = format!("together-{policy}");
        let desk = Desk::of(&name);
        let _scene = start(&keeper(&name, &nodes, &format!("policy: {policy}"))).await;
        let host = desk.host().await;
        // All three are taken; then who waits is given what comes free.
        let mut jobs = Vec::new();
        for _ in 0..3 {
            jobs.push(host.submit(doing("held", "wait:go")).await.unwrap());
        }
        eventually("all are at work", || desk.runs().len() == 3).await;
        for round in 0..12 {
            let only = names[[0, 2, 1, 1][round % 4]];
            let name = format!("w{round}");
            for other in names.iter().filter(|other| **other != only) {
                desk.lacks(&name, id(&host, other), Some("lacks it"));
            }
            jobs.push(host.submit(work(&name)).await.unwrap());
            // One that can go anywhere stands before each.
            jobs.push(host.submit(work("any")).await.unwrap());
        }
        desk.say("go");
        for job in &jobs {
            desk.until_told(&job.id, JobState::Succeeded).await;
        }
        for run in desk
            .runs()
            .iter()
            .filter(|run| run.work.as_deref() != Some("any"))
        {
            let Some(round) = run
                .work
                .as_deref()
                .and_then(|work| work[1..].parse::<usize>().ok())
            else {
                continue;
            };
            assert_eq!(run.on, names[[0, 2, 1, 1][round % 4]], "{policy}: {run:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_fails_over_what_is_lacking_or_what_it_costs_harms_nobody() {
    let nodes = nodes(2).await;
    for call in ["lacks", "terms"] {
        let (name, well) = (format!("ill-{call}"), format!("well-{call}"));
        let (desk, well_desk) = (Desk::of(&name), Desk::of(&well));
        let other = format!(
            "  other:\n    kind: {}\n    pool: [b, a]\n    policy: match\n    cool_down: 1ms\n    routes: [/other]\n",
            kind(&well)
        );
        let scene = start(&(keeper(&name, &nodes, "policy: match") + &other)).await;
        let (host, well) = (desk.host().await, well_desk.host().await);
        desk.fails_on(call, true);
        let job = host.submit(work("w")).await.unwrap();
        let held = scene.get("/x?work=w");
        let others = async {
            for _ in 0..5 {
                let job = well.submit(work("w")).await.unwrap();
                well_desk.until_told(&job.id, JobState::Succeeded).await;
            }
            // Whoever asks why is answered.
            let explained = explained(&scene, &format!("job={}", job.id)).await;
            assert!(explained["candidates"].is_array(), "{explained}");
            host.changed();
            desk.fails_on(call, false);
            host.changed();
        };
        let (held, ()) = tokio::join!(held, others);
        assert_eq!(held.status, StatusCode::OK, "{call}: {held:?}");
        desk.until_told(&job.id, JobState::Succeeded).await;
        // No slot is lost on the way.
        scene.until_metric("tabane_endpoint_slots_used", 0.0).await;
        let waits = |job: &JobView| job.state == JobState::Queued;
        assert!(!host.jobs(None, 100).await.unwrap().iter().any(waits));
        let both = [
            host.submit(doing("last", "wait:go")),
            well.submit(doing("last", "wait:go")),
        ];
        for taken_in in futures::future::join_all(both).await {
            taken_in.unwrap();
        }
        desk.until_runs("last").await;
        well_desk.until_runs("last").await;
        desk.say("go");
        well_desk.say("go");
        scene.until_metric("tabane_endpoint_slots_used", 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_is_answered_though_the_kind_asks_its_host_or_fails() {
    let nodes = nodes(1).await;
    let desk = Desk::of("asks");
    let scene = start(&keeper("asks", &nodes, "")).await;
    desk.host().await;
    let would = explained(&scene, "service=any&path=/x").await;
    assert_eq!(
        (&would["state"], &would["class"]),
        (&"would".into(), &"/x".into())
    );
    desk.fails_on("classify", true);
    let would = explained(&scene, "service=any&path=/x").await;
    assert_eq!(would["would_pick"], "a/http", "{would}");
    desk.fails_on("classify", false);
    assert_eq!(scene.get("/x").await.status, StatusCode::OK);
}
