//! What an engine still has of earlier prompts, so that it need not read them again. No clock, no IO.
//!
//! vLLM and SGLang keep blocks of tokens that all requests share; the longest unused one makes room. llama.cpp, and so Ollama,
//! keeps in each slot what was in it last, and gives a request the free slot that has most of it.

use super::token::Token;
use std::collections::{BTreeMap, HashMap};

/// Prefixes that were read.
pub(crate) enum Cache {
    Blocks(Blocks),
    Slots(Slots),
}

/// A request's place in it.
#[derive(Debug)]
pub(crate) struct Place {
    /// How many of its first tokens were there.
    pub(crate) hit: usize,
    /// Blocks that it holds, or the slot's number.
    held: Vec<u64>,
    slot: usize,
    /// How many blocks it has of its own, or may come to need.
    reserved: usize,
}

/// A pool of blocks of tokens.
pub(crate) struct Blocks {
    /// How many tokens a block has.
    size: usize,
    /// How many blocks there are.
    all: usize,
    /// Blocks that have content, by what they and all before them say.
    known: HashMap<u64, Block>,
    /// Those of them that nobody holds, the longest unused first.
    idle: BTreeMap<u64, u64>,
    /// How many blocks with content are held.
    held: usize,
    /// How many blocks requests have of their own, or may come to need.
    promised: usize,
    tick: u64,
}

struct Block {
    holders: usize,
    used: u64,
}

/// What each slot had in it last.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    tick: u64,
}

#[derive(Default)]
struct Slot {
    tokens: Vec<Token>,
    taken: bool,
    used: u64,
}

/// How much of a prompt has to be in a slot for it to be taken for that; llama.cpp's `--slot-prompt-similarity`.
const SIMILAR: f64 = 0.1;

// === impl Cache ===

impl Cache {
    pub(crate) fn blocks(size: usize, tokens: usize) -> Self {
        Cache::Blocks(Blocks {
            size,
            all: tokens.div_ceil(size),
            known: HashMap::new(),
            idle: BTreeMap::new(),
            held: 0,
            promised: 0,
            tick: 0,
        })
    }

    pub(crate) fn slots(count: usize) -> Self {
        Cache::Slots(Slots {
            slots: (0..count).map(|_| Slot::default()).collect(),
            tick: 0,
        })
    }

    /// Finds room for a prompt and its answer. `None`: there is none now.
    pub(crate) fn enter(&mut self, prompt: &[Token], answer: usize) -> Option<Place> {
        match self {
            Cache::Blocks(blocks) => blocks.enter(prompt, answer),
            Cache::Slots(slots) => slots.enter(prompt),
        }
    }

    /// A request ended: what was read and written of it stays, as long as nothing else needs the room.
    pub(crate) fn leave(&mut self, place: Place, tokens: Vec<Token>) {
        match self {
            Cache::Blocks(blocks) => blocks.leave(place, &tokens),
            Cache::Slots(slots) => slots.leave(&place, tokens),
        }
    }

    /// Forgets everything that nobody holds.
    pub(crate) fn forget(&mut self) {
        match self {
            Cache::Blocks(blocks) => {
                let idle = std::mem::take(&mut blocks.idle);
                idle.values().for_each(|hash| {
                    blocks.known.remove(hash);
                });
            }
            Cache::Slots(slots) => {
                let free = slots.slots.iter_mut().filter(|slot| !slot.taken);
                free.for_each(|slot| slot.tokens.clear());
            }
        }
    }

    /// How many tokens it can hold at all; slots hold each what their context allows.
    pub(crate) fn room(&self) -> usize {
        match self {
            Cache::Blocks(blocks) => blocks.all * blocks.size,
            Cache::Slots(_) => usize::MAX,
        }
    }
}

// === impl Place ===

impl Place {
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }
}

// === impl Blocks ===

