//! Reads a form: `multipart/form-data`, whole in memory.
//!
//! Source: RFC 7578, and RFC 2046 5.1.1 for boundaries.

pub(crate) struct Part {
    pub(crate) name: String,
    /// The name of the file that it is.
    pub(crate) file: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

/// `None`: it is none, or broken.
pub(crate) fn parts(content_type: &str, body: &[u8]) -> Option<Vec<Part>> {
    if !content_type.starts_with("multipart/form-data") {
        return None;
    }
    let boundary = format!("--{}", parameter(content_type, "boundary")?);
    let mut rest = after(body, boundary.as_bytes())?;
    let between = format!("\r\n{boundary}");
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = find(part, between.as_bytes())?;
        parts.push(read(&part[..end])?);
        rest = &part[end + between.len()..];
    }
    rest.starts_with(b"--").then_some(parts)
}

fn read(part: &[u8]) -> Option<Part> {
    let end = find(part, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&part[..end]).ok()?;
    let mut lines = head.lines();
    let disposition = lines.find(|line| {
        line.to_ascii_lowercase()
            .starts_with("content-disposition:")
    })?;
    Some(Part {
        name: parameter(disposition, "name")?,
        file: parameter(disposition, "filename").filter(|name| !name.is_empty()),
        bytes: part[end + 4..].to_vec(),
    })
}

/// A parameter of a header, with or without quotes.
fn parameter(header: &str, name: &str) -> Option<String> {
    let mut found = header
        .split(';')
        .skip(1)
        .filter_map(|part| part.split_once('='));
    let (_, value) = found.find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
    let value = value.trim().trim_matches('"');
    Some(value.replace("\\\"", "\"").replace("%22", "\""))
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

fn after<'a>(within: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = find(within, what)?;
    within.get(at + what.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read() {
        let body = b"--X\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\ninput\r\n--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a b.png\"\r\nContent-Type: image/png\r\n\r\n\x00\r\n--\x01\r\n--X--\r\n";
        let read = parts("multipart/form-data; boundary=\"X\"", body).unwrap_or_default();
        let told: Vec<_> = read
            .iter()
            .map(|p| (p.name.as_str(), p.file.as_deref(), p.bytes.as_slice()))
            .collect();
        assert_eq!(
            told,
            [
                ("type", None, &b"input"[..]),
                ("image", Some("a b.png"), &b"\x00\r\n--\x01"[..])
            ]
        );
        assert!(parts("multipart/form-data; boundary=X", b"--X\r\nno end").is_none());
    }
}
