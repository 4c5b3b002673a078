//! Many engines' lists of models as one: each model once, in the words of the engine that has it, and aliases among them.
//!
//! Entries are copied byte for byte, since clients read more of them than any standard says (`max_model_len`, `details`, ..).

use crate::scan::{Cursor, NotJson};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ops::Range;
use tabane_api::Edit;

/// Which list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `GET /v1/models`
    OpenAi,
    /// `GET /v1/models` of a client that speaks Anthropic's (`anthropic-version` in its head).
    Anthropic,
    /// `GET /api/tags`
    Tags,
    /// `GET /api/ps`: aliases are not among what is loaded.
    Ps,
}

/// What a list is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// What endpoints answered to the same question (to `/v1/models` for Anthropic's), in their order.
    pub answers: &'a [&'a [u8]],
    /// Models of endpoints that do not speak these words.
    pub known: &'a [&'a str],
    /// Aliases, each with a model that may stand for it.
    pub aliases: &'a [(&'a str, &'a str)],
}

/// An engine's entry, byte for byte.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    raw: Bytes,
    /// Where its name stands in it, with quotes.
    names: Vec<Range<usize>>,
}

// === impl List ===

impl List {
    /// Where the models stand, and what their names are called.
    fn keys(self) -> (&'static str, &'static [&'static str]) {
        match self {
            List::OpenAi | List::Anthropic => ("data", &["id"]),
            List::Tags | List::Ps => ("models", &["name", "model"]),
        }
    }

    /// An entry for a model of which no engine says more.
    fn bare(self, name: &str) -> Bytes {
        const LONG_AGO: &str = "1970-01-01T00:00:00Z";
        let entry = match self {
            List::OpenAi => {
                json!({"id": name, "object": "model", "created": 0, "owned_by": "tabane"})
            }
            List::Anthropic => {
                json!({"type": "model", "id": name, "display_name": name, "created_at": LONG_AGO})
            }
            List::Tags | List::Ps => json!({
                "name": name, "model": name, "modified_at": LONG_AGO, "size": 0, "digest": "",
                "details": {"parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "", "quantization_level": ""},
            }),
        };
        entry.to_string().into()
    }

    /// Two names that mean the same: Ollama takes `llama3` for `llama3:latest`.
    fn same(self, name: &str) -> &str {
        match self {
            List::Tags | List::Ps => name.strip_suffix(":latest").unwrap_or(name),
            List::OpenAi | List::Anthropic => name,
        }
    }
}

/// The list of all, less what `sees` does not let by.
pub fn merge(list: List, sources: Sources<'_>, sees: impl Fn(&str) -> bool) -> Bytes {
    let mut entries = entries(list, sources);
    entries.retain(|entry| sees(&entry.name));
    let mut body = match list {
        List::OpenAi => b"{\"object\":\"list\",\"data\":[".to_vec(),
        List::Anthropic => b"{\"data\":[".to_vec(),
        List::Tags | List::Ps => b"{\"models\":[".to_vec(),
    };
    for (n, entry) in entries.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&entry.raw);
    }
    body.push(b']');
    if list == List::Anthropic {
        let id =
            |entry: Option<&Entry>| entry.map_or(Value::Null, |entry| entry.name.as_str().into());
        let (first, last) = (id(entries.first()), id(entries.last()));
        let rest = format!(",\"has_more\":false,\"first_id\":{first},\"last_id\":{last}");
        body.extend_from_slice(rest.as_bytes());
    }
    body.push(b'}');
    body.into()
}

/// One entry of the list of all (`GET /v1/models/{id}`); `None`: there is none of that name.
pub fn one(list: List, sources: Sources<'_>, name: &str) -> Option<Bytes> {
    let mut entries = entries(list, sources).into_iter();
    let found = entries.find(|entry| list.same(&entry.name) == list.same(name));
    found.map(|entry| entry.raw)
}

