//! What waits, what runs, what was.

use crate::client::{finished, get, post, submit};
use crate::prompts::empty_save;
use serde_json::{Value, json};
use tabane_sim::comfy::{ComfyNode, Saw, Spec, Version};

pub fn sleep(seconds: f64) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "TestSleep", "inputs": {"value": ["1", 0], "seconds": seconds}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    })
}

pub async fn started(node: &ComfyNode, id: &str) {
    let saw = node.until(|saw| {
        saw.iter()
            .any(|saw| matches!(saw, Saw::Started { prompt_id, .. } if prompt_id == id))
    });
    tokio::time::timeout(crate::client::LONG, saw)
        .await
        .unwrap();
}

fn ids(list: &Value) -> Vec<&str> {
    let items = list.as_array().unwrap().iter();
    items
        .map(|item| item[1].as_str().or(item["id"].as_str()).unwrap())
        .collect()
}

#[tokio::test]
async fn the_queue_shows_what_runs_and_what_waits() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let runs = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &runs).await;
    let second = submit(&node, "c", &empty_save("x")).await;
    let front = json!({"prompt": empty_save("x"), "front": true, "extra_data": {"extra_pnginfo": {}, "api_key_comfy_org": "k"}});
    let answer = post(&node, "/prompt", &front).await.json();
    assert_eq!(answer["number"], -2);
    let own = json!({"prompt": empty_save("x"), "number": -5});
    assert_eq!(post(&node, "/prompt", &own).await.json()["number"], -5.0);
    let queue = get(&node, "/queue").await.json();
    let running = &queue["queue_running"][0];
    assert_eq!(
        (&running[0], &running[1], &running[3], &running[4]),
        (
            &json!(0),
            &json!(runs),
            &json!({"client_id": "c"}),
            &json!(["3"])
        )
    );
    let numbers: Vec<f64> = queue["queue_pending"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[0].as_f64().unwrap())
        .collect();
    assert_eq!(numbers, [-5.0, 1.0, -2.0], "as its heap has them");
    assert_eq!(
        queue["queue_pending"][2][3]["api_key_comfy_org"], "k",
        "that version tells it"
    );
    assert_eq!(
        get(&node, "/prompt").await.json(),
        json!({"exec_info": {"queue_remaining": 4}})
    );
    let gone = post(&node, "/queue", &json!({"delete": [second, "unknown"]})).await;
    assert_eq!((gone.status, gone.text()), (200, ""));
    assert_eq!(
        get(&node, "/queue").await.json()["queue_pending"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        post(&node, "/queue", &json!({"clear": true})).await.status,
        200
    );
    assert_eq!(
        get(&node, "/api/prompt").await.json()["exec_info"]["queue_remaining"],
        1
    );
}

#[tokio::test]
async fn an_interrupt_hits_the_one_it_names_or_whatever_runs() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let runs = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &runs).await;
    assert_eq!(
        post(&node, "/interrupt", &json!({"prompt_id": "another"}))
            .await
            .status,
        200
    );
    assert_eq!(
        get(&node, "/queue").await.json()["queue_running"][0][1],
        runs.as_str()
    );
    assert_eq!(
        post(&node, "/interrupt", &json!({"prompt_id": runs}))
            .await
            .text(),
        ""
    );
    let entry = finished(&node, &runs).await;
    assert_eq!(
        (
            &entry["status"]["status_str"],
            &entry["status"]["completed"]
        ),
        (&json!("error"), &json!(false))
    );
    let interrupted = &entry["status"]["messages"][2];
    assert_eq!(interrupted[0], "execution_interrupted");
    assert_eq!(
        (&interrupted[1]["node_id"], &interrupted[1]["node_type"]),
        (&json!("2"), &json!("TestSleep"))
    );
    let next = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &next).await;
    crate::client::ask(&node, "POST", "/interrupt", &[], "")
        .await
        .unwrap();
    assert_eq!(
        finished(&node, &next).await["status"]["status_str"],
        "error"
    );
    // An interrupt while nothing runs does nothing to the next one.
    crate::client::ask(&node, "POST", "/interrupt", &[], "")
        .await
        .unwrap();
    let last = submit(&node, "c", &empty_save("x")).await;
    assert_eq!(
        finished(&node, &last).await["status"]["status_str"],
        "success"
    );
}

