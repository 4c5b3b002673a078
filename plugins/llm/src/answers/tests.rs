use super::*;
use crate::testing::knowing;
use serde_json::Value;

fn said(kind: &Llm, path: &str, anthropic: bool) -> Result<Value, Refusal> {
    let mut request = Request::get(path).body(Content::default()).unwrap();
    if anthropic {
        let version = header::HeaderValue::from_static("2023-06-01");
        request.headers_mut().insert("anthropic-version", version);
    }
    match answer(kind, &request)?.into_body() {
        Body::Bytes(bytes) => Ok(serde_json::from_slice(&bytes).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_probe_told_in_full_is_listed_by_its_name() {
    let kind = knowing(
        r#"{"aliases": {"fast": "m"}}"#,
        &[("a/llm", &["m", "Qwen/Q"])],
    );
    let ids = |list: &Value, key: &str, id: &str| -> Vec<String> {
        let entries = list[key].as_array().unwrap().iter();
        entries
            .map(|e| e[id].as_str().unwrap().to_owned())
            .collect()
    };
    let list = said(&kind, "/v1/models", false).unwrap();
    assert_eq!(ids(&list, "data", "id"), ["Qwen/Q", "m", "fast"]);
    let list = said(&kind, "/v1/models", true).unwrap();
    assert_eq!(list["has_more"], false);
    assert_eq!(
        ids(&said(&kind, "/api/tags", false).unwrap(), "models", "name"),
        ["Qwen/Q", "m", "fast"]
    );
    assert!(ids(&said(&kind, "/api/ps", false).unwrap(), "models", "name").is_empty());
    assert!(said(&kind, "/api/version", false).unwrap()["version"].is_string());
    for name in ["m", "fast", "Qwen/Q"] {
        assert_eq!(
            said(&kind, &format!("/v1/models/{name}"), false).unwrap()["id"],
            name
        );
    }
    assert!(matches!(
        said(&kind, "/v1/models/no", false),
        Err(Refusal::NoSuch(_))
    ));
}
