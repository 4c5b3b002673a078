//! What an answer says was used, and how fast it was made.

use crate::scan::{Cursor, NotJson};
use memchr::memmem;

/// What was used of tokens, as the engine counts them; `None` where it has not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, those of the cache among them.
    pub prompt: Option<u64>,
    /// Tokens of the prompt that were computed before.
    pub cached: Option<u64>,
    /// Tokens that were made.
    pub completion: Option<u64>,
}

/// Usage as its parts come: in one event, in several, or in each, then always the sum until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) cached: Option<u64>,
    /// Anthropic's `input` counts neither these nor those that were written to the cache.
    read: Option<u64>,
    written: Option<u64>,
}

/// How long an engine says it took, seconds. llama.cpp and Ollama say so with each answer: a measurement for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Loading the model.
    pub load_s: Option<f64>,
    /// Reading the prompt, less what was cached.
    pub prompt_s: Option<f64>,
    /// How many tokens were read in that time, where it says so; Ollama only says how many the prompt has.
    pub prompt_tokens: Option<u64>,
    /// Making tokens.
    pub decode_s: Option<f64>,
    /// How many tokens were made in that time.
    pub decode_tokens: Option<u64>,
}

// === impl Parts ===

impl Parts {
    pub(crate) fn usage(&self) -> Usage {
        let apart = self.read.unwrap_or(0) + self.written.unwrap_or(0);
        Usage {
            prompt: self.input.map(|input| input + apart),
            cached: self.read.or(self.cached),
            completion: self.output,
        }
    }

    /// Reads the object that stands here, of OpenAI's, Anthropic's or SGLang's words.
    pub(crate) fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), NotJson> {
        if !cursor.enters_object() {
            cursor.skip()?;
            return Ok(());
        }
        while let Some(key) = cursor.key()? {
            match key.raw {
                b"prompt_tokens" | b"input_tokens" => keep(&mut self.input, cursor)?,
                b"completion_tokens" | b"output_tokens" => keep(&mut self.output, cursor)?,
                b"cache_read_input_tokens" => keep(&mut self.read, cursor)?,
                b"cache_creation_input_tokens" => keep(&mut self.written, cursor)?,
                b"cached_tokens" => keep(&mut self.cached, cursor)?,
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    if !cursor.enters_object() {
                        cursor.skip()?;
                        continue;
                    }
                    while let Some(key) = cursor.key()? {
                        match key.raw {
                            b"cached_tokens" => keep(&mut self.cached, cursor)?,
                            _ => {
                                cursor.skip()?;
                            }
                        }
                    }
                }
                _ => {
                    cursor.skip()?;
                }
            }
        }
        Ok(())
    }
}

/// What is not said leaves what was said before.
pub(crate) fn keep(place: &mut Option<u64>, cursor: &mut Cursor<'_>) -> Result<(), NotJson> {
    if let Some(count) = cursor.takes_count()? {
        *place = Some(count);
    }
    Ok(())
}

// === impl Timings ===

impl Timings {
    /// Reads llama.cpp's `timings`, and what it says there of its cache.
    pub(crate) fn read(
        &mut self,
        parts: &mut Parts,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), NotJson> {
        if !cursor.enters_object() {
            cursor.skip()?;
            return Ok(());
        }
        let ms = |cursor: &mut Cursor<'_>| Ok(cursor.takes_number()?.map(|ms| ms / 1e3));
        while let Some(key) = cursor.key()? {
            match key.raw {
                b"cache_n" => keep(&mut parts.cached, cursor)?,
                b"prompt_n" => keep(&mut self.prompt_tokens, cursor)?,
                b"predicted_n" => keep(&mut self.decode_tokens, cursor)?,
                b"prompt_ms" => self.prompt_s = ms(cursor)?,
                b"predicted_ms" => self.decode_s = ms(cursor)?,
                _ => {
                    cursor.skip()?;
                }
            }
        }
        if let (None, Some(read)) = (parts.input, self.prompt_tokens) {
            parts.input = Some(read + parts.cached.unwrap_or(0));
        }
        parts.output = parts.output.or(self.decode_tokens);
        Ok(())
    }

