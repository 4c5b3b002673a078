//! Where a chunked body ends (RFC 9112, 7.1), told from its bytes as they go by.
//!
//! Strict where Pingora is lenient: lines end with CRLF, sizes are plain hex digits, extensions and trailers
//! are bounded. What is no chunk ends the request before a node is asked.

use super::head::is_token;

/// How long the line of a chunk's size and extensions may be, and all trailers together.
pub(super) const LONGEST: usize = 8 * 1024;

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// Of the line or trailers being read.
    length: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    #[default]
    Size,
    Digits(u64),
    /// Blanks after the digits. Some servers fill a size up with them.
    Blank(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataEnd,
    /// At the start of a line after the last chunk.
    Trailers,
    TrailerName,
    Trailer,
    TrailerEnd,
    End,
    Done,
}

/// The bytes are no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misframed;

impl Chunks {
    /// Whether the body's last byte went by.
    pub(super) fn done(&self) -> bool {
        self.at == At::Done
    }

    /// Takes what belongs to the body from the front of `bytes`: so many of them.
    ///
    /// Errors: it is no chunked body.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Misframed> {
        let mut taken = 0;
        while taken < bytes.len() && !self.done() {
            if let At::Data(left) = self.at {
                let here = left.min((bytes.len() - taken) as u64);
                taken += here as usize;
                self.at = match left - here {
                    0 => At::DataCr,
                    left => At::Data(left),
                };
                continue;
            }
            self.at = self.step(bytes[taken])?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, Misframed> {
        self.length += 1;
        if self.length > LONGEST {
            return Err(Misframed);
        }
        let text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        Ok(match (self.at, byte) {
            (At::Size, _) => At::Digits(hex(byte)?),
            (At::Digits(size), b'\r') => At::SizeEnd(size),
            (At::Digits(size) | At::Blank(size), b';') => At::Extension(size),
            (At::Digits(size) | At::Blank(size), b' ' | b'\t') => At::Blank(size),
            // More digits than a size has, be they zeros, are read by some and not by others.
            (At::Digits(size), _) if self.length <= 16 => At::Digits(size << 4 | hex(byte)?),
            (At::Blank(size) | At::Extension(size), b'\r') => At::SizeEnd(size),
            (At::Extension(size), _) if text => At::Extension(size),
            (At::SizeEnd(size), b'\n') => {
                self.length = 0;
                match size {
                    0 => At::Trailers,
                    size => At::Data(size),
                }
            }
            (At::DataCr, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => {
                self.length = 0;
                At::Size
            }
            (At::Trailers, b'\r') => At::End,
            (At::Trailers | At::TrailerName, _) if is_token(&[byte]) => At::TrailerName,
            (At::TrailerName, b':') => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerEnd,
            (At::Trailer, _) if text => At::Trailer,
            (At::TrailerEnd, b'\n') => At::Trailers,
            (At::End, b'\n') => At::Done,
            _ => return Err(Misframed),
        })
    }
}

fn hex(byte: u8) -> Result<u64, Misframed> {
    char::from(byte)
        .to_digit(16)
        .map(u64::from)
        .ok_or(Misframed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<(usize, bool), Misframed> {
        let mut chunks = Chunks::default();
        chunks.take(bytes).map(|taken| (taken, chunks.done()))
    }

    #[test]
    fn the_end_of_a_body_is_found_and_what_follows_is_left() {
        for (body, length) in [
            ("0\r\n\r\n", 5),
            ("5\r\nhello\r\n0\r\n\r\n", 15),
            ("5;a=\"b\"\r\nhello\r\n000\r\nX: y\r\n\r\n", 29),
            ("A\r\n0123456789\r\n1 ;x\r\n!\r\n0\r\n\r\n", 29),
        ] {
            let followed = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(whole(followed.as_bytes()), Ok((length, true)), "{body:?}");
        }
        assert_eq!(whole(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for body in [
            "\r\n",
            "5\nhello\r\n",
            "5;\nhello\r\n",
            "+5\r\n",
            "0x5\r\n",
            "-1\r\n",
            " 5\r\n",
            "5\rhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "5\r\nhello\r0",
            "10000000000000000\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n",
            "5 a\r\nhello\r\n",
            "g\r\n",
            ";x\r\n",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "5;\0\r\n",
        ] {
            assert_eq!(whole(body.as_bytes()), Err(Misframed), "{body:?}");
        }
        let endless = format!("5;{}", "x".repeat(LONGEST));
        assert_eq!(whole(endless.as_bytes()), Err(Misframed));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(LONGEST / 6 + 1));
        assert_eq!(whole(trailers.as_bytes()), Err(Misframed));
    }
}
