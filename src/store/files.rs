//! Long bodies as files, in `data_dir/blobs`.
//!
//! One that comes is written in `blobs/new`. When all of it is on disk it gets its name, `blobs/ab/ab…`: a name is only ever
//! that of a whole body. What lies in `new` when the gateway starts was cut off by its end.

use super::blob::{BlobRef, BlobStore, BlobWriter, copy};
use super::spool::{Spool, Spooled};
use super::{StoreError, place};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tabane_api::Stored;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

const FOLDER: &str = "blobs";
const NEW: &str = "new";
const LOCK: &str = "lock";
/// The first characters of a name are its folder's, so that no folder holds too many.
const SHARD: usize = 2;
/// How long a name is.
const NAME: usize = 32;

/// Long bodies as files.
pub struct BlobFiles {
    files: Arc<Files>,
}

/// What the disk's threads share.
struct Files {
    folder: PathBuf,
    /// What names of this process hold, behind their folder's characters: the others are older.
    run: String,
    used: AtomicU64,
    quota: AtomicU64,
    _lock: File,
}

/// So many bytes of the quota, until they are a body's.
struct Reserved {
    files: Arc<Files>,
    bytes: u64,
}

/// What the disk's threads work on.
struct Writing {
    file: NamedTempFile,
    hash: Sha256,
}

struct FileWriter {
    reserved: Reserved,
    /// `None`: a write failed, or was given up.
    writing: Option<Writing>,
    pending: BytesMut,
}

struct StoredFile {
    file: Arc<File>,
    length: u64,
}

// === impl BlobFiles ===

impl BlobFiles {
    /// The bodies of a data directory; the folder is made if it is not there.
    ///
    /// Units: `quota` bounds the bytes of all bodies together.
    /// Errors: the folder cannot be used, or another gateway uses it.
    pub fn open(data_dir: &Path, quota: u64) -> Result<Arc<BlobFiles>, StoreError> {
        let folder = data_dir.join(FOLDER);
        let lock = place::take(&folder, LOCK)?;
        let new = folder.join(NEW);
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("empty", &new)(error));
            }
            _ => {}
        }
        fs::create_dir(&new).map_err(io_error("create", &new))?;
        let mut used = 0;
        walk(&folder, |file| {
            used += file.metadata()?.len();
            Ok(())
        })
        .map_err(io_error("count the bytes of", &folder))?;
        let files = Arc::new(Files {
            folder,
            run: format!("{:08x}", rand::random::<u32>()),
            used: AtomicU64::new(used),
            quota: AtomicU64::new(quota),
            _lock: lock,
        });
        Ok(Arc::new(BlobFiles { files }))
    }
}

#[async_trait]
impl BlobStore for BlobFiles {
    async fn begin(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        let files = self.files.clone();
        let writing = blocking(move || files.begin_now()).await?;
        Ok(Box::new(FileWriter {
            reserved: Reserved::of(&self.files),
            writing: Some(writing),
            pending: BytesMut::new(),
        }))
    }

    async fn adopt(&self, spooled: &Spooled) -> Result<BlobRef, StoreError> {
        let mut reserved = Reserved::of(&self.files);
        reserved.more(spooled.length())?;
        let (file, length) = (spooled.file().clone(), spooled.length());
        let adopted = blocking(move || {
            let blob = reserved.files.adopt_now(&file, length)?;
            if blob.is_some() {
                reserved.spent();
            }
            Ok(blob)
        });
        match adopted.await? {
            Some(blob) => Ok(blob),
            None => copy(self, spooled).await,
        }
    }

    async fn open(&self, blob: &BlobRef) -> Result<Arc<dyn Stored>, StoreError> {
        let length = blob.length;
        let Some(path) = self.files.path(&blob.name) else {
            let name = &blob.name;
            return Err(StoreError::Unusable(format!("no body is called `{name}`")));
        };
        let file = blocking(move || {
            let file = File::open(&path).map_err(|error| failed("read", &path, error))?;
            let found = file
                .metadata()
                .map_err(|error| failed("examine", &path, error))?
                .len();
            if found != length {
                return Err(StoreError::Unusable(format!(
                    "`{}` has {found} bytes, and had {length} when it was kept; its body is lost",
                    path.display()
                )));
            }
            Ok(file)
        })
        .await?;
        Ok(Arc::new(StoredFile {
            file: Arc::new(file),
            length,
        }))
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let Some(path) = self.files.path(name) else {
            return Ok(());
        };
        let files = self.files.clone();
        blocking(move || files.delete_now(&path)).await
    }

