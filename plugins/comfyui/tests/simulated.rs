//! What is said of prompts is held against a simulated ComfyUI, which is held against real ones, and against recordings.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use tabane_comfyui::json::Json;
use tabane_comfyui::names::Names;
use tabane_comfyui::needs::{FilePath, Folder, Needs};
use tabane_comfyui::object_info::ObjectInfo;
use tabane_comfyui::signature::{Computed, Keeps, sign};
use tabane_comfyui::submission::Submission;
use tabane_comfyui::translate::translate;
use tabane_comfyui::validate::{Dialect, Invalid, Rules, check, nowhere};
use tabane_comfyui::workflow::Workflow;
use tabane_sim::comfy::{ComfyNode, Spec, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn ask(node: &ComfyNode, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(node.addr()).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn info_of(node: &ComfyNode) -> ObjectInfo {
    let (status, body) = ask(node, "GET", "/object_info", "").await;
    assert_eq!(status, 200);
    let info = ObjectInfo::read(body.as_bytes()).unwrap();
    assert_eq!(info.json().to_string(), body, "it is told as it was");
    info
}

/// The status and the body that a node gives, less what only it can know.
fn verdict(info: &ObjectInfo, dialect: Dialect, body: &str) -> (u16, String) {
    let has_file = |path: FilePath<'_>| path.folder == Folder::Input && path.name == "example.png";
    let names = Names::default();
    let rules = Rules {
        info,
        names: &names,
        dialect,
        has_file: &has_file,
    };
    let Ok(submission) = Submission::read(body.as_bytes()) else {
        return (500, String::new());
    };
    match check(&submission, rules) {
        Ok(valid) => (200, Json::Object(valid.node_errors).to_string()),
        Err(Invalid::Told(told)) => (400, told.to_string()),
        Err(Invalid::Unexpected) => (500, String::new()),
    }
}

/// The same of a node's answer.
fn told((status, body): (u16, String)) -> (u16, String) {
    let read = || without_tracebacks(&Json::read(body.as_bytes()).unwrap());
    match status {
        200 => (200, read().get("node_errors").unwrap().to_string()),
        400 => (400, read().to_string()),
        other => (other, String::new()),
    }
}

fn without_tracebacks(json: &Json) -> Json {
    match json {
        Json::List(list) => Json::List(list.iter().map(without_tracebacks).collect()),
        Json::Object(object) => Json::Object(
            object
                .iter()
                .map(|(key, value)| match key.as_str() {
                    "traceback" => (key.clone(), Json::List(Vec::new())),
                    _ => (key.clone(), without_tracebacks(value)),
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

fn bodies() -> Vec<String> {
    let saved = |class: &str, inputs: &str| {
        format!(
            r#"{{"prompt": {{"1": {{"class_type": "{class}", "inputs": {inputs}}}, "2": {{"class_type": "SaveImage", "inputs": {{"images": ["1", 0], "filename_prefix": "x"}}}}}}}}"#
        )
    };
    let image = |width: &str| {
        saved(
            "EmptyImage",
            &format!(r#"{{"width": {width}, "height": 16, "batch_size": 1, "color": 0}}"#),
        )
    };
    let mut bodies: Vec<String> = [
        "", "{", "[]", "{}", "3", r#"{"prompt":3}"#, r#"{"prompt":null}"#, r#"{"prompt":{}}"#, r#"{"prompt":[]}"#, r#"{"prompt":{"1":3}}"#,
        r#"{"prompt":{"1":{}}}"#, r#"{"prompt":{"1":{"_meta":{"title":"My node"}}}}"#, r#"{"prompt":{},"number":"x"}"#, r#"{"number":[]}"#,
        r#"{"prompt":{},"prompt_id":"x"}"#, r#"{"prompt":{},"prompt_id":null}"#, r#"{"prompt":{},"prompt_id":"e04d8990-388c-4857-ab8c-26bd918bdeea"}"#,
        r#"{"prompt": {"1": {"class_type": "SaveImage"}}}"#,
        r#"{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": 3}}}}"#,
        r#"{"prompt": {"1": {"class_type": "EmptyImage", "inputs": {}}}}"#,
        r#"{"prompt": {"7": {"class_type": "NoSuchNode", "inputs": {}, "_meta": {"title": "My node"}}}}"#,
        // Two outputs share what is wrong, a third is right, a fourth is not wanted.
        r#"{"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 16, "batch_size": "1.5"}}, "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}, "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}, "5": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
            "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}}, "7": {"class_type": "PreviewImage", "inputs": {}}}, "partial_execution_targets": ["3", "4", "6"]}"#,
        r#"{"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 16, "batch_size": 1, "color": 0}}, "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}, "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}}"#,
        // Cycles, of one and of two, and behind them.
        r#"{"prompt": {"1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}, "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}, "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}, "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}}"#,
        r#"{"prompt": {"0": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}, "1": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["0", 0]}}, "3": {"class_type": "PreviewImage", "inputs": {"images": ["0", 0]}}}}"#,
        r#"{"prompt": {"1": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}}"#,
        r#"{"prompt": {"1": {"class_type": "KSampler", "inputs": {"sampler_name": "odd", "seed": -1, "steps": 20, "cfg": 1e3}}, "2": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["1", 0]}}, "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}}}}"#,
    ]
    .map(str::to_owned)
    .into();
    let widths = [
        "\"wide\"",
        "\" 64 \"",
        "null",
        "{\"a\": 1}",
        "20000",
        "-5",
        "[]",
        "[\"1\"]",
        "[\"1\", 5]",
        "[\"8\", 0]",
        "0.5",
        "1e1",
        "true",
        "{\"__value__\": 0}",
        "{\"__value__\": \"x\"}",
    ];
    bodies.extend(widths.map(image));
    for (class, inputs) in [
        (
            "StubImage",
            r#"{"content": "RED", "height": 8, "width": 8, "batch_size": 1}"#,
        ),
        (
            "StubImage",
            r#"{"content": 3, "height": 8, "width": 8, "batch_size": 1}"#,
        ),
        (
            "StubImage",
            r#"{"content": "it's \"so\"", "height": 8, "width": 8, "batch_size": 1}"#,
        ),
        ("ImageInvert", r#"{"image": ["9", 0]}"#),
        ("ImageInvert", r#"{"image": ["1", 0]}"#),
        (
            "ImageBlur",
            r#"{"image": ["1", 0], "blur_radius": 1, "sigma": 0.05}"#,
        ),
        (
            "ImageBlur",
            r#"{"image": ["1", 0], "blur_radius": 1, "sigma": "x"}"#,
        ),
        (
            "ImageBlur",
            r#"{"image": ["1", 0], "blur_radius": 1, "sigma": 100}"#,
        ),
        (
            "EmptyLatentImage",
            r#"{"width": 64, "height": 64, "batch_size": 1}"#,
        ),
        (
            "CheckpointLoaderSimple",
            r#"{"ckpt_name": "none.safetensors"}"#,
        ),
        ("LoadImage", r#"{"image": "nope.png"}"#),
        ("LoadImage", r#"{"image": "example.png"}"#),
        ("LoadImage", r#"{"image": 3}"#),
        ("LoadImage", r#"{"image": ["2", 0]}"#),
        ("LoadImage", "{}"),
        ("LoadImageMask", r#"{"channel": "odd"}"#),
        (
            "LoadImageMask",
            r#"{"image": "example.png", "channel": "odd"}"#,
        ),
        ("LoadImageOutput", r#"{"image": "x [output]"}"#),
        ("LoadImageOutput", "{}"),
        ("TestSleep", r#"{"value": ["9", 0], "seconds": 10000}"#),
        ("NoSuchNode", "{}"),
        ("3", "3"),
        ("EmptyImage", "3"),
    ] {
        bodies.push(saved(class, inputs));
    }
    bodies
}

#[tokio::test]
async fn prompts_are_refused_in_the_words_of_a_server_to_the_byte() {
    for (version, dialect) in [
        (Version::RECORDED, Dialect::Early),
        (Version::LATE, Dialect::Late),
    ] {
        let node = ComfyNode::start(Spec::named("a").version(version))
            .await
            .unwrap();
        let info = info_of(&node).await;
        let mut wrong = Vec::new();
        for body in bodies() {
            let there = told(ask(&node, "POST", "/prompt", &body).await);
            let here = verdict(&info, dialect, &body);
            if here != there {
                wrong.push(format!(
                    "{version} {body}\n  there {there:?}\n  here  {here:?}"
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Prompts by chance, most of them wrong in several ways: the same ones in every run.
struct Chance(u64);

impl Chance {
    /// Below `n`.
    fn draw(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.draw(all.len())]
    }

    fn prompt(&mut self, info: &ObjectInfo) -> String {
        const CLASSES: [&str; 14] = [
            "EmptyImage",
            "ImageInvert",
            "ImageBatch",
            "ImageBlur",
            "SaveImage",
            "PreviewImage",
            "PreviewImage",
            "KSampler",
            "VAEDecode",
            "LoadImage",
            "LoadImageMask",
            "StubImage",
            "CheckpointLoaderSimple",
            "PreviewAny",
        ];
        const VALUES: [&str; 18] = [
            "1",
            "8",
            "8.0",
            "\"8\"",
            "\"x\"",
            "-5",
            "0.5",
            "null",
            "true",
            r#"{"__value__": 8}"#,
            "\"euler\"",
            "\"normal\"",
            "\"WHITE\"",
            "\"example.png\"",
            "\"no.png\"",
            "[]",
            "\"tiny_sd3.safetensors\"",
            "{}",
        ];
        let count = 1 + self.draw(6);
        let nodes: Vec<String> = (0..count)
            .map(|id| {
                let class = self.of(&CLASSES);
                let inputs = info.class(class).unwrap().inputs();
                let inputs: Vec<String> = inputs
                    .filter_map(|input| {
                        let is_link = input.options().is_none()
                            && !["INT", "FLOAT", "STRING", "BOOLEAN"].contains(&input.type_name());
                        let odd = self.draw(10);
                        let default = input.more("default").map(Json::to_string);
                        let value = match odd {
                            0 => return None,
                            1 => self.of(&VALUES).to_owned(),
                            _ if is_link => format!(
                                r#"["{}", {}]"#,
                                self.draw(count + usize::from(odd == 2)),
                                self.draw(6) / 5
                            ),
                            _ => default
                                .filter(|_| odd > 4)
                                .unwrap_or_else(|| self.of(&VALUES).to_owned()),
                        };
                        // What is right is executed: not for long.
                        let value = if value.len() > 2 && value.parse::<u64>().is_ok() {
                            "16".to_owned()
                        } else {
                            value
                        };
                        Some(format!("\"{}\": {value}", input.name))
                    })
                    .collect();
                let class = if self.draw(60) == 0 {
                    "NoSuchNode"
                } else {
                    class
                };
                format!(
                    r#""{id}": {{"class_type": "{class}", "inputs": {{{}}}}}"#,
                    inputs.join(", ")
                )
            })
            .collect();
        format!(r#"{{"prompt": {{{}}}}}"#, nodes.join(", "))
    }
}

#[tokio::test]
async fn prompts_by_chance_are_judged_as_a_server_judges_them() {
    for (version, dialect) in [
        (Version::RECORDED, Dialect::Early),
        (Version::LATE, Dialect::Late),
    ] {
        let node = ComfyNode::start(Spec::named("a").version(version))
            .await
            .unwrap();
        let info = info_of(&node).await;
        let mut chance = Chance(6);
        let mut kinds = std::collections::BTreeMap::new();
        for _ in 0..400 {
            let body = chance.prompt(&info);
            let there = told(ask(&node, "POST", "/prompt", &body).await);
            let here = verdict(&info, dialect, &body);
            assert_eq!(here, there, "{version} {body}");
            for kind in here.1.split("\"type\": \"").skip(1) {
                *kinds
                    .entry(kind.split('"').next().unwrap().to_owned())
                    .or_insert(0) += 1;
            }
            *kinds.entry(here.0.to_string()).or_insert(0) += 1;
        }
        // All that can be wrong was, and some were right.
        let least = if dialect == Dialect::Late { 14 } else { 13 };
        assert!(kinds.len() >= least && kinds["200"] > 20, "{kinds:?}");
    }
}

/// The recorded conversations of the simulated node's own tests: a prompt, and how it was answered.
fn recorded() -> Vec<(String, String, u16, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sim/tests/comfy/recorded");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let all: Vec<_> = files
        .map(|file| {
            let said = Json::read(&std::fs::read(&file).unwrap()).unwrap();
            let text = |key| said.get(key).and_then(Json::text).unwrap().to_owned();
            let status = said
                .get("status")
                .and_then(|status| status.number()?.integer())
                .unwrap();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            (name, text("prompt"), status as u16, text("body"))
        })
        .collect();
    assert!(all.len() > 10, "saw {}", all.len());
    all
}

#[tokio::test]
async fn recorded_prompts_are_answered_as_they_were() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let info = info_of(&node).await;
    for (name, prompt, status, body) in recorded() {
        let submitted = format!(r#"{{"prompt": {prompt}, "client_id": "c"}}"#);
        let here = verdict(&info, Dialect::Early, &submitted);
        let there = told((status, body));
        assert_eq!(here, there, "{name}");
        let read = Submission::read(submitted.as_bytes()).unwrap();
        assert_eq!(read.for_node(|_| {}), submitted, "{name}");
    }
}

#[tokio::test]
async fn recorded_prompts_need_what_they_name() {
    let node = ComfyNode::start(Spec::named("a")).await.unwrap();
    let info = info_of(&node).await;
    let mut shapes = std::collections::BTreeMap::new();
    for (name, prompt, ..) in recorded() {
        let prompt = Json::read(prompt.as_bytes()).unwrap();
        let workflow = Workflow::of(prompt.object().unwrap());
        let needs = Needs::of(&workflow, &info);
        let models: Vec<_> = needs
            .models()
            .map(|choice| (choice.input, choice.value.text().unwrap()))
            .collect();
        let files: Vec<_> = needs.files.iter().map(|file| file.path.name).collect();
        let is_sd3 = name.starts_with("tiny_sd3");
        assert_eq!(
            models,
            if is_sd3 {
                vec![("ckpt_name", "tiny_sd3.safetensors")]
            } else {
                vec![]
            },
            "{name}"
        );
        let loads = ["load_scale_blur_save", "ws_image"].contains(&name.as_str());
        assert_eq!(
            files,
            if loads { vec!["example.png"] } else { vec![] },
            "{name}"
        );
        assert_eq!(needs.outputs.len(), 1, "{name}");
        assert_eq!(
            needs.lacks(&info, &Names::default()).len(),
            usize::from(name == "unknown_node"),
            "{name}"
        );
        shapes
            .entry(workflow.shape())
            .or_insert(Vec::new())
            .push(name);
    }
    let mut alike: Vec<_> = shapes
        .into_values()
        .filter(|names| names.len() > 1)
        .collect();
    alike.iter_mut().for_each(|names| names.sort());
    alike.sort();
    assert_eq!(
        alike,
        [
            vec!["empty_save", "invalid"],
            vec!["tiny_sd3_featureflags", "tiny_sd3_ksampler"]
        ]
    );
}

#[tokio::test]
async fn the_share_that_is_computed_is_what_a_server_does_not_execute_again() {
    let node = ComfyNode::start(Spec::named("a").version(Version::LATE))
        .await
        .unwrap();
    let info = info_of(&node).await;
    let mut computed = Computed::nothing(Keeps::Many(1000));
    let prompt = |seed: u32, text: &str, load: &str| {
        format!(
            r#"{{"{load}": {{"class_type": "CheckpointLoaderSimple", "inputs": {{"ckpt_name": "tiny_sd3.safetensors"}}}},
            "5": {{"class_type": "EmptySD3LatentImage", "inputs": {{"width": 64, "height": 64, "batch_size": 1}}}},
            "6": {{"class_type": "CLIPTextEncode", "inputs": {{"text": "{text}", "clip": ["{load}", 1]}}}},
            "3": {{"class_type": "KSampler", "inputs": {{"seed": {seed}, "steps": 1, "cfg": 4, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "model": ["{load}", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0]}}}},
            "8": {{"class_type": "VAEDecode", "inputs": {{"samples": ["3", 0], "vae": ["{load}", 2]}}}},
            "9": {{"class_type": "PreviewImage", "inputs": {{"images": ["8", 0]}}}}}}"#
        )
    };
    for (seed, text, load) in [
        (1, "cat", "4"),
        (2, "cat", "4"),
        (1, "dog", "x"),
        (1, "cat", "y"),
        (2, "dog", "4"),
    ] {
        let prompt = prompt(seed, text, load);
        let read = Json::read(prompt.as_bytes()).unwrap();
        let workflow = Workflow::of(read.object().unwrap());
        let signed = sign(&workflow, |node| {
            info.class(node.class)?
                .knows_its_node()
                .then(|| node.id.to_owned())
        });
        let guessed = computed.share(&signed);
        let (status, _) = ask(
            &node,
            "POST",
            "/prompt",
            &format!(
                r#"{{"prompt": {prompt}, "prompt_id": "00000000-0000-4000-8000-00000000000{}"}}"#,
                node.seen().len() % 10
            ),
        )
        .await;
        assert_eq!(status, 200);
        let was = |saw: &[tabane_sim::comfy::Saw]| {
            let ended = saw
                .iter()
                .rposition(|saw| matches!(saw, tabane_sim::comfy::Saw::Ended { .. }))?;
            let accepted = saw
                .iter()
                .rposition(|saw| matches!(saw, tabane_sim::comfy::Saw::Accepted { .. }))?;
            (ended > accepted).then_some(())
        };
        let ended = node.until(|saw| was(saw).is_some());
        tokio::time::timeout(std::time::Duration::from_secs(20), ended)
            .await
            .unwrap();
        let cached = node.seen().into_iter().rev().find_map(|saw| match saw {
            tabane_sim::comfy::Saw::Started { cached, .. } => Some(cached),
            _ => None,
        });
        assert_eq!(
            guessed,
            cached.unwrap().len() as f64 / signed.len() as f64,
            "{seed} {text} {load}"
        );
        computed.note(&signed);
    }
}

#[tokio::test]
async fn one_prompt_runs_on_linux_and_on_windows_and_nowhere_if_no_node_has_it_all() {
    let linux = Spec::named("linux").model("loras", "flux/a.safetensors", 10);
    let mut windows = Spec::named("windows")
        .model("loras", "flux/a.safetensors", 10)
        .model("vae", "only/here.safetensors", 10);
    windows.windows = true;
    windows.without.push("ImageBlur".into());
    let nodes = [
        ComfyNode::start(linux).await.unwrap(),
        ComfyNode::start(windows).await.unwrap(),
    ];
    let infos = [info_of(&nodes[0]).await, info_of(&nodes[1]).await];
    let named = [("linux", &infos[0]), ("windows", &infos[1])];
    let (all, differences) = ObjectInfo::merged(&named);
    assert_eq!(differences, []);
    let models: Vec<_> = all.models().map(|(.., name)| name).collect();
    assert_eq!(
        models.iter().filter(|name| name.contains("flux")).count(),
        1,
        "{models:?}"
    );
    let names = Names::default();
    let body = |lora: &str, vae: &str, last: &str| {
        format!(
            r#"{{"prompt": {{"4": {{"class_type": "CheckpointLoaderSimple", "inputs": {{"ckpt_name": "tiny_sd3.safetensors"}}}},
            "5": {{"class_type": "LoraLoader", "inputs": {{"model": ["4", 0], "clip": ["4", 1], "lora_name": "{lora}", "strength_model": 1, "strength_clip": 1}}}},
            "6": {{"class_type": "CLIPTextEncode", "inputs": {{"text": "cat", "clip": ["5", 1]}}}},
            "7": {{"class_type": "VAELoader", "inputs": {{"vae_name": "{vae}"}}}},
            "8": {{"class_type": "EmptyImage", "inputs": {{"width": 16, "height": 16, "batch_size": 1, "color": 0}}}},
            "9": {{"class_type": "VAEEncode", "inputs": {{"pixels": ["8", 0], "vae": ["7", 0]}}}},
            "10": {{"class_type": "PreviewAny", "inputs": {{"source": ["9", 0]}}}},
            "11": {{"class_type": "PreviewAny", "inputs": {{"source": ["6", 0]}}}},
            "12": {last}}}}}"#
        )
    };
    let preview = r#"{"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}"#;
    for (lora, vae, linux, windows) in [
        ("flux/a.safetensors", "pixel_space", 200, 200),
        (r"flux\\a.safetensors", "pixel_space", 200, 200),
        ("flux/a.safetensors", "only/here.safetensors", 400, 200),
    ] {
        let body = body(lora, vae, preview);
        assert_eq!(
            verdict(&all, Dialect::Early, &body),
            (200, "{}".into()),
            "{lora} {vae}"
        );
        let submission = Submission::read(body.as_bytes()).unwrap();
        let workflow = Workflow::of(submission.prompt().unwrap());
        let needs = Needs::of(&workflow, &all);
        assert_eq!(nowhere(&needs, &named, &names), None);
        for (i, status) in [linux, windows].into_iter().enumerate() {
            assert_eq!(
                needs.lacks(&infos[i], &names).is_empty(),
                status == 200,
                "{lora} {vae} {i}"
            );
            let sent = submission.for_node(|body| {
                if let Some(Json::Object(prompt)) = body.get_mut("prompt") {
                    translate(prompt, &infos[i], &names);
                }
            });
            let (answered, told) = ask(&nodes[i], "POST", "/prompt", &sent).await;
            let node_errors = Json::read(told.as_bytes())
                .unwrap()
                .get("node_errors")
                .unwrap()
                .to_string();
            let is_right = answered == 200 && node_errors == "{}";
            assert_eq!(is_right, status == 200, "{lora} {vae} {i}: {told}");
        }
    }
    let blur = r#"{"class_type": "ImageBlur", "inputs": {"image": ["8", 0], "blur_radius": 1, "sigma": 1.0}}"#;
    let body = body("flux/a.safetensors", "only/here.safetensors", blur);
    assert_eq!(verdict(&all, Dialect::Early, &body), (200, "{}".into()));
    let submission = Submission::read(body.as_bytes()).unwrap();
    let needs = Needs::of(&Workflow::of(submission.prompt().unwrap()), &all);
    let told = nowhere(&needs, &named, &names).unwrap().to_string();
    assert!(
        told.contains(
            "linux lacks vae_name 'only/here.safetensors'\\nwindows lacks the node type ImageBlur"
        ),
        "{told}"
    );
}
