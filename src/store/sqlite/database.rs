//! The database's file: made once, whole, and from then on never replaced. One that cannot be trusted is refused and left as
//! it is.

use super::StoreError;
use super::schema::{APPLICATION_ID, STEPS, migrate};
use crate::store::place::{take, writable};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in `data_dir`. Beside it lie `jobs.sqlite-wal` and `-shm`, which are part of it.
const FILE: &str = "jobs.sqlite";
/// Whose lock keeps a second gateway out.
const LOCK: &str = "jobs.lock";
/// How long a connection waits for another's lock. Nobody but a backup should hold one.
const BUSY: Duration = Duration::from_secs(5);
/// The log is cut back to so many bytes when it was longer for a while.
const LOG_BYTES: i64 = 64 << 20;
/// The tables that say what is to be done. Bodies and events are the bulk of a database, and are checked as they are read:
/// so a start does not take longer the more is kept, only the more jobs there are.
const CHECKED: [&str; 5] = ["jobs", "arrays", "attempts", "letters", "tags"];

/// A database that can be trusted.
pub(super) struct Database {
    path: PathBuf,
    /// Which file it is, for as long as it has its name.
    file: Identity,
    /// Held as long as it is in use.
    _lock: File,
}

/// A file by what the system calls it: what is written to one whose name is gone is gone with the process.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

// === impl Identity ===

impl Identity {
    fn of(path: &Path) -> Result<Identity, StoreError> {
        let known = fs::metadata(path).map_err(io_error("examine", path))?;
        Ok(Identity {
            path: path.to_owned(),
            device: known.dev(),
            inode: known.ino(),
        })
    }

    /// Whether the file still stands where it was opened.
    ///
    /// Errors: it was removed or replaced; nothing new may be promised.
    pub fn check(&self) -> Result<(), StoreError> {
        let now = fs::metadata(&self.path);
        let same = now.is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode));
        match same {
            true => Ok(()),
            false => Err(StoreError::Unusable(format!(
                "`{}` was removed or replaced while it was open; put it back, or restart the gateway",
                self.path.display()
            ))),
        }
    }
}

// === impl Database ===

impl Database {
    /// Opens the database of a data directory, brings it to its present form, and checks it; makes one if no file is there.
    ///
    /// Errors: see [`StoreError`]. A database that is refused stays as it is.
    pub fn open(dir: &Path) -> Result<(Database, Connection), StoreError> {
        let lock = take(dir, LOCK)?;
        let path = dir.join(FILE);
        if !path.try_exists().map_err(io_error("examine", &path))? {
            create(dir, &path)?;
        }
        writable(&path)?;
        let mut connection = connect(&path, &path)?;
        examine(&connection, &path)?;
        migrate(&mut connection, &path, STEPS)?;
        check(&connection, &path)?;
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Unusable(format!(
                "the file system of `{}` cannot keep a write-ahead log; give the gateway a `data_dir` on a local disk",
                path.display()
            )));
        }
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        let database = Database {
            file: Identity::of(&path)?,
            path,
            _lock: lock,
        };
        Ok((database, connection))
    }

    /// A connection that only reads, beside a gateway that may be using it. `None`: there is no database.
    ///
    /// Errors: it is not ours, or cannot be opened.
    pub fn look(dir: &Path) -> Result<Option<Connection>, StoreError> {
        let path = dir.join(FILE);
        if !path.try_exists().map_err(io_error("examine", &path))? {
            return Ok(None);
        }
        let connection = connect(&path, &path)?;
        connection.pragma_update(None, "query_only", true)?;
        let application: i32 = connection
            .query_row("PRAGMA application_id", [], |row| row.get(0))
            .map_err(|error| damaged(&path, error.to_string()))?;
        match application == APPLICATION_ID {
            true => Ok(Some(connection)),
            false => Err(damaged(
                &path,
                "it is not a database of this gateway's".into(),
            )),
        }
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.file.clone()
    }

    /// A connection that only reads.
    pub fn reader(&self) -> Result<Connection, StoreError> {
        let connection = connect(&self.path, &self.path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}

/// Makes a database beside its place and moves it there when all of it is on disk: a file of its name is always whole, so
/// that an empty one is damage and not a beginning.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let log = path.with_extension("sqlite-wal");
    if log.try_exists().map_err(io_error("examine", &log))? {
        return Err(StoreError::Unusable(format!(
            "`{}` is there without its database `{}`; bring the database back, or move the other away to start without jobs",
            log.display(),
            path.display()
        )));
    }
    let new = path.with_extension("sqlite-new");
    // Left by a crash before it was moved.
    for left in [&new, &path.with_extension("sqlite-new-journal")] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", left)(error));
            }
            _ => {}
        }
    }
    File::create_new(&new).map_err(io_error("create", &new))?;
    let mut connection = connect(&new, path)?;
    migrate(&mut connection, &new, STEPS)?;
    drop(connection);
    File::open(&new)
        .and_then(|file| file.sync_all())
        .map_err(io_error("make durable", &new))?;
    fs::rename(&new, path).map_err(io_error("replace", path))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("make durable", dir))
}

fn connect(file: &Path, path: &Path) -> Result<Connection, StoreError> {
    // Never one that SQLite makes by itself.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cannot = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            damaged(path, error.to_string())
        }
        _ => StoreError::Unusable(format!(
            "its database `{}` cannot be opened: {error}",
            path.display()
        )),
    };
    let connection = Connection::open_with_flags(file, flags).map_err(cannot)?;
    connection.busy_timeout(BUSY).map_err(cannot)?;
    // Each command's statements, and each query's, are compiled once.
    connection.set_prepared_statement_cache_capacity(128);
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(cannot)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(cannot)?;
    Ok(connection)
}

/// Whether the file is ours, before anything of it is changed.
fn examine(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let application: i32 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|error| damaged(path, error.to_string()))?;
    if application != APPLICATION_ID {
        return Err(damaged(
            path,
            "it is not a database of this gateway's".into(),
        ));
    }
    if connection.is_readonly("main")? {
        return Err(StoreError::Unusable(format!(
            "`{}` is read-only; let the gateway write to it, or give it another `data_dir`",
            path.display()
        )));
    }
    Ok(())
}

fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    for table in CHECKED {
        let sql = format!("PRAGMA quick_check({table})");
        let said: Result<String, _> = connection.query_row(&sql, [], |row| row.get(0));
        let said = said.unwrap_or_else(|error| error.to_string());
        if said != "ok" {
            return Err(damaged(path, format!("table `{table}` is damaged: {said}")));
        }
    }
    Ok(())
}

fn damaged(path: &Path, why: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why,
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
