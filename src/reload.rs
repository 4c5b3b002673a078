//! When the files are read again, and what happens with what they say.
//!
//! The folders are watched, not the files: editors rename over, and mounted config maps swap a symlink. An
//! event only wakes; whether anything changed is decided by content. A file that is being written in place is
//! left alone until its writer has closed it, or nothing was written for a while: the first half of a file
//! can be valid and mean something else. Where no events come (network shares), a poll finds the change.

use crate::config::{Applied, Diff, Loaded, Problem, diff, plan::Plan};
use crate::telemetry::{Event, Events, Metrics};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How long a folder may be restless until its files are looked at all the same.
const RESTLESS: Duration = Duration::from_secs(10);

/// How long events are gathered: one save makes several.
const GATHER: Duration = Duration::from_millis(50);
/// How long a file that is still open for writing must be quiet to be read all the same.
const QUIET: Duration = Duration::from_secs(2);
/// The poll: for shares that send no events.
const POLL: Duration = Duration::from_secs(5);

/// Reads the files.
pub type Read = Box<dyn Fn() -> Result<Loaded, Vec<Problem>> + Send + Sync>;
/// Puts a plan to work and answers with its generation.
pub type Install = Box<dyn Fn(Plan) -> Result<u64, Vec<Problem>> + Send + Sync>;

/// Reads the files again, on demand or when they change.
pub struct Reloader {
    read: Read,
    install: Install,
    metrics: Arc<Metrics>,
    events: Events,
    /// One reload at a time.
    turn: tokio::sync::Mutex<()>,
    now: Mutex<Now>,
}

/// What serves, and what was seen last.
struct Now {
    plan: Arc<Plan>,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// Of the contents that were read last, good or bad.
    seen: [u8; 32],
    /// Whether those were refused.
    refused: bool,
}

/// Who asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The files changed.
    Files,
    /// A SIGHUP.
    Signal,
    /// The admin API.
    Operator,
}

// === impl Reloader ===

impl Reloader {
    /// Watches over what `loaded` was read from; `loaded` itself serves already, as `generation`.
    pub fn new(
        read: Read,
        install: Install,
        loaded: &Loaded,
        generation: u64,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Self {
        metrics.reload_succeeded(generation, &loaded.plan.hash, Duration::ZERO);
        let now = Now {
            plan: Arc::new(loaded.plan.clone()),
            seen: contents(&loaded.files, &loaded.watch_dirs),
            files: loaded.files.clone(),
            folders: loaded.watch_dirs.clone(),
            refused: false,
        };
        Reloader {
            read,
            install,
            metrics,
            events,
            turn: tokio::sync::Mutex::default(),
            now: Mutex::new(now),
        }
    }

    /// Reads the files and puts them to work; any problem leaves everything as it was.
    ///
    /// Errors: every problem of all files.
    pub async fn reload(self: &Arc<Self>, trigger: Trigger) -> Result<Applied, Vec<Problem>> {
        let _turn = self.turn.lock().await;
        let reloader = self.clone();
        let done = tokio::task::spawn_blocking(move || reloader.reload_now(trigger)).await;
        done.unwrap_or_else(|_| {
            Err(vec![Problem::whole(
                "reload",
                "the reload panicked; the old configuration stays",
            )])
        })
    }

    fn reload_now(&self, trigger: Trigger) -> Result<Applied, Vec<Problem>> {
        let began = std::time::Instant::now();
        let (files, folders, was_refused) = {
            let now = self.now.lock();
            (now.files.clone(), now.folders.clone(), now.refused)
        };
        let seen = contents(&files, &folders);
        match self.try_reload() {
            Ok(applied) => {
                self.metrics
                    .reload_succeeded(applied.generation, &applied.hash, began.elapsed());
                for warning in &applied.warnings {
                    tracing::warn!("{warning}");
                }
                // Whoever heard of a problem hears that it is gone, also when the file is as it was before.
                if !applied.diff.is_empty() || was_refused || trigger != Trigger::Files {
                    tracing::info!(?trigger, generation = applied.generation, changes = %applied.diff, "configuration reloaded");
                    self.events.send(Event::Reloaded {
                        generation: applied.generation,
                        changes: applied.diff.to_string(),
                    });
                }
                Ok(applied)
            }
            Err(problems) => {
                {
                    let mut now = self.now.lock();
                    (now.seen, now.refused) = (seen, true);
                }
                self.metrics.reload_failed();
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    ?trigger,
                    problems = problems.len(),
                    "configuration not reloaded; the old one stays"
                );
                self.events.send(Event::ReloadFailed {
                    problems: problems.iter().map(ToString::to_string).collect(),
                });
                Err(problems)
            }
        }
    }

