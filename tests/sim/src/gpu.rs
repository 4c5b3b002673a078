//! A card that several nodes share, as two servers on one machine do.
//!
//! A server takes its memory with its first work and keeps it, until `POST /unload` has it let go, or its process ends. One
//! that loads while too little is free answers that it is out of memory. The card counts what should never be.

use crate::knobs::Unload;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A card. Cheap to clone: all of them are the same one.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Mutex<Card>>);

#[derive(Debug)]
struct Card {
    vram_mib: u64,
    servers: BTreeMap<u64, Server>,
    next: u64,
    counts: GpuCounts,
}

#[derive(Debug, Default)]
struct Server {
    loaded_mib: u64,
    at_work: u32,
}

/// What happened on a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GpuCounts {
    /// How often work began on one server while another was at work.
    pub both_at_work: u64,
    /// How often a server had too little memory to load.
    pub out_of_memory: u64,
    /// How often a server loaded.
    pub loads: u64,
    /// How often a server was asked to let go.
    pub unloads: u64,
    /// How often it was asked while it was at work.
    pub unloads_at_work: u64,
}

/// A server's place on a card, for as long as its process runs.
pub(crate) struct OnGpu {
    gpu: Gpu,
    id: u64,
}

// === impl Gpu ===

impl Gpu {
    /// A card of so much memory, with nobody on it.
    pub fn new(vram_mib: u64) -> Self {
        Gpu(Arc::new(Mutex::new(Card {
            vram_mib,
            servers: BTreeMap::new(),
            next: 0,
            counts: GpuCounts::default(),
        })))
    }

    /// What happened on it so far.
    pub fn counts(&self) -> GpuCounts {
        self.0.lock().counts
    }

    /// How much of its memory is free, MiB.
    pub fn free_mib(&self) -> u64 {
        self.0.lock().free_mib()
    }

    pub(crate) fn join(&self) -> OnGpu {
        let mut card = self.0.lock();
        card.next += 1;
        let id = card.next;
        card.servers.insert(id, Server::default());
        OnGpu {
            gpu: self.clone(),
            id,
        }
    }
}

impl Card {
    fn free_mib(&self) -> u64 {
        let taken: u64 = self.servers.values().map(|server| server.loaded_mib).sum();
        self.vram_mib.saturating_sub(taken)
    }
}

// === impl OnGpu ===

impl OnGpu {
    pub(crate) fn free_mib(&self) -> u64 {
        self.gpu.free_mib()
    }

    /// Takes so much memory, unless it has it. `None`: there is too little; else whether it loaded.
    pub(crate) fn load(&self, mib: u64) -> Option<bool> {
        let mut card = self.gpu.0.lock();
        let free = card.free_mib();
        let server = card.servers.entry(self.id).or_default();
        if server.loaded_mib > 0 || mib == 0 {
            return Some(false);
        }
        if free < mib {
            card.counts.out_of_memory += 1;
            return None;
        }
        server.loaded_mib = mib;
        card.counts.loads += 1;
        Some(true)
    }

    /// It has so much loaded from now on, all its models together. `false`: there is too little, and nothing changes.
    pub(crate) fn holds(&self, mib: u64) -> bool {
        let mut card = self.gpu.0.lock();
        let own = card.servers.get(&self.id).map_or(0, |own| own.loaded_mib);
        if card.free_mib() + own < mib {
            card.counts.out_of_memory += 1;
            return false;
        }
        card.counts.loads += u64::from(mib > own);
        card.servers.entry(self.id).or_default().loaded_mib = mib;
        true
    }

    pub(crate) fn begin(&self) {
        let mut card = self.gpu.0.lock();
        let mut servers = card.servers.iter();
        let other = servers.any(|(id, server)| *id != self.id && server.at_work > 0);
        card.counts.both_at_work += u64::from(other);
        card.servers.entry(self.id).or_default().at_work += 1;
    }

    pub(crate) fn end(&self) {
        let mut card = self.gpu.0.lock();
        if let Some(server) = card.servers.get_mut(&self.id) {
            server.at_work = server.at_work.saturating_sub(1);
        }
    }

    /// It was asked to let go.
    pub(crate) fn asked(&self) {
        let mut card = self.gpu.0.lock();
        card.counts.unloads += 1;
        let at_work = card.servers.get(&self.id).is_some_and(|s| s.at_work > 0);
        card.counts.unloads_at_work += u64::from(at_work);
    }

    pub(crate) fn unload(&self, how: Unload) {
        if how != Unload::Never
            && let Some(server) = self.gpu.0.lock().servers.get_mut(&self.id)
        {
            server.loaded_mib = 0;
        }
    }

    /// Its process ended.
    pub(crate) fn leave(&self) {
        self.gpu.0.lock().servers.remove(&self.id);
    }
}
