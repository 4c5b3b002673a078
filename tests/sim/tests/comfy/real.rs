//! Odd requests, asked of a real server, too, where one can be had: of version 0.3.64, on a fresh base directory that holds its
//! own `example.png` and no other input, with its testing nodes.
//!
//! `COMFYUI=http://127.0.0.1:8199 cargo test -p tabane-sim --test comfy real -- --ignored`

use crate::client::{Answer, ask_at};
use crate::recording::between;
use serde_json::{Value, json};
use tabane_sim::comfy::{ComfyNode, Spec};

type Call = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    String,
);

const FORM: &[(&str, &str)] = &[("content-type", "multipart/form-data; boundary=XX")];

/// Method and path, without a body.
const PLAIN: &[(&str, &str)] = &[
    ("GET", "/queue"),
    ("GET", "/api/prompt"),
    ("GET", "/history/unknown"),
    ("GET", "/history?max_items=x"),
    ("GET", "/nowhere"),
    ("POST", "/nowhere"),
    ("GET", "/missing.png"),
    ("GET", "/api/internal/files/output"),
    ("GET", "/internal/files/odd"),
    ("GET", "/api/jobs"),
    ("POST", "/api/jobs/x/cancel"),
    ("GET", "/ws"),
    ("GET", "/features"),
    ("GET", "/models"),
    ("GET", "/models/odd"),
    ("GET", "/models/loras"),
    ("GET", "/object_info/NoSuch"),
    ("GET", "/object_info/ImageInvert"),
    ("GET", "/node_replacements"),
    ("GET", "/users"),
    ("GET", "/settings/none"),
    ("GET", "/userdata"),
    ("GET", "/userdata?dir=nowhere"),
    ("GET", "/userdata/workflows%2Fno.json"),
    ("GET", "/userdata/..%2F..%2Fx"),
    ("DELETE", "/userdata/workflows%2Fno.json"),
    ("OPTIONS", "/prompt"),
    ("GET", "/view"),
    ("GET", "/view?filename=nope.png"),
    ("GET", "/view?filename="),
    ("GET", "/view?filename=../../etc/passwd"),
    ("GET", "/view?filename=/etc/passwd"),
    ("GET", "/view?filename=example.png&type=odd"),
    (
        "GET",
        "/view?filename=example.png&type=input&subfolder=../..",
    ),
    ("GET", "/view?filename=a/example.png&type=input"),
    (
        "GET",
        "/view?filename=example.png&type=input&preview=jpeg;80",
    ),
    ("GET", "/view?filename=example.png&preview=webp&type=input"),
    ("GET", "/view?filename=example.png%20%5Binput%5D&channel=a"),
];

