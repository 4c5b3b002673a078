//! Lines of a stream that comes in chunks of any size, and what is kept of an answer that is too long to keep.

use memchr::memchr;

/// So long may a line be, or an answer that does not stream, to be kept whole.
const WHOLE_MOST: usize = 32 << 10;
/// So much of a longer one's beginning is kept, and at least so much of its end, where engines write what was used.
const HEAD: usize = 2 << 10;
const TAIL: usize = 8 << 10;

/// Cuts a stream into lines.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// What has come of a line that is not over.
    begun: Ends,
}

/// The beginning and the end of bytes that go by; all of them, where they are few.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    head: Vec<u8>,
    tail: Vec<u8>,
    cut: bool,
}

/// What is kept of bytes that went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept<'a> {
    /// All of them.
    Whole(&'a [u8]),
    /// The beginning and the end.
    Ends(&'a [u8], &'a [u8]),
}

// === impl Lines ===

impl Lines {
    /// Gives each line that is over with this chunk, without its end (`\n` or `\r\n`).
    #[inline]
    pub fn feed(&mut self, mut chunk: &[u8], mut each: impl FnMut(Kept<'_>)) {
        while let Some(end) = memchr(b'\n', chunk) {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            // Most lines come whole, and are not copied.
            if self.begun.is_empty() {
                each(Kept::Whole(line).trimmed());
            } else {
                self.begun.add(line);
                each(self.begun.kept().trimmed());
                self.begun.clear();
            }
            chunk = rest;
        }
        self.begun.add(chunk);
    }

    /// What has come of a line that is not over.
    pub fn begun(&self) -> Kept<'_> {
        self.begun.kept().trimmed()
    }
}

// === impl Ends ===

impl Ends {
    /// More of them.
    pub fn add(&mut self, mut bytes: &[u8]) {
        if !self.cut {
            if self.head.len() + bytes.len() <= WHOLE_MOST {
                self.head.extend_from_slice(bytes);
                return;
            }
            self.cut = true;
            match HEAD.checked_sub(self.head.len()) {
                Some(room) => {
                    let (more, rest) = bytes.split_at(room);
                    self.head.extend_from_slice(more);
                    bytes = rest;
                }
                None => self.tail = self.head.split_off(HEAD),
            }
        }
        // What is cut off is cut off rarely, so that each byte is moved once, more or less.
        if bytes.len() >= TAIL {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - TAIL..]);
            return;
        }
        if self.tail.len() + bytes.len() > WHOLE_MOST {
            self.tail.drain(..self.tail.len() - TAIL);
        }
        self.tail.extend_from_slice(bytes);
    }

    /// What is kept of them.
    pub fn kept(&self) -> Kept<'_> {
        match self.cut {
            false => Kept::Whole(&self.head),
            true => Kept::Ends(&self.head, &self.tail),
        }
    }

    fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    fn clear(&mut self) {
        if self.cut {
            *self = Ends::default();
        }
        self.head.clear();
    }
}

// === impl Kept ===

impl<'a> Kept<'a> {
    /// Their beginning.
    pub fn head(self) -> &'a [u8] {
        match self {
            Kept::Whole(all) => all,
            Kept::Ends(head, _) => head,
        }
    }

    /// Their end.
    pub fn tail(self) -> &'a [u8] {
        match self {
            Kept::Whole(all) => all,
            Kept::Ends(_, tail) => tail,
        }
    }

    /// What follows these words, where they begin so.
    pub fn after(self, prefix: &[u8]) -> Option<Self> {
        Some(match self {
            Kept::Whole(all) => Kept::Whole(all.strip_prefix(prefix)?),
            Kept::Ends(head, tail) => Kept::Ends(head.strip_prefix(prefix)?, tail),
        })
    }

    fn trimmed(self) -> Self {
        let trim = |bytes: &'a [u8]| bytes.strip_suffix(b"\r").unwrap_or(bytes);
        match self {
            Kept::Whole(all) => Kept::Whole(trim(all)),
            Kept::Ends(head, tail) => Kept::Ends(head, trim(tail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_a_long_line_both_ends_are_kept_and_no_more() {
        let long: Vec<u8> = (0..1_000_000u32).map(|n| b'a' + (n % 26) as u8).collect();
        for size in [1, 1000, 9000, 100_000, 1_000_000] {
            let (mut lines, mut most) = (Lines::default(), 0);
            let mut seen = Vec::new();
            let mut each = |line: Kept<'_>| seen.push((line.head().to_vec(), line.tail().to_vec()));
            for chunk in long.chunks(size) {
                lines.feed(chunk, &mut each);
                most = most.max(lines.begun.head.len() + lines.begun.tail.len());
            }
            lines.feed(b"\r\nshort\n", &mut each);
            assert!(most <= WHOLE_MOST + HEAD, "{most}");
            let (head, tail) = &seen[0];
            assert!(head[..] == long[..HEAD], "{}", head.len());
            assert!(tail.len() >= TAIL - 1, "{}", tail.len());
            assert!(long.ends_with(tail));
            assert_eq!(seen[1].0, b"short");
        }
    }

    proptest! {
        #[test]
        fn chunks_of_any_size_make_the_same_lines(
            text in "[ab\r\n]{0,80}",
            cuts in proptest::collection::vec(1usize..20, 1..20),
        ) {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let at = rest.len().min(*cuts.next().unwrap());
                lines.feed(&rest[..at], |line| seen.push(line.head().to_vec()));
                rest = &rest[at..];
            }
            let mut wants: Vec<&str> = text.split('\n').collect();
            let last = wants.pop().unwrap_or_default();
            let trimmed = |line: &str| line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec();
            prop_assert_eq!(seen, wants.into_iter().map(trimmed).collect::<Vec<_>>());
            prop_assert_eq!(lines.begun().head().to_vec(), trimmed(last));
        }
    }
}
