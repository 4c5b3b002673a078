//! Jobs in SQLite: one file in `data_dir`, one thread that writes, a few connections that read.
//!
//! A change is answered when the transaction that it is part of is on disk (write-ahead log, `synchronous = FULL`).

mod arrays;
mod attempts;
mod change;
mod database;
mod failure;
mod jobs;
mod letters;
mod list;
mod orders;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod usage;
mod values;
mod writer;

use super::{
    Accepted, ArrayAccepted, ArrayRecord, AttemptRecord, BlobStore, Changed, Delivery, Ended,
    Filter, JobEvent, JobRecord, JobStore, Kept, LearnedTime, LetterRecord, Letters, Moment,
    NewArray, NewJob, Patch, StoreError, StoreGauge, StoredRequest, UsageRow,
};
use async_trait::async_trait;
use bytes::Bytes;
use database::Database;
use reader::Readers;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use tabane_api::JobState;
use writer::Writer;

/// Jobs in SQLite. When the last handle is dropped, what was handed in is written before the drop returns.
pub struct SqliteStore {
    // In this order: what is written last is written before another gateway may have the folder.
    writer: Writer,
    readers: Arc<Readers>,
    database: Database,
}

impl SqliteStore {
    /// Opens the store of a data directory, or makes it if there is none.
    ///
    /// A blob that a row named is deleted from `blobs` when the row's deletion is on disk. One that is given to a call is
    /// the store's from then on: it is deleted if the call leaves no row that names it.
    ///
    /// Units: `database_bytes` is how large the database may become; its last eighth is for jobs that are accepted already.
    /// Errors: the store cannot be trusted, or is another gateway's; it is left as it is.
    pub fn open(
        dir: &Path,
        letters: Arc<dyn Letters>,
        blobs: Arc<dyn BlobStore>,
        database_bytes: u64,
    ) -> Result<Arc<SqliteStore>, StoreError> {
        let (database, connection) = Database::open(dir)?;
        let readers = (0..reader::AT_ONCE).map(|_| database.reader());
        let readers = Readers::new(readers.collect::<Result<_, _>>()?);
        let writer = Writer::start(connection, letters, blobs, database_bytes)?;
        Ok(Arc::new(SqliteStore {
            writer,
            readers,
            database,
        }))
    }

    /// What was learned of times, read beside a gateway that may be using the store. Empty where there is none.
    ///
    /// Errors: it is not a store of this gateway's, or cannot be read.
    pub fn look_at_times(dir: &Path) -> Result<Vec<LearnedTime>, StoreError> {
        match Database::look(dir)? {
            Some(connection) => values::learned(&connection),
            None => Ok(Vec::new()),
        }
    }

    /// How large the database may be from now on. One that is larger already shrinks only as its space is used again.
    pub fn set_limits(&self, database_bytes: u64) {
        self.writer.set_limit(database_bytes);
    }
}

fn now_is(job: JobRecord) -> Result<Changed, StoreError> {
    Ok(Changed::Now(Box::new(job)))
}

