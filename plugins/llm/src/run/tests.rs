use super::*;
use crate::testing::knowing;
use http::{Method, Uri};
use tabane_api::Need;

fn attempt(model: &str) -> Attempt {
    Attempt {
        job: "j".into(),
        number: 1,
        need: Need {
            model: Some(model.into()),
            ..Need::of_class(model)
        },
        tenant: "t".into(),
        method: Method::POST,
        uri: Uri::from_static("/v1/chat/completions"),
        headers: HeaderMap::new(),
        body: Content::default(),
        handle: None,
        callback: None,
    }
}

#[test]
fn a_job_asks_for_the_model_that_it_was_leased_for() {
    let kind = knowing(
        r#"{"aliases": {"fast": ["m", {"model": "gpt", "at": "cloud/o", "headers": {"authorization": "Bearer k"}}]}}"#,
        &[("a/llm", &["m"]), ("cloud/o", &[])],
    );
    let models = kind.setup.models.read();
    let body = Bytes::from_static(br#"{"n": 1, "model":"fast"}"#);
    let sent = |model, on| {
        let (body, headers) = changed(&models, &attempt(model), &body, on);
        let body = String::from_utf8(body.to_vec()).unwrap();
        (body, headers.contains_key("authorization"))
    };
    assert_eq!(
        sent("m", "a/llm"),
        (r#"{"n": 1, "model":"m"}"#.into(), false)
    );
    assert_eq!(
        sent("gpt", "cloud/o"),
        (r#"{"n": 1, "model":"gpt"}"#.into(), true)
    );
    assert_eq!(
        sent("gpt", "a/llm"),
        (r#"{"n": 1, "model":"fast"}"#.into(), false),
        "a key is for its endpoint"
    );
    let none = changed(
        &models,
        &attempt("m"),
        &Bytes::from_static(b"no JSON"),
        "a/llm",
    );
    assert_eq!(none.0, "no JSON");
}
