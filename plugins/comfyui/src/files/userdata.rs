//! `/userdata`, `/v2/userdata`: files that a user keeps, workflows above all.
//!
//! A file's name comes as one part of the request's path, with what would cut it in two written with percent signs
//! (`workflows%2Fa.json`). What comes of that is decoded once more, as ComfyUI does it.

use super::disk::{Disk, is_taken, make_folder, sync_folder};
use super::draft::{Draft, NotNamed};
use super::kept::Kept;
use super::paths::{below, told};
use super::query::Query;
use super::reply::{self, Answer, empty, set, text, too_large};
use super::types::{self, BYTES, content_type};
use super::users::User;
use super::{failed, not_kept, serve};
use crate::json::{Json, Number, object};
use http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tabane_api::Content;

/// Folders are followed so far down; links could go round.
const DEEPEST: usize = 64;

/// How a list of files is told.
#[derive(Clone, Copy)]
enum Told {
    Names,
    /// Each with its parts behind it.
    Split,
    Full,
}

// === impl User ===

impl User {
    /// `GET /userdata?dir=…`: the files in a folder, and with `recurse` those below. Hidden ones are not among them.
    pub async fn list(&self, query: Option<&str>) -> Answer {
        let query = Query::of(query);
        let Some(folder) = query.get("dir").filter(|folder| !folder.is_empty()) else {
            return Ok(text(StatusCode::BAD_REQUEST, "Directory not provided"));
        };
        let Some(folder) = self.path_of(folder) else {
            return Ok(text(StatusCode::FORBIDDEN, "Invalid directory"));
        };
        let how = match (query.is("full_info"), query.is("split")) {
            (true, _) => Told::Full,
            (_, true) => Told::Split,
            _ => Told::Names,
        };
        let deep = if query.is("recurse") { DEEPEST } else { 0 };
        let listed = self.files.blocking(move |_| {
            folder.exists().then(|| {
                let mut files = Vec::new();
                collect(&folder, deep, &mut files);
                files.sort_by(|(one, _), (two, _)| one.cmp(two));
                let told = files
                    .iter()
                    .map(|(path, meta)| how.tell(&told(path, &folder), meta));
                Json::List(told.collect())
            })
        });
        match listed.await.map_err(|error| failed("list files", error))? {
            Some(told) => reply::ok(told),
            None => Ok(text(StatusCode::NOT_FOUND, "Directory not found")),
        }
    }

    /// `GET /v2/userdata?path=…`: files and folders below a folder, all the way down; folders first, by name.
    pub async fn tree(&self, query: Option<&str>) -> Answer {
        let query = Query::of(query);
        let asked = decoded(query.get("path").unwrap_or(""));
        let Some(folder) = self.path_of(&asked) else {
            return Ok(text(StatusCode::BAD_REQUEST, "Invalid path requested"));
        };
        let top = self.folder.clone();
        let listed = self.files.blocking(move |_| {
            if !folder.exists() {
                return match folder == top {
                    // Nobody kept anything yet.
                    true => reply::ok(Json::List(Vec::new())),
                    false => Ok(text(StatusCode::NOT_FOUND, "Requested path not found")),
                };
            }
            if !folder.is_dir() {
                let told = "Requested path is not a directory";
                return Ok(text(StatusCode::BAD_REQUEST, told));
            }
            let mut entries = Vec::new();
            walk(&folder, &mut entries);
            entries.sort_by_cached_key(|entry| entry.order());
            let told = entries.iter().map(|entry| entry.tell(&top));
            reply::ok(Json::List(told.collect()))
        });
        listed.await.map_err(|error| failed("list files", error))?
    }

