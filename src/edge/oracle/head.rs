//! Heads read a second time: by rules, each of which sees the whole head, and by another parser.

use super::super::head::{Bounds, Framing, Head, Progress, read};
use super::{everywhere, in_order};
use std::collections::BTreeSet;

/// Small, so that both are reached.
const BOUNDS: Bounds = Bounds {
    bytes: 1024,
    fields: 12,
};

/// What the rules say of the bytes at the front.
#[derive(Debug)]
enum Second<'a> {
    Unfinished,
    /// Every status that some rule has for it: with more than one fault, which is told is the reader's choice.
    Refused(BTreeSet<u16>),
    Whole(Reading<'a>),
}

#[derive(Debug)]
struct Reading<'a> {
    length: usize,
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

/// Holds the reader of heads to its promises on these bytes; whether they begin with a good head.
///
/// The verdict is the same in pieces that end at `cuts`, and byte by byte; it is what the rules say; and what
/// is let through is read alike by a parser of others: method, target, version, header lines, and length.
pub fn head(bytes: &[u8], cuts: &[usize]) -> bool {
    let verdict = read(bytes, &mut Progress::default(), BOUNDS);
    for cuts in [in_order(cuts, bytes.len()), everywhere(bytes.len())] {
        assert_eq!(in_pieces(bytes, &cuts), verdict, "in pieces: {cuts:?}");
    }
    match (verdict, second(bytes)) {
        (Ok(None), Second::Unfinished) => false,
        (Err(fault), Second::Refused(with)) => {
            let status = fault.status.as_u16();
            assert!(with.contains(&status), "{fault:?}, not one of {with:?}");
            false
        }
        (Ok(Some(head)), Second::Whole(reading)) => {
            assert_eq!(head.length, reading.length);
            assert_eq!(head.body, framing(&reading.fields));
            by_others(&bytes[..head.length], &reading);
            true
        }
        (verdict, second) => panic!("the reader says {verdict:?}, the rules {second:?}"),
    }
}

fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<Head>, super::super::head::Fault> {
    let mut progress = Progress::default();
    for cut in cuts {
        match read(&bytes[..*cut], &mut progress, BOUNDS) {
            Ok(None) => {}
            verdict => return verdict,
        }
    }
    Ok(None)
}

/// By httparse, which nodes and Pingora's peers use too.
fn by_others(head: &[u8], reading: &Reading<'_>) {
    let mut fields = [httparse::EMPTY_HEADER; BOUNDS.fields];
    let mut other = httparse::Request::new(&mut fields);
    let length = other.parse(head);
    assert_eq!(length, Ok(httparse::Status::Complete(reading.length)));
    assert_eq!(other.method.map(str::as_bytes), Some(reading.method));
    assert_eq!(other.path.map(str::as_bytes), Some(reading.target));
    let version = other.version.map(|minor| format!("HTTP/1.{minor}"));
    assert_eq!(version.as_deref().map(str::as_bytes), Some(reading.version));
    let fields = other.headers.iter();
    let fields: Vec<_> = fields.map(|f| (f.name.as_bytes(), f.value)).collect();
    assert_eq!(fields, reading.fields);
}

// === the rules ===

fn second(bytes: &[u8]) -> Second<'_> {
    let within = &bytes[..bytes.len().min(BOUNDS.bytes)];
    let end = find(within, b"\r\n\r\n").map(|at| at + 4);
    let seen = &within[..end.unwrap_or(within.len())];
    let alone = |at: usize| seen[at] == b'\n' && (at == 0 || seen[at - 1] != b'\r');
    let refused = |status| Second::Refused(BTreeSet::from([status]));
    if (0..seen.len()).any(alone) || seen.starts_with(b"\r\n") {
        return refused(400);
    }
    match end {
        Some(end) => whole(&bytes[..end]),
        None if bytes.len() <= BOUNDS.bytes => Second::Unfinished,
        None if within.contains(&b'\n') => refused(431),
        None => refused(414),
    }
}

