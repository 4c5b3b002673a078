//! All clients of a service, by their ids, under one lock.

use super::Limits;
use super::client::{Client, Line};
use crate::frames::Frame;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct Hub {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clients: HashMap<Arc<str>, Client>,
    /// What is kept for those who are away, the oldest first. Some of it was told since.
    missed: VecDeque<Missed>,
    /// How many bytes wait for all.
    held: usize,
    /// How many prompts wait or run.
    remaining: u64,
}

struct Missed {
    since: Instant,
    client: Arc<str>,
    place: u64,
}

/// What a socket does next.
pub(super) enum Next {
    /// Sends this.
    Send(Frame),
    /// Another has its client: nothing more.
    Nothing,
}

/// A longer id is not remembered for one who is away. Front ends have 32 or 36 letters.
const LONGEST_ID: usize = 1024;

/// The ends of some twenty thousand jobs, each missed by its client.
const MOST_MISSED: usize = 65_536;

// === impl Hub ===

impl Hub {
    pub(super) fn new(limits: Limits) -> Self {
        Hub {
            limits,
            state: Mutex::default(),
        }
    }

    pub(super) fn send(&self, id: &str, frame: Frame) {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.forget(now, &self.limits);
        if !state.clients.contains_key(id) {
            let is_full = state.clients.len() >= self.limits.clients;
            if !Client::is_begun_by(&frame) || is_full || id.len() > LONGEST_ID {
                return;
            }
            state.clients.insert(id.into(), Client::new(now));
        }
        let left_out = state.tell(id, frame, now, &self.limits);
        drop(state);
        drop(left_out);
    }

    pub(super) fn broadcast(&self, frame: Frame) {
        let mut state = self.state.lock();
        let left_out = state.tell_all(&frame, &self.limits);
        drop(state);
        drop(left_out);
    }

    pub(super) fn status(&self, remaining: u64) {
        let frame = Frame::status(remaining);
        let mut state = self.state.lock();
        state.remaining = remaining;
        let left_out = state.tell_all(&frame, &self.limits);
        drop(state);
        drop(left_out);
    }

    pub(super) fn is_attached(&self, id: &str) -> bool {
        let state = self.state.lock();
        state.clients.get(id).is_some_and(Client::is_here)
    }

    pub(super) fn count(&self) -> usize {
        let state = self.state.lock();
        state.clients.values().filter(|c| c.is_here()).count()
    }

    /// A socket is there, the newest of its client. How many prompts wait or run: whatever comes after is in its queue.
    pub(super) fn attach(&self, id: &Arc<str>, line: &Arc<Line>) -> u64 {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.forget(now, &self.limits);
        let client = state.clients.entry(id.clone());
        client.or_insert_with(|| Client::new(now));
        state.change(id, |client| client.arrive(line.clone(), &self.limits));
        state.remaining
    }

    /// What the socket does next; `None`: it waits until it is woken. What it was given before was sent.
    pub(super) fn next(&self, id: &Arc<str>, line: &Arc<Line>) -> Option<Next> {
        let mut state = self.state.lock();
        match state.own(id, line, Client::next) {
            Some(frame) => frame.map(Next::Send),
            None => Some(Next::Nothing),
        }
    }

    /// What the socket was given was sent.
    pub(super) fn sent(&self, id: &Arc<str>, line: &Arc<Line>) {
        let mut state = self.state.lock();
        state.own(id, line, |client| client.queue.sent());
    }

    /// Whether the socket is its client's newest.
    pub(super) fn has(&self, id: &Arc<str>, line: &Arc<Line>) -> bool {
        self.state.lock().has(id, line)
    }

    /// The socket ended.
    pub(super) fn detach(&self, id: &Arc<str>, line: &Arc<Line>) {
        let mut state = self.state.lock();
        let is_newest = state.has(id, line);
        let left_out = is_newest.then(|| state.leave(id, Instant::now(), &self.limits));
        drop(state);
        drop(left_out);
    }
}

