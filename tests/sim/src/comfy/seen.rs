use parking_lot::Mutex;
use tokio::sync::watch;

/// Something that a simulated ComfyUI saw or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// Its process began.
    Began,
    /// A request came.
    Request {
        /// Its method.
        method: String,
        /// Its path and query.
        path: String,
    },
    /// A prompt was accepted.
    Accepted {
        /// Its id.
        prompt_id: String,
        /// Whose it is.
        client_id: Option<String>,
    },
    /// A prompt was refused.
    Refused {
        /// Why: the type of its error.
        why: String,
    },
    /// A prompt began to be executed.
    Started {
        /// Its id.
        prompt_id: String,
        /// Nodes whose results were there.
        cached: Vec<String>,
    },
    /// A model was loaded into the card's memory.
    Loaded {
        /// Its name.
        model: String,
    },
    /// A prompt ended.
    Ended {
        /// Its id.
        prompt_id: String,
        /// `execution_success`, `execution_error`, `execution_interrupted`.
        how: String,
    },
    /// A socket was opened.
    Opened {
        /// Its client's id.
        sid: String,
    },
    /// A socket said something.
    Said {
        /// Its client's id.
        sid: String,
        /// What.
        text: String,
    },
    /// A socket was closed.
    Closed {
        /// Its client's id.
        sid: String,
    },
    /// A file was uploaded.
    Uploaded {
        /// Under which name it is there.
        name: String,
    },
    /// Its process died.
    Died,
}

/// More than that is forgotten from the start, so that a long bench does not fill the memory.
const MOST: usize = 100_000;

pub(crate) struct Record {
    count: watch::Sender<u64>,
    saw: Mutex<Vec<Saw>>,
}

// === impl Record ===

impl Record {
    pub(crate) fn new() -> Self {
        Record {
            count: watch::channel(0).0,
            saw: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, saw: Saw) {
        let mut all = self.saw.lock();
        if all.len() >= MOST {
            all.drain(..MOST / 2);
        }
        all.push(saw);
        // Whoever waits looks at all while it holds the count.
        drop(all);
        self.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn all(&self) -> Vec<Saw> {
        self.saw.lock().clone()
    }

    /// Waits until what it saw is so.
    pub(crate) async fn until(&self, mut so: impl FnMut(&[Saw]) -> bool) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = count.wait_for(|_| so(&self.saw.lock())).await;
    }
}