fn whole(head: &[u8]) -> Second<'_> {
    let mut faults = BTreeSet::new();
    let mut rule = |holds: bool, status: u16| {
        if !holds {
            faults.insert(status);
        }
    };
    let mut lines = split(&head[..head.len() - 4], b"\r\n").into_iter();
    let first = lines.next().unwrap_or_default();
    let words = split(first, b" ");
    let word = |nth: usize| words.get(nth).copied().unwrap_or_default();
    let (method, target, version) = (word(0), word(1), word(2));

    rule(words.len() == 3, 400);
    rule(is_token(method), 400);
    rule(method != b"CONNECT", 405);
    rule([&b"HTTP/1.0"[..], b"HTTP/1.1"].contains(&version), 400);
    let visible = |byte: &u8| (0x21..=0x7e).contains(byte) && *byte != b'#';
    rule(target.iter().all(visible), 400);
    let asterisk = target == b"*" && method == b"OPTIONS";
    let absolute = authority(target);
    rule(
        target.starts_with(b"/") || asterisk || absolute.is_some(),
        400,
    );
    rule(absolute.is_none_or(is_host), 400);

    rule(lines.len() <= BOUNDS.fields, 431);
    let mut fields = Vec::new();
    for line in lines {
        let Some(colon) = find(line, b":") else {
            rule(false, 400);
            continue;
        };
        let (name, value) = (&line[..colon], blanks_off(&line[colon + 1..]));
        // A folded line begins with a blank, which is no token either.
        rule(is_token(name), 400);
        let dashed = String::from_utf8_lossy(name)
            .replace('_', "-")
            .to_ascii_lowercase();
        let kept = [
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ];
        let mut named = split(value, b",")
            .into_iter()
            .map(|n| n.trim_ascii().to_ascii_lowercase());
        rule(
            dashed != "connection" || !named.any(|n| kept.iter().any(|k| k.as_bytes() == n)),
            400,
        );
        let framing = dashed == "content-length" || dashed == "transfer-encoding";
        rule(!framing || !name.contains(&b'_'), 400);
        let control = |byte: &u8| matches!(byte, 0..=8 | 10..=31 | 127);
        rule(!value.iter().any(control), 400);
        fields.push((name, value));
    }

    let hosts = values(&fields, "host");
    rule(hosts.len() <= 1, 400);
    rule(version != b"HTTP/1.1" || !hosts.is_empty(), 400);
    rule(hosts.iter().all(|host| is_host(host)), 400);
    if let (Some(asked), Some(host)) = (absolute, hosts.first()) {
        rule(asked.eq_ignore_ascii_case(host), 400);
    }

    let lengths = values(&fields, "content-length");
    rule(lengths.len() <= 1, 400);
    rule(lengths.iter().all(|length| number(length).is_some()), 400);
    let codings = values(&fields, "transfer-encoding");
    if let Some(coding) = codings.first() {
        rule(codings.len() == 1 && lengths.is_empty(), 400);
        rule(version == b"HTTP/1.1", 400);
        let names: Vec<_> = split(coding, b",").into_iter().map(blanks_off).collect();
        let chunked = |name: &&[u8]| name.eq_ignore_ascii_case(b"chunked");
        rule(names.iter().all(|name| is_token(name)), 400);
        rule(names.last().is_some_and(chunked), 400);
        rule(names.iter().filter(|name| chunked(name)).count() <= 1, 400);
        rule(names.len() == 1, 501);
    }
    let expected = values(&fields, "expect");
    let known = |what: &&[u8]| what.eq_ignore_ascii_case(b"100-continue");
    rule(expected.iter().all(known), 417);

    if !faults.is_empty() {
        return Second::Refused(faults);
    }
    Second::Whole(Reading {
        length: head.len(),
        method,
        target,
        version,
        fields,
    })
}

/// RFC 9112, 6.3, for a request whose head has no fault: `chunked` before a length before nothing.
fn framing(fields: &[(&[u8], &[u8])]) -> Framing {
    if !values(fields, "transfer-encoding").is_empty() {
        return Framing::Chunked;
    }
    let length = values(fields, "content-length");
    match length.first().copied().and_then(number) {
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    }
}

/// RFC 3986, 3.2.2 and 3.2.3, less user information, less percent signs, and not empty.
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], &text[end + 1..]),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let number = |port: &str| port.is_empty() || number(port.as_bytes()).is_some_and(|n| n < 65536);
    let port = port.is_empty() || port.strip_prefix(':').is_some_and(number);
    let name = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(literal) => !literal.is_empty() && literal.chars().all(|c| name(c) || c == ':'),
        None => !host.is_empty() && host.chars().all(name),
    };
    host && port
}

/// The host and port of a target that is a URL.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let colon = find(target, b"://")?;
    let scheme = target[..colon].to_ascii_lowercase();
    if scheme != b"http" && scheme != b"https" {
        return None;
    }
    let rest = &target[colon + 3..];
    let end = rest.iter().position(|b| *b == b'/' || *b == b'?');
    Some(&rest[..end.unwrap_or(rest.len())])
}

