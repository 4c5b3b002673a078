//! What letters say.

use crate::cases::tried;
use crate::jobs::webhook::Secretary;
use crate::store::{ArrayRecord, JobRecord, Letters, Moment, ResultHead};
use http::{HeaderMap, Method, StatusCode, Uri};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use tabane_api::{JobState, Need};

fn job(state: JobState) -> JobRecord {
    JobRecord {
        seq: 1,
        id: "01J0000000000000000000000A".into(),
        client_id: None,
        parent: None,
        service: "render".into(),
        tenant: "studio".into(),
        need: Need::of_class("still"),
        state,
        version: 4,
        attempt: 2,
        failures: 1,
        canceling: false,
        method: Method::POST,
        uri: Uri::from_static("/render"),
        body_length: 0,
        accepted: Moment(0),
        started: None,
        ended: state.is_over().then_some(Moment(1_700_000_000_123)),
        start_by: None,
        timeout_ms: None,
        not_before: None,
        keep_until: None,
        tags: vec!["shot=010".into(), "night".into()],
        webhook: Some("https://hooks.example/a".into()),
        result: None,
        error: None,
        progress: None,
        progress_text: None,
        failed_on: Vec::new(),
    }
}

fn array() -> ArrayRecord {
    ArrayRecord {
        id: "01J0000000000000000000000B".into(),
        tenant: "studio".into(),
        service: "render".into(),
        accepted: Moment(0),
        ended: Some(Moment(1_700_000_000_123)),
        tags: vec!["shot=010".into()],
        webhook: Some("https://hooks.example/a".into()),
        counts: [0, 0, 0, 10, 1, 0, 0, 1],
        endings: 2,
    }
}

fn secretary() -> Secretary {
    Secretary::new(Arc::new(|path| format!("https://gpu.example{path}")))
}

fn payload(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_job_that_is_over_is_told() {
    let mut over = job(JobState::Succeeded);
    over.result = Some(ResultHead {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        length: 1,
    });
    let letters = secretary().of_job(&over);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.id, "msg_01J0000000000000000000000A_4");
    assert_eq!(letter.about, over.id);
    assert_eq!(letter.tenant, over.tenant);
    assert_eq!(*letter.url, *"https://hooks.example/a");
    let at = "https://gpu.example/_tabane/jobs/01J0000000000000000000000A";
    assert_eq!(
        payload(&letter.payload),
        json!({
            "type": "job.succeeded",
            "timestamp": "2023-11-14T22:13:20.123Z",
            "data": {
                "id": "01J0000000000000000000000A",
                "client_id": null,
                "state": "succeeded",
                "service": "render",
                "tags": ["shot=010", "night"],
                "attempt": 2,
                "error": null,
                "links": {"self": at, "result": format!("{at}/result")},
            },
        })
    );
    assert_eq!(secretary().of_job(&over), letters);
}

#[test]
fn each_end_has_its_type_and_what_is_no_end_is_not_told() {
    for state in JobState::ALL {
        let mut one = job(state);
        one.error = Some("the node was lost".into());
        let letters = secretary().of_job(&one);
        assert_eq!(letters.len(), usize::from(state.is_over()), "{state}");
        for letter in letters {
            let told = payload(&letter.payload);
            assert_eq!(told["type"], format!("job.{state}"));
            assert_eq!(told["data"]["error"], "the node was lost");
            assert_eq!(told["data"]["links"]["result"], Value::Null);
        }
        one.webhook = None;
        assert!(secretary().of_job(&one).is_empty());
    }
}

#[test]
fn a_job_goes_by_the_name_its_client_chose_and_its_letter_by_ours() {
    let mut one = job(JobState::Failed);
    one.client_id = Some("frame-7".into());
    let letter = &secretary().of_job(&one)[0];
    assert_eq!(letter.id, "msg_01J0000000000000000000000A_4");
    let told = payload(&letter.payload);
    assert_eq!(told["data"]["id"], "01J0000000000000000000000A");
    assert_eq!(told["data"]["client_id"], "frame-7");
    assert_eq!(
        told["data"]["links"]["self"],
        "https://gpu.example/_tabane/jobs/01J0000000000000000000000A",
        "links name what no client can have chosen"
    );
}

#[test]
fn an_array_is_told_once_for_each_time_it_is_over() {
    let mut over = array();
    let letter = &secretary().of_array(&over)[0];
    assert_eq!(letter.id, "msg_01J0000000000000000000000B_2");
    let at = "https://gpu.example/_tabane/arrays/01J0000000000000000000000B";
    assert_eq!(
        payload(&letter.payload),
        json!({
            "type": "array.finished",
            "timestamp": "2023-11-14T22:13:20.123Z",
            "data": {
                "id": "01J0000000000000000000000B",
                "service": "render",
                "tags": ["shot=010"],
                "total": 12,
                "counts": {"succeeded": 10, "failed": 1, "canceled": 0, "expired": 0, "dead": 1},
                "links": {"self": at, "results": format!("{at}/results.zip")},
            },
        })
    );
    over.ended = None;
    assert!(secretary().of_array(&over).is_empty());
    over = array();
    over.webhook = None;
    assert!(secretary().of_array(&over).is_empty());
}

#[test]
fn a_child_of_an_array_writes_only_for_itself() {
    let mut child = job(JobState::Succeeded);
    child.parent = Some(("01J0000000000000000000000B".into(), 7));
    assert_eq!(secretary().of_job(&child).len(), 1);
    child.webhook = None;
    assert!(secretary().of_job(&child).is_empty());
}

#[test]
fn a_letter_is_thin_whatever_a_job_says() {
    // Control characters are what JSON makes most of; a tag of nothing still has its quotes.
    let text = prop_oneof!["\\PC{0,1500}", "[\u{1}é\"]{0,3000}"];
    let tags = prop_oneof![
        prop::collection::vec("[\u{1}]{0,40}", 0..100),
        prop::collection::vec("\\PC{0,50}", 0..50),
        (0..10_000_usize).prop_map(|many| vec![String::new(); many]),
    ];
    tried(60, (text, tags), |(error, tags)| {
        let mut one = job(JobState::Dead);
        one.error = Some(error.clone());
        one.tags = tags.clone();
        let text = secretary().of_job(&one).remove(0).payload;
        assert!(text.len() < 20_000, "{}", text.len());
        let told = payload(&text);
        let said = told["data"]["error"].as_str().unwrap();
        assert!(error.starts_with(said.trim_end_matches('…')) || error == said);
        let kept = told["data"]["tags"].as_array().unwrap();
        assert!(kept.iter().zip(&tags).all(|(kept, tag)| kept == tag));
    });
}
