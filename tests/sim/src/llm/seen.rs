use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// What a simulated engine saw and did, in all its lives.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The requests, in the order they came; a long bench leaves only the last ones.
    pub asked: Vec<Asked>,
    /// Models that were loaded, each time.
    pub loads: Vec<String>,
    /// Models that were let go of, each time.
    pub unloads: Vec<String>,
    /// The most that one model ever worked on at once.
    pub most_running: usize,
    /// The most that ever waited for one model at once.
    pub most_waiting: usize,
    /// How often its process began.
    pub lives: u64,
    /// Connections that were ever opened.
    pub connections: u64,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte. Until it was read it is empty.
    pub body: Bytes,
    /// The model that it named.
    pub model: Option<String>,
    /// How many tokens its prompt has; 0 where there is none.
    pub prompt_tokens: usize,
    /// How many of them were in the cache. `None`: it was not taken in.
    pub hit_tokens: Option<usize>,
    /// How many tokens of an answer were written for it.
    pub answer_tokens: usize,
    /// How it ended. `None`: it has not.
    pub end: Option<End>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered to the last byte, with this status.
    Answered(u16),
    /// Its client left.
    Aborted,
    /// Its connection was dropped, or its answer broken off, as the knobs say.
    Broken,
}

/// More requests than that, or more bytes of their bodies, are forgotten from the start.
const MOST: usize = 20_000;
const MOST_BYTES: usize = 256 * 1024 * 1024;

pub(crate) struct Record {
    seen: Mutex<Log>,
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    seen: Seen,
    /// How many requests were forgotten.
    forgotten: usize,
    /// How many bytes the bodies have that were not.
    bytes: usize,
}

/// A request's line in the record. Dropping it before its end says that its client left.
pub(crate) struct Line {
    record: Arc<Record>,
    number: usize,
    ended: bool,
}

// === impl Seen ===

impl Seen {
    /// The requests for work, without questions about the engine.
    pub fn work(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|asked| asked.prompt_tokens > 0)
    }

    /// How many requests for work were left by their clients.
    pub fn aborted(&self) -> usize {
        let ends = self.work().filter(|asked| asked.end == Some(End::Aborted));
        ends.count()
    }
}

// === impl Asked ===

impl Asked {
    /// What a header says.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(has, _)| has == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

// === impl Record ===

impl Record {
    pub(crate) fn new() -> Self {
        Record {
            seen: Mutex::default(),
            count: watch::channel(0).0,
        }
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().seen);
        self.count.send_modify(|count| *count += 1);
    }

    /// Notes how many are at work and wait, if that is more than ever.
    pub(crate) fn peak(&self, running: usize, waiting: usize) {
        let mut log = self.seen.lock();
        if running > log.seen.most_running || waiting > log.seen.most_waiting {
            log.seen.most_running = running.max(log.seen.most_running);
            log.seen.most_waiting = waiting.max(log.seen.most_waiting);
            drop(log);
            self.count.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn ask(self: &Arc<Self>, asked: Asked) -> Line {
        let mut log = self.seen.lock();
        if log.seen.asked.len() >= MOST || log.bytes >= MOST_BYTES {
            log.forget();
        }
        log.seen.asked.push(asked);
        let number = log.forgotten + log.seen.asked.len() - 1;
        drop(log);
        self.count.send_modify(|count| *count += 1);
        Line {
            record: self.clone(),
            number,
            ended: false,
        }
    }

    pub(crate) fn all(&self) -> Seen {
        self.seen.lock().seen.clone()
    }

    /// Waits until what it saw is so.
    pub(crate) async fn until(&self, mut so: impl FnMut(&Seen) -> bool) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = count.wait_for(|_| so(&self.seen.lock().seen)).await;
    }
}

// === impl Log ===

impl Log {
    /// Forgets the older half.
    fn forget(&mut self) {
        let half = self.seen.asked.len() / 2;
        let gone = self.seen.asked.drain(..half);
        self.bytes -= gone.map(|asked| asked.body.len()).sum::<usize>();
        self.forgotten += half;
    }
}

// === impl Line ===

impl Line {
    pub(crate) fn note(&self, change: impl FnOnce(&mut Asked)) {
        let mut log = self.record.seen.lock();
        let at = self.number.checked_sub(log.forgotten);
        if let Some(asked) = at.and_then(|at| log.seen.asked.get_mut(at)) {
            change(asked);
        }
        drop(log);
        self.record.count.send_modify(|count| *count += 1);
    }

    /// Its body was read.
    pub(crate) fn body(&self, body: Bytes) {
        let mut log = self.record.seen.lock();
        let at = self.number.checked_sub(log.forgotten);
        if let Some(asked) = at.and_then(|at| log.seen.asked.get_mut(at)) {
            let length = body.len();
            asked.body = body;
            log.bytes += length;
        }
        drop(log);
        self.record.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn end(&mut self, end: End) {
        if !self.ended {
            self.ended = true;
            self.note(|asked| asked.end = Some(end));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end(End::Aborted);
    }
}