fn values<'a>(fields: &[(&[u8], &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    let of_name = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
    fields
        .iter()
        .filter(of_name)
        .map(|(_, value)| *value)
        .collect()
}

fn number(digits: &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(number)
}

fn is_token(text: &[u8]) -> bool {
    let other = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    !text.is_empty() && text.iter().all(other)
}

fn blanks_off(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let Some(first) = text.iter().position(|b| !blank(b)) else {
        return &[];
    };
    let last = text.iter().rposition(|b| !blank(b)).unwrap_or(first);
    &text[first..=last]
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn split<'a>(mut text: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(found) = find(text, at) {
        parts.push(&text[..found]);
        text = &text[found + at.len()..];
    }
    parts.push(text);
    parts
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

    fn method() -> impl Strategy<Value = String> {
        prop_oneof![
            20 => one_of(&["GET", "POST", "OPTIONS", "M-SEARCH"]),
            1 => one_of(&["CONNECT", "G(T", "get", "", "PRI", "GET\t", "\u{e9}"]),
        ]
    }

    fn target() -> impl Strategy<Value = String> {
        prop_oneof![
            20 => "/[a-z/.%?&=]{0,12}",
            4 => one_of(&["*", "http://a", "http://a/x", "HTTPS://A:1?q", "http://a:1/b", "http://b/", "http://u@a/"]),
            1 => one_of(&["", "a", "//a", "/a#b", "/\u{e9}", "/a\0", "/a\tb", "http:/a", "http://", "a:1", "/{}|\"", "ftp://a/"]),
        ]
    }

    fn version() -> impl Strategy<Value = String> {
        prop_oneof![
            24 => Just("HTTP/1.1".to_owned()),
            4 => Just("HTTP/1.0".to_owned()),
            1 => one_of(&["HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "", "HTTP/01.1", "HTTP/1.1\r"]),
        ]
    }

    /// A header line, without its end.
    fn field() -> impl Strategy<Value = String> {
        let coding = one_of(&[
            "chunked",
            "Chunked",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "gzip",
            "identity",
            ", chunked",
            "chunked,",
            "xchunked",
            "chunked;q=1",
            "\"chunked\"",
            "\u{b}chunked",
            "chunked\u{c}",
            "",
            " \t chunked \t",
            "a b, chunked",
            "chun\rked",
        ]);
        let length = one_of(&[
            "0",
            "5",
            "05",
            "18446744073709551615",
            "18446744073709551616",
            "+5",
            "-1",
            "5, 5",
            "5 5",
            "0x5",
            "",
            "5\0",
            " 5\t",
            "٥",
            "1e1",
            "5\u{b}",
        ]);
        let host = one_of(&[
            "a", "A:1", "a:1", "a:", ":1", "a:b", "[::1]:80", "[::1", "::1", "a b", "a, b", "u@a",
            "a/b", "", "a.", "%61", "a\\b", "[]", "[::1]x", "a:1:2", "xn--a", "a?b", "[a]:", "a_b",
        ]);
        let named = |name: &'static [&'static str], value: BoxedStrategy<String>| {
            (one_of(name), value).prop_map(|(name, value)| name + &value)
        };
        prop_oneof![
            8 => Just("Host: a".to_owned()),
            2 => one_of(&["Content-Length: 5", "Transfer-Encoding: chunked", "content-length:0"]),
            1 => named(&["Host: ", "host:", "HOST:\t"], host.boxed()),
            1 => named(&["Connection: ", "connection:close, "], one_of(&["close", "Host", "x, X-Forwarded-For ", "hosts"]).boxed()),
            1 => named(&["Content-Length: ", "content-length:"], length.boxed()),
            1 => named(&["Transfer-Encoding: ", "transfer-encoding:"], coding.boxed()),
            1 => one_of(&["Expect: 100-continue", "expect:100-Continue", "Expect: x", "Expect:"]),
            8 => "[A-Za-z-]{1,8}:[ \t]?[ -~\t]{0,12}",
            1 => one_of(&[
                " a: b", "\ta: b", "a : b", "a\t: b", ": b", "a", "a: b\nc: d", "a: b\rc: d", "a: b\0", "a: \u{7f}",
                "a: \u{e9}", "\u{e9}: b", "a\0b: c", "Content-Length : 5", "Content_Length: 5", "\u{b}a: b",
                "a: b\r", "", "Transfer-Encoding\u{0}: chunked", "X: y\n\nGET / HTTP/1.1",
            ]),
        ]
    }

    /// Headers that say where a request goes and ends are drawn often enough to meet each other.
    fn line_end() -> impl Strategy<Value = &'static str> {
        prop_oneof![150 => Just("\r\n"), 1 => prop::sample::select(&["\n", "\r", "\n\r", "\r\r\n", ""][..])]
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let first = (
            method(),
            prop_oneof![20 => Just(" "), 1 => Just("  "), 1 => Just("\t")],
            target(),
            version(),
        )
            .prop_map(|(method, gap, target, version)| format!("{method} {target}{gap}{version}"));
        let some = |how_many| prop::collection::vec((field(), line_end()), how_many);
        // As many as there may be, with a Host among them.
        let many = (BOUNDS.fields - 2..BOUNDS.fields + 2).prop_map(|others| {
            let other = ("A: b".to_owned(), "\r\n");
            let mut lines = vec![other; others];
            lines.push(("Host: a".to_owned(), "\r\n"));
            lines
        });
        let lines = prop_oneof![18 => some(0..6), 1 => some(6..15), 1 => many];
        // Some are made as long as a head may be, or a little longer or shorter.
        let long = prop_oneof![
            30 => Just(None),
            1 => (BOUNDS.bytes - 3..BOUNDS.bytes + 4).prop_map(Some),
        ];
        (
            first,
            line_end(),
            lines,
            line_end(),
            long,
            prop::collection::vec(any::<u8>(), 0..20),
        )
            .prop_map(|(first, end, lines, last, long, tail)| {
                let mut text = first + end;
                for (line, end) in lines {
                    text += &line;
                    text += end;
                }
                if let Some(long) = long {
                    let so_far = text.len() + "Long: \r\n".len() + last.len();
                    let rest = "x".repeat(long.saturating_sub(so_far));
                    text += &format!("Long: {rest}\r\n");
                }
                text += last;
                let mut bytes = text.into_bytes();
                bytes.extend(tail);
                bytes
            })
    }

    /// Good heads, which small changes make bad ones of.
    const GOOD: [&str; 4] = [
        "GET /v1/x?y=z HTTP/1.1\r\nHost: a.example:8080\r\nAccept: */*\r\n\r\n",
        "POST http://a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nhost: [::1]:1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nContent-Length: 0\r\nCookie: a=b\r\n\r\n",
    ];

    fn changed() -> impl Strategy<Value = Vec<u8>> {
        let odd = prop::sample::select(&b"\r\n\t \0:,/#;\x7f\x80HC1"[..]);
        let change = (
            any::<prop::sample::Index>(),
            0usize..4,
            prop::collection::vec(odd, 0..3),
        );
        let changes = prop::collection::vec(change, 0..4);
        (prop::sample::select(&GOOD[..]), changes).prop_map(|(good, changes)| {
            let mut bytes = good.as_bytes().to_vec();
            for (at, remove, insert) in changes {
                let at = at.index(bytes.len() + 1);
                let end = (at + remove).min(bytes.len());
                bytes.splice(at..end, insert);
            }
            bytes
        })
    }

    /// Whether both verdicts come often enough to mean something is counted on the way.
    fn holds(cases: u32, bytes: impl Strategy<Value = Vec<u8>>, good_of_hundred: usize) {
        let (good, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let cuts = prop::collection::vec(0usize..2000, 0..6);
        tried(
            cases,
            (bytes.prop_map(Bytes::from), cuts),
            |(bytes, cuts)| {
                all.fetch_add(1, Ordering::Relaxed);
                good.fetch_add(usize::from(head(&bytes, &cuts)), Ordering::Relaxed);
            },
        );
        let (good, all) = (good.into_inner(), all.into_inner());
        assert!(
            good >= all * good_of_hundred / 100,
            "{good} of {all} were good"
        );
        assert!(good <= all * 9 / 10, "{good} of {all} were good");
    }

    #[test]
    fn a_head_is_read_as_the_rules_and_other_parsers_read_it() {
        holds(2500, text(), 5);
    }

    #[test]
    fn a_good_head_with_a_few_bytes_changed_is_read_as_the_rules_say() {
        holds(2000, changed(), 20);
    }

    #[test]
    fn any_bytes_get_the_verdict_of_the_rules() {
        holds(500, prop::collection::vec(any::<u8>(), 0..300), 0);
    }
}
