//! What is in a folder.

use super::disk::files_in;
use super::reply::{self, Answer};
use super::{Files, failed};
use crate::json::{Json, object};
use crate::needs::Folder;
use crate::validate::Dialect;
use http::StatusCode;
use std::cmp::Reverse;
use std::io;

// === impl Files ===

impl Files {
    /// The names of the files at the top of a folder, sorted: what lists of inputs are made of. What is below it is not in
    /// them, and loads all the same.
    ///
    /// Errors: the folder cannot be read.
    pub async fn names(&self, folder: Folder) -> io::Result<Vec<String>> {
        let files = self.blocking(move |disk| files_in(&disk.folder(folder)));
        let mut names: Vec<_> = files.await??.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    /// `GET /internal/files/{folder}`: the same, the newest first. Newer servers say where each lies, so that it can be
    /// named as an input.
    pub async fn list(&self, folder: &str, dialect: Dialect) -> Answer {
        let Some(folder) = Folder::named(folder) else {
            let told = object! {"error": "Invalid directory type"};
            return Ok(reply::json(StatusCode::BAD_REQUEST, &told));
        };
        let files = self.blocking(move |disk| files_in(&disk.folder(folder)));
        let files = files.await.flatten();
        let mut files = files.map_err(|error| failed("list a folder", error))?;
        files.sort_by_cached_key(|(name, meta)| (Reverse(meta.modified().ok()), name.clone()));
        let told = files.into_iter().map(|(name, _)| match dialect {
            Dialect::Early => Json::from(name),
            Dialect::Late => Json::from(format!("{name} [{}]", folder.name())),
        });
        reply::ok(told.collect::<Vec<_>>())
    }
}
