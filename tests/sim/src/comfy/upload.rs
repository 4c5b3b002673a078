//! `POST /upload/image` and `/upload/mask`.

use super::disk::Kind;
use super::json::{Json, object};
use super::multipart::{Part, parts};
use super::picture::Picture;
use super::reply::{Reply, broken, empty, ok};
use super::routes::Call;
use super::seen::Saw;
use super::server::Server;
use http::{StatusCode, header};
use std::sync::Arc;

pub(crate) async fn post(server: &Arc<Server>, call: &Call, is_mask: bool) -> Reply {
    let kind = call.header(header::CONTENT_TYPE).unwrap_or("");
    let parts = match parts(kind, &call.body) {
        Some(parts) => parts,
        None if kind.starts_with("multipart/") => return broken(),
        None => Vec::new(),
    };
    let server = server.clone();
    let reply = tokio::task::spawn_blocking(move || store(&server, &parts, is_mask)).await;
    reply.unwrap_or_else(|_| broken())
}

fn store(server: &Server, parts: &[Part], is_mask: bool) -> Reply {
    let text = |name| {
        let part = parts
            .iter()
            .find(|part| part.name == name && part.file.is_none())?;
        std::str::from_utf8(&part.bytes).ok()
    };
    let bad = || empty(StatusCode::BAD_REQUEST);
    let Some(kind) = Kind::named(text("type").unwrap_or("input")) else {
        return broken();
    };
    let image = parts.iter().find(|part| part.name == "image");
    let Some(image) = image.filter(|part| part.file.is_some() || !part.bytes.is_empty()) else {
        return bad();
    };
    let Some(name) = image.file.as_deref() else {
        // A text is no file.
        return broken();
    };
    let subfolder = text("subfolder").unwrap_or("");
    let overwrite = matches!(text("overwrite"), Some("true" | "1"));
    let masked = is_mask.then(|| masked(server, text("original_ref"), &image.bytes));
    let written = match &masked {
        Some(Ok(masked)) => masked,
        // The picture that it belongs to is not here: nothing is written, and the name is told all the same.
        Some(Err(Unmasked::NotHere)) => {
            return ok(&object! {"name": name, "subfolder": subfolder, "type": kind.name()});
        }
        Some(Err(Unmasked::Unexpected)) => return broken(),
        None => &image.bytes,
    };
    let stored = server
        .disk
        .upload(kind, subfolder, name, overwrite, &image.bytes, written);
    match stored {
        Some(Ok(name)) => {
            server.record.note(Saw::Uploaded { name: name.clone() });
            ok(&object! {"name": name, "subfolder": subfolder, "type": kind.name()})
        }
        Some(Err(_)) => broken(),
        None => bad(),
    }
}

enum Unmasked {
    NotHere,
    Unexpected,
}

/// The picture that a mask belongs to, with the mask's alpha and the picture's own texts.
fn masked(server: &Server, reference: Option<&str>, mask: &[u8]) -> Result<Vec<u8>, Unmasked> {
    let reference = reference.and_then(|text| Json::read(text.as_bytes()).ok());
    let reference = reference.ok_or(Unmasked::Unexpected)?;
    let text = |key| reference.get(key).and_then(Json::text);
    let (name, kind) = super::disk::Disk::annotated(text("filename").ok_or(Unmasked::Unexpected)?);
    let kind = kind.or_else(|| Kind::named(text("type").unwrap_or("output")));
    let kind = kind.ok_or(Unmasked::NotHere)?;
    let path = format!("{}/{name}", text("subfolder").unwrap_or(""));
    let path = server
        .disk
        .below(&server.disk.folder(kind), path.trim_start_matches('/'));
    let original = path
        .and_then(|path| std::fs::read(path).ok())
        .ok_or(Unmasked::NotHere)?;
    let mask = Picture::read_png(mask).ok_or(Unmasked::Unexpected)?;
    let texts = Picture::texts(&original);
    Ok(Picture::read(&original)
        .with_alpha_of(&mask)
        .png_with_alpha(&texts))
}
