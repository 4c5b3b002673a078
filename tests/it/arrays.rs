//! Arrays: many jobs that are one, over HTTP.

use crate::jobs::stored;
use crate::scene::{Reply, Scene, any, nodes};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::io::{Cursor, Read};
use std::time::Duration;
use tokio::time::timeout;

impl Scene {
    async fn array(&self, wanted: &Value) -> Reply {
        let ask = self.ask("POST", "/_tabane/arrays");
        ask.body(wanted.to_string()).send().await
    }

    /// Submits an array; its path.
    async fn frames(&self, frames: &str, path: &str) -> String {
        let wanted = json!({"service": "any", "path": path, "frames": frames,
            "headers": {"x-frame": "{frame}"}});
        let reply = self.array(&wanted).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.header("location").to_owned()
    }

    /// Waits until an array's document is as it should be.
    async fn until_array(&self, array: &str, so: impl Fn(&Value) -> bool) -> Value {
        let waited = timeout(Duration::from_secs(60), async {
            loop {
                let document = self.get(array).await.json();
                if so(&document) {
                    return document;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the array comes to be so")
    }

    async fn whole(&self, array: &str) -> Value {
        self.until_array(array, |array| array["done"] == array["total"])
            .await
    }

    /// The entries of a zip, by another reader than the writer's.
    async fn zip(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        let reply = self.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (200, "application/zip")
        );
        let mut archive = zip::ZipArchive::new(Cursor::new(reply.body)).unwrap();
        let count = archive.len();
        let read = |i| {
            let (mut entry, mut bytes) = (archive.by_index(i).unwrap(), Vec::new());
            entry.read_to_end(&mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        };
        (0..count).map(read).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_one_request_for_each_frame_and_comes_back_as_one_zip() {
    let nodes = nodes(2).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1), (&nodes[1], 1)], "")).await;
    let wanted = json!({
        "service": "any", "path": "/echo?f={frame:04}", "frames": "9-1x4, 100",
        "body": {"frame": "{frame}", "out": "a.{frame:03}.exr"},
        "tags": ["shot=010"], "name": "Beauty",
    });
    let reply = scene.array(&wanted).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let (place, document) = (reply.header("location").to_owned(), reply.json());
    assert_eq!(document["links"]["self"], place);
    assert_eq!(document["tags"], json!(["name=Beauty", "shot=010"]));
    assert_eq!(document["total"], 4);

    let document = scene.whole(&place).await;
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["counts"], json!({"succeeded": 4}));
    assert!(document["ended"].is_string());
    let entries = scene.zip(&format!("{place}/results.zip")).await;
    let wants = [9, 5, 1, 100].map(|frame| {
        let body = format!("{{\"frame\":{frame},\"out\":\"a.{frame:03}.exr\"}}");
        (format!("{frame:04}.json"), body.into_bytes())
    });
    assert_eq!(entries, wants);

    let jobs = scene.get(&format!("{place}/jobs?limit=3")).await;
    let list = jobs.json()["jobs"].as_array().unwrap().clone();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0]["request"]["target"], "/echo?f=0100");
    assert_eq!(
        list[0]["tags"],
        json!(["name=Beauty", "shot=010", "frame=100"])
    );
    assert_eq!(list[0]["array"], json!({"id": document["id"], "item": 3}));
    let next = jobs.header("link").trim_start_matches('<');
    let next = next.split('>').next().unwrap();
    assert!(next.starts_with(&format!("{place}/jobs?")), "{next}");
    assert_eq!(
        scene.get(next).await.json()["jobs"][0]["request"]["target"],
        "/echo?f=0009"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_array_is_refused_and_nothing_of_it_is_kept() {
    let nodes = nodes(1).await;
    let more = "jobs: {max: 5}\nbody: {max: 1000}";
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], more)).await;
    let good = json!({"service": "any", "path": "/{frame}", "frames": "1-3"});
    for (change, status) in [
        (json!({"service": "none"}), 404),
        (json!({"service": null}), 400),
        (json!({"path": "/"}), 400),
        (json!({"path": "{frame}"}), 400),
        (json!({"path": "/{frame:x}"}), 400),
        (json!({"path": "/a b{frame}"}), 400),
        (json!({"frames": "1-"}), 400),
        (json!({"frames": []}), 400),
        (json!({"frames": "1-100001"}), 422),
        (json!({"frames": "1-6"}), 429),
        (json!({"body": "x".repeat(1001)}), 413),
        (json!({"priority": 8}), 400),
        (json!({"start_by": "soon"}), 400),
        (json!({"timeout": "0s"}), 400),
        (json!({"webhook": "ftp://x"}), 400),
        (json!({"tags": ["frame=1"]}), 400),
        (json!({"headers": {"content-length": "1"}}), 400),
        (json!({"method": "a b"}), 400),
        (json!({"colour": "red"}), 400),
    ] {
        let mut wanted = good.clone();
        for (name, value) in change.as_object().unwrap() {
            wanted[name] = value.clone();
        }
        let reply = scene.array(&wanted).await;
        assert_eq!(reply.status, status, "{change} {reply:?}");
        assert!(reply.json()["error"]["message"].is_string(), "{change}");
    }
    let list = scene.get("/_tabane/jobs").await.json();
    assert_eq!(list["jobs"], json!([]));
    assert_eq!(nodes[0].seen().requests, 0);

    let array = scene.frames("1-3", "/work/{frame}").await;
    scene.whole(&array).await;
    for (method, path, body, status) in [
        ("GET", "/_tabane/arrays", "", 405),
        ("GET", "/_tabane/arrays/none", "", 404),
        ("GET", "/_tabane/arrays/01ARZ3NDEKTSV4RRFFQ69G5FAV", "", 410),
        ("PUT", &array, "", 405),
        ("POST", &format!("{array}/jobs"), "", 405),
        ("GET", &format!("{array}/retry"), "", 405),
        ("GET", &format!("{array}/other"), "", 404),
        ("POST", &format!("{array}/retry"), "", 409),
        (
            "POST",
            &format!("{array}/retry"),
            "{\"only\": \"all\"}",
            400,
        ),
        ("PATCH", &array, "{\"priority\": 1}", 409),
        ("PATCH", &array, "{\"priority\": 9}", 400),
        ("PATCH", &array, "{}", 400),
        ("GET", &format!("{array}/results.zip?state=queued"), "", 400),
        ("GET", &format!("{array}/jobs?colour=red"), "", 400),
    ] {
        let reply = scene.ask(method, path).body(body).send().await;
        assert_eq!(reply.status, status, "{method} {path} {body} {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_array_and_another_body_is_refused() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "jobs: {max: 4}")).await;
    let ask = |frames: &str, length: usize| {
        // Long bodies are files, which a repeat must not leave behind.
        let body = format!("{{frame}}{}", "x".repeat(length));
        let wanted = json!({"service": "any", "path": "/echo", "body": body, "frames": frames});
        let ask = scene.ask("POST", "/_tabane/arrays");
        ask.with("idempotency-key", &format!("\"{length}\""))
            .body(wanted.to_string())
            .send()
    };
    for (length, requests) in [(1, 3), (100_000, 6)] {
        let first = ask("1-3", length).await;
        assert_eq!(first.status, 202);
        let again = futures::future::join_all((0..8).map(|_| ask("1-3", length))).await;
        for again in &again {
            assert_eq!(again.status, 202);
            assert_eq!(again.header("location"), first.header("location"));
        }
        assert_eq!(ask("1-4", length).await.status, 422);
        scene.whole(first.header("location")).await;
        assert_eq!(nodes[0].seen().requests, requests);
        let zip = format!("{}/results.zip", first.header("location"));
        let entries = scene.zip(&zip).await;
        assert!(entries.iter().all(|(_, bytes)| bytes.len() == length + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_canceled_as_a_whole_and_what_there_is_can_be_fetched_meanwhile() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "cool_down: 1ms")).await;
    let array = scene.frames("1-40", "/work/{frame}").await;
    scene
        .until_array(&array, |array| array["done"].as_u64() > Some(2))
        .await;
    nodes[0].set(|knobs| knobs.hang = true);
    let partial = scene
        .zip(&format!("{array}/results.zip?state=succeeded"))
        .await;
    assert!(
        partial.len() > 2 && partial.len() < 40,
        "{} entries",
        partial.len()
    );
    assert_eq!(partial[0].0.split('.').next(), Some("0001"));

    let canceled = scene.ask("DELETE", &array).send().await;
    assert!(
        [200, 202].contains(&canceled.status.as_u16()),
        "{canceled:?}"
    );
    let document = scene.whole(&array).await;
    assert_eq!(document["state"], "canceled");
    let counts = &document["counts"];
    let (succeeded, canceled) = (&counts["succeeded"], &counts["canceled"]);
    let sum = succeeded.as_u64().unwrap() + canceled.as_u64().unwrap();
    assert_eq!(sum, 40, "{counts}");
    let requests = nodes[0].seen().requests;

    // Those that were canceled are in the zip as what is said of them.
    let entries = scene.zip(&format!("{array}/results.zip")).await;
    assert_eq!(entries.len(), 40);
    let (name, said) = entries.last().unwrap();
    assert_eq!(name, "0040.error.json");
    let said: Value = serde_json::from_slice(said).unwrap();
    assert_eq!(said["state"], "canceled");

    let deleted = scene.ask("DELETE", &array).send().await;
    assert_eq!(deleted.json()["deleted"], true);
    assert_eq!(scene.get(&array).await.status, 404);
    let list = scene.get("/_tabane/jobs").await.json();
    assert_eq!(list["jobs"], json!([]));
    assert_eq!(nodes[0].seen().requests, requests, "nothing ran after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_failed_are_retried_and_those_that_succeeded_are_not() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    nodes[0].set(|knobs| knobs.fail_after = Some(2));
    let array = scene.frames("1-4", "/work/{frame}").await;
    let document = scene.whole(&array).await;
    assert_eq!(document["state"], "failed");
    assert_eq!(document["counts"], json!({"succeeded": 2, "failed": 2}));
    let names = |entries: Vec<(String, Vec<u8>)>| -> Vec<bool> {
        let failed = |(name, _): &(String, Vec<u8>)| name.ends_with(".error.json");
        entries.iter().map(failed).collect()
    };
    let zip = format!("{array}/results.zip");
    assert_eq!(names(scene.zip(&zip).await), [false, false, true, true]);

    nodes[0].set(|knobs| knobs.fail_after = None);
    let ask = scene.ask("POST", &format!("{array}/retry"));
    let again = ask.body("{\"only\": \"failed\"}").send().await;
    assert_eq!(again.status, 202, "{again:?}");
    assert!(again.json()["ended"].is_null());
    let document = scene.whole(&array).await;
    assert_eq!(document["counts"], json!({"succeeded": 4}));
    let paths = [1, 2, 3, 4, 3, 4].map(|frame| format!("/work/{frame}"));
    // Those that were retried stand in any order.
    let mut seen = nodes[0].seen().paths;
    seen[4..].sort();
    assert_eq!(seen, paths);
    assert_eq!(names(scene.zip(&zip).await), [false; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_count_to_the_end_and_a_change_ends_the_wait_for_it() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    nodes[0].set(|knobs| knobs.work_ms = 20);
    let array = scene.frames("1-20", "/work/{frame}").await;
    let mut events = scene.stream(&format!("{array}/events")).await;
    let told = tokio::spawn(async move {
        let mut text = Vec::new();
        while let Some(frame) = events.frame().await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        String::from_utf8(text).unwrap()
    });
    let waited = scene.ask("GET", &array).with("prefer", "wait=30");
    let waited = waited.send().await;
    assert_eq!(waited.header("preference-applied"), "wait=30");
    let told = timeout(Duration::from_secs(60), told).await.unwrap();
    let told = told.unwrap();
    let kinds: Vec<_> = told
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let datas = told.lines().filter_map(|line| line.strip_prefix("data: "));
    let done = datas.map(|data| {
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["total"], 20);
        data["done"].as_u64().unwrap()
    });
    let done: Vec<u64> = done.collect();
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"progress"), Some(&"finished"))
    );
    assert!(done.is_sorted() && done.last() == Some(&20), "{told}");

    // One that is over is not waited for, and one that is known is not sent.
    let ask = scene.ask("GET", &array).with("prefer", "wait=30");
    let over = ask.send().await;
    assert_eq!(over.json()["state"], "succeeded");
    let ask = scene.ask("GET", &array);
    let known = ask.with("if-none-match", over.header("etag")).send().await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_wait_get_another_priority_at_once() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "jobs: {priority_cap: 1}")).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let blocker = scene.submit("/work/blocker", "").await;
    nodes[0].until(|seen| seen.at_work == 1).await;
    let first = scene.frames("1-3", "/work/{frame}").await;
    let second = scene.frames("4-6", "/work/{frame}").await;
    let patch = scene.ask("PATCH", &second).body("{\"priority\": 0}");
    assert_eq!(patch.send().await.status, 200);
    let jobs = scene.get(&format!("{second}/jobs")).await.json();
    // Nobody is more urgent than the file lets them be.
    assert_eq!(jobs["jobs"][0]["priority"], 1);
    nodes[0].set(|knobs| knobs.hang = false);
    scene.ask("DELETE", &blocker).send().await;
    scene.whole(&first).await;
    scene.whole(&second).await;
    let order: Vec<_> = nodes[0].seen().paths.split_off(1);
    assert_eq!(
        order,
        [4, 5, 6, 1, 2, 3].map(|frame| format!("/work/{frame}"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_arrays_and_the_operator_all() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "access: {{anonymous: deny}}\ntenants: {{studio: studio-key, other: other-key}}\ndata_dir: data\n{}",
        any(&[(&nodes[0], 1)], "")
    );
    let scene = Scene::start(&yaml).await;
    let wanted = json!({"service": "any", "path": "/echo", "body": "{frame}", "frames": "1-2"});
    assert_eq!(scene.array(&wanted).await.status, 401);
    let ask = scene.ask("POST", "/_tabane/arrays");
    let ask = ask.with("x-api-key", "studio-key").body(wanted.to_string());
    let array = ask.send().await.header("location").to_owned();
    for below in ["", "/jobs", "/events", "/results.zip"] {
        let path = format!("{array}{below}");
        let by = |key: &'static str| scene.ask("GET", &path).with("x-api-key", key).send();
        assert_eq!(scene.get(&path).await.status, 401, "{path}");
        assert_eq!(by("other-key").await.status, 404, "{path}");
        assert_eq!(by("studio-key").await.status, 200, "{path}");
        let admin = path.replace("/_tabane/", "/api/v1/");
        assert_eq!(scene.admin(http::Method::GET, &admin).await.status, 200);
    }
    for (method, below) in [("DELETE", ""), ("PATCH", ""), ("POST", "/retry")] {
        let ask = scene.ask(method, &format!("{array}{below}"));
        let reply = ask.with("x-api-key", "other-key").send().await;
        assert_eq!(reply.status, 404, "{method} {below}");
    }
}
