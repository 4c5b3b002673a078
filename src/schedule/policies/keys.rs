use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use tabane_api::{Ask, Key, hash};

/// Where the key is in a request: one place, or several of which the first that has one counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Keys(Vec<KeySource>);

/// One place where a key may be.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeySource {
    /// A header's value.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// A query parameter's value.
    Query(String),
    /// A field of a JSON body: a name, or a pointer (RFC 6901) such as `/user/id`.
    Json(String),
    /// The client's address.
    Address,
}

// === impl Keys ===

impl Keys {
    /// Says what makes no sense.
    pub(super) fn check(&self) -> Result<(), String> {
        for source in &self.0 {
            match source {
                KeySource::Header(name) if http::HeaderName::try_from(name).is_err() => {
                    return Err(format!("key.header: `{name}` is no header's name"));
                }
                KeySource::Header(name)
                | KeySource::Cookie(name)
                | KeySource::Query(name)
                | KeySource::Json(name)
                    if name.is_empty() =>
                {
                    return Err("key: must name something".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The key of a request. A body is asked for only where the head has none.
    pub(super) fn of(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Key {
        let found = self.0.iter().find_map(|source| source.in_head(ask));
        if let Some(key) = found {
            return Key::Of(key);
        }
        let mut fields = self.0.iter().filter_map(|source| match source {
            KeySource::Json(field) => Some(field),
            _ => None,
        });
        match body {
            Some(body) => fields
                .find_map(|field| field_of(body, field))
                .map_or(Key::None, Key::Of),
            None if fields.next().is_some() => Key::NeedBody,
            None => Key::None,
        }
    }
}

impl From<KeySource> for Keys {
    fn from(source: KeySource) -> Self {
        Keys(vec![source])
    }
}

impl KeySource {
    fn in_head(&self, ask: &Ask<'_>) -> Option<u64> {
        match self {
            KeySource::Header(name) => ask.header(name).map(|value| hash(value.as_bytes())),
            KeySource::Cookie(name) => ask.cookie(name).map(|value| hash(value.as_bytes())),
            KeySource::Query(name) => ask.query_value(name).map(|value| hash(value.as_bytes())),
            KeySource::Address => Some(hash(ask.caller.address.to_string().as_bytes())),
            KeySource::Json(_) => None,
        }
    }
}

/// A field of a JSON body. A text hashes as its characters, so that a header and a body may carry the same key.
fn field_of(body: &Bytes, field: &str) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let value = if field.starts_with('/') {
        json.pointer(field)?
    } else {
        json.get(field)?
    };
    Some(match value.as_str() {
        Some(text) => hash(text.as_bytes()),
        None => hash(value.to_string().as_bytes()),
    })
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`{header: …}`, `{cookie: …}`, `{query: …}`, `{json: …}`, `address`, or a list of such")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Keys, E> {
                KeySource::deserialize(StrDeserializer::new(word)).map(Keys::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keys, A::Error> {
                KeySource::deserialize(MapAccessDeserializer::new(map)).map(Keys::from)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Keys, A::Error> {
                let mut all = Vec::new();
                while let Some(source) = list.next_element()? {
                    all.push(source);
                }
                if all.is_empty() {
                    Err(A::Error::invalid_length(0, &self))
                } else {
                    Ok(Keys(all))
                }
            }
        }
        from.deserialize_any(KeysVisitor)
    }
}

impl JsonSchema for Keys {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Keys".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<KeySource>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use tabane_api::Caller;

    fn key(keys: &str, query: Option<&str>, body: Option<&'static str>) -> Key {
        let keys: Keys = serde_json::from_str(keys).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-session", "s1".parse().unwrap());
        headers.insert("cookie", "sid=s1".parse().unwrap());
        let caller = Caller {
            tenant: "t".into(),
            address: [10, 0, 0, 1].into(),
        };
        let ask = Ask {
            method: &Method::POST,
            path: "/",
            query,
            headers: &headers,
            caller: &caller,
        };
        keys.of(&ask, body.map(Bytes::from).as_ref())
    }

    #[test]
    fn the_key_is_found_where_the_file_says() {
        let of = |text: &str| Key::Of(hash(text.as_bytes()));
        let body = Some(r#"{"session_hash":"s1","a":{"b":7}}"#);
        let hash_query = Some("session_hash=s2");
        for (keys, query, body, wants) in [
            (r#"{"header":"X-Session"}"#, None, None, of("s1")),
            (r#"{"cookie":"sid"}"#, None, None, of("s1")),
            (r#"{"query":"session_hash"}"#, hash_query, None, of("s2")),
            (r#"{"json":"session_hash"}"#, None, None, Key::NeedBody),
            (r#"{"json":"session_hash"}"#, None, body, of("s1")),
            (r#"{"json":"/a/b"}"#, None, body, of("7")),
            (r#"{"json":"none"}"#, None, body, Key::None),
            (r#"{"json":"x"}"#, None, Some("no json"), Key::None),
            (r#""address""#, None, None, of("10.0.0.1")),
        ] {
            assert_eq!(key(keys, query, body), wants, "{keys}");
        }
    }

    #[test]
    fn of_several_places_the_first_that_has_a_key_counts_and_a_body_is_read_last() {
        let of = |text: &str| Key::Of(hash(text.as_bytes()));
        let both = r#"[{"json":"session_hash"},{"query":"session_hash"}]"#;
        let body = Some(r#"{"session_hash":"s1"}"#);
        assert_eq!(key(both, Some("session_hash=s2"), None), of("s2"));
        assert_eq!(key(both, None, None), Key::NeedBody);
        assert_eq!(key(both, None, body), of("s1"));
        assert_eq!(key(both, None, Some("")), Key::None);
        let head = r#"[{"query":"none"},{"cookie":"sid"},"address"]"#;
        assert_eq!(key(head, None, None), of("s1"));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for odd in [
            "[]",
            r#"{"body":"x"}"#,
            r#""anywhere""#,
            "7",
            r#"[["address"]]"#,
        ] {
            assert!(serde_json::from_str::<Keys>(odd).is_err(), "{odd}");
        }
        for odd in [r#"{"header":"a b"}"#, r#"["address",{"query":""}]"#] {
            assert!(
                serde_json::from_str::<Keys>(odd).unwrap().check().is_err(),
                "{odd}"
            );
        }
    }
}
