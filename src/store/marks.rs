//! The drain marks of nodes, in `data_dir/drained.json`.
//!
//! A file is replaced whole (written beside, made durable, renamed over), so that a crash leaves the old one
//! or the new one. A file that cannot be read is never replaced: whoever wrote it may want it back.

use super::StoreError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The only form there is so far.
const VERSION: u32 = 1;
const FILE: &str = "drained.json";

/// The drain marks of nodes.
#[derive(Debug)]
pub struct Marks {
    /// `None`: kept in memory only.
    file: Option<PathBuf>,
    drained: Mutex<BTreeSet<String>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    drained: BTreeSet<String>,
}

// === impl Marks ===

impl Marks {
    /// Reads the marks of a data directory, which is made if it is not there; without one they last as long as the process.
    ///
    /// Errors: see [`StoreError`]. Nothing is changed then.
    pub fn open(data_dir: Option<&Path>) -> Result<Marks, StoreError> {
        let Some(dir) = data_dir else {
            return Ok(Marks {
                file: None,
                drained: Mutex::default(),
            });
        };
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let file = dir.join(FILE);
        let drained = match fs::read(&file) {
            Ok(bytes) => parse(&file, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(io_error("read", &file)(error)),
        };
        // Left by a crash between writing and renaming; the mark was not answered then.
        let _ = fs::remove_file(beside(&file));
        Ok(Marks {
            file: Some(file),
            drained: Mutex::new(drained),
        })
    }

    /// The nodes that are marked.
    pub fn all(&self) -> BTreeSet<String> {
        self.drained.lock().clone()
    }

    /// Sets or lifts a mark; when this returns, it is on disk.
    ///
    /// Errors: it could not be written; the mark is as it was.
    pub fn set(&self, node: &str, drained: bool) -> Result<(), StoreError> {
        let mut marks = self.drained.lock();
        let mut wanted = marks.clone();
        let changed = if drained {
            wanted.insert(node.to_owned())
        } else {
            wanted.remove(node)
        };
        if changed {
            if let Some(file) = &self.file {
                replace(file, &wanted)?;
            }
            *marks = wanted;
        }
        Ok(())
    }
}

fn parse(file: &Path, bytes: &[u8]) -> Result<BTreeSet<String>, StoreError> {
    let damaged = |why: String| StoreError::Damaged {
        path: file.to_owned(),
        why,
    };
    // The version first: a newer form may not even have our fields.
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if head.version != VERSION {
        return Err(StoreError::Newer {
            path: file.to_owned(),
            found: head.version,
            known: VERSION,
        });
    }
    let stored: Stored =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(stored.drained)
}

fn replace(file: &Path, drained: &BTreeSet<String>) -> Result<(), StoreError> {
    let temporary = beside(file);
    let text = serde_json::to_vec_pretty(&Stored {
        version: VERSION,
        drained: drained.clone(),
    })
    .map_err(|error| StoreError::Damaged {
        path: file.to_owned(),
        why: error.to_string(),
    })?;
    let write = || {
        let mut out = File::create(&temporary)?;
        out.write_all(&text)?;
        out.sync_all()
    };
    write().map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, file).map_err(io_error("replace", file))?;
    // The rename itself is durable only when the directory is.
    let dir = file.parent().unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("make durable", dir))
}

fn beside(file: &Path) -> PathBuf {
    file.with_extension("json.new")
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        what,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("made/when/needed");
        let marks = Marks::open(Some(&data)).unwrap();
        marks.set("a", true).unwrap();
        marks.set("b", true).unwrap();
        marks.set("a", false).unwrap();
        marks.set("never", false).unwrap();
        assert_eq!(
            Marks::open(Some(&data)).unwrap().all(),
            BTreeSet::from(["b".to_owned()])
        );
    }

    #[test]
    fn without_a_data_dir_marks_are_kept_in_memory() {
        let marks = Marks::open(None).unwrap();
        marks.set("a", true).unwrap();
        assert!(marks.all().contains("a"));
    }

    #[test]
    fn a_file_that_is_not_understood_is_left_alone() {
        for (text, wants) in [
            ("{", "move it away"),
            ("{\"version\":9}", "version 9"),
            ("[]", "move it away"),
            ("{\"version\":1}", "move it away"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(FILE);
            fs::write(&file, text).unwrap();
            let error = Marks::open(Some(dir.path())).unwrap_err().to_string();
            assert!(error.contains(wants), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn what_a_crash_left_behind_is_cleaned_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let left = beside(&dir.path().join(FILE));
        fs::write(&left, "half a fi").unwrap();
        assert!(Marks::open(Some(dir.path())).unwrap().all().is_empty());
        assert!(!left.exists());
    }

    #[test]
    fn a_mark_that_cannot_be_kept_is_not_set() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let marks = Marks::open(Some(&data)).unwrap();
        fs::remove_dir(&data).unwrap();
        assert!(marks.set("a", true).is_err());
        assert!(marks.all().is_empty());
    }
}
