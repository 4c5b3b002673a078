//! Text with a place for the number of a frame: what an array's children are made of.
//!
//! `{frame}` is the number; `{frame:04}` the number with zeros before it, at least four characters wide. Braces right
//! before `frame` are read in pairs, each of which is one literal brace: `{{frame}` is the text `{frame}`. All other
//! text stays as it is, byte for byte, so that JSON and the templates of others need no care.
//!
//! In JSON, places are looked for in strings, but not in the names of members. A string that is nothing but `{frame}`
//! becomes the number. Numbers, order and white space stay as they were typed.

use serde_json::value::RawValue;
use std::fmt::Write;

/// The widest that a number is made.
const WIDEST: usize = 20;

/// Text with places for a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// The number, at least so wide.
    Frame(usize),
}

/// A place that cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place for a frame; write `{{frame}}`, or `{{frame:04}}` for four digits")]
pub struct BadPlace(String);

// === impl Template ===

impl Template {
    /// Reads plain text.
    ///
    /// Errors: a place has another format than a width.
    pub fn text(text: &str) -> Result<Self, BadPlace> {
        let mut template = Template::default();
        template.read(text)?;
        Ok(template)
    }

    /// Reads JSON.
    ///
    /// Errors: as [`Template::text`].
    pub fn json(json: &RawValue) -> Result<Self, BadPlace> {
        let mut template = Template::default();
        let mut rest = json.get();
        while let Some((before, string, after)) = next_string(rest) {
            template.push(before);
            let is_name = after.trim_start().starts_with(':');
            match string {
                "{frame}" if !is_name => template.0.push(Part::Frame(0)),
                _ => {
                    template.push("\"");
                    match is_name {
                        true => template.push(string),
                        // No character of a place is one that JSON escapes.
                        false => template.read(string)?,
                    }
                    template.push("\"");
                }
            }
            rest = after;
        }
        template.push(rest);
        Ok(template)
    }

    /// Whether a frame makes a difference.
    pub fn has_place(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Frame(_)))
    }

    /// The text for a frame.
    pub fn fill(&self, frame: i32) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Frame(width) => {
                    let width = *width;
                    let _ = write!(text, "{frame:0width$}");
                }
            }
        }
        text
    }

    fn read(&mut self, text: &str) -> Result<(), BadPlace> {
        let mut rest = text;
        while let Some(at) = rest.find("{frame") {
            let tail = &rest[at + "{frame".len()..];
            if !tail.starts_with(['}', ':']) {
                let (passed, left) = rest.split_at(rest.len() - tail.len());
                self.push(passed);
                rest = left;
                continue;
            }
            let before = &rest[..at];
            let plain = before.trim_end_matches('{');
            let braces = before.len() - plain.len() + 1;
            self.push(plain);
            self.push(&"{".repeat(braces / 2));
            if braces.is_multiple_of(2) {
                self.push("frame");
                rest = tail;
                continue;
            }
            let bad = || BadPlace(rest[at..].chars().take(24).collect());
            let (format, after) = tail.split_once('}').ok_or_else(bad)?;
            self.0.push(Part::Frame(width(format).ok_or_else(bad)?));
            rest = after;
        }
        self.push(rest);
        Ok(())
    }

    fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.0.push(Part::Text(text.into())),
        }
    }
}

/// What stands between `frame` and `}`: nothing, or `:04`. Whoever comes from Python writes `:04d`.
fn width(format: &str) -> Option<usize> {
    if format.is_empty() {
        return Some(0);
    }
    let digits = format.strip_prefix(":0")?;
    let digits = digits.strip_suffix('d').unwrap_or(digits);
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    digits
        .parse()
        .ok()
        .filter(|width| all && (1..=WIDEST).contains(width))
}

