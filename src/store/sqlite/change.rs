//! What a command changes, and what belongs to each change of a job: its version, its event, its letters.

use super::rows::{self, Held};
use super::{StoreError, arrays, letters};
use crate::store::{JobRecord, Letter, Letters, Moment};
use rusqlite::{Connection, params};
use serde_json::Value;
use std::cell::RefCell;
use std::sync::Arc;

/// A command's view of the database, within its transaction.
pub(super) struct Change<'a> {
    /// The connection.
    pub database: &'a Connection,
    letters: &'a dyn Letters,
    limit: u64,
    freed: RefCell<Vec<Arc<str>>>,
}

impl<'a> Change<'a> {
    /// Nothing changed yet.
    pub fn new(database: &'a Connection, letters: &'a dyn Letters, limit: u64) -> Self {
        Change {
            database,
            letters,
            limit,
            freed: RefCell::default(),
        }
    }

    /// A blob that no row names any more, once this is on disk.
    pub fn free(&self, blob: Arc<str>) {
        self.freed.borrow_mut().push(blob);
    }

    /// The blobs that no row names any more.
    pub fn freed(self) -> Vec<Arc<str>> {
        self.freed.into_inner()
    }

    /// Whether so many bytes more can be taken in. The last eighth of the database is for what was accepted before: its
    /// attempts, results and letters.
    ///
    /// Errors: [`StoreError::Full`].
    pub fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let used = used(self.database)?;
        if used.saturating_add(bytes) > self.limit / 8 * 7 {
            return Err(StoreError::Full(format!(
                "{used} of `limits.database_bytes` ({}) are in use; the last eighth is kept for jobs that are accepted already",
                self.limit
            )));
        }
        Ok(())
    }

    /// Writes a job's change, with all that belongs to one. If it is over, so may be its array.
    pub fn made(
        &self,
        mut held: Held,
        now: Moment,
        kind: &str,
        data: &Value,
    ) -> Result<JobRecord, StoreError> {
        let over = held.record.state.is_over();
        let parent = held.record.parent.clone().map(|(array, _)| array);
        let last = match &parent {
            Some(array) if over => !arrays::has_unfinished(self.database, array, held.record.seq)?,
            _ => false,
        };
        if over {
            held.record.ended = Some(now);
            held.record.keep_until = (parent.is_none() || last).then(|| held.kept_until(now));
        }
        let mut job = held.record;
        job.version += 1;
        rows::save(self.database, &job)?;
        self.tell(&job, now, kind, data)?;
        if let Some(array) = parent.filter(|_| last) {
            arrays::over(self, &array, now)?;
        }
        Ok(job)
    }

    /// Writes the event and the letters of a version.
    pub fn tell(
        &self,
        job: &JobRecord,
        now: Moment,
        kind: &str,
        data: &Value,
    ) -> Result<(), StoreError> {
        let mut statement = self.database.prepare_cached(
            "INSERT INTO events (job, version, at, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute(params![
            job.seq,
            job.version as i64,
            now,
            kind,
            data.to_string()
        ])?;
        self.post(self.letters.of_job(job), now)
    }

    /// Writes the letters about an array's end.
    pub fn tell_of_array(
        &self,
        array: &crate::store::ArrayRecord,
        now: Moment,
    ) -> Result<(), StoreError> {
        self.post(self.letters.of_array(array), now)
    }

    fn post(&self, letters: Vec<Letter>, now: Moment) -> Result<(), StoreError> {
        for letter in letters {
            letters::write(self.database, &letter, now)?;
        }
        Ok(())
    }
}

/// How many bytes of the database are in use.
pub(super) fn used(database: &Connection) -> Result<u64, StoreError> {
    let ask = |pragma: &str| -> Result<i64, StoreError> {
        let mut statement = database.prepare_cached(pragma)?;
        Ok(statement.query_row([], |row| row.get(0))?)
    };
    let pages = ask("PRAGMA page_count")? - ask("PRAGMA freelist_count")?;
    Ok(pages.unsigned_abs() * ask("PRAGMA page_size")?.unsigned_abs())
}

impl Held {
    /// Until when it is kept if its time begins now.
    pub fn kept_until(&self, now: Moment) -> Moment {
        let keep = match self.record.state {
            tabane_api::JobState::Dead => self.keep_dead_ms,
            _ => self.keep_ms,
        };
        Moment(now.0.saturating_add(keep))
    }
}
