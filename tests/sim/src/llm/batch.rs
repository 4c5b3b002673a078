//! Which requests an engine works on, step by step: it takes in what fits, reads prompts in pieces, and writes one token of
//! each answer whose prompt was read. No clock, no IO: times are told, and how long a step takes is asked of its load.

use super::cache::{Cache, Place};
use super::token::Token;
use std::collections::VecDeque;
use std::time::Duration;

/// A request, as far as the engine cares.
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) prompt: Vec<Token>,
    /// What it will write, at least one token.
    pub(crate) answer: Vec<Token>,
}

/// When what happened, since the engine began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) came: Duration,
    /// It was taken in.
    pub(crate) began: Duration,
    /// Its prompt was read, and the first token written.
    pub(crate) read: Duration,
    /// The last token that was written.
    pub(crate) wrote: Duration,
}

/// What a step does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whose prompts are read, and how much of them.
    pub(crate) reads: Vec<(u64, usize)>,
    /// Whose answers grow by a token.
    pub(crate) writes: Vec<u64>,
}

/// A token was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrote {
    pub(crate) id: u64,
    /// Which one of its answer.
    pub(crate) at: usize,
    pub(crate) last: bool,
    /// How much of its prompt was in the cache.
    pub(crate) hit: usize,
    pub(crate) slot: usize,
    pub(crate) times: Times,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) prompt: u64,
    pub(crate) hit: u64,
    pub(crate) written: u64,
    pub(crate) steps: u64,
    /// Requests at work, summed over all steps.
    pub(crate) busy: u64,
    /// The longest prompt and answer.
    pub(crate) longest: usize,
    pub(crate) most_running: usize,
    pub(crate) most_waiting: usize,
}

pub(crate) struct Batch {
    cache: Cache,
    /// How many requests it works on at once.
    slots: usize,
    /// How many tokens a step reads and writes at most.
    chunk: usize,
    waiting: VecDeque<(Job, Duration)>,
    running: Vec<Running>,
    counts: Counts,
}

/// A request that was taken in.
pub(crate) struct Running {
    pub(crate) job: Job,
    place: Place,
    /// How much of its prompt is known.
    read: usize,
    pub(crate) written: usize,
    times: Times,
}

// === impl Batch ===