    async fn older(&self) -> Result<Vec<String>, StoreError> {
        let files = self.files.clone();
        blocking(move || {
            let mut names = Vec::new();
            walk(&files.folder, |file| {
                let name = file.file_name().to_string_lossy().into_owned();
                if files.path(&name).is_some() && !name[SHARD..].starts_with(&files.run) {
                    names.push(name);
                }
                Ok(())
            })
            .map_err(|error| failed("list", &files.folder, error))?;
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    fn used(&self) -> u64 {
        self.files.used.load(Ordering::Relaxed)
    }

    fn set_quota(&self, bytes: u64) {
        self.files.quota.store(bytes, Ordering::Relaxed);
    }
}

// === impl Files ===

impl Files {
    fn new_name(&self) -> String {
        let shard = rand::random::<u8>();
        let rest = rand::random::<u128>() & ((1 << 88) - 1);
        format!("{shard:02x}{}{rest:022x}", self.run)
    }

    /// Where the body of a name lies; `None`: no body has such a name.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let known = name.len() == NAME && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        known.then(|| self.folder.join(&name[..SHARD]).join(name))
    }

    /// The path of a new name, in a folder that is on disk.
    fn place(&self, name: &str) -> Result<PathBuf, StoreError> {
        let shard = self.folder.join(&name[..SHARD]);
        match fs::create_dir(&shard) {
            Ok(()) => sync_folder(&self.folder)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", &shard, error)),
        }
        Ok(shard.join(name))
    }

    fn begin_now(&self) -> Result<Writing, StoreError> {
        let new = self.folder.join(NEW);
        let file = NamedTempFile::new_in(&new).map_err(|error| failed("write to", &new, error))?;
        Ok(Writing {
            file,
            hash: Sha256::new(),
        })
    }

    /// Gives a body its name, so that both are on disk.
    fn finish_now(&self, writing: Writing, length: u64) -> Result<BlobRef, StoreError> {
        let name = self.new_name();
        let path = self.place(&name)?;
        let file = writing.file;
        file.as_file()
            .sync_all()
            .map_err(|error| failed("make durable", &path, error))?;
        file.persist_noclobber(&path)
            .map_err(|error| failed("name", &path, error.error))?;
        self.named(&path)?;
        Ok(BlobRef {
            name: name.into(),
            length,
            sha256: writing.hash.finalize().into(),
        })
    }

    /// A nameless file of the spool gets a name: not a byte is copied. `None`: this system cannot.
    #[cfg(target_os = "linux")]
    fn adopt_now(&self, file: &File, length: u64) -> Result<Option<BlobRef>, StoreError> {
        use rustix::fs::{AtFlags, CWD, linkat};
        use std::os::fd::AsRawFd;
        let name = self.new_name();
        let path = self.place(&name)?;
        let sha256 = hash(file, length).map_err(|error| failed("read for", &path, error))?;
        file.sync_all()
            .map_err(|error| failed("make durable", &path, error))?;
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        if linkat(CWD, nameless, CWD, &path, AtFlags::SYMLINK_FOLLOW).is_err() {
            return Ok(None);
        }
        self.named(&path)?;
        Ok(Some(BlobRef {
            name: name.into(),
            length,
            sha256,
        }))
    }

    #[cfg(not(target_os = "linux"))]
    fn adopt_now(&self, _: &File, _: u64) -> Result<Option<BlobRef>, StoreError> {
        Ok(None)
    }

    /// A name is on disk with its folder, or is taken back.
    fn named(&self, path: &Path) -> Result<(), StoreError> {
        let synced = sync_folder(path.parent().unwrap_or(&self.folder));
        if synced.is_err() {
            let _ = fs::remove_file(path);
        }
        synced
    }

    fn delete_now(&self, path: &Path) -> Result<(), StoreError> {
        let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(failed("examine", path, error)),
        };
        match fs::remove_file(path) {
            Ok(()) => {
                self.used.fetch_sub(length, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if gone(&error) => Ok(()),
            Err(error) => Err(failed("delete", path, error)),
        }
    }
}

// === impl FileWriter ===

#[async_trait]
impl BlobWriter for FileWriter {
    async fn append(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.reserved.more(bytes.len() as u64)?;
        self.pending.extend_from_slice(&bytes);
        if self.pending.len() >= Spool::IN_MEMORY {
            self.write().await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<BlobRef, StoreError> {
        self.write().await?;
        let writing = self.writing.take().ok_or_else(broken)?;
        let mut reserved = self.reserved;
        // Whoever waits for it may leave: what is counted is what has a name.
        blocking(move || {
            let blob = reserved.files.finish_now(writing, reserved.bytes)?;
            reserved.spent();
            Ok(blob)
        })
        .await
    }
}

impl FileWriter {
    async fn write(&mut self) -> Result<(), StoreError> {
        let mut writing = self.writing.take().ok_or_else(broken)?;
        let pending = std::mem::take(&mut self.pending);
        let (writing, mut pending) = blocking(move || {
            let written = writing.write(&pending);
            written.map_err(|error| failed("write", writing.file.path(), error))?;
            Ok((writing, pending))
        })
        .await?;
        self.writing = Some(writing);
        pending.clear();
        self.pending = pending;
        Ok(())
    }
}

fn broken() -> StoreError {
    StoreError::Unusable("the body was not written to its end".into())
}

impl Writing {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hash.update(piece);
        self.file.as_file_mut().write_all(piece)
    }
}

// === impl Reserved ===

impl Reserved {
    fn of(files: &Arc<Files>) -> Reserved {
        Reserved {
            files: files.clone(),
            bytes: 0,
        }
    }

    fn more(&mut self, bytes: u64) -> Result<(), StoreError> {
        let quota = self.files.quota.load(Ordering::Relaxed);
        let used = self.files.used.fetch_add(bytes, Ordering::Relaxed);
        if used.saturating_add(bytes) > quota {
            self.files.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(StoreError::Full(format!(
                "{used} bytes of bodies are kept, and {quota} may be"
            )));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// They are a body's now.
    fn spent(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.files.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// === impl StoredFile ===

#[async_trait]
impl Stored for StoredFile {
    fn length(&self) -> u64 {
        self.length
    }

    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let file = self.file.clone();
        let left = self.length.saturating_sub(offset);
        let length = usize::try_from(left).map_or(most, |left| left.min(most));
        let read = spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        });
        read.await
            .unwrap_or_else(|error| Err(io::Error::new(ErrorKind::Interrupted, error)))
    }
}

// === files ===

/// All files with names of bodies' folders.
fn walk(folder: &Path, mut each: impl FnMut(&fs::DirEntry) -> io::Result<()>) -> io::Result<()> {
    for shard in fs::read_dir(folder)? {
        let shard = shard?;
        if shard.file_name() == NEW || !shard.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(shard.path())? {
            each(&file?)?;
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn hash(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; Spool::IN_MEMORY];
    let mut at = 0;
    while at < length {
        let left = usize::try_from(length - at).unwrap_or(usize::MAX);
        let piece = buffer.len().min(left);
        file.read_exact_at(&mut buffer[..piece], at)?;
        hash.update(&buffer[..piece]);
        at += piece as u64;
    }
    Ok(hash.finalize().into())
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failed("make durable", folder, error))
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StoreError::Full(format!("cannot {what} `{}`: {error}", path.display()))
        }
        _ => io_error(what, path)(error),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        what,
        path: path.clone(),
        source,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(StoreError::Unusable(format!(
            "the disk's work was broken off: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    async fn kept(files: &Arc<BlobFiles>, body: &[u8]) -> Result<BlobRef, StoreError> {
        let mut writer = files.begin().await?;
        for piece in body.chunks(33_333) {
            writer.append(Bytes::copy_from_slice(piece)).await?;
        }
        writer.finish().await
    }

    async fn read(stored: &dyn Stored) -> Vec<u8> {
        let mut back = Vec::new();
        loop {
            let piece = stored.read(back.len() as u64, 65_536).await.unwrap();
            if piece.is_empty() {
                return back;
            }
            back.extend_from_slice(&piece);
        }
    }

    /// The files in `new` and the named ones.
    fn files_in(dir: &Path) -> (usize, usize) {
        let mut named = 0;
        walk(&dir.join(FOLDER), |_| {
            named += 1;
            Ok(())
        })
        .unwrap();
        let new = fs::read_dir(dir.join(FOLDER).join(NEW)).unwrap().count();
        (new, named)
    }

    #[tokio::test]
    async fn a_body_comes_back_as_it_went_in_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let body = bytes(700_001);
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let blob = kept(&files, &body).await.unwrap();
        let empty = kept(&files, b"").await.unwrap();
        assert_eq!(blob.sha256, <[u8; 32]>::from(Sha256::digest(&body)));
        assert_eq!((blob.length, files.used()), (700_001, 700_001));
        assert!(read(&*files.open(&blob).await.unwrap()).await == body);
        assert!(read(&*files.open(&empty).await.unwrap()).await.is_empty());
        drop(files);
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        assert_eq!(files.used(), 700_001, "what is there is counted");
        assert!(read(&*files.open(&blob).await.unwrap()).await == body);
    }

    #[tokio::test]
    async fn a_body_that_is_deleted_can_be_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let blob = kept(&files, &bytes(300_000)).await.unwrap();
        let reading = files.open(&blob).await.unwrap();
        files.delete(&blob.name).await.unwrap();
        files.delete(&blob.name).await.unwrap();
        files.delete("../../etc/passwd").await.unwrap();
        assert_eq!(files.used(), 0, "its space is given back, once");
        assert!(read(&*reading).await == bytes(300_000));
        assert!(files.open(&blob).await.is_err());
    }

    #[tokio::test]
    async fn the_quota_is_of_all_bodies_together_and_what_is_given_up_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlobFiles::open(dir.path(), 1000).unwrap();
        let mut one = files.begin().await.unwrap();
        one.append(bytes(600).into()).await.unwrap();
        let refused = kept(&files, &bytes(600)).await;
        assert!(matches!(refused, Err(StoreError::Full(_))));
        assert_eq!(files.used(), 600);
        drop(one);
        assert_eq!((files.used(), files_in(dir.path())), (0, (0, 0)));
        kept(&files, &bytes(600)).await.unwrap();
        files.set_quota(1200);
        kept(&files, &bytes(600)).await.unwrap();
        assert_eq!((files.used(), files_in(dir.path())), (1200, (0, 2)));
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_not_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let blob = kept(&files, &bytes(1000)).await.unwrap();
        fs::write(files.files.path(&blob.name).unwrap(), "short").unwrap();
        let refused = files.open(&blob).await.err().unwrap().to_string();
        assert!(refused.contains("has 5 bytes, and had 1000"), "{refused}");
    }

    #[tokio::test]
    async fn what_a_crash_cut_off_is_gone_and_what_it_left_whole_is_older() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let old = kept(&files, &bytes(10)).await.unwrap();
        assert!(files.older().await.unwrap().is_empty());
        fs::write(dir.path().join("blobs/new/half"), "ha").unwrap();
        drop(files);
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        kept(&files, &bytes(20)).await.unwrap();
        assert_eq!(files.older().await.unwrap(), [old.name.to_string()]);
        assert_eq!((files.used(), files_in(dir.path())), (30, (0, 2)));
    }

    #[tokio::test]
    async fn a_second_gateway_is_kept_out_and_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let mut writer = files.begin().await.unwrap();
        writer.append(bytes(300_000).into()).await.unwrap();
        let refused = BlobFiles::open(dir.path(), u64::MAX).err().unwrap();
        assert!(refused.to_string().contains("another gateway"), "{refused}");
        writer.finish().await.unwrap();
    }

    #[tokio::test]
    async fn a_spooled_body_is_taken_over_without_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, files) = (
            Spool::open(dir.path()).unwrap(),
            BlobFiles::open(dir.path(), 1_000_000).unwrap(),
        );
        let body = bytes(700_001);
        let mut spooled = spool.begin().await.unwrap();
        spooled.append(&body, u64::MAX).await.unwrap();
        let spooled = spooled.finish().await.unwrap();
        let blob = files.adopt(&spooled).await.unwrap();
        assert_eq!(blob.sha256, <[u8; 32]>::from(Sha256::digest(&body)));
        assert_eq!((blob.length, files.used()), (700_001, 700_001));
        {
            use std::os::unix::fs::MetadataExt;
            let named = fs::metadata(files.files.path(&blob.name).unwrap()).unwrap();
            let nameless = spooled.file().metadata().unwrap();
            assert_eq!(named.ino(), nameless.ino());
        }
        let refused = files.adopt(&spooled).await;
        assert!(matches!(refused, Err(StoreError::Full(_))));
        assert_eq!(files.used(), 700_001);
        drop(spooled);
        assert!(read(&*files.open(&blob).await.unwrap()).await == body);
    }

    #[tokio::test]
    async fn a_spooled_body_that_cannot_be_named_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        // A file that had a name once cannot get another when it is deleted.
        let path = dir.path().join("named");
        let body = bytes(600_000);
        fs::write(&path, &body).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let files = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        assert!(files.files.adopt_now(&file, 600_000).unwrap().is_none());
        let spooled = Spool::open(dir.path()).unwrap().holding(file, 600_000);
        let blob = files.adopt(&spooled).await.unwrap();
        assert_eq!(blob.sha256, <[u8; 32]>::from(Sha256::digest(&body)));
        assert!(read(&*files.open(&blob).await.unwrap()).await == body);
    }
}
