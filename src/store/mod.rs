//! What is kept on disk, in `data_dir`.

mod marks;
mod spool;

pub use marks::Marks;
pub use spool::{Spool, SpoolError, Spooled};

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
    #[error("cannot read `{path}`: {why}; move it away to start without drain marks")]
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
}