impl Batch {
    pub(crate) fn new(cache: Cache, slots: usize, chunk: usize) -> Self {
        Batch {
            cache,
            slots,
            chunk,
            waiting: VecDeque::new(),
            running: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn put(&mut self, job: Job, now: Duration) {
        self.waiting.push_back((job, now));
        // Whoever is taken in at once does not count as waiting.
        self.take_in(now);
        self.counts.most_waiting = self.counts.most_waiting.max(self.waiting.len());
    }

    /// What is done next. `None`: there is nothing to do.
    pub(crate) fn plan(&mut self, now: Duration) -> Option<Step> {
        self.take_in(now);
        if self.running.is_empty() {
            return None;
        }
        let is_read = |one: &&Running| one.read == one.job.prompt.len();
        let writes: Vec<u64> = self
            .running
            .iter()
            .filter(is_read)
            .map(|one| one.job.id)
            .collect();
        let mut room = self.chunk.saturating_sub(writes.len()).max(1);
        let mut reads = Vec::new();
        for one in self.running.iter().filter(|one| !is_read(one)) {
            let some = room.min(one.job.prompt.len() - one.read);
            if some > 0 {
                reads.push((one.job.id, some));
                room -= some;
            }
        }
        Some(Step { reads, writes })
    }

    /// A step is over. Whoever left meanwhile is not told of.
    pub(crate) fn apply(&mut self, step: &Step, now: Duration) -> Vec<Wrote> {
        self.counts.steps += 1;
        self.counts.busy += (step.reads.len() + step.writes.len()) as u64;
        let mut wrote = Vec::new();
        for (id, some) in &step.reads {
            if let Some(one) = self.running.iter_mut().find(|one| one.job.id == *id) {
                one.read += some;
                if one.read == one.job.prompt.len() {
                    one.times.read = now;
                    wrote.push(*id);
                }
            }
        }
        wrote.extend(&step.writes);
        wrote
            .into_iter()
            .filter_map(|id| self.write(id, now))
            .collect()
    }

    /// Forgets a request, because nobody waits for its answer any more.
    pub(crate) fn abort(&mut self, id: u64) {
        self.waiting.retain(|(job, _)| job.id != id);
        if let Some(at) = self.running.iter().position(|one| one.job.id == id) {
            self.leave(at);
        }
    }

    /// Forgets all prompts that nobody works on.
    pub(crate) fn forget(&mut self) {
        self.cache.forget();
    }

    pub(crate) fn running(&self) -> &[Running] {
        &self.running
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether it would take in one more.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.running.len() < self.slots
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many tokens those at work hold.
    pub(crate) fn used(&self) -> usize {
        self.running.iter().map(|one| one.read + one.written).sum()
    }

    /// How many tokens one request may come to at all.
    pub(crate) fn room(&self) -> usize {
        self.cache.room()
    }

    fn take_in(&mut self, now: Duration) {
        while self.running.len() < self.slots
            && let Some((job, _)) = self.waiting.front()
            && let Some(place) = self.cache.enter(&job.prompt, job.answer.len())
            && let Some((job, came)) = self.waiting.pop_front()
        {
            self.counts.prompt += job.prompt.len() as u64;
            self.counts.hit += place.hit as u64;
            self.running.push(Running {
                read: place.hit,
                written: 0,
                times: Times {
                    came,
                    began: now,
                    ..Times::default()
                },
                job,
                place,
            });
        }
        self.counts.most_running = self.counts.most_running.max(self.running.len());
    }

    fn write(&mut self, id: u64, now: Duration) -> Option<Wrote> {
        let index = self.running.iter().position(|one| one.job.id == id)?;
        let one = self.running.get_mut(index)?;
        let at = one.written;
        one.written += 1;
        one.times.wrote = now;
        self.counts.written += 1;
        let length = one.job.prompt.len() + one.written;
        self.counts.longest = self.counts.longest.max(length);
        let wrote = Wrote {
            id,
            at,
            last: one.written == one.job.answer.len(),
            hit: one.place.hit,
            slot: one.place.slot(),
            times: one.times,
        };
        if wrote.last {
            self.leave(index);
        }
        Some(wrote)
    }

    fn leave(&mut self, index: usize) {
        let one = self.running.remove(index);
        let mut tokens = one.job.prompt;
        tokens.truncate(one.read);
        // The last token was written, and not read again: it is not in the cache.
        tokens.extend_from_slice(&one.job.answer[..one.written.saturating_sub(1)]);
        self.cache.leave(one.place, tokens);
    }
}

// === impl Running ===

impl Running {
    /// Its number, if its place is this slot.
    pub(crate) fn in_slot(&self, slot: usize) -> bool {
        self.place.slot() == slot
    }

    /// How much of its prompt was in the cache, and how much was read besides.
    pub(crate) fn prompt(&self) -> (usize, usize) {
        (self.place.hit, self.read - self.place.hit)
    }
}

// === impl Step ===

impl Step {
    /// How many tokens of prompts are read.
    pub(crate) fn tokens(&self) -> usize {
        self.reads.iter().map(|(_, some)| some).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn job(id: u64, prompt: usize, answer: usize) -> Job {
        let first = id as Token * 1000;
        Job {
            id,
            prompt: (first..first + prompt as Token).collect(),
            answer: vec![7; answer],
        }
    }

    fn batch(slots: usize) -> Batch {
        Batch::new(Cache::blocks(10, 10_000), slots, 100)
    }

    /// Steps until nothing is left: what each one read, and wrote.
    fn steps(batch: &mut Batch) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| {
            let step = batch.plan(NOW)?;
            let wrote = batch.apply(&step, NOW);
            Some((step.tokens(), wrote.len()))
        })
        .collect()
    }

    #[test]
    fn a_prompt_is_read_in_pieces_and_then_a_token_is_written_at_each_step() {
        let mut batch = batch(4);
        batch.put(job(1, 250, 3), NOW);
        assert_eq!(
            steps(&mut batch),
            [(100, 0), (100, 0), (50, 1), (0, 1), (0, 1)]
        );
    }

    #[test]
    fn prompts_are_read_beside_the_answers_of_others() {
        let mut batch = batch(4);
        batch.put(job(1, 50, 4), NOW);
        let first = batch.plan(NOW).unwrap_or_else(|| unreachable!());
        batch.apply(&first, NOW);
        batch.put(job(2, 120, 1), NOW);
        assert_eq!(steps(&mut batch), [(99, 1), (21, 2), (0, 1)]);
    }

    #[test]
    fn more_than_the_slots_wait_in_their_order() {
        let mut batch = batch(2);
        for id in 1..=4 {
            batch.put(job(id, 10, 2), NOW);
        }
        assert_eq!((batch.running().len(), batch.waiting()), (2, 2));
        let mut order = Vec::new();
        while let Some(step) = batch.plan(NOW) {
            let wrote = batch.apply(&step, NOW);
            order.extend(wrote.iter().filter(|one| one.last).map(|one| one.id));
        }
        assert_eq!(order, [1, 2, 3, 4]);
        assert_eq!(
            (batch.counts().most_running, batch.counts().most_waiting),
            (2, 2)
        );
    }

    #[test]
    fn what_was_read_before_is_not_read_again() {
        let mut batch = batch(2);
        batch.put(job(1, 95, 1), NOW);
        assert_eq!(steps(&mut batch), [(95, 1)]);
        batch.put(job(1, 95, 1), NOW);
        assert_eq!(steps(&mut batch), [(5, 1)]);
        assert_eq!((batch.counts().prompt, batch.counts().hit), (190, 90));
    }

    #[test]
    fn whoever_left_makes_room_at_once() {
        let mut batch = batch(1);
        batch.put(job(1, 10, 100), NOW);
        batch.put(job(2, 10, 1), NOW);
        batch.put(job(3, 10, 1), NOW);
        let step = batch.plan(NOW).unwrap_or_else(|| unreachable!());
        batch.abort(1);
        batch.abort(2);
        assert!(batch.apply(&step, NOW).is_empty());
        assert_eq!(steps(&mut batch), [(10, 1)]);
    }
}
