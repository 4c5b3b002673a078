//! The process of a simulated ComfyUI: what is lost when it dies.

use super::disk::Disk;
use super::hub::{Hub, event};
use super::json::{Json, object};
use super::knobs::ComfyKnobs;
use super::library::Library;
use super::queue::{Item, Queue};
use super::seen::{Record, Saw};
use super::spec::{Model, Spec};
use crate::gpu::{Gpu, OnGpu};
use indexmap::IndexMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};
use tokio_tungstenite::tungstenite::protocol::Message;

/// How much the server takes in one request.
pub(crate) const MOST_UPLOAD: usize = 100 * 1024 * 1024;

pub(crate) struct Server {
    pub(crate) spec: Arc<Spec>,
    /// These three outlive it.
    pub(crate) knobs: Arc<watch::Sender<ComfyKnobs>>,
    pub(crate) record: Arc<Record>,
    pub(crate) disk: Arc<Disk>,
    /// How many processes there were before.
    pub(crate) life: u64,
    pub(crate) library: Library,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) hub: Hub,
    pub(crate) now: Mutex<Now>,
    card: Mutex<IndexMap<String, u64>>,
    /// Where it stands on a card that others have too.
    pub(crate) on_gpu: Option<OnGpu>,
    wake: Notify,
    pub(crate) interrupted: watch::Sender<bool>,
    /// How often all sockets were cut.
    pub(crate) cut: watch::Sender<u64>,
    /// How often all connections were dropped on which something is asked.
    pub(crate) dropped: watch::Sender<u64>,
    killed: watch::Sender<bool>,
}

/// What the executor is at.
#[derive(Default)]
pub(crate) struct Now {
    pub(crate) client: Option<String>,
    pub(crate) node: Option<String>,
    /// Asked for by `POST /free`: to unload models, and to forget what was made.
    unload: bool,
    forget: bool,
}

/// What the worker does next.
pub(crate) enum Next {
    Execute(Box<Item>),
    Free { forget: bool },
}

/// Whether a model could be had.
pub(crate) enum Load {
    IsThere,
    Loads,
    OutOfMemory,
}

// === impl Server ===

impl Server {
    pub(crate) fn new(
        spec: Arc<Spec>,
        knobs: Arc<watch::Sender<ComfyKnobs>>,
        record: Arc<Record>,
        disk: Arc<Disk>,
        life: u64,
    ) -> Self {
        record.note(Saw::Began);
        Server {
            library: Library::of(&spec),
            on_gpu: spec.shared.as_ref().map(Gpu::join),
            spec,
            knobs,
            record,
            disk,
            life,
            queue: Mutex::default(),
            hub: Hub::default(),
            now: Mutex::default(),
            card: Mutex::default(),
            wake: Notify::new(),
            interrupted: watch::channel(false).0,
            cut: watch::channel(0).0,
            dropped: watch::channel(0).0,
            killed: watch::channel(false).0,
        }
    }

    pub(crate) fn knobs(&self) -> ComfyKnobs {
        self.knobs.borrow().clone()
    }

    /// Waits until the knobs are so.
    pub(crate) async fn until_knobs(&self, so: impl FnMut(&ComfyKnobs) -> bool) {
        let _ = self.knobs.subscribe().wait_for(so).await;
    }

    pub(crate) fn kill(&self) {
        if !self.killed.send_replace(true) {
            self.record.note(Saw::Died);
        }
    }

    pub(crate) async fn killed(&self) {
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    /// What its clock shows, in milliseconds.
    pub(crate) fn clock(&self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        now.as_millis() as i64 + self.knobs.borrow().clock_skew_ms
    }

    pub(crate) fn send(&self, message: &Message, sid: Option<&str>) {
        if !self.knobs.borrow().silent_sockets {
            self.hub.send(message, sid);
        }
    }

    pub(crate) fn exec_info(&self) -> Json {
        let remaining = self.queue.lock().remaining();
        object! {"exec_info": object! {"queue_remaining": remaining}}
    }

    /// Tells everybody how long the queue is.
    pub(crate) fn queue_updated(&self) {
        let status = object! {"status": self.exec_info()};
        self.send(&event("status", status), None);
    }

    pub(crate) fn put(&self, item: Item) {
        self.queue.lock().put(item);
        self.queue_updated();
        self.wake.notify_one();
    }

    /// Takes a prompt out that waits.
    pub(crate) fn delete(&self, prompt_id: &str) -> bool {
        let told = self.queue.lock().delete(prompt_id);
        (0..told).for_each(|_| self.queue_updated());
        told > 0
    }

    pub(crate) fn interrupt(&self) {
        self.interrupted.send_replace(true);
    }

    /// Interrupts a prompt if it is the one that runs.
    pub(crate) fn interrupt_if_running(&self, prompt_id: &str) -> bool {
        let queue = self.queue.lock();
        let runs = queue
            .running()
            .is_some_and(|item| item.prompt_id == prompt_id);
        if runs {
            self.interrupt();
        }
        runs
    }

    pub(crate) fn free(&self, unload: bool, forget: bool) {
        let mut now = self.now.lock();
        now.unload |= unload || forget;
        now.forget |= forget;
        drop(now);
        self.wake.notify_one();
    }

    /// Waits for something to do.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(forget) = self.asked_to_free() {
                self.unload();
                return Next::Free { forget };
            }
            let taken = self.take();
            if let Some(item) = taken {
                self.queue_updated();
                return Next::Execute(Box::new(item));
            }
            self.wake.notified().await;
        }
    }

    /// Begins with the next prompt. An interrupt hits what ran when it came: under this lock, nothing else.
    fn take(&self) -> Option<Item> {
        let mut queue = self.queue.lock();
        let taken = queue.take()?;
        self.interrupted.send_replace(false);
        Some(taken)
    }

    /// Whether to unload models, and if so, whether to forget what was made.
    fn asked_to_free(&self) -> Option<bool> {
        let mut now = self.now.lock();
        let unload = std::mem::take(&mut now.unload);
        let forget = std::mem::take(&mut now.forget);
        unload.then_some(forget)
    }

    /// Makes room for a model on the card, the longest unused first.
    pub(crate) fn load(&self, model: &Model) -> Load {
        let key = format!("{}/{}", model.folder, model.name);
        let room = self.room();
        let mut card = self.card.lock();
        if let Some(mib) = card.shift_remove(&key) {
            card.insert(key, mib);
            return Load::IsThere;
        }
        if model.mib > room {
            card.clear();
            return Load::OutOfMemory;
        }
        while card.values().sum::<u64>() + model.mib > room {
            card.shift_remove_index(0);
        }
        let all = card.values().sum::<u64>() + model.mib;
        if self.on_gpu.as_ref().is_some_and(|gpu| !gpu.holds(all)) {
            return Load::OutOfMemory;
        }
        card.insert(key, model.mib);
        drop(card);
        self.record.note(Saw::Loaded {
            model: model.name.clone(),
        });
        Load::Loads
    }

    pub(crate) fn unload(&self) {
        self.card.lock().clear();
        if let Some(gpu) = &self.on_gpu {
            gpu.asked();
            gpu.holds(0);
        }
    }

    /// How much of the card's memory is free, MiB.
    pub(crate) fn free_mib(&self) -> u64 {
        if let Some(gpu) = &self.on_gpu {
            return gpu.free_mib();
        }
        self.room().saturating_sub(self.card.lock().values().sum())
    }

    fn room(&self) -> u64 {
        self.spec
            .vram_mib
            .saturating_sub(self.knobs.borrow().taken_mib)
    }
}
