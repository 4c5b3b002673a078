//! Follows an answer that goes by, in chunks of any size, whoever made it: when the first token comes, how many come, what was
//! used, why it ended, and whether it did.
//!
//! It reads no clock: whoever feeds it knows when.

use crate::event::Told;
use crate::lines::{Ends, Kept, Lines};
use crate::scan::Cursor;
use crate::usage;

pub use crate::event::Finish;
pub use crate::usage::{Timings, Usage};

/// An answer that goes by.
#[derive(Clone, Debug)]
pub struct Follow {
    form: Form,
    told: Told,
}

#[derive(Clone, Debug)]
enum Form {
    /// `text/event-stream`
    Sse(Lines),
    /// Ollama's: each line an object.
    Ndjson(Lines),
    /// One object.
    Json(Ends),
    /// Sounds, pictures, what is compressed: nothing is known of it.
    Opaque,
}

/// What a chunk brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How many events with a token in them were over with it.
    pub tokens: u64,
    /// Whether the first of all is among them.
    pub first: bool,
}

/// What there is to say of an answer that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// What the engine says was used.
    pub usage: Usage,
    /// How many events had a token in them. Engines put several into one at times: what was used counts better.
    pub events: u64,
    /// How long the engine says it took.
    pub timings: Timings,
    /// Why it stopped.
    pub finish: Option<Finish>,
    /// What the engine says went wrong.
    pub error: Option<String>,
    /// Whether it was there to its end: nothing is missing that was to come.
    pub whole: bool,
}

// === impl Follow ===

impl Follow {
    /// An answer with these headers.
    pub fn new(content_type: Option<&str>, content_encoding: Option<&str>) -> Self {
        let kind = content_type.unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        let plain = content_encoding.is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
        let form = if !plain {
            Form::Opaque
        } else if is("text/event-stream") {
            Form::Sse(Lines::default())
        } else if is("application/x-ndjson") || is("application/ndjson") || is("application/jsonl")
        {
            Form::Ndjson(Lines::default())
        } else if is("application/json") {
            Form::Json(Ends::default())
        } else {
            Form::Opaque
        };
        Follow {
            form,
            told: Told::default(),
        }
    }

    /// Whether it comes token by token.
    pub fn streams(&self) -> bool {
        matches!(self.form, Form::Sse(_) | Form::Ndjson(_))
    }

    /// Whether a line has begun and is not over: whatever is said now has to end it first.
    pub fn is_within_line(&self) -> bool {
        match &self.form {
            Form::Sse(lines) | Form::Ndjson(lines) => !lines.begun().head().is_empty(),
            Form::Json(_) | Form::Opaque => false,
        }
    }

    /// A chunk of it.
    pub fn feed(&mut self, chunk: &[u8]) -> Step {
        let told = &mut self.told;
        let before = told.tokens;
        match &mut self.form {
            Form::Sse(lines) => lines.feed(chunk, |line| sse(told, line)),
            Form::Ndjson(lines) => lines.feed(chunk, |line| event(told, line)),
            Form::Json(ends) => ends.add(chunk),
            Form::Opaque => {}
        }
        let tokens = told.tokens - before;
        Step {
            tokens,
            first: before == 0 && tokens > 0,
        }
    }

    /// It ended, as HTTP has it: what there is to say of it.
    pub fn end(mut self) -> Account {
        let told = &mut self.told;
        let whole = match &self.form {
            Form::Sse(lines) => {
                // The last line may have no end; a last word that is cut off is none.
                sse(told, lines.begun());
                told.done || told.finish.is_some()
            }
            Form::Ndjson(lines) => {
                event(told, lines.begun());
                told.done
            }
            Form::Json(ends) => answer(told, ends.kept()),
            Form::Opaque => true,
        };
        let told = self.told;
        let tokens = match self.form {
            // An answer that came at once has no events.
            Form::Json(_) => 0,
            _ => told.tokens,
        };
        Account {
            usage: told.parts.usage(),
            events: tokens,
            timings: told.timings,
            finish: told.finish,
            whole: whole && told.error.is_none(),
            error: told.error,
        }
    }
}

// === impl Account ===

impl Account {
    /// How many tokens were made: as the engine counts them, else as they came.
    pub fn tokens(&self) -> u64 {
        self.usage.completion.unwrap_or(self.events)
    }
}

/// A line of an event stream (HTML standard, 9.2.6). Events of engines have one line of data.
#[inline]
fn sse(told: &mut Told, line: Kept<'_>) {
    if let Some(data) = line.after(b"data:") {
        let data = data.after(b" ").unwrap_or(data);
        if data.head().trim_ascii() == b"[DONE]" {
            told.done = true;
        } else {
            event(told, data);
        }
    } else if let Some(error) = line.after(b"error:") {
        // Older servers of llama.cpp.
        event(told, error);
        told.error
            .get_or_insert_with(|| "the stream ended with an error".into());
    } else if let Some(Kept::Whole(kind)) = line.after(b"event:") {
        // The event's own `type` says so too, at its end where it is long.
        told.kind(kind.trim_ascii(), &mut false);
    }
}

#[inline]
fn event(told: &mut Told, event: Kept<'_>) {
    match event {
        Kept::Whole([]) => {}
        // What cannot be read is no reason to say anything.
        Kept::Whole(all) => drop(told.read(all)),
        Kept::Ends(head, tail) => {
            // The whole response once more, or a picture in parts.
            let _ = told.read(head);
            usage::in_tail(tail, &mut told.parts, &mut told.timings);
        }
    }
}

/// Reads an answer that does not stream; whether it is whole.
fn answer(told: &mut Told, kept: Kept<'_>) -> bool {
    let whole = match kept {
        Kept::Whole(all) => told.read(all).is_ok() && Cursor::new(all).skip().is_ok(),
        Kept::Ends(head, tail) => {
            let _ = told.read(head);
            usage::in_tail(tail, &mut told.parts, &mut told.timings);
            told.finish_in_tail(tail);
            matches!(tail.trim_ascii_end(), [.., b'}' | b']'])
        }
    };
    whole || kept.head().is_empty()
}

#[cfg(test)]
mod tests;
