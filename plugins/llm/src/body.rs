//! What a JSON body says of itself, found in one pass and without building anything of it.
//!
//! **Keys that are there twice.** Python's `json` (vLLM, SGLang, TabbyAPI), llama.cpp's nlohmann, Go (Ollama) and JavaScript
//! (LM Studio) take the last one; Rust's serde (TGI, mistral.rs) refuses the body. So the last one counts. Go also takes keys in
//! any case: `Model` is a model to Ollama, and to nobody else. Where a body names two models in such ways, it is
//! [`disputed`](Asked::disputed), and [`edits`](Asked::edits) puts one name into every place, so that no engine reads another
//! than was weighed and allowed.

use crate::prompt::{Prompt, Section, is_media};
use crate::route::ModelAt;
use crate::scan::{Cursor, NotJson, Shape, Text};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;
use tabane_api::Edit;

/// What a request asks for, as far as a gateway has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The model. `None`: it names none, or not by a text.
    pub model: Option<Cow<'a, str>>,
    /// Whether engines could read another model than `model`.
    pub disputed: bool,
    /// Whether its answer is to stream; `None`: it does not say.
    pub stream: Option<bool>,
    /// Whether the stream is to end with what was used.
    pub include_usage: Option<bool>,
    /// The most tokens to be made; `None`: it does not say, or sets no bound.
    pub max_tokens: Option<u64>,
    /// How many answers are to be made of one prompt.
    pub n: Option<u64>,
    /// Who it is for, as the client calls them: `user`, `safety_identifier`, or `metadata.user_id` of Anthropic's.
    pub user: Option<Cow<'a, str>>,
    /// What ties it to a node's cache, as the client calls it.
    pub cache_key: Option<Cow<'a, str>>,
    /// An earlier response that it goes on from, or a conversation it belongs to: kept by the node that made it.
    pub previous: Option<Cow<'a, str>>,
    /// The text that is read before the first token.
    pub prompt: Prompt,
    /// Where a model stands, in order: whole values with their quotes in JSON, what lies between the boundaries in a form.
    pub(crate) places: Vec<Range<usize>>,
    /// Where the first entry of the object would stand, and whether it has any.
    pub(crate) opens: Option<(usize, bool)>,
    pub(crate) form: bool,
}

/// Reads a JSON body.
///
/// Errors: it is no object, or ends too soon. A body in UTF-16 or UTF-32, which Python would read, is none.
pub fn read(body: &[u8], at: ModelAt) -> Result<Asked<'_>, NotJson> {
    let mut cursor = Cursor::new(body);
    if !cursor.enters_object() {
        return Err(NotJson { at: cursor.at() });
    }
    let mut found = Found {
        takes_name: at == ModelAt::BodyOrName,
        ..Found::default()
    };
    let opens = cursor.at();
    let mut has_any = false;
    while let Some(key) = cursor.key()? {
        has_any = true;
        found.entry(&key, &mut cursor)?;
    }
    let mut asked = found.settle();
    asked.opens = Some((opens, has_any));
    Ok(asked)
}

// === impl Asked ===

impl Asked<'_> {
    /// What makes the body ask for another model; nothing else of it changes. None where it already does; one that names no model
    /// names this one then, but for a form.
    pub fn edits(&self, model: &str) -> Vec<Edit> {
        if !self.disputed && self.model.as_deref() == Some(model) {
            return Vec::new();
        }
        let with = match self.form {
            true => Bytes::copy_from_slice(model.as_bytes()),
            false => serde_json::Value::from(model).to_string().into(),
        };
        if let (true, Some((opens, has_any))) = (self.places.is_empty(), self.opens) {
            let mut entry = b"\"model\":".to_vec();
            entry.extend_from_slice(&with);
            entry.extend_from_slice(if has_any { b"," } else { b"" });
            return vec![Edit {
                range: opens..opens,
                with: entry.into(),
            }];
        }
        let edit = |range: &Range<usize>| Edit {
            range: range.clone(),
            with: with.clone(),
        };
        self.places.iter().map(edit).collect()
    }
}

// === reading ===