/// Which of them are told, in which order: in text, since objects have none.
fn places(ids: &[String], text: &str) -> Vec<usize> {
    let found = ids
        .iter()
        .enumerate()
        .filter_map(|(i, id)| Some((text.find(&format!("\"{id}\": {{"))?, i)));
    let mut found: Vec<(usize, usize)> = found.collect();
    found.sort();
    found.into_iter().map(|(_, i)| i).collect()
}

#[tokio::test]
async fn the_history_is_in_the_order_of_ends_and_can_be_cut_and_forgotten() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let mut done = Vec::new();
    for _ in 0..4 {
        let id = submit(&node, "c", &empty_save("x")).await;
        finished(&node, &id).await;
        done.push(id);
    }
    let told = async |path| places(&done, get(&node, path).await.text());
    assert_eq!(told("/history").await, [0, 1, 2, 3]);
    assert_eq!(told("/history?max_items=2").await, [2, 3], "the last ones");
    assert_eq!(
        told("/history?max_items=2&offset=1").await,
        [1, 2],
        "from the oldest"
    );
    assert_eq!(told("/history?offset=3").await, [3]);
    assert_eq!(get(&node, "/history?max_items=x").await.status, 500);
    assert_eq!(get(&node, "/history/unknown").await.text(), "{}");
    post(&node, "/history", &json!({"delete": [done[1]]})).await;
    assert_eq!(told("/api/history").await, [0, 2, 3]);
    post(&node, "/history", &json!({"clear": true})).await;
    assert_eq!(get(&node, "/history").await.text(), "{}");
}

