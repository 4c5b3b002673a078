//! Request bodies too long for memory, on disk until their request is over.
//!
//! The files have no names: whatever happens to the gateway, the disk has its space back with the process's end.

use super::StoreError;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tabane_api::Stored;
use tokio::task::spawn_blocking;

/// The folder in `data_dir`.
const FOLDER: &str = "spool";

/// Where long bodies are kept.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    used: AtomicU64,
}

/// One body on disk. Its space is given back when the last handle is dropped.
#[derive(Debug)]
pub struct Spooled {
    spool: Arc<Spool>,
    file: Arc<File>,
    length: u64,
    /// How much of it is in the file.
    written: u64,
    /// The rest.
    pending: BytesMut,
}

/// Why a body cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The quota is used up.
    #[error("as many bytes are held on disk as may be")]
    Full,
    /// The disk said no.
    #[error("cannot keep a body in `{folder}`: {source}")]
    Io {
        /// Where it was to be kept.
        folder: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

// === impl Spool ===

impl Spool {
    /// How much of a body that comes is in memory: so much is written at once, one trip to the disk's threads for several
    /// pieces of the network's.
    pub const IN_MEMORY: usize = 256 << 10;

    /// The spool of a data directory; its folder is made, and emptied of what has no business there.
    ///
    /// Errors: the folder cannot be made or written to.
    pub fn open(data_dir: &Path) -> Result<Arc<Spool>, StoreError> {
        let folder = data_dir.join(FOLDER);
        let failed = |what: &'static str| {
            let path = folder.clone();
            move |source| StoreError::Io { what, path, source }
        };
        fs::create_dir_all(&folder).map_err(failed("create"))?;
        // On file systems that cannot make nameless files, one may have kept its name at a crash.
        for entry in fs::read_dir(&folder).map_err(failed("read"))?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
        tempfile::tempfile_in(&folder).map_err(failed("write to"))?;
        Ok(Arc::new(Spool {
            folder,
            used: AtomicU64::new(0),
        }))
    }

    /// How many bytes are kept.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A new body, empty.
    ///
    /// Errors: no file can be made.
    pub async fn begin(self: &Arc<Self>) -> Result<Spooled, SpoolError> {
        let folder = self.folder.clone();
        let file = blocking(move || tempfile::tempfile_in(folder)).await;
        Ok(Spooled {
            file: Arc::new(file.map_err(|source| self.io(source))?),
            spool: self.clone(),
            length: 0,
            written: 0,
            pending: BytesMut::new(),
        })
    }

    /// A finished body in a file of any making.
    #[cfg(test)]
    pub(super) fn holding(self: &Arc<Self>, file: File, length: u64) -> Spooled {
        self.used.fetch_add(length, Ordering::Relaxed);
        Spooled {
            spool: self.clone(),
            file: Arc::new(file),
            length,
            written: length,
            pending: BytesMut::new(),
        }
    }

    fn io(&self, source: io::Error) -> SpoolError {
        SpoolError::Io {
            folder: self.folder.clone(),
            source,
        }
    }
}

// === impl Spooled ===

impl Spooled {
    /// How long it is.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where it lies, when it is finished.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Adds to its end. `quota` bounds the bytes of all bodies together.
    ///
    /// Errors: the quota or the disk is full.
    pub async fn append(&mut self, bytes: &[u8], quota: u64) -> Result<(), SpoolError> {
        let more = bytes.len() as u64;
        if self.spool.used.fetch_add(more, Ordering::Relaxed) + more > quota {
            self.spool.used.fetch_sub(more, Ordering::Relaxed);
            return Err(SpoolError::Full);
        }
        self.length += more;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= Spool::IN_MEMORY {
            self.write().await?;
        }
        Ok(())
    }

    /// Nothing more comes: all of it can be read from here on.
    ///
    /// Errors: the disk is full.
    pub async fn finish(mut self) -> Result<Arc<Spooled>, SpoolError> {
        self.write().await?;
        self.pending = BytesMut::new();
        Ok(Arc::new(self))
    }

    /// Reads at most `most` bytes from `offset`; none at the end. Dropping the future loses nothing.
    pub async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let file = self.file.clone();
        let left = self.written.saturating_sub(offset);
        let length = usize::try_from(left).map_or(most, |left| left.min(most));
        blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        })
        .await
    }

    async fn write(&mut self) -> Result<(), SpoolError> {
        let (file, at) = (self.file.clone(), self.written);
        let pending = std::mem::take(&mut self.pending);
        let length = pending.len() as u64;
        let mut pending = blocking(move || file.write_all_at(&pending, at).map(|()| pending))
            .await
            .map_err(|source| self.spool.io(source))?;
        self.written += length;
        pending.clear();
        self.pending = pending;
        Ok(())
    }
}

#[async_trait]
impl Stored for Spooled {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        Spooled::read(self, offset, most).await
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime is going down.
        Err(error) => Err(io::Error::new(ErrorKind::Interrupted, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_comes_back_as_it_went_in() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let body: Vec<u8> = (0..700_001u32).map(|n| (n % 251) as u8).collect();
        let mut spooled = spool.begin().await.unwrap();
        for piece in body.chunks(33_333) {
            spooled.append(piece, u64::MAX).await.unwrap();
        }
        let spooled = spooled.finish().await.unwrap();
        assert_eq!((spooled.length(), spool.used()), (700_001, 700_001));
        for _ in 0..2 {
            let mut back = Vec::new();
            loop {
                let piece = spooled.read(back.len() as u64, 65_536).await.unwrap();
                if piece.is_empty() {
                    break;
                }
                back.extend_from_slice(&piece);
            }
            assert!(back == body);
        }
        drop(spooled);
        assert_eq!(spool.used(), 0, "its space is given back");
    }

    #[tokio::test]
    async fn the_quota_is_of_all_bodies_together() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let (mut one, mut two) = (spool.begin().await.unwrap(), spool.begin().await.unwrap());
        one.append(&[1; 600], 1000).await.unwrap();
        assert!(matches!(
            two.append(&[2; 600], 1000).await,
            Err(SpoolError::Full)
        ));
        two.append(&[2; 400], 1000).await.unwrap();
        drop(one);
        two.append(&[2; 600], 1000).await.unwrap();
        assert_eq!(spool.used(), 1000);
    }

    #[test]
    fn nothing_is_left_of_a_gateway_that_crashed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FOLDER)).unwrap();
        let left = dir.path().join(FOLDER).join(".tmpAbc");
        fs::write(&left, b"half a body").unwrap();
        Spool::open(dir.path()).unwrap();
        assert!(!left.exists());
    }
}