fn calls() -> Vec<Call> {
    let mut calls: Vec<Call> = PLAIN
        .iter()
        .map(|(m, p)| (*m, *p, &[][..], String::new()))
        .collect();
    for headers in [
        &[("origin", "http://evil.example")][..],
        &[("origin", "null")],
        &[("host", "comfy.example"), ("origin", "http://evil.example")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        calls.push(("GET", "/queue", headers, String::new()));
    }
    let example = "/view?filename=example.png&type=input";
    for range in [
        &[("range", "bytes=0-9")][..],
        &[("range", "bytes=99999999-")],
        &[("range", "bytes=5-2")],
        &[("range", "bytes=0-1,4-5")],
        &[("range", "odd")],
    ] {
        calls.push(("GET", example, range, String::new()));
    }
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"prompt":3}"#,
        r#"{"prompt":{}}"#,
        r#"{"prompt":[]}"#,
        r#"{"prompt":{"1":3}}"#,
        r#"{"prompt":{"1":{}}}"#,
    ] {
        calls.push(("POST", "/prompt", &[], body.to_owned()));
    }
    calls.extend(
        prompts()
            .into_iter()
            .map(|body| ("POST", "/prompt", &[][..], body.to_string())),
    );
    for (path, body) in [
        ("/queue", "{"),
        ("/queue", r#"{"delete":["x"]}"#),
        ("/queue", r#"{"clear":false}"#),
        ("/interrupt", ""),
        ("/interrupt", r#"{"prompt_id":"x"}"#),
        ("/free", ""),
        ("/history", r#"{"delete":["x"]}"#),
        ("/userdata/workflows%2Fa.json?overwrite=false", "1"),
        ("/userdata/workflows%2Fa.json?overwrite=false", "1"),
        ("/settings/a", "1"),
        ("/upload/image", ""),
    ] {
        calls.push(("POST", path, &[], body.to_owned()));
    }
    calls.push(("GET", "/userdata/workflows%2Fa.json", &[], String::new()));
    calls.push(("GET", "/settings", &[], String::new()));
    for form in [
        form("", "", None),
        form("filename=\"u.png\"", "one", None),
        form("filename=\"u.png\"", "one", None),
        form("filename=\"u.png\"", "two", None),
        form("filename=\"u.png\"", "new", Some(("overwrite", "1"))),
        form("filename=\"u.png\"", "two", Some(("subfolder", "../.."))),
        form("filename=\"u.png\"", "two", Some(("type", "odd"))),
        form("filename=\"a.b.png\"", "1", Some(("subfolder", "s/t"))),
        form("filename=\"../u.png\"", "two", None),
        form("filename=\"s/no/u.png\"", "two", None),
        form("filename=\".hid\"", "1", None),
        form("filename=\".hid\"", "2", None),
        form("filename=\"\"", "two", None),
        form("odd=\"\"", "two", None),
    ] {
        calls.push(("POST", "/upload/image", FORM, form));
    }
    calls
}

fn form(file: &str, bytes: &str, field: Option<(&str, &str)>) -> String {
    if file.is_empty() {
        return "--XX--\r\n".into();
    }
    let part = |head: &str, body: &str| {
        format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n")
    };
    let field = field.map(|(name, value)| part(&format!("name=\"{name}\""), value));
    part(&format!("name=\"image\"; {file}"), bytes) + &field.unwrap_or_default() + "--XX--\r\n"
}

fn prompts() -> Vec<Value> {
    let saved = |class: &str, inputs: Value| {
        json!({"prompt": {
            "1": {"class_type": class, "inputs": inputs},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }})
    };
    let image = |width: Value| {
        saved(
            "EmptyImage",
            json!({"width": width, "height": 16, "batch_size": 1, "color": 0}),
        )
    };
    let widths = [
        json!("wide"),
        json!(null),
        json!({"a": 1}),
        json!(20000),
        json!(-5),
        json!([]),
        json!(["1"]),
        json!(["1", 5]),
        json!(0.5),
    ];
    let mut prompts: Vec<Value> = widths.into_iter().map(image).collect();
    for (class, inputs) in [
        (
            "StubImage",
            json!({"content": "RED", "height": 8, "width": 8, "batch_size": 1}),
        ),
        (
            "StubImage",
            json!({"content": 3, "height": 8, "width": 8, "batch_size": 1}),
        ),
        ("ImageInvert", json!({"image": ["9", 0]})),
        ("ImageInvert", json!({"image": ["1", 0]})),
        (
            "EmptyLatentImage",
            json!({"width": 64, "height": 64, "batch_size": 1}),
        ),
        ("LoadImage", json!({"image": "nope.png"})),
        ("LoadImage", json!({"image": 3})),
        ("LoadImage", json!({})),
        ("LoadImageMask", json!({"channel": "odd"})),
        ("LoadImageOutput", json!({"image": "x [output]"})),
        ("NoSuchNode", json!({})),
    ] {
        prompts.push(saved(class, inputs));
    }
    prompts.extend([
        json!({"prompt": {"1": {"class_type": "SaveImage"}}}),
        json!({"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": 3}}}}),
        json!({"prompt": {"1": {"class_type": "EmptyImage", "inputs": {}}}}),
    ]);
    prompts
}

/// Takes out where its code lies, and what it says to help.
fn mask(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let text = ["\"], \"linked_node\"", "\"]}}"]
        .into_iter()
        .fold(text, |text, end| {
            between(&text, "\"traceback\": [", end, |_| Some("~"))
        });
    between(&text, "{\"tooltip\": ", "}", |_| Some("~")).replace("{\"tooltip\": ~}", "{}")
}

#[tokio::test]
#[ignore = "needs a real ComfyUI, named by COMFYUI"]
async fn a_real_server_answers_odd_requests_the_same() {
    let real = std::env::var("COMFYUI").expect("COMFYUI=http://127.0.0.1:8199");
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let mut wrong = Vec::new();
    for (method, path, headers, body) in calls() {
        let there = ask_at(&real, method, path, headers, body.clone())
            .await
            .unwrap();
        let here = ask_at(&node.url(), method, path, headers, body.clone())
            .await
            .unwrap();
        let is_picture = there.header("content-type").starts_with("image/");
        let told = |answer: &Answer| {
            let names = [
                "content-type",
                "cache-control",
                "content-disposition",
                "accept-ranges",
                "allow",
                "transfer-encoding",
                "connection",
            ];
            let headers: Vec<String> = names.map(|name| answer.header(name).to_owned()).into();
            (
                answer.status,
                headers,
                if is_picture {
                    String::new()
                } else {
                    mask(answer)
                },
            )
        };
        if told(&there) != told(&here) {
            wrong.push(format!(
                "{method} {path} {headers:?} {body}\n  there {:?}\n  here  {:?}",
                told(&there),
                told(&here)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
