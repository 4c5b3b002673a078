//! How an attempt tells what goes on: durably where it must, seldom where it need not.

use super::{Jobs, Progress, Running};
use crate::store::{Changed, JobId, Moment, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tabane_api::{Report, Superseded};
use tokio::sync::watch;

/// Progress and log lines are written so often at most: they are told at once, and only their last word has to last.
const SELDOM_MS: i64 = 5_000;

/// A line of a log is cut here, in bytes.
const LONGEST_LINE: usize = 8 << 10;

/// So much of an attempt's log is kept, in bytes: the store is for jobs.
const LOG_MOST: usize = 1 << 20;

/// Of a backend that logs faster than it is written, so many lines are kept between two writes; the oldest go.
const LINES: usize = 1_000;

/// The reports of one attempt.
pub struct Reporter {
    jobs: Jobs,
    job: JobId,
    attempt: u32,
    running: Arc<Running>,
    /// What the backend calls it, once it has taken it: then it outlives this process.
    handle: OnceLock<Arc<str>>,
    /// Whether its node is done with it.
    freed: watch::Sender<bool>,
    /// Whether how long it takes says nothing of others.
    untypical: AtomicBool,
    /// How long its log is.
    logged: AtomicUsize,
    unwritten: Mutex<Unwritten>,
}

#[derive(Default)]
struct Unwritten {
    progress: Option<Progress>,
    lines: VecDeque<String>,
    written: Moment,
}

// === impl Reporter ===

impl Reporter {
    /// Reports of this attempt; `handle`: it was taken up again by this.
    pub fn new(
        jobs: Jobs,
        job: JobId,
        running: Arc<Running>,
        handle: Option<Arc<str>>,
    ) -> Arc<Self> {
        Arc::new(Reporter {
            attempt: running.attempt(),
            unwritten: Mutex::new(Unwritten {
                written: jobs.now(),
                ..Unwritten::default()
            }),
            freed: watch::Sender::new(false),
            untypical: AtomicBool::new(false),
            logged: AtomicUsize::new(0),
            jobs,
            job,
            running,
            handle: handle.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    /// Whether the backend has taken the work and can be asked for it again.
    pub fn is_handed_over(&self) -> bool {
        self.handle.get().is_some()
    }

    /// What the backend calls it.
    pub fn handle(&self) -> Option<Arc<str>> {
        self.handle.get().cloned()
    }

    /// Waits until its node is done with it, though it is not over; for ever when the two are one.
    pub async fn freed(&self) {
        let mut freed = self.freed.subscribe();
        if freed.wait_for(|freed| *freed).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether its node is done with it.
    pub fn is_freed(&self) -> bool {
        *self.freed.borrow()
    }

    /// Whether how long it takes says nothing of others.
    pub fn is_untypical(&self) -> bool {
        self.untypical.load(Ordering::Relaxed)
    }

    /// Writes what was reported and not written yet.
    pub async fn flush(&self) {
        let unwritten = self.take();
        write(&self.jobs, &self.job, self.attempt, unwritten).await;
    }

    fn later(&self, add: impl FnOnce(&mut Unwritten)) {
        let due = {
            let mut unwritten = self.unwritten.lock();
            add(&mut unwritten);
            self.jobs.now().0 - unwritten.written.0 >= SELDOM_MS
        };
        if due {
            // The kind does not wait for the disk.
            let (jobs, job, attempt) = (self.jobs.clone(), self.job.clone(), self.attempt);
            let unwritten = self.take();
            tokio::spawn(async move { write(&jobs, &job, attempt, unwritten).await });
        }
    }

    fn take(&self) -> Unwritten {
        let written = self.jobs.now();
        let next = Unwritten {
            written,
            ..Unwritten::default()
        };
        std::mem::replace(&mut *self.unwritten.lock(), next)
    }

    fn durable(&self, changed: Result<Changed, StoreError>) -> Result<(), Superseded> {
        match changed {
            Ok(Changed::Now(_)) => Ok(()),
            Ok(Changed::Stale) => Err(Superseded),
            Err(error) => {
                // What is not on disk was not reported; going on could lead to the work being done twice.
                tracing::error!(job = %self.job, %error, "an attempt cannot report; it is ended");
                Err(Superseded)
            }
        }
    }
}

#[async_trait]
impl Report for Reporter {
    async fn submitting(&self) -> Result<(), Superseded> {
        let changed = self.jobs.store().submitting(&self.job, self.attempt).await;
        self.durable(changed)
    }

    async fn handle(&self, handle: &str) -> Result<(), Superseded> {
        let (store, now) = (self.jobs.store(), self.jobs.now());
        let changed = store.handle(&self.job, self.attempt, handle, now).await;
        let changed = self.jobs.told(changed);
        self.durable(changed)?;
        let _ = self.handle.set(handle.into());
        Ok(())
    }

    fn progress(&self, fraction: Option<f64>, text: Option<&str>) {
        let fraction = fraction
            .filter(|fraction| fraction.is_finite())
            .map(|fraction| fraction.clamp(0.0, 1.0));
        let progress = Progress {
            fraction,
            text: text.map(|text| cut(text).into()),
        };
        self.running.progress(progress.clone());
        self.later(|unwritten| unwritten.progress = Some(progress));
    }

    fn log(&self, line: &str) {
        let mut line = cut(line);
        self.running.log(line);
        let before = self.logged.fetch_add(line.len() + 1, Ordering::Relaxed);
        if before > LOG_MOST {
            return;
        }
        if before + line.len() + 1 > LOG_MOST {
            line = "(the rest of the log is not kept)";
        }
        self.later(|unwritten| {
            if unwritten.lines.len() >= LINES {
                unwritten.lines.pop_front();
            }
            unwritten.lines.push_back(line.to_owned());
        });
    }

    fn untypical(&self) {
        self.untypical.store(true, Ordering::Relaxed);
    }

    fn freed(&self) {
        self.freed.send_replace(true);
    }

    async fn called_back(&self) -> Request<Bytes> {
        self.running.called_back().await
    }
}

async fn write(jobs: &Jobs, job: &JobId, attempt: u32, unwritten: Unwritten) {
    let Unwritten {
        progress, lines, ..
    } = unwritten;
    if progress.is_none() && lines.is_empty() {
        return;
    }
    let Progress { fraction, text } = progress.unwrap_or_default();
    let text = text.map(|text| text.to_string());
    let written = jobs
        .store()
        .progress(job, attempt, fraction, text, lines.into(), jobs.now())
        .await;
    if let Err(error) = written {
        tracing::warn!(%job, %error, "cannot write how far a job is");
    }
}

fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(LONGEST_LINE)]
}