// === impl State ===

impl State {
    /// Whatever changes what waits for a client goes through here.
    fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Client) -> T) -> Option<T> {
        let client = self.clients.get_mut(id)?;
        let before = client.queue.bytes();
        let changed = change(client);
        self.held = self.held + client.queue.bytes() - before;
        if client.is_idle() {
            self.clients.remove(id);
        }
        Some(changed)
    }

    fn has(&self, id: &str, line: &Arc<Line>) -> bool {
        let client = self.clients.get(id);
        client.is_some_and(|client| client.has(line))
    }

    /// The same for a socket, if it is its client's newest.
    fn own<T>(
        &mut self,
        id: &str,
        line: &Arc<Line>,
        change: impl FnOnce(&mut Client) -> T,
    ) -> Option<T> {
        let is_newest = self.has(id, line);
        is_newest.then(|| self.change(id, change))?
    }

    /// What comes back is for the caller to free, without the lock.
    fn tell(&mut self, id: &str, frame: Frame, now: Instant, limits: &Limits) -> Vec<Frame> {
        let told = self.change(id, |client| {
            let place = client.tell(frame, limits);
            (place, client.is_here())
        });
        match told {
            Some((Some(place), false)) => {
                let client = id.into();
                self.missed.push_back(Missed {
                    since: now,
                    client,
                    place,
                });
            }
            Some((_, true)) if self.is_over(id, limits) => return self.cut(id, now, limits),
            _ => {}
        }
        Vec::new()
    }

    fn tell_all(&mut self, frame: &Frame, limits: &Limits) -> Vec<Frame> {
        let mut over = Vec::new();
        for (id, client) in self.clients.iter_mut().filter(|(_, c)| c.is_here()) {
            let before = client.queue.bytes();
            client.tell(frame.clone(), limits);
            self.held = self.held + client.queue.bytes() - before;
            if client.queue.is_over(limits.kept) {
                over.push(id.clone());
            }
        }
        let now = Instant::now();
        let cut = over.iter().flat_map(|id| self.cut(id, now, limits));
        cut.collect()
    }

    fn is_over(&mut self, id: &str, limits: &Limits) -> bool {
        while self.held > limits.all && self.forget_oldest() {}
        let client = self.clients.get(id);
        client.is_some_and(|client| {
            client.queue.is_over(limits.kept)
                || (self.held > limits.all && client.queue.bytes() > limits.small)
        })
    }

    fn cut(&mut self, id: &str, now: Instant, limits: &Limits) -> Vec<Frame> {
        if let Some(client) = self.clients.get(id) {
            client.cut();
        }
        self.leave(id, now, limits)
    }

    fn leave(&mut self, id: &str, now: Instant, limits: &Limits) -> Vec<Frame> {
        let left = self.change(id, |client| {
            let left_out = client.leave(now, limits);
            (left_out, client.queue.places().collect::<Vec<_>>())
        });
        let (left_out, places) = left.unwrap_or_default();
        let client: Arc<str> = id.into();
        self.missed.extend(places.into_iter().map(|place| Missed {
            since: now,
            client: client.clone(),
            place,
        }));
        left_out
    }

    /// Lets go of what was missed for long enough. Nobody needs a timer for it: it is done whenever something happens.
    fn forget(&mut self, now: Instant, limits: &Limits) {
        while let Some(oldest) = self.missed.front()
            && (now - oldest.since >= limits.missed_for || self.missed.len() > MOST_MISSED)
        {
            self.forget_oldest();
        }
    }

    /// Whether there was something.
    fn forget_oldest(&mut self) -> bool {
        let Some(Missed {
            since,
            client: id,
            place,
        }) = self.missed.pop_front()
        else {
            return false;
        };
        self.change(&id, |client| {
            // One who was here since then has got it, or keeps it for another while.
            if !client.is_here() && client.away_since <= since {
                client.queue.forget(place);
            }
        });
        true
    }
}
