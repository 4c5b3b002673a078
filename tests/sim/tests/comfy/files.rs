//! Uploads, outputs, and what can be seen of them.

use crate::client::{ask, finished, get, post, submit, upload, upload_to};
use crate::prompts::empty_save;
use serde_json::{Value, json};
use std::fs;
use tabane_sim::comfy::{ComfyNode, Spec};

async fn start() -> ComfyNode {
    ComfyNode::start(Spec::named("a")).await.unwrap()
}

#[tokio::test]
async fn an_upload_keeps_its_name_or_gets_the_next_one() {
    let node = start().await;
    let name = |answer: crate::client::Answer| {
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    };
    let told = |name: &str| format!(r#"{{"name": "{name}", "subfolder": "", "type": "input"}}"#);
    assert_eq!(
        name(upload(&node, "u.png", b"one", &[]).await),
        told("u.png")
    );
    assert_eq!(
        name(upload(&node, "u.png", b"one", &[]).await),
        told("u.png")
    );
    assert_eq!(
        name(upload(&node, "u.png", b"two", &[]).await),
        told("u (1).png")
    );
    assert_eq!(
        name(upload(&node, "u.png", b"new", &[("overwrite", "true")]).await),
        told("u.png")
    );
    assert_eq!(
        get(&node, "/view?filename=u.png&type=input").await.body,
        "new"
    );
    let there = upload(
        &node,
        "v.png",
        b"v",
        &[("subfolder", "a/b"), ("type", "temp")],
    )
    .await;
    assert_eq!(
        there.text(),
        r#"{"name": "v.png", "subfolder": "a/b", "type": "temp"}"#
    );
    assert_eq!(
        get(&node, "/view?filename=v.png&type=temp&subfolder=a/b")
            .await
            .body,
        "v"
    );
    let list = get(&node, "/object_info/LoadImage").await.json();
    let list = &list["LoadImage"]["input"]["required"]["image"];
    assert_eq!(
        list,
        &json!([["example.png", "u (1).png", "u.png"], {"image_upload": true}])
    );
}

#[tokio::test]
async fn an_upload_that_leads_out_or_is_none_is_refused() {
    let node = start().await;
    assert_eq!(
        upload(&node, "u.png", b"u", &[("subfolder", "../..")])
            .await
            .status,
        400
    );
    assert_eq!(upload(&node, "../u.png", b"u", &[]).await.status, 400);
    assert_eq!(upload(&node, "", b"u", &[]).await.status, 500);
    assert_eq!(
        upload(&node, "u.png", b"u", &[("type", "odd")])
            .await
            .status,
        500
    );
    let kind = ("content-type", "multipart/form-data; boundary=XX");
    let none = ask(&node, "POST", "/upload/image", &[kind], "--XX--\r\n")
        .await
        .unwrap();
    assert_eq!(none.status, 400);
}

#[tokio::test]
async fn a_mask_becomes_the_alpha_of_the_picture_it_belongs_to() {
    let node = start().await;
    let id = submit(&node, "c", &empty_save("orig")).await;
    finished(&node, &id).await;
    let original = fs::read(node.folder("output").join("orig_00001_.png")).unwrap();
    let reference = r#"{"filename": "orig_00001_.png", "subfolder": "", "type": "output"}"#;
    let fields = [("original_ref", reference), ("type", "input")];
    let masked = upload_to(&node, "/upload/mask", "m.png", &original, &fields).await;
    assert_eq!(masked.json()["name"], "m.png");
    let written = get(&node, "/view?filename=m.png&type=input").await;
    assert!(
        written.body.windows(6).any(|bytes| bytes == b"prompt"),
        "its texts go along"
    );
    let missing = [("original_ref", r#"{"filename": "nope.png"}"#)];
    let masked = upload_to(&node, "/upload/mask", "n.png", &original, &missing).await;
    assert_eq!(masked.status, 200, "it says nothing of it");
    assert_eq!(
        get(&node, "/view?filename=n.png&type=input").await.status,
        404
    );
}

#[tokio::test]
async fn a_file_is_seen_whole_in_part_or_as_unchanged() {
    let node = start().await;
    let id = submit(&node, "c", &empty_save("sub/pic")).await;
    let entry = finished(&node, &id).await;
    let image = json!({"filename": "pic_00001_.png", "subfolder": "sub", "type": "output"});
    assert_eq!(entry["outputs"]["2"]["images"][0], image);
    let path = "/view?filename=pic_00001_.png&subfolder=sub&type=output";
    let whole = get(&node, path).await;
    assert_eq!(whole.status, 200);
    assert_eq!(
        whole.header("content-disposition"),
        "filename=\"pic_00001_.png\""
    );
    assert_eq!(
        (whole.header("content-type"), whole.header("accept-ranges")),
        ("image/png", "bytes")
    );
    assert!(whole.header("server").contains("aiohttp"));
    let size = whole.body.len();
    let etag = whole.header("etag").to_owned();
    assert!(etag.ends_with(&format!("-{size:x}\"")), "{etag}");
    let with = |name: &'static str, value: String| {
        let node = &node;
        async move {
            ask(node, "GET", path, &[(name, value.as_str())], "")
                .await
                .unwrap()
        }
    };
    let part = with("range", "bytes=0-9".into()).await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, format!("bytes 0-9/{size}").as_str())
    );
    assert_eq!(part.body, whole.body[..10]);
    let end = with("range", "bytes=-4".into()).await;
    assert_eq!(end.body, whole.body[size - 4..]);
    assert_eq!(with("range", format!("bytes={size}-")).await.status, 416);
    let same = with("if-none-match", etag).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(
        with("if-modified-since", whole.header("last-modified").into())
            .await
            .status,
        304
    );
    let head = ask(&node, "HEAD", path, &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), size.to_string());
    let seen = get(&node, &format!("{path}&preview=webp;50")).await;
    assert_eq!(
        (seen.header("content-type"), &seen.body[..4]),
        ("image/webp", &b"RIFF"[..])
    );
    let alpha = get(&node, &format!("{path}&channel=a")).await;
    assert_eq!(
        (alpha.header("content-type"), &alpha.body[1..4]),
        ("image/png", &b"PNG"[..])
    );
    let annotated = get(
        &node,
        "/view?filename=example.png%20%5Binput%5D&type=output",
    )
    .await;
    assert_eq!(annotated.status, 200);
}

