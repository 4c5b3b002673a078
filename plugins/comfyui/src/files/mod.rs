//! What a service of ComfyUI's keeps in files, where the gateway answers for it: uploads, results, previews, what users keep.
//!
//! A folder is laid out as ComfyUI lays out its own (`input/ output/ temp/ user/`), so that whoever looks into it finds plain
//! files. What is answered, and to what, is ComfyUI's to the status and the text; where the newest server is more careful than
//! earlier ones (files that a browser would execute are saved instead), it is done as the newest does.
//!
//! - A file is written as a draft, outside these folders, and takes its name when all of it is on disk: nobody ever sees half
//!   of one, and no name is given to two.
//! - However long a file is, it is never in memory: it comes in pieces ([`Content`](tabane_api::Content)), and is given as
//!   parts of what lies on disk. Pictures that are looked into are the exception; together they have a bound.
//! - No path that a client names leads out of its folder. Links that an operator laid within it are followed.
//! - Disk work is done on threads that may wait.

mod answer;
mod disk;
mod draft;
mod form;
mod given;
mod kept;
mod listing;
mod mask;
mod names;
mod old;
mod paths;
mod picture;
mod place;
mod query;
mod reply;
mod serve;
mod settings;
mod types;
mod upload;
mod userdata;
mod users;
mod view;

pub use kept::Kept;
pub use old::Removed;
pub use place::{Placed, Unplaced};
pub use reply::{Answer, cached};
pub use types::content_type;
pub use upload::Upload;
pub use users::{DEFAULT_USER, User};

use disk::Disk;
use http::StatusCode;
use picture::Room;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tabane_api::Refusal;
use tokio::task::spawn_blocking;

/// How much a server takes in one request unless its operator says otherwise (`--max-upload-size`), in bytes.
pub const MOST_UPLOAD: u64 = 100 << 20;

/// The files of one service. A clone is a handle to the same.
#[derive(Clone)]
pub struct Files {
    disk: Arc<Disk>,
    room: Arc<Room>,
    most_upload: u64,
}

// === impl Files ===

impl Files {
    /// Those in a folder. What is missing of its layout is made, and drafts that nobody finishes any more are removed.
    ///
    /// One process at a time may have a folder open; within it, any number of times.
    ///
    /// Errors: a folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Files> {
        Ok(Files {
            disk: Arc::new(Disk::open(folder.into())?),
            room: Arc::new(Room::new()),
            most_upload: MOST_UPLOAD,
        })
    }

    /// The same, which takes so many bytes in one request.
    pub fn with_most_upload(self, bytes: u64) -> Files {
        Files {
            most_upload: bytes,
            ..self
        }
    }

    /// Does disk work where waiting harms nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> T + Send + 'static,
    ) -> io::Result<T> {
        let disk = self.disk.clone();
        blocking(move || Ok(work(&disk))).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime is going down, or the work panicked.
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What is told of a disk that does not do its work.
fn failed(what: &str, error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Refusal::StoreFull(format!("no room on disk to {what}"))
        }
        _ => Refusal::Internal(format!("cannot {what}: {error}")),
    }
}

/// Whether it is a name that cannot be, rather than a disk that cannot do it.
fn is_of_its_name(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        InvalidInput
            | InvalidFilename
            | NotFound
            | NotADirectory
            | IsADirectory
            | AlreadyExists
            | DirectoryNotEmpty
    )
}

/// The answer where a file cannot be kept: a name that cannot be is what ComfyUI stumbles over.
fn not_kept(what: &str, error: io::Error, names: StatusCode) -> Answer {
    match is_of_its_name(&error) {
        true if names == StatusCode::INTERNAL_SERVER_ERROR => Ok(reply::broken()),
        true => Ok(reply::empty(names)),
        false => Err(failed(what, error)),
    }
}
