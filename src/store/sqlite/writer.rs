//! One thread writes, and makes many changes durable at the price of one.
//!
//! It takes all commands that wait, up to a bound, and runs them in one transaction, each in a savepoint of its own: one that
//! fails, or panics, leaves no trace and disturbs no other. They are answered when the one commit for all of them is on
//! disk. The longer a commit takes, the more commands the next one is for.

use super::StoreError;
use super::change::Change;
use super::failure::{FailedCommit, again};
use crate::store::{BlobStore, Letters};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use tokio::sync::{mpsc, oneshot};

/// How many commands may wait; who comes then waits to hand its own in.
const WAITING: usize = 1024;
/// How many share a commit at most, so that the first of them is not kept waiting by the others' work.
const TOGETHER: usize = 256;
/// How many names of blobs wait to be deleted before the writer waits for that.
const FREED: usize = 1024;

/// The way to the thread that writes. Dropped, it returns when all that was handed in is written.
pub(super) struct Writer {
    /// First, so that the threads see its end before they are waited for.
    commands: mpsc::Sender<Box<dyn Command>>,
    limit: Arc<AtomicU64>,
    _threads: [Joined; 2],
}

/// What is written, and who asked for it. It may run more than once; only what its last run did stays.
trait Command: Send {
    fn run(&mut self, change: &Change<'_>) -> Result<(), StoreError>;
    /// The blobs that are nobody's if it fails.
    fn brought(&self) -> &[Arc<str>];
    /// What became of it; `None`: it is on disk.
    fn answer(self: Box<Self>, failed: Option<StoreError>);
}

struct Asked<T, W> {
    what: &'static str,
    work: W,
    brought: Vec<Arc<str>>,
    done: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

/// The thread's own.
struct Writing {
    database: Connection,
    letters: Arc<dyn Letters>,
    freed: SyncSender<Arc<str>>,
    limit: Arc<AtomicU64>,
    /// The limit that the database knows of.
    known_limit: u64,
    /// Why nothing is written any more.
    distrust: Option<String>,
}

/// A thread that is waited for.
struct Joined(Mutex<Option<JoinHandle<()>>>);

// === impl Writer ===

impl Writer {
    /// Starts the thread that writes, and one that deletes blobs which no row names any more.
    ///
    /// Errors: the system gives no thread.
    pub fn start(
        database: Connection,
        letters: Arc<dyn Letters>,
        blobs: Arc<dyn BlobStore>,
        database_bytes: u64,
    ) -> Result<Writer, StoreError> {
        let (commands, queue) = mpsc::channel(WAITING);
        let (freed, names) = sync_channel(FREED);
        let limit = Arc::new(AtomicU64::new(database_bytes));
        let mut writing = Writing {
            database,
            letters,
            freed,
            limit: limit.clone(),
            known_limit: 0,
            distrust: None,
        };
        writing.set_limit()?;
        let cannot = |error| StoreError::Unusable(format!("cannot start its threads: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot)?;
        let cleaner = thread::Builder::new()
            .name("store-blobs".into())
            .spawn(move || delete(&names, &*blobs, &runtime))
            .map_err(cannot)?;
        let writer = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writing.run(queue))
            .map_err(cannot)?;
        Ok(Writer {
            commands,
            limit,
            // The writer first: its end is the cleaner's.
            _threads: [writer, cleaner].map(|thread| Joined(Mutex::new(Some(thread)))),
        })
    }

    /// Has something written. `work` is run within a transaction, perhaps more than once.
    ///
    /// `brought` are the blobs that the work gives to rows: they are deleted if it fails.
    pub async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        brought: Vec<Arc<str>>,
        work: impl Fn(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let command = Box::new(Asked {
            what,
            work,
            brought,
            done: None,
            answer,
        });
        let ended = || StoreError::Unusable(format!("cannot {what}: its thread has ended"));
        self.commands.send(command).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// How large the database may be from now on.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }
}

// === impl Asked ===

impl<T: Send, W: Fn(&Change<'_>) -> Result<T, StoreError> + Send> Command for Asked<T, W> {
    fn run(&mut self, change: &Change<'_>) -> Result<(), StoreError> {
        self.done = Some((self.work)(change)?);
        Ok(())
    }

    fn brought(&self) -> &[Arc<str>] {
        &self.brought
    }

    fn answer(self: Box<Self>, failed: Option<StoreError>) {
        let outcome = match (failed, self.done) {
            (None, Some(done)) => Ok(done),
            (Some(StoreError::Unusable(why)), _) => {
                Err(StoreError::Unusable(format!("cannot {}: {why}", self.what)))
            }
            (Some(error), _) => Err(error),
            (None, None) => Err(StoreError::Unusable(format!(
                "cannot {}: it was not run",
                self.what
            ))),
        };
        // Who asked may have gone.
        let _ = self.answer.send(outcome);
    }
}

// === impl Writing ===

type Commands = Vec<Box<dyn Command>>;

impl Writing {
    fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Command>>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < TOGETHER
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            if let Err(error) = self.set_limit() {
                self.fail(batch, &error);
                continue;
            }
            if let Err(batch) = self.write(batch) {
                // A full disk, or an error of it, undoes the whole transaction. One by one, each meets its own fate, and
                // the work is bounded.
                for command in batch {
                    if let Err(batch) = self.write(vec![command]) {
                        let error = StoreError::Unusable("its transaction was lost".into());
                        self.fail(batch, &error);
                    }
                }
            }
        }
    }

