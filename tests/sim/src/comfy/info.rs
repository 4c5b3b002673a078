//! What a node says of itself: its classes, models, card and version.

use super::disk::Kind;
use super::json::{Json, Object, object};
use super::library::FOLDERS;
use super::reply::{Reply, empty, json, ok};
use super::routes::Call;
use super::server::{MOST_UPLOAD, Server};
use http::{Method, StatusCode};

const RAM: u64 = 64 << 30;
const MIB: u64 = 1 << 20;

pub(crate) fn answer(server: &Server, call: &Call, parts: &[&str]) -> Option<Reply> {
    let (spec, disk) = (&server.spec, &server.disk);
    if call.method == Method::PATCH && parts == ["internal", "logs", "subscribe"] {
        return Some(empty(StatusCode::OK));
    }
    if call.method != Method::GET {
        return None;
    }
    let missing = || empty(StatusCode::NOT_FOUND);
    Some(match parts {
        ["object_info"] => ok(&server.library.object_info(None, spec, disk)),
        ["object_info", class] => ok(&server.library.object_info(Some(class), spec, disk)),
        ["system_stats"] => ok(&stats(server)),
        ["features"] if spec.version.tells_progress_state() => ok(&features()),
        ["models"] => ok(&FOLDERS.into_iter().collect()),
        ["models", folder] if FOLDERS.contains(folder) => ok(&spec.names(folder).into()),
        ["embeddings"] => {
            let names = spec.names("embeddings");
            let stems = names.iter().map(|name| {
                name.rsplit_once('.')
                    .map_or(name.as_str(), |(stem, _)| stem)
            });
            ok(&stems.collect())
        }
        ["experiment", "models"] => {
            let told = folders().filter(|(name, _)| !["configs", "custom_nodes"].contains(name));
            ok(&told
                .map(|(name, path)| object! {"name": name, "folders": vec![path]})
                .collect())
        }
        ["experiment", "models", folder] if FOLDERS.contains(folder) => {
            let told = spec.models.iter().filter(|model| model.folder == *folder);
            let told = told.map(|model| {
                object! {
                    "name": spec.native(&model.name),
                    "pathIndex": 0_i64,
                    "modified": 1_790_000_000.0,
                    "created": 1_790_000_000.0,
                    "size": model.mib * MIB,
                }
            });
            ok(&told.collect())
        }
        ["extensions"] => ok(&Json::List(vec!["/extensions/core/widgetInputs.js".into()])),
        ["i18n"] | ["workflow_templates"] => ok(&object! {}),
        ["node_replacements"] if spec.version.names_what_is_wrong() => ok(&object! {}),
        ["global_subgraphs"] if spec.version.has_jobs() => ok(&object! {}),
        ["internal", "folder_paths"] => {
            let told: Object = folders()
                .map(|(name, path)| (name.into(), vec![path].into()))
                .collect();
            ok(&told.into())
        }
        ["internal", "logs"] => ok(&"".into()),
        ["internal", "logs", "raw"] => ok(
            &object! {"entries": Json::List(Vec::new()), "size": object! {"cols": 80_i64, "rows": 24_i64}},
        ),
        ["internal", "files", kind] => match Kind::named(kind) {
            Some(kind) => ok(&files(server, kind)),
            None => json(
                StatusCode::BAD_REQUEST,
                &object! {"error": "Invalid directory type"},
            ),
        },
        [""] => with_page(&spec.name),
        ["models" | "experiment", ..] => missing(),
        _ => return None,
    })
}

pub(crate) fn features() -> Json {
    object! {"supports_preview_metadata": true, "max_upload_size": MOST_UPLOAD}
}

fn with_page(name: &str) -> Reply {
    let page = format!("<!doctype html><title>ComfyUI</title><p>simulated node {name}</p>");
    super::reply::with(StatusCode::OK, "text/html", page)
}

fn folders() -> impl Iterator<Item = (&'static str, String)> {
    FOLDERS
        .into_iter()
        .map(|name| (name, format!("/opt/ComfyUI/models/{name}")))
}

/// Newer servers say where each lies, so that it can be named as an input.
fn files(server: &Server, kind: Kind) -> Json {
    let names = server.disk.newest(kind).into_iter();
    if server.spec.version.has_jobs() {
        names
            .map(|name| format!("{name} [{}]", kind.name()))
            .collect()
    } else {
        names.collect()
    }
}

fn stats(server: &Server) -> Json {
    let spec = &server.spec;
    let free = server.free_mib() * MIB;
    let used = spec.vram_mib * MIB - free.min(spec.vram_mib * MIB);
    object! {
        "system": object! {
            "os": if spec.windows { "nt" } else { "posix" },
            "ram_total": RAM,
            "ram_free": RAM / 2,
            "comfyui_version": spec.version.to_string(),
            "required_frontend_version": "1.27.10",
            "installed_templates_version": "0.1.95",
            "required_templates_version": "0.1.95",
            "python_version": "3.11.2 (main, Apr 28 2025, 14:11:48) [GCC 12.2.0]",
            "pytorch_version": "2.8.0+cu128",
            "embedded_python": false,
            "argv": Json::List(vec!["main.py".into()]),
        },
        "devices": Json::List(vec![object! {
            "name": format!("cuda:0 {} : cudaMallocAsync", spec.gpu),
            "type": "cuda",
            "index": 0_i64,
            "vram_total": spec.vram_mib * MIB,
            "vram_free": free,
            "torch_vram_total": used,
            "torch_vram_free": 0_i64,
        }]),
    }
}