    fn try_reload(&self) -> Result<Applied, Vec<Problem>> {
        let loaded = (self.read)()?;
        let seen = contents(&loaded.files, &loaded.watch_dirs);
        let before = self.now.lock().plan.clone();
        let changes: Diff = diff(&before, &loaded.plan);
        let plan = Arc::new(loaded.plan.clone());
        let hash = plan.hash.clone();
        let generation = (self.install)(loaded.plan)?;
        *self.now.lock() = Now {
            plan,
            files: loaded.files,
            folders: loaded.watch_dirs,
            seen,
            refused: false,
        };
        Ok(Applied {
            generation,
            hash,
            diff: changes,
            warnings: loaded.warnings,
        })
    }

    /// Reloads whenever the files change. Runs for ever.
    pub async fn watch(self: Arc<Self>) {
        let (wake, mut woken) = mpsc::channel::<bool>(64);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let kind = event.map_or(EventKind::Any, |event| event.kind);
            let closed = match kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                EventKind::Access(_) => return,
                // Something was renamed or made: whoever does that has finished writing.
                EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_)) => true,
                _ => false,
            };
            // A full channel has already woken whoever listens.
            let _ = wake.try_send(closed);
        })
        .inspect_err(|error| tracing::warn!(%error, "cannot watch folders; changes are found by polling every {} s", POLL.as_secs()))
        .ok();
        let mut watched = BTreeSet::new();
        loop {
            if let Some(watcher) = &mut watcher {
                self.follow_folders(watcher, &mut watched);
            }
            let closed = timeout(POLL, woken.recv()).await;
            if let Ok(Some(closed)) = closed {
                settle(&mut woken, closed).await;
            }
            if self.changed().await {
                // Every problem was logged and counted; there is nobody here to answer to.
                let _ = self.reload(Trigger::Files).await;
            }
        }
    }

    fn follow_folders(
        &self,
        watcher: &mut notify::RecommendedWatcher,
        watched: &mut BTreeSet<PathBuf>,
    ) {
        let wanted: BTreeSet<PathBuf> = self.now.lock().folders.iter().cloned().collect();
        for old in watched.difference(&wanted) {
            let _ = watcher.unwatch(old);
        }
        // A folder that cannot be watched now (not there yet) is tried again at the next round.
        let mut followed = BTreeSet::new();
        for folder in wanted {
            if watched.contains(&folder)
                || watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
            {
                followed.insert(folder);
            }
        }
        *watched = followed;
    }

    async fn changed(self: &Arc<Self>) -> bool {
        let (files, folders, seen) = {
            let now = self.now.lock();
            (now.files.clone(), now.folders.clone(), now.seen)
        };
        tokio::task::spawn_blocking(move || contents(&files, &folders) != seen)
            .await
            .unwrap_or(false)
    }
}

/// Waits until a change is complete: its writer closed the file, or nothing was written for a while. In a folder where others
/// write all the time (a log) that moment may never come: then the files are looked at all the same.
async fn settle(woken: &mut mpsc::Receiver<bool>, mut closed: bool) {
    let began = Instant::now();
    let mut last = began;
    loop {
        if began.elapsed() > RESTLESS {
            return;
        }
        match timeout(GATHER, woken.recv()).await {
            Ok(Some(more)) => {
                closed = more;
                last = Instant::now();
            }
            Ok(None) => return,
            Err(_) if closed || last.elapsed() > QUIET => return,
            Err(_) => sleep(GATHER).await,
        }
    }
}

/// A hash of what the files hold, and of which files stand in the folders: an include may match a new one.
fn contents(files: &[PathBuf], folders: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.as_os_str().as_encoded_bytes());
        match std::fs::read(file) {
            Ok(bytes) => hash.update(&bytes),
            Err(_) => hash.update(b"\0gone"),
        }
    }
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names: BTreeSet<_> = entries
            .map(|entry| entry.file_name())
            .filter(|name| is_yaml(name))
            .collect();
        for name in names {
            hash.update(name.as_encoded_bytes());
            hash.update(b"\0");
        }
    }
    hash.finalize().into()
}

fn is_yaml(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".yaml") || name.ends_with(".yml")
}