    /// Writes and answers. Gives back commands whose common transaction was lost, nothing of them being done or answered.
    fn write(&mut self, mut batch: Commands) -> Result<(), Commands> {
        if let Some(why) = &self.distrust {
            let error = StoreError::Unusable(why.clone());
            self.fail(batch, &error);
            return Ok(());
        }
        if let Err(error) = self.database.execute_batch("BEGIN IMMEDIATE") {
            self.fail(batch, &error.into());
            return Ok(());
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for command in &mut batch {
            outcomes.push(self.attempt(command.as_mut()));
            if self.database.is_autocommit() {
                break;
            }
        }
        if self.database.is_autocommit() {
            return match outcomes.pop() {
                Some(Err(error)) if batch.len() == 1 => {
                    self.fail(batch, &error);
                    Ok(())
                }
                _ => Err(batch),
            };
        }
        if let Err(error) = self.database.execute_batch("COMMIT") {
            // Fails when the commit has undone everything itself.
            let _ = self.database.execute_batch("ROLLBACK");
            let failed = FailedCommit::of(error);
            self.distrust = failed.distrust;
            if failed.undone {
                self.fail(batch, &failed.error);
            } else {
                // A restart may find the rows after all, so their blobs stay.
                for command in batch {
                    command.answer(Some(again(&failed.error)));
                }
            }
            return Ok(());
        }
        for (command, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Ok(freed) => {
                    command.answer(None);
                    self.free(freed);
                }
                Err(error) => self.fail(vec![command], &error),
            }
        }
        Ok(())
    }

    /// Runs one in its savepoint; the blobs that are nobody's after it.
    fn attempt(&self, command: &mut dyn Command) -> Result<Vec<Arc<str>>, StoreError> {
        self.database.execute_batch("SAVEPOINT command")?;
        let change = Change::new(&self.database, &*self.letters, self.known_limit);
        let ran = catch_unwind(AssertUnwindSafe(|| command.run(&change))).unwrap_or_else(|_| {
            Err(StoreError::Unusable(
                "it panicked; nothing of it was kept".into(),
            ))
        });
        let outcome = ran.and_then(|()| Ok(self.database.execute_batch("RELEASE command")?));
        if outcome.is_err()
            && !self.database.is_autocommit()
            && self
                .database
                .execute_batch("ROLLBACK TO command; RELEASE command")
                .is_err()
        {
            // What cannot be undone alone is undone with everything else.
            let _ = self.database.execute_batch("ROLLBACK");
        }
        outcome.map(|()| change.freed())
    }

    fn fail(&self, batch: Commands, error: &StoreError) {
        for command in batch {
            let brought = command.brought().to_vec();
            command.answer(Some(again(error)));
            self.free(brought);
        }
    }

    fn free(&self, blobs: Vec<Arc<str>>) {
        for name in blobs {
            // The other thread ends after this one.
            let _ = self.freed.send(name);
        }
    }