    /// Takes an entry of Ollama's last object, if this is one. The cursor is at its value.
    pub(crate) fn ollama(
        &mut self,
        key: &[u8],
        parts: &mut Parts,
        cursor: &mut Cursor<'_>,
    ) -> Result<bool, NotJson> {
        let ns = |cursor: &mut Cursor<'_>| Ok(cursor.takes_number()?.map(|ns| ns / 1e9));
        match key {
            b"prompt_eval_count" => keep(&mut parts.input, cursor)?,
            b"eval_count" => {
                keep(&mut parts.output, cursor)?;
                self.decode_tokens = parts.output;
            }
            b"load_duration" => self.load_s = ns(cursor)?,
            b"prompt_eval_duration" => self.prompt_s = ns(cursor)?,
            b"eval_duration" => self.decode_s = ns(cursor)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Finds what was used in the end of an answer whose middle was not kept. A quote within a text has a backslash before it, so
/// what looks like a key is one.
pub(crate) fn in_tail(tail: &[u8], parts: &mut Parts, timings: &mut Timings) {
    if let Some(mut cursor) = value_of(tail, b"\"usage\"") {
        let _ = parts.read(&mut cursor);
    }
    if let Some(mut cursor) = value_of(tail, b"\"timings\"") {
        let _ = timings.read(parts, &mut cursor);
    }
    for key in [
        b"prompt_eval_count".as_slice(),
        b"eval_count",
        b"load_duration",
        b"prompt_eval_duration",
        b"eval_duration",
    ] {
        if let Some(mut cursor) = value_of(tail, &[b"\"", key, b"\""].concat()) {
            let _ = timings.ollama(key, parts, &mut cursor);
        }
    }
}

/// A cursor at the value of the last such key.
pub(crate) fn value_of<'a>(tail: &'a [u8], quoted_key: &[u8]) -> Option<Cursor<'a>> {
    let at = memmem::rfind(tail, quoted_key)? + quoted_key.len();
    let rest = tail[at..].trim_ascii_start().strip_prefix(b":")?;
    Some(Cursor::new(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> (Option<u64>, Option<u64>, Option<u64>) {
        let mut parts = Parts::default();
        parts.read(&mut Cursor::new(json.as_bytes())).unwrap();
        let Usage {
            prompt,
            cached,
            completion,
        } = parts.usage();
        (prompt, cached, completion)
    }

    #[test]
    fn usage_is_read_in_each_apis_words() {
        for (json, wants) in [
            (
                r#"{"prompt_tokens":15,"total_tokens":79,"completion_tokens":64}"#,
                (Some(15), None, Some(64)),
            ),
            (
                r#"{"prompt_tokens":16,"completion_tokens":2,"prompt_tokens_details":{"audio_tokens":1,"cached_tokens":4}}"#,
                (Some(16), Some(4), Some(2)),
            ),
            (
                r#"{"prompt_tokens":16,"completion_tokens":null,"prompt_tokens_details":null}"#,
                (Some(16), None, None),
            ),
            (
                r#"{"input_tokens":12,"input_tokens_details":{"cached_tokens":0,"per_turn":[]},"output_tokens":8}"#,
                (Some(12), Some(0), Some(8)),
            ),
            (
                r#"{"input_tokens":10,"cache_read_input_tokens":90,"cache_creation_input_tokens":5,"output_tokens":1}"#,
                (Some(105), Some(90), Some(1)),
            ),
            (
                r#"{"input_tokens":10,"cache_read_input_tokens":null,"output_tokens":1}"#,
                (Some(10), None, Some(1)),
            ),
            ("null", (None, None, None)),
            ("[]", (None, None, None)),
        ] {
            assert_eq!(usage(json), wants, "{json}");
        }
    }

    #[test]
    fn the_end_of_a_long_answer_says_what_was_used() {
        let tail = br#"he said \"usage\":{\"prompt_tokens\":1}, and \"eval_count\": 5"},"usage" : {"prompt_tokens":7,"completion_tokens":8},"x":1}"#;
        let (mut parts, mut timings) = (Parts::default(), Timings::default());
        in_tail(tail, &mut parts, &mut timings);
        assert_eq!((parts.input, parts.output), (Some(7), Some(8)));
        assert_eq!(timings, Timings::default());
        let tail = br#"3,4],"done":true,"load_duration":2000000000,"prompt_eval_count":26,"prompt_eval_duration":500000000,"eval_count":298,"eval_duration":4000000000}"#;
        let (mut parts, mut timings) = (Parts::default(), Timings::default());
        in_tail(tail, &mut parts, &mut timings);
        assert_eq!((parts.input, parts.output), (Some(26), Some(298)));
        let wants = Timings {
            load_s: Some(2.0),
            prompt_s: Some(0.5),
            prompt_tokens: None,
            decode_s: Some(4.0),
            decode_tokens: Some(298),
        };
        assert_eq!(timings, wants);
    }
}
