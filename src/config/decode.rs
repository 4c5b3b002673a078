//! From the tree to the types of `file.rs`, with serde: every error gets the place of the very value.
//!
//! Four names of newtypes are a private word between this file and `typed.rs`: they let a type know
//! its place and fail without taking its neighbours along, have a short form, or be kept for later.

use super::fault::{Fault, Path, found, keys};
use super::findings::Findings;
use super::problem::{list, shorten};
use super::tree::{Key, Node, Scalar, Value};
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use std::sync::Arc;

/// A value that knows its place and whose faults are reported where they are: `typed::Field`.
pub(crate) const FIELD: &str = "\u{0}field";
/// A value that may be written as one word: `typed::Short`.
pub(crate) const SHORT: &str = "\u{0}short";
/// A value that may be written as one word, or as a list of them: `typed::Short` of what has a `from_list`.
pub(crate) const SHORT_OR_LIST: &str = "\u{0}short_or_list";
/// A value that is decoded later: `typed::Raw`.
pub(crate) const RAW: &str = "\u{0}raw";

/// Decodes a node. Every fault is in `findings` when this returns; `Err` says that there is no value at all.
pub(crate) fn decode<T: for<'de> de::Deserialize<'de>>(
    node: &Arc<Node>,
    path: &str,
    findings: &Findings,
) -> Result<T, ()> {
    let path = Path::Text(path);
    let from = De::new(node, &path, findings);
    T::deserialize(from).map_err(|fault| fault.report(node.mark, &path, findings))
}

/// A position in the tree as a `serde::Deserializer`.
#[derive(Clone, Copy)]
pub(crate) struct De<'a> {
    node: &'a Arc<Node>,
    path: &'a Path<'a>,
    findings: &'a Findings,
    /// It is the value of a struct's key, which may as well be missing.
    optional: bool,
}

impl<'a> De<'a> {
    pub(crate) fn new(node: &'a Arc<Node>, path: &'a Path<'a>, findings: &'a Findings) -> Self {
        De {
            node,
            path,
            findings,
            optional: false,
        }
    }

    /// Gives a fault this value's place, unless it has one from further inside.
    fn place<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|mut fault| {
            if fault.place.is_none() {
                if let Value::Scalar(Scalar {
                    text,
                    expanded: true,
                    ..
                }) = &self.node.value
                    && !text.is_empty()
                {
                    // What came from a variable or a file may be a secret.
                    fault.what = fault.what.replace(shorten(text).as_str(), "***");
                }
                fault.place = Some((self.node.mark, self.path.to_string()));
                // A plugin's decoder hands on the words of a fault but not its place: it is noted here.
                if let Some((mark, path)) = &fault.place {
                    self.findings.note_innermost(*mark, path);
                }
            }
            fault
        })
    }

    fn wrong(&self, wanted: &str) -> Fault {
        Fault::new(
            format!("expected {wanted}, found {}", found(&self.node.value)),
            "",
        )
    }

    fn list<'b>(&'b self, items: &'b [Arc<Node>]) -> Items<'b> {
        Items {
            of: *self,
            items,
            next: 0,
        }
    }

    fn map<'b>(
        &'b self,
        entries: &'b [(Key, Arc<Node>)],
        known: &'static [&'static str],
    ) -> Entries<'b> {
        Entries {
            of: *self,
            entries,
            known,
            next: 0,
        }
    }

    /// A scalar as what it looks like (YAML 1.2, core schema).
    fn guess<'de, V: Visitor<'de>>(&self, scalar: &Scalar, visitor: V) -> Result<V::Value, Fault> {
        if scalar.plain {
            if let Some(flag) = as_bool(&scalar.text) {
                return visitor.visit_bool(flag);
            }
            if let Some(number) = as_integer(&scalar.text) {
                return match (u64::try_from(number), i64::try_from(number)) {
                    (Ok(number), _) => visitor.visit_u64(number),
                    (_, Ok(number)) => visitor.visit_i64(number),
                    _ => visitor.visit_str(&scalar.text),
                };
            }
            if let Some(number) = as_float(&scalar.text) {
                return visitor.visit_f64(number);
            }
        }
        visitor.visit_str(&scalar.text)
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.place(match &self.node.value {
            Value::Null => visitor.visit_unit(),
            // Only a plugin's block comes here: its fields are not `Field`s.
            Value::Unreadable => Err(self.wrong("a value")),
            Value::Scalar(scalar) => self.guess(scalar, visitor),
            Value::List(items) => visitor.visit_seq(self.list(items)),
            Value::Map(entries) => visitor.visit_map(self.map(entries, &[])),
        })
    }
}

