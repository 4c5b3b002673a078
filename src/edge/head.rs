//! What the head of a request of HTTP/1 must look like before anything else reads it.
//!
//! Two programs that read one head differently are how requests are smuggled: so a head that could be read
//! in two ways is refused here, on its raw bytes, and no node ever sees it (RFC 9112, 2 to 6; RFC 9110, 5).
//! Where the standard lets a server be lenient (line ends, folding, repeated lengths), this one is not.

use http::StatusCode;
use memchr::memchr;

/// How long a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// All of it, in bytes.
    pub(super) bytes: usize,
    /// Its header lines.
    pub(super) fields: usize,
}

/// A head that can be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its bytes, the empty line at its end among them.
    pub(super) length: usize,
    /// What follows it.
    pub(super) body: Framing,
}

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes, more than none.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The status that says so.
    pub(super) status: StatusCode,
    /// For people.
    pub(super) why: &'static str,
}

/// Where the reading of a head stands, so that one that comes byte by byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Where the line begins that is not whole yet.
    line: usize,
    /// What was looked at.
    seen: usize,
}

/// Reads the head at the start of `bytes`; `None` while its end is not there yet.
///
/// Errors: it could be read in two ways, or is out of bounds.
pub(super) fn read(
    bytes: &[u8],
    progress: &mut Progress,
    bounds: Bounds,
) -> Result<Option<Head>, Fault> {
    while let Some(found) = memchr(b'\n', &bytes[progress.seen..]) {
        let end = progress.seen + found + 1;
        if end > bounds.bytes {
            return Err(too_large(bytes, bounds));
        }
        if !bytes[progress.line..end].ends_with(b"\r\n") {
            return Err(bad("a line ends without CR"));
        }
        let empty = end - progress.line == 2;
        let first = progress.line == 0;
        (progress.line, progress.seen) = (end, end);
        if empty && !first {
            return check(&bytes[..end], bounds).map(Some);
        }
        if empty {
            return Err(bad("the request begins with an empty line"));
        }
    }
    progress.seen = bytes.len();
    if bytes.len() > bounds.bytes {
        return Err(too_large(bytes, bounds));
    }
    Ok(None)
}

fn check(head: &[u8], bounds: Bounds) -> Result<Head, Fault> {
    let mut lines = head[..head.len() - 2]
        .split_inclusive(|b| *b == b'\n')
        .map(|line| &line[..line.len() - 2]);
    let request = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    for (nth, line) in lines.enumerate() {
        if nth >= bounds.fields {
            return Err(Fault {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                why: "the request has too many header lines",
            });
        }
        fields.take(line)?;
    }
    fields.host(&request)?;
    Ok(Head {
        length: head.len(),
        body: fields.framing(&request)?,
    })
}

struct RequestLine<'a> {
    http_11: bool,
    /// The host of a target in absolute form.
    authority: Option<&'a [u8]>,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Fault> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad(
            "the request line is not method, target and version, with one space between",
        ));
    };
    if !is_token(method) {
        return Err(bad("the method is no token"));
    }
    let http_11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(bad("the version is neither HTTP/1.1 nor HTTP/1.0")),
    };
    if method == b"CONNECT" {
        return Err(Fault {
            status: StatusCode::METHOD_NOT_ALLOWED,
            why: "this is no forward proxy: CONNECT is not served",
        });
    }
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(bad(
            "the target has a byte that belongs percent-encoded in it",
        ));
    }
    if target.contains(&b'#') {
        return Err(bad("the target has a fragment"));
    }
    let authority = match target {
        [b'/', ..] => None,
        b"*" if method == b"OPTIONS" => None,
        _ => Some(absolute(target)?),
    };
    Ok(RequestLine { http_11, authority })
}

/// The authority of a target in absolute form (RFC 9112, 3.2.2).
fn absolute(target: &[u8]) -> Result<&[u8], Fault> {
    let after = |scheme: &[u8]| {
        let begins = target.get(..scheme.len())?;
        begins
            .eq_ignore_ascii_case(scheme)
            .then(|| &target[scheme.len()..])
    };
    let Some(rest) = after(b"http://").or_else(|| after(b"https://")) else {
        return Err(bad("the target is neither a path nor an absolute URL"));
    };
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    Ok(&rest[..end])
}

/// The header lines that say where a request goes and where it ends.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    coding: Option<&'a [u8]>,
}

