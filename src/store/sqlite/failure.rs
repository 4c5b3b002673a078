//! What an error of SQLite's means for who asked.

use super::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

/// A commit that failed.
pub(super) struct FailedCommit {
    /// What those who waited for it are told.
    pub error: StoreError,
    /// Whether a restart surely finds nothing of it.
    pub undone: bool,
    /// Why nothing may be written after it.
    pub distrust: Option<String>,
}

impl FailedCommit {
    /// Reads off the error what can be relied upon.
    pub fn of(error: Error) -> FailedCommit {
        let code = error
            .sqlite_error()
            .map_or(0, |failure| failure.extended_code);
        // A disk that could not make a page durable may have dropped it, and would say yes the next time.
        let unsynced = matches!(code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC);
        FailedCommit {
            distrust: unsynced.then(|| {
                format!("the disk could not make a change durable ({error}); see to the disk, then restart the gateway")
            }),
            undone: code & 0xff != ffi::SQLITE_IOERR,
            error: error.into(),
        }
    }
}

/// The same error, for the next who waits.
pub(super) fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(why) => StoreError::Full(why.clone()),
        StoreError::Unusable(why) => StoreError::Unusable(why.clone()),
        other => StoreError::Unusable(other.to_string()),
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full(
                "the database is as large as `limits.database_bytes` lets it be, or its disk is full"
                    .into(),
            ),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Unusable(format!(
                    "its database is damaged ({error}); stop the gateway and restore it from a backup"
                ))
            }
            _ => StoreError::Unusable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32) -> FailedCommit {
        FailedCommit::of(Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn a_disk_that_failed_to_sync_is_not_believed_again() {
        assert!(of(ffi::SQLITE_IOERR_FSYNC).distrust.is_some());
        assert!(of(ffi::SQLITE_IOERR_WRITE).distrust.is_none());
        assert!(of(ffi::SQLITE_FULL).distrust.is_none());
    }

    #[test]
    fn a_commit_that_the_disk_broke_may_be_found_by_a_restart() {
        assert!(!of(ffi::SQLITE_IOERR_FSYNC).undone);
        assert!(!of(ffi::SQLITE_IOERR_WRITE).undone);
        assert!(of(ffi::SQLITE_FULL).undone);
        assert!(of(ffi::SQLITE_CONSTRAINT_FOREIGNKEY).undone);
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_one() {
        assert!(matches!(of(ffi::SQLITE_FULL).error, StoreError::Full(_)));
        assert!(matches!(
            of(ffi::SQLITE_IOERR_WRITE).error,
            StoreError::Unusable(_)
        ));
    }
}
