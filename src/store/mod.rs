//! What is kept on disk, in `data_dir`.

mod beside;
mod blob;
mod files;
mod job;
mod marks;
mod place;
mod spool;
mod sqlite;

pub use beside::{LearnedTime, StoreGauge, UsageRow};
pub use blob::{BlobRef, BlobStore, BlobWriter};
pub use files::BlobFiles;
pub use job::{
    Accepted, ArrayAccepted, ArrayRecord, AttemptRecord, Changed, Delivery, Ended, Filter, IN_ROW,
    Idempotency, JobEvent, JobId, JobRecord, JobStore, Kept, Letter, LetterRecord, Letters, Moment,
    NewArray, NewJob, Next, Patch, ResultHead, StoredRequest,
};
pub use marks::Marks;
pub use spool::{Spool, SpoolError, Spooled};
pub use sqlite::SqliteStore;

use std::io;
use std::path::PathBuf;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk said no.
    #[error("cannot {what} `{path}`: {source}; check that the gateway may write to its `data_dir`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The file is not ours, or damaged.
    #[error("cannot read `{path}`: {why}; move it away to start without what it holds")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer tabane wrote it.
    #[error(
        "`{path}` has version {found}, this tabane knows {known}; use a newer tabane, or move it away"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest one we know.
        known: u32,
    },
    /// There is no more room: the quota, `max_page_count` or the disk is full. Nothing was kept.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store cannot be trusted, or does not answer.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}
