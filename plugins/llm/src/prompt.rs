//! The text that an engine reads before it makes the first token, as it stands in a body.
//!
//! Engines keep what they computed of a prompt and go on from there where another begins alike, so what counts is the order
//! in which they read it, not the order of the body: tools and system prompt first, whatever the client wrote first. Escapes stay
//! as they are written: two clients that write one text in two ways count as different, which costs a hit and is never wrong.

use std::ops::Range;

/// So many pieces are remembered. Of a longer prompt the rest is counted: what is shared stands in front.
const PIECES_MOST: usize = 1 << 15;

/// What a picture, a sound or a file stands for, in bytes of text: about a thousand tokens, whatever its size.
pub const MEDIA_BYTES: usize = 4096;

/// A shorter text is none, whatever it is called.
const MEDIA_LEAST: usize = 256;

/// The pieces of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pieces: Vec<Place>,
    bytes: usize,
    media: usize,
}

/// A piece of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text, or tokens as numbers: its bytes as they stand in the body.
    Text(&'a [u8]),
    /// A picture, a sound or a file, as it stands in the body.
    Media(&'a [u8]),
}

/// What part of a prompt something is, in the order in which engines read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// What keeps caches of tenants apart (`cache_salt` of vLLM).
    Salt,
    /// `tools`, `functions`
    Tools,
    /// `system`, `instructions`
    System,
    /// `context`: the tokens of what was said before, of Ollama.
    Context,
    /// `messages`, `prompt`, `input` and their like.
    Main,
    /// `suffix`, `documents`: what comes after.
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    section: Section,
    media: bool,
    range: Range<usize>,
}

// === impl Prompt ===

impl Prompt {
    /// Its length in bytes of text; media stand for [`MEDIA_BYTES`] each.
    pub fn bytes(&self) -> usize {
        self.bytes + self.media * MEDIA_BYTES
    }

    /// How many pictures, sounds and files are in it.
    pub fn media(&self) -> usize {
        self.media
    }

    /// Its pieces in the order in which engines read them. `body` is what it was read from.
    pub fn pieces<'a>(&self, body: &'a [u8]) -> impl Iterator<Item = Piece<'a>> {
        self.pieces.iter().filter_map(move |place| {
            let bytes = body.get(place.range.clone())?;
            Some(match place.media {
                true => Piece::Media(bytes),
                false => Piece::Text(bytes),
            })
        })
    }

    pub(crate) fn add(&mut self, section: Section, range: Range<usize>, media: bool) {
        match media {
            true => self.media += 1,
            false => self.bytes += range.len(),
        }
        if self.pieces.len() < PIECES_MOST {
            self.pieces.push(Place {
                section,
                media,
                range,
            });
        }
    }

    /// Forgets what was said before of a part that stands in the body once more, between `from` and `to`.
    pub(crate) fn forget(&mut self, within: Range<usize>) {
        let (mut bytes, mut media) = (0, 0);
        self.pieces.retain(|place| {
            let gone = within.contains(&place.range.start);
            if gone {
                media += usize::from(place.media);
                bytes += if place.media { 0 } else { place.range.len() };
            }
            !gone
        });
        self.bytes -= bytes.min(self.bytes);
        self.media -= media.min(self.media);
    }

    /// Brings the pieces into the order in which engines read them.
    pub(crate) fn settle(&mut self) {
        if !self.pieces.is_sorted_by_key(|place| place.section) {
            self.pieces.sort_by_key(|place| place.section);
        }
    }
}

/// Whether a text under this key is a picture, a sound or a file.
pub(crate) fn is_media(key: &[u8], text: &[u8]) -> bool {
    text.len() >= MEDIA_LEAST
        && (text.starts_with(b"data:")
            || matches!(
                key,
                b"data" | b"images" | b"image" | b"audio" | b"b64_json" | b"file_data"
            ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_longer_than_is_remembered_is_counted_to_its_end() {
        let mut prompt = Prompt::default();
        for at in 0..PIECES_MOST + 10 {
            prompt.add(Section::Main, at..at + 1, false);
        }
        prompt.settle();
        assert_eq!(prompt.bytes(), PIECES_MOST + 10);
        let body = vec![b'x'; PIECES_MOST + 10];
        assert_eq!(prompt.pieces(&body).count(), PIECES_MOST);
    }

    #[test]
    fn pieces_of_another_body_are_none() {
        let mut prompt = Prompt::default();
        prompt.add(Section::Main, 3..8, false);
        assert_eq!(prompt.pieces(b"short").count(), 0);
    }
}
