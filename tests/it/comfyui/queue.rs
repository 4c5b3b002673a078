//! The queue: in which order prompts run, how they are taken back, and how many may be there.

use super::client::{Client, event};
use super::prompts::{colour, slow};
use super::{Farm, More, specs, taken, until_at};
use serde_json::{Value, json};
use std::collections::HashSet;
use tabane_sim::comfy::{ComfyKnobs, Spec, Version};

fn last(entry: &Value) -> &str {
    let messages = entry["status"]["messages"].as_array().unwrap();
    messages.last().unwrap()[0].as_str().unwrap()
}

/// One that a node is at, and that ends when it is interrupted.
async fn blocker(farm: &Farm, client: &Client, node: &str) -> String {
    let id = client.submit(&slow(60.0, 0)).await;
    until_at(farm.node(node), &id).await;
    id
}

async fn remaining(client: &Client) -> u64 {
    let told = client.get("/api/prompt").await.json();
    told["exec_info"]["queue_remaining"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_in_front_run_before_all_others_and_the_queue_is_shown_by_numbers() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let first = blocker(&farm, &client, "a").await;
    let mut ids = Vec::new();
    for (i, more) in [
        json!({}),
        json!({}),
        json!({"front": true}),
        json!({"front": true}),
        json!({"number": 0.5}),
        json!({"number": -100}),
    ]
    .into_iter()
    .enumerate()
    {
        ids.push(client.submit_with(&slow(0.0, 1 + i as u32), more).await);
    }
    let order = [5, 3, 2, 4, 0, 1].map(|i: usize| ids[i].clone());
    let queue = client.get("/queue").await.json();
    let numbers: HashSet<String> = queue["queue_pending"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[0].to_string())
        .collect();
    let every = ["-100.0", "-4", "-3", "0.5", "1", "2"].map(str::to_owned);
    assert_eq!(numbers, HashSet::from(every));
    assert_eq!(client.queue().await.1, order);
    client
        .post("/interrupt", &json!({"prompt_id": first}))
        .await;
    for id in &ids {
        client.finished(id).await;
    }
    let ran = taken(farm.node("a"))[1..].to_vec();
    let in_front: HashSet<&String> = ran[..3].iter().collect();
    assert_eq!(in_front, HashSet::from([&ids[2], &ids[3], &ids[5]]));
    // The others in the order in which they came.
    assert_eq!(ran[3..], [0, 1, 4].map(|i: usize| ids[i].clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_shows_what_was_handed_in_and_counts_to_everybody() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let mut watches = farm.client("watches").listen().await;
    let counted = |event: Value| {
        event["status"]["exec_info"]["queue_remaining"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(counted(watches.event_of("status").await), 0);
    let extra = json!({"extra_data": {"extra_pnginfo": {"workflow": {"id": "w-1"}}, "client_id": "another"}});
    let first = client.submit_with(&slow(60.0, 0), extra).await;
    until_at(farm.node("a"), &first).await;
    let mut partial = slow(0.0, 1);
    partial["4"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}});
    let targets = json!({"partial_execution_targets": ["4"]});
    let second = client.submit_with(&partial, targets).await;
    let queue = client.get("/api/queue").await.json();
    let data = json!({"extra_pnginfo": {"workflow": {"id": "w-1"}}, "client_id": "c"});
    assert_eq!(
        queue,
        json!({
            "queue_running": [[0, first, slow(60.0, 0), data, ["3"]]],
            "queue_pending": [[1, second, partial, {"client_id": "c"}, ["4"]]],
        })
    );
    assert_eq!(remaining(&client).await, 2);
    while counted(watches.event_of("status").await) != 2 {}
    client
        .post("/interrupt", &json!({"prompt_id": first}))
        .await;
    let entry = client.finished(&second).await;
    let outputs: Vec<&String> = entry["outputs"].as_object().unwrap().keys().collect();
    assert_eq!(outputs, ["4"], "the only one that was wanted");
    while counted(watches.event_of("status").await) != 0 {}
    assert_eq!(remaining(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_deleted_cleared_or_cancelled_and_leaves_nothing() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    let first = blocker(&farm, &client, "a").await;
    let mut ids = Vec::new();
    for i in 0..6 {
        ids.push(client.submit(&slow(0.0, 1 + i)).await);
    }
    let nothing = client
        .post("/queue", &json!({"delete": ["unknown", first]}))
        .await;
    assert_eq!((nothing.status.as_u16(), nothing.body.len()), (200, 0));
    assert_eq!(remaining(&client).await, 7, "what runs is not hit");
    client
        .post("/api/queue", &json!({"delete": [ids[0], ids[1]]}))
        .await;
    assert_eq!(remaining(&client).await, 5);
    let told = client
        .post(&format!("/api/jobs/{}/cancel", ids[2]), &json!({}))
        .await;
    assert_eq!(told.json(), json!({"cancelled": true}));
    let told = client
        .post(&format!("/api/jobs/{}/cancel", ids[2]), &json!({}))
        .await;
    assert_eq!(told.json(), json!({"cancelled": false}));
    let many = json!({"job_ids": [ids[3], "unknown"]});
    let told = client.post("/api/jobs/cancel", &many).await;
    assert_eq!(told.json(), json!({"cancelled": true}));
    assert_eq!(
        client.queue().await,
        (vec![first.clone()], ids[4..].to_vec())
    );
    client.post("/queue", &json!({"clear": true})).await;
    assert_eq!(client.queue().await, (vec![first.clone()], vec![]));
    client
        .post("/interrupt", &json!({"prompt_id": first}))
        .await;
    client.finished(&first).await;
    let history = client.get("/history").await.json();
    assert_eq!(history.as_object().unwrap().len(), 1, "{history}");
    assert_eq!(taken(farm.node("a")), [first]);
    let gone = client.get(&format!("/api/jobs/{}", ids[0])).await;
    assert_eq!(
        (gone.status.as_u16(), gone.json()),
        (404, json!({"error": "Job not found"}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wait_for_is_not_cleared() {
    let farm = Farm::alike(1).await;
    let [one, other] = ["one", "other"].map(|id| farm.client(id).with("comfy-user", id));
    let first = blocker(&farm, &one, "a").await;
    one.submit(&slow(0.0, 1)).await;
    let its = other.submit(&slow(0.0, 2)).await;
    one.post("/queue", &json!({"clear": true})).await;
    assert_eq!(one.queue().await, (vec![first], vec![its]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_cancelled_by_its_id_on_servers_of_every_age_and_its_client_hears_the_end() {
    for version in [
        Version(0, 3, 45),
        Version(0, 3, 57),
        Version::RECORDED,
        Version::LATE,
    ] {
        let nodes = vec![Spec::named("a").version(version)];
        let farm = Farm::start(nodes, More::default()).await;
        let client = farm.client("c");
        for way in ["/api/jobs/ID/cancel", "/interrupt"] {
            let mut socket = client.listen().await;
            let id = client.submit(&slow(60.0, 0)).await;
            until_at(farm.node("a"), &id).await;
            // Another id hits nobody.
            let other = json!({"prompt_id": "00000000-0000-4000-8000-000000000000"});
            client.post("/interrupt", &other).await;
            assert_eq!(client.queue().await.0, std::slice::from_ref(&id));
            let path = way.replace("ID", &id);
            let told = client.post(&path, &json!({"prompt_id": id})).await;
            assert_eq!(told.status, 200);
            let heard = socket.until_end(&id).await;
            let interrupted = heard.iter().filter_map(event);
            let interrupted: Vec<Value> = interrupted
                .filter(|e| e["type"] == "execution_interrupted")
                .collect();
            assert_eq!(interrupted.len(), 1, "{version} {way}");
            let entry = client.finished(&id).await;
            assert_eq!(last(&entry), "execution_interrupted");
            assert_eq!(entry["status"]["status_str"], "error");
            let job = client.get(&format!("/api/jobs/{id}")).await.json();
            assert_eq!(job["status"], "cancelled");
        }
        // The node is free.
        client.run(&colour(1, "x")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_as_many_as_may_be_there_a_prompt_is_told_to_come_back() {
    let more = More {
        service: "jobs: {max: 2}",
        ..More::default()
    };
    let farm = Farm::start(specs(1), more).await;
    let client = farm.client("c");
    let first = blocker(&farm, &client, "a").await;
    client.submit(&slow(0.0, 1)).await;
    let told = client
        .post(
            "/prompt",
            &json!({"prompt": slow(0.0, 2), "client_id": "c"}),
        )
        .await;
    assert_eq!(told.status, 429, "{told:?}");
    assert!(!told.header("retry-after").is_empty());
    assert!(told.header("content-type").starts_with("application/json"));
    let body = told.json();
    assert_eq!(body["error"]["type"], "QUEUE_LIMIT");
    assert!(body["error"]["message"].is_string());
    assert_eq!(body["node_errors"], json!({}));
    assert_eq!(remaining(&client).await, 2);
    client
        .post("/interrupt", &json!({"prompt_id": first}))
        .await;
    client.finished(&first).await;
    client.run(&slow(0.0, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_also_before_servers_that_have_no_such_list() {
    let farm = Farm::alike(1).await;
    let client = farm.client("c");
    assert_eq!(
        Client::new(farm.node("a").addr(), "c")
            .get("/api/jobs")
            .await
            .status,
        404
    );
    let named = json!({"extra_data": {"extra_pnginfo": {"workflow": {"id": "w-1"}}}});
    let done = client.submit_with(&colour(1, "x"), named).await;
    client.finished(&done).await;
    let mut wrong = colour(2, "x");
    wrong["3"] = json!({"class_type": "TestSyncError", "inputs": {"value": ["1", 0]}});
    wrong["2"]["inputs"]["images"] = json!(["3", 0]);
    let failed = client.submit(&wrong).await;
    client.finished(&failed).await;
    let stopped = blocker(&farm, &client, "a").await;
    client
        .post("/interrupt", &json!({"prompt_id": stopped}))
        .await;
    client.finished(&stopped).await;
    let runs = blocker(&farm, &client, "a").await;
    let waits = client.submit(&slow(0.0, 4)).await;
    let all = client.get("/api/jobs").await.json();
    let listed = |list: &Value| -> Vec<(String, String)> {
        let jobs = list["jobs"].as_array().unwrap().iter();
        let text = |job: &Value, key: &str| job[key].as_str().unwrap().to_owned();
        jobs.map(|job| (text(job, "id"), text(job, "status")))
            .collect()
    };
    let wants = |list: &[(&String, &str)]| -> Vec<(String, String)> {
        list.iter()
            .map(|(id, status)| ((*id).clone(), (*status).to_owned()))
            .collect()
    };
    let every = [
        (&waits, "pending"),
        (&runs, "in_progress"),
        (&stopped, "cancelled"),
        (&failed, "failed"),
        (&done, "completed"),
    ];
    assert_eq!(listed(&all), wants(&every), "the newest first");
    assert_eq!(
        all["pagination"],
        json!({"offset": 0, "limit": null, "total": 5, "has_more": false})
    );
    let some = client
        .get("/api/jobs?status=completed,failed,cancelled&limit=1&offset=1")
        .await
        .json();
    assert_eq!(listed(&some), wants(&every[3..4]));
    assert_eq!(
        some["pagination"],
        json!({"offset": 1, "limit": 1, "total": 3, "has_more": true})
    );
    let up = client
        .get("/api/jobs?status=in_progress,pending&sort_order=asc")
        .await
        .json();
    assert_eq!(listed(&up), wants(&[every[1], every[0]]));
    let drawn = client.get("/api/jobs?workflow_id=w-1").await.json();
    assert_eq!(listed(&drawn), wants(&every[4..]));
    let job = &drawn["jobs"][0];
    assert_eq!(
        (&job["outputs_count"], &job["workflow_id"]),
        (&json!(1), &json!("w-1"))
    );
    assert_eq!(job["preview_output"]["filename"], "x_00001_.png");
    assert_eq!(job["preview_output"]["mediaType"], "images");
    for wrong in [
        "status=odd",
        "limit=0",
        "limit=x",
        "sort_by=x",
        "sort_order=x",
        "offset=x",
    ] {
        let told = client.get(&format!("/api/jobs?{wrong}")).await;
        assert_eq!(told.status, 400, "{wrong}");
        assert!(told.json()["error"].is_string());
    }
    let one = client.get(&format!("/api/jobs/{failed}")).await.json();
    assert_eq!(one["execution_error"]["node_type"], "TestSyncError");
    assert_eq!(one["workflow"]["prompt"], wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_at_one_prompt_at_a_time_however_late_its_history_is() {
    let slow = ComfyKnobs {
        history_lag_ms: 150,
        ..ComfyKnobs::default()
    };
    let farm = Farm::start(vec![Spec::named("a").knobs(slow)], More::default()).await;
    let client = farm.client("c");
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(client.submit(&colour(n, "x")).await);
    }
    let many = |queue: &Value, key: &str| queue[key].as_array().map_or(0, Vec::len);
    client
        .until("/queue", |queue| {
            let (running, waiting) = (many(queue, "queue_running"), many(queue, "queue_pending"));
            assert!(running <= 1, "{queue}");
            running + waiting == 0
        })
        .await;
    let history = client.get("/history").await.body;
    let history = String::from_utf8_lossy(&history);
    let places: Vec<_> = ids.iter().map(|id| history.find(id.as_str())).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{history}");
}