/// What stands before the next string of a JSON text, the string's inside, and what stands after it.
fn next_string(json: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = json.split_once('"')?;
    let mut escaped = false;
    let end = rest.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    })?;
    Some((before, &rest[..end], &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn places_are_filled_and_all_other_text_stays() {
        for (text, frame, wants) in [
            ("/render/{frame}", 7, "/render/7"),
            ("{frame:04}.exr", 7, "0007.exr"),
            ("{frame:04d}", 7, "0007"),
            ("{frame:04}", 12345, "12345"),
            ("{frame:04}", -5, "-005"),
            ("{frame}{frame:02}", 3, "303"),
            ("{{frame}", 7, "{frame}"),
            ("{{frame:04}", 7, "{frame:04}"),
            ("{{{frame}}", 7, "{7}"),
            ("{{{{frame}", 7, "{{frame}"),
            ("{frames} {fram} {{x}} {", 7, "{frames} {fram} {{x}} {"),
            ("{framework{frame}", 7, "{framework7"),
            ("no place", 7, "no place"),
            ("", 7, ""),
        ] {
            let template = Template::text(text).unwrap();
            assert_eq!(template.fill(frame), wants, "{text}");
        }
    }

    #[test]
    fn a_place_with_another_format_is_refused() {
        for text in [
            "{frame:}",
            "{frame:4}",
            "{frame:0}",
            "{frame:04x}",
            "{frame:099}",
            "{frame:04",
            "{frame: 04}",
            "{frame:0+4}",
        ] {
            assert!(Template::text(text).is_err(), "{text}");
        }
        assert!(Template::text("{{frame:x}").is_ok(), "a literal one");
    }

    fn of_json(json: &str) -> Template {
        Template::json(&RawValue::from_string(json.into()).unwrap()).unwrap()
    }

    #[test]
    fn in_json_a_string_that_is_a_place_becomes_the_number_and_names_stay() {
        for (json, wants) in [
            (r#"{"frame": "{frame}"}"#, r#"{"frame": 7}"#),
            (r#"{"{frame}" : "{frame:03}"}"#, r#"{"{frame}" : "007"}"#),
            (r#"["a {frame} b", "{{frame}"]"#, r#"["a 7 b", "{frame}"]"#),
            (r#""\"{frame}\" \\""#, r#""\"7\" \\""#),
            (
                r#"{"z": 1.50, "a": 12345678901234567890, "é": "{frame}"}"#,
                r#"{"z": 1.50, "a": 12345678901234567890, "é": 7}"#,
            ),
            ("7", "7"),
            ("[true, null]", "[true, null]"),
        ] {
            assert_eq!(of_json(json).fill(7), wants, "{json}");
        }
    }

    /// The same, done to the values.
    fn filled(value: &Value, frame: i32) -> Value {
        match value {
            Value::String(text) if text == "{frame}" => json!(frame),
            Value::String(text) => Template::text(text).unwrap().fill(frame).into(),
            Value::Array(all) => all.iter().map(|value| filled(value, frame)).collect(),
            Value::Object(all) => {
                let all = all
                    .iter()
                    .map(|(name, value)| (name.clone(), filled(value, frame)));
                Value::Object(all.collect())
            }
            other => other.clone(),
        }
    }

    #[test]
    fn any_json_is_filled_as_its_values_are() {
        let text = prop_oneof![
            Just("{frame}".to_owned()),
            "([a\"\\\\{}: é\n]|\\{frame\\}|\\{frame:03\\}){0,4}",
        ]
        .prop_filter("places are whole", |text| Template::text(text).is_ok());
        let leaf = prop_oneof![
            text.clone().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(Value::Null),
        ];
        let value = leaf.prop_recursive(3, 16, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(text.clone(), inner, 0..4)
                    .prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        });
        tried(1_000, (value, any::<i32>()), |(value, frame)| {
            for json in [
                value.to_string(),
                serde_json::to_string_pretty(&value).unwrap(),
            ] {
                let text = of_json(&json).fill(frame);
                let read: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(read, filled(&value, frame), "{json}");
            }
        });
    }
}