/// Most types need only what the value looks like.
macro_rules! guessed {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.any(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for De<'_> {
    type Error = Fault;

    guessed! {
        deserialize_any deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_unit deserialize_seq deserialize_map
    }

    // Text is whatever was written, so that `gpu: 4090` and `labels: {gen: 4}` need no quotes.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar(scalar) => self.place(visitor.visit_str(&scalar.text)),
            _ => self.any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => self.place(visitor.visit_some(self)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match (name, &self.node.value) {
            (FIELD, Value::Null) if self.optional => visitor.visit_none(),
            (FIELD, _) => visitor.visit_seq(FieldParts { of: self, next: 0 }),
            (RAW, _) => {
                let kept = self.findings.keep(self.node.clone(), self.path.to_string());
                visitor.visit_u32(kept.0)
            }
            (SHORT | SHORT_OR_LIST, Value::Scalar(scalar)) => {
                self.place(visitor.visit_str(&scalar.text))
            }
            (SHORT_OR_LIST, Value::List(items)) => self.place(visitor.visit_seq(self.list(items))),
            _ => self.place(visitor.visit_newtype_struct(self)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.place(match &self.node.value {
            Value::Map(entries) => visitor.visit_map(self.map(entries, known)),
            // `health:` with nothing behind it.
            Value::Null => visitor.visit_map(self.map(&[], known)),
            _ if known.is_empty() => Err(self.wrong("an empty map")),
            _ => Err(self.wrong(&format!("a map with {}", keys(known)))),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.place(match &self.node.value {
            Value::Scalar(scalar) => visitor.visit_enum(
                IntoDeserializer::<Fault>::into_deserializer(scalar.text.as_str()),
            ),
            Value::Map(entries) if entries.len() == 1 => visitor.visit_enum(Variant {
                of: self,
                key: &entries[0].0,
                value: &entries[0].1,
            }),
            _ => Err(self.wrong(&format!("one of {}", list(variants)))),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

struct Items<'a> {
    of: De<'a>,
    items: &'a [Arc<Node>],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.items.get(self.next) else {
            return Ok(None);
        };
        let path = Path::Index(self.of.path, self.next);
        self.next += 1;
        let element = De::new(node, &path, self.of.findings);
        element.place(seed.deserialize(element)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next.min(self.items.len()))
    }
}

struct Entries<'a> {
    of: De<'a>,
    entries: &'a [(Key, Arc<Node>)],
    /// The keys of a struct; empty for a map.
    known: &'static [&'static str],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        while let Some((key, _)) = self.entries.get(self.next) {
            let path = Path::Key(self.of.path, &key.text);
            // An unknown key is told and passed over, so that one run finds all of them.
            if !self.known.is_empty() && !self.known.contains(&key.text.as_str()) {
                let fault = <Fault as de::Error>::unknown_field(&key.text, self.known);
                fault.report(key.mark, &path, self.of.findings);
                self.next += 1;
                continue;
            }
            let at = KeyDe {
                key,
                path: &path,
                findings: self.of.findings,
            };
            return at.place(seed.deserialize(at)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.entries.get(self.next) else {
            return Err(Fault::new("a key without a value".to_owned(), ""));
        };
        self.next += 1;
        let path = Path::Key(self.of.path, &key.text);
        let mut value = De::new(node, &path, self.of.findings);
        value.optional = !self.known.is_empty();
        value.place(seed.deserialize(value))
    }
}

/// A key, which may want to know its place as a value does.
#[derive(Clone, Copy)]
struct KeyDe<'a> {
    key: &'a Key,
    path: &'a Path<'a>,
    findings: &'a Findings,
}

impl KeyDe<'_> {
    fn place<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|mut fault| {
            if fault.place.is_none() {
                let path = self.path.to_string();
                self.findings.note_innermost(self.key.mark, &path);
                fault.place = Some((self.key.mark, path));
            }
            fault
        })
    }
}

impl<'de> de::Deserializer<'de> for KeyDe<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(&self.key.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != FIELD {
            return visitor.visit_newtype_struct(self);
        }
        let spot = self.findings.spot(self.key.mark, self.path.to_string());
        let parts = [spot.0.to_string(), self.key.text.clone()];
        visitor.visit_seq(de::value::SeqDeserializer::new(
            parts.into_iter().map(StringDeserializer::<Fault>::new),
        ))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A field's two parts: its place, and its value unless that is at fault.
struct FieldParts<'a> {
    of: De<'a>,
    next: u8,
}

impl<'de> SeqAccess<'de> for FieldParts<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        self.next += 1;
        if self.next == 1 {
            let spot = self
                .of
                .findings
                .spot(self.of.node.mark, self.of.path.to_string());
            // As text, since that is what a key's place comes as.
            return seed
                .deserialize(StringDeserializer::new(spot.0.to_string()))
                .map(Some);
        }
        if matches!(self.of.node.value, Value::Unreadable) {
            return Ok(None);
        }
        let value = De {
            optional: false,
            ..self.of
        };
        match seed.deserialize(value) {
            Ok(value) => Ok(Some(value)),
            Err(fault) => {
                let fault = value.place(Err::<(), _>(fault)).err();
                if let Some(fault) = fault {
                    fault.report(self.of.node.mark, self.of.path, self.of.findings);
                }
                Ok(None)
            }
        }
    }
}

