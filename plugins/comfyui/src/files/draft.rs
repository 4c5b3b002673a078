//! Files on their way in: written under no name that anybody asks for, whole on disk before they get one.

use super::disk::{Disk, make_folder, sync_folder};
use super::{Files, blocking};
use bytes::BytesMut;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tabane_api::Content;
use tempfile::NamedTempFile;

/// How much is in memory of a file that comes: one trip to the disk's threads for several pieces of the network's.
const IN_MEMORY: usize = 256 << 10;

/// What a draft is called that has to lie among other files, because its folder is on another disk.
const PREFIX: &str = ".draft-";

/// A file that comes. Dropped, it is gone.
pub(super) struct Draft {
    /// `None` while a thread writes it, and after that failed.
    writing: Option<Writing>,
    pending: BytesMut,
}

struct Writing {
    file: NamedTempFile,
    length: u64,
    hash: Sha256,
}

/// A file that is all here, and has no name yet. Dropped, it is gone.
pub(super) struct Whole {
    file: NamedTempFile,
    mark: Mark,
}

/// What two files share if they have the same bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) length: u64,
    pub(super) sha256: [u8; 32],
}

/// Why a file did not get its name.
pub(super) enum NotNamed {
    /// Something else has it.
    Taken(Whole),
    Disk(io::Error),
}

// === impl Draft ===

impl Draft {
    pub(super) async fn begin(files: &Files) -> io::Result<Draft> {
        let file = files.blocking(|disk| new_in(&disk.drafts(), "")).await??;
        Ok(Draft {
            writing: Some(Writing {
                file,
                length: 0,
                hash: Sha256::new(),
            }),
            pending: BytesMut::new(),
        })
    }

    /// All of a body.
    pub(super) async fn of(files: &Files, body: &Content) -> io::Result<Whole> {
        let mut draft = Draft::begin(files).await?;
        let mut offset = 0;
        loop {
            let piece = body.read(offset, IN_MEMORY).await?;
            if piece.is_empty() {
                return draft.finish().await;
            }
            offset += piece.len() as u64;
            draft.add(&piece).await?;
        }
    }

    pub(super) async fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(piece);
        if self.pending.len() >= IN_MEMORY {
            self.write().await?;
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> io::Result<Whole> {
        self.write().await?;
        let writing = self.writing.ok_or_else(given_up)?;
        Ok(Whole {
            file: writing.file,
            mark: Mark {
                length: writing.length,
                sha256: writing.hash.finalize().into(),
            },
        })
    }

    async fn write(&mut self) -> io::Result<()> {
        let mut writing = self.writing.take().ok_or_else(given_up)?;
        let mut pending = std::mem::take(&mut self.pending);
        let (writing, pending) = blocking(move || {
            writing.file.as_file_mut().write_all(&pending)?;
            writing.hash.update(&pending);
            writing.length += pending.len() as u64;
            pending.clear();
            Ok((writing, pending))
        })
        .await?;
        self.writing = Some(writing);
        self.pending = pending;
        Ok(())
    }
}

fn given_up() -> io::Error {
    io::Error::other("it was given up before")
}

// === impl Whole ===

impl Whole {
    /// One that is written at once. Waits for the disk.
    pub(super) fn written(
        disk: &Disk,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Whole> {
        let mut file = new_in(&disk.drafts(), "")?;
        let mut buffered = io::BufWriter::new(file.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.rewind()?;
        let mark = Mark::of(file.as_file_mut())?;
        Ok(Whole { file, mark })
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Where its bytes can be read.
    pub(super) fn reopen(&self) -> io::Result<File> {
        self.file.reopen()
    }

    /// Takes a name that nothing has, in a folder that is made if need be. Waits for the disk.
    pub(super) fn take_name(self, disk: &Disk, path: &Path) -> Result<(), NotNamed> {
        self.name(disk, path, |file, path| file.persist_noclobber(path))
    }

    /// Takes a name, whatever has it. Waits for the disk.
    pub(super) fn replace(self, disk: &Disk, path: &Path) -> io::Result<()> {
        let named = self.name(disk, path, |file, path| file.persist(path));
        named.map_err(|why| match why {
            NotNamed::Taken(_) => io::ErrorKind::AlreadyExists.into(),
            NotNamed::Disk(error) => error,
        })
    }

    fn name(
        self,
        disk: &Disk,
        path: &Path,
        persist: impl Fn(NamedTempFile, &Path) -> Result<File, tempfile::PersistError>,
    ) -> Result<(), NotNamed> {
        // Not before the bytes are on disk: after a power loss there is a whole file of this name, or none.
        self.file.as_file().sync_all().map_err(NotNamed::Disk)?;
        let folder = path.parent().unwrap_or(path);
        let one_at_a_time = disk.names.lock();
        // Here, because an empty folder that is old may be removed at any moment.
        make_folder(folder).map_err(NotNamed::Disk)?;
        let named = persist(self.file, path);
        drop(one_at_a_time);
        let Err(error) = named else {
            return sync_folder(folder).map_err(NotNamed::Disk);
        };
        let (file, mark) = (error.file, self.mark);
        let whole = Whole { file, mark };
        match error.error.kind() {
            io::ErrorKind::AlreadyExists => Err(NotNamed::Taken(whole)),
            io::ErrorKind::CrossesDevices => {
                let beside = whole.copied(folder).map_err(NotNamed::Disk)?;
                beside.name(disk, path, persist)
            }
            _ => Err(NotNamed::Disk(error.error)),
        }
    }

    /// The same on the disk that a folder is on.
    fn copied(&self, folder: &Path) -> io::Result<Whole> {
        let mut copy = new_in(folder, PREFIX)?;
        io::copy(&mut self.reopen()?, copy.as_file_mut())?;
        let mark = self.mark;
        Ok(Whole { file: copy, mark })
    }
}

/// Whether a file of this name is none yet.
pub(super) fn is_draft(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Writes a small file as a whole. Waits for the disk.
pub(super) fn write(disk: &Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    Whole::written(disk, |out| out.write_all(bytes))?.replace(disk, path)
}

fn new_in(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(prefix)
        // As any file is made: what more is to be forbidden is for the process's umask to say.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

// === impl Mark ===

impl Mark {
    /// Whether a file has these bytes. Waits for the disk.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        let is_as_long = |meta: fs::Metadata| meta.is_file() && meta.len() == self.length;
        fs::metadata(path).is_ok_and(is_as_long)
            && File::open(path)
                .and_then(|mut file| Mark::of(&mut file))
                .is_ok_and(|mark| mark == *self)
    }

    fn of(file: &mut File) -> io::Result<Mark> {
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut piece = vec![0; 64 << 10];
        loop {
            match file.read(&mut piece)? {
                0 => {
                    let sha256 = hash.finalize().into();
                    return Ok(Mark { length, sha256 });
                }
                read => {
                    hash.update(&piece[..read]);
                    length += read as u64;
                }
            }
        }
    }
}
