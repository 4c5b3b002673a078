//! A model at work: its batch, step by step in time.

use super::batch::{Batch, Job, Wrote};
use super::cache::Cache;
use super::histogram::Latencies;
use super::knobs::LlmKnobs;
use super::seen::Record;
use super::spec::{Engine, Spec};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// How much of what it missed, because the machine was busy, it makes up for.
const MOST_LATE: Duration = Duration::from_millis(100);

pub(crate) struct Runner {
    began: Instant,
    knobs: Arc<watch::Sender<LlmKnobs>>,
    record: Arc<Record>,
    work: Mutex<Work>,
    wake: Notify,
}

struct Work {
    batch: Batch,
    outs: HashMap<u64, UnboundedSender<Wrote>>,
    latencies: Latencies,
    next: u64,
}

/// A request that is at work, or waits for it. Dropping it takes it out.
pub(crate) struct Ticket {
    runner: Arc<Runner>,
    id: u64,
    wrote: UnboundedReceiver<Wrote>,
}

// === impl Runner ===

impl Runner {
    pub(crate) fn new(
        spec: &Spec,
        knobs: Arc<watch::Sender<LlmKnobs>>,
        record: Arc<Record>,
    ) -> Self {
        let cache = match spec.engine {
            Engine::Vllm => Cache::blocks(spec.block_tokens, spec.kv_tokens),
            Engine::LlamaCpp | Engine::Ollama => Cache::slots(spec.slots),
        };
        Runner {
            began: Instant::now(),
            knobs,
            record,
            work: Mutex::new(Work {
                batch: Batch::new(cache, spec.slots, spec.chunk_tokens),
                outs: HashMap::new(),
                latencies: Latencies::default(),
                next: 0,
            }),
            wake: Notify::new(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Hands work over.
    pub(crate) fn put(self: &Arc<Self>, prompt: Vec<u32>, answer: Vec<u32>) -> Ticket {
        let (out, wrote) = unbounded_channel();
        let mut work = self.work.lock();
        work.next += 1;
        let id = work.next;
        work.outs.insert(id, out);
        work.batch.put(Job { id, prompt, answer }, self.now());
        self.tell(&work.batch);
        drop(work);
        self.wake.notify_one();
        Ticket {
            runner: self.clone(),
            id,
            wrote,
        }
    }

    /// Works for as long as its process lives.
    pub(crate) async fn run(&self) {
        let mut due = Instant::now();
        loop {
            let planned = self.work.lock().batch.plan(self.now());
            let Some(step) = planned else {
                self.wake.notified().await;
                due = Instant::now();
                continue;
            };
            // From when the last one was due: what timers and a busy machine add is made up for.
            let late = Instant::now() - MOST_LATE;
            due = due.max(late) + self.knobs.borrow().step(&step);
            sleep_until(due).await;
            let now = self.now();
            let mut work = self.work.lock();
            let wrote = work.batch.apply(&step, now);
            for one in wrote {
                work.latencies.note(&one);
                let out = if one.last {
                    work.outs.remove(&one.id)
                } else {
                    work.outs.get(&one.id).cloned()
                };
                // Whoever does not listen any more is not told; the work goes on, since nobody took it out.
                if let Some(out) = out {
                    let _ = out.send(one);
                }
            }
            self.tell(&work.batch);
        }
    }

    /// Looks at its batch.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Batch) -> T) -> T {
        at(&self.work.lock().batch)
    }

    pub(crate) fn latencies(&self) -> Latencies {
        self.work.lock().latencies.clone()
    }

    /// Forgets all prompts: the model is not there any more.
    pub(crate) fn forget(&self) {
        self.work.lock().batch.forget();
    }

    fn tell(&self, batch: &Batch) {
        let counts = batch.counts();
        self.record.peak(counts.most_running, counts.most_waiting);
    }
}

// === impl Ticket ===

impl Ticket {
    /// The next token. `None`: there was the last one.
    pub(crate) async fn next(&mut self) -> Option<Wrote> {
        self.wrote.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.runner.knobs.borrow().notices_disconnect {
            let mut work = self.runner.work.lock();
            if work.outs.remove(&self.id).is_some() {
                work.batch.abort(self.id);
                work.latencies.forget(self.id);
            }
        }
    }
}
