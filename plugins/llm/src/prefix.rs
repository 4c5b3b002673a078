//! Which endpoint has computed how much of a prompt before.
//!
//! Engines keep what they computed of a prompt in blocks, each known by its own tokens and all before it, and forget those first
//! that were not used for longest. Here the same is kept of what was sent there, with blocks of text for blocks of tokens. All
//! of it comes from bytes that went by, so it works for engines that say nothing of their caches; what they do say can only
//! correct it. An endpoint that was restarted has nothing, and is to be forgotten.

use crate::prompt::{MEDIA_BYTES, Piece};
use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// A block's length in bytes of text, which stand for about 128 tokens: with simulated nodes of unequal speed such blocks did as
/// well as knowing the engines' own.
pub const BLOCK: usize = 512;

/// So many blocks of a prompt are looked at: 2 MiB of text, more than engines read.
const BLOCKS_MOST: usize = 4096;

/// The blocks of a prompt, each known by a hash of its text and all before it. A last block that is not full is none.
///
/// The hash is fast and not proof against who wants two to be alike; what comes of that is a guess that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks(Vec<u64>);

/// What one endpoint has computed, as blocks that were sent there; those are forgotten first that were not used for longest.
///
/// Units: at most 40 bytes for each block that it has (16 for its place in the order, and 5 for each place of a table that may be
/// four times as large where much comes and goes): 320 KiB for 8192 blocks, which are a million tokens.
#[derive(Clone, Debug)]
pub struct Prefixes {
    capacity: usize,
    table: HashTable<u32>,
    entries: Vec<Entry>,
    /// The one that was used last.
    newest: u32,
    /// The one that was not used for longest.
    oldest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    newer: u32,
    older: u32,
}

const NONE: u32 = u32::MAX;

// === impl Blocks ===

impl Blocks {
    /// The blocks of a prompt that is sent to a model.
    pub fn of<'a>(model: &str, prompt: impl IntoIterator<Item = Piece<'a>>) -> Self {
        let mut chain = Chain::new(model);
        for piece in prompt {
            if chain.blocks.len() >= BLOCKS_MOST {
                break;
            }
            match piece {
                Piece::Text(text) => chain.text(text),
                Piece::Media(media) => chain.media(media),
            }
        }
        Blocks(chain.blocks)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the prompt is shorter than a block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first so many blocks are known by: a session's key, for whoever wants to bind by the beginning. `None`: there are
    /// fewer.
    pub fn key(&self, blocks: usize) -> Option<u64> {
        self.0.get(blocks.checked_sub(1)?).copied()
    }
}

/// Hashes a prompt block by block, without copying it.
struct Chain {
    hasher: FxHasher,
    /// How many bytes of the block are in the hasher.
    filled: usize,
    blocks: Vec<u64>,
}

