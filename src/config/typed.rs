//! The wrappers that the file model is made of; `decode.rs` knows them by the names of their newtypes.

use super::decode::{FIELD, RAW, SHORT, SHORT_OR_LIST};
use super::findings::{RawId, Spot};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A value that may be missing, and that knows its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<T> {
    spot: Option<Spot>,
    value: Option<T>,
}

/// A value with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<T> {
    pub(crate) spot: Spot,
    pub(crate) value: T,
}

/// A map from names to values, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(At<String>, Field<T>)>);

/// A value that may be written as one word; some as a list of words too.
#[derive(Clone, Debug)]
pub(crate) struct Short<T>(pub(crate) T);

/// How a value is made from a list of words.
pub(crate) type FromList<T> = fn(Vec<Field<String>>) -> T;

/// How a value is made from one word.
pub(crate) trait FromWord: Sized {
    /// What may be written, for `expected …`.
    const EXPECTED: &'static str;
    /// What the word is, for the schema.
    const WORD: &'static str;
    /// Makes it. Errors: what is wrong with the word; a hint may follow behind `; `.
    fn from_word(word: &str) -> Result<Self, String>;
    /// How it is made from a list of words; `None`: it is not.
    const FROM_LIST: Option<FromList<Self>> = None;
}

/// One thing, or a list of them.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<Field<T>>);

/// A block whose type is known only later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw(pub(crate) RawId);

impl<T> Field<T> {
    /// A value from a short form: its place is that of the short form.
    pub(crate) fn of(value: T) -> Self {
        Field {
            spot: None,
            value: Some(value),
        }
    }

    /// The value, when one was typed that could be read.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Whether nothing was typed at all; what was typed and could not be read has been told already.
    pub(crate) fn is_missing(&self) -> bool {
        self.spot.is_none() && self.value.is_none()
    }

    /// The value, taken out.
    pub(crate) fn take(self) -> Option<T> {
        self.value
    }

    /// The value and its place; `outer` is the place of what it stands in, for a short form.
    pub(crate) fn at(&self, outer: Spot) -> Option<At<&T>> {
        Some(At {
            spot: self.spot.unwrap_or(outer),
            value: self.value.as_ref()?,
        })
    }

    /// Where something was typed, readable or not; `outer` when nothing was.
    pub(crate) fn spot(&self, outer: Spot) -> Spot {
        self.spot.unwrap_or(outer)
    }
}

impl<T: Copy> Field<T> {
    /// The value, or the default.
    pub(crate) fn or(&self, default: T) -> T {
        self.value.unwrap_or(default)
    }
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Field {
            spot: None,
            value: None,
        }
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct(FIELD, FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Field::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        Ok(Field {
            spot: spot(&mut parts)?,
            value: parts.next_element()?,
        })
    }
}

fn spot<'de, A: SeqAccess<'de>>(parts: &mut A) -> Result<Option<Spot>, A::Error> {
    let number: Option<String> = parts.next_element()?;
    Ok(number.and_then(|n| n.parse().ok()).map(Spot))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(NamedVisitor(PhantomData))
    }
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Field<String>>()? {
            let value = map.next_value()?;
            if let (Some(spot), Some(name)) = (key.spot, key.value) {
                entries.push((At { spot, value: name }, value));
            }
        }
        Ok(Named(entries))
    }
}

impl<'de, T: FromWord + Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = match T::FROM_LIST {
            Some(_) => SHORT_OR_LIST,
            None => SHORT,
        };
        from.deserialize_newtype_struct(name, ShortVisitor(PhantomData))
    }
}

struct ShortVisitor<T>(PhantomData<T>);

impl<'de, T: FromWord + Deserialize<'de>> Visitor<'de> for ShortVisitor<T> {
    type Value = Short<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        T::from_word(word).map(Short).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let from_list = T::FROM_LIST.ok_or_else(|| de::Error::custom(T::EXPECTED))?;
        let mut words = Vec::new();
        while let Some(word) = items.next_element()? {
            words.push(word);
        }
        Ok(Short(from_list(words)))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        T::deserialize(from).map(Short)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one, or a list of them")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        let value = T::deserialize(de::value::StrDeserializer::<E>::new(word))?;
        Ok(OneOrMany(vec![Field::of(value)]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(OneOrMany(all))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_newtype_struct(RAW, RawVisitor)
    }
}

struct RawVisitor;

impl Visitor<'_> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a name with its block")
    }

    fn visit_u32<E: de::Error>(self, id: u32) -> Result<Raw, E> {
        Ok(Raw(RawId(id)))
    }
}

// What the wrappers look like to an editor: what is inside of them.

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({"type": "object", "additionalProperties": value})
    }
}

impl<T: JsonSchema + FromWord> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Short_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<T>();
        let word = json_schema!({"type": ["string", "number", "boolean"], "description": T::WORD});
        if T::FROM_LIST.is_none() {
            return json_schema!({"anyOf": [word, long]});
        }
        let words = json_schema!({"type": "array", "items": {"type": "string"}});
        json_schema!({"anyOf": [word, words, long]})
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one.clone(), {"type": "array", "items": one}]})
    }
}

impl JsonSchema for Raw {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Raw".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // `schema.rs` puts in what the registry knows.
        json_schema!({})
    }
}
