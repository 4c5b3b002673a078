//! What fits where: needs that no node could ever meet, models, sizes, memory that ran out, and bounds of a tenant.

use crate::scene::{Reply, Scene, app, eventually, nodes};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;
use tabane::Source;
use tabane_sim::Node;

/// What a failing simulated node says, whatever failed.
const OOM: &str = "out_of_memory: [Failing as the knobs]";

/// A service `any` on nodes `small` and `large`, each with one endpoint `x`; `small` and `large` are added to these,
/// `kind` to the kind's block, `more` to the service.
fn two(nodes: &[Node], [small, large]: [&str; 2], kind: &str, more: &str) -> String {
    let mut yaml = String::from("data_dir: data\nnodes:\n");
    for (name, vram, node, takes) in [
        ("small", 8, &nodes[0], small),
        ("large", 24, &nodes[1], large),
    ] {
        let _ = writeln!(
            yaml,
            "  {name}: {{gpu: {{vram: {vram}GiB}}, endpoints: {{x: {{url: \"{}\"{takes}}}}}}}",
            node.url()
        );
    }
    let _ = write!(
        yaml,
        "services:\n  any:\n    kind: {{http: {{probe: /health, {kind}}}}}\n    pool: [small/x, large/x]\n    routes: [/]\n    \
         health: {{interval: 50ms, interval_down: 50ms, timeout: 300ms, rise: 1, fall: 2, eject_after: 1}}\n"
    );
    for line in more.lines() {
        let _ = writeln!(yaml, "    {line}");
    }
    yaml
}

/// Attempts follow each other at once, and the first endpoint that fits is taken.
const QUICK: &str = "policy: first\njobs: {backoff: [1ms]}\ncool_down: 1ms";

const MODELS: [&str; 2] = [", models: [sd15, sdxl]", ", models: flux-dev"];

const BY_QUERY: &str = "class: {path: 1}, model: {query: model}, size: {multiply: {query: size}}";

fn no_fit(reply: &Reply) -> String {
    let document = reply.json();
    assert_eq!(
        (reply.status.as_u16(), &document["error"]["code"]),
        (503, &json!("no_fit")),
        "{reply:?}"
    );
    document["error"]["message"].as_str().unwrap().to_owned()
}

fn requests(nodes: &[Node]) -> [u64; 2] {
    [0, 1].map(|i| nodes[i].seen().requests)
}

