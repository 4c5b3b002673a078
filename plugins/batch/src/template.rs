//! Text with words in braces, such as `/jobs/{id}`, that each attempt fills in for itself.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use std::borrow::Cow;
use tabane_api::Attempt;

/// What stays as it is in a path; all else is written as `%20`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A word that stands for something of the attempt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// What the backend calls the work. Of an address, its last part.
    Id,
    /// The path and query of an address that the backend gave.
    Location,
    /// The job's id.
    Job,
    /// The attempt's own id: the job's, and the attempt's number.
    Attempt,
    /// The path of the client's request.
    Path,
    /// The address by which the backend reaches the gateway.
    Callback,
}

/// Text with words in braces. Braces around anything else stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

/// A path below a node's URL, with words in braces that are percent-encoded where they stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Template);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Word(Word),
}

/// What the words stand for.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    handle: Option<String>,
    job: String,
    attempt: String,
    path: String,
    callback: Option<String>,
}

// === impl Word ===

impl Word {
    const ALL: [(&str, Word); 6] = [
        ("{id}", Word::Id),
        ("{location}", Word::Location),
        ("{job}", Word::Job),
        ("{attempt}", Word::Attempt),
        ("{path}", Word::Path),
        ("{callback}", Word::Callback),
    ];
}

// === impl Template ===

impl Template {
    /// Reads it.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(next) = rest.chars().next() {
            match Word::ALL.iter().find(|(name, _)| rest.starts_with(name)) {
                Some((name, word)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Word(*word));
                    rest = &rest[name.len()..];
                }
                None => {
                    plain.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Template(parts)
    }

    /// Whether a word stands in it.
    pub(crate) fn names(&self, word: Word) -> bool {
        self.0.contains(&Part::Word(word))
    }

    /// The text, with every word in its place.
    pub(crate) fn fill(&self, words: &Words) -> String {
        self.render(words, |_, text| text)
    }

    fn render<'a>(
        &'a self,
        words: &'a Words,
        encode: impl Fn(Word, Cow<'a, str>) -> Cow<'a, str>,
    ) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => Cow::from(text.as_str()),
                Part::Word(word) => encode(*word, words.get(*word)),
            })
            .collect()
    }
}

// === impl Path ===

impl Path {
    /// Reads it.
    ///
    /// Errors: a sentence; it does not begin a path, names a word that is none, or cannot be asked for.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let template = Template::parse(text);
        let begins = match template.0.first() {
            Some(Part::Text(text)) => text.starts_with('/'),
            Some(Part::Word(word)) => matches!(word, Word::Path | Word::Location),
            None => false,
        };
        if !begins {
            return Err(format!(
                "a path begins with `/`, `{{path}}` or `{{location}}`, got `{text}`"
            ));
        }
        for part in &template.0 {
            let Part::Text(plain) = part else { continue };
            if plain.contains(['{', '}']) {
                return Err(format!(
                    "`{text}` has braces around no word; the words are `{{id}}`, `{{location}}`, `{{job}}`, \
                     `{{attempt}}`, `{{path}}` and `{{callback}}`"
                ));
            }
            let whole = format!("/{plain}");
            if plain.contains('#') || whole.parse::<http::uri::PathAndQuery>().is_err() {
                return Err(format!(
                    "`{text}` cannot be asked for; write odd characters as %20"
                ));
            }
        }
        Ok(Path(template))
    }

    /// Whether a word stands in it.
    pub(crate) fn names(&self, word: Word) -> bool {
        self.0.names(word)
    }

    /// The path, with every word in its place and percent-encoded, but for those that are paths themselves.
    pub(crate) fn fill(&self, words: &Words) -> String {
        self.0.render(words, |word, text| match word {
            Word::Path | Word::Location => text,
            _ => utf8_percent_encode(&text, ENCODED).to_string().into(),
        })
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Path::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Path {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["/jobs/{id}"]})
    }
}

// === impl Words ===

impl Words {
    /// The words of an attempt; `handle`: what its backend calls it, once that is known.
    pub(crate) fn new(attempt: &Attempt, handle: Option<&str>) -> Self {
        Words {
            handle: handle.map(str::to_owned),
            job: attempt.job.to_string(),
            attempt: format!("{}-{}", attempt.job, attempt.number),
            path: attempt.uri.path().to_owned(),
            callback: attempt.callback.as_ref().map(ToString::to_string),
        }
    }

    /// The attempt's own id.
    pub(crate) fn attempt(&self) -> &str {
        &self.attempt
    }

    fn get(&self, word: Word) -> Cow<'_, str> {
        let handle = self.handle.as_deref().unwrap_or_default();
        match word {
            Word::Id if handle.starts_with('/') => last_part(handle),
            Word::Id | Word::Location => handle.into(),
            Word::Job => self.job.as_str().into(),
            Word::Attempt => self.attempt.as_str().into(),
            Word::Path => self.path.as_str().into(),
            Word::Callback => self.callback.as_deref().unwrap_or_default().into(),
        }
    }
}

fn last_part(address: &str) -> Cow<'_, str> {
    let path = address.split('?').next().unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit('/').next();
    percent_decode_str(last.unwrap_or_default()).decode_utf8_lossy()
}

/// The path and query of an address that a backend gave: whatever host it names, only its own node is asked.
///
/// `None`: it is no address.
pub(crate) fn on_this_node(address: &str) -> Option<String> {
    let address = address.trim();
    let whole = match address.strip_prefix("//") {
        Some(_) => format!("http:{address}"),
        None => address.to_owned(),
    };
    if !whole.starts_with('/') && !whole.contains("://") {
        return None;
    }
    let uri: http::Uri = whole.split('#').next()?.parse().ok()?;
    Some(uri.path_and_query()?.as_str().to_owned())
}
