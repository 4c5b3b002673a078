//! One event of a stream, or an answer that does not stream: what it says, in any engine's words.

use crate::scan::{Cursor, NotJson, Shape, Text};
use crate::usage::{Parts, Timings, keep, value_of};

/// So much of an error's message is kept.
const SAID: usize = 300;

/// Why an engine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It was done.
    Stop,
    /// It had made as much as it may.
    Length,
    /// It calls a tool.
    Tool,
    /// It may not say this.
    Filter,
    /// Something else: an engine was told to stop, say.
    Other,
}

/// What was learned from the events until now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// How many events had a token in them.
    pub(crate) tokens: u64,
    pub(crate) parts: Parts,
    pub(crate) timings: Timings,
    pub(crate) finish: Option<Finish>,
    /// An engine's own words for what went wrong.
    pub(crate) error: Option<String>,
    /// It said that this is all.
    pub(crate) done: bool,
}

/// What an event carries, until it is known which kind it is.
#[derive(Default)]
struct Event<'a> {
    kind: Option<Text<'a>>,
    message: Option<Text<'a>>,
    is_error: bool,
    has_token: bool,
    /// Text at the top, which is a token where events have no names.
    has_text: bool,
}

// === impl Told ===

impl Told {
    /// Reads one event.
    ///
    /// Errors: it is no JSON; what was read until there counts.
    pub(crate) fn read(&mut self, event: &[u8]) -> Result<(), NotJson> {
        let mut cursor = Cursor::new(event);
        if !cursor.enters_object() {
            return Ok(());
        }
        let mut seen = Event::default();
        let end = loop {
            match cursor.key() {
                Ok(Some(key)) => {
                    if let Err(error) = self.entry(&key, &mut cursor, &mut seen) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match seen.kind {
            Some(kind) => {
                self.kind(kind.raw, &mut seen.has_token);
                seen.is_error |= kind.raw == b"error";
            }
            None => seen.has_token |= seen.has_text,
        }
        self.tokens += u64::from(seen.has_token);
        // vLLM's older form, and OpenAI's for responses, have the message beside.
        if let (true, None, Some(message)) = (seen.is_error, &self.error, seen.message) {
            self.fails(&message);
        }
        end
    }

    fn entry<'a>(
        &mut self,
        key: &Text<'a>,
        cursor: &mut Cursor<'a>,
        seen: &mut Event<'a>,
    ) -> Result<(), NotJson> {
        match key.raw {
            b"choices" => {
                if !cursor.enters_list() {
                    cursor.skip()?;
                    return Ok(());
                }
                while cursor.item()? {
                    self.choice(cursor, seen)?;
                }
            }
            b"usage" | b"meta_info" => self.parts.read(cursor)?,
            b"timings" => self.timings.read(&mut self.parts, cursor)?,
            b"type" => seen.kind = cursor.takes_text()?,
            b"error" => self.error(cursor)?,
            b"object" => {
                seen.is_error |= cursor
                    .takes_text()?
                    .is_some_and(|text| text.raw == b"error")
            }
            // Ollama's and Anthropic's, or an error's text.
            b"message" => match cursor.shape()? {
                Shape::Text => seen.message = Some(cursor.text()?),
                _ => self.message(cursor, seen)?,
            },
            // Ollama's text, or what OpenAI calls one.
            b"response" => match cursor.shape()? {
                Shape::Text => seen.has_token |= !cursor.text()?.raw.is_empty(),
                _ => self.response(cursor)?,
            },
            b"delta" | b"content_block" => self.delta(cursor)?,
            // llama.cpp, SGLang, TGI, Ollama.
            b"content" | b"text" | b"thinking" => {
                seen.has_text |= cursor
                    .takes_text()?
                    .is_some_and(|text| !text.raw.is_empty());
            }
            b"token" => {
                seen.has_token |= cursor.shape()? == Shape::Object;
                cursor.skip()?;
            }
            b"generated_text" => self.done |= cursor.takes_text()?.is_some(),
            b"stop" => self.done |= cursor.takes_word()? == Some(b"true"),
            b"done" => self.done |= cursor.takes_word()? == Some(b"true"),
            b"done_reason" | b"stop_reason" | b"stop_type" => self.finishes(cursor)?,
            b"tokens_evaluated" => keep(&mut self.parts.input, cursor)?,
            b"tokens_predicted" => keep(&mut self.parts.output, cursor)?,
            other => {
                if !self.timings.ollama(other, &mut self.parts, cursor)? {
                    cursor.skip()?;
                }
            }
        }
        Ok(())
    }

    /// One of OpenAI's choices.
    fn choice<'a>(&mut self, cursor: &mut Cursor<'a>, seen: &mut Event<'a>) -> Result<(), NotJson> {
        if !cursor.enters_object() {
            cursor.skip()?;
            return Ok(());
        }
        while let Some(key) = cursor.key()? {
            match key.raw {
                b"delta" | b"message" => self.message(cursor, seen)?,
                b"text" => seen.has_token |= cursor.takes_text()?.is_some(),
                b"finish_reason" => self.finishes(cursor)?,
                _ => {
                    cursor.skip()?;
                }
            }
        }
        Ok(())
    }

    /// What an assistant says, whole or in part.
    fn message<'a>(
        &mut self,
        cursor: &mut Cursor<'a>,
        seen: &mut Event<'a>,
    ) -> Result<(), NotJson> {
        if !cursor.enters_object() {
            cursor.skip()?;
            return Ok(());
        }
        let (mut role, mut empty) = (false, false);
        while let Some(key) = cursor.key()? {
            match key.raw {
                b"role" => {
                    role = true;
                    cursor.skip()?;
                }
                b"content" | b"reasoning_content" | b"reasoning" | b"thinking" | b"refusal" => {
                    if let Some(text) = cursor.takes_text()? {
                        seen.has_token |= !text.raw.is_empty();
                        empty |= text.raw.is_empty();
                    }
                }
                b"tool_calls" | b"function_call" | b"audio" => {
                    let range = cursor.skip()?;
                    seen.has_token |= !matches!(cursor.bytes(range), b"null" | b"[]" | b"{}");
                }
                b"usage" => self.parts.read(cursor)?,
                b"stop_reason" => self.finishes(cursor)?,
                _ => {
                    cursor.skip()?;
                }
            }
        }
        // A token that is no whole character yet shows nothing, and was made. The opening words have a role.
        seen.has_token |= empty && !role;
        Ok(())
    }

