//! What a form says of itself (`multipart/form-data`): sounds and pictures come so, with the model in a field beside them.
//!
//! Starlette (vLLM, SGLang) takes the last field of a name, Go (Ollama) the first: where two differ the form is
//! [`disputed`](Asked::disputed), and an edit changes both.

use crate::body::Asked;
use crate::prompt::Section;
use memchr::memmem::Finder;
use std::borrow::Cow;
use std::ops::Range;

/// A form that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForm {
    /// The content type names no boundary.
    #[error("the content type `multipart/form-data` names no boundary")]
    NoBoundary,
    /// A part has no end.
    #[error("the form ends within a part, at byte {at}")]
    Unfinished {
        /// Where that part begins.
        at: usize,
    },
}

/// RFC 2046, 5.1.1.
const BOUNDARY_MOST: usize = 70;

/// So long are the headers of a part, at most; of one that has more nothing is read.
const HEADERS_MOST: usize = 4096;

/// Reads a form.
pub fn read<'a>(content_type: &str, body: &'a [u8]) -> Result<Asked<'a>, NotForm> {
    let boundary = boundary(content_type).ok_or(NotForm::NoBoundary)?;
    let mark = format!("--{boundary}");
    let finder = Finder::new(mark.as_bytes());
    let mut asked = Asked {
        form: true,
        ..Asked::default()
    };
    let mut begin = next_mark(&finder, body, 0);
    while let Some(at) = begin {
        let after = at + mark.len();
        if body[after..].starts_with(b"--") {
            break;
        }
        let end = next_mark(&finder, body, after).ok_or(NotForm::Unfinished { at })?;
        if let Some((name, range)) = part(body, after..end) {
            entry(&mut asked, &name, body, range);
        }
        begin = Some(end);
    }
    let says = |range: &Range<usize>| String::from_utf8_lossy(&body[range.clone()]);
    asked.disputed = asked
        .places
        .windows(2)
        .any(|two| says(&two[0]) != says(&two[1]));
    asked.model = asked.places.last().map(says);
    Ok(asked)
}

fn entry<'a>(asked: &mut Asked<'a>, name: &str, body: &'a [u8], range: Range<usize>) {
    let bytes = &body[range.clone()];
    let text = || std::str::from_utf8(bytes).ok().map(str::trim);
    match name {
        "model" => asked.places.push(range),
        "stream" => {
            asked.stream = text().map(|text| text.eq_ignore_ascii_case("true") || text == "1");
        }
        "n" => asked.n = text().and_then(|text| text.parse().ok()),
        "user" => asked.user = Some(String::from_utf8_lossy(bytes)),
        "prompt" => asked.prompt.add(Section::Main, range, false),
        _ => {}
    }
}

/// The next boundary that stands at the beginning of a line.
fn next_mark(finder: &Finder<'_>, body: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let at = from + finder.find(body.get(from..)?)?;
        if at == 0 || body[at - 1] == b'\n' {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The name of the field that lies between two boundaries, and where its value is.
fn part(body: &[u8], range: Range<usize>) -> Option<(Cow<'_, str>, Range<usize>)> {
    // The line of the boundary itself.
    let line = memchr::memchr(b'\n', &body[range.clone()])? + 1;
    let mut at = range.start + line;
    let most = range.end.min(at + HEADERS_MOST);
    let mut name = None;
    loop {
        let line = memchr::memchr(b'\n', body.get(at..most)?)?;
        let header = body[at..at + line].trim_ascii();
        at += line + 1;
        if header.is_empty() {
            break;
        }
        let (key, value) =
            header.split_at_checked(header.iter().position(|byte| *byte == b':')?)?;
        if key
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-disposition")
        {
            name = parameter(&value[1..], b"name");
        }
    }
    let end = range.end.checked_sub(1)?;
    let end = if end > at && body[end - 1] == b'\r' {
        end - 1
    } else {
        end
    };
    Some((name?, at..end.max(at)))
}

/// The boundary that a content type names.
fn boundary(content_type: &str) -> Option<String> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(rest.as_bytes(), b"boundary")?.into_owned();
    (!boundary.is_empty() && boundary.len() <= BOUNDARY_MOST).then_some(boundary)
}

/// The value of a parameter (`; name="value"`).
fn parameter<'a>(mut rest: &'a [u8], wanted: &[u8]) -> Option<Cow<'a, str>> {
    loop {
        let from = rest
            .iter()
            .position(|byte| !matches!(byte, b';' | b' ' | b'\t'))?;
        rest = &rest[from..];
        let key = rest.iter().position(|byte| matches!(byte, b'=' | b';'));
        let key = key.unwrap_or(rest.len());
        let is_it = rest[..key].trim_ascii().eq_ignore_ascii_case(wanted);
        if rest.get(key) != Some(&b'=') {
            rest = &rest[key..];
            continue;
        }
        rest = rest[key + 1..].trim_ascii_start();
        let (value, left) = match rest.strip_prefix(b"\"") {
            Some(inner) => quoted(inner)?,
            None => {
                let end = rest
                    .iter()
                    .position(|byte| *byte == b';')
                    .unwrap_or(rest.len());
                (
                    String::from_utf8_lossy(rest[..end].trim_ascii()),
                    &rest[end..],
                )
            }
        };
        if is_it {
            return Some(value);
        }
        rest = left;
    }
}

