//! What is wrong with a value, in the words of the file and not in those of Rust.

use super::findings::Findings;
use super::problem::{list, shorten, suggest};
use super::tree::{Mark, Scalar, Value};
use serde::de::{self, Expected, Unexpected};
use std::fmt;

/// What is wrong with a value, in the words of the file, and where when that is known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) hint: String,
    pub(crate) place: Option<(Mark, String)>,
}

/// How a value is reached, as `pools.image[2].weight`.
pub(crate) enum Path<'a> {
    /// From here.
    Text(&'a str),
    /// A map's value.
    Key(&'a Path<'a>, &'a str),
    /// A list's element.
    Index(&'a Path<'a>, usize),
}

impl Fault {
    pub(crate) fn new(what: String, hint: impl Into<String>) -> Self {
        Fault {
            what,
            hint: hint.into(),
            place: None,
        }
    }

    /// Puts it among the findings; `mark` and `path` are for one that has no place of its own.
    pub(crate) fn report(self, mark: Mark, path: &Path<'_>, findings: &Findings) {
        findings.take_innermost();
        let (mark, path) = self.place.unwrap_or_else(|| (mark, path.to_string()));
        findings.problem_at(mark, path, self.what, self.hint);
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    /// A message may bring its hint behind a semicolon.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match message.split_once("; ") {
            Some((what, hint)) => Fault::new(what.to_owned(), hint),
            None => Fault::new(message, ""),
        }
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let hint = match found {
            Unexpected::Str(text) if text.contains("${") => "write `$${` for a literal `${`",
            _ => "",
        };
        Fault::new(
            format!("expected {}, found {}", in_words(wanted), unexpected(found)),
            hint,
        )
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_type(found, wanted)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let hint = match field {
            _ if known.is_empty() => "nothing can be configured here".to_owned(),
            "<<" => {
                "YAML 1.2 has no merge keys: repeat the keys, or alias the whole block".to_owned()
            }
            _ => suggest(field, known.iter().copied()),
        };
        Fault::new(format!("unknown key `{}`", shorten(field)), hint)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Fault::new(
            format!("unknown value `{}`", shorten(variant)),
            suggest(variant, known.iter().copied()),
        )
    }

    fn missing_field(field: &'static str) -> Self {
        Fault::new(format!("`{field}` is missing"), "")
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Text(text) => f.write_str(text),
            Path::Key(Path::Text(""), key) => f.write_str(&shorten(key)),
            Path::Key(before, key) => write!(f, "{before}.{}", shorten(key)),
            Path::Index(before, index) => write!(f, "{before}[{index}]"),
        }
    }
}

/// What stands there, as one would say it.
pub(crate) fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Unreadable => "a variable that is not set".to_owned(),
        Value::Scalar(Scalar { expanded: true, .. }) => "text".to_owned(),
        Value::Scalar(scalar) => format!("`{}`", shorten(&scalar.text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

fn unexpected(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => format!("`{flag}`"),
        Unexpected::Unsigned(number) => format!("`{number}`"),
        Unexpected::Signed(number) => format!("`{number}`"),
        Unexpected::Float(number) => format!("`{number}`"),
        Unexpected::Str(text) => format!("`{}`", shorten(text)),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map | Unexpected::NewtypeStruct | Unexpected::StructVariant => {
            "a map".to_owned()
        }
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        other => other.to_string(),
    }
}

/// Rust's names of types, as one would say them.
fn in_words(wanted: &dyn Expected) -> String {
    let wanted = wanted.to_string();
    match wanted.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, maybe negative".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        _ if wanted.starts_with("struct ") => "a map".to_owned(),
        _ => wanted,
    }
}

/// The keys of a struct, or some of them.
pub(crate) fn keys(known: &[&str]) -> String {
    const SOME: usize = 8;
    if known.len() > SOME {
        format!("keys such as {}", list(&known[..SOME]))
    } else {
        list(known)
    }
}
