//! What is old and may go.

use super::Files;
use super::disk::{Disk, is_older};
use crate::needs::Folder;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many files.
    pub files: u64,
    /// How long they were together, in bytes.
    pub bytes: u64,
}

// === impl Files ===

impl Files {
    /// Removes the files of a folder, and of those below it, that were changed longer ago than this, and folders that have
    /// been empty for as long. What is younger stays, also where it takes an old file's name meanwhile; links stay, and are
    /// not followed. Who reads a file that is removed reads it to its end.
    ///
    /// Drafts that nobody finishes any more go, too.
    ///
    /// Errors: the folder itself cannot be read. What cannot be removed stays.
    pub async fn remove_older(&self, folder: Folder, age: Duration) -> io::Result<Removed> {
        let removed = self.blocking(move |disk| {
            disk.sweep()?;
            let mut removed = Removed::default();
            remove_in(disk, &disk.folder(folder), age, &mut removed)?;
            Ok(removed)
        });
        removed.await?
    }
}

fn remove_in(disk: &Disk, folder: &Path, age: Duration, removed: &mut Removed) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
            continue;
        };
        if kind.is_dir() {
            let was_old = entry.metadata().is_ok_and(|meta| is_older(&meta, age));
            let _ = remove_in(disk, &path, age, removed);
            if was_old {
                let _nothing_is_put_there = disk.names.lock();
                // One that is not empty stays.
                let _ = fs::remove_dir(&path);
            }
        } else if kind.is_file() {
            let _looked_and_removed_at_once = disk.names.lock();
            let old = fs::symlink_metadata(&path).ok();
            let old = old.filter(|meta| meta.is_file() && is_older(meta, age));
            if let Some(meta) = old
                && fs::remove_file(&path).is_ok()
            {
                removed.files += 1;
                removed.bytes += meta.len();
            }
        }
    }
    Ok(())
}
