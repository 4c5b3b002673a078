//! Which name each result of a job got, so that collecting them a second time does not keep them twice.
//!
//! One file for each job, a line for each name, written before the name is taken: a job whose results are collected again
//! after the gateway died finds what it had got so far. Not awaited to be on disk; what a power loss takes of it costs a second
//! copy.

use super::disk::Disk;
use super::names::hex;
use crate::json::Json;
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// What a job called a file.
pub(super) struct Wanted<'a> {
    pub(super) job: &'a str,
    pub(super) folder: &'static str,
    pub(super) subfolder: &'a str,
    pub(super) name: &'a str,
}

// === impl Wanted ===

impl Wanted<'_> {
    /// The names that it got, or was about to get, the latest first.
    pub(super) fn given(&self, disk: &Disk) -> Vec<String> {
        let told = fs::read(path(disk, self.job)).unwrap_or_default();
        let lines = told.split(|byte| *byte == b'\n').rev();
        // A line that a crash cut off is none.
        lines
            .filter_map(|line| match Json::read(line).ok()?.list()? {
                [folder, subfolder, wanted, name] => [folder, subfolder, wanted]
                    .map(Json::text)
                    .eq(&[self.folder, self.subfolder, self.name].map(Some))
                    .then(|| name.text().map(str::to_owned))?,
                _ => None,
            })
            .collect()
    }

    /// Remembers the name that it is about to get.
    pub(super) fn note(&self, disk: &Disk, name: &str) -> io::Result<()> {
        let line = Json::from(vec![self.folder, self.subfolder, self.name, name]);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path(disk, self.job))?;
        // The line's end comes first: it ends one that a crash cut off.
        file.write_all(format!("\n{line}").as_bytes())
    }
}

pub(super) fn forget(disk: &Disk, job: &str) -> io::Result<()> {
    match fs::remove_file(path(disk, job)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A job's id may be any text.
fn path(disk: &Disk, job: &str) -> PathBuf {
    disk.given().join(hex(&Sha256::digest(job)[..16]))
}
