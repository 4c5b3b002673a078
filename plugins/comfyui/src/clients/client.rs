//! What is known of one client: its newest socket, what waits for it, and how far its jobs are.

use super::queue::Queue;
use super::{Limits, is_lasting};
use crate::frames::{Event, Frame};
use indexmap::IndexMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) struct Client {
    line: Option<Arc<Line>>,
    /// Its socket has nothing to send and sleeps.
    sleeps: bool,
    pub(super) queue: Queue,
    /// Its prompts that run, in the order in which they began.
    running: IndexMap<Arc<str>, Running>,
    /// Since when no socket was there, if none is.
    pub(super) away_since: Instant,
}

/// How its socket is reached.
#[derive(Default)]
pub(super) struct Line {
    /// There is something to send.
    pub(super) wake: Notify,
    /// More waits than may: it is to be closed.
    pub(super) cut: Notify,
}

#[derive(Default)]
struct Running {
    executing: Option<Executing>,
    state: Option<Frame>,
}

struct Executing {
    frame: Frame,
    /// Where it waits, or waited; `None`: nobody was there.
    place: Option<u64>,
}

/// More than one client has nodes at work for it.
const MOST_RUNNING: usize = 1024;

// === impl Client ===

impl Client {
    pub(super) fn new(now: Instant) -> Self {
        Client {
            line: None,
            sleeps: false,
            queue: Queue::default(),
            running: IndexMap::new(),
            away_since: now,
        }
    }

    /// Whether a client that nobody knows of is to be remembered for this frame.
    pub(super) fn is_begun_by(frame: &Frame) -> bool {
        let runs = matches!(frame.event, Event::Start | Event::Executing(Some(_)));
        (runs && frame.prompt.is_some()) || is_lasting(frame)
    }

    pub(super) fn is_here(&self) -> bool {
        self.line.is_some()
    }

    /// Nobody would miss it.
    pub(super) fn is_idle(&self) -> bool {
        self.line.is_none() && self.running.is_empty() && self.queue.is_empty()
    }

    pub(super) fn has(&self, line: &Arc<Line>) -> bool {
        let own = self.line.as_ref();
        own.is_some_and(|own| Arc::ptr_eq(own, line))
    }

    /// Puts a frame where its socket finds it; of one who is away, what it has to know later. Where it waits.
    pub(super) fn tell(&mut self, frame: Frame, limits: &Limits) -> Option<u64> {
        let is_here = self.is_here();
        let place = if is_here {
            Some(self.queue.push(frame.clone(), limits))
        } else if is_lasting(&frame) {
            Some(self.queue.miss(frame.clone(), limits.missed))
        } else {
            None
        };
        self.follow(frame, place);
        if is_here && self.sleeps {
            self.wake();
        }
        place
    }

    /// A new socket is there.
    pub(super) fn arrive(&mut self, line: Arc<Line>, limits: &Limits) {
        self.queue.take_back();
        self.line = Some(line);
        for running in self.running.values_mut() {
            if let Some(executing) = &mut running.executing
                && !executing.place.is_some_and(|it| self.queue.waits(it))
            {
                let frame = executing.frame.clone();
                executing.place = Some(self.queue.push(frame, limits));
            }
            if let Some(frame) = &running.state {
                self.queue.push(frame.clone(), limits);
            }
        }
    }

    /// No socket is there any more. What it need not know later is given back.
    pub(super) fn leave(&mut self, now: Instant, limits: &Limits) -> Vec<Frame> {
        self.line = None;
        self.away_since = now;
        self.queue.keep_lasting(limits.missed)
    }

    /// Its socket is to be closed.
    pub(super) fn cut(&self) {
        if let Some(line) = &self.line {
            line.cut.notify_one();
        }
    }

    /// The next frame to send. Where there is none, its socket is woken by the next that comes.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let next = self.queue.take();
        self.sleeps = next.is_none();
        next
    }

    fn wake(&mut self) {
        self.sleeps = false;
        if let Some(line) = &self.line {
            line.wake.notify_one();
        }
    }

    /// Keeps what somebody who comes now has to be told of what runs.
    fn follow(&mut self, frame: Frame, place: Option<u64>) {
        let Some(prompt) = frame.prompt.clone() else {
            return;
        };
        match frame.event {
            Event::Start => {
                self.running.insert(prompt, Running::default());
            }
            Event::Executing(Some(_)) => {
                let running = self.running.entry(prompt).or_default();
                running.executing = Some(Executing { frame, place });
            }
            Event::ProgressState => {
                if let Some(running) = self.running.get_mut(&prompt) {
                    running.state = Some(frame);
                }
            }
            Event::Executing(None) | Event::Success | Event::Error | Event::Interrupted => {
                self.running.shift_remove(&prompt);
            }
            _ => {}
        }
        if self.running.len() > MOST_RUNNING {
            self.running.shift_remove_index(0);
        }
    }
}
