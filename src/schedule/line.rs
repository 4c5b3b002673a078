use super::span::Span;
use super::ticket::Place;

/// The line of one service: the places of all who wait for it, in order, each with the time its work is expected
/// to take.
///
/// A sorted list in blocks that know their own sums. With `n` in line, every question and every change costs
/// a walk over `n / BLOCK` blocks and one block: with 100 000 about a microsecond. Leaving from the front, which
/// is what happens most, finds its block at once.
#[derive(Debug, Default)]
pub(super) struct Line {
    blocks: Vec<Block>,
}

/// Never empty while it is in a line.
#[derive(Debug)]
struct Block {
    places: Vec<(Place, Span)>,
    /// Of all in it. Made anew at every change, so that rounding errors never gather.
    sum: Span,
}

/// How many places a block holds before it is split: near the square root of the longest line we promise.
const BLOCK: usize = 512;

// === impl Line ===

impl Line {
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.places.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The time that the work of all in line takes, one after the other.
    pub(super) fn total(&self) -> Span {
        self.blocks.iter().map(|block| block.sum).sum()
    }

    /// How many stand before a place, and the time that their work takes, one after the other.
    pub(super) fn before(&self, place: Place) -> (usize, Span) {
        let own = self.block_of(place);
        let (whole, rest) = self.blocks.split_at(own);
        let rest = rest.first().map_or(&[][..], |block| {
            &block.places[..block.places.partition_point(|(other, _)| *other < place)]
        });
        let count = whole.iter().map(|block| block.places.len()).sum::<usize>() + rest.len();
        let time = whole.iter().map(|block| block.sum).sum::<Span>()
            + rest.iter().map(|(_, time)| *time).sum();
        (count, time)
    }

    pub(super) fn insert(&mut self, place: Place, time: Span) {
        // Whoever comes after all others joins the last block.
        let own = self.block_of(place).min(self.blocks.len().max(1) - 1);
        if self.blocks.is_empty() {
            self.blocks.push(Block::of(vec![(place, time)]));
            return;
        }
        let block = &mut self.blocks[own];
        let at = block.places.partition_point(|(other, _)| *other < place);
        block.places.insert(at, (place, time));
        if block.places.len() > BLOCK {
            let upper = Block::of(block.places.split_off(BLOCK / 2));
            self.blocks.insert(own + 1, upper);
        }
        self.blocks[own].count();
    }

    pub(super) fn remove(&mut self, place: Place) {
        let own = self.block_of(place);
        let Some(block) = self.blocks.get_mut(own) else {
            return;
        };
        let Ok(at) = block
            .places
            .binary_search_by(|(other, _)| other.cmp(&place))
        else {
            return;
        };
        block.places.remove(at);
        if block.places.is_empty() {
            self.blocks.remove(own);
        } else {
            block.count();
        }
    }

    /// The block that holds a place, or would; past the last when it comes after all others.
    fn block_of(&self, place: Place) -> usize {
        self.blocks
            .partition_point(|block| block.places.last().is_some_and(|(last, _)| *last < place))
    }
}

impl Block {
    fn of(places: Vec<(Place, Span)>) -> Self {
        let mut block = Block {
            places,
            sum: Span::default(),
        };
        block.count();
        block
    }

    fn count(&mut self) {
        self.sum = self.places.iter().map(|(_, time)| *time).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::super::ticket::{TicketId, Turn};
    use super::*;
    use crate::cases;
    use proptest::prelude::*;
    use tabane_api::Urgency;

    /// Whoever comes, leaves, and asks.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        In(u8, i64),
        Out(usize),
    }

    fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u8..8, 0i64..100_000).prop_map(|(urgency, seq)| Step::In(urgency, seq)),
            1 => (0usize..100_000).prop_map(Step::Out),
        ];
        proptest::collection::vec(step, 0..most)
    }

    /// A plain list, sorted and scanned, says the same as the line after any steps.
    fn as_a_plain_list(steps: Vec<Step>) {
        let (mut line, mut plain) = (Line::default(), Vec::<(Place, f64)>::new());
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::In(urgency, seq) => {
                    let place = (
                        Urgency::new(urgency),
                        Turn::Stored(seq),
                        TicketId(id as u64),
                    );
                    let seconds = (seq % 7) as f64;
                    line.insert(place, Span::new(seconds, 0.0));
                    plain.push((place, seconds));
                }
                Step::Out(of) if !plain.is_empty() => {
                    let (place, _) = plain.swap_remove(of % plain.len());
                    line.remove(place);
                    // Leaving twice is nothing.
                    line.remove(place);
                }
                Step::Out(_) => {}
            }
        }
        assert_eq!(line.len(), plain.len());
        assert_eq!(line.is_empty(), plain.is_empty());
        let total: f64 = plain.iter().map(|(_, seconds)| seconds).sum();
        assert_eq!(line.total().mean_s(), total);
        for (place, _) in plain.iter().step_by(1 + plain.len() / 16) {
            let before = plain.iter().filter(|(other, _)| other < place);
            let (count, seconds) =
                before.fold((0, 0.0), |(n, sum), (_, seconds)| (n + 1, sum + seconds));
            let (rank, time) = line.before(*place);
            assert_eq!((rank, time.mean_s()), (count, seconds));
        }
    }

    #[test]
    fn a_line_says_what_a_plain_list_says() {
        cases::tried(300, steps(200), as_a_plain_list);
        // Enough for blocks to be split and to be emptied.
        cases::tried(8, steps(6000), as_a_plain_list);
    }

    #[test]
    fn whoever_joins_at_the_end_and_leaves_at_the_front_leaves_nothing_behind() {
        let place = |seq: i64| (Urgency::default(), Turn::Stored(seq), TicketId(seq as u64));
        let mut line = Line::default();
        for seq in 0..5000 {
            line.insert(place(seq), Span::new(0.1, 0.1));
        }
        assert_eq!(line.before(place(4321)).0, 4321);
        for seq in 0..5000 {
            assert_eq!(line.before(place(seq)), (0, Span::default()));
            line.remove(place(seq));
        }
        assert!(line.is_empty() && line.blocks.is_empty());
        assert_eq!(line.total(), Span::default(), "no rounding error stays");
    }
}
