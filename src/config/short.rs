//! Short forms: what one word, or a list of words, means where a map may stand.

use super::file::{
    Admin, Body, Endpoint, Gpu, Listen, Member, PoolRef, Priority, Retry, RetryWord, Route, Tenant,
};
use super::typed::{Field, FromWord, Short};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

impl FromWord for Listen {
    const EXPECTED: &'static str = "an address with port, or a map with `address` and `service`";
    const WORD: &'static str = "address and port";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Listen {
            address: Field::of(word.to_owned()),
            ..Listen::default()
        })
    }
}

impl FromWord for Admin {
    const EXPECTED: &'static str =
        "an address with port, `off`, or a map with `address` and `token`";
    const WORD: &'static str = "address and port, or `off`";

    fn from_word(word: &str) -> Result<Self, String> {
        let mut admin = Admin::default();
        match word {
            "off" | "false" => admin.off = true,
            _ => admin.address = Field::of(word.to_owned()),
        }
        Ok(admin)
    }
}

impl FromWord for Tenant {
    const EXPECTED: &'static str = "a key, or a map with `key`, `keys`, `weight` and more";
    const WORD: &'static str = "its key";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Tenant {
            key: Field::of(word.to_owned()),
            ..Tenant::default()
        })
    }
}

impl FromWord for Gpu {
    const EXPECTED: &'static str = "a model, or a map with `model` and `vram`";
    const WORD: &'static str = "its model";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Gpu {
            model: Field::of(word.to_owned()),
            ..Gpu::default()
        })
    }
}

impl FromWord for Endpoint {
    const EXPECTED: &'static str = "a URL, or a map with `url`, `slots`, `models` and more";
    const WORD: &'static str = "its URL";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Endpoint {
            url: Field::of(word.to_owned()),
            ..Endpoint::default()
        })
    }
}

impl FromWord for Member {
    const EXPECTED: &'static str =
        "`node/endpoint`, a URL, or a map with `endpoint` or `url`, and `weight`";
    const WORD: &'static str = "`node/endpoint`, a node with one endpoint, or a URL";

    fn from_word(word: &str) -> Result<Self, String> {
        let word = Field::of(word.to_owned());
        let mut member = Member::default();
        match word.get().is_some_and(|word| word.contains("://")) {
            true => member.url = word,
            false => member.endpoint = word,
        }
        Ok(member)
    }
}

impl FromWord for Retry {
    const EXPECTED: &'static str = "`off`, `unsafe`, or a map with `attempts`, `within`, `statuses`, `busy`, `budget` and `unsafe`";
    const WORD: &'static str = "`off` or `unsafe`";

    fn from_word(word: &str) -> Result<Self, String> {
        let word = match word {
            "off" | "false" => RetryWord::Off,
            "unsafe" => RetryWord::Unsafe,
            _ => return Err(expected::<Self>(word)),
        };
        Ok(Retry {
            word: Some(word),
            ..Retry::default()
        })
    }
}

impl FromWord for Body {
    const EXPECTED: &'static str = "`stream`, or a map with `max` and `hold`";
    const WORD: &'static str = "`stream`";

    fn from_word(word: &str) -> Result<Self, String> {
        if word != "stream" {
            return Err(expected::<Self>(word));
        }
        Ok(Body {
            stream: true,
            ..Body::default()
        })
    }
}

impl FromWord for Route {
    const EXPECTED: &'static str = "a path, or a map with `path` and `host`";
    const WORD: &'static str = "its path";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Route {
            path: Field::of(word.to_owned()),
            ..Route::default()
        })
    }
}

impl FromWord for Priority {
    const EXPECTED: &'static str = "0 (first) to 7 (last), or `header`";
    const WORD: &'static str = "0 (first) to 7 (last), or `header`";

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "header" => Ok(Priority::Header),
            _ => word
                .parse()
                .map(Priority::Fixed)
                .map_err(|_| expected::<Self>(word)),
        }
    }
}

/// What to say of a word that is none of those that may stand there.
pub(crate) fn expected<T: FromWord>(word: &str) -> String {
    let word = super::problem::shorten(word);
    format!("expected {}, found `{word}`", T::EXPECTED)
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Never;
        impl Visitor<'_> for Never {
            type Value = Priority;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Priority::EXPECTED)
            }
        }
        from.deserialize_any(Never)
    }
}

impl JsonSchema for Priority {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Priority".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": 7})
    }
}

impl<'de> Deserialize<'de> for PoolRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PoolRefVisitor)
    }
}

struct PoolRefVisitor;

impl<'de> Visitor<'de> for PoolRefVisitor {
    type Value = PoolRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pool's name, or a list of members")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<PoolRef, E> {
        Ok(PoolRef::Name(name.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, name: u64) -> Result<PoolRef, E> {
        Ok(PoolRef::Name(name.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PoolRef, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = items.next_element()? {
            members.push(member);
        }
        Ok(PoolRef::Members(members))
    }
}

impl JsonSchema for PoolRef {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "PoolRef".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let members = generator.subschema_for::<Vec<Field<Short<Member>>>>();
        json_schema!({"anyOf": [{"type": "string", "description": "a pool's name"}, members]})
    }
}