/// What stands before the closing quote, and what is left behind it.
fn quoted(inner: &[u8]) -> Option<(Cow<'_, str>, &[u8])> {
    let end = memchr::memchr2(b'"', b'\\', inner)?;
    if inner[end] == b'"' {
        return Some((String::from_utf8_lossy(&inner[..end]), &inner[end + 1..]));
    }
    let mut value = Vec::new();
    let mut bytes = inner.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                let value = String::from_utf8_lossy(&value).into_owned();
                return Some((value.into(), &inner[at + 1..]));
            }
            b'\\' => value.push(*bytes.next()?.1),
            other => value.push(*other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tabane_api::Edit;

    const KIND: &str = "multipart/form-data; boundary=X-9";

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (headers, value) in parts {
            body.extend_from_slice(b"--X-9\r\n");
            body.extend_from_slice(headers.as_bytes());
            body.extend_from_slice(b"\r\n\r\n");
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--X-9--\r\n");
        body
    }

    #[test]
    fn the_model_is_found_beside_a_file_and_changed_without_touching_it() {
        let mut sound: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        sound.extend_from_slice(
            b"\r\n--X-8\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nno --X-9",
        );
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"a;name=\\\"model\\\".wav\"\r\nContent-Type: audio/wav";
        let body = form(&[
            ("Content-Disposition: form-data; name=\"stream\"", b"True"),
            (file, &sound),
            ("content-disposition:form-data;name=model", b"whisper-1"),
            (
                "Content-Disposition: form-data; name=\"prompt\"",
                "Grüße --X-9 y".as_bytes(),
            ),
        ]);
        let asked = read(KIND, &body).unwrap();
        assert_eq!(asked.model.as_deref(), Some("whisper-1"));
        assert_eq!((asked.stream, asked.disputed), (Some(true), false));
        assert_eq!(
            asked.prompt.bytes(),
            "Grüße --X-9 y".len(),
            "a boundary begins a line"
        );
        assert!(asked.edits("whisper-1").is_empty());
        let edits = asked.edits("tiny");
        let body = Bytes::from(body.clone());
        let wants = String::from_utf8_lossy(&body).replace("whisper-1", "tiny");
        assert_eq!(String::from_utf8_lossy(&Edit::apply(&body, &edits)), wants);
    }

    #[test]
    fn two_models_are_disputed_and_both_are_changed() {
        let model = "Content-Disposition: form-data; name=\"model\"";
        let body = form(&[(model, b"a"), (model, b"b")]);
        let asked = read(KIND, &body).unwrap();
        assert!(asked.disputed);
        assert_eq!(asked.model.as_deref(), Some("b"), "as Starlette reads it");
        let edited = Edit::apply(&Bytes::from(body.clone()), &asked.edits("b"));
        assert_eq!(edited, form(&[(model, b"b"), (model, b"b")]));
        assert!(!read(KIND, &edited).unwrap().disputed);
        let empty = form(&[(model, b"")]);
        let asked = read(KIND, &empty).unwrap();
        assert_eq!(asked.model.as_deref(), Some(""));
        let edited = Edit::apply(&Bytes::from(empty.clone()), &asked.edits("c"));
        assert_eq!(edited, form(&[(model, b"c")]));
    }

    #[test]
    fn boundaries_are_read_however_they_are_written() {
        for (kind, wants) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            (
                "Multipart/Form-Data;charset=utf-8; Boundary=\"a b\"",
                Some("a b"),
            ),
            (
                "multipart/form-data; x=\";boundary=no\"; boundary=yes",
                Some("yes"),
            ),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; flag", None),
            ("multipart/form-data", None),
            ("application/json; boundary=a", None),
        ] {
            assert_eq!(boundary(kind).as_deref(), wants, "{kind}");
        }
        let long = format!("multipart/form-data; boundary={}", "a".repeat(71));
        assert_eq!(read(&long, b""), Err(NotForm::NoBoundary));
    }

    #[test]
    fn what_is_cut_off_is_no_form() {
        let body = form(&[("Content-Disposition: form-data; name=\"model\"", b"a")]);
        for cut in 0..body.len() {
            let _ = read(KIND, &body[..cut]);
        }
        let cut = body.len() - "--X-9--\r\n".len();
        assert_eq!(read(KIND, &body[..cut]), Err(NotForm::Unfinished { at: 0 }));
        // A part without a name, or without an end of its headers, says nothing.
        let odd = b"--X-9\r\nno header\r\n--X-9\r\nA: b\r\n\r\nx\r\n--X-9--";
        assert_eq!(read(KIND, odd).unwrap().model, None);
        assert_eq!(read(KIND, b"").unwrap().model, None);
    }
}
