//! Where one frame of a WebSocket ends and the next begins (RFC 6455, 5.2), told from the bytes as they go by.
//!
//! Only so can the gateway say something of its own in between: a ping, or that the socket is over.

use bytes::{BufMut, BytesMut};

/// How long the head of a frame is at most: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

pub(super) const CONTINUE: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

/// Why the gateway ends a socket (RFC 6455, 7.4.1, and the registry of close codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// 1001: nobody said anything for too long.
    Idle,
    /// 1012, service restart: the node left; who connects again gets another.
    NodeLeft,
    /// 1011, an unexpected condition: the node broke off without a word. (1014 would be nearer, and is refused by
    /// client libraries in use.)
    NodeBroke,
}

/// A frame's head, as far as it was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    bytes: [u8; LONGEST_HEAD],
    have: usize,
}

/// Follows the frames of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    head: Head,
    /// How much of its payload is still to come, once its head is whole.
    left: u64,
    closed: bool,
}

// === impl Frames ===

impl Frames {
    /// Takes bytes that go by. Whether anything was said: pongs say nothing, they only answer.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut said = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len() as u64);
                self.left -= here;
                bytes = &bytes[here as usize..];
                said |= self.head.opcode() != PONG;
            } else {
                let whole = self.head.take(bytes[0]);
                bytes = &bytes[1..];
                if whole {
                    self.left = self.head.payload_length();
                    self.closed |= self.head.opcode() == CLOSE;
                    said |= self.head.opcode() != PONG;
                }
            }
            if self.left == 0 && self.head.is_whole() {
                self.head = Head::default();
            }
        }
        said
    }

    /// Whether the next byte begins a frame.
    pub(super) fn between(&self) -> bool {
        self.head.have == 0
    }

    /// Whether this side said that it closes: nothing may follow that.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }
}

// === impl Head ===

impl Head {
    /// Takes its next byte; whether it is whole now.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.bytes[self.have] = byte;
        self.have += 1;
        self.is_whole()
    }

    fn is_whole(&self) -> bool {
        self.have == self.length()
    }

    /// Whether this frame is the last of its message.
    pub(super) fn is_last(&self) -> bool {
        self.bytes[0] & 0x80 != 0
    }

    /// Whether bits are set that only an extension could mean.
    pub(super) fn is_extended(&self) -> bool {
        self.bytes[0] & 0x70 != 0
    }

    pub(super) fn opcode(&self) -> u8 {
        self.bytes[0] & 0xF
    }

    /// What its payload is masked with.
    pub(super) fn mask(&self) -> Option<[u8; 4]> {
        let masked = self.bytes[1] & 0x80 != 0;
        let mask = self.bytes[..self.have].last_chunk().copied();
        mask.filter(|_| masked)
    }

    /// How long the head is, as far as that can be told: its second byte says.
    fn length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.bytes[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.bytes[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    pub(super) fn payload_length(&self) -> u64 {
        let wide = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        match self.bytes[1] & 0x7F {
            126 => wide(&self.bytes[2..4]),
            127 => wide(&self.bytes[2..10]),
            short => u64::from(short),
        }
    }
}

/// The head of a frame that is all of its message, put behind what is in `out`.
pub(super) fn put_head(out: &mut BytesMut, opcode: u8, length: usize, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.put_u8(0x80 | opcode);
    match length {
        0..126 => out.put_u8(masked | length as u8),
        126..65536 => {
            out.put_u8(masked | 126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
    out.put_slice(mask.as_ref().map_or(&[], |mask| mask));
}

/// Masks a payload, or takes its mask off; `from` is how much of it came before.
pub(super) fn mask(payload: &mut [u8], mut mask: [u8; 4], from: u64) {
    mask.rotate_left((from % 4) as usize);
    for four in payload.chunks_mut(4) {
        four.iter_mut()
            .zip(mask)
            .for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// A ping to a client.
pub(super) fn ping() -> &'static [u8] {
    &[0x80 | PING, 0]
}

// === impl Close ===

impl Close {
    /// The frame that tells a client.
    pub(super) fn to_client(self) -> Vec<u8> {
        let (code, why) = self.words();
        let length = 2 + why.len() as u8;
        let mut frame = vec![0x80 | CLOSE, length];
        frame.extend_from_slice(&code.to_be_bytes());
        frame.extend_from_slice(why.as_bytes());
        frame
    }

    /// The frame that tells a node, masked as a client's must be (RFC 6455, 5.3). What the mask guards against,
    /// bytes of a stranger's choice in the eyes of a cache, is not in it: so it may be any.
    pub(super) fn to_node(self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x2A, 0x11, 0x5C, 0x73];
        let mut frame = self.to_client();
        for (at, byte) in frame[2..].iter_mut().enumerate() {
            *byte ^= MASK[at % 4];
        }
        frame[1] |= 0x80;
        frame.splice(2..2, MASK);
        frame
    }

    fn words(self) -> (u16, &'static str) {
        match self {
            Close::Idle => (1001, "nothing was said for too long"),
            Close::NodeLeft => (1012, "the node has left; connect again"),
            Close::NodeBroke => (1011, "the node broke off; connect again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = BytesMut::new();
        put_head(&mut frame, opcode, length, masked.then_some([1, 2, 3, 4]));
        frame.resize(frame.len() + length, 0x88);
        frame.into()
    }

    #[test]
    fn only_pongs_say_nothing_and_a_close_is_noticed() {
        for (opcode, said) in [(1, true), (2, true), (0, true), (PING, true), (PONG, false)] {
            for length in [0, 5] {
                assert_eq!(Frames::default().take(&frame(opcode, length, true)), said);
            }
        }
        let mut frames = Frames::default();
        frames.take(&frame(2, 300, false));
        assert!(!frames.closed());
        frames.take(&frame(CLOSE, 2, false));
        assert!(frames.closed());
    }

    #[test]
    fn what_the_gateway_says_is_one_frame() {
        for close in [Close::Idle, Close::NodeLeft, Close::NodeBroke] {
            for said in [close.to_client(), close.to_node()] {
                let mut frames = Frames::default();
                frames.take(&said[..said.len() - 1]);
                assert!(!frames.between(), "{close:?}");
                frames.take(&said[said.len() - 1..]);
                assert!(frames.between() && frames.closed(), "{close:?}");
            }
            assert!(close.to_client().len() <= 127, "a control frame is short");
        }
        let mut frames = Frames::default();
        assert!(frames.take(ping()) && frames.between());
    }
}