    /// Anthropic's.
    fn delta(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotJson> {
        if !cursor.enters_object() {
            cursor.skip()?;
            return Ok(());
        }
        while let Some(key) = cursor.key()? {
            match key.raw {
                b"stop_reason" => self.finishes(cursor)?,
                _ => {
                    cursor.skip()?;
                }
            }
        }
        Ok(())
    }

    /// What OpenAI calls a response.
    fn response(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotJson> {
        if !cursor.enters_object() {
            cursor.skip()?;
            return Ok(());
        }
        while let Some(key) = cursor.key()? {
            match key.raw {
                b"usage" => self.parts.read(cursor)?,
                b"error" => self.error(cursor)?,
                _ => {
                    cursor.skip()?;
                }
            }
        }
        Ok(())
    }

    /// What kind of event it is, where events have names.
    pub(crate) fn kind(&mut self, kind: &[u8], has_token: &mut bool) {
        match kind {
            b"message_stop" | b"transcript.text.done" | b"speech.audio.done" => self.done = true,
            b"image_generation.completed" | b"image_edit.completed" => self.done = true,
            b"response.completed" => self.ends(Finish::Stop),
            b"response.incomplete" => self.ends(Finish::Length),
            b"response.failed" => {
                self.ends(Finish::Other);
                self.error
                    .get_or_insert_with(|| "the response failed".into());
            }
            b"content_block_delta" => *has_token = true,
            kind => *has_token |= kind.ends_with(b".delta"),
        }
    }

    fn ends(&mut self, finish: Finish) {
        self.done = true;
        self.finish.get_or_insert(finish);
    }

    fn finishes(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotJson> {
        if let Some(text) = cursor.takes_text()? {
            self.finish = Some(match text.raw {
                b"stop" | b"end_turn" | b"stop_sequence" | b"eos" | b"eos_token" | b"word" => {
                    Finish::Stop
                }
                b"length" | b"max_tokens" | b"limit" | b"max_output_tokens" => Finish::Length,
                b"tool_calls" | b"tool_use" | b"function_call" => Finish::Tool,
                b"content_filter" | b"refusal" => Finish::Filter,
                // llama.cpp's, before it stopped.
                b"none" => return Ok(()),
                _ => Finish::Other,
            });
        }
        Ok(())
    }

    /// Finds why it stopped in the end of an answer whose middle was not kept.
    pub(crate) fn finish_in_tail(&mut self, tail: &[u8]) {
        for key in [
            b"\"finish_reason\"".as_slice(),
            b"\"stop_reason\"",
            b"\"done_reason\"",
        ] {
            if let (None, Some(mut cursor)) = (self.finish, value_of(tail, key)) {
                let _ = self.finishes(&mut cursor);
            }
        }
    }

    fn error(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotJson> {
        match cursor.shape()? {
            Shape::Text => {
                let text = cursor.text()?;
                self.fails(&text);
            }
            Shape::Object => {
                cursor.enters_object();
                let mut said = None;
                while let Some(key) = cursor.key()? {
                    match key.raw {
                        b"message" => said = cursor.takes_text()?,
                        _ => {
                            cursor.skip()?;
                        }
                    }
                }
                match said {
                    Some(text) => self.fails(&text),
                    None => {
                        self.error
                            .get_or_insert_with(|| "an error without a message".into());
                    }
                }
            }
            // `null`, as most say where nothing went wrong.
            _ => {
                cursor.skip()?;
            }
        }
        Ok(())
    }

    fn fails(&mut self, text: &Text<'_>) {
        let said = text.decoded();
        let short = said.chars().take(SAID).collect();
        self.error.get_or_insert(short);
    }
}
