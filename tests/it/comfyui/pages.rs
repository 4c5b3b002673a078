//! What front ends and pages ask beside prompts: files in parts, what users keep, and from which page they may ask.

use super::client::{Client, path_of};
use super::prompts::colour;
use super::{Farm, More, specs};
use serde_json::{Value, json};
use tabane_sim::comfy::{ComfyNode, Spec, Version};

async fn one(spec: Spec) -> (ComfyNode, Client) {
    let node = ComfyNode::start(spec).await.unwrap();
    let client = Client::new(node.addr(), "c");
    (node, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_seen_whole_in_part_unchanged_or_by_its_head_as_at_one_server() {
    let farm = Farm::alike(2).await;
    let many = farm.client("c");
    let (_node, one) = one(Spec::named("a")).await;
    let prompt = colour(0x0011_2233, "sub/pic");
    let image = json!({"filename": "pic_00001_.png", "subfolder": "sub", "type": "output"});
    for client in [&many, &one] {
        let entry = client.run(&prompt).await;
        assert_eq!(entry["outputs"]["2"]["images"], json!([image]));
    }
    let path = path_of(&image);
    let whole = many.get(&path).await;
    let size = whole.body.len();
    let plain = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let (tag, changed) = (whole.header("etag"), whole.header("last-modified"));
    let with_range = |mut headers: Vec<(String, String)>| {
        headers.push(("range".into(), "bytes=1-4".into()));
        headers
    };
    for (method, headers, status, length) in [
        ("GET", vec![], 200, size),
        ("HEAD", vec![], 200, 0),
        ("GET", plain("range", "bytes=0-9"), 206, 10),
        ("GET", plain("range", "bytes=-4"), 206, 4),
        (
            "GET",
            plain("range", &format!("bytes={}-", size - 7)),
            206,
            7,
        ),
        ("GET", plain("range", &format!("bytes={size}-")), 416, 0),
        ("HEAD", plain("range", "bytes=0-9"), 206, 0),
        ("GET", plain("if-none-match", tag), 304, 0),
        ("GET", plain("if-modified-since", changed), 304, 0),
        ("HEAD", plain("if-none-match", tag), 304, 0),
        ("GET", plain("if-none-match", "\"other\""), 200, size),
        ("GET", with_range(plain("if-range", tag)), 206, 4),
        ("GET", with_range(plain("if-range", "\"other\"")), 200, size),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        let told = many.ask(method, &path, &headers, "").await;
        assert_eq!(
            (told.status.as_u16(), told.body.len()),
            (status, length),
            "{method} {headers:?}"
        );
        if method == "HEAD" && status == 200 {
            assert_eq!(told.header("content-length"), size.to_string());
        }
    }
    for query in [
        "&preview=webp;50",
        "&preview=jpeg",
        "&channel=rgb",
        "&channel=a",
        "&rand=0.1",
    ] {
        let (told, wants) = (
            many.get(&format!("{path}{query}")).await,
            one.get(&format!("{path}{query}")).await,
        );
        for name in ["content-type", "content-disposition"] {
            assert_eq!(told.header(name), wants.header(name), "{query} {name}");
        }
        assert_eq!(told.status, 200);
    }
    for query in [
        "",
        "?filename=nope.png",
        "?filename=../../etc/passwd",
        "?filename=/etc/passwd",
        "?filename=x.png&type=odd",
        "?filename=x.png&type=input&subfolder=../..",
    ] {
        let (told, wants) = (
            many.get(&format!("/view{query}")).await,
            one.get(&format!("/view{query}")).await,
        );
        assert_eq!(told.status, wants.status, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_keeps_has_slashes_in_its_name_and_is_answered_as_by_one_server() {
    let farm = Farm::alike(2).await;
    let many = farm.client("c");
    let (_node, one) = one(Spec::named("a")).await;
    let path = "/userdata/workflows%2Fa.json";
    for (method, path, body) in [
        ("GET", "/users", ""),
        ("GET", "/settings", ""),
        ("POST", "/settings/Comfy.Locale", "\"de\""),
        ("GET", "/api/settings", ""),
        ("GET", "/settings/Comfy.Locale", ""),
        ("GET", path, ""),
        ("POST", &format!("{path}?overwrite=false"), "{\"w\": 1}"),
        ("POST", &format!("{path}?overwrite=false"), "{\"w\": 2}"),
        ("GET", &format!("/api{path}"), ""),
        ("POST", &format!("{path}?overwrite=true"), "{\"w\": 3}"),
        ("GET", path, ""),
        (
            "GET",
            "/userdata?dir=workflows&recurse=true&split=false",
            "",
        ),
        ("POST", &format!("{path}/move/workflows%2Fb.json"), ""),
        ("GET", path, ""),
        ("GET", "/api/userdata/workflows%2Fb.json", ""),
        ("DELETE", "/userdata/workflows%2Fb.json", ""),
        ("GET", "/userdata/workflows%2Fb.json", ""),
        ("GET", "/userdata?dir=nowhere", ""),
        ("GET", "/userdata/..%2F..%2Fa", ""),
    ] {
        let told = many.ask(method, path, &[], body).await;
        let wants = one.ask(method, path, &[], body).await;
        assert_eq!(
            (told.status, &told.body),
            (wants.status, &wants.body),
            "{method} {path}"
        );
    }
    // It is there whichever node has left.
    let kept = many.ask("POST", path, &[], "{\"w\": 4}").await;
    assert_eq!(kept.status, 200);
    farm.reload(&["b"]).await;
    assert_eq!(many.get(path).await.body, "{\"w\": 4}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_spellings_of_a_path_are_answered_alike() {
    let farm = Farm::alike(2).await;
    let client = farm.client("c");
    let id = client.submit(&colour(1, "x")).await;
    client.finished(&id).await;
    let history = format!("/history/{id}");
    for path in [
        "/prompt",
        "/queue",
        "/history",
        &history,
        "/object_info",
        "/object_info/SaveImage",
        "/models",
        "/models/checkpoints",
        "/embeddings",
        "/system_stats",
        "/features",
        "/users",
        "/settings",
        "/view?filename=x_00001_.png",
        "/extensions",
        "/i18n",
        "/experiment/models",
    ] {
        let (bare, below) = (
            client.get(path).await,
            client.get(&format!("/api{path}")).await,
        );
        assert_eq!(
            (bare.status, &bare.body),
            (below.status, &below.body),
            "{path}"
        );
        assert_eq!(bare.status, 200, "{path}");
    }
    let stats = client.get("/system_stats").await.json();
    let devices = stats["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    assert_eq!(
        stats["system"]["comfyui_version"],
        Version::RECORDED.to_string()
    );
    assert_eq!(client.get("/internal/folder_paths").await.status, 200);
    assert_eq!(
        client
            .post("/free", &json!({"unload_models": true}))
            .await
            .status,
        200
    );
    assert_eq!(client.get("/api/assets").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_gateways_own_may_ask_whatever_nodes_think_of_origins() {
    for version in [Version::RECORDED, Version::LATE] {
        let nodes = specs(2).into_iter().map(|spec| spec.version(version));
        let farm = Farm::start(nodes.collect(), More::default()).await;
        let client = farm.client("c");
        let address = farm.scene.address();
        let own = [
            ("origin", &*format!("http://{address}")),
            ("sec-fetch-site", "same-origin"),
        ];
        for path in [
            "/",
            "/queue",
            "/object_info",
            "/extensions",
            "/api/i18n",
            "/view?filename=example.png&type=input",
        ] {
            let told = client.ask("GET", path, &own, "").await;
            assert_eq!(told.status, 200, "{version} {path}");
        }
        let body = json!({"prompt": colour(1, "x"), "client_id": "c"}).to_string();
        let told = client.ask("POST", "/api/prompt", &own, body).await;
        assert_eq!(told.status, 200);
        client
            .finished(told.json()["prompt_id"].as_str().unwrap())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_may_ask_where_the_file_says_so_and_nodes_have_no_say() {
    let more = More {
        service: "cors: {origins: [\"https://studio.example\"]}",
        ..More::default()
    };
    for version in [Version::RECORDED, Version::LATE] {
        let nodes = specs(2).into_iter().map(|spec| spec.version(version));
        let farm = Farm::start(nodes.collect(), more).await;
        let client = farm.client("c");
        let asks = [
            ("origin", "https://studio.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "comfy-user, content-type"),
        ];
        let told = client.ask("OPTIONS", "/api/prompt", &asks, "").await;
        assert_eq!(told.status, 204);
        assert_eq!(
            told.header("access-control-allow-origin"),
            "https://studio.example"
        );
        assert_eq!(told.header("access-control-allow-methods"), "POST");
        assert_eq!(
            told.header("access-control-allow-headers"),
            "comfy-user, content-type"
        );
        let other = [("origin", "https://evil.example"), asks[1]];
        let told = client.ask("OPTIONS", "/api/prompt", &other, "").await;
        assert_eq!(told.status, 403);

        let page = [
            ("origin", "https://studio.example"),
            ("sec-fetch-site", "cross-site"),
        ];
        for path in [
            "/queue",
            "/object_info",
            "/",
            "/extensions",
            "/view?filename=example.png&type=input",
        ] {
            let told = client.ask("GET", path, &page, "").await;
            assert_eq!(told.status, 200, "{version} {path}");
            assert_eq!(
                told.header("access-control-allow-origin"),
                "https://studio.example",
                "{path}"
            );
        }
        let body = json!({"prompt": colour(1, "x"), "client_id": "c"}).to_string();
        let told = client.ask("POST", "/prompt", &page, body).await;
        assert_eq!(told.status, 200, "{told:?}");
        let entry: Value = client
            .finished(told.json()["prompt_id"].as_str().unwrap())
            .await;
        assert_eq!(entry["status"]["status_str"], "success");
    }
}