#[tokio::test]
async fn what_is_not_there_or_leads_out_is_not_seen() {
    let node = start().await;
    for (query, status) in [
        ("", 404),
        ("?filename=nope.png", 404),
        ("?filename=../../etc/passwd", 400),
        ("?filename=/etc/passwd", 400),
        ("?filename=example.png&type=odd", 400),
        ("?filename=example.png&type=input&subfolder=../..", 403),
    ] {
        assert_eq!(
            get(&node, &format!("/view{query}")).await.status,
            status,
            "{query}"
        );
    }
    assert_eq!(
        get(&node, "/missing.png").await.header("cache-control"),
        "public, max-age=86400"
    );
}

#[tokio::test]
async fn pictures_are_real_and_carry_their_prompt() {
    let node = start().await;
    let workflow = json!({"extra_pnginfo": {"workflow": {"id": "w"}}});
    let asked = json!({"prompt": empty_save("x"), "extra_data": workflow});
    let id = post(&node, "/prompt", &asked).await.json()["prompt_id"].clone();
    finished(&node, id.as_str().unwrap()).await;
    let png = fs::read(node.folder("output").join("x_00001_.png")).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(png))
        .read_info()
        .unwrap();
    let info = reader.info();
    assert_eq!((info.width, info.height), (16, 16));
    let texts: Vec<(&str, Value)> = info
        .uncompressed_latin1_text
        .iter()
        .map(|text| {
            (
                text.keyword.as_str(),
                serde_json::from_str(&text.text).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        texts,
        [
            ("prompt", empty_save("x")),
            ("workflow", json!({"id": "w"}))
        ]
    );
}

#[tokio::test]
async fn the_same_prompt_makes_the_same_picture_on_every_node() {
    let sampled = |seed: u64| {
        json!({
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_sd3.safetensors"}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
            "3": {"class_type": "KSampler", "inputs": {"seed": seed, "steps": 2, "cfg": 4.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0]}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "s"}},
        })
    };
    let mut seen = Vec::new();
    for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        let node = ComfyNode::start(Spec::named(name)).await.unwrap();
        let id = submit(&node, "c", &sampled(seed)).await;
        finished(&node, &id).await;
        let png = fs::read(node.folder("output").join("s_00002_.png")).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        seen.push(pixels);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

#[tokio::test]
async fn a_user_keeps_settings_and_workflows() {
    let node = start().await;
    assert_eq!(
        get(&node, "/users").await.text(),
        r#"{"storage": "server", "migrated": false}"#
    );
    post(&node, "/settings/Comfy.Locale", &json!("de")).await;
    assert_eq!(
        get(&node, "/api/settings").await.json(),
        json!({"Comfy.Locale": "de"})
    );
    // A slash in a name is part of it.
    let path = "/userdata/workflows%2Fa.json";
    assert_eq!(get(&node, path).await.status, 404);
    assert_eq!(
        post(&node, &format!("{path}?overwrite=false"), &json!({"w": 1}))
            .await
            .text(),
        "\"workflows/a.json\""
    );
    assert_eq!(
        post(&node, &format!("{path}?overwrite=false"), &json!({}))
            .await
            .status,
        409
    );
    assert_eq!(get(&node, path).await.json(), json!({"w": 1}));
    let list = get(
        &node,
        "/userdata?dir=workflows&recurse=true&split=false&full_info=true",
    )
    .await
    .json();
    assert_eq!(list[0]["path"], "a.json");
    let moved = post(
        &node,
        &format!("{path}/move/workflows%2Fb.json"),
        &json!({}),
    )
    .await;
    assert_eq!(moved.text(), "\"workflows/b.json\"");
    assert_eq!(
        ask(&node, "DELETE", "/userdata/workflows%2Fb.json", &[], "")
            .await
            .unwrap()
            .status,
        204
    );
    assert_eq!(get(&node, "/userdata?dir=nowhere").await.status, 404);
}