    /// `GET /userdata/{file}`, and `HEAD`. It is for programs and not to be shown: browsers save it.
    pub async fn get(&self, file: &str, headers: &HeaderMap) -> Answer {
        let Some(path) = self.path_of(&decoded(file)) else {
            return Ok(empty(StatusCode::FORBIDDEN));
        };
        let kind = content_type(&path.to_string_lossy());
        // But for the one that changes how the page looks.
        let is_style = path == self.folder.join("user.css");
        let found = self.files.blocking(move |_| match Kept::open(&path)? {
            None if path.exists() => Ok(Err(StatusCode::FORBIDDEN)),
            None => Ok(Err(StatusCode::NOT_FOUND)),
            Some(kept) => Ok(Ok(kept)),
        });
        let found = found.await.flatten();
        let kept = match found.map_err(|error| failed("read a file", error))? {
            Ok(kept) => kept,
            Err(status) => return Ok(empty(status)),
        };
        let (kind, how) = match () {
            () if is_style => (kind, "inline"),
            () if types::is_dangerous(kind) => (BYTES, "attachment"),
            () => (kind, "attachment"),
        };
        let mut reply = serve::file(kept, kind, headers);
        set(&mut reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(&mut reply, header::CONTENT_DISPOSITION, how);
        Ok(reply)
    }

    /// `POST /userdata/{file}`: keeps a file; `overwrite=false` spares one that is there.
    pub async fn keep(&self, file: &str, query: Option<&str>, body: Content) -> Answer {
        let query = Query::of(query);
        let most = self.files.most_upload;
        let Some(path) = self.path_of(&decoded(file)) else {
            return Ok(empty(StatusCode::FORBIDDEN));
        };
        if body.length() > most {
            return Ok(too_large(most, body.length()));
        }
        let spares = query.get("overwrite") == Some("false");
        if spares && path.exists() {
            return Ok(text(StatusCode::CONFLICT, "File already exists"));
        }
        let whole = Draft::of(&self.files, &body).await;
        let whole = whole.map_err(|error| failed("take in a file", error))?;
        let (user, how) = (self.folder.clone(), Told::of(&query));
        let kept = self.files.blocking(move |disk| {
            let named = match spares {
                true => whole.take_name(disk, &path),
                false => whole.replace(disk, &path).map_err(NotNamed::Disk),
            };
            match named {
                Ok(()) => answer(&path, &user, how),
                Err(NotNamed::Taken(_)) => Ok(text(StatusCode::CONFLICT, "File already exists")),
                Err(NotNamed::Disk(error)) => {
                    not_kept("keep a file", error, StatusCode::BAD_REQUEST)
                }
            }
        });
        kept.await.map_err(|error| failed("keep a file", error))?
    }

    /// `DELETE /userdata/{file}`.
    pub async fn delete(&self, file: &str) -> Answer {
        let Some(path) = self.path_of(&decoded(file)) else {
            return Ok(empty(StatusCode::FORBIDDEN));
        };
        let deleted = self.files.blocking(move |disk| {
            let _one_at_a_time = disk.users.lock();
            if !path.exists() {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            match fs::remove_file(&path) {
                Ok(()) => Ok(empty(StatusCode::NO_CONTENT)),
                Err(error) => not_kept("delete a file", error, StatusCode::INTERNAL_SERVER_ERROR),
            }
        });
        deleted
            .await
            .map_err(|error| failed("delete a file", error))?
    }

    /// `POST /userdata/{file}/move/{to}`: into another folder, under another name; `overwrite=false` spares what is there.
    pub async fn rename(&self, file: &str, to: &str, query: Option<&str>) -> Answer {
        let query = Query::of(query);
        let paths = (self.path_of(&decoded(file)), self.path_of(&decoded(to)));
        let (Some(from), Some(to)) = paths else {
            return Ok(empty(StatusCode::FORBIDDEN));
        };
        let spares = query.get("overwrite") == Some("false");
        let (user, how) = (self.folder.clone(), Told::of(&query));
        let moved = self.files.blocking(move |disk| {
            let _one_at_a_time = disk.users.lock();
            if !from.exists() {
                return Ok(empty(StatusCode::NOT_FOUND));
            }
            if spares && to.exists() {
                return Ok(text(StatusCode::CONFLICT, "File already exists"));
            }
            match rename(disk, &from, &to) {
                Ok(()) => answer(&to, &user, how),
                Err(error) => not_kept("move a file", error, StatusCode::INTERNAL_SERVER_ERROR),
            }
        });
        moved.await.map_err(|error| failed("move a file", error))?
    }

    /// Where a name leads; `None`: out of what the user keeps.
    fn path_of(&self, name: &str) -> Option<PathBuf> {
        below(&self.folder, &decoded(name))
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Moves something, into a folder if that is where it is to go.
///
/// Source: Python `shutil.move`.
fn rename(disk: &Disk, from: &Path, to: &Path) -> io::Result<()> {
    let into = to
        .is_dir()
        .then(|| from.file_name().map(|name| to.join(name)));
    let to = match into.flatten() {
        Some(within) if is_taken(&within) => return Err(io::ErrorKind::AlreadyExists.into()),
        Some(within) => within,
        None => to.to_owned(),
    };
    let folder = to.parent().unwrap_or(&to);
    make_folder(folder)?;
    let _named_at_once = disk.names.lock();
    fs::rename(from, &to)?;
    sync_folder(folder)
}

/// What is answered when a file is where it should be.
fn answer(path: &Path, user: &Path, how: Told) -> Answer {
    match fs::metadata(path) {
        Ok(meta) => reply::ok(how.tell(&told(path, user), &meta)),
        // Somebody took it away already.
        Err(_) => reply::ok(told(path, user)),
    }
}

/// Files that are not hidden, so many folders down.
fn collect(folder: &Path, deep: usize, files: &mut Vec<(PathBuf, Metadata)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() && !is_hidden => files.push((path, meta)),
            Ok(meta) if meta.is_dir() && !is_hidden && deep > 0 => collect(&path, deep - 1, files),
            _ => {}
        }
    }
}

// === impl Told ===

impl Told {
    /// How one file is told.
    fn of(query: &Query) -> Told {
        if query.is("full_info") {
            Told::Full
        } else {
            Told::Names
        }
    }

    fn tell(self, name: &str, meta: &Metadata) -> Json {
        let millis = |seconds: i64, nanos: i64| seconds * 1000 + nanos / 1_000_000;
        match self {
            Told::Names => name.into(),
            Told::Split => {
                let parts = std::iter::once(name).chain(name.split('/'));
                Json::List(parts.map(Json::from).collect())
            }
            Told::Full => object! {
                "path": name,
                "size": number(meta.len()),
                "modified": number(millis(meta.mtime(), meta.mtime_nsec())),
                "created": number(millis(meta.ctime(), meta.ctime_nsec())),
            },
        }
    }
}

fn number(number: impl ToString) -> Json {
    Number::written(number.to_string()).into()
}

/// A file or a folder below another.
struct Entry {
    path: PathBuf,
    name: String,
    /// Of a file: its size, and when it was changed, in seconds.
    file: Option<(u64, f64)>,
}

/// All that is below a folder. Links are followed to what they are, and not further.
fn walk(folder: &Path, entries: &mut Vec<Entry>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        let changed = meta.mtime() as f64 + 1e-9 * meta.mtime_nsec() as f64;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if meta.is_dir() && !is_link {
            walk(&path, entries);
        }
        entries.push(Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            file: (!meta.is_dir()).then_some((meta.len(), changed)),
            path,
        });
    }
}

// === impl Entry ===

impl Entry {
    fn order(&self) -> (bool, String, PathBuf) {
        (
            self.file.is_some(),
            self.name.to_lowercase(),
            self.path.clone(),
        )
    }

    fn tell(&self, top: &Path) -> Json {
        let (name, path) = (self.name.as_str(), told(&self.path, top));
        match self.file {
            None => object! {"name": name, "path": path, "type": "directory"},
            Some((size, changed)) => object! {
                "name": name,
                "path": path,
                "type": "file",
                "size": number(size),
                // As Python writes it: with a point, also where nothing is behind it.
                "modified": number(format!("{changed:?}")),
            },
        }
    }
}