fn entries(list: List, sources: Sources<'_>) -> Vec<Entry> {
    let mut all = Vec::new();
    for answer in sources.answers {
        // What came of it counts, if not all of it can be read.
        let _ = read(list, answer, &mut all);
    }
    let bare = |name: &str| Entry {
        name: name.to_owned(),
        raw: list.bare(name),
        names: Vec::new(),
    };
    all.extend(sources.known.iter().map(|name| bare(name)));
    if list != List::Ps {
        for (alias, model) in sources.aliases {
            let target = all
                .iter()
                .find(|entry| list.same(&entry.name) == list.same(model));
            let told = target.filter(|entry| !entry.names.is_empty());
            let entry = told.map_or_else(|| bare(alias), |entry| entry.renamed(alias));
            // An alias goes before a model of its name.
            all.retain(|entry| list.same(&entry.name) != list.same(alias));
            all.push(entry);
        }
    }
    let mut seen = HashSet::new();
    all.retain(|entry| seen.insert(list.same(&entry.name).to_owned()));
    if list == List::Anthropic {
        all.iter_mut()
            .for_each(|entry| entry.raw = list.bare(&entry.name));
    }
    all
}

fn read(list: List, answer: &[u8], all: &mut Vec<Entry>) -> Result<(), NotJson> {
    let (list_key, name_keys) = list.keys();
    let mut cursor = Cursor::new(answer);
    if !cursor.enters_object() {
        return Ok(());
    }
    while let Some(key) = cursor.key()? {
        if !key.is(list_key) || !cursor.enters_list() {
            cursor.skip()?;
            continue;
        }
        while cursor.item()? {
            let from = cursor.at();
            if !cursor.enters_object() {
                cursor.skip()?;
                continue;
            }
            let (mut name, mut names) = (None, Vec::new());
            while let Some(key) = cursor.key()? {
                if !name_keys.iter().any(|known| key.is(known)) {
                    cursor.skip()?;
                } else if let Some(text) = cursor.takes_text()? {
                    let place = text.quoted();
                    names.push(place.start - from..place.end - from);
                    name.get_or_insert(text.decoded().into_owned());
                }
            }
            let raw = cursor.bytes(from..cursor.at());
            // What is no JSON would spoil the whole list.
            if let Some(name) =
                name.filter(|_| serde_json::from_slice::<serde::de::IgnoredAny>(raw).is_ok())
            {
                all.push(Entry {
                    name,
                    raw: Bytes::copy_from_slice(raw),
                    names,
                });
            }
        }
    }
    Ok(())
}

// === impl Entry ===

