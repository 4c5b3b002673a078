//! Chunked bodies read a second time: line by line, and their sizes by another parser.

use super::super::chunks::{Chunks, LONGEST};
use super::{everywhere, in_order};

/// What the rules say of the bytes at the front.
#[derive(Debug, PartialEq, Eq)]
enum Second {
    Unfinished,
    Misframed,
    /// The body, and how many bytes it came in.
    Whole(Vec<u8>, usize),
}

/// Holds the reader of chunked bodies to its promises on these bytes; the body they begin with.
///
/// The verdict is the same in pieces that end at `cuts`, and byte by byte; it is what the rules say; and a parser
/// of others finds the same body.
pub fn chunks(bytes: &[u8], cuts: &[usize]) -> Option<Vec<u8>> {
    let second = second(bytes);
    let whole = [
        vec![bytes.len()],
        in_order(cuts, bytes.len()),
        everywhere(bytes.len()),
    ];
    for cuts in whole {
        let verdict = in_pieces(bytes, &cuts);
        let same = match &second {
            Second::Unfinished => verdict == Ok((bytes.len(), false)),
            Second::Misframed => verdict.is_err(),
            Second::Whole(_, length) => verdict == Ok((*length, true)),
        };
        assert!(
            same,
            "the reader says {verdict:?}, the rules {second:?}, in pieces: {cuts:?}"
        );
    }
    let Second::Whole(body, length) = second else {
        return None;
    };
    assert_eq!(by_others(&bytes[..length]).as_ref(), Some(&body));
    Some(body)
}

/// How much was taken, and whether the body's end was.
fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<(usize, bool), ()> {
    let (mut reader, mut taken) = (Chunks::default(), 0);
    for cut in cuts {
        if *cut < taken {
            continue;
        }
        let piece = &bytes[taken..*cut];
        let here = reader.take(piece).map_err(drop)?;
        assert!(
            here == piece.len() || reader.done(),
            "bytes were passed over"
        );
        taken += here;
        if reader.done() {
            break;
        }
    }
    Ok((taken, reader.done()))
}

/// By httparse's reading of sizes.
fn by_others(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((head, size))) = httparse::parse_chunk_size(bytes) else {
            return None;
        };
        bytes = &bytes[head..];
        if size == 0 {
            // Trailers, and an empty line.
            return (bytes == b"\r\n" || bytes.ends_with(b"\r\n\r\n")).then_some(body);
        }
        let (data, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
}

// === the rules ===

fn second(bytes: &[u8]) -> Second {
    match body(bytes) {
        Ok((body, length)) => Second::Whole(body, length),
        Err(other) => other,
    }
}

fn body(bytes: &[u8]) -> Result<(Vec<u8>, usize), Second> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = line(&bytes[at..], LONGEST, is_size, is_size_so_far)?;
        at += line.len() + 2;
        let size = size(line);
        if size == 0 {
            break;
        }
        let fits = usize::try_from(size).ok();
        let Some((data, rest)) = fits.and_then(|size| bytes[at..].split_at_checked(size)) else {
            return Err(Second::Unfinished);
        };
        body.extend_from_slice(data);
        match rest {
            [b'\r', b'\n', ..] => at += data.len() + 2,
            [] | [b'\r'] => return Err(Second::Unfinished),
            _ => return Err(Second::Misframed),
        }
    }
    let mut left = LONGEST;
    loop {
        let line = line(&bytes[at..], left, is_trailer, is_trailer_so_far)?;
        at += line.len() + 2;
        left -= line.len() + 2;
        if line.is_empty() {
            return Ok((body, at));
        }
    }
}

/// The line at the front, without its end. One that has no end yet must be the beginning of a good one.
fn line(
    bytes: &[u8],
    longest: usize,
    good: fn(&[u8]) -> bool,
    so_far: fn(&[u8]) -> bool,
) -> Result<&[u8], Second> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n");
    let length = end.map_or(bytes.len(), |end| end + 2);
    let half = bytes.strip_suffix(b"\r");
    let (line, ends) = match end {
        Some(end) => (&bytes[..end], true),
        None => (half.unwrap_or(bytes), half.is_some()),
    };
    if length > longest || !so_far(line) || ends && !good(line) {
        return Err(Second::Misframed);
    }
    end.map(|_| line).ok_or(Second::Unfinished)
}

fn is_text(byte: &u8) -> bool {
    !byte.is_ascii_control() || *byte == b'\t'
}

fn digits(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|b| !b.is_ascii_hexdigit());
    &line[..end.unwrap_or(line.len())]
}

fn size(line: &[u8]) -> u64 {
    let value = |digit: &u8| u64::from(char::from(*digit).to_digit(16).unwrap_or_default());
    digits(line)
        .iter()
        .fold(0, |size, digit| size * 16 + value(digit))
}

/// Digits, then perhaps blanks, then perhaps an extension.
fn is_size(line: &[u8]) -> bool {
    let digits = digits(line);
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let extension = Vec::from_iter(line[digits.len()..].iter().skip_while(|b| blank(b)));
    (1..=16).contains(&digits.len())
        && extension.first().is_none_or(|first| **first == b';')
        && extension.into_iter().all(is_text)
}

