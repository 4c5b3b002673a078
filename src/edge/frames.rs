//! Where one frame of a WebSocket ends and the next begins (RFC 6455, 5.2), told from the bytes as they go by.
//!
//! Only so can the gateway say something of its own in between: a ping, or that the socket is over.

/// How long the head of a frame is at most: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

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

/// Follows the frames of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    /// How much of a frame's head was seen.
    have: usize,
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
                said |= self.opcode() != PONG;
            } else {
                self.head[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                if self.have == self.head_length() {
                    self.left = self.payload_length();
                    self.closed |= self.opcode() == CLOSE;
                    said |= self.opcode() != PONG;
                }
            }
            if self.left == 0 && self.have == self.head_length() {
                self.have = 0;
            }
        }
        said
    }

    /// Whether the next byte begins a frame.
    pub(super) fn between(&self) -> bool {
        self.have == 0
    }

    /// Whether this side said that it closes: nothing may follow that.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    fn opcode(&self) -> u8 {
        self.head[0] & 0xF
    }

    /// How long the head is, as far as that can be told: its second byte says.
    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    fn payload_length(&self) -> u64 {
        let wide = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        match self.head[1] & 0x7F {
            126 => wide(&self.head[2..4]),
            127 => wide(&self.head[2..10]),
            short => u64::from(short),
        }
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
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.resize(frame.len() + length, 0x88);
        frame
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