fn blob_names<'a>(bodies: impl IntoIterator<Item = &'a Kept>) -> Vec<Arc<str>> {
    let blobs = bodies.into_iter().filter_map(rows::blob_of);
    blobs.map(|blob| blob.name.clone()).collect()
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn accept(&self, job: NewJob) -> Result<Accepted, StoreError> {
        let brought = blob_names([&job.body]);
        let file = self.database.identity();
        self.writer
            .ask("accept a job", brought, move |change| {
                file.check()?;
                jobs::accept(change, &job)
            })
            .await
    }

    async fn repeated_array(&self, array: &NewArray) -> Result<Option<ArrayAccepted>, StoreError> {
        // Its jobs are not looked at.
        let array = NewArray {
            jobs: Vec::new(),
            ..array.clone()
        };
        let known = move |database: &Connection| arrays::again(database, &array);
        self.readers.ask("look for a repeat", known).await
    }

    async fn accept_array(&self, array: NewArray) -> Result<ArrayAccepted, StoreError> {
        let brought = blob_names(array.jobs.iter().map(|job| &job.body));
        let file = self.database.identity();
        self.writer
            .ask("accept an array", brought, move |change| {
                file.check()?;
                arrays::accept(change, &array)
            })
            .await
    }

    async fn start(&self, job: &str, endpoint: &str, now: Moment) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        let endpoint = endpoint.to_owned();
        self.writer
            .ask("start an attempt", Vec::new(), move |change| {
                attempts::start(change, &job, &endpoint, now)
            })
            .await
    }

    async fn submitting(&self, job: &str, attempt: u32) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("note a submission", Vec::new(), move |change| {
                attempts::submitting(change, &job, attempt)
            })
            .await
    }

    async fn handle(
        &self,
        job: &str,
        attempt: u32,
        handle: &str,
        now: Moment,
    ) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        let handle = handle.to_owned();
        self.writer
            .ask("keep a handle", Vec::new(), move |change| {
                attempts::handle(change, &job, attempt, &handle, now)
            })
            .await
    }

    async fn running(&self, job: &str, attempt: u32, now: Moment) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("note that a job runs", Vec::new(), move |change| {
                attempts::running(change, &job, attempt, now)
            })
            .await
    }

    async fn progress(
        &self,
        job: &str,
        attempt: u32,
        fraction: Option<f64>,
        text: Option<String>,
        log: Vec<String>,
        now: Moment,
    ) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("keep progress", Vec::new(), move |change| {
                attempts::progress(
                    change,
                    &job,
                    attempt,
                    (fraction, text.as_deref()),
                    &log,
                    now,
                )
            })
            .await
    }

    async fn end(
        &self,
        job: &str,
        attempt: u32,
        ended: Ended,
        now: Moment,
    ) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        // A result that could not be written down is tried again: its body stays.
        self.writer
            .ask("end an attempt", Vec::new(), move |change| {
                attempts::end(change, &job, attempt, &ended, now)
            })
            .await
    }

    async fn cancel(&self, job: &str, now: Moment) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("cancel a job", Vec::new(), move |change| {
                orders::cancel(change, &job, now)
            })
            .await
    }

    async fn give_up(&self, job: &str, why: &str, now: Moment) -> Result<Changed, StoreError> {
        let (job, why) = (job.to_owned(), why.to_owned());
        self.writer
            .ask("give a job up", Vec::new(), move |change| {
                orders::give_up(change, &job, &why, now)
            })
            .await
    }

    async fn retry(&self, job: &str, now: Moment) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("retry a job", Vec::new(), move |change| {
                orders::retry(change, &job, now)
            })
            .await
    }

    async fn patch(&self, job: &str, patch: Patch, now: Moment) -> Result<Changed, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("change a job", Vec::new(), move |change| {
                orders::patch(change, &job, patch, now)
            })
            .await
    }

    async fn delete(&self, job: &str) -> Result<bool, StoreError> {
        let job = job.to_owned();
        self.writer
            .ask("delete a job", Vec::new(), move |change| {
                orders::delete(change, &job)
            })
            .await
    }

    async fn repeated(&self, job: &NewJob) -> Result<Option<Accepted>, StoreError> {
        let job = job.clone();
        let known = move |database: &Connection| jobs::again(database, &job);
        self.readers.ask("look for a repeat", known).await
    }

    async fn find(&self, tenant: Option<&str>, id: &str) -> Result<Option<JobRecord>, StoreError> {
        let tenant = tenant.map(str::to_owned);
        let id = id.to_owned();
        self.readers
            .ask("find a job", move |database| {
                jobs::find(database, tenant.as_deref(), &id)
            })
            .await
    }

    async fn request(&self, job: &str) -> Result<Option<StoredRequest>, StoreError> {
        let job = job.to_owned();
        self.readers
            .ask("read a request", move |database| {
                jobs::request(database, &job)
            })
            .await
    }

    async fn result(&self, job: &str) -> Result<Option<Kept>, StoreError> {
        let job = job.to_owned();
        self.readers
            .ask("read a result", move |database| {
                jobs::result(database, &job)
            })
            .await
    }

    async fn attempts(&self, job: &str) -> Result<Vec<AttemptRecord>, StoreError> {
        let job = job.to_owned();
        self.readers
            .ask("read attempts", move |database| {
                jobs::attempts(database, &job)
            })
            .await
    }

    async fn events(
        &self,
        job: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<JobEvent>, StoreError> {
        let job = job.to_owned();
        self.readers
            .ask("read events", move |database| {
                jobs::events(database, &job, after, limit)
            })
            .await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<JobRecord>, StoreError> {
        self.readers
            .ask("list jobs", move |database| list::list(database, &filter))
            .await
    }

    async fn unfinished(&self, after: i64, limit: usize) -> Result<Vec<JobRecord>, StoreError> {
        self.readers
            .ask("read what is unfinished", move |database| {
                jobs::unfinished(database, after, limit)
            })
            .await
    }

    async fn census(&self) -> Result<Vec<(String, String, String, JobState, u64)>, StoreError> {
        self.readers.ask("count jobs", jobs::census).await
    }

    async fn array(&self, id: &str) -> Result<Option<ArrayRecord>, StoreError> {
        let id = id.to_owned();
        self.readers
            .ask("find an array", move |database| arrays::find(database, &id))
            .await
    }

    async fn delete_array(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.writer
            .ask("delete an array", Vec::new(), move |change| {
                arrays::delete(change, &id)
            })
            .await
    }

    async fn expire(&self, now: Moment, limit: usize) -> Result<Vec<JobRecord>, StoreError> {
        self.writer
            .ask("expire jobs", Vec::new(), move |change| {
                orders::expire(change, now, limit)
            })
            .await
    }

    async fn sweep(&self, now: Moment, limit: usize) -> Result<usize, StoreError> {
        self.writer
            .ask("delete old jobs", Vec::new(), move |change| {
                orders::sweep(change, now, limit)
            })
            .await
    }

    async fn due_letters(
        &self,
        now: Moment,
        limit: usize,
    ) -> Result<Vec<LetterRecord>, StoreError> {
        self.readers
            .ask("read what is due", move |database| {
                letters::due(database, now, limit)
            })
            .await
    }

    async fn delivery(
        &self,
        letter: &str,
        outcome: Delivery,
        now: Moment,
    ) -> Result<(), StoreError> {
        let letter = letter.to_owned();
        self.writer
            .ask("note a delivery", Vec::new(), move |change| {
                letters::delivery(change.database, &letter, &outcome, now)
            })
            .await
    }

    async fn letters(&self, about: &str) -> Result<Vec<LetterRecord>, StoreError> {
        let about = about.to_owned();
        self.readers
            .ask("read letters", move |database| {
                letters::about(database, &about)
            })
            .await
    }

    async fn replay(&self, letter: &str, now: Moment) -> Result<bool, StoreError> {
        let letter = letter.to_owned();
        self.writer
            .ask("replay a letter", Vec::new(), move |change| {
                letters::replay(change.database, &letter, now)
            })
            .await
    }

    async fn give_up_letters(&self, url: &str, why: &str) -> Result<usize, StoreError> {
        let url = url.to_owned();
        let why = why.to_owned();
        self.writer
            .ask("give letters up", Vec::new(), move |change| {
                letters::give_up(change.database, &url, &why)
            })
            .await
    }

    async fn value(&self, space: &str, key: &str) -> Result<Option<Bytes>, StoreError> {
        let space = space.to_owned();
        let key = key.to_owned();
        self.readers
            .ask("read a value", move |database| {
                values::value(database, &space, &key)
            })
            .await
    }

    async fn put_value(
        &self,
        space: &str,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let space = space.to_owned();
        let key = key.to_owned();
        self.writer
            .ask("keep a value", Vec::new(), move |change| match &value {
                Some(value) => values::put(change, &space, &key, value),
                None => values::forget(change.database, &space, &key),
            })
            .await
    }

    async fn values(
        &self,
        space: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let space = space.to_owned();
        let prefix = prefix.to_owned();
        self.readers
            .ask("read values", move |database| {
                values::values(database, &space, &prefix, limit)
            })
            .await
    }

    async fn learned(&self) -> Result<Vec<LearnedTime>, StoreError> {
        self.readers
            .ask("read learned times", move |database| {
                values::learned(database)
            })
            .await
    }

    async fn learn(&self, times: Vec<LearnedTime>) -> Result<(), StoreError> {
        self.writer
            .ask("keep learned times", Vec::new(), move |change| {
                values::learn(change.database, &times)
            })
            .await
    }

    async fn add_usage(&self, rows: Vec<UsageRow>) -> Result<(), StoreError> {
        self.writer
            .ask("keep what was used", Vec::new(), move |change| {
                usage::add(change.database, &rows)
            })
            .await
    }

    async fn usage(&self, from: String, to: String) -> Result<Vec<UsageRow>, StoreError> {
        self.readers
            .ask("read what was used", move |database| {
                usage::read(database, &from, &to)
            })
            .await
    }

    async fn orphans(&self, blobs: Vec<String>) -> Result<Vec<String>, StoreError> {
        self.readers
            .ask("look for orphans", move |database| {
                values::orphans(database, blobs)
            })
            .await
    }

    async fn gauge(&self) -> Result<StoreGauge, StoreError> {
        self.readers.ask("measure itself", values::gauge).await
    }
}
