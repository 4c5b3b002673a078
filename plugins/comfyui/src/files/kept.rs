use super::blocking;
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tabane_api::{Content, Stored};

/// A file that is kept, opened: whatever takes its name meanwhile, this is the one that was found.
#[derive(Clone, Debug)]
pub struct Kept {
    file: Arc<File>,
    length: u64,
    changed: SystemTime,
}

// === impl Kept ===

impl Kept {
    /// The one at a path; `None` where there is no file, or something that is none. Waits for the disk.
    pub(super) fn open(path: &Path) -> io::Result<Option<Kept>> {
        use io::ErrorKind::*;
        let found = fs::metadata(path).and_then(|meta| match meta.is_file() {
            true => File::open(path).map(Some),
            // Opening a pipe would wait for whoever writes to it.
            false => Ok(None),
        });
        let file = match found {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(None),
            Err(error) => {
                return match error.kind() {
                    NotFound | NotADirectory | InvalidInput | InvalidFilename => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let meta = file.metadata()?;
        Ok(Some(Kept {
            file: Arc::new(file),
            length: meta.len(),
            changed: meta.modified()?,
        }))
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// When it was changed.
    pub fn changed(&self) -> SystemTime {
        self.changed
    }

    /// What tells it from what had its name before, and from what will: `"mtime-size"`, quotes and all, as ComfyUI has it.
    pub fn etag(&self) -> String {
        let since = self.changed.duration_since(UNIX_EPOCH);
        let nanos = since.unwrap_or_default().as_nanos();
        format!("\"{nanos:x}-{:x}\"", self.length)
    }

    /// Its bytes from the first on. There is one reader at a time.
    pub(super) fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    /// Its bytes.
    pub fn content(self) -> Content {
        Content::Stored(Arc::new(self))
    }
}

#[async_trait]
impl Stored for Kept {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let left = self.length.saturating_sub(offset);
        let length = usize::try_from(left).map_or(most, |left| left.min(most));
        let file = self.file.clone();
        blocking(move || {
            let mut bytes = vec![0; length];
            // Somebody may have cut it: then it ends before it should, which whoever reads it sees.
            let read = file.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes.into())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_file_that_somebody_cut_ends_there() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let kept = Kept::open(file.path()).unwrap().unwrap();
        file.as_file().set_len(5).unwrap();
        assert_eq!(kept.read(2, 100).await.unwrap(), "234");
        assert!(kept.read(5, 100).await.unwrap().is_empty());
        assert_eq!(Stored::length(&kept), 10, "its reader is told too much");
    }

    #[test]
    fn what_is_no_file_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["", "none", "none/below", "\0"] {
            let path = folder.path().join(path);
            assert!(Kept::open(&path).unwrap().is_none(), "{path:?}");
        }
    }
}