impl Blocks {
    fn enter(&mut self, prompt: &[Token], answer: usize) -> Option<Place> {
        self.tick += 1;
        let needed = (prompt.len() + answer).div_ceil(self.size);
        // The last token is read in any case: it is what the first one of the answer comes from.
        let most = prompt.len().saturating_sub(1) / self.size;
        let chain = chain(prompt, self.size);
        let found: Vec<u64> = chain
            .take(most)
            .take_while(|hash| self.known.contains_key(hash))
            .collect();
        let is_idle = |hash: &&u64| {
            self.known
                .get(*hash)
                .is_some_and(|block| block.holders == 0)
        };
        let newly_held = found.iter().filter(is_idle).count();
        let reserved = needed - found.len();
        // What it shares with others costs nothing more.
        if self.held + newly_held + self.promised + reserved > self.all {
            return None;
        }
        self.held += newly_held;
        self.promised += reserved;
        for hash in &found {
            if let Some(block) = self.known.get_mut(hash) {
                if block.holders == 0 {
                    self.idle.remove(&block.used);
                }
                block.holders += 1;
            }
        }
        self.make_room();
        Some(Place {
            hit: found.len() * self.size,
            held: found,
            slot: 0,
            reserved,
        })
    }

    fn leave(&mut self, place: Place, tokens: &[Token]) {
        let kept: Vec<u64> = chain(tokens, self.size).collect();
        for hash in place.held.iter().rev() {
            if let Some(block) = self.known.get_mut(hash) {
                block.holders -= 1;
                if block.holders == 0 {
                    self.tick += 1;
                    block.used = self.tick;
                    self.idle.insert(self.tick, *hash);
                    self.held -= 1;
                }
            }
        }
        self.promised -= place.reserved;
        // The end of a text is of use to fewer others than its beginning: it goes first.
        for hash in kept.into_iter().rev() {
            self.tick += 1;
            let used = self.tick;
            match self.known.get_mut(&hash) {
                Some(block) if block.holders == 0 => {
                    self.idle.remove(&block.used);
                    block.used = used;
                    self.idle.insert(used, hash);
                }
                Some(_) => {}
                None => {
                    self.known.insert(hash, Block { holders: 0, used });
                    self.idle.insert(used, hash);
                }
            }
        }
        self.make_room();
    }

    /// Forgets what was longest unused, until what is promised has its room.
    fn make_room(&mut self) {
        while self.held + self.promised + self.idle.len() > self.all
            && let Some((_, hash)) = self.idle.pop_first()
        {
            self.known.remove(&hash);
        }
    }
}