impl Chain {
    fn new(model: &str) -> Self {
        let mut hasher = FxHasher::default();
        hasher.write(model.as_bytes());
        Chain {
            hasher,
            filled: 0,
            blocks: Vec::new(),
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes(text);
        // So that `ab`, `c` is not `a`, `bc`: where pieces end is hashed, and takes no room.
        self.hasher.write_u8(0xff);
    }

    /// A picture is known by all of its bytes, and takes the room of the tokens that it stands for.
    fn media(&mut self, media: &[u8]) {
        let mut own = FxHasher::default();
        own.write(media);
        let mut pattern = [0; 64];
        for eight in pattern.as_chunks_mut().0 {
            *eight = own.finish().to_le_bytes();
        }
        for _ in 0..MEDIA_BYTES / pattern.len() {
            self.bytes(&pattern);
        }
        self.hasher.write_u8(0xff);
    }

    fn bytes(&mut self, mut bytes: &[u8]) {
        while self.filled + bytes.len() >= BLOCK {
            if self.blocks.len() >= BLOCKS_MOST {
                return;
            }
            let (block, rest) = bytes.split_at(BLOCK - self.filled);
            self.hasher.write(block);
            let hash = self.hasher.finish();
            self.blocks.push(hash);
            self.hasher = FxHasher::default();
            self.hasher.write_u64(hash);
            (self.filled, bytes) = (0, rest);
        }
        if !bytes.is_empty() {
            self.hasher.write(bytes);
            self.filled += bytes.len();
        }
    }
}

// === impl Prefixes ===

impl Prefixes {
    /// Nothing yet; at most so many blocks.
    pub fn new(capacity: usize) -> Self {
        Prefixes {
            capacity: capacity.clamp(1, NONE as usize),
            table: HashTable::new(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// How many blocks stand for a cache of so many tokens, at so many bytes of text a token.
    pub fn blocks_of(tokens: u64, bytes_per_token: f64) -> usize {
        (tokens as f64 * bytes_per_token / BLOCK as f64) as usize
    }

    /// How many blocks it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many blocks it may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A prompt was sent there.
    pub fn note(&mut self, blocks: &Blocks) {
        // The last first, so that whatever stands in front of a block was used after it, and is forgotten after it.
        let most = blocks.0.len().min(self.capacity);
        for hash in blocks.0[..most].iter().rev() {
            self.touch(*hash);
        }
    }

    /// How many of these blocks, from the first on, it has.
    pub fn hit(&self, blocks: &Blocks) -> usize {
        // Where a block is, all before it are: see `note`.
        blocks.0.partition_point(|hash| self.has(*hash))
    }

    /// The endpoint was restarted, or its memory was another's.
    pub fn forget(&mut self) {
        *self = Prefixes::new(self.capacity);
    }

    /// What engines say of their cache's size is known only after a while.
    pub fn resize(&mut self, capacity: usize) {
        let capacity = capacity.clamp(1, NONE as usize);
        if capacity < self.entries.len() {
            let mut smaller = Prefixes::new(capacity);
            for hash in self
                .newest_first()
                .take(capacity)
                .collect::<Vec<_>>()
                .iter()
                .rev()
            {
                smaller.touch(*hash);
            }
            *self = smaller;
        }
        self.capacity = capacity;
    }

    fn newest_first(&self) -> impl Iterator<Item = u64> {
        let first = self.entries.get(self.newest as usize);
        let older = |entry: &&Entry| self.entries.get(entry.older as usize);
        std::iter::successors(first, older).map(|entry| entry.hash)
    }

    fn has(&self, hash: u64) -> bool {
        self.find(hash).is_some()
    }

    fn find(&self, hash: u64) -> Option<u32> {
        let is_it = |at: &u32| self.entries[*at as usize].hash == hash;
        self.table.find(hash, is_it).copied()
    }

    fn touch(&mut self, hash: u64) {
        let at = match self.find(hash) {
            Some(at) if at == self.newest => return,
            Some(at) => {
                self.unlink(at);
                at
            }
            None => self.make_room(hash),
        };
        let newest = std::mem::replace(&mut self.newest, at);
        self.entries[at as usize] = Entry {
            hash,
            newer: NONE,
            older: newest,
        };
        match self.entries.get_mut(newest as usize) {
            Some(before) => before.newer = at,
            None => self.oldest = at,
        }
    }

    /// A place in the table for a new block, taken from the oldest if there is no other.
    fn make_room(&mut self, hash: u64) -> u32 {
        let at = if self.entries.len() < self.capacity {
            if self.entries.len() == self.entries.capacity() {
                // No more than is needed, which doubling would take.
                let more = self
                    .entries
                    .len()
                    .max(64)
                    .min(self.capacity - self.entries.len());
                self.entries.reserve_exact(more);
            }
            self.entries.push(Entry {
                hash,
                newer: NONE,
                older: NONE,
            });
            self.entries.len() as u32 - 1
        } else {
            let at = self.oldest;
            let gone = self.entries[at as usize].hash;
            if let Ok(found) = self.table.find_entry(gone, |other| *other == at) {
                found.remove();
            }
            self.unlink(at);
            self.entries[at as usize].hash = hash;
            at
        };
        let entries = &self.entries;
        self.table
            .insert_unique(hash, at, |other| entries[*other as usize].hash);
        at
    }

    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(text: &str) -> Blocks {
        Blocks::of("m", [Piece::Text(text.as_bytes())])
    }

    fn prompt(seed: u64, blocks: usize) -> Blocks {
        let hash = |n: u64| {
            ((seed << 20 | n) + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        };
        Blocks((0..blocks as u64).map(hash).collect())
    }

    #[test]
    fn prompts_that_begin_alike_have_their_first_blocks_in_common() {
        let long = "abcdefgh".repeat(1000);
        let (one, other) = (
            blocks(&long),
            blocks(&format!("{}!{}", &long[..1300], &long[1301..])),
        );
        assert_eq!((one.len(), other.len()), (8000 / BLOCK, 8000 / BLOCK));
        assert_eq!(one.0[..2], other.0[..2]);
        assert!(
            one.0[2..].iter().zip(&other.0[2..]).all(|(a, b)| a != b),
            "also those that are alike again"
        );
        assert_eq!(blocks(&long[..BLOCK - 1]).len(), 0);
        assert_eq!(blocks(&long[..BLOCK]).0, one.0[..1]);
        let other = Blocks::of("n", [Piece::Text(long.as_bytes())]);
        assert!(
            one.0.iter().zip(&other.0).all(|(a, b)| a != b),
            "another model's"
        );
        assert_eq!(one.key(2), Some(one.0[1]));
        assert_eq!((one.key(0), one.key(99)), (None, None));
    }

    #[test]
    fn where_pieces_end_counts() {
        let text = "x".repeat(BLOCK + 100);
        let pieces = |at: usize| {
            Blocks::of(
                "m",
                [
                    Piece::Text(&text.as_bytes()[..at]),
                    Piece::Text(&text.as_bytes()[at..]),
                ],
            )
        };
        assert_ne!(pieces(3), pieces(4));
        assert_eq!(
            pieces(BLOCK).0,
            blocks(&text).0,
            "behind the block it is another block's matter"
        );
        let twice = text.repeat(2);
        let one = Blocks::of("m", [Piece::Text(&twice.as_bytes()[..2 * BLOCK])]);
        let two = [0, BLOCK].map(|at| Piece::Text(&twice.as_bytes()[at..at + BLOCK]));
        let two = Blocks::of("m", two);
        assert_eq!(one.0[0], two.0[0]);
        assert_ne!(one.0[1], two.0[1]);
        // A conversation that goes on.
        let more = |n: usize| Blocks::of("m", (0..n).map(|_| Piece::Text(&text.as_bytes()[..300])));
        assert_eq!(more(9).0[..more(5).len()], more(5).0);
    }

    #[test]
    fn a_picture_is_known_by_all_of_it_and_takes_the_room_of_its_tokens() {
        let picture = |last: u8| [&[b'A'; 100_000][..], &[last]].concat();
        let (one, other) = (picture(b'1'), picture(b'2'));
        let of = |media: &[u8]| Blocks::of("m", [Piece::Media(media)]);
        assert_eq!(of(&one).len(), MEDIA_BYTES / BLOCK);
        assert_eq!(of(&one), of(&one.clone()));
        assert_ne!(of(&one).0[0], of(&other).0[0]);
    }

    #[test]
    fn a_prompt_has_so_many_blocks_and_no_more() {
        assert_eq!(
            blocks(&"x".repeat(BLOCK * (BLOCKS_MOST + 5))).len(),
            BLOCKS_MOST
        );
    }

    #[test]
    fn what_was_sent_there_is_a_hit_until_other_things_took_its_room() {
        let mut prefixes = Prefixes::new(10);
        assert_eq!(prefixes.hit(&prompt(1, 4)), 0);
        prefixes.note(&prompt(1, 4));
        assert_eq!(prefixes.hit(&prompt(1, 6)), 4);
        prefixes.note(&prompt(2, 4));
        prefixes.note(&prompt(1, 2));
        // Room for two more: the last blocks of the first prompt were not used for longest.
        prefixes.note(&prompt(3, 4));
        assert_eq!(prefixes.hit(&prompt(1, 4)), 2);
        assert_eq!(prefixes.hit(&prompt(2, 4)), 4);
        assert_eq!(prefixes.hit(&prompt(3, 4)), 4);
        assert_eq!(prefixes.len(), 10);
        prefixes.note(&prompt(4, 30));
        assert_eq!(
            prefixes.hit(&prompt(4, 30)),
            10,
            "of what is too long the beginning is kept"
        );
        prefixes.forget();
        assert_eq!((prefixes.hit(&prompt(4, 30)), prefixes.len()), (0, 0));
    }

    #[test]
    fn it_becomes_smaller_by_forgetting_the_oldest() {
        let mut prefixes = Prefixes::new(100);
        prefixes.note(&prompt(1, 10));
        prefixes.note(&prompt(2, 10));
        prefixes.resize(12);
        assert_eq!((prefixes.len(), prefixes.capacity()), (12, 12));
        assert_eq!(prefixes.hit(&prompt(2, 10)), 10);
        assert_eq!(prefixes.hit(&prompt(1, 10)), 2);
        prefixes.resize(50);
        prefixes.note(&prompt(1, 10));
        assert_eq!(prefixes.len(), 20);
        assert_eq!(Prefixes::blocks_of(131_072, 4.0), 1024);
    }

    /// What the maps take after a million distinct prompts, by their capacities.
    #[test]
    fn a_million_prompts_take_no_more_room_than_a_few() {
        for (capacity, prompts) in [
            (8192, 1_000_000),
            (8193, 40_000),
            (7168, 40_000),
            (300, 40_000),
        ] {
            let mut prefixes = Prefixes::new(capacity);
            for seed in 0..prompts {
                prefixes.note(&prompt(seed, 2));
            }
            assert_eq!(prefixes.len(), capacity);
            let order = prefixes.entries.capacity() * size_of::<Entry>();
            let bytes = order + prefixes.table.allocation_size();
            let each = bytes as f64 / capacity as f64;
            assert!(each <= 40.0, "{each} bytes a block of {capacity}");
        }
    }

    proptest! {
        /// Held against a list that is searched and shifted.
        #[test]
        fn it_forgets_what_was_not_used_for_longest(
            capacity in 1usize..12,
            noted in proptest::collection::vec((0u64..6, 1usize..6), 0..60),
        ) {
            let mut prefixes = Prefixes::new(capacity);
            let mut list: Vec<u64> = Vec::new();
            for (seed, length) in noted {
                let blocks = prompt(seed, length);
                prefixes.note(&blocks);
                for hash in blocks.0[..length.min(capacity)].iter().rev() {
                    list.retain(|other| other != hash);
                    list.insert(0, *hash);
                }
                list.truncate(capacity);
                prop_assert_eq!(prefixes.newest_first().collect::<Vec<_>>(), &list[..]);
                for seed in 0..6 {
                    let asked = prompt(seed, 6);
                    let wants = asked.0.iter().take_while(|hash| list.contains(hash)).count();
                    prop_assert_eq!(prefixes.hit(&asked), wants);
                }
            }
        }
    }

    /// `cargo test --release -p tabane-llm what_prefixes_cost -- --ignored --nocapture`
    #[test]
    #[ignore = "prints times"]
    fn what_prefixes_cost() {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(364);
        crate::cost::print("hash", text.len(), || blocks(&text));
        let messages: Vec<Piece> = text.as_bytes().chunks(70).map(Piece::Text).collect();
        crate::cost::print("hash, messages of 70 B", text.len(), || {
            Blocks::of("m", messages.iter().copied())
        });
        let mut prefixes = Prefixes::new(8192);
        for seed in 0..10_000 {
            prefixes.note(&prompt(seed, 32));
        }
        let (known, unknown) = (prompt(9_999, 32), prompt(1 << 30, 32));
        crate::cost::print("hit of 32 blocks", 0, || prefixes.hit(&known));
        crate::cost::print("miss of 32 blocks", 0, || prefixes.hit(&unknown));
        crate::cost::print("note of 32 known blocks", 0, || prefixes.note(&known));
        let mut seed = 1 << 31;
        crate::cost::print("note of 32 new blocks, with hashing them here", 0, || {
            seed += 1;
            prefixes.note(&prompt(seed, 32));
        });
    }
}
