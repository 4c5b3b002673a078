//! The store is full, or gone: live traffic goes on, what cannot be kept is refused before its 202, nothing accepted is lost.

use crate::jobs::stored;
use crate::scene::{Scene, app, nodes};
use tabane_sim::pattern;

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_refuses_jobs_with_507_and_nothing_else() {
    let nodes = nodes(1).await;
    let limits = "limits: {job_bytes: 300KB}\n";
    let yaml = format!("{limits}{}", stored(&[(&nodes[0], 1)], "cool_down: 1ms"));
    let scene = Scene::start(&yaml).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let blocker = scene.submit("/work", "").await;
    let kept = scene.submit("/echo", pattern(200_000)).await;
    let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
    let refused = ask.body(pattern(200_000)).send().await;
    assert_eq!(refused.status, 507);
    assert_eq!(refused.json()["error"]["code"], "store_full");
    assert!(!refused.header("retry-after").is_empty());
    // Small ones need no file.
    let small = scene.submit("/echo", "small").await;
    nodes[0].set(|knobs| knobs.hang = false);
    scene.ask("DELETE", &blocker).send().await;
    assert_eq!(scene.post("/echo", pattern(400_000)).await.status, 200);
    assert_eq!(scene.over(&small).await["state"], "succeeded");
    // Its result has no room beside its request: it waits for room, and nothing is lost.
    let no_room = async {
        while scene.get(&kept).await.json()["attempts"][0]["outcome"] != "no_room" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), no_room).await;
    waited.expect("its result has no room");
    assert_eq!(scene.get(&kept).await.json()["state"], "queued");
    assert_eq!(
        scene.get(&format!("{kept}/request")).await.body,
        pattern(200_000)
    );
    // Canceled, then deleted.
    scene.ask("DELETE", &kept).send().await;
    scene.ask("DELETE", &kept).send().await;
    let again = scene.submit("/echo", pattern(100_000)).await;
    assert_eq!(scene.over(&again).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_not_grow_refuses_jobs_with_507_and_ends_those_it_has() {
    let nodes = nodes(1).await;
    let limits = "limits: {database_bytes: 1MiB}\n";
    let yaml = format!("{limits}{}", stored(&[(&nodes[0], 1)], "cool_down: 1ms"));
    let scene = Scene::start(&yaml).await;
    nodes[0].set(|knobs| knobs.hang = true);
    let blocker = scene.submit("/work", "").await;
    let mut jobs = Vec::new();
    let refused = loop {
        let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
        let reply = ask.body(pattern(20_000)).send().await;
        if reply.status != 202 {
            break reply;
        }
        jobs.push(reply.header("location").to_owned());
        assert!(jobs.len() < 100, "it is full before");
    };
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(!jobs.is_empty());
    nodes[0].set(|knobs| knobs.hang = false);
    assert_eq!(
        scene.ask("DELETE", &blocker).send().await.status.as_u16() / 100,
        2
    );
    assert_eq!(scene.post("/echo", "live").await.status, 200);
    // Whoever was accepted comes to an end, though nobody makes room.
    for job in &jobs {
        assert_eq!(scene.over(job).await["state"], "succeeded");
        let result = scene.get(&format!("{job}/result")).await;
        assert!(result.status == 200 && result.body == pattern(20_000));
    }
    for job in &jobs {
        scene.ask("DELETE", job).send().await;
    }
    let job = scene.submit("/echo", "room again").await;
    assert_eq!(scene.over(&job).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_data_dir_no_jobs_are_taken_and_requests_are_forwarded_as_ever() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&crate::scene::any(&[(&nodes[0], 1)], "")).await;
    let ask = scene.ask("POST", "/work").with("prefer", "respond-async");
    let reply = ask.send().await;
    assert_eq!((reply.status.as_u16(), reply.node()), (200, "a".into()));
    assert_eq!(reply.json()["headers"]["prefer"], "respond-async");
    assert_eq!(scene.get("/_tabane/jobs").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_trusted_is_a_reason_not_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(
        data.join("jobs.sqlite"),
        b"this is somebody's letter, and no database",
    )
    .unwrap();
    let yaml = format!(
        "listen: [\"127.0.0.1:0\"]\nadmin: off\ndata_dir: {}\nservices: {{any: {{pool: [http://127.0.0.1:1]}}}}\n",
        data.display()
    );
    let source = tabane::Source::Text(yaml);
    let app = app();
    let loaded = app.load(&source).unwrap();
    let Err(error) = app.start(source, loaded).await else {
        panic!("it started");
    };
    let error = format!("{error:#}");
    assert!(error.contains("jobs.sqlite"), "{error}");
    let left = std::fs::read(data.join("jobs.sqlite")).unwrap();
    assert!(
        left.starts_with(b"this is somebody's"),
        "it is left as it was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_file_was_taken_away_promises_nothing_more() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&stored(&[(&nodes[0], 1)], "")).await;
    let job = scene.submit("/echo", "kept").await;
    scene.over(&job).await;
    let (file, aside) = ("data/jobs.sqlite", "data/aside");
    std::fs::rename(scene.dir.path().join(file), scene.dir.path().join(aside)).unwrap();
    let ask = scene.ask("POST", "/echo").with("prefer", "respond-async");
    assert_eq!(ask.body("lost").send().await.status, 503);
    assert_eq!(scene.post("/echo", "live").await.status, 200);
    std::fs::rename(scene.dir.path().join(aside), scene.dir.path().join(file)).unwrap();
    let job = scene.submit("/echo", "kept again").await;
    assert_eq!(scene.over(&job).await["state"], "succeeded");
}