struct Variant<'a> {
    of: De<'a>,
    key: &'a Key,
    value: &'a Arc<Node>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = Variant<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let path = Path::Key(self.of.path, &self.key.text);
        let at = KeyDe {
            key: self.key,
            path: &path,
            findings: self.of.findings,
        };
        let name: StrDeserializer<'_, Fault> = self.key.text.as_str().into_deserializer();
        let variant = at.place(seed.deserialize(name))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match &self.value.value {
            Value::Null => Ok(()),
            Value::Map(entries) if entries.is_empty() => Ok(()),
            other => {
                let fault = Fault::new(format!("expected nothing, found {}", found(other)), "");
                self.at(|de| de.place(Err(fault)))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.at(|de| de.place(seed.deserialize(de)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.at(|de| de::Deserializer::deserialize_tuple(de, len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.at(|de| de::Deserializer::deserialize_struct(de, "", fields, visitor))
    }
}

impl Variant<'_> {
    fn at<T>(&self, then: impl FnOnce(De<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let path = Path::Key(self.of.path, &self.key.text);
        then(De::new(self.value, &path, self.of.findings))
    }
}

fn as_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn as_integer(text: &str) -> Option<i128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i128::from_str_radix(hex, 16)
            .ok()
            .filter(|_| !hex.starts_with(['+', '-']));
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i128::from_str_radix(octal, 8)
            .ok()
            .filter(|_| !octal.starts_with(['+', '-']));
    }
    text.parse().ok()
}

fn as_float(text: &str) -> Option<f64> {
    match text {
        ".inf" | "+.inf" => Some(f64::INFINITY),
        "-.inf" => Some(f64::NEG_INFINITY),
        ".nan" => Some(f64::NAN),
        // Rust reads `inf` and `nan` as numbers, YAML does not.
        _ if !text.contains(|c: char| c.is_ascii_digit()) => None,
        _ => text.parse().ok(),
    }
}