/// Headers that say who is asked, and who asks: no `Connection` may take them away.
const KEPT: [&[u8]; 4] = [
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Fault> {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(bad("a header line is folded"));
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(bad("a header line has no colon"));
        };
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) {
            return Err(bad("the name of a header is no token"));
        }
        // A server that hands its headers to CGI or WSGI reads the two as one.
        if [&b"content_length"[..], b"transfer_encoding"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            return Err(bad("a header could be taken for the body's length"));
        }
        if !value
            .iter()
            .all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..))
        {
            return Err(bad("a header has a control character in it"));
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"host") {
            if self.host.replace(value).is_some() {
                return Err(bad("more than one Host"));
            }
        } else if is(b"content-length") {
            if self.length.replace(length(value)?).is_some() {
                return Err(bad("more than one Content-Length"));
            }
        } else if is(b"transfer-encoding") {
            if self.coding.replace(value).is_some() {
                return Err(bad("more than one Transfer-Encoding"));
            }
        } else if is(b"connection") {
            let mut names = value.split(|b| *b == b',').map(|name| name.trim_ascii());
            if names.any(|name| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name))) {
                return Err(bad(
                    "Connection names a header that is not its to take away",
                ));
            }
        } else if is(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Fault {
                status: StatusCode::EXPECTATION_FAILED,
                why: "only `Expect: 100-continue` can be met",
            });
        }
        Ok(())
    }

    fn host(&self, request: &RequestLine<'_>) -> Result<(), Fault> {
        match (self.host, request.authority) {
            (None, _) if request.http_11 => Err(bad("the request names no host")),
            (Some(host), _) if !is_host_and_port(host) => Err(bad("the Host is no host")),
            (_, Some(asked)) if !is_host_and_port(asked) => {
                Err(bad("the target's host is no host"))
            }
            (Some(host), Some(asked)) if !host.eq_ignore_ascii_case(asked) => {
                Err(bad("the target and the Host name different hosts"))
            }
            _ => Ok(()),
        }
    }

    fn framing(&self, request: &RequestLine<'_>) -> Result<Framing, Fault> {
        let Some(coding) = self.coding else {
            return Ok(match self.length {
                None | Some(0) => Framing::None,
                Some(length) => Framing::Length(length),
            });
        };
        if self.length.is_some() {
            return Err(bad("both Content-Length and Transfer-Encoding"));
        }
        if !request.http_11 {
            return Err(bad("HTTP/1.0 knows no Transfer-Encoding"));
        }
        let mut codings = coding.split(|b| *b == b',').map(trim).rev();
        let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        if !codings.next().is_some_and(chunked) {
            return Err(bad("the last Transfer-Encoding is not `chunked`"));
        }
        let mut others = 0;
        for coding in codings {
            if !is_token(coding) || chunked(coding) {
                return Err(bad("the Transfer-Encoding is not well formed"));
            }
            others += 1;
        }
        if others > 0 {
            return Err(Fault {
                status: StatusCode::NOT_IMPLEMENTED,
                why: "of transfer codings only `chunked` alone is served",
            });
        }
        Ok(Framing::Chunked)
    }
}

/// RFC 9110, 7.2: a name or an address, and perhaps a port; neither a user nor percent signs.
fn is_host_and_port(text: &[u8]) -> bool {
    let end = match text {
        [b'[', ..] => memchr(b']', text).map(|at| at + 1),
        _ => Some(memchr(b':', text).unwrap_or(text.len())),
    };
    let Some((host, port)) = end.map(|end| text.split_at(end)) else {
        return false;
    };
    let (name, is_address) = match host {
        [b'[', address @ .., b']'] => (address, true),
        name => (name, false),
    };
    let of_name = |b: &u8| {
        b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(b) || is_address && *b == b':'
    };
    let port_is_one = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => length(digits).is_ok_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    };
    !name.is_empty() && name.iter().all(of_name) && port_is_one
}

/// RFC 9110, 8.6: digits and nothing else.
fn length(value: &[u8]) -> Result<u64, Fault> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .ok_or(bad("the Content-Length is no number"))
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    const TOKEN: [bool; 256] = {
        let mut all = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            all[byte] = matches!(
                byte as u8,
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
                    | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
            byte += 1;
        }
        all
    };
    !text.is_empty() && text.iter().all(|b| TOKEN[usize::from(*b)])
}

/// Without the blanks around it (RFC 9110, 5.6.3), which are these two and no others.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn bad(why: &'static str) -> Fault {
    Fault {
        status: StatusCode::BAD_REQUEST,
        why,
    }
}