/// A number for each full block, of all that is said up to its end.
fn chain(tokens: &[Token], size: usize) -> impl Iterator<Item = u64> {
    let full = tokens.chunks_exact(size);
    full.scan(0xcbf2_9ce4_8422_2325_u64, |hash, block| {
        for token in block {
            *hash = (*hash ^ u64::from(*token))
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
        Some(*hash)
    })
}

// === impl Slots ===

impl Slots {
    fn enter(&mut self, prompt: &[Token]) -> Option<Place> {
        let shared = |slot: &Slot| {
            let pairs = slot.tokens.iter().zip(prompt);
            pairs.take_while(|(had, wanted)| had == wanted).count()
        };
        let free = || {
            self.slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| !slot.taken)
        };
        let similar = free()
            .map(|(at, slot)| (shared(slot), at))
            .filter(|(shared, _)| *shared as f64 > SIMILAR * prompt.len() as f64)
            .max_by_key(|(shared, at)| (*shared, std::cmp::Reverse(*at)));
        let at = match similar {
            Some((_, at)) => at,
            None => free().min_by_key(|(at, slot)| (slot.used, *at))?.0,
        };
        let slot = &mut self.slots[at];
        let hit = shared(slot).min(prompt.len().saturating_sub(1));
        self.tick += 1;
        slot.taken = true;
        slot.used = self.tick;
        Some(Place {
            hit,
            held: Vec::new(),
            slot: at,
            reserved: 0,
        })
    }

    fn leave(&mut self, place: &Place, tokens: Vec<Token>) {
        self.tick += 1;
        let slot = &mut self.slots[place.slot];
        slot.taken = false;
        slot.used = self.tick;
        slot.tokens = tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One prompt, and what is kept of it.
    fn run(cache: &mut Cache, prompt: &[Token]) -> usize {
        let place = cache.enter(prompt, 0).expect("there is room");
        let hit = place.hit;
        cache.leave(place, prompt.to_vec());
        hit
    }

    fn prompt(first: Token, length: usize) -> Vec<Token> {
        (0..length as Token).map(|i| first * 1000 + i).collect()
    }

    #[test]
    fn full_blocks_are_found_again_and_the_last_token_is_always_read() {
        let mut cache = Cache::blocks(16, 1600);
        assert_eq!(run(&mut cache, &prompt(1, 40)), 0);
        assert_eq!(run(&mut cache, &prompt(1, 40)), 32);
        assert_eq!(run(&mut cache, &prompt(1, 32)), 16);
        let mut other = prompt(1, 40);
        other[20] = 7;
        assert_eq!(run(&mut cache, &other), 16);
    }

    #[test]
    fn the_longest_unused_prefix_makes_room() {
        let mut cache = Cache::blocks(10, 100);
        run(&mut cache, &prompt(1, 50));
        run(&mut cache, &prompt(2, 50));
        assert_eq!(run(&mut cache, &prompt(1, 50)), 40);
        // Room for one more: the second one goes.
        run(&mut cache, &prompt(3, 50));
        assert_eq!(run(&mut cache, &prompt(1, 50)), 40);
        assert_eq!(run(&mut cache, &prompt(2, 50)), 0);
    }

    #[test]
    fn what_does_not_fit_waits_and_what_is_shared_costs_once() {
        let mut cache = Cache::blocks(10, 100);
        run(&mut cache, &prompt(1, 60));
        let first = cache.enter(&prompt(1, 61), 9).expect("there is room");
        assert_eq!(first.hit, 60);
        let second = cache
            .enter(&prompt(1, 61), 9)
            .expect("they share their prompt");
        let third = cache.enter(&prompt(2, 30), 0);
        assert!(third.is_none());
        cache.leave(first, prompt(1, 61));
        assert!(cache.enter(&prompt(2, 30), 10).is_none());
        let third = cache.enter(&prompt(2, 20), 0).expect("there is room");
        cache.leave(third, Vec::new());
        cache.leave(second, prompt(1, 61));
        assert!(cache.enter(&prompt(2, 30), 10).is_some());
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_however_requests_come_and_go() {
        let mut cache = Cache::blocks(4, 200);
        let mut inside: Vec<(Place, Vec<Token>)> = Vec::new();
        let mut draw = 1_u32;
        for _ in 0..20_000 {
            draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (kind, length) = ((draw >> 24) % 5, ((draw >> 16) % 60) as usize + 1);
            if (draw >> 12).is_multiple_of(2) && !inside.is_empty() {
                let (place, tokens) = inside.swap_remove(length % inside.len());
                cache.leave(place, tokens);
            } else {
                let tokens = prompt(kind, length);
                if let Some(place) = cache.enter(&tokens, length % 7) {
                    inside.push((place, tokens));
                }
            }
            let Cache::Blocks(blocks) = &cache else {
                unreachable!()
            };
            assert!(blocks.held + blocks.promised + blocks.idle.len() <= blocks.all);
            let held = blocks.known.values().filter(|block| block.holders > 0);
            assert_eq!(held.count(), blocks.held);
            let idle = blocks.known.values().filter(|block| block.holders == 0);
            assert_eq!(idle.count(), blocks.idle.len());
        }
        for (place, tokens) in inside {
            cache.leave(place, tokens);
        }
        let Cache::Blocks(blocks) = &cache else {
            unreachable!()
        };
        assert_eq!((blocks.held, blocks.promised), (0, 0));
    }

    #[test]
    fn a_slot_is_chosen_for_what_it_has_and_else_the_longest_unused() {
        let mut cache = Cache::slots(2);
        run(&mut cache, &prompt(1, 40));
        run(&mut cache, &prompt(2, 40));
        assert_eq!(run(&mut cache, &prompt(1, 40)), 39);
        // The second slot is the longest unused.
        run(&mut cache, &prompt(3, 40));
        assert_eq!(run(&mut cache, &prompt(1, 41)), 40);
        assert_eq!(run(&mut cache, &prompt(2, 40)), 0);
        let first = cache.enter(&prompt(1, 5), 0);
        let second = cache.enter(&prompt(1, 5), 0);
        assert!(first.is_some() && second.is_some());
        assert!(cache.enter(&prompt(1, 5), 0).is_none());
    }
}
