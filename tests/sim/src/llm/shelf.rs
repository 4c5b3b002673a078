//! Which models are in the card's memory: loaded when they are asked for, one after the other, and let go of to make room, or
//! because nobody used them for long.

use super::knobs::LlmKnobs;
use super::runner::Runner;
use super::seen::Record;
use super::spec::{Engine, Spec};
use crate::gpu::{Gpu, OnGpu};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) struct Shelf {
    spec: Arc<Spec>,
    knobs: Arc<watch::Sender<LlmKnobs>>,
    record: Arc<Record>,
    runners: Vec<Arc<Runner>>,
    places: Mutex<Vec<Place>>,
    changed: watch::Sender<u64>,
    /// Only one loads at a time, and who came first is first.
    turn: tokio::sync::Mutex<()>,
    /// How many wait for models to be loaded.
    pending: AtomicUsize,
    /// Where it stands on a card that others have too.
    on_gpu: Option<OnGpu>,
    /// Its process is dead.
    killed: Arc<watch::Sender<bool>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Away,
    Loading,
    There,
}

#[derive(Clone)]
struct Place {
    state: State,
    users: usize,
    /// When it was last taken.
    used: Instant,
    /// How long it stays when nobody uses it. `None`: until it has to go.
    keep: Option<Duration>,
    /// When it goes. `None`: somebody uses it, or it stays.
    until: Option<Instant>,
}

/// A model that is used. Dropping it gives it back.
pub(crate) struct Hold {
    shelf: Arc<Shelf>,
    model: usize,
    /// How long it took to have it.
    pub(crate) waited: Duration,
}

/// Too many wait for models.
pub(crate) struct Full;

/// A load that is under way, and comes to nothing when it is dropped.
struct Loading<'a> {
    shelf: &'a Shelf,
    model: usize,
}

// === impl Shelf ===

impl Shelf {
    pub(crate) fn new(
        spec: Arc<Spec>,
        knobs: Arc<watch::Sender<LlmKnobs>>,
        record: Arc<Record>,
        runners: Vec<Arc<Runner>>,
        killed: Arc<watch::Sender<bool>>,
    ) -> Self {
        let place = Place {
            state: State::Away,
            users: 0,
            used: Instant::now(),
            keep: keep(spec.keep_alive_s),
            until: None,
        };
        Shelf {
            places: Mutex::new(vec![place; spec.models.len()]),
            changed: watch::channel(0).0,
            turn: tokio::sync::Mutex::default(),
            pending: AtomicUsize::new(0),
            killed,
            on_gpu: spec.shared.as_ref().map(Gpu::join),
            spec,
            knobs,
            record,
            runners,
        }
    }

    /// Takes a model, after it was loaded if need be.
    pub(crate) async fn take(
        self: &Arc<Self>,
        model: usize,
        keep_s: Option<i64>,
    ) -> Result<Hold, Full> {
        let asked = Instant::now();
        if !self.take_if_there(model, keep_s) {
            let pending = Pending::new(&self.pending);
            if self.spec.engine == Engine::Ollama && pending.others >= self.spec.max_queue {
                return Err(Full);
            }
            while !self.take_if_there(model, keep_s) {
                if !self.spec.loads_on_demand() {
                    self.until(model, State::There).await;
                } else if self.spec.engine == Engine::Ollama {
                    // The load ends with the request that wants it.
                    self.load(model).await;
                } else {
                    let _ = self.load_apart(model).await;
                }
            }
        }
        if let Some(gpu) = &self.on_gpu {
            gpu.begin();
        }
        Ok(Hold {
            shelf: self.clone(),
            model,
            waited: asked.elapsed(),
        })
    }

    fn take_if_there(&self, model: usize, keep_s: Option<i64>) -> bool {
        let mut places = self.places.lock();
        let there = places
            .get_mut(model)
            .filter(|place| place.state == State::There);
        if let Some(place) = there {
            place.users += 1;
            place.used = Instant::now();
            place.until = None;
            if let Some(seconds) = keep_s {
                place.keep = keep(seconds);
            }
            return true;
        }
        false
    }

