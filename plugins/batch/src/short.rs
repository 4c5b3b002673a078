//! How values are typed: short forms, durations, names. By hand and not `untagged`, so that an error keeps its place.

use crate::config::{Ask, Headers, IdAt, Name, ProgressAt};
use crate::pointer::Pointer;
use crate::template::Path;
use http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// Something that may be typed as a map, or in short as a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Short<T>(pub T);

/// What has a short form.
pub trait FromText: Sized {
    /// For `expected …`.
    const EXPECTED: &'static str;
    /// What its short form looks like.
    const EXAMPLE: &'static str;
    /// Reads the short form. Errors: a sentence.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A duration: `500ms`, `2s`, `5m`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub(crate) Duration);

impl FromText for Ask {
    const EXPECTED: &'static str = "a path, as `/jobs/{id}`, or a map with `path`";
    const EXAMPLE: &'static str = "/jobs/{id}";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Ask {
            method: None,
            path: Path::parse(text)?,
            headers: Headers::default(),
            json: None,
        })
    }
}

impl FromText for IdAt {
    const EXPECTED: &'static str = "a JSON pointer, as `/id`, or `{header: Location}`";
    const EXAMPLE: &'static str = "/id";

    fn from_text(text: &str) -> Result<Self, String> {
        Pointer::parse(text).map(IdAt::Pointer)
    }
}

impl FromText for ProgressAt {
    const EXPECTED: &'static str = "a JSON pointer, as `/progress`, or a map with `at`";
    const EXAMPLE: &'static str = "/progress";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(ProgressAt {
            at: Pointer::parse(text)?,
            max: None,
            of: None,
        })
    }
}

impl<'de, T: FromText + Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ShortVisitor<T>(PhantomData<T>);
        impl<'de, T: FromText + Deserialize<'de>> Visitor<'de> for ShortVisitor<T> {
            type Value = Short<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Short<T>, E> {
                T::from_text(text).map(Short).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Short<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Short)
            }
        }
        from.deserialize_any(ShortVisitor(PhantomData))
    }
}

impl<T: FromText + JsonSchema> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Short{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"type": "string", "examples": [T::EXAMPLE]}, long]})
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct SpanVisitor;
        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `500ms`, `2s` or `5m`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                match humantime::parse_duration(text) {
                    // Longer than any work; adding it to any clock is safe.
                    Ok(span) if span <= Duration::from_secs(366 * 24 * 3600) => Ok(Span(span)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        from.deserialize_any(SpanVisitor)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["500ms", "2s", "5m"]})
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let name = HeaderName::from_bytes(text.as_bytes());
        name.map(Name)
            .map_err(|_| D::Error::custom(format!("`{text}` is not a header's name")))
    }
}

impl JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HeaderName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["Location"]})
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;
        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers by name, as `Authorization: Bearer …`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut all = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    let text: String = map.next_value()?;
                    // What it says stays unsaid: it may be a secret.
                    if HeaderValue::from_str(&text).is_err() {
                        return Err(A::Error::custom(format!(
                            "`{name}` is one line of visible characters"
                        )));
                    }
                    all.push((name, text));
                }
                Ok(Headers(all))
            }
        }
        from.deserialize_map(HeadersVisitor)
    }
}

impl JsonSchema for Headers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": {"type": "string"}})
    }
}
