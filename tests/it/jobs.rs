//! Requests that are accepted for later: the wire contract, over HTTP, and what becomes of jobs.

use crate::scene::{Reply, Scene, any, nodes};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;
use tabane_sim::{Knobs, Node, Overload, pattern};
use tokio::time::timeout;

/// A service `any` with a store, and `more` in its block.
pub(crate) fn stored(nodes: &[(&Node, u32)], more: &str) -> String {
    format!("data_dir: data\n{}", any(nodes, more))
}

// === asking ===

pub(crate) struct Ask<'a> {
    scene: &'a Scene,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Scene {
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask<'_> {
        Ask {
            scene: self,
            method: method.parse().unwrap(),
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// Hands a request in for later; its job's path.
    pub(crate) async fn submit(&self, path: &str, body: impl Into<Bytes>) -> String {
        let ask = self.ask("POST", path).with("prefer", "respond-async");
        let reply = ask.body(body).send().await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.header("location").to_owned()
    }

    /// Waits until a job is over; its document.
    pub(crate) async fn over(&self, job: &str) -> Value {
        let waited = timeout(Duration::from_secs(60), async {
            loop {
                let document = self
                    .ask("GET", job)
                    .with("prefer", "wait=10")
                    .send()
                    .await
                    .json();
                let state = document["state"].as_str().unwrap().to_owned();
                if !["queued", "starting", "running"].contains(&&*state) {
                    return document;
                }
            }
        });
        waited.await.expect("the job is over within a minute")
    }

    pub(crate) async fn until_job(&self, job: &str, state: &str) -> Value {
        let waited = timeout(Duration::from_secs(60), async {
            loop {
                let document = self.get(job).await.json();
                if document["state"] == state {
                    return document;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let waited = waited.await;
        waited.unwrap_or_else(|_| panic!("{job} never came to be {state}"))
    }
}

impl Ask<'_> {
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Reply {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.scene.url(&self.path));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body)).unwrap();
        self.scene.send(request).await
    }
}

