//! The layout on disk, and what is done to it one at a time.

use super::draft::is_draft;
use crate::needs::Folder;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where files are until they have a name.
const DRAFTS: &str = ".drafts";
/// Which names the results of jobs got.
const GIVEN: &str = ".given";

/// A draft that did not grow for so long is nobody's: a request that comes so slowly was cut long ago.
const DRAFT_IS_OLD: Duration = Duration::from_secs(3600);
/// What is known of a job's names is of use while its results are collected, which is over by then.
const GIVEN_IS_OLD: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) struct Disk {
    root: PathBuf,
    /// Held while a name is given, or taken away: both look first.
    pub(super) names: Mutex<()>,
    /// Held while something that a user keeps is read and changed.
    pub(super) users: Mutex<()>,
}

// === impl Disk ===

impl Disk {
    pub(super) fn open(root: PathBuf) -> io::Result<Disk> {
        let disk = Disk {
            root,
            names: Mutex::new(()),
            users: Mutex::new(()),
        };
        for folder in Folder::ALL {
            fs::create_dir_all(disk.folder(folder))?;
        }
        for folder in [disk.users(), disk.drafts(), disk.given()] {
            fs::create_dir_all(folder)?;
        }
        disk.sweep()?;
        Ok(disk)
    }

    pub(super) fn folder(&self, folder: Folder) -> PathBuf {
        self.root.join(folder.name())
    }

    pub(super) fn users(&self) -> PathBuf {
        self.root.join("user")
    }

    pub(super) fn drafts(&self) -> PathBuf {
        self.root.join(DRAFTS)
    }

    pub(super) fn given(&self) -> PathBuf {
        self.root.join(GIVEN)
    }

    /// Removes what nobody will come back for: drafts of a process that died, names of jobs long over.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for (folder, age) in [(self.drafts(), DRAFT_IS_OLD), (self.given(), GIVEN_IS_OLD)] {
            for entry in fs::read_dir(folder)?.flatten() {
                if entry.metadata().is_ok_and(|meta| is_older(&meta, age)) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(())
    }
}

/// Whether it was changed longer ago than this.
pub(super) fn is_older(meta: &fs::Metadata, age: Duration) -> bool {
    let changed = meta.modified();
    // What was changed in the future is young.
    let since = changed.map(|changed| SystemTime::now().duration_since(changed));
    matches!(since, Ok(Ok(since)) if since > age)
}

/// Whether something has this name; a link that leads nowhere is something.
pub(super) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Makes a folder, with those above it, so that it is there after a power loss, too.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(folder);
    make_folder(above)?;
    match fs::create_dir(folder) {
        // Somebody else made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(above),
    }
}

/// Waits until the names in a folder are on disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The files at the top of a folder that clients may know of, with what is known of each.
pub(super) fn files_in(folder: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    let files = fs::read_dir(folder)?.flatten().filter_map(|entry| {
        // Links that an operator laid are followed.
        let meta = fs::metadata(entry.path()).ok()?;
        let name = entry.file_name().into_string().ok()?;
        (meta.is_file() && !is_draft(&name)).then_some((name, meta))
    });
    Ok(files.collect())
}
