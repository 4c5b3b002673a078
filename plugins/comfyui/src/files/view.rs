//! `GET /view`: a file, a part of it, or a picture of it.

use super::kept::Kept;
use super::paths::{annotated, below};
use super::picture::{self, Shown};
use super::query::Query;
use super::reply::{Answer, empty, set};
use super::types::{self, BYTES, content_type};
use super::{Files, draft, failed, serve};
use crate::needs::Folder;
use http::{HeaderMap, Response, StatusCode, header};
use std::path::PathBuf;
use tabane_api::Body;

// === impl Files ===

impl Files {
    /// `GET /view`, and `HEAD`: the head of the answer is the same, and whoever sends it leaves its body out.
    ///
    /// `preview` and `channel` make pictures. WebP is made without loss, so the quality that is asked for counts for JPEG
    /// alone: there is no other encoder in Rust.
    pub async fn view(&self, query: Option<&str>, headers: &HeaderMap) -> Answer {
        let query = Query::of(query);
        let (path, name) = match self.named(&query) {
            Ok(named) => named,
            Err(status) => return Ok(empty(status)),
        };
        let kept = self.blocking(move |_| Kept::open(&path)).await;
        let kept = kept
            .flatten()
            .map_err(|error| failed("read a file", error))?;
        let Some(kept) = kept else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let shown = picture::asked(query.get("preview"), query.get("channel"));
        match shown {
            Some(shown) => self.shown(kept, shown, &name).await,
            None => Ok(as_it_is(kept, &name, headers)),
        }
    }

    /// Where the file lies that is asked for, and its name.
    fn named(&self, query: &Query) -> Result<(PathBuf, String), StatusCode> {
        let named = query.get("filename").ok_or(StatusCode::NOT_FOUND)?;
        let (name, folder) = annotated(named);
        if name.is_empty() || name.starts_with('/') || name.contains("..") {
            return Err(StatusCode::BAD_REQUEST);
        }
        let folder = folder
            .or_else(|| Folder::named(query.get("type").unwrap_or("output")))
            .ok_or(StatusCode::BAD_REQUEST)?;
        let folder = self.disk.folder(folder);
        let folder =
            below(&folder, query.get("subfolder").unwrap_or("")).ok_or(StatusCode::FORBIDDEN)?;
        // Of a path, only its last part counts.
        let name = name.rsplit('/').next().unwrap_or("");
        if matches!(name, "" | ".") || draft::is_draft(name) {
            return Err(StatusCode::NOT_FOUND);
        }
        Ok((folder.join(name), name.to_owned()))
    }

    async fn shown(&self, kept: Kept, shown: Shown, name: &str) -> Answer {
        let mut reply = self.room.show(kept, shown).await?;
        set(
            &mut reply,
            header::CONTENT_DISPOSITION,
            &disposition("", name),
        );
        Ok(reply)
    }
}

fn as_it_is(kept: Kept, name: &str, headers: &HeaderMap) -> Response<Body> {
    let kind = content_type(name);
    let is_dangerous = types::is_dangerous(kind);
    // In an `<img>`, a browser runs no scripts of a picture's.
    let destination = headers.get("sec-fetch-dest");
    let is_for_img = kind == "image/svg+xml" && destination.is_some_and(|to| to == "image");
    let is_saved = is_dangerous && !is_for_img;
    let mut reply = serve::file(kept, if is_saved { BYTES } else { kind }, headers);
    let how = if is_saved { "attachment; " } else { "" };
    set(
        &mut reply,
        header::CONTENT_DISPOSITION,
        &disposition(how, name),
    );
    set(&mut reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if is_dangerous {
        // Nobody may keep what was for an `<img>` and give it where it would be executed.
        set(&mut reply, header::VARY, "Sec-Fetch-Dest");
        set(&mut reply, header::CACHE_CONTROL, "no-store");
    }
    reply
}

fn disposition(how: &str, name: &str) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{how}filename=\"{name}\"")
}
