//! Messages of a WebSocket, put together from its bytes (RFC 6455, 5).
//!
//! Between messages it holds nothing, and never more than it was sent: what a head claims is only believed as it comes.

use super::frames::{BINARY, CLOSE, CONTINUE, Head, PING, PONG, TEXT, mask};
use super::seat::Parting;
use bytes::Bytes;
use tabane_api::Message;

/// The longest payload of a frame that is no message (RFC 6455, 5.5).
const LONGEST_ASIDE: u64 = 125;

/// So much is made room for at once at most, bytes.
const ROOM: usize = 64 << 10;

/// Reads what one side says.
#[derive(Debug)]
pub(super) struct Messages {
    /// It is a client, and masks what it says.
    masked: bool,
    /// The longest message that is taken, bytes.
    longest: usize,
    head: Head,
    /// How much of the frame is still to come, once its head is whole.
    left: Option<u64>,
    /// The payload of a frame that is no message.
    aside: Vec<u8>,
    /// What came of a message so far, and whether it is text.
    message: Option<(bool, Vec<u8>)>,
}

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Message(Message),
    /// Wants to be answered with the same.
    Ping(Bytes),
    Pong,
    /// The last word; what it is to be answered with.
    Close(Bytes),
}

// === impl Messages ===

impl Messages {
    pub(super) fn new(masked: bool, longest: usize) -> Self {
        Messages {
            masked,
            longest,
            head: Head::default(),
            left: None,
            aside: Vec::new(),
            message: None,
        }
    }

    /// Takes bytes, up to the end of what is said first; how many, and what that is.
    ///
    /// Errors: with what to answer to what nobody may say.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Heard>), Parting> {
        let mut taken = 0;
        loop {
            if self.left.is_none() {
                let Some(byte) = bytes.get(taken) else {
                    return Ok((taken, None));
                };
                taken += 1;
                if !self.head.take(*byte) {
                    continue;
                }
                self.begin()?;
            }
            let left = self.left.unwrap_or_default();
            let rest = &bytes[taken..];
            let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            self.put(&rest[..here], left);
            taken += here;
            let left = left - here as u64;
            self.left = Some(left);
            if left > 0 {
                return Ok((taken, None));
            }
            if let Some(heard) = self.end()? {
                return Ok((taken, Some(heard)));
            }
        }
    }

    /// The head of a frame is whole: whether it may come here, and now.
    fn begin(&mut self) -> Result<(), Parting> {
        let head = &self.head;
        let length = head.payload_length();
        let broken = |why| Err(Parting::of(1002, why));
        if head.is_extended() {
            return broken("a frame has bits set that nothing was agreed on");
        }
        if head.mask().is_some() != self.masked {
            return broken("a client masks its frames, and a server does not");
        }
        match head.opcode() {
            CLOSE | PING | PONG if !head.is_last() || length > LONGEST_ASIDE => {
                return broken("a frame of control is whole and short");
            }
            CLOSE | PING | PONG => {}
            CONTINUE if self.message.is_none() => return broken("nothing is there to go on with"),
            TEXT | BINARY if self.message.is_some() => {
                return broken("the message before is not whole");
            }
            CONTINUE | TEXT | BINARY => {
                let before = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
                if length.saturating_add(before as u64) > self.longest as u64 {
                    let why = format!("a message may have at most {} bytes", self.longest);
                    return Err(Parting {
                        code: 1009,
                        why: why.into(),
                    });
                }
                let is_text = head.opcode() == TEXT;
                self.message.get_or_insert((is_text, Vec::new()));
            }
            _ => return broken("a frame of this kind does not exist"),
        }
        self.left = Some(length);
        Ok(())
    }

    /// Keeps a piece of the frame's payload, of which so much was left.
    fn put(&mut self, piece: &[u8], left: u64) {
        let of_message = self.head.opcode() < CLOSE;
        let place = match &mut self.message {
            Some((_, message)) if of_message => message,
            _ => &mut self.aside,
        };
        let at = place.len();
        if place.capacity() - at < piece.len() {
            // Twice as much each time, but no more than was said to come.
            let more = at.max(ROOM).max(piece.len());
            place.reserve_exact(usize::try_from(left).map_or(more, |left| left.min(more)));
        }
        place.extend_from_slice(piece);
        if let Some(with) = self.head.mask() {
            mask(&mut place[at..], with, self.head.payload_length() - left);
        }
    }

    /// A frame is whole: what it says, if its message is.
    fn end(&mut self) -> Result<Option<Heard>, Parting> {
        let head = std::mem::take(&mut self.head);
        self.left = None;
        let heard = match head.opcode() {
            PING => Heard::Ping(std::mem::take(&mut self.aside).into()),
            PONG => {
                self.aside = Vec::new();
                Heard::Pong
            }
            CLOSE => Heard::Close(answer(&std::mem::take(&mut self.aside))?),
            _ if !head.is_last() => return Ok(None),
            _ => match self.message.take().unwrap_or_default() {
                (false, bytes) => Heard::Message(Message::Binary(bytes.into())),
                (true, bytes) => match String::from_utf8(bytes) {
                    Ok(text) => Heard::Message(Message::Text(text)),
                    Err(_) => return Err(Parting::of(1007, "a text is not UTF-8")),
                },
            },
        };
        Ok(Some(heard))
    }
}