fn is_size_so_far(line: &[u8]) -> bool {
    line.is_empty() || is_size(line)
}

/// A name, a colon, a value (RFC 9112, 5); or nothing, after the last.
fn is_trailer(line: &[u8]) -> bool {
    line.is_empty() || line.contains(&b':') && is_trailer_so_far(line)
}

fn is_trailer_so_far(line: &[u8]) -> bool {
    let name = line.split(|b| *b == b':').next().unwrap_or_default();
    let token = |b: &u8| b.is_ascii_graphic() && !b"\"(),/;<=>?@[\\]{}".contains(b);
    let named = line.is_empty() || !name.is_empty();
    named && name.iter().all(token) && line.iter().all(is_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn one_of(all: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::sample::select(all).prop_map(str::to_owned)
    }

    /// Zeros before a size, which has at most 16 digits with them.
    fn zeros() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0..3usize, 1 => 10..20usize]
    }

    /// One chunk: a way to write its size, its data, and what ends its lines.
    fn chunk() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let data = prop_oneof![
            9 => prop::collection::vec(any::<u8>(), 1..40),
            1 => prop::collection::vec(any::<u8>(), 4000..4200),
        ];
        let extension = prop_oneof![
            8 => Just(String::new()),
            2 => one_of(&[";", ";a", " ;a=b", ";a=\"b;c\"", "\t", "  ", ";\u{e9}"]),
        ];
        (data, extension, zeros(), any::<bool>()).prop_map(|(data, extension, zeros, upper)| {
            let size = match upper {
                true => format!("{:X}", data.len()),
                false => format!("{:x}", data.len()),
            };
            let zeros = "0".repeat(zeros.min(16 - size.len()));
            let mut bytes = format!("{zeros}{size}{extension}\r\n").into_bytes();
            bytes.extend(&data);
            bytes.extend(b"\r\n");
            (bytes, data)
        })
    }

    /// A good body as it comes, what it says, and what follows it.
    fn good() -> impl Strategy<Value = (Bytes, Vec<u8>, Bytes)> {
        let trailer = one_of(&["A: b", "Content-Length: 5", "a:", "\u{7e}: \t\u{e9}"]);
        let last = (1..4usize, prop::collection::vec(trailer, 0..3));
        let tail = prop::collection::vec(any::<u8>(), 0..12);
        (prop::collection::vec(chunk(), 0..5), last, tail).prop_map(
            |(chunks, (zeros, trailers), tail)| {
                let (mut bytes, mut body) = (Vec::new(), Vec::new());
                for (chunk, data) in chunks {
                    bytes.extend(chunk);
                    body.extend(data);
                }
                bytes.extend("0".repeat(zeros).bytes());
                bytes.extend(b"\r\n");
                for trailer in trailers {
                    bytes.extend(trailer.bytes());
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"\r\n");
                (bytes.into(), body, tail.into())
            },
        )
    }

    #[test]
    fn a_chunked_body_is_found_whole_and_what_follows_it_is_left() {
        let cuts = prop::collection::vec(0usize..5000, 0..6);
        tried(400, (good(), cuts), |((bytes, body, tail), cuts)| {
            let followed = [bytes, tail].concat();
            assert_eq!(chunks(&followed, &cuts), Some(body));
        });
    }

    #[test]
    fn a_body_with_a_few_bytes_changed_is_read_as_the_rules_say() {
        let odd = prop::sample::select(&b"\r\n\t \0;:0159afFgG+-x\x7f\x80"[..]);
        let change = (
            any::<prop::sample::Index>(),
            0usize..3,
            prop::collection::vec(odd, 0..3),
        );
        let changes = prop::collection::vec(change, 1..4);
        let (good_ones, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let short = good().prop_filter("short", |(bytes, ..)| bytes.len() < 200);
        tried(1500, (short, changes), |((bytes, ..), changes)| {
            let mut bytes = bytes.to_vec();
            for (at, remove, insert) in changes {
                let at = at.index(bytes.len() + 1);
                let end = (at + remove).min(bytes.len());
                bytes.splice(at..end, insert);
            }
            all.fetch_add(1, Ordering::Relaxed);
            good_ones.fetch_add(
                usize::from(chunks(&bytes, &[3, 7]).is_some()),
                Ordering::Relaxed,
            );
        });
        let (good, all) = (good_ones.into_inner(), all.into_inner());
        assert!(
            good > all / 20 && good < all * 9 / 10,
            "{good} of {all} were good"
        );
    }

    #[test]
    fn lines_of_a_body_are_bounded() {
        for spare in [0, 1] {
            let extension = "x".repeat(LONGEST - 4 + spare);
            let bytes = format!("0;{extension}\r\n\r\n");
            assert_eq!(chunks(bytes.as_bytes(), &[]).is_some(), spare == 0);
            let value = "x".repeat(LONGEST - 6 + spare);
            let bytes = format!("0\r\na:{value}\r\n\r\n");
            assert_eq!(chunks(bytes.as_bytes(), &[]).is_some(), spare == 0);
        }
    }
}