#[derive(Default)]
struct Found<'a> {
    asked: Asked<'a>,
    takes_name: bool,
    /// What each place says, in order, and whether its key is written as it should be.
    models: Vec<(Option<Cow<'a, str>>, bool)>,
    name: Option<(Cow<'a, str>, Range<usize>)>,
    completion_tokens: Option<u64>,
    /// Parts of the prompt that were read, and where they stand.
    sections: Vec<(&'static str, Range<usize>)>,
    user: [Option<Cow<'a, str>>; 3],
}

impl<'a> Found<'a> {
    fn entry(&mut self, key: &Text<'a>, cursor: &mut Cursor<'a>) -> Result<(), NotJson> {
        let decoded;
        let name: &[u8] = match key.escaped {
            false => key.raw,
            true => {
                decoded = key.decoded();
                decoded.as_bytes()
            }
        };
        if let Some((name, section)) = section(name) {
            return self.section(name, section, cursor);
        }
        match name {
            b"stream" => self.asked.stream = truth(cursor)?,
            b"stream_options" => {
                self.asked.include_usage = None;
                within(cursor, |key, cursor| {
                    if key.is("include_usage") {
                        self.asked.include_usage = truth(cursor)?;
                        return Ok(true);
                    }
                    Ok(false)
                })?;
            }
            b"max_tokens" | b"max_output_tokens" | b"n_predict" | b"max_new_tokens" => {
                self.asked.max_tokens = cursor.takes_count()?;
            }
            b"max_completion_tokens" => self.completion_tokens = cursor.takes_count()?,
            // Ollama; SGLang and TGI in their own words.
            b"options" | b"sampling_params" | b"parameters" => within(cursor, |key, cursor| {
                if key.is("num_predict") || key.is("max_new_tokens") {
                    self.asked.max_tokens = cursor.takes_count()?;
                    return Ok(true);
                }
                Ok(false)
            })?,
            b"n" => self.asked.n = cursor.takes_count()?,
            b"user" => self.user[0] = word(cursor)?,
            b"safety_identifier" => self.user[1] = word(cursor)?,
            b"metadata" => within(cursor, |key, cursor| {
                if key.is("user_id") {
                    self.user[2] = word(cursor)?;
                    return Ok(true);
                }
                Ok(false)
            })?,
            b"prompt_cache_key" => self.asked.cache_key = word(cursor)?,
            b"previous_response_id" => {
                self.asked.previous = word(cursor)?.or(self.asked.previous.take())
            }
            b"conversation" => {
                let id = match cursor.shape()? {
                    Shape::Object => {
                        let mut id = None;
                        within(cursor, |key, cursor| {
                            if key.is("id") {
                                id = word(cursor)?;
                                return Ok(true);
                            }
                            Ok(false)
                        })?;
                        id
                    }
                    _ => word(cursor)?,
                };
                self.asked.previous = id.or(self.asked.previous.take());
            }
            b"name" if self.takes_name => {
                self.name = cursor
                    .takes_text()?
                    .map(|text| (text.decoded(), text.quoted()));
            }
            _ if name.eq_ignore_ascii_case(b"model") => {
                let exact = name == b"model";
                cursor.shape()?;
                let from = cursor.at();
                let text = cursor.takes_text()?;
                self.models.push((text.map(|text| text.decoded()), exact));
                self.asked.places.push(from..cursor.at());
            }
            _ => {
                cursor.skip()?;
            }
        }
        Ok(())
    }

    /// A part of the prompt.
    fn section(
        &mut self,
        name: &'static str,
        section: Section,
        cursor: &mut Cursor<'a>,
    ) -> Result<(), NotJson> {
        if let Some(before) = self.sections.iter().position(|(known, _)| *known == name) {
            let (_, range) = self.sections.swap_remove(before);
            self.asked.prompt.forget(range);
        }
        let shape = cursor.shape()?;
        let from = cursor.at();
        // SGLang's prompt; OpenAI's `text` says how a text is to look.
        if name == "text" && shape == Shape::Object {
            cursor.skip()?;
            return Ok(());
        }
        let prompt = &mut self.asked.prompt;
        if shape == Shape::Word {
            cursor.skip()?;
        } else if shape == Shape::List && (section == Section::Tools || is_tokens(cursor)) {
            // As one piece: the names of parameters count too, and tokens have no quotes.
            let range = cursor.skip()?;
            // Without its end, so that a longer list begins alike.
            prompt.add(section, range.start..range.end - 1, false);
        } else {
            let skips = |key: &Text<'_>| {
                // Marks where Anthropic's caches end: it moves from turn to turn, and is no text.
                key.is("cache_control")
            };
            cursor.texts(skips, |key, text| {
                let key = key.map_or(b"".as_slice(), |key| key.raw);
                prompt.add(section, text.range.clone(), is_media(key, text.raw));
            })?;
        }
        self.sections.push((name, from..cursor.at()));
        Ok(())
    }

    fn settle(mut self) -> Asked<'a> {
        let last = |exact| {
            let mut all = self.models.iter().rev();
            all.find(|(_, is)| *is == exact)
                .map(|(model, _)| model.clone())
        };
        let model = last(true).or(last(false)).flatten();
        let mut asked = self.asked;
        asked.disputed = self.models.iter().any(|(other, _)| *other != model);
        asked.model = model;
        // Ollama takes the older name where there is no model, or an empty one.
        if let Some((name, place)) = self.name
            && asked.model.as_ref().is_none_or(|model| model.is_empty())
        {
            asked.model = Some(name);
            asked.places.push(place);
            asked.places.sort_by_key(|range| range.start);
        }
        asked.max_tokens = self.completion_tokens.or(asked.max_tokens);
        asked.user = self.user.iter_mut().find_map(Option::take);
        asked.prompt.settle();
        asked
    }
}

/// Which part of a prompt a key is, if it is one.
fn section(key: &[u8]) -> Option<(&'static str, Section)> {
    Some(match key {
        b"messages" => ("messages", Section::Main),
        b"prompt" => ("prompt", Section::Main),
        b"input" => ("input", Section::Main),
        b"inputs" => ("inputs", Section::Main),
        b"images" => ("images", Section::Main),
        b"text" => ("text", Section::Main),
        b"input_ids" => ("input_ids", Section::Main),
        b"input_prefix" => ("input_prefix", Section::Main),
        b"text_1" => ("text_1", Section::Main),
        b"query" => ("query", Section::Main),
        b"queries" => ("queries", Section::Main),
        b"system" => ("system", Section::System),
        b"instructions" => ("instructions", Section::System),
        b"tools" => ("tools", Section::Tools),
        b"functions" => ("functions", Section::Tools),
        b"cache_salt" => ("cache_salt", Section::Salt),
        b"context" => ("context", Section::Context),
        b"suffix" => ("suffix", Section::Rest),
        b"input_suffix" => ("input_suffix", Section::Rest),
        b"input_extra" => ("input_extra", Section::Rest),
        b"documents" => ("documents", Section::Rest),
        b"texts" => ("texts", Section::Rest),
        b"text_2" => ("text_2", Section::Rest),
        b"items" => ("items", Section::Rest),
        _ => return None,
    })
}

/// Whether the list that stands here is one of numbers, or of lists of numbers.
fn is_tokens(cursor: &Cursor<'_>) -> bool {
    let mut inside = cursor.clone();
    while inside.enters_list() {}
    matches!(inside.peek(), Some(byte) if byte.is_ascii_digit())
}

/// Goes through the object that stands here, if one does; values that `each` does not take are stepped over.
fn within<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&Text<'a>, &mut Cursor<'a>) -> Result<bool, NotJson>,
) -> Result<(), NotJson> {
    if !cursor.enters_object() {
        cursor.skip()?;
        return Ok(());
    }
    while let Some(key) = cursor.key()? {
        if !each(&key, cursor)? {
            cursor.skip()?;
        }
    }
    Ok(())
}

fn truth(cursor: &mut Cursor<'_>) -> Result<Option<bool>, NotJson> {
    Ok(match cursor.takes_word()? {
        Some(b"true") => Some(true),
        Some(b"false") => Some(false),
        _ => None,
    })
}

/// A text that says something.
fn word<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Cow<'a, str>>, NotJson> {
    let text = cursor.takes_text()?;
    Ok(text
        .map(|text| text.decoded())
        .filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests;