// === the contract ===

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_for_it_is_accepted_for_later_and_its_result_is_the_nodes_answer() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let reply = scene
        .ask("POST", "/echo?x=1")
        .with("prefer", "respond-async")
        .with("content-type", "model/gltf")
        .with("job-tags", "shot=010, draft")
        .body("a scene")
        .send()
        .await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("preference-applied"), "respond-async");
    assert_eq!(reply.header("vary"), "Prefer");
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(!reply.header("retry-after").is_empty());
    let (place, id) = (reply.header("location"), reply.header("job-id"));
    assert_eq!(place, format!("/_tabane/jobs/{id}"));
    let document = reply.json();
    assert_eq!(document["id"], id);
    assert_eq!(document["service"], "any");
    assert_eq!(document["tags"], json!(["draft", "shot=010"]));
    assert_eq!(document["links"]["result"], format!("{place}/result"));

    let document = scene.over(place).await;
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["attempts"][0]["node"], "a/http");
    assert_eq!(document["attempts"][0]["outcome"], "succeeded");
    assert_eq!(document["result"]["length"], 7);
    let result = scene.get(&format!("{place}/result")).await;
    assert_eq!(
        (result.status, &result.body[..]),
        (StatusCode::OK, &b"a scene"[..])
    );
    assert_eq!(result.header("content-type"), "model/gltf");
    assert_eq!(result.header("job-state"), "succeeded");
    let request = scene.get(&format!("{place}/request")).await;
    assert_eq!(&request.body[..], b"a scene");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_any_status_and_size_come_back_byte_for_byte_and_in_ranges() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    for (size, file) in [
        (0, false),
        (1, false),
        (65_536, false),
        (65_537, true),
        (3_000_000, true),
    ] {
        let job = scene.submit("/echo", pattern(size)).await;
        assert_eq!(scene.over(&job).await["state"], "succeeded");
        let result = scene.get(&format!("{job}/result")).await;
        assert!(result.body == pattern(size), "{size} {file}");
        let request = scene.get(&format!("{job}/request")).await;
        assert!(request.body == pattern(size), "{size} {file}");
        if size > 100 {
            let part = scene
                .ask("GET", &format!("{job}/result"))
                .with("range", "bytes=10-19")
                .send()
                .await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(part.header("content-range"), format!("bytes 10-19/{size}"));
            assert!(part.body == pattern(size)[10..20]);
        }
        let past = scene
            .ask("GET", &format!("{job}/result"))
            .with("range", "bytes=3000000-")
            .send()
            .await;
        assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE, "{size}");
    }
    let job = scene.submit("/status/418", "").await;
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "failed");
    let result = scene.get(&format!("{job}/result")).await;
    assert_eq!(
        (result.status.as_u16(), &result.body[..]),
        (418, &b"as asked"[..])
    );
    let head = scene.ask("HEAD", &format!("{job}/result")).send().await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (418, "8")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_gets_the_result_if_it_comes_in_time() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let ask = scene
        .ask("POST", "/echo")
        .with("prefer", "respond-async, wait=30");
    let reply = ask.body("quick").send().await;
    assert_eq!(
        (reply.status, &reply.body[..]),
        (StatusCode::OK, &b"quick"[..])
    );
    assert_eq!(reply.header("job-state"), "succeeded");

    nodes[0].set(|knobs| knobs.hang = true);
    let ask = scene
        .ask("POST", "/work")
        .with("prefer", "respond-async, wait=1");
    let reply = ask.body("slow").send().await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("preference-applied"), "respond-async, wait=1");
    let early = scene
        .get(&format!("{}/result", reply.header("location")))
        .await;
    assert_eq!(early.status, 202);
    assert!(!early.header("retry-after").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_job_and_another_body_is_refused() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let ask = |body: &'static str| {
        scene
            .ask("POST", "/echo")
            .with("prefer", "respond-async")
            .with("idempotency-key", "\"one\"")
            .body(body)
            .send()
    };
    let first = ask("x").await;
    let again = futures::future::join_all((0..16).map(|_| ask("x"))).await;
    for again in &again {
        assert_eq!(again.status, 202);
        assert_eq!(again.header("location"), first.header("location"));
    }
    scene.over(first.header("location")).await;
    assert_eq!(ask("x").await.header("location"), first.header("location"));
    let other = ask("y").await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.json()["error"]["code"], "unprocessable");
    assert_eq!(nodes[0].seen().requests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_choose_the_id() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let put = |id: &str, body: &'static str| {
        let path = format!("/_tabane/jobs/{id}?service=any&path=%2Fecho%3Fq%3D1");
        scene.ask("PUT", &path).body(body).send()
    };
    let first = put("shot-010.v2", "x").await;
    assert_eq!(first.status, 202, "{first:?}");
    assert_eq!(first.header("location"), "/_tabane/jobs/shot-010.v2");
    assert_eq!(put("shot-010.v2", "x").await.status, 202);
    assert_eq!(put("shot-010.v2", "y").await.status, 422);
    let document = scene.over("/_tabane/jobs/shot-010.v2").await;
    assert_eq!(document["client_id"], "shot-010.v2");
    let id = document["id"].as_str().unwrap();
    let operator = scene
        .admin(Method::GET, &format!("/api/v1/jobs/{id}"))
        .await;
    assert_eq!(
        (operator.status.as_u16(), &operator.json()["client_id"]),
        (200, &document["client_id"])
    );
    assert_eq!(document["request"]["target"], "/echo?q=1");
    assert_eq!(
        scene.get("/_tabane/jobs/shot-010.v2/result").await.body,
        "x"
    );
    assert_eq!(nodes[0].seen().requests, 1);
    for (path, status) in [
        ("/_tabane/jobs/a%20b?service=any", 400),
        ("/_tabane/jobs/a", 400),
        ("/_tabane/jobs/a?service=none", 404),
        ("/_tabane/jobs/a?service=any&path=x", 400),
    ] {
        assert_eq!(scene.ask("PUT", path).send().await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_status_and_says_what_to_do() {
    let nodes = nodes(1).await;
    let more = "jobs: {mode: opt-in, max: 2}\nbody: {max: 1000}";
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], more)).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let job = scene.submit("/work", "1").await;
    let known = || {
        let ask = scene.ask("POST", "/work").with("prefer", "respond-async");
        ask.with("idempotency-key", "known").body("2").send()
    };
    let taken = known().await.header("location").to_owned();
    let submit = |header: Option<(&'static str, &str)>, body: usize| {
        let mut ask = scene.ask("POST", "/work").with("prefer", "respond-async");
        if let Some((name, value)) = header {
            ask = ask.with(name, value);
        }
        ask.body(pattern(body)).send()
    };
    for (header, body, status, code) in [
        (None, 1, 429, "queue_full"),
        (None, 1001, 413, "body_too_large"),
        (Some(("job-start-by", "soon")), 1, 400, "bad_request"),
        (Some(("job-timeout", "0s")), 1, 400, "bad_request"),
        (Some(("job-webhook", "ftp://x")), 1, 400, "bad_request"),
        (Some(("idempotency-key", "\"\"")), 1, 400, "bad_request"),
    ] {
        let reply = submit(header, body).await;
        assert_eq!(reply.status, status, "{header:?} {reply:?}");
        assert_eq!(reply.json()["error"]["code"], code, "{header:?}");
        assert_eq!(reply.header("retry-after").is_empty(), status != 429);
    }
    // As many as may be are there; a repeat is no more.
    assert_eq!(known().await.header("location"), taken);
    for (method, path, body, status) in [
        ("GET", "/_tabane/jobs/none", "", 404),
        ("GET", "/_tabane/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", "", 410),
        ("GET", "/_tabane/nothing", "", 404),
        ("POST", "/_tabane/jobs", "", 405),
        ("POST", &job, "", 405),
        ("GET", &format!("{job}/retry"), "", 405),
        ("POST", &format!("{job}/retry"), "", 409),
        ("PATCH", &job, "{\"priority\": 8}", 400),
        ("PATCH", &job, "{\"prio\": 1}", 400),
        ("PATCH", &job, "not json", 400),
        ("GET", "/_tabane/jobs?state=lost", "", 400),
        ("GET", "/_tabane/jobs?limit=0", "", 400),
        ("GET", "/_tabane/jobs?cursor=x", "", 400),
        ("GET", "/_tabane/jobs?colour=red", "", 400),
        ("POST", "/_tabane/callbacks/x/1?token=y", "", 404),
        (
            "POST",
            &format!("{job}/links"),
            "{\"expires_in\": \"1y\"}",
            400,
        ),
    ] {
        let reply = scene.ask(method, path).body(body).send().await;
        assert_eq!(reply.status, status, "{method} {path} {reply:?}");
        assert!(reply.json()["error"]["message"].is_string());
        assert_eq!(
            reply.header("allow").is_empty(),
            status != 405,
            "{method} {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_is_taken_back_at_once_and_one_at_work_when_its_node_let_go() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "cool_down: 1ms")).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let running = scene.submit("/work", "1").await;
    nodes[0].until(|seen| seen.at_work == 1).await;
    let waiting = scene.submit("/work", "2").await;
    let document = scene.get(&waiting).await.json();
    assert_eq!(
        (&document["state"], &document["position"]),
        (&json!("queued"), &json!(0))
    );

    let canceled = scene.ask("DELETE", &waiting).send().await;
    assert_eq!(
        (canceled.status.as_u16(), &canceled.json()["state"]),
        (200, &json!("canceled"))
    );
    let canceled = scene.ask("DELETE", &running).send().await;
    assert!(
        [200, 202].contains(&canceled.status.as_u16()),
        "{canceled:?}"
    );
    assert_eq!(scene.over(&running).await["state"], "canceled");
    nodes[0].until(|seen| seen.client_gone == 1).await;
    assert_eq!(scene.get(&format!("{running}/result")).await.status, 409);

    // One that is over is deleted, with all that was kept of it.
    assert_eq!(
        scene.ask("DELETE", &running).send().await.json()["deleted"],
        true
    );
    assert_eq!(scene.get(&running).await.status, 404);

    nodes[0].set(|knobs| knobs.hang = false);
    let again = scene.ask("POST", &format!("{waiting}/retry")).send().await;
    assert_eq!(again.status, 202);
    assert_eq!(scene.over(&waiting).await["state"], "succeeded");
    assert_eq!(
        scene
            .ask("POST", &format!("{waiting}/retry"))
            .send()
            .await
            .status,
        409
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_more_urgent_goes_first_and_urgency_can_be_changed_while_a_job_waits() {
    let nodes = nodes(1).await;
    let more = "jobs: {priority: header, priority_cap: 2}";
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], more)).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let blocker = scene.submit("/work/blocker", "").await;
    nodes[0].until(|seen| seen.at_work == 1).await;
    let mut jobs = Vec::new();
    for (name, priority) in [("a", "u=5"), ("b", "u=0"), ("c", "u=3")] {
        let ask = scene.ask("POST", &format!("/work/{name}"));
        let ask = ask
            .with("prefer", "respond-async")
            .with("priority", priority);
        jobs.push(ask.send().await.header("location").to_owned());
    }
    // Nobody is more urgent than the file lets them be.
    let priorities = futures::future::join_all(jobs.iter().map(|job| scene.get(job))).await;
    let priorities: Vec<_> = priorities
        .iter()
        .map(|reply| reply.json()["priority"].clone())
        .collect();
    assert_eq!(priorities, [json!(5), json!(2), json!(3)]);
    let patched = scene
        .ask("PATCH", &jobs[0])
        .body("{\"priority\": 0}")
        .send()
        .await;
    assert_eq!(
        (patched.status.as_u16(), &patched.json()["priority"]),
        (200, &json!(2))
    );
    assert_eq!(scene.get(&jobs[2]).await.json()["position"], 2);

    nodes[0].set(|knobs| knobs.hang = false);
    scene.ask("DELETE", &blocker).send().await;
    for job in &jobs {
        assert_eq!(scene.over(job).await["state"], "succeeded");
    }
    let order = nodes[0].seen().paths;
    assert_eq!(order, ["/work/blocker", "/work/a", "/work/b", "/work/c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_another_node_when_one_fails_it_and_is_dead_when_attempts_are_used_up() {
    let nodes = nodes(2).await;
    let more = "jobs: {attempts: 2, backoff: [10ms]}\nhealth: {eject_after: 1000}";
    let yaml = stored(&[(&nodes[0], 1), (&nodes[1], 1)], "")
        .replace("rise: 1, fall: 2", "rise: 1, fall: 2, eject_after: 1000");
    let more = more.lines().next().unwrap();
    let scene = Scene::start(&format!("{yaml}    {more}\n")).await;
    nodes[0].set(|knobs| knobs.status = Some(503));
    for _ in 0..4 {
        let job = scene.submit("/work", "x").await;
        let document = scene.over(&job).await;
        assert_eq!(document["state"], "succeeded");
        let last = document["attempts"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        assert_eq!(last["node"], "b/http");
    }
    nodes[1].set(|knobs| knobs.status = Some(502));
    let job = scene.submit("/work", "x").await;
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "dead", "{document}");
    assert_eq!(document["attempts"].as_array().unwrap().len(), 2);
    // The last answer is kept, for whoever wants to know.
    let result = scene.get(&format!("{job}/result")).await;
    assert!([502, 503].contains(&result.status.as_u16()), "{result:?}");
    nodes[0].set(|knobs| knobs.status = None);
    scene.ask("POST", &format!("{job}/retry")).send().await;
    assert_eq!(scene.over(&job).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_at_work_costs_an_attempt_and_no_job() {
    let mut nodes = nodes(2).await;
    let more = "jobs: {backoff: [10ms]}";
    let scene = Scene::start(&stored(&[(&nodes[0], 1), (&nodes[1], 1)], more)).await;
    nodes[0].set(|knobs| knobs.hang = true);
    nodes[1].set(|knobs| knobs.hang = true);
    let jobs = [
        scene.submit("/work", "1").await,
        scene.submit("/work", "2").await,
    ];
    nodes[0].until(|seen| seen.at_work == 1).await;
    nodes[1].until(|seen| seen.at_work == 1).await;
    nodes[1].set(|knobs| knobs.hang = false);
    nodes.remove(0).kill().await;
    // The one on the other node hangs on: its node took it before the knob was turned.
    let over = |job: String| {
        let scene = &scene;
        async move { scene.over(&job).await }
    };
    let [one, two] = jobs;
    let first = futures::future::select(Box::pin(over(one.clone())), Box::pin(over(two.clone())));
    let first = match timeout(Duration::from_secs(2), first).await {
        Ok(either) => Some(either.factor_first().0),
        Err(_) => None,
    };
    // Its slot is held by the hanging one until that is taken back.
    assert_eq!(first, None);
    for job in [&one, &two] {
        let document = scene.get(job).await.json();
        if document["attempts"][0]["node"] == "b/http" {
            scene.ask("DELETE", job).send().await;
        }
    }
    let documents = [scene.over(&one).await, scene.over(&two).await];
    let mut states: Vec<_> = documents
        .iter()
        .map(|d| d["state"].as_str().unwrap())
        .collect();
    states.sort();
    assert_eq!(states, ["canceled", "succeeded"], "{documents:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_busy_with_something_else_costs_no_attempt() {
    let nodes = nodes(1).await;
    let more = "jobs: {attempts: 1}\nretry: {busy: [409]}";
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], more)).await;
    nodes[0].set(|knobs| knobs.status = Some(409));
    let job = scene.submit("/work", "x").await;
    nodes[0].until(|seen| seen.requests >= 2).await;
    nodes[0].set(|knobs| knobs.status = None);
    let document = scene.over(&job).await;
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["attempts"][0]["outcome"], "busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_expires_when_it_did_not_start_in_time_and_is_dead_when_it_took_too_long() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "cool_down: 1ms")).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let ask = scene.ask("POST", "/work").with("prefer", "respond-async");
    let slow = ask
        .with("job-timeout", "2s")
        .send()
        .await
        .header("location")
        .to_owned();
    nodes[0].until(|seen| seen.at_work == 1).await;
    let ask = scene.ask("POST", "/work").with("prefer", "respond-async");
    let late = ask
        .with("job-start-by", "1s")
        .send()
        .await
        .header("location")
        .to_owned();
    assert_eq!(scene.over(&late).await["state"], "expired");
    assert_eq!(scene.get(&format!("{late}/result")).await.status, 504);
    let document = scene.over(&slow).await;
    assert_eq!(
        (&document["state"], &document["attempts"][0]["outcome"]),
        (&json!("dead"), &json!("timeout"))
    );
    nodes[0].until(|seen| seen.client_gone == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happened_and_go_on_where_a_reader_left_off() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let job = scene.submit("/work", "x").await;
    scene.over(&job).await;
    let events = scene.get(&format!("{job}/events")).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    let text = String::from_utf8(events.body.to_vec()).unwrap();
    let kinds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(kinds.first(), Some(&"queued"), "{text}");
    assert_eq!(kinds.last(), Some(&"finished"), "{text}");
    assert!(kinds.contains(&"started"));
    let ids: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
        .collect();
    assert!(ids.is_sorted() && ids[0] == 1, "{text}");
    let rest = scene
        .ask("GET", &format!("{job}/events"))
        .with("last-event-id", &ids[0].to_string())
        .send()
        .await;
    let rest = String::from_utf8(rest.body.to_vec()).unwrap();
    assert!(
        !rest.contains("event: queued") && rest.contains("event: finished"),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_known_is_not_sent_again_and_a_change_ends_the_wait_for_it() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let job = scene.submit("/work", "x").await;
    scene.until_job(&job, "running").await;
    let status = scene.get(&job).await;
    let tag = status.header("etag").to_owned();
    let known = scene
        .ask("GET", &job)
        .with("if-none-match", &tag)
        .send()
        .await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    let waiting = scene.ask("GET", &job).with("prefer", "wait=60").send();
    let (waited, _) = tokio::join!(waiting, async { scene.ask("DELETE", &job).send().await });
    assert_eq!(waited.json()["state"], "canceled");
    assert_eq!(waited.header("preference-applied"), "wait=60");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged_newest_first() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let mut jobs = Vec::new();
    for i in 0..5 {
        let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
        let tag = if i % 2 == 0 { "even" } else { "odd" };
        let job = ask
            .with("job-tags", tag)
            .send()
            .await
            .header("location")
            .to_owned();
        scene.over(&job).await;
        jobs.push(job);
    }
    let ids = |reply: &Reply| -> Vec<String> {
        let jobs = reply.json()["jobs"].as_array().unwrap().clone();
        let links = jobs
            .iter()
            .map(|job| job["links"]["self"].as_str().unwrap().to_owned());
        links.collect()
    };
    let first = scene.get("/_tabane/jobs?limit=2").await;
    assert_eq!(ids(&first), [jobs[4].clone(), jobs[3].clone()]);
    let next = first
        .header("link")
        .trim_start_matches('<')
        .split('>')
        .next()
        .unwrap()
        .to_owned();
    let second = scene.get(&next).await;
    assert_eq!(ids(&second), [jobs[2].clone(), jobs[1].clone()]);
    let odd = scene
        .get("/_tabane/jobs?tag=odd&state=succeeded,failed&service=any")
        .await;
    assert_eq!(ids(&odd), [jobs[3].clone(), jobs[1].clone()]);
    assert!(odd.json()["next"].is_null());
    assert_eq!(
        ids(&scene.get("/_tabane/jobs?state=queued").await),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_shows_one_job_without_a_key_until_it_expires() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "access: {{anonymous: deny}}\ntenants: {{studio: {{key: studio-key, priority_cap: 5}}, other: other-key}}\n{}",
        stored(&[(&nodes[0], 1)], "priority: header")
    );
    let scene = Scene::start(&yaml).await;
    let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
    let reply = ask.with("x-api-key", "studio-key").body("x").send().await;
    let job = reply.header("location").to_owned();
    assert_eq!(scene.get(&job).await.status, 401);
    let others = scene
        .ask("GET", &job)
        .with("x-api-key", "other-key")
        .send()
        .await;
    assert_eq!(others.status, 404);
    let links = scene
        .ask("POST", &format!("{job}/links"))
        .with("x-api-key", "studio-key");
    let links = links.body("{\"expires_in\": \"1h\"}").send().await.json();
    let result = links["links"]["result"].as_str().unwrap();
    let mut shown = scene.get(result).await;
    while shown.status == 202 {
        shown = scene.get(result).await;
    }
    assert_eq!((shown.status.as_u16(), &shown.body[..]), (200, &b"x"[..]));
    let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
    let urgent = ask
        .with("x-api-key", "studio-key")
        .with("priority", "u=0")
        .send()
        .await;
    assert_eq!(
        urgent.json()["priority"],
        5,
        "its tenant may ask for no more"
    );
    let altered = result.replace("token=A", "token=B");
    assert_eq!(scene.get(&altered).await.status, 401);
    let token = result.split("token=").nth(1).unwrap();
    let delete = scene
        .ask("DELETE", &format!("{job}?token={token}"))
        .send()
        .await;
    assert_eq!(delete.status, 401);
    let list = scene
        .ask("GET", "/_tabane/jobs")
        .with("x-api-key", "other-key")
        .send()
        .await;
    assert_eq!(list.json()["jobs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_files_origins_may_ask_and_read() {
    let nodes = nodes(1).await;
    let more = "cors: {origins: [\"https://studio.example\"]}";
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], more)).await;
    let preflight = |path: &str, origin: &str| {
        scene
            .ask("OPTIONS", path)
            .with("origin", origin)
            .with("access-control-request-method", "POST")
            .with("access-control-request-headers", "prefer, idempotency-key")
            .send()
    };
    for path in ["/echo", "/_tabane/jobs/x"] {
        let yes = preflight(path, "https://studio.example").await;
        assert_eq!(yes.status, 204);
        assert_eq!(
            yes.header("access-control-allow-origin"),
            "https://studio.example"
        );
        assert_eq!(
            yes.header("access-control-allow-headers"),
            "prefer, idempotency-key"
        );
        assert_eq!(preflight(path, "https://evil.example").await.status, 403);
    }
    let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
    let reply = ask.with("origin", "https://studio.example").send().await;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://studio.example"
    );
    assert!(
        reply
            .header("access-control-expose-headers")
            .contains("Location")
    );
    scene.over(reply.header("location")).await;
    assert_eq!(nodes[0].seen().requests, 1, "preflights reach no node");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_requests_and_jobs_share_slots_and_whoever_holds_a_connection_goes_first() {
    let node = Node::start(Knobs {
        overload: Overload::Refuse,
        ..Knobs::named("a", 1)
    });
    let node = node.await.unwrap();
    let scene = Scene::start(&stored(&[(&node, 1)], "cool_down: 1ms")).await;
    node.set(|knobs| knobs.hang = true);
    let blocker = scene.submit("/work/blocker", "").await;
    node.until(|seen| seen.at_work == 1).await;
    let job = scene.submit("/work/job", "").await;
    let live = tokio::spawn({
        let client = scene.client.clone();
        let url = scene.url("/work/live");
        async move {
            client
                .request(Request::get(url).body(Full::default()).unwrap())
                .await
                .unwrap()
                .status()
        }
    });
    crate::scene::eventually("both wait", || scene.gateway.dispatch().queue().total == 2).await;
    node.set(|knobs| knobs.hang = false);
    scene.ask("DELETE", &blocker).send().await;
    assert_eq!(live.await.unwrap(), 200);
    scene.over(&job).await;
    assert_eq!(
        node.seen().paths,
        ["/work/blocker", "/work/live", "/work/job"]
    );
    assert_eq!(node.seen().over_slots, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_through_reloads_and_go_by_the_new_file() {
    let nodes = nodes(2).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    nodes[0].set(|knobs| knobs.hang = true);
    scene.submit("/work/blocker", "").await;
    nodes[0].until(|seen| seen.at_work == 1).await;
    let job = scene.submit("/work/job", "x").await;
    // Without its service it is not lost.
    let gone = stored(&[(&nodes[0], 1)], "").replace("  any:\n", "  another:\n");
    scene.reload(&gone).await.unwrap();
    assert_eq!(scene.get(&job).await.json()["state"], "queued");
    scene
        .reload(&stored(&[(&nodes[0], 1), (&nodes[1], 1)], ""))
        .await
        .unwrap();
    assert_eq!(scene.over(&job).await["state"], "succeeded");
    assert_eq!(nodes[1].seen().paths, ["/work/job"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_by_its_services_name_goes_only_where_a_route_leads_and_takes_no_key_along() {
    let nodes = nodes(1).await;
    let yaml = format!(
        "tenants: {{studio: studio-key}}\n{}",
        stored(&[(&nodes[0], 1)], "")
    );
    let yaml = yaml.replace(
        "routes: [/]",
        "routes: [/render/, {path: /render/live/, jobs: off}]",
    );
    let scene = Scene::start(&yaml).await;
    let put = |id: &str, path: &str| {
        let path = format!("/_tabane/jobs/{id}?service=any&path={path}");
        let ask = scene
            .ask("PUT", &path)
            .with("authorization", "Bearer studio-key");
        ask.with("x-api-key", "studio-key").send()
    };
    let taken = put("one", "/render/7").await;
    assert_eq!(taken.status, 202);
    for (path, status) in [
        ("/shutdown", 404),
        ("/render/../shutdown", 404),
        ("/render/live/1", 403),
    ] {
        assert_eq!(put("two", path).await.status, status, "{path}");
    }
    let job = taken.header("location");
    let ask = scene
        .ask("GET", &format!("{job}/result"))
        .with("x-api-key", "studio-key");
    let result = ask.with("prefer", "wait=30").send().await.json();
    assert_eq!(result["path"], "/render/7");
    let headers = result["headers"].as_object().unwrap();
    assert!(
        !headers.contains_key("authorization") && !headers.contains_key("x-api-key"),
        "{headers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_only_a_job_that_nobody_else_can_rely_on() {
    let nodes = nodes(1).await;
    let more = "cool_down: 1ms\njobs: {mode: opt-in, on_disconnect: cancel}";
    let scene = Scene::start(&stored(&[(&nodes[0], 4)], more)).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let wait_and_leave = |key: Option<&'static str>| {
        let mut ask = scene
            .ask("POST", "/work")
            .with("prefer", "respond-async, wait=60");
        if let Some(key) = key {
            ask = ask.with("idempotency-key", key);
        }
        timeout(Duration::from_millis(300), ask.send())
    };
    assert!(wait_and_leave(Some("shared")).await.is_err());
    assert!(wait_and_leave(None).await.is_err());
    nodes[0].until(|seen| seen.client_gone == 1).await;
    let states = |reply: &Reply| -> Vec<String> {
        let jobs = reply.json()["jobs"].as_array().unwrap().clone();
        jobs.iter()
            .map(|job| job["state"].as_str().unwrap().to_owned())
            .collect()
    };
    let waited = timeout(Duration::from_secs(30), async {
        loop {
            let states = states(&scene.get("/_tabane/jobs").await);
            if states[0] == "canceled" {
                return states;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let states = waited.await.unwrap();
    assert!(["starting", "running"].contains(&&*states[1]), "{states:?}");
}
