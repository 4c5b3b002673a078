//! Replacing bytes in a body, and nothing else of it.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// A range of a body, and what stands there instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced.
    pub range: Range<usize>,
    /// By what.
    pub with: Bytes,
}

/// The body with its edits made; the same bytes where there are none.
///
/// Shapes: in order, not overlapping, within the body; one that is not is left out.
pub fn apply(body: &Bytes, edits: &[Edit]) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    let more: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut out = BytesMut::with_capacity(body.len() + more);
    let mut at = 0;
    for Edit { range, with } in edits {
        let Some(before) = body
            .get(at..range.start)
            .filter(|_| range.end >= range.start)
        else {
            continue;
        };
        if range.end > body.len() {
            continue;
        }
        out.extend_from_slice(before);
        out.extend_from_slice(with);
        at = range.end;
    }
    out.extend_from_slice(&body[at..]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(range: Range<usize>, with: &'static str) -> Edit {
        Edit {
            range,
            with: with.into(),
        }
    }

    #[test]
    fn what_is_not_edited_stays_to_the_byte() {
        let body = Bytes::from_static(b"0123456789");
        let same = apply(&body, &[]);
        assert_eq!(same.as_ptr(), body.as_ptr(), "nothing is copied");
        let edits = [edit(0..1, "abc"), edit(4..4, "-"), edit(8..10, "")];
        assert_eq!(apply(&body, &edits), "abc123-4567");
    }

    #[test]
    fn an_edit_that_does_not_fit_is_left_out() {
        let body = Bytes::from_static(b"0123456789");
        #[expect(clippy::reversed_empty_ranges)]
        let edits = [
            edit(2..4, "x"),
            edit(3..5, "y"),
            edit(7..6, "z"),
            edit(8..11, "w"),
        ];
        assert_eq!(apply(&body, &edits), "01x456789");
    }
}