// === never ===

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_could_ever_serve_is_refused_at_once_for_now_and_for_later() {
    let nodes = nodes(2).await;
    let scene = Scene::start(&two(&nodes, MODELS, BY_QUERY, QUICK)).await;
    let wants = "no node of service `any` can serve this: `large/x` comes nearest: it does not have the model `flux-dve`; \
                 did you mean `flux-dev`?";
    let path = "/work?model=flux-dve";
    assert_eq!(no_fit(&scene.get(path).await), wants);
    let job = scene.ask("POST", path).with("prefer", "respond-async");
    assert_eq!(no_fit(&job.send().await), wants);
    let named = "/_tabane/jobs/mine?service=any&path=/work%3Fmodel=flux-dve";
    assert_eq!(no_fit(&scene.ask("PUT", named).send().await), wants);
    // One frame of many is enough: all are taken, or none.
    let array = json!({"service": "any", "path": "/work?model={frame}", "frames": "1-3"});
    let array = scene.ask("POST", "/_tabane/arrays").body(array.to_string());
    let why = no_fit(&array.send().await);
    assert!(
        why.contains("there are `flux-dev`, `sd15` and `sdxl`"),
        "{why}"
    );
    let list = scene.get("/_tabane/jobs").await.json();
    assert_eq!(list["jobs"], json!([]), "{list}");
    assert_eq!(requests(&nodes), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_too_small_is_named_with_what_it_has() {
    let nodes = nodes(2).await;
    let yaml = two(&nodes, ["", ""], "vram_mib: 48000", QUICK);
    let scene = Scene::start(&yaml).await;
    let wants = "no node of service `any` can serve this: `large/x` comes nearest: it has 24576 MiB of GPU memory, and \
                 48000 are needed";
    assert_eq!(no_fit(&scene.get("/work").await), wants);
    // A node that is down could serve it, and is waited for.
    let fits = yaml.replace("48000", "20000").replace(
        "policy: first",
        "policy: first\n    queue: {max_wait: 300ms}",
    );
    scene.reload(&fits).await.unwrap();
    nodes[1].set(|knobs| knobs.health_status = Some(500));
    scene.until_state("large/x", "down").await;
    let waited = scene.get("/work").await;
    let code = waited.json()["error"]["code"].clone();
    assert_eq!(code, "waited_too_long", "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_after_which_nobody_could_refuses_who_waits_and_jobs_say_that_they_are_stuck() {
    let nodes = nodes(2).await;
    let yaml = two(&nodes, MODELS, BY_QUERY, QUICK);
    let scene = Scene::start(&yaml).await;
    nodes[1].set(|knobs| knobs.hang = true);
    let at_work = scene.submit("/work?model=flux-dev", "").await;
    nodes[1].until(|seen| seen.at_work == 1).await;
    let waits = scene.submit("/work?model=flux-dev", "").await;
    let held = scene.get("/work?model=flux-dev");
    let then = async {
        let waiting = || scene.gateway.dispatch().queue().total == 2;
        eventually("both wait", waiting).await;
        let without = yaml.replace("models: flux-dev", "models: other");
        scene.reload(&without).await.unwrap();
    };
    let (held, ()) = tokio::join!(held, then);
    let why = no_fit(&held);
    assert!(why.contains("does not have the model `flux-dev`"), "{why}");
    let document = scene.get(&waits).await.json();
    assert_eq!(document["state"], "queued");
    let stuck = document["stuck"].as_str().unwrap();
    assert!(
        stuck.contains("does not have the model `flux-dev`"),
        "{stuck}"
    );
    // Nor can one that is over wait for it again.
    scene.ask("DELETE", &at_work).send().await;
    scene.over(&at_work).await;
    let retried = scene.ask("POST", &format!("{at_work}/retry")).send().await;
    no_fit(&retried);
    nodes[1].set(|knobs| knobs.hang = false);
    scene.reload(&yaml).await.unwrap();
    let document = scene.over(&waits).await;
    assert_eq!(document["state"], "succeeded");
    assert!(document.get("stuck").is_none(), "{document}");
}

// === models and sizes ===

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_a_node_that_has_its_model_and_takes_its_size() {
    let nodes = nodes(2).await;
    let takes = [
        ", models: [sd15, sdxl], max_size: 10",
        ", models: [flux-dev, sdxl]",
    ];
    let scene = Scene::start(&two(&nodes, takes, BY_QUERY, QUICK)).await;
    for (query, wants) in [
        ("model=sd15", "a"),
        ("model=flux-dev", "b"),
        ("model=sdxl", "a"),
        ("", "a"),
        ("size=10", "a"),
        ("size=11", "b"),
        ("model=sdxl&size=11", "b"),
    ] {
        let path = format!("/work?{query}");
        assert_eq!(scene.get(&path).await.node(), wants, "{query}");
        let job = scene.submit(&path, "").await;
        let document = scene.over(&job).await;
        let node = document["attempts"][0]["node"].clone();
        let name = if wants == "a" { "small/x" } else { "large/x" };
        assert_eq!(node, name, "{query}: {document}");
    }
    let why = no_fit(&scene.get("/work?model=sd15&size=11").await);
    assert!(why.contains("takes requests up to size 10"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_request_does_not_wait_behind_a_large_one_that_its_node_does_not_take() {
    let nodes = nodes(2).await;
    let takes = [", max_size: 10", ""];
    let scene = Scene::start(&two(&nodes, takes, BY_QUERY, QUICK)).await;
    nodes[1].set(|knobs| knobs.hang = true);
    let large = scene.submit("/work?size=50", "").await;
    nodes[1].until(|seen| seen.at_work == 1).await;
    let behind = scene.submit("/work?size=50", "").await;
    let small = scene.submit("/work?size=5", "").await;
    assert_eq!(scene.over(&small).await["state"], "succeeded");
    for job in [large, behind] {
        scene.ask("DELETE", &job).send().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_a_probe_does_not_show_is_waited_for() {
    let nodes = nodes(2).await;
    let kind = "class: {path: 1}, model: {query: model}";
    let probes = "probe: {path: /health, models: /name}";
    let yaml = two(
        &nodes,
        ["", ""],
        kind,
        "queue: {max_wait: 300ms}\npolicy: first",
    )
    .replace("probe: /health", probes);
    let scene = Scene::start(&yaml).await;
    // Each simulated node shows its own name where the file looks for models.
    assert_eq!(scene.get("/work?model=b").await.node(), "b");
    let reply = scene.get("/work?model=c").await;
    assert_eq!(
        reply.json()["error"]["code"],
        "waited_too_long",
        "{reply:?}"
    );
    let job = scene.submit("/work?model=c", "").await;
    eventually("it waits", || scene.gateway.dispatch().queue().total == 1).await;
    nodes[1].set(|knobs| knobs.name = "c".into());
    let document = scene.over(&job).await;
    assert_eq!(document["attempts"][0]["node"], "large/x", "{document}");
}

// === memory ===

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_ran_out_of_memory_twice_goes_elsewhere_from_then_on_and_the_node_is_well() {
    let nodes = nodes(2).await;
    let kind = format!("class: {{path: 1}}, {OOM}");
    let yaml = two(&nodes, ["", ""], &kind, QUICK);
    let scene = Scene::start(&yaml).await;
    nodes[0].set(|knobs| knobs.status = Some(503));
    for times in 1..=5 {
        let job = scene.submit("/still", "x").await;
        let document = scene.over(&job).await;
        assert_eq!(document["state"], "succeeded", "{document}");
        let attempts = document["attempts"].as_array().unwrap();
        let last = &attempts[attempts.len() - 1];
        assert_eq!(
            (attempts.len(), &last["node"]),
            (if times <= 2 { 2 } else { 1 }, &json!("large/x"))
        );
        if times <= 2 {
            assert_eq!(attempts[0]["outcome"], "out_of_memory");
            let error = attempts[0]["error"].as_str().unwrap();
            assert_eq!(error, "out of GPU memory: failing as the knobs say");
        }
    }
    assert_eq!(requests(&nodes), [2, 5]);
    assert_eq!(scene.get("/still").await.node(), "b");
    assert_eq!(scene.state("small/x"), "up", "it is not to blame");
    // Another class fits as it always did.
    nodes[0].set(|knobs| knobs.status = None);
    assert_eq!(scene.get("/other").await.node(), "a");

    // A restart forgets nothing of it.
    let Scene {
        gateway,
        file,
        dir,
        client,
    } = scene;
    gateway.shutdown(Duration::from_secs(5)).await;
    let source = Source::File(file.clone());
    let loaded = app().load(&source).unwrap();
    let gateway = app().start(source, loaded).await.unwrap();
    let scene = Scene {
        gateway,
        client,
        file,
        dir,
    };
    scene.until_up().await;
    assert_eq!(scene.get("/still").await.node(), "b");
    assert_eq!(scene.get("/other").await.node(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_answer_that_tells_of_memory_counts_too_and_passes_untouched() {
    let nodes = nodes(2).await;
    let kind = format!("class: {{path: 1}}, {OOM}");
    let scene = Scene::start(&two(&nodes, ["", ""], &kind, "policy: first\nretry: off")).await;
    nodes[0].set(|knobs| knobs.status = Some(503));
    for _ in 0..2 {
        let reply = scene.get("/still").await;
        assert_eq!(reply.status.as_u16(), 503);
        assert_eq!(&reply.body[..], b"failing as the knobs say");
    }
    assert_eq!(scene.get("/still").await.node(), "b");
    assert_eq!((requests(&nodes), scene.state("small/x")), ([2, 1], "up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_class_ran_out_of_memory_everywhere_is_dead_and_says_why() {
    let nodes = nodes(2).await;
    let kind = format!("class: {{path: 1}}, {OOM}");
    let yaml = two(&nodes, ["", ""], &kind, QUICK);
    let scene = Scene::start(&yaml).await;
    for node in &nodes {
        node.set(|knobs| knobs.status = Some(500));
    }
    let first = scene.submit("/still", "x").await;
    let second = scene.submit("/still", "x").await;
    for job in [&first, &second] {
        let document = scene.over(job).await;
        let error = document["error"].as_str().unwrap();
        assert_eq!(document["state"], "dead", "{document}");
        assert!(error.contains("out of GPU memory"), "{error}");
    }
    let third = scene.submit("/still", "x").await;
    let document = scene.over(&third).await;
    let error = document["error"].as_str().unwrap();
    assert!(
        error.contains(
            "`small/x` comes nearest: it ran out of GPU memory with requests of class `still`"
        ),
        "{document}"
    );
    assert_eq!(document["attempts"], json!([]), "nobody was asked");
    assert_eq!(scene.get(&format!("{third}/result")).await.status, 502);
    let why = no_fit(&scene.get("/still").await);
    assert!(why.contains("gets no more of them for 24 h"), "{why}");
    assert!(requests(&nodes).iter().sum::<u64>() <= 6);
    // More memory than the class ran out of: a node that is new.
    let more = yaml
        .replace("  large:", "  larger:")
        .replace("large/x", "larger/x");
    for node in &nodes {
        node.set(|knobs| knobs.status = None);
    }
    scene.reload(&more).await.unwrap();
    scene.until_up().await;
    assert_eq!(scene.get("/still").await.node(), "b");
    let retried = scene.ask("POST", &format!("{third}/retry")).send().await;
    assert_eq!(retried.status.as_u16(), 202);
    assert_eq!(scene.over(&third).await["state"], "succeeded");
}

// === bounds of a tenant ===

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_has_as_many_waiting_as_it_may_is_told_so_and_others_are_not() {
    let nodes = nodes(2).await;
    let yaml = "access: {anonymous: allow}\ntenants: {flood: {key: flood-key-1, max_waiting: 1}, calm: {key: calm-key-1}}\n"
        .to_owned()
        + &two(&nodes, ["", ""], BY_QUERY, "policy: first\njobs: {max_per_tenant: 1}");
    let scene = Scene::start(&yaml).await;
    for node in &nodes {
        node.set(|knobs| knobs.hang = true);
    }
    let ask = |key: &str, prefer: &'static str| {
        let request = Request::get(scene.url("/work"))
            .header("authorization", format!("Bearer {key}"))
            .header("prefer", prefer);
        let request = request.body(Full::default()).unwrap();
        let client = scene.client.clone();
        async move { client.request(request).await.unwrap() }
    };
    let dispatch = scene.gateway.dispatch();
    let waiting = |n| eventually("so many wait", move || dispatch.queue().total == n);
    let mut all = Vec::new();
    for _ in 0..nodes.len() {
        all.push(tokio::spawn(ask("flood-key-1", "")));
    }
    eventually("both work", || {
        nodes.iter().all(|node| node.seen().at_work == 1)
    })
    .await;
    for (waits, key) in [(1, "flood-key-1"), (2, "calm-key-1"), (3, "calm-key-1")] {
        all.push(tokio::spawn(ask(key, "")));
        waiting(waits).await;
    }
    let refused = |prefer| async move {
        let (head, body) = ask("flood-key-1", prefer).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let error: Value = serde_json::from_slice(&body).unwrap();
        let error = error["error"].clone();
        assert_eq!(
            (head.status.as_u16(), &error["code"]),
            (429, &json!("tenant_full"))
        );
        assert!(head.headers.contains_key("retry-after"));
        error["message"].as_str().unwrap().to_owned()
    };
    let message = "tenant `flood` has as many requests waiting as it may: 1";
    assert_eq!(refused("").await, message);
    // Jobs wait beside them, and have a bound of their own.
    let job = ask("flood-key-1", "respond-async").await;
    assert_eq!(job.status().as_u16(), 202);
    let message = "tenant `flood` has as many jobs that are not over as it may: 1";
    assert_eq!(refused("respond-async").await, message);
    // Whoever leaves, leaves its place to the next.
    for task in all {
        task.abort();
    }
    for node in &nodes {
        node.set(|knobs| knobs.hang = false);
    }
    waiting(0).await;
    assert_eq!(ask("flood-key-1", "").await.status().as_u16(), 200);
}
