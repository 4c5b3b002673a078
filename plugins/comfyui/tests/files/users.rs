use crate::twins::{Ask, Told, Twins, tree};
use http::Method;
use std::fs;
use tabane_api::Content;
use tabane_comfyui::files::{DEFAULT_USER, Files};
use tabane_comfyui::json::Json;
use tabane_comfyui::validate::Dialect;

#[tokio::test]
async fn settings_are_kept_as_a_server_does_it() {
    let twins = Twins::start().await;
    for ask in [
        Ask::get("/users"),
        Ask::get("/settings"),
        Ask::get("/settings/Comfy.Locale"),
        Ask::post("/settings", r#"{"b": [1.0, null], "a": "é"}"#),
        Ask::get("/settings"),
        Ask::get("/settings/b"),
        Ask::post("/settings/c%2Fd%20e", "3"),
        Ask::post("/api/settings/a", r#"{"x": {}}"#),
        Ask::post("/settings", "{}"),
        Ask::get("/api/settings"),
        Ask::get("/settings/c%2Fd%20e"),
        Ask::get("/settings/none"),
        Ask::post("/settings", "[]"),
        Ask::post("/settings", "{"),
        Ask::post("/settings/a", ""),
        Ask::get("/settings"),
        Ask::get("/users"),
    ] {
        let ask = ask.with("comfy-user", "somebody");
        twins.same(&ask).await;
    }
    let told = twins.ask_here(&Ask::get("/settings")).await;
    assert_eq!(
        told.text(),
        r#"{"b": [1.0, null], "a": {"x": {}}, "c/d e": 3}"#
    );
    let kept = fs::read_to_string(twins.here("user/default/comfy.settings.json")).unwrap();
    assert!(kept.starts_with("{\n    \"b\": [\n        1.0,\n"));
    fs::write(twins.here("user/default/comfy.settings.json"), "{broken").unwrap();
    let told = twins.ask_here(&Ask::get("/settings")).await;
    assert_eq!(told.text(), "{}", "what is broken is nothing");
}

#[tokio::test]
async fn settings_changed_at_once_are_all_kept() {
    let twins = Twins::start().await;
    let asks: Vec<_> = (0..20)
        .map(|i| Ask::post(format!("/settings/s{i}"), "true"))
        .collect();
    let asked = asks.iter().map(|ask| twins.ask_here(ask));
    futures::future::join_all(asked).await;
    let told = twins.ask_here(&Ask::get("/settings")).await;
    assert_eq!(told.text().matches("true").count(), 20);
}

#[tokio::test]
async fn workflows_are_kept_as_a_server_does_it() {
    let twins = Twins::start().await;
    let post = |path: &str, body: &'static str| Ask::post(format!("/userdata/{path}"), body);
    let rename = |path: &str| Ask::post(format!("/userdata/{path}"), "");
    for ask in [
        Ask::get("/userdata"),
        Ask::get("/userdata?dir="),
        Ask::get("/userdata?dir=workflows"),
        post("workflows%2Fa.json", "{}"),
        post("workflows%2Fa.json?overwrite=true", r#"{"a": 1}"#),
        post("workflows%2Fa.json?overwrite=false", "other"),
        post("workflows%2Fnew.json?overwrite=false", "new"),
        post("workflows%2Fdeep%2Fer%2Fb%20c.json", "{}"),
        post("top.txt", ""),
        post("..%2Fout.json", "{}"),
        post("%2Fetc%2Fout.json", "{}"),
        post("workflows%2F..%2Funder.json", "{}"),
        Ask::get("/userdata?dir=workflows"),
        Ask::get("/userdata?dir=workflows&recurse=true"),
        Ask::get("/userdata?dir=workflows&recurse=true&split=true"),
        Ask::get("/userdata?dir=workflows/deep&recurse=true"),
        Ask::get("/userdata?dir=.&recurse=true"),
        Ask::get("/userdata?dir=none"),
        Ask::get("/userdata?dir=.."),
        rename("workflows%2Fa.json/move/workflows%2Fz.json"),
        rename("workflows%2Fa.json/move/workflows%2Fz.json"),
        rename("workflows%2Fz.json/move/else%2Fwhere.json"),
        rename("top.txt/move/else%2Fwhere.json?overwrite=false"),
        rename("top.txt/move/else%2Fwhere.json?overwrite=true"),
        rename("else%2Fwhere.json/move/..%2Fout.json"),
        rename("..%2Fout.json/move/in.json"),
        Ask::of(Method::DELETE, "/userdata/workflows%2Fnew.json"),
        Ask::of(Method::DELETE, "/userdata/workflows%2Fnew.json"),
        Ask::of(Method::DELETE, "/userdata/..%2Fx.json"),
        Ask::get("/userdata/workflows%2Fnone.json"),
        Ask::get("/userdata/..%2Fx.json"),
        Ask::get("/userdata/none.png"),
    ] {
        twins.same(&ask).await;
    }
    twins.have_the_same("user");
    assert_eq!(
        tree(&twins.here("user")).into_keys().collect::<Vec<_>>(),
        [
            "default/else/where.json",
            "default/under.json",
            "default/workflows/deep/er/b c.json"
        ]
    );
}

#[tokio::test]
async fn a_kept_file_comes_back_and_is_never_shown() {
    let twins = Twins::start().await;
    for (name, kind, wanted) in [
        ("a.json", "application/json", "attachment"),
        ("a.html", "application/octet-stream", "attachment"),
        ("a.svg", "application/octet-stream", "attachment"),
        ("a.png", "image/png", "attachment"),
        ("user.css", "text/css", "inline"),
        ("other.css", "application/octet-stream", "attachment"),
        ("index.json", "application/json", "attachment"),
    ] {
        twins.put(&format!("user/default/{name}"), b"some bytes", 5);
        for ask in [
            Ask::get(format!("/userdata/{name}")),
            Ask::get(format!("/userdata/{name}")).with("range", "bytes=2-5"),
            Ask::of(Method::HEAD, format!("/userdata/{name}")),
        ] {
            let (mut here, mut there) = twins.same_status(&ask).await;
            assert_eq!(here.header("content-type"), Some(kind), "{name}");
            assert_eq!(here.header("content-disposition"), Some(wanted));
            for told in [&mut here, &mut there] {
                told.headers.remove("content-disposition");
                // The simulated node knows fewer of them.
                told.headers.remove("content-type");
            }
            assert_eq!(here, there, "{name}");
        }
    }
    let user = twins.files.user(DEFAULT_USER).unwrap();
    let told = user.get("a.json", &http::HeaderMap::new()).await.unwrap();
    assert_eq!(told.headers()["x-content-type-options"], "nosniff");
    let png = twins.ask_here(&Ask::get("/userdata/a.png")).await;
    assert_eq!(png.header("cache-control"), Some("public, max-age=86400"));
}

/// A number under a key of an object.
fn number(json: &Json, key: &str) -> f64 {
    json.get(key).unwrap().number().unwrap().value()
}

#[tokio::test]
async fn files_are_told_in_full() {
    let twins = Twins::start().await;
    twins.put("user/default/workflows/a.json", b"12345", 5);
    for (ask, name) in [
        (Ask::get("/userdata?dir=workflows&full_info=true"), "a.json"),
        (
            Ask::post("/userdata/workflows%2Fb.json?full_info=true", "12345"),
            "workflows/b.json",
        ),
        (
            Ask::post(
                "/userdata/workflows%2Fb.json/move/workflows%2Fc.json?full_info=true",
                "",
            ),
            "workflows/c.json",
        ),
    ] {
        let (here, there) = twins.same_status(&ask).await;
        let read = |told: &Told| {
            let json = Json::read(&told.body).unwrap();
            json.list().map_or(json.clone(), |list| list[0].clone())
        };
        let (here, there) = (read(&here), read(&there));
        for told in [&here, &there] {
            assert_eq!(told.get("path").unwrap().text(), Some(name));
            assert_eq!(number(told, "size"), 5.0);
            assert!(number(told, "created") > 1.6e12, "milliseconds");
        }
        let apart = number(&here, "modified") - number(&there, "modified");
        assert!(apart.abs() < 60_000.0);
        let keys = |json: &Json| json.object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&here), keys(&there));
    }
}

#[tokio::test]
async fn what_a_real_server_does_with_files_and_the_simulated_one_does_not() {
    let twins = Twins::start().await;
    let ask = async |ask: Ask| {
        let told = twins.ask_here(&ask).await;
        (told.status, told.text().to_owned())
    };
    // Nobody kept anything yet.
    assert_eq!(ask(Ask::get("/v2/userdata")).await, (200, "[]".into()));
    twins.put("user/default/workflows/.index.json", b"{}", 5);
    twins.put("user/default/workflows/B.json", b"12345", 5);
    twins.put("user/default/a.txt", b"", 6);
    assert_eq!(
        ask(Ask::get("/userdata?dir=workflows&recurse=true")).await,
        (200, r#"["B.json"]"#.into()),
        "what is hidden is not listed"
    );
    assert_eq!(
        ask(Ask::get("/userdata/workflows%2F.index.json")).await.0,
        200
    );
    let tree = concat!(
        r#"[{"name": "workflows", "path": "workflows", "type": "directory"}, "#,
        r#"{"name": ".index.json", "path": "workflows/.index.json", "type": "file", "size": 2, "modified": 1700000005.123}, "#,
        r#"{"name": "a.txt", "path": "a.txt", "type": "file", "size": 0, "modified": 1700000006.123}, "#,
        r#"{"name": "B.json", "path": "workflows/B.json", "type": "file", "size": 5, "modified": 1700000005.123}]"#
    );
    assert_eq!(
        ask(Ask::get("/v2/userdata?path=")).await,
        (200, tree.into())
    );
    for (path, wanted) in [
        ("none", (404, "Requested path not found")),
        ("..", (400, "Invalid path requested")),
        ("a.txt", (400, "Requested path is not a directory")),
    ] {
        let told = ask(Ask::get(format!("/v2/userdata?path={path}"))).await;
        assert_eq!((told.0, told.1.as_str()), wanted);
    }
    // A folder is no file.
    assert_eq!(ask(Ask::get("/userdata/workflows")).await, (403, "".into()));
    assert_eq!(
        ask(Ask::post("/userdata/workflows", "x")).await,
        (400, "".into())
    );
    assert_eq!(
        ask(Ask::post("/userdata/a.txt%2Fb", "x")).await,
        (400, "".into())
    );
    assert_eq!(
        ask(Ask::of(Method::DELETE, "/userdata/workflows")).await.0,
        500
    );
    assert_eq!(
        ask(Ask::get("/userdata?dir=a.txt")).await,
        (200, "[]".into())
    );
    // Into a folder, under the same name.
    let moved = ask(Ask::post("/userdata/a.txt/move/workflows", "")).await;
    assert_eq!(moved.0, 200);
    assert!(twins.here("user/default/workflows/a.txt").exists());
    // Names are decoded twice.
    assert_eq!(ask(Ask::get("/userdata/workflows%252FB.json")).await.0, 200);
}

#[tokio::test]
async fn users_are_told_apart_where_somebody_tells_them_apart() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).unwrap();
    let post = |path: &str, body: &'static str| {
        http::Request::post(path)
            .body(Content::Bytes(body.into()))
            .unwrap()
    };
    for user in ["default", "ann_1"] {
        let kept = files.answer(post("/userdata/a.txt", "x"), user, Dialect::Late);
        assert_eq!(kept.await.unwrap().unwrap().status(), 200);
    }
    assert!(folder.path().join("user/ann_1/a.txt").exists());
    let own = files.answer(post("/userdata/a.txt", "x"), "__system", Dialect::Late);
    assert_eq!(own.await.unwrap().unwrap().status(), 403);
    let nobody = files.answer(post("/prompt", "{}"), "__system", Dialect::Late);
    assert!(nobody.await.is_none(), "that is about something else");
    let mut ids = Vec::new();
    for (body, wanted) in [
        (r#"{"username": "Ann Lee"}"#, 200),
        (r#"{"username": "Ann Lee"}"#, 400),
        (r#"{"username": "default"}"#, 400),
        (r#"{"username": "  "}"#, 400),
        (r#"{"username": "__x"}"#, 400),
        (r#"{"name": "x"}"#, 500),
        ("x", 500),
    ] {
        let added = files.answer(post("/users", body), DEFAULT_USER, Dialect::Late);
        let added = added.await.unwrap().unwrap();
        assert_eq!(added.status().as_u16(), wanted, "{body}");
        if wanted == 200 {
            let id = crate::twins::whole(added.into_body()).await;
            ids.push(String::from_utf8(id.to_vec()).unwrap());
        }
    }
    assert!(ids[0].starts_with("\"Ann-Lee_"));
    let kept = fs::read_to_string(folder.path().join("user/users.json")).unwrap();
    assert!(kept.contains(&format!("{}: \"Ann Lee\"", ids[0])), "{kept}");
}