#[tokio::test]
async fn jobs_are_listed_sorted_filtered_and_cut() {
    let node = ComfyNode::start(Spec::named("a").version(Version::LATE))
        .await
        .unwrap();
    let workflow =
        json!({"extra_pnginfo": {"workflow": {"id": "w-1"}}, "api_key_comfy_org": "secret"});
    let asked = json!({"prompt": empty_save("x"), "extra_data": workflow});
    let done = post(&node, "/prompt", &asked).await.json()["prompt_id"]
        .as_str()
        .unwrap()
        .to_owned();
    finished(&node, &done).await;
    let bad = json!({
        "1": {"class_type": "StubImage", "inputs": {"content": "BLACK", "height": 8, "width": 8, "batch_size": 1}},
        "2": {"class_type": "TestSyncError", "inputs": {"value": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    });
    let failed = submit(&node, "c", &bad).await;
    finished(&node, &failed).await;
    let runs = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &runs).await;
    let waits = submit(&node, "c", &empty_save("x")).await;
    let all = get(&node, "/api/jobs?sort_order=asc").await.json();
    assert_eq!(ids(&all["jobs"])[0], done);
    assert_eq!(
        all["pagination"],
        json!({"offset": 0, "limit": null, "total": 4, "has_more": false})
    );
    let cut = get(
        &node,
        "/api/jobs?status=completed,failed,cancelled&limit=1&offset=0",
    )
    .await
    .json();
    assert_eq!(
        cut["pagination"],
        json!({"offset": 0, "limit": 1, "total": 2, "has_more": true})
    );
    let open = get(
        &node,
        "/api/jobs?status=in_progress,pending&limit=200&offset=0",
    )
    .await
    .json();
    let mut open = ids(&open["jobs"])
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    open.sort();
    let mut wanted = vec![runs.clone(), waits.clone()];
    wanted.sort();
    assert_eq!(open, wanted);
    let ours = get(&node, "/api/jobs?workflow_id=w-1").await.json();
    let job = &ours["jobs"][0];
    assert_eq!(
        (
            &job["status"],
            &job["priority"],
            &job["outputs_count"],
            &job["workflow_id"]
        ),
        (&json!("completed"), &json!(0), &json!(1), &json!("w-1"))
    );
    assert_eq!(
        job["preview_output"],
        json!({"filename": "x_00001_.png", "subfolder": "", "type": "output", "nodeId": "2", "mediaType": "images"})
    );
    assert!(job["create_time"].as_i64() <= job["execution_start_time"].as_i64());
    let one = get(&node, &format!("/api/jobs/{done}")).await;
    assert!(!one.text().contains("secret"), "secrets are told to nobody");
    let one = one.json();
    assert_eq!(one["outputs"]["2"]["images"][0]["type"], "output");
    assert_eq!(one["workflow"]["prompt"], empty_save("x"));
    assert_eq!(one["execution_status"]["status_str"], "success");
    let one = get(&node, &format!("/api/jobs/{failed}")).await.json();
    assert_eq!(
        (&one["status"], &one["execution_error"]["exception_type"]),
        (&json!("failed"), &json!("RuntimeError"))
    );
    for (path, status) in [
        ("/api/jobs/unknown", 404),
        ("/api/jobs?status=odd", 400),
        ("/api/jobs?limit=0", 400),
        ("/api/jobs?sort_by=name", 400),
        ("/jobs", 404),
    ] {
        assert_eq!(get(&node, path).await.status, status, "{path}");
    }
    let cancel = async |id: &str| {
        let path = format!("/api/jobs/{id}/cancel");
        post(&node, &path, &json!({})).await.json()["cancelled"] == true
    };
    assert!(cancel(&waits).await, "one that waits");
    assert!(!cancel(&waits).await, "once");
    assert!(!cancel(&done).await, "not one that is done");
    assert!(cancel(&runs).await, "one that runs");
    assert_eq!(
        finished(&node, &runs).await["status"]["messages"][2][0],
        "execution_interrupted"
    );
    let one = get(&node, &format!("/api/jobs/{runs}")).await.json();
    assert_eq!(one["status"], "cancelled");
    let many = post(&node, "/api/jobs/cancel", &json!({"job_ids": ["x", runs]})).await;
    assert_eq!(
        (many.status, many.text()),
        (
            400,
            r#"{"error": "job_ids contains invalid id(s)", "invalid_ids": ["x"]}"#
        )
    );
    let many = post(&node, "/api/jobs/cancel", &json!({"job_ids": [runs]})).await;
    assert_eq!(many.text(), r#"{"cancelled": false}"#);
}

#[tokio::test]
async fn a_restart_keeps_files_and_forgets_the_rest() {
    let mut node = ComfyNode::start(Spec::named("a")).await.unwrap();
    crate::client::upload(&node, "u.png", b"u", &[]).await;
    let mut prompt = empty_save("kept");
    prompt["3"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}});
    let done = submit(&node, "c", &prompt).await;
    let entry = finished(&node, &done).await;
    let temp = entry["outputs"]["3"]["images"][0]["filename"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut socket = crate::client::socket(&node, "c").await;
    socket.event().await;
    let runs = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &runs).await;
    submit(&node, "c", &empty_save("x")).await;
    let address = node.addr();
    node.crash().await;
    while socket.next().await.is_some() {}
    assert!(
        crate::client::ask(&node, "GET", "/queue", &[], "")
            .await
            .is_err(),
        "nobody is there"
    );
    node.restart().await.unwrap();
    assert_eq!(node.addr(), address);
    assert_eq!(get(&node, "/history").await.text(), "{}");
    assert_eq!(
        get(&node, "/queue").await.text(),
        r#"{"queue_running": [], "queue_pending": []}"#
    );
    assert_eq!(
        get(&node, "/view?filename=kept_00001_.png").await.status,
        200
    );
    assert_eq!(
        get(&node, "/view?filename=u.png&type=input").await.status,
        200
    );
    assert_eq!(
        get(&node, &format!("/view?filename={temp}&type=temp"))
            .await
            .status,
        404
    );
    let again = post(&node, "/prompt", &json!({"prompt": empty_save("kept")}))
        .await
        .json();
    assert_eq!(again["number"], 0, "it counts anew");
    let entry = finished(&node, again["prompt_id"].as_str().unwrap()).await;
    assert_eq!(
        entry["outputs"]["2"]["images"][0]["filename"],
        "kept_00002_.png"
    );
    let lives = node
        .seen()
        .iter()
        .filter(|saw| matches!(saw, Saw::Began | Saw::Died))
        .count();
    assert_eq!(lives, 3);
    node.stop().await;
}

#[tokio::test]
async fn the_only_one_that_waits_is_told_twice_when_it_is_deleted() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let runs = submit(&node, "c", &sleep(60.0)).await;
    started(&node, &runs).await;
    let mut other = crate::client::socket(&node, "other").await;
    other.event().await;
    let mut waits = Vec::new();
    for _ in 0..2 {
        waits.push(submit(&node, "c", &empty_save("x")).await);
    }
    for id in waits {
        post(&node, "/queue", &json!({"delete": [id]})).await;
    }
    let mut told = Vec::new();
    for _ in 0..5 {
        let status = other.event().await;
        told.push(
            status["data"]["status"]["exec_info"]["queue_remaining"]
                .as_u64()
                .unwrap(),
        );
    }
    assert_eq!(told, [2, 3, 2, 1, 1], "as the real server does");
}
