//! What lives only as long as the process: who follows a job, and the attempt that is at work.

use super::Jobs;
use crate::store::{JobId, JobRecord};
use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc, watch};

/// How many notes a slow follower may lag behind; it then looks at the store again.
const BACKLOG: usize = 256;

/// How many calls of a backend wait to be read.
const CALLS: usize = 16;

/// Something to tell whoever follows a job.
#[derive(Clone, Debug)]
pub enum Note {
    /// It changed; this is how it stands.
    Changed(Arc<JobRecord>),
    /// Its attempt got further.
    Progress(Progress),
    /// Its backend logged this.
    Log(Arc<str>),
    /// A job of this array changed.
    Child,
}

/// How far an attempt is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// 0.0..=1.0.
    pub fraction: Option<f64>,
    /// In words.
    pub text: Option<Arc<str>>,
}

/// Everything that lives.
#[derive(Default)]
pub(super) struct Live(Mutex<HashMap<JobId, Entry>>);

struct Entry {
    notes: broadcast::Sender<Note>,
    work: Option<Work>,
    /// The attempt that was taken back before it came to look.
    stopping: Option<u32>,
}

/// An attempt at work.
struct Work {
    attempt: u32,
    progress: Progress,
    stop: watch::Sender<bool>,
    calls: mpsc::Sender<Request<Bytes>>,
}

/// The attempt at work on a job; gone when dropped.
pub struct Running {
    jobs: Jobs,
    job: JobId,
    attempt: u32,
    stop: watch::Receiver<bool>,
    calls: AsyncMutex<mpsc::Receiver<Request<Bytes>>>,
}

/// Hears of a job until it is dropped.
pub struct Following {
    notes: broadcast::Receiver<Note>,
}

// === impl Live ===

impl Live {
    pub(super) fn note(&self, job: &str, note: impl FnOnce() -> Note) {
        let mut all = self.0.lock();
        let Some(entry) = all.get(job) else { return };
        if entry.notes.receiver_count() > 0 {
            let _ = entry.notes.send(note());
        } else if entry.is_idle() {
            all.remove(job);
        }
    }

    pub(super) fn follow(&self, job: &JobId) -> Following {
        let mut all = self.0.lock();
        // Whoever left without a note is forgotten here, so that followers of quiet jobs do not add up.
        if all.len() >= 1024 && all.len().is_power_of_two() {
            all.retain(|_, entry| !entry.is_idle());
        }
        let notes = all.entry(job.clone()).or_default().notes.subscribe();
        Following { notes }
    }

    pub(super) fn running(jobs: &Jobs, job: &JobId, attempt: u32, canceling: bool) -> Running {
        let (calls, called) = mpsc::channel(CALLS);
        let mut all = jobs.0.live.0.lock();
        let entry = all.entry(job.clone()).or_default();
        let (stop, stopped) = watch::channel(canceling || entry.stopping == Some(attempt));
        entry.stopping = None;
        entry.work = Some(Work {
            attempt,
            progress: Progress::default(),
            stop,
            calls,
        });
        drop(all);
        Running {
            jobs: jobs.clone(),
            job: job.clone(),
            attempt,
            stop: stopped,
            calls: AsyncMutex::new(called),
        }
    }

    pub(super) fn stop(&self, job: &str, attempt: u32) {
        let mut all = self.0.lock();
        let entry = all.entry(job.into()).or_default();
        match &entry.work {
            Some(work) => {
                work.stop.send_replace(true);
            }
            None => entry.stopping = Some(attempt),
        }
    }

    /// It is over: nobody is left to stop.
    pub(super) fn over(&self, job: &str) {
        let mut all = self.0.lock();
        if let Some(entry) = all.get_mut(job) {
            entry.stopping = None;
            if entry.is_idle() {
                all.remove(job);
            }
        }
    }

    pub(super) fn progress(&self, job: &str) -> Option<Progress> {
        let all = self.0.lock();
        let work = all.get(job)?.work.as_ref()?;
        Some(work.progress.clone())
    }

    pub(super) fn call_back(&self, job: &str, attempt: u32, call: Request<Bytes>) -> bool {
        let all = self.0.lock();
        let work = all.get(job).and_then(|entry| entry.work.as_ref());
        work.filter(|work| work.attempt == attempt)
            .is_some_and(|work| work.calls.try_send(call).is_ok())
    }
}

impl Entry {
    /// Nobody would miss it.
    fn is_idle(&self) -> bool {
        self.work.is_none() && self.stopping.is_none() && self.notes.receiver_count() == 0
    }
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            notes: broadcast::channel(BACKLOG).0,
            work: None,
            stopping: None,
        }
    }
}

// === impl Running ===

impl Running {
    /// Which attempt it is.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Waits until the job is taken back; for ever when it is not.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits for the backend's next call.
    pub async fn called_back(&self) -> Request<Bytes> {
        match self.calls.lock().await.recv().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }

    /// The attempt got further.
    pub fn progress(&self, progress: Progress) {
        {
            let mut all = self.jobs.0.live.0.lock();
            let entry = all.get_mut(&self.job);
            let work = entry.and_then(|entry| entry.work.as_mut());
            let Some(work) = work.filter(|work| work.attempt == self.attempt) else {
                return;
            };
            if work.progress == progress {
                return;
            }
            work.progress = progress.clone();
        }
        self.note(Note::Progress(progress));
    }

    /// Its backend logged a line.
    pub fn log(&self, line: &str) {
        self.note(Note::Log(line.into()));
    }

    fn note(&self, note: Note) {
        self.jobs.0.live.note(&self.job, || note);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut all = self.jobs.0.live.0.lock();
        let Some(entry) = all.get_mut(&self.job) else {
            return;
        };
        if entry.work.as_ref().map(|work| work.attempt) == Some(self.attempt) {
            entry.work = None;
        }
        if entry.is_idle() {
            all.remove(&self.job);
        }
    }
}

// === impl Following ===

impl Following {
    /// The next note; `None` when some were missed: look at the store, then go on.
    pub async fn next(&mut self) -> Option<Note> {
        match self.notes.recv().await {
            Ok(note) => Some(note),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            // The entry was dropped while we looked on; whoever changes the job makes a new one.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
