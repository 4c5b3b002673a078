use super::fakes::{Node, attempt, kind};
use std::time::Duration;
use tabane_api::{NodeError, Service, Stop, Stopped};
use tokio::time::Instant;

const BLOCK: &str = r#"{"poll": {"submit": {"headers": {"K": "{attempt}"}}, "id": "/id", "status": "/jobs/{id}",
    "state": "/s", "done": ["done"], "failed": ["failed"], "canceled": ["canceled"],
    "cancel": {"path": "/cancel", "json": {"task_id": "{id}"}}, "find": {"path": "/by/{attempt}", "id": "/id"}}}"#;

async fn stop(block: &str, handle: Option<&str>, node: &Node) -> Result<Stopped, NodeError> {
    let mut attempt = attempt("{}");
    attempt.job = "j".into();
    attempt.handle = handle.map(Into::into);
    kind(block)
        .unwrap()
        .cancel(&attempt, node, Stop::Cancel)
        .await
}

#[tokio::test(start_paused = true)]
async fn stopped_means_that_the_server_says_so() {
    let node = Node::default()
        .on("POST /cancel", 200, "{}")
        .on("GET /jobs/7", 200, r#"{"s": "running"}"#)
        .fails("GET /jobs/7", NodeError::Timeout)
        .on("GET /jobs/7", 200, r#"{"s": "canceled"}"#);
    assert_eq!(stop(BLOCK, Some("7"), &node).await, Ok(Stopped::Idle));
    assert_eq!(node.request("POST /cancel").body(), r#"{"task_id":"7"}"#);
    for end in [r#"{"s": "done"}"#, r#"{"s": "failed"}"#] {
        // It ended by itself in the meantime, and so the server had nothing to stop.
        let node =
            Node::default()
                .on("POST /cancel", 400, "not running")
                .on("GET /jobs/7", 200, end);
        assert_eq!(stop(BLOCK, Some("7"), &node).await, Ok(Stopped::Idle));
    }
    for (cancel, status) in [(404, 500), (200, 404)] {
        let node = Node::default()
            .on("POST /cancel", cancel, "")
            .on("GET /jobs/7", status, "");
        assert_eq!(
            stop(BLOCK, Some("7"), &node).await,
            Ok(Stopped::Idle),
            "it does not have it"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_works_on_is_not_waited_for_for_ever() {
    let node =
        Node::default()
            .on("POST /cancel", 200, "{}")
            .on("GET /jobs/7", 200, r#"{"s": "running"}"#);
    let began = Instant::now();
    assert_eq!(stop(BLOCK, Some("7"), &node).await, Ok(Stopped::Unknown));
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn work_of_an_unknown_name_is_looked_for_before_it_is_stopped() {
    let node = Node::default()
        .on("GET /by/j-2", 200, r#"{"id": 7}"#)
        .on("POST /cancel", 200, "{}")
        .on("GET /jobs/7", 200, r#"{"s": "canceled"}"#);
    assert_eq!(stop(BLOCK, None, &node).await, Ok(Stopped::Idle));
    let node = Node::default().on("GET /by/j-2", 404, "");
    assert_eq!(stop(BLOCK, None, &node).await, Ok(Stopped::Unknown));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_stopped_nobody_can_say() {
    let block =
        r#"{"poll": {"id": "/id", "status": "/jobs/{id}", "state": "/s", "done": ["done"]}}"#;
    for block in [block, "{}"] {
        let node = Node::default();
        assert_eq!(stop(block, Some("7"), &node).await, Ok(Stopped::Unknown));
        assert!(node.asked().is_empty());
    }
}