/// What a close is answered with: its own code, unless nobody may send that.
fn answer(payload: &[u8]) -> Result<Bytes, Parting> {
    let Some((code, why)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(Bytes::new()),
            false => Err(Parting::of(1002, "half a code is none")),
        };
    };
    if std::str::from_utf8(why).is_err() {
        return Err(Parting::of(1007, "a reason is not UTF-8"));
    }
    Ok(match Parting::may_be_sent(u16::from_be_bytes(*code)) {
        true => Bytes::copy_from_slice(code),
        false => Parting::of(1002, "").payload(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use crate::edge::frames::put_head;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use std::io;
    use tokio_tungstenite::tungstenite::error::CapacityError;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
    use tokio_tungstenite::tungstenite::{self, Error, WebSocket};

    const LONGEST: usize = 1000;

    /// What a library reads.
    struct Wire<'a>(&'a [u8]);

    impl io::Read for Wire<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.is_empty() {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => self.0.read(buf),
            }
        }
    }

    impl io::Write for Wire<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What we hear, and the code that ends it.
    fn ours(pieces: &[&[u8]], masked: bool) -> (Vec<Heard>, Option<u16>) {
        let (mut messages, mut heard) = (Messages::new(masked, LONGEST), Vec::new());
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                match messages.take(piece) {
                    Ok((taken, said)) => {
                        piece = &piece[taken..];
                        assert!(said.is_some() || piece.is_empty(), "it takes all there is");
                        heard.extend(said);
                    }
                    Err(parting) => return (heard, Some(parting.code)),
                }
                if let Some(Heard::Close(_)) = heard.last() {
                    return (heard, None);
                }
            }
        }
        (heard, None)
    }

    /// What a library in wide use hears, and the code that it would be ended with.
    fn theirs(bytes: &[u8], masked: bool) -> (Vec<Heard>, Option<u16>) {
        let config = WebSocketConfig::default()
            .max_message_size(Some(LONGEST))
            .max_frame_size(Some(LONGEST));
        let role = if masked { Role::Server } else { Role::Client };
        let mut socket = WebSocket::from_raw_socket(Wire(bytes), role, Some(config));
        let mut heard = Vec::new();
        loop {
            heard.push(match socket.read() {
                Ok(tungstenite::Message::Text(text)) => {
                    Heard::Message(Message::Text(text.as_str().to_owned()))
                }
                Ok(tungstenite::Message::Binary(bytes)) => Heard::Message(Message::Binary(bytes)),
                Ok(tungstenite::Message::Ping(payload)) => Heard::Ping(payload),
                Ok(tungstenite::Message::Pong(_)) => Heard::Pong,
                Ok(tungstenite::Message::Close(frame)) => {
                    let code = frame.map(|frame| u16::from(frame.code).to_be_bytes());
                    let code = code.map_or(Bytes::new(), |code| Bytes::copy_from_slice(&code));
                    heard.push(Heard::Close(code));
                    return (heard, None);
                }
                Ok(other) => panic!("{other:?}"),
                Err(Error::Io(_)) => return (heard, None),
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    return (heard, Some(1009));
                }
                Err(Error::Utf8(_)) => return (heard, Some(1007)),
                Err(Error::Protocol(_)) => return (heard, Some(1002)),
                Err(other) => panic!("{other:?}"),
            });
        }
    }

    /// A frame that may well be one that nobody may send.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let opcode = prop_oneof![
            12 => prop::sample::select(vec![CONTINUE, TEXT, BINARY, PING, PONG]),
            1 => Just(CLOSE),
            1 => 0..16_u8,
        ];
        let payload = prop_oneof![
            8 => "[a-zé☃]{0,40}".prop_map(String::into_bytes),
            2 => prop::collection::vec(any::<u8>(), 0..140),
            1 => prop::collection::vec(Just(b'x'), 120..1100),
        ];
        let bits = prop_oneof![6 => Just(0x80_u8), 6 => Just(0), 1 => any::<u8>()];
        (opcode, payload, bits, any::<[u8; 4]>(), 0..20).prop_map(
            |(opcode, mut payload, bits, with, odd)| {
                if opcode == CLOSE && payload.len() > 1 && odd > 3 {
                    payload[..2].copy_from_slice(&1000_u16.to_be_bytes());
                }
                let mut frame = BytesMut::new();
                let with = (odd != 0).then_some(with);
                put_head(&mut frame, opcode, payload.len(), with);
                frame[0] = frame[0] & 0x0F | bits & 0xF0;
                if let Some(with) = with {
                    mask(&mut payload, with, 0);
                }
                frame.extend_from_slice(&payload);
                frame.into()
            },
        )
    }

    #[test]
    fn what_is_heard_is_what_a_library_hears_in_any_pieces() {
        let frames = prop::collection::vec(frame(), 0..8);
        let lengths = prop::collection::vec(prop_oneof![1..4_usize, 1..500_usize], 1..5);
        let messages = std::cell::Cell::new(0);
        tried(
            3000,
            (frames, lengths, any::<bool>()),
            |(frames, lengths, masked)| {
                let mut bytes = frames.concat();
                if !masked {
                    // A server's; what a client masked is refused.
                    bytes = frames.iter().flat_map(|frame| unmasked(frame)).collect();
                }
                let mut lengths = lengths.iter().cycle();
                let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
                    pieces.push(piece);
                    rest = behind;
                }
                let (ours, theirs) = (ours(&pieces, masked), theirs(&bytes, masked));
                let is_message = |heard: &&Heard| matches!(heard, Heard::Message(_));
                messages.set(messages.get() + ours.0.iter().filter(is_message).count());
                // A library may look at a text before it is whole, and at a length before it looks at a mask.
                match (ours.1, theirs.1) {
                    (_, Some(1007)) => {
                        assert!(ours.0.starts_with(&theirs.0), "{ours:?} {theirs:?}")
                    }
                    (Some(_), Some(_)) => assert_eq!(ours.0, theirs.0),
                    _ => assert_eq!(ours, theirs),
                }
            },
        );
        assert!(messages.get() > 500, "{} messages", messages.get());
    }

    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let mut head = Head::default();
        let length = frame.iter().position(|byte| head.take(*byte)).unwrap() + 1;
        let mut payload = frame[length..].to_vec();
        let Some(with) = head.mask() else {
            return frame.to_vec();
        };
        mask(&mut payload, with, 0);
        let mut frame = frame[..length - 4].to_vec();
        frame[1] &= 0x7F;
        [frame, payload].concat()
    }

    #[test]
    fn what_a_head_claims_is_believed_as_it_comes() {
        let mut messages = Messages::new(false, 1 << 30);
        let mut head = BytesMut::new();
        put_head(&mut head, BINARY, 1 << 30, None);
        messages.take(&head).unwrap();
        for _ in 0..1000 {
            messages.take(&[0; 100]).unwrap();
        }
        let (_, message) = messages.message.as_ref().unwrap();
        assert!(
            message.capacity() <= 4 * message.len(),
            "{}",
            message.capacity()
        );
        // And one whose length was known has no room left over.
        let mut messages = Messages::new(false, 1 << 30);
        let mut frame = BytesMut::new();
        put_head(&mut frame, BINARY, 300_000, None);
        frame.resize(frame.len() + 299_999, 0);
        for piece in frame.chunks(1000) {
            messages.take(piece).unwrap();
        }
        let (_, message) = messages.message.as_ref().unwrap();
        assert_eq!(message.capacity(), 300_000);
    }
}
