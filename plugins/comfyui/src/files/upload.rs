//! `POST /upload/image` and `/upload/mask`.

use super::disk::{Disk, is_taken, make_folder};
use super::draft::{Mark, NotNamed, Whole};
use super::form::{Form, Image, Unread};
use super::mask::Masked;
use super::names::nth;
use super::paths::below;
use super::reply::{self, Answer, broken, empty, too_large};
use super::{Files, failed, not_kept};
use crate::json::object;
use crate::needs::Folder;
use http::{HeaderMap, StatusCode};
use std::io;
use tabane_api::Content;

/// What is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// A file of any kind (`/upload/image`).
    File,
    /// The alpha of a picture that is here (`/upload/mask`).
    Mask,
}

/// Where an upload goes.
struct To {
    folder: Folder,
    subfolder: String,
    name: String,
    overwrite: bool,
}

// === impl Files ===

impl Files {
    /// `POST /upload/image`, `POST /upload/mask`: keeps a file of a form, and answers what it is called now.
    ///
    /// The same bytes under the same name are there already; other bytes get the next name, `a (1).png`, unless they are to
    /// replace what is there. Where the picture that a mask belongs to is not here, nothing is kept, and its name is told all
    /// the same.
    pub async fn upload(&self, what: Upload, headers: &HeaderMap, body: Content) -> Answer {
        if body.length() > self.most_upload {
            return Ok(too_large(self.most_upload, body.length()));
        }
        let Form { texts, image } = match Form::read(self, headers, body).await {
            Ok(form) => form,
            Err(Unread::NoForm) => return Ok(empty(StatusCode::BAD_REQUEST)),
            Err(Unread::Broken) => return Ok(broken()),
            Err(Unread::Disk(error)) => return Err(failed("take in an upload", error)),
        };
        let (name, sent) = match image {
            Image::Missing => return Ok(empty(StatusCode::BAD_REQUEST)),
            Image::Text => return Ok(broken()),
            Image::File { name, bytes } => (name, bytes),
        };
        let Some(folder) = Folder::named(texts.get("type").unwrap_or("input")) else {
            return Ok(broken());
        };
        let to = To {
            folder,
            subfolder: texts.get("subfolder").unwrap_or("").to_owned(),
            name,
            overwrite: matches!(texts.get("overwrite"), Some("true" | "1")),
        };
        let mark = sent.mark();
        let reference = texts.get("original_ref");
        let written = match what {
            Upload::File => sent,
            Upload::Mask => match self.masked(reference, sent, &to.name).await? {
                Masked::Picture(written) => written,
                Masked::NotHere => return told(&to.name, &to),
                Masked::Unexpected => return Ok(broken()),
            },
        };
        let kept = self.blocking(move |disk| {
            let name = keep(disk, &to, mark, written)?;
            Ok(name.map(|name| told(&name, &to)))
        });
        match kept.await.flatten() {
            Ok(Some(told)) => told,
            Ok(None) => Ok(empty(StatusCode::BAD_REQUEST)),
            Err(error) => not_kept("keep an upload", error, StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

fn told(name: &str, to: &To) -> Answer {
    let (subfolder, folder) = (to.subfolder.as_str(), to.folder.name());
    reply::ok(object! {"name": name, "subfolder": subfolder, "type": folder})
}

/// Keeps an upload and says what it is called; `None` where that would lead out of the folder. What was sent is compared with
/// what is there, also where something else is written: a mask is written into a picture.
fn keep(disk: &Disk, to: &To, sent: Mark, mut whole: Whole) -> io::Result<Option<String>> {
    let top = disk.folder(to.folder);
    let path_of = |name: &str| {
        let within = format!("{}/{name}", to.subfolder);
        below(&top, within.trim_start_matches('/'))
    };
    let (Some(folder), Some(path)) = (below(&top, &to.subfolder), path_of(&to.name)) else {
        return Ok(None);
    };
    if path == folder || path == top {
        return Ok(None);
    }
    make_folder(&folder)?;
    // Folders within the name are not made.
    if !path.parent().is_some_and(|folder| folder.is_dir()) {
        return Err(io::ErrorKind::NotFound.into());
    }
    if to.overwrite {
        whole.replace(disk, &path)?;
        return Ok(Some(to.name.clone()));
    }
    let (mut name, mut path, mut i) = (to.name.clone(), path, 1);
    loop {
        while !is_taken(&path) {
            match whole.take_name(disk, &path) {
                Ok(()) => return Ok(Some(name)),
                Err(NotNamed::Taken(again)) => whole = again,
                Err(NotNamed::Disk(error)) => return Err(error),
            }
        }
        if sent.is_of(&path) {
            return Ok(Some(name));
        }
        name = nth(&to.name, i);
        path = path_of(&name).ok_or(io::ErrorKind::InvalidInput)?;
        i += 1;
    }
}
