//! What waits for one client, in the order in which it was sent.
//!
//! Each frame has a place, which only grows. One that may be left out is found again by what it says and of what: a later one
//! takes its own place, not the earlier one's, so nothing ever overtakes anything.

use super::{Limits, Room, is_lasting};
use crate::frames::{Event, Frame};
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Queue {
    waiting: BTreeMap<u64, Frame>,
    /// Where those wait that may be left out.
    passing: BTreeMap<Key, u64>,
    next: u64,
    /// Not known to be sent yet. One that may be left out is not held.
    in_hand: Option<(u64, Frame)>,
    /// What is never left out, the one in hand among it.
    kept: Load,
    /// What may be.
    loose: Load,
}

/// Of frames with the same key the latest will do.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Status,
    Progress(Option<Arc<str>>, Option<Arc<str>>),
    ProgressState(Option<Arc<str>>),
    Preview(Option<Arc<str>>, Option<Arc<str>>),
}

#[derive(Clone, Copy, Default)]
struct Load {
    frames: usize,
    bytes: usize,
}

/// What a frame takes besides its message: itself, its place, the names in it.
const FRAME: usize = 200;

// === impl Queue ===

impl Queue {
    /// Puts it behind all others, and says where.
    pub(super) fn push(&mut self, frame: Frame, limits: &Limits) -> u64 {
        let place = self.next;
        self.next += 1;
        if let Some(key) = Key::of(&frame) {
            self.loose.add(&frame);
            if let Some(before) = self.passing.insert(key, place) {
                self.leave_out(before);
            }
            while self.loose.frames > 1 && self.loose.is_over(limits.passing) {
                self.leave_out_oldest();
            }
        } else {
            if frame.event == Event::Executing(None) {
                self.pin_status();
            }
            self.kept.add(&frame);
        }
        self.waiting.insert(place, frame);
        place
    }

    /// The next one to send. The one before was sent.
    pub(super) fn take(&mut self) -> Option<Frame> {
        self.sent();
        let (place, frame) = self.waiting.pop_first()?;
        if self.passes(place, &frame) {
            self.forget_key(&frame);
            self.loose.take(&frame);
        } else {
            self.in_hand = Some((place, frame.clone()));
        }
        Some(frame)
    }

    /// The one in hand was sent.
    pub(super) fn sent(&mut self) {
        if let Some((_, frame)) = self.in_hand.take() {
            self.kept.take(&frame);
        }
    }

    /// The one in hand was not sent, as far as can be known: it is the first again.
    pub(super) fn take_back(&mut self) {
        self.waiting.extend(self.in_hand.take());
    }

    /// Whether what was put there still waits.
    pub(super) fn waits(&self, place: u64) -> bool {
        self.waiting.contains_key(&place)
    }

    /// Takes out all that one who is away need not know, and gives it back: to free it may take a while.
    pub(super) fn keep_lasting(&mut self, room: Room) -> Vec<Frame> {
        self.take_back();
        self.passing.clear();
        self.loose = Load::default();
        self.kept = Load::default();
        let mut left_out = Vec::new();
        for (place, frame) in mem::take(&mut self.waiting) {
            if is_lasting(&frame) {
                self.kept.add(&frame);
                self.waiting.insert(place, frame);
            } else {
                left_out.push(frame);
            }
        }
        self.trim(room);
        left_out
    }

    /// Puts in what one who is away has to know later, and says where.
    pub(super) fn miss(&mut self, frame: Frame, room: Room) -> u64 {
        let place = self.next;
        self.next += 1;
        self.kept.add(&frame);
        self.waiting.insert(place, frame);
        self.trim(room);
        place
    }

    /// Takes out what one who is away has missed for long enough.
    pub(super) fn forget(&mut self, place: u64) {
        if let Some(frame) = self.waiting.remove(&place) {
            self.kept.take(&frame);
        }
    }

    /// Where something waits.
    pub(super) fn places(&self) -> impl Iterator<Item = u64> {
        self.waiting.keys().copied()
    }

    /// Whether there is more of what is never left out than may be. A single frame may always be, however long it is.
    pub(super) fn is_over(&self, room: Room) -> bool {
        self.kept.frames > 1 && self.kept.is_over(room)
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.kept.bytes + self.loose.bytes
    }

    /// Whether there is nothing, not even in hand.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_hand.is_none()
    }

    /// Keeps what waits of one who is away within its bounds: the oldest goes.
    fn trim(&mut self, room: Room) {
        while self.kept.is_over(room)
            && let Some((_, frame)) = self.waiting.pop_first()
        {
            self.kept.take(&frame);
        }
    }

    fn passes(&self, place: u64, frame: &Frame) -> bool {
        let key = Key::of(frame);
        key.is_some_and(|key| self.passing.get(&key) == Some(&place))
    }

    fn forget_key(&mut self, frame: &Frame) {
        if let Some(key) = Key::of(frame) {
            self.passing.remove(&key);
        }
    }

    fn leave_out(&mut self, place: u64) {
        if let Some(frame) = self.waiting.remove(&place) {
            self.loose.take(&frame);
        }
    }

    fn leave_out_oldest(&mut self) {
        let oldest = self.passing.values().min().copied();
        if let Some(frame) = oldest.and_then(|place| self.waiting.get(&place)).cloned() {
            self.forget_key(&frame);
        }
        if let Some(place) = oldest {
            self.leave_out(place);
        }
    }

    /// A prompt ends: who waits for that sees the count without it before, as from a real server.
    fn pin_status(&mut self) {
        let place = self.passing.remove(&Key::Status);
        if let Some(frame) = place.and_then(|place| self.waiting.get(&place)) {
            self.loose.take(frame);
            self.kept.add(frame);
        }
    }
}

// === impl Key ===

impl Key {
    /// `None`: it is never left out.
    fn of(frame: &Frame) -> Option<Self> {
        let prompt = || frame.prompt.clone();
        match &frame.event {
            Event::Status => Some(Key::Status),
            Event::Progress(node) => Some(Key::Progress(prompt(), node.clone())),
            Event::ProgressState => Some(Key::ProgressState(prompt())),
            Event::Preview {
                node,
                is_result: false,
            } => Some(Key::Preview(prompt(), node.clone())),
            _ => None,
        }
    }
}

// === impl Load ===

impl Load {
    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.bytes += frame.size() + FRAME;
    }

    fn take(&mut self, frame: &Frame) {
        self.frames -= 1;
        self.bytes -= frame.size() + FRAME;
    }

    fn is_over(self, room: Room) -> bool {
        self.frames > room.frames || self.bytes > room.bytes
    }
}
