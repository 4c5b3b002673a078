//! Tokens: a mark of a template, the end of a line, or up to four characters with the space before them. Deterministic, about as long as
//! those of real models, and what was written token by token is read as the same tokens: the next turn of a talk finds the
//! answer of this one in the cache.

use sha2::{Digest, Sha256};

/// A token, as a number of its text. Two texts that share one are as rare as it matters little.
pub(crate) type Token = u32;

/// Marks that are one token each.
const MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// How many characters besides its space a token has at most.
const LONGEST: usize = 4;

/// Words of answers: each one is a token, with the space before it.
const WORDS: [&str; 32] = [
    "the", "gate", "of", "a", "city", "is", "open", "and", "rain", "on", "rice", "at", "dawn",
    "we", "walk", "by", "sea", "to", "see", "how", "old", "pine", "bent", "its", "arms", "in",
    "snow", "or", "moon", "lit", "fog", "too",
];

/// Cuts a text into tokens.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, behind) = rest.split_at(first(rest));
        rest = behind;
        Some(piece)
    })
}

/// How many bytes the first token of a text has.
fn first(text: &str) -> usize {
    if let Some(mark) = MARKS.iter().find(|mark| text.starts_with(**mark)) {
        return mark.len();
    }
    let mut others = 0;
    for (at, c) in text.char_indices() {
        let ends = if c.is_whitespace() {
            // A space belongs to the word behind it, a line's end to nothing.
            if at == 0 && c != ' ' {
                return c.len_utf8();
            }
            at > 0
        } else {
            others += 1;
            others > LONGEST
                || (at > 0 && c == '<' && MARKS.iter().any(|mark| text[at..].starts_with(mark)))
        };
        if ends {
            return at;
        }
    }
    text.len()
}

pub(crate) fn number(piece: &str) -> Token {
    // FNV-1a: the same in every build, unlike the standard library's.
    piece.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    pieces(text).map(number).collect()
}

/// What an answer is made of, decided by what was asked.
pub(crate) struct Seed([u8; 32]);

// === impl Seed ===

impl Seed {
    pub(crate) fn of(model: &str, prompt: &[Token]) -> Self {
        let mut hash = Sha256::new();
        hash.update(model.as_bytes());
        for token in prompt {
            hash.update(token.to_le_bytes());
        }
        Seed(hash.finalize().into())
    }

    /// A number below 1 that is as good as drawn.
    fn fraction(&self) -> f64 {
        let bytes = [self.0[0], self.0[1], self.0[2], self.0[3]];
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    /// How long the answer is where nothing else says so: exponentially spread around `mean`, at most eight times that.
    pub(crate) fn length(&self, mean: f64) -> usize {
        let drawn = -(1.0 - self.fraction()).ln() * mean;
        (drawn.min(8.0 * mean).round() as usize).max(1)
    }

    /// The answer's token at a place.
    pub(crate) fn word(&self, at: usize) -> &'static str {
        let byte = usize::from(self.0[at % 32]);
        WORDS[(byte + at / 32 * 7 + at) % WORDS.len()]
    }

    /// Numbers between -1 and 1, as an embedding has them.
    pub(crate) fn vector(&self, length: usize) -> impl Iterator<Item = f64> {
        (0..length)
            .map(|at| (f64::from(self.0[at % 32]) - 127.5) / 128.0 / (1.0 + (at / 32) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_it_is_cut_every_time() {
        for (text, cut) in [
            ("", vec![]),
            ("hello there", vec!["hell", "o", " ther", "e"]),
            ("  a\n\nb", vec![" ", " a", "\n", "\n", "b"]),
            (
                "<|im_start|>user\nhi<|im_end|>\n",
                vec!["<|im_start|>", "user", "\n", "hi", "<|im_end|>", "\n"],
            ),
            ("日本語の文", vec!["日本語の", "文"]),
        ] {
            assert_eq!(pieces(text).collect::<Vec<_>>(), cut, "{text:?}");
        }
    }

    #[test]
    fn what_was_written_token_by_token_is_read_as_the_same_tokens() {
        let seed = Seed::of("m", &tokens("tell me"));
        let words: Vec<String> = (0..100)
            .map(|at| format!("{}{}", if at > 0 { " " } else { "" }, seed.word(at)))
            .collect();
        assert_eq!(pieces(&words.concat()).collect::<Vec<_>>(), words);
    }

    #[test]
    fn lengths_are_spread_around_their_mean() {
        let length = |i: u32| Seed::of("m", &[i]).length(100.0);
        let lengths: Vec<usize> = (0..2000).map(length).collect();
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((90..110).contains(&mean), "{mean}");
        assert!(lengths.iter().all(|n| (1..=800).contains(n)));
    }
}
