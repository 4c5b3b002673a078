//! Puts a value into a JSON body and leaves every other byte as it came: numbers keep their digits, members their order.

use crate::pointer::Pointer;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The body with a text put at `pointer`, in place of what stood there, or as a new member with all that is missing
/// around it.
///
/// Errors: a sentence; the body is not JSON, or the pointer leads into something that has no members.
pub(crate) fn put(body: &[u8], pointer: &Pointer, text: &str) -> Result<Bytes, String> {
    let raw: &RawValue = serde_json::from_slice(body).map_err(|error| {
        format!("its body is not JSON, and `{pointer}` is to be put into it: {error}")
    })?;
    let value = serde_json::Value::from(text).to_string();
    let place = find(raw.get(), &pointer.names(), &value)
        .ok_or_else(|| format!("its body has no place for `{pointer}`"))?;
    let Place { part, after, put } = place;
    // Both are slices of the one body.
    let from = part.as_ptr() as usize - body.as_ptr() as usize;
    let mut made = Vec::with_capacity(body.len() + put.len());
    made.extend_from_slice(&body[..from]);
    made.extend_from_slice(put.as_bytes());
    made.extend_from_slice(&body[from + after..]);
    Ok(made.into())
}

/// Where a text is put.
struct Place<'a> {
    /// It begins where this begins.
    part: &'a str,
    /// So many bytes are replaced.
    after: usize,
    put: String,
}

fn find<'a>(raw: &'a str, names: &[String], value: &str) -> Option<Place<'a>> {
    let Some((name, inner)) = names.split_first() else {
        return Some(Place {
            part: raw,
            after: raw.len(),
            put: value.to_owned(),
        });
    };
    if raw.starts_with('[') {
        let items: Vec<&'a RawValue> = serde_json::from_str(raw).ok()?;
        let item = items.get(name.parse::<usize>().ok()?)?;
        return find(item.get(), inner, value);
    }
    if !raw.starts_with('{') {
        return None;
    }
    let members: BTreeMap<String, &'a RawValue> = serde_json::from_str(raw).ok()?;
    match members.get(name.as_str()) {
        // Nothing stands there yet, whatever is to be put inside.
        Some(member) if member.get() == "null" => find(member.get(), &[], &nested(inner, value)),
        Some(member) => find(member.get(), inner, value),
        None => {
            let comma = if members.is_empty() { "" } else { "," };
            Some(Place {
                part: &raw[1..],
                after: 0,
                put: format!("{}:{}{comma}", quoted(name), nested(inner, value)),
            })
        }
    }
}

/// The value with objects around it, one for each name.
fn nested(names: &[String], value: &str) -> String {
    names.iter().rev().fold(value.to_owned(), |inner, name| {
        format!("{{{}:{inner}}}", quoted(name))
    })
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_put_in_changes() {
        for (body, at, wants) in [
            (r#"{}"#, "/w", r#"{"w":"x\"y"}"#),
            (
                r#" { "n" : 1.50e400 , "a":[1, 2]} "#,
                "/w",
                r#" {"w":"x\"y", "n" : 1.50e400 , "a":[1, 2]} "#,
            ),
            (
                r#"{"w" : {"old": 1}, "b": 2}"#,
                "/w",
                r#"{"w" : "x\"y", "b": 2}"#,
            ),
            (
                r#"{"meta": {"a": 1}}"#,
                "/meta/w",
                r#"{"meta": {"w":"x\"y","a": 1}}"#,
            ),
            (r#"{"b":2}"#, "/m/n/w", r#"{"m":{"n":{"w":"x\"y"}},"b":2}"#),
            (r#"{"m":null}"#, "/m/w", r#"{"m":{"w":"x\"y"}}"#),
            (
                r#"{"jobs": [{}, {"w": 0}]}"#,
                "/jobs/1/w",
                r#"{"jobs": [{}, {"w": "x\"y"}]}"#,
            ),
            (r#"{"a/b":1}"#, "/a~1b", r#"{"a/b":"x\"y"}"#),
        ] {
            let made = put(body.as_bytes(), &Pointer::parse(at).unwrap(), "x\"y").unwrap();
            assert_eq!(made, wants, "{body}");
        }
    }

    #[test]
    fn a_body_without_such_a_place_says_so() {
        for (body, at, wants) in [
            (
                "frame=7",
                "/w",
                "its body is not JSON, and `/w` is to be put into it",
            ),
            ("", "/w", "its body is not JSON"),
            ("[]", "/w", "its body has no place for `/w`"),
            (r#"{"a": 1}"#, "/a/w", "its body has no place for `/a/w`"),
        ] {
            let error = put(body.as_bytes(), &Pointer::parse(at).unwrap(), "x").unwrap_err();
            assert!(error.contains(wants), "{body}: {error}");
        }
    }
}