fn too_large(bytes: &[u8], bounds: Bounds) -> Fault {
    let within = &bytes[..bytes.len().min(bounds.bytes)];
    if within.contains(&b'\n') {
        Fault {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            why: "the head of the request is too large",
        }
    } else {
        Fault {
            status: StatusCode::URI_TOO_LONG,
            why: "the target of the request is too long",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes: 4096,
        fields: 16,
    };

    fn told(head: &str) -> Result<Framing, u16> {
        raw(head.as_bytes())
    }

    fn raw(head: &[u8]) -> Result<Framing, u16> {
        match read(head, &mut Progress::default(), BOUNDS) {
            Ok(Some(head)) => Ok(head.body),
            Ok(None) => Err(0),
            Err(fault) => Err(fault.status.as_u16()),
        }
    }

    #[test]
    fn a_head_that_can_be_read_in_one_way_passes() {
        for (head, body) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None),
            ("GET / HTTP/1.0\r\n\r\n", Framing::None),
            (
                "GET http://a:1/x?y HTTP/1.1\r\nHost: A:1\r\n\r\n",
                Framing::None,
            ),
            (
                "OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
                Framing::None,
            ),
            (
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
                Framing::Length(5),
            ),
            (
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length:0\r\n\r\n",
                Framing::None,
            ),
            (
                "POST /x HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked,
            ),
            (
                "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
                Framing::Length(1),
            ),
            (
                "GET /{a}|\"?q=%zz&b=[] HTTP/1.1\r\nHost: a\r\nEmpty:\r\nX: a\tb c\r\n\r\n",
                Framing::None,
            ),
        ] {
            assert_eq!(told(head), Ok(body), "{head:?}");
        }
        assert_eq!(
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Disposition: \xc3\xa9\r\n\r\n"),
            Ok(Framing::None)
        );
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused() {
        let host = "Host: a\r\n";
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), 400),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
                400,
            ),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: []\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a[::1]:80\r\n\r\n".to_owned(), 400),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 405),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
            (format!("GET /a b HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET  / HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET /\tHTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET / \r\n{host}\r\n"), 400),
            (format!("GET /\r\n{host}\r\n"), 400),
            (format!("GET /a#b HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET /é HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("G(T / HTTP/1.1\r\n{host}\r\n"), 400),
            (format!("GET / HTTP/1.2\r\n{host}\r\n"), 400),
            (format!("GET / HTTP/2.0\r\n{host}\r\n"), 400),
            (format!("GET / HTTP/0.9\r\n{host}\r\n"), 400),
            (format!("GET / http/1.1\r\n{host}\r\n"), 400),
            (format!("GET / HTTP/1.1\n{host}\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}\n"), 400),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), 400),
            (format!("GET / HTTP/1.1\r\n{host}A: b\rC: d\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}A: b\0\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}A: b\x7f\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}A : b\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host} A: b\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}A\r\n\r\n"), 400),
            (format!("GET / HTTP/1.1\r\n{host}: b\r\n\r\n"), 400),
            (
                format!("GET / HTTP/1.1\r\n{host}Expect: 200-ok\r\n\r\n"),
                417,
            ),
        ] {
            assert_eq!(told(&head), Err(status), "{head:?}");
        }
    }

    #[test]
    fn a_body_whose_end_could_be_read_in_two_ways_is_refused() {
        for (fields, status) in [
            ("Content-Length: 5\r\nContent-Length: 5", 400),
            ("Content-Length: 5\r\nContent-Length: 6", 400),
            ("Content-Length: 5, 5", 400),
            ("Content-Length: +5", 400),
            ("Content-Length: -1", 400),
            ("Content-Length: 0x5", 400),
            ("Content-Length: 5 5", 400),
            ("Content-Length:", 400),
            ("Content-Length: 99999999999999999999", 400),
            ("Content-Length : 5", 400),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                400,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                400,
            ),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: gzip;q=1, chunked", 400),
            ("Transfer-Encoding: chunked, chunked", 400),
            ("Transfer-Encoding: chunked, identity", 400),
            ("Transfer-Encoding: chunked, gzip", 400),
            ("Transfer-Encoding: , chunked", 400),
            ("Transfer-Encoding: chunked,", 400),
            ("Transfer-Encoding: identity", 400),
            ("Transfer-Encoding: gzip", 400),
            ("Transfer-Encoding: xchunked", 400),
            ("Transfer-Encoding: \x0bchunked", 400),
            ("Transfer-Encoding: \"chunked\"", 400),
            ("Transfer-Encoding:", 400),
            ("Transfer-Encoding\t: chunked", 400),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            assert_eq!(told(&head), Err(status), "{fields:?}");
        }
        assert_eq!(
            told("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(400)
        );
    }

    #[test]
    fn a_head_out_of_bounds_is_refused_before_it_is_whole() {
        let long = "x".repeat(5000);
        assert_eq!(told(&format!("GET /{long}")), Err(414));
        assert_eq!(
            told(&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}")),
            Err(431)
        );
        assert_eq!(
            told(&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n")),
            Err(431)
        );
        let many = "A: b\r\n".repeat(16);
        assert_eq!(
            told(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
            Err(431)
        );
        assert_eq!(told("GET / HTTP/1.1\r\nHost: a\r\n"), Err(0));
    }
}
