//! Where in a JSON document something stands, and what stands there.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// A place in a JSON document, such as `/job/state` (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer(String);

/// A plain value of a JSON document as text: `COMPLETED`, `true`, `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain(String);

// === impl Pointer ===

impl Pointer {
    /// Reads it.
    ///
    /// Errors: a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            Ok(Pointer(text.to_owned()))
        } else {
            Err(format!("a JSON pointer begins with `/`, got `{text}`"))
        }
    }

    /// Its names, outermost first.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.0.split('/').skip(1);
        names
            .map(|name| name.replace("~1", "/").replace("~0", "~"))
            .collect()
    }

    /// What stands there.
    pub(crate) fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        document.pointer(&self.0)
    }

    /// The plain value that stands there, as text; `null` is one.
    pub(crate) fn plain(&self, document: &Value) -> Option<String> {
        plain(self.get(document)?)
    }

    /// The text that stands there, if it says anything; of what is not plain, its JSON.
    pub(crate) fn text(&self, document: &Value) -> Option<String> {
        let value = self.get(document).filter(|value| !value.is_null())?;
        let text = plain(value).unwrap_or_else(|| value.to_string());
        (!text.is_empty()).then_some(text)
    }

    /// The number that stands there; one in quotes is one, too.
    pub(crate) fn number(&self, document: &Value) -> Option<f64> {
        let value = self.get(document)?;
        let number = value.as_f64().or_else(|| {
            let text = value.as_str()?.trim();
            text.trim_end_matches('%').trim_end().parse().ok()
        });
        number.filter(|number| number.is_finite())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Pointer::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Pointer {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Pointer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/", "examples": ["/status"]})
    }
}

// === impl Plain ===

impl PartialEq<str> for Plain {
    fn eq(&self, text: &str) -> bool {
        self.0 == text
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PlainVisitor;
        impl Visitor<'_> for PlainVisitor {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, a number, `true` or `false`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain(value.to_string()))
            }
        }
        from.deserialize_any(PlainVisitor)
    }
}

impl JsonSchema for Plain {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Plain".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".into()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}
