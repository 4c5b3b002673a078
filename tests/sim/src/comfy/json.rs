//! JSON as the real server speaks it: keys stay in order, and text is written as Python's `json.dumps` writes it, so that
//! answers are the same to the byte. Not `serde_json::Value`: its `preserve_order` would change the whole workspace.

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Number;
use std::fmt::{self, Display, Formatter, Write};

pub(crate) type Object = IndexMap<String, Json>;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) enum Json {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// `object! { "key": value, .. }`
macro_rules! object {
    ($($key:literal : $value:expr),* $(,)?) => {
        $crate::comfy::json::Json::Object($crate::comfy::json::Object::from_iter([
            $((String::from($key), $crate::comfy::json::Json::from($value))),*
        ]))
    };
}
pub(crate) use object;

// === impl Json ===

impl Json {
    /// Reads bytes as `json.loads` does.
    pub(crate) fn read(bytes: &[u8]) -> Result<Json, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// What stands under a key of an object.
    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        self.object()?.get(key)
    }

    pub(crate) fn object(&self) -> Option<&Object> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Json]> {
        match self {
            Json::List(list) => Some(list),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Json::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// Whether Python takes it for true.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Json::Null => false,
            Json::Bool(is) => *is,
            Json::Number(number) => number.as_f64() != Some(0.0),
            Json::Text(text) => !text.is_empty(),
            Json::List(list) => !list.is_empty(),
            Json::Object(object) => !object.is_empty(),
        }
    }

    /// `[node, slot]`, if it is a link to another node's output.
    pub(crate) fn link(&self) -> Option<(&str, usize)> {
        match self.list()? {
            [Json::Text(node), Json::Number(slot)] => Some((node, slot.as_u64()? as usize)),
            _ => None,
        }
    }

    /// What Python calls its type.
    pub(crate) fn python_type(&self) -> &'static str {
        match self {
            Json::Null => "NoneType",
            Json::Bool(_) => "bool",
            Json::Number(number) if number.is_f64() => "float",
            Json::Number(_) => "int",
            Json::Text(_) => "str",
            Json::List(_) => "list",
            Json::Object(_) => "dict",
        }
    }

    /// What Python's `str()` makes of it.
    pub(crate) fn python(&self) -> String {
        match self {
            Json::Text(text) => text.clone(),
            other => other.python_repr(),
        }
    }

    /// What Python's `repr()` makes of it.
    pub(crate) fn python_repr(&self) -> String {
        match self {
            Json::Null => "None".into(),
            Json::Bool(true) => "True".into(),
            Json::Bool(false) => "False".into(),
            Json::Number(number) => python_number(number),
            Json::Text(text) if text.contains('\'') && !text.contains('"') => format!("\"{text}\""),
            Json::Text(text) => {
                format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
            }
            Json::List(list) => {
                let items: Vec<String> = list.iter().map(Json::python_repr).collect();
                format!("[{}]", items.join(", "))
            }
            Json::Object(object) => {
                let items = object
                    .iter()
                    .map(|(key, value)| format!("'{key}': {}", value.python_repr()));
                format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Display for Json {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => out.write_str("null"),
            Json::Bool(is) => write!(out, "{is}"),
            Json::Number(number) => out.write_str(&python_number(number)),
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
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
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

/// Python writes an exponent with its sign and two digits.
fn python_number(number: &Number) -> String {
    let text = number.to_string();
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent.trim_start_matches('+')),
            };
            format!("{}e{sign}{exponent:0>2}", digits.trim_end_matches(".0"))
        }
        None => text,
    }
}

/// As other servers than Python's write it: without spaces, and text as it is.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(is) => serializer.serialize_bool(*is),
            Json::Number(number) => number.serialize(serializer),
            Json::Text(text) => serializer.serialize_str(text),
            Json::List(list) => serializer.collect_seq(list),
            Json::Object(object) => serializer.collect_map(object),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Json, E> {
        Ok(is.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Object::new();
        while let Some((key, value)) = entries.next_entry()? {
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}

impl From<bool> for Json {
    fn from(is: bool) -> Self {
        Json::Bool(is)
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Self {
        Json::Number(number.into())
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Json::Number(number.into())
    }
}

impl From<usize> for Json {
    fn from(number: usize) -> Self {
        Json::Number(number.into())
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Number::from_f64(number).map_or(Json::Null, Json::Number)
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

impl From<u16> for Json {
    fn from(number: u16) -> Self {
        Json::Number(number.into())
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Json::Object(object)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Json::Null, Into::into)
    }
}

impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_python_writes_it() {
        let read = r#"{"b":1,"a":[1.0,-2,1e-7,true,null],"é":"\"\u007f\n😀/"}"#;
        let written =
            r#"{"b": 1, "a": [1.0, -2, 1e-07, true, null], "\u00e9": "\"\u007f\n\ud83d\ude00/"}"#;
        assert_eq!(
            Json::read(read.as_bytes()).unwrap_or_default().to_string(),
            written
        );
    }

    #[test]
    fn it_is_told_as_python_tells_it() {
        let read = Json::read(br#"["it's", "a\\b", {"k": false}, 0.5]"#).unwrap_or_default();
        assert_eq!(read.python(), r#"["it's", 'a\\b', {'k': False}, 0.5]"#);
    }
}
