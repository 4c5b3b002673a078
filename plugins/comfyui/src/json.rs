//! JSON that comes out as it went in: keys in their order, numbers to their last digit.
//!
//! Not `serde_json::Value`: its `preserve_order` and `arbitrary_precision` would change the whole workspace. And it refuses
//! the `NaN` and `Infinity` that Python writes, as nodes do in `/object_info` where a pack has no upper limit.

use indexmap::IndexMap;
use std::fmt::{self, Display, Formatter, Write};

/// An object: its keys are in order.
pub type Object = IndexMap<String, Json>;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Object),
}

/// A number, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(Box<str>);

/// Bytes that are not JSON. It does not say what they are: they may hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, at byte {at}")]
pub struct NotJson {
    /// Where it is noticed.
    pub at: usize,
}

/// `object! { "key": value, .. }`
macro_rules! object {
    ($($key:literal : $value:expr),* $(,)?) => {
        $crate::json::Json::Object($crate::json::Object::from_iter([
            $((String::from($key), $crate::json::Json::from($value))),*
        ]))
    };
}
pub(crate) use object;

/// Deeper than any front end nests, and far from the end of the stack.
const DEEPEST: usize = 128;

// === impl Json ===

impl Json {
    /// Reads it. Of keys that are there twice the last one counts, at the first one's place, as in Python.
    pub fn read(bytes: &[u8]) -> Result<Json, NotJson> {
        let text = std::str::from_utf8(bytes).map_err(|error| NotJson {
            at: error.valid_up_to(),
        })?;
        let mut reader = Reader { text, at: 0 };
        let json = reader.value(0)?;
        match reader.next() {
            None => Ok(json),
            Some(_) => Err(reader.wrong()),
        }
    }

    /// An integer.
    pub fn integer(value: i64) -> Json {
        Json::Number(Number::written(value.to_string()))
    }

    /// What stands under a key of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.object()?.get(key)
    }

    /// It, if it is an object.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    /// It, if it is a list.
    pub fn list(&self) -> Option<&[Json]> {
        match self {
            Json::List(list) => Some(list),
            _ => None,
        }
    }

    /// It, if it is a text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// It, if it is a number.
    pub fn number(&self) -> Option<&Number> {
        match self {
            Json::Number(number) => Some(number),
            _ => None,
        }
    }
}

// === impl Number ===

