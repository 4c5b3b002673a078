//! What a user keeps on a node: settings, and files such as workflows. One user, without a name.

use super::json::{Json, Object, object};
use super::reply::{Reply, broken, empty, json, ok, text};
use super::routes::Call;
use super::server::Server;
use super::view;
use http::StatusCode;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

pub(crate) fn answer(server: &Server, call: &Call, parts: &[&str]) -> Option<Reply> {
    Some(match (call.method.as_str(), parts) {
        ("GET", ["users"]) => {
            let migrated = server.disk.user().exists();
            ok(&object! {"storage": "server", "migrated": migrated})
        }
        ("GET", ["settings"]) => ok(&settings(server).into()),
        ("GET", ["settings", id]) => ok(&settings(server).get(*id).cloned().into()),
        ("POST", ["settings"]) => match call.json() {
            Ok(Json::Object(new)) => change(server, new),
            _ => broken(),
        },
        ("POST", ["settings", id]) => match call.json() {
            Ok(value) => change(server, Object::from_iter([((*id).to_owned(), value)])),
            Err(_) => broken(),
        },
        ("GET", ["userdata"]) => list(server, call),
        (_, ["userdata", file]) => match server.disk.below(&server.disk.user(), file) {
            Some(path) => one(server, call, &path),
            None => empty(StatusCode::FORBIDDEN),
        },
        ("POST", ["userdata", file, "move", to]) => {
            let places = [file, to].map(|name| server.disk.below(&server.disk.user(), name));
            match places {
                [Some(from), Some(to)] => moved(server, call, &from, &to),
                _ => empty(StatusCode::FORBIDDEN),
            }
        }
        _ => return None,
    })
}

fn settings_path(server: &Server) -> PathBuf {
    server.disk.user().join("comfy.settings.json")
}

fn settings(server: &Server) -> Object {
    let read = fs::read(settings_path(server)).ok();
    match read.and_then(|bytes| Json::read(&bytes).ok()) {
        Some(Json::Object(settings)) => settings,
        _ => Object::new(),
    }
}

fn change(server: &Server, new: Object) -> Reply {
    let mut all = settings(server);
    all.extend(new);
    match write(
        &settings_path(server),
        Json::from(all).to_string().as_bytes(),
    ) {
        Ok(()) => empty(StatusCode::OK),
        Err(_) => broken(),
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}

fn list(server: &Server, call: &Call) -> Reply {
    let Some(folder) = call.query("dir").filter(|dir| !dir.is_empty()) else {
        return text(StatusCode::BAD_REQUEST, "Directory not provided");
    };
    let Some(folder) = server.disk.below(&server.disk.user(), folder) else {
        return text(StatusCode::FORBIDDEN, "Invalid directory");
    };
    if !folder.is_dir() {
        return text(StatusCode::NOT_FOUND, "Directory not found");
    }
    let is = |name| call.query(name) == Some("true");
    let mut files = Vec::new();
    collect(&folder, is("recurse"), &mut files);
    files.sort();
    let told = files.iter().map(|path| {
        let name = path
            .strip_prefix(&folder)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned();
        if is("full_info") {
            return told(path, &name);
        }
        if is("split") {
            let parts = name.split('/').map(str::to_owned);
            return std::iter::once(name.clone()).chain(parts).collect();
        }
        name.into()
    });
    ok(&told.collect())
}

fn collect(folder: &Path, recurse: bool, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_file() {
            files.push(path);
        } else if recurse {
            collect(&path, recurse, files);
        }
    }
}

fn told(path: &Path, name: &str) -> Json {
    let meta = fs::metadata(path).ok();
    let changed = meta
        .as_ref()
        .and_then(|meta| meta.modified().ok())
        .unwrap_or(UNIX_EPOCH);
    let changed = changed
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    object! {
        "path": name,
        "size": meta.map_or(0, |meta| meta.len()),
        "modified": changed as i64,
        "created": changed as i64,
    }
}

fn one(server: &Server, call: &Call, path: &Path) -> Reply {
    match call.method.as_str() {
        "GET" => match path.file_name() {
            Some(name) => view::file(path, &name.to_string_lossy(), call),
            None => empty(StatusCode::NOT_FOUND),
        },
        "POST" => {
            if call.query("overwrite") == Some("false") && path.exists() {
                return text(StatusCode::CONFLICT, "File already exists");
            }
            match write(path, &call.body) {
                Ok(()) => named(server, call, path),
                Err(_) => broken(),
            }
        }
        "DELETE" => match fs::remove_file(path) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(_) => empty(StatusCode::NOT_FOUND),
        },
        _ => empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn moved(server: &Server, call: &Call, from: &Path, to: &Path) -> Reply {
    if !from.exists() {
        return empty(StatusCode::NOT_FOUND);
    }
    if call.query("overwrite") == Some("false") && to.exists() {
        return text(StatusCode::CONFLICT, "File already exists");
    }
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    match made.and_then(|()| fs::rename(from, to)) {
        Ok(()) => named(server, call, to),
        Err(_) => broken(),
    }
}

fn named(server: &Server, call: &Call, path: &Path) -> Reply {
    let user = server.disk.user();
    let name = path
        .strip_prefix(&user)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned();
    if call.query("full_info") == Some("true") {
        return json(StatusCode::OK, &told(path, &name));
    }
    ok(&name.into())
}