    fn set_limit(&mut self) -> Result<(), StoreError> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit != self.known_limit {
            let page: u64 = self
                .database
                .query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?
                .unsigned_abs();
            let pages = (limit / page.max(1)).clamp(1, u32::MAX.into());
            self.database
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            self.known_limit = limit;
        }
        Ok(())
    }
}

fn delete(names: &Receiver<Arc<str>>, blobs: &dyn BlobStore, runtime: &tokio::runtime::Runtime) {
    for name in names {
        if let Err(error) = runtime.block_on(blobs.delete(&name)) {
            tracing::warn!(blob = %name, %error, "a body that no job needs any more stays until the next start");
        }
    }
}

// === impl Joined ===

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.get_mut().take() {
            // It has caught what could panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ArrayRecord, BlobFiles, JobRecord, Letter};

    struct Quiet;

    impl Letters for Quiet {
        fn of_job(&self, _: &JobRecord) -> Vec<Letter> {
            Vec::new()
        }

        fn of_array(&self, _: &ArrayRecord) -> Vec<Letter> {
            Vec::new()
        }
    }

    fn writer(dir: &std::path::Path) -> Writer {
        let database = Connection::open(dir.join("any")).unwrap();
        let tables = "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY);
            CREATE TABLE b (a REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)";
        database.execute_batch(tables).unwrap();
        let blobs = BlobFiles::open(dir, u64::MAX).unwrap();
        Writer::start(database, Arc::new(Quiet), blobs, 1 << 30).unwrap()
    }

    async fn put(writer: &Writer, table: &'static str, value: i64) -> Result<(), StoreError> {
        let work = move |change: &Change<'_>| {
            let sql = format!("INSERT INTO {table} VALUES (?1)");
            change.database.execute(&sql, [value])?;
            Ok(())
        };
        writer.ask("put a value", Vec::new(), work).await
    }

    fn count(dir: &std::path::Path) -> i64 {
        let database = Connection::open(dir.join("any")).unwrap();
        let sql = "SELECT COUNT(*) FROM a";
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Keeps the thread busy until it is told to go on, so that what comes meanwhile is one batch.
    async fn together<T>(writer: &Writer, batch: impl Future<Output = T>) -> T {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let begun = Arc::new(tokio::sync::Notify::new());
        let begins = begun.clone();
        let busy = writer.ask("wait", Vec::new(), move |_| {
            begins.notify_one();
            let _ = wait.lock().recv();
            Ok(())
        });
        let batch = async {
            let mut batch = std::pin::pin!(batch);
            begun.notified().await;
            // Everything is handed in before the thread goes on.
            let handed_in = futures::poll!(&mut batch);
            drop(go);
            match handed_in {
                std::task::Poll::Ready(done) => done,
                std::task::Poll::Pending => batch.await,
            }
        };
        let (busy, done) = tokio::join!(busy, batch);
        busy.unwrap();
        done
    }

    #[tokio::test]
    async fn one_that_fails_disturbs_no_other_of_its_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        put(&writer, "a", 1).await.unwrap();
        let batch = async {
            tokio::join!(
                put(&writer, "a", 2),
                put(&writer, "a", 1),
                put(&writer, "a", 3)
            )
        };
        let (second, again, third) = together(&writer, batch).await;
        second.unwrap();
        third.unwrap();
        let error = again.unwrap_err().to_string();
        assert!(error.contains("cannot put a value"), "{error}");
        assert_eq!(count(dir.path()), 3);
    }

    #[tokio::test]
    async fn a_commit_that_fails_fails_all_that_wait_for_it_and_the_next_works() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let batch = async {
            tokio::join!(
                put(&writer, "a", 1),
                put(&writer, "b", 7),
                put(&writer, "a", 2)
            )
        };
        let (first, broken, second) = together(&writer, batch).await;
        for refused in [first, broken, second] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("FOREIGN KEY"), "{error}");
        }
        assert_eq!(count(dir.path()), 0);
        put(&writer, "a", 1).await.unwrap();
        assert_eq!(count(dir.path()), 1);
    }

    #[tokio::test]
    async fn what_was_handed_in_is_written_before_the_writer_goes() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        // Handed in, and nobody waits for it any more.
        for n in 0..100 {
            assert!(futures::poll!(std::pin::pin!(put(&writer, "a", n))).is_pending());
        }
        drop(writer);
        assert_eq!(count(dir.path()), 100);
    }
}