impl Number {
    /// One that is written so.
    pub(crate) fn written(text: impl Into<Box<str>>) -> Self {
        Number(text.into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Python reads a `float` and not an `int`.
    pub fn is_float(&self) -> bool {
        self.0.contains(['.', 'e', 'E', 'N', 'I'])
    }

    /// Its value, as near as can be.
    pub fn value(&self) -> f64 {
        // Rust reads all that JSON and Python write, `Infinity` and `NaN` among it.
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// Its value, if it is an integer of at most 127 bits.
    pub fn integer(&self) -> Option<i128> {
        self.0.parse().ok()
    }
}

// === reading ===

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self) -> NotJson {
        NotJson { at: self.at }
    }

    /// The next byte that is no space. It is not taken.
    fn next(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let spaces = rest.iter().take_while(|b| b" \t\r\n".contains(b)).count();
        self.at += spaces;
        rest.get(spaces).copied()
    }

    /// Takes the next byte that is no space, if it is this one.
    fn takes(&mut self, byte: u8) -> bool {
        let is_it = self.next() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn must(&mut self, byte: u8) -> Result<(), NotJson> {
        self.takes(byte).then_some(()).ok_or(self.wrong())
    }

    fn value(&mut self, depth: usize) -> Result<Json, NotJson> {
        if depth > DEEPEST {
            return Err(self.wrong());
        }
        match self.next() {
            Some(b'{') => self.entries(depth).map(Json::Object),
            Some(b'[') => self.items(depth).map(Json::List),
            Some(b'"') => self.quoted().map(Json::Text),
            _ => self.word(),
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Object, NotJson> {
        let mut object = Object::new();
        self.must(b'{')?;
        while !self.takes(b'}') {
            if !object.is_empty() {
                self.must(b',')?;
            }
            self.next();
            let key = self.quoted()?;
            self.must(b':')?;
            object.insert(key, self.value(depth + 1)?);
        }
        Ok(object)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Json>, NotJson> {
        let mut list = Vec::new();
        self.must(b'[')?;
        while !self.takes(b']') {
            if !list.is_empty() {
                self.must(b',')?;
            }
            list.push(self.value(depth + 1)?);
        }
        Ok(list)
    }

    fn quoted(&mut self) -> Result<String, NotJson> {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let mut end = 1;
        while bytes.get(end).is_some_and(|b| *b != b'"') {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let whole = rest.get(..=end).ok_or(self.wrong())?;
        let text = serde_json::from_str(whole).map_err(|_| self.wrong())?;
        self.at += whole.len();
        Ok(text)
    }

    fn word(&mut self) -> Result<Json, NotJson> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        let word = &rest[..length.unwrap_or(rest.len())];
        let json = match word {
            "null" => Json::Null,
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            "NaN" | "Infinity" | "-Infinity" => Json::Number(Number::written(word)),
            word if is_number(word) => Json::Number(Number::written(word)),
            _ => return Err(self.wrong()),
        };
        self.at += word.len();
        Ok(json)
    }
}

fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, exponent) = match word.split_once(['e', 'E']) {
        Some((rest, exponent)) => (rest, Some(exponent)),
        None => (word, None),
    };
    let (whole, fraction) = match rest.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (rest, None),
    };
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

// === writing ===

/// As Python's `json.dumps` writes it.
impl Display for Json {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => out.write_str("null"),
            Json::Bool(is) => write!(out, "{is}"),
            Json::Number(number) => out.write_str(number.as_str()),
            Json::Text(text) => write_text(out, text),
            Json::List(list) => {
                out.write_char('[')?;
                for (i, item) in list.iter().enumerate() {
                    write!(out, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                out.write_char(']')
            }
            Json::Object(object) => {
                out.write_char('{')?;
                for (i, (key, value)) in object.iter().enumerate() {
                    out.write_str(if i > 0 { ", " } else { "" })?;
                    write_text(out, key)?;
                    write!(out, ": {value}")?;
                }
                out.write_char('}')
            }
        }
    }
}

fn write_text(out: &mut Formatter<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            ' '..='~' => out.write_char(c)?,
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
    }
    out.write_char('"')
}

// === making ===

impl From<bool> for Json {
    fn from(is: bool) -> Self {
        Json::Bool(is)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Json::Text(text)
    }
}

impl From<Number> for Json {
    fn from(number: Number) -> Self {
        Json::Number(number)
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Json::Object(object)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Json::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_wrote_comes_out_to_the_byte() {
        for text in [
            r#"{"b": 1, "a": [1.0, -2, 1e-07, 1.10, true, null], "": {}}"#,
            r#"[18446744073709551615, 340282366920938463463374607431768211456, NaN, -Infinity, 1e400]"#,
            r#""\u00e9\"\\\n\t\u007f\ud83d\ude00/""#,
            "[]",
            "-0",
        ] {
            assert_eq!(Json::read(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_stops_to_be() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            (r#"{"a" 1}"#, 5),
            (r#"{"a": 1,}"#, 8),
            ("[1 2]", 3),
            ("[1,]", 3),
            ("[,1]", 1),
            ("01", 0),
            ("1.", 0),
            ("-", 0),
            ("+1", 0),
            (".5", 0),
            ("1e", 0),
            ("nul", 0),
            ("1 1", 2),
            ("\"a\nb\"", 0),
            (r#""\ud800""#, 0),
            (r#""\"#, 0),
            (r#""é"#, 0),
            (r#"{1: 2}"#, 1),
        ] {
            assert_eq!(Json::read(text.as_bytes()), Err(NotJson { at }), "{text}");
        }
        assert_eq!(Json::read(b"\"\xff\""), Err(NotJson { at: 1 }));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Json::read(deep(DEEPEST).as_bytes()).is_ok());
        assert!(Json::read(deep(DEEPEST + 2).as_bytes()).is_err());
        assert!(Json::read("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn of_a_key_that_is_there_twice_the_last_counts() {
        let read = Json::read(br#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(read.to_string(), r#"{"a": 3, "b": 2}"#);
    }
}