    /// Loads a model, whoever leaves meanwhile.
    pub(crate) fn load_apart(self: &Arc<Self>, model: usize) -> JoinHandle<()> {
        let shelf = self.clone();
        let mut killed = self.killed.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = shelf.load(model) => {}
                _ = killed.wait_for(|killed| *killed) => {}
            }
        })
    }

    /// Loads a model, unless it is there when its turn comes.
    pub(crate) async fn load(&self, model: usize) {
        let _turn = self.turn.lock().await;
        let mut changed = self.changed.subscribe();
        while !self.begin(model) {
            if self.state(model) == State::There {
                return;
            }
            let _ = changed.changed().await;
        }
        let loading = Loading { shelf: self, model };
        let mib = self.spec.models.get(model).map_or(0, |model| model.mib);
        let time = self.knobs.borrow().load(mib);
        if !time.is_zero() {
            sleep(time).await;
        }
        loading.done();
    }

    /// Begins to load one, for which others that nobody uses may have to go. `false`: it is there, or there is no room.
    fn begin(&self, model: usize) -> bool {
        loop {
            let mut places = self.places.lock();
            if places[model].state != State::Away {
                return false;
            }
            let loaded = || {
                let all = places.iter().zip(&self.spec.models).enumerate();
                all.filter(|(_, (place, _))| place.state != State::Away)
            };
            let taken: u64 = loaded().map(|(_, (_, model))| model.mib).sum();
            let fits = loaded().count() < self.spec.max_loaded
                && taken + self.spec.models[model].mib <= self.spec.vram_mib;
            // What fits nowhere is loaded alone, and works from the machine's own memory.
            if fits || loaded().count() == 0 {
                if let Some(gpu) = &self.on_gpu {
                    gpu.holds(taken + self.spec.models[model].mib);
                }
                places[model].state = State::Loading;
                return true;
            }
            let idle =
                loaded().filter(|(_, (place, _))| place.users == 0 && place.state == State::There);
            let Some(oldest) = idle
                .min_by_key(|(_, (place, _))| place.used)
                .map(|(at, _)| at)
            else {
                return false;
            };
            drop(places);
            self.unload(oldest);
        }
    }

    /// Lets go of a model, now, or when its last user is gone.
    pub(crate) fn expire(&self, model: usize) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(model) else {
            return;
        };
        place.keep = Some(Duration::ZERO);
        let idle = place.users == 0 && place.state == State::There;
        drop(places);
        if idle {
            self.unload(model);
        }
    }

    /// Lets go of a model at once.
    pub(crate) fn unload(&self, model: usize) {
        let mut places = self.places.lock();
        let Some(place) = places
            .get_mut(model)
            .filter(|place| place.state == State::There)
        else {
            return;
        };
        place.state = State::Away;
        place.until = None;
        if let Some(gpu) = &self.on_gpu {
            let loaded = places.iter().zip(&self.spec.models);
            let loaded = loaded.filter(|(place, _)| place.state != State::Away);
            gpu.asked();
            gpu.holds(loaded.map(|(_, model)| model.mib).sum());
        }
        drop(places);
        self.runners[model].forget();
        self.record
            .note(|seen| seen.unloads.push(self.spec.models[model].name.clone()));
        self.tell();
    }

    /// Lets go of models whose time is over, for as long as the process lives.
    pub(crate) async fn keep(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            let next = self
                .places
                .lock()
                .iter()
                .filter_map(|place| place.until)
                .min();
            let over = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => {}
                _ = changed.changed() => continue,
            }
            let now = Instant::now();
            let over = |place: &Place| place.until.is_some_and(|until| until <= now);
            let gone: Vec<usize> = {
                let places = self.places.lock();
                (0..places.len()).filter(|at| over(&places[*at])).collect()
            };
            gone.into_iter().for_each(|model| self.unload(model));
        }
    }

    pub(crate) fn state(&self, model: usize) -> State {
        self.places
            .lock()
            .get(model)
            .map_or(State::Away, |place| place.state)
    }

    /// How long a model that is loaded stays if nobody asks for it. `None`: for ever.
    pub(crate) fn stays(&self, model: usize) -> Option<Duration> {
        let places = self.places.lock();
        let place = places.get(model)?;
        match place.until {
            Some(until) => Some(until.saturating_duration_since(Instant::now())),
            None => place.keep,
        }
    }

    /// Waits until a model is so.
    pub(crate) async fn until(&self, model: usize, state: State) {
        let _ = self
            .changed
            .subscribe()
            .wait_for(|_| self.state(model) == state)
            .await;
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Seconds, of which a negative number means for ever.
fn keep(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

// === impl Hold ===

impl Drop for Hold {
    fn drop(&mut self) {
        let mut places = self.shelf.places.lock();
        let Some(place) = places.get_mut(self.model) else {
            return;
        };
        place.users = place.users.saturating_sub(1);
        if let Some(gpu) = &self.shelf.on_gpu {
            gpu.end();
        }
        if place.users == 0 && self.shelf.spec.engine == Engine::Ollama {
            place.until = place.keep.map(|keep| Instant::now() + keep);
        }
        drop(places);
        self.shelf.tell();
    }
}

// === impl Loading ===

impl Loading<'_> {
    fn done(self) {
        if let Some(place) = self.shelf.places.lock().get_mut(self.model) {
            place.state = State::There;
            place.used = Instant::now();
            place.keep = keep(self.shelf.spec.keep_alive_s);
        }
        let name = self.shelf.spec.models[self.model].name.clone();
        self.shelf.record.note(|seen| seen.loads.push(name));
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.shelf.places.lock().get_mut(self.model)
            && place.state == State::Loading
        {
            place.state = State::Away;
        }
        self.shelf.tell();
    }
}

/// Counts one that waits, until it is dropped.
struct Pending<'a> {
    count: &'a AtomicUsize,
    others: usize,
}

// === impl Pending ===

impl<'a> Pending<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Pending {
            others: count.fetch_add(1, Ordering::Relaxed),
            count,
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