impl Entry {
    /// The same under another name.
    fn renamed(&self, name: &str) -> Entry {
        let with = Bytes::from(Value::from(name).to_string());
        let edit = |range: &Range<usize>| Edit {
            range: range.clone(),
            with: with.clone(),
        };
        let edits: Vec<Edit> = self.names.iter().map(edit).collect();
        Entry {
            name: name.to_owned(),
            raw: Edit::apply(&self.raw, &edits),
            names: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = br#"{"object":"list","data":[{"id":"a","owned_by":"vllm","max_model_len":12345678901234567890123},{"id":"b", "object":"model"}]}"#;
    const OTHER: &[u8] = br#"{"models":[{"name":"x"}],"data":[{"owned_by":"llamacpp","id":"b"},{"object":"model","id":"c\/d","meta":{"id":"no"}}]}"#;

    fn text(bytes: Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn all(_: &str) -> bool {
        true
    }

    #[test]
    fn each_model_is_there_once_as_its_engine_says_it() {
        let sources = Sources {
            answers: &[ONE, OTHER],
            known: &["e", "a"],
            aliases: &[("fast", "a"), ("none", "nobody's")],
        };
        assert_eq!(
            text(merge(List::OpenAi, sources, all)),
            concat!(
                r#"{"object":"list","data":[{"id":"a","owned_by":"vllm","max_model_len":12345678901234567890123},"#,
                r#"{"id":"b", "object":"model"},{"object":"model","id":"c\/d","meta":{"id":"no"}},"#,
                r#"{"created":0,"id":"e","object":"model","owned_by":"tabane"},"#,
                r#"{"id":"fast","owned_by":"vllm","max_model_len":12345678901234567890123},"#,
                r#"{"created":0,"id":"none","object":"model","owned_by":"tabane"}]}"#
            )
        );
        let some = text(merge(List::OpenAi, sources, |name| name == "b"));
        assert_eq!(
            some,
            r#"{"object":"list","data":[{"id":"b", "object":"model"}]}"#
        );
    }

    #[test]
    fn an_alias_goes_before_a_model_of_its_name() {
        let sources = Sources {
            answers: &[ONE],
            aliases: &[("b", "a")],
            ..Sources::default()
        };
        let shown = text(merge(List::OpenAi, sources, all));
        assert_eq!(
            shown,
            r#"{"object":"list","data":[{"id":"a","owned_by":"vllm","max_model_len":12345678901234567890123},{"id":"b","owned_by":"vllm","max_model_len":12345678901234567890123}]}"#
        );
    }

    #[test]
    fn ollamas_lists_know_that_latest_need_not_be_said() {
        let one = br#"{"models":[{"name":"llama3:latest","model":"llama3:latest","size":5,"digest":"d"}]}"#.as_slice();
        let other = br#"{"models":[{"name":"llama3","model":"llama3","size":6},{"name":"q:8b","model":"q:8b","size":7}]}"#.as_slice();
        let sources = Sources {
            answers: &[one, other],
            aliases: &[("fast", "llama3")],
            ..Sources::default()
        };
        assert_eq!(
            text(merge(List::Tags, sources, all)),
            r#"{"models":[{"name":"llama3:latest","model":"llama3:latest","size":5,"digest":"d"},{"name":"q:8b","model":"q:8b","size":7},{"name":"fast","model":"fast","size":5,"digest":"d"}]}"#
        );
        let loaded = text(merge(List::Ps, sources, all));
        assert!(
            loaded.contains("llama3:latest") && !loaded.contains("fast"),
            "{loaded}"
        );
        let known = Sources {
            known: &["m"],
            ..Sources::default()
        };
        let bare: Value = serde_json::from_slice(&merge(List::Tags, known, all)).unwrap();
        assert_eq!(bare["models"][0]["model"], "m");
        assert_eq!(
            text(merge(List::Ps, Sources::default(), all)),
            r#"{"models":[]}"#
        );
    }

    #[test]
    fn clients_of_anthropics_hear_its_words() {
        let sources = Sources {
            answers: &[ONE],
            aliases: &[("claude", "a")],
            ..Sources::default()
        };
        let shown: Value = serde_json::from_slice(&merge(List::Anthropic, sources, all)).unwrap();
        assert_eq!(
            (&shown["first_id"], &shown["last_id"]),
            (&json!("a"), &json!("claude"))
        );
        assert_eq!(
            shown["data"][2],
            json!({"type": "model", "id": "claude", "display_name": "claude", "created_at": "1970-01-01T00:00:00Z"})
        );
        let none: Value =
            serde_json::from_slice(&merge(List::Anthropic, Sources::default(), all)).unwrap();
        assert_eq!(none["first_id"], Value::Null);
    }

    #[test]
    fn one_of_them_is_found_by_its_name() {
        let sources = Sources {
            answers: &[OTHER],
            aliases: &[("fast", "b")],
            ..Sources::default()
        };
        let find = |name| one(List::OpenAi, sources, name).map(text);
        assert_eq!(
            find("fast").as_deref(),
            Some(r#"{"owned_by":"llamacpp","id":"fast"}"#)
        );
        assert_eq!(
            find("c/d").as_deref(),
            Some(r#"{"object":"model","id":"c\/d","meta":{"id":"no"}}"#)
        );
        assert_eq!(find("no"), None);
    }

    #[test]
    fn an_answer_that_makes_no_sense_spoils_nothing() {
        let cut = &ONE[..ONE.len() - 20];
        let answers: Vec<&[u8]> = vec![
            b"<html>",
            b"[]",
            b"{\"data\":5}",
            b"{\"data\":[1,{\"id\":2},{\"id\":\"n\",\"x\":NaN,,}]}",
            cut,
            OTHER,
        ];
        let sources = Sources {
            answers: &answers,
            ..Sources::default()
        };
        let shown: Value = serde_json::from_slice(&merge(List::OpenAi, sources, all)).unwrap();
        let names: Vec<&str> = shown["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "c/d"]);
    }
}
