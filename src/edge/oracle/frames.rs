//! WebSocket frames read a second time: each as a whole.

use super::super::frames::Frames;
use super::in_order;

/// Holds the follower of frames to its promises on these bytes: where frames end, whether anything was said, and
/// whether the socket was closed, in pieces that end at `cuts`.
pub fn frames(bytes: &[u8], cuts: &[usize]) {
    let (frames, ends) = second(bytes);
    let mut follower = Frames::default();
    let mut before = 0;
    for cut in in_order(cuts, bytes.len()) {
        let said = follower.take(&bytes[before..cut]);
        assert_eq!(
            follower.between(),
            ends.contains(&cut),
            "after {cut} bytes: {frames:?}"
        );
        let closed = frames
            .iter()
            .any(|frame| frame.opcode == 8 && frame.payload <= cut);
        assert_eq!(follower.closed(), closed, "after {cut} bytes: {frames:?}");
        // A frame speaks when its head is whole, and with each piece of its payload.
        let speaks = |frame: &Frame| {
            frame.opcode != 10 && frame.payload <= cut && frame.end > before
                || frame.opcode != 10 && (before + 1..=cut).contains(&frame.payload)
        };
        assert_eq!(
            said,
            frames.iter().any(speaks),
            "bytes {before} to {cut}: {frames:?}"
        );
        before = cut;
    }
}

/// A frame whose head is there.
#[derive(Debug)]
struct Frame {
    opcode: u8,
    /// Where its payload begins.
    payload: usize,
    /// Where it ends, which may be behind what is there.
    end: usize,
}

/// The frames, and where the next may begin.
fn second(bytes: &[u8]) -> (Vec<Frame>, Vec<usize>) {
    let (mut frames, mut ends, mut at) = (Vec::new(), vec![0], 0);
    while let Some([first, second]) = bytes.get(at..at + 2) {
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let payload = at + 2 + wide + if second & 0x80 == 0 { 0 } else { 4 };
        let Some(head) = bytes.get(at..payload) else {
            break;
        };
        let length = match wide {
            0 => u64::from(second & 0x7f),
            wide => head[2..2 + wide]
                .iter()
                .fold(0, |n, byte| n * 256 + u64::from(*byte)),
        };
        let end =
            usize::try_from(length).map_or(usize::MAX, |length| payload.saturating_add(length));
        frames.push(Frame {
            opcode: first & 0xf,
            payload,
            end,
        });
        ends.push(end);
        at = end;
        if at > bytes.len() {
            break;
        }
    }
    (frames, ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// Bytes that are frames more often than not.
    fn socket() -> impl Strategy<Value = Bytes> {
        let short = prop::collection::vec(any::<u8>(), 0..20);
        let frame = (any::<u8>(), any::<bool>(), short, 0..4usize).prop_map(
            |(first, masked, payload, form)| {
                let mask = if masked { 0x80 } else { 0 };
                let length = payload.len();
                let mut frame = vec![first];
                match form {
                    0 => frame.extend([&[mask | 126], &(length as u16).to_be_bytes()[..]].concat()),
                    1 => frame.extend([&[mask | 127], &(length as u64).to_be_bytes()[..]].concat()),
                    _ => frame.push(mask | length as u8),
                }
                if masked {
                    frame.extend([1, 2, 3, 4]);
                }
                frame.extend(payload);
                frame
            },
        );
        let odd = prop::collection::vec(any::<u8>(), 0..10);
        (prop::collection::vec(frame, 0..6), odd).prop_map(|(frames, odd)| {
            let mut bytes = frames.concat();
            bytes.extend(odd);
            bytes.into()
        })
    }

    #[test]
    fn frames_are_followed_in_any_pieces() {
        let cuts = prop::collection::vec(0usize..200, 0..8);
        tried(1500, (socket(), cuts), |(bytes, cuts)| {
            frames(&bytes, &cuts)
        });
    }
}
