//! `GET /view`: a file, a part of it, or a picture of it.

use super::disk::{Disk, Kind};
use super::picture::Picture;
use super::reply::{Reply, broken, empty, no_file, set, with};
use super::routes::Call;
use super::server::Server;
use http::{StatusCode, header};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const IMAGES: [&str; 9] = [
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
];

pub(crate) async fn get(server: &Arc<Server>, call: &Call) -> Reply {
    let path = match find(server, call) {
        Ok(path) => path,
        Err(status) => return empty(status),
    };
    let Some(name) = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
    else {
        return empty(StatusCode::NOT_FOUND);
    };
    let preview = call.query("preview").map(str::to_owned);
    let channel = call.query("channel").unwrap_or("").to_owned();
    let mut reply = if preview.is_some() || channel == "rgb" || channel == "a" {
        let seen =
            tokio::task::spawn_blocking(move || seen(&path, preview.as_deref(), &channel)).await;
        seen.unwrap_or_else(|_| broken())
    } else {
        file(&path, &name, call)
    };
    set(
        &mut reply,
        header::CONTENT_DISPOSITION,
        &format!("filename=\"{name}\""),
    );
    reply
}

/// What browsers may keep: pictures, where the path itself names one.
pub(crate) fn cached(path: &str, mut reply: Reply) -> Reply {
    let name = path.rsplit('/').next().unwrap_or("");
    let is_entry = name.starts_with("index") && name.ends_with(".json");
    let control = if path.ends_with(".js") || path.ends_with(".css") || is_entry {
        "no-cache"
    } else if !is_image(path) {
        return reply;
    } else {
        match reply.status().as_u16() {
            404 => "public, max-age=3600",
            200..=206 | 301 | 308 => "public, max-age=86400",
            302 | 303 | 307 => "no-cache",
            _ => return reply,
        }
    };
    if !reply.headers().contains_key(header::CACHE_CONTROL) {
        set(&mut reply, header::CACHE_CONTROL, control);
    }
    reply
}

pub(crate) fn is_image(path: &str) -> bool {
    let path = path.to_lowercase();
    IMAGES.iter().any(|end| path.ends_with(end))
}

fn find(server: &Server, call: &Call) -> Result<PathBuf, StatusCode> {
    let named = call.query("filename").ok_or(StatusCode::NOT_FOUND)?;
    let (name, kind) = Disk::annotated(named);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let kind = match kind {
        Some(kind) => kind,
        None => {
            Kind::named(call.query("type").unwrap_or("output")).ok_or(StatusCode::BAD_REQUEST)?
        }
    };
    let disk = &server.disk;
    let folder = disk.folder(kind);
    let folder = match call.query("subfolder") {
        Some(subfolder) => disk
            .below(&folder, subfolder)
            .ok_or(StatusCode::FORBIDDEN)?,
        None => folder,
    };
    // Of a path, only its last part counts.
    let name = Path::new(name).file_name().ok_or(StatusCode::NOT_FOUND)?;
    let path = folder.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(StatusCode::NOT_FOUND)
    }
}

fn seen(path: &Path, preview: Option<&str>, channel: &str) -> Reply {
    let Ok(bytes) = fs::read(path) else {
        return empty(StatusCode::NOT_FOUND);
    };
    let picture = Picture::read(&bytes);
    match (preview, channel) {
        (Some(kind), _) if kind.starts_with("jpeg") && !channel.contains('a') => {
            with(StatusCode::OK, "image/jpeg", picture.jpeg())
        }
        (Some(_), "rgb") => with(StatusCode::OK, "image/webp", picture.opaque().webp()),
        (Some(_), _) => with(StatusCode::OK, "image/webp", picture.webp()),
        (None, "rgb") => with(StatusCode::OK, "image/png", picture.opaque().png(&[])),
        (None, _) => with(
            StatusCode::OK,
            "image/png",
            picture.alpha().png_with_alpha(&[]),
        ),
    }
}

/// A file, or the part of it that is asked for, unless it is known.
pub(crate) fn file(path: &Path, name: &str, call: &Call) -> Reply {
    let (Ok(bytes), Ok(meta)) = (fs::read(path), fs::metadata(path)) else {
        return empty(StatusCode::NOT_FOUND);
    };
    let changed = meta.modified().unwrap_or(UNIX_EPOCH);
    let nanos = changed
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let etag = format!("\"{nanos:x}-{:x}\"", bytes.len());
    let kind = content_type(name);
    let mut reply = if is_unchanged(call, &etag, changed) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        ranged(call, &etag, kind, bytes)
    };
    if reply.status() != StatusCode::RANGE_NOT_SATISFIABLE {
        set(&mut reply, header::ETAG, &etag);
        let changed = httpdate::fmt_http_date(changed);
        set(&mut reply, header::LAST_MODIFIED, &changed);
        set(&mut reply, header::ACCEPT_RANGES, "bytes");
    }
    reply
}

fn is_unchanged(call: &Call, etag: &str, changed: SystemTime) -> bool {
    if let Some(known) = call.header(header::IF_NONE_MATCH) {
        return known
            .split(',')
            .any(|known| matches!(known.trim(), "*") || known.trim() == etag);
    }
    let since = call.header(header::IF_MODIFIED_SINCE);
    let since = since.and_then(|since| httpdate::parse_http_date(since).ok());
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    since.is_some_and(|since| seconds(changed) <= seconds(since))
}

fn ranged(call: &Call, etag: &str, kind: &str, bytes: Vec<u8>) -> Reply {
    let fits = call
        .header(header::IF_RANGE)
        .is_none_or(|known| known == etag);
    let Some(asked) = call.header(header::RANGE).filter(|_| fits) else {
        return with(StatusCode::OK, kind, bytes);
    };
    let size = bytes.len();
    let range = asked
        .strip_prefix("bytes=")
        .and_then(|asked| range(asked, size));
    let Some(range) = range.filter(|range| range.start < range.end) else {
        let mut reply = no_file(StatusCode::RANGE_NOT_SATISFIABLE, kind);
        set(
            &mut reply,
            header::CONTENT_RANGE,
            &format!("bytes */{size}"),
        );
        return reply;
    };
    let part = bytes.get(range.clone()).unwrap_or_default();
    let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let mut reply = with(StatusCode::PARTIAL_CONTENT, kind, part.to_vec());
    set(&mut reply, header::CONTENT_RANGE, &told);
    reply
}

/// The one range that is asked for; several are not understood.
fn range(asked: &str, size: usize) -> Option<Range<usize>> {
    let (from, to) = asked.split_once('-')?;
    Some(match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) => from..to.saturating_add(1).min(size),
        (Ok(from), Err(_)) if to.is_empty() => from..size,
        (Err(_), Ok(last)) if from.is_empty() => size.saturating_sub(last)..size,
        _ => return None,
    })
}

/// Pages and scripts are not shown, but saved.
fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or("") {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "flac" => "audio/flac",
        "mp3" => "audio/mpeg",
        "wav" => "audio/x-wav",
        "txt" => "text/plain",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}
