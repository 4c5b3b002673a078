//! Ollama's own APIs, and those that it has of OpenAI, as it says them in August 2026.

use super::{DONE, Finish, Telling, Voice};
use crate::comfy::json::{Json, Object, object};
use crate::llm::gotime::rfc3339;
use crate::llm::reply::go;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `/api/chat`
pub(crate) struct Chat;

/// `/api/generate`
pub(crate) struct Generate;

/// `/v1/chat/completions`
pub(crate) struct OpenAiChat;

/// `/v1/completions`
pub(crate) struct OpenAiCompletion;

// === impl Chat ===

impl Chat {
    fn line(telling: &Telling, message: Json, done: bool) -> Json {
        let mut line = head(&telling.model);
        line.insert("message".into(), message);
        finish(&mut line, telling, done);
        line.into()
    }

    fn call(telling: &Telling, tool: &str, text: &str) -> Json {
        let call = object! {
            "id": call_id(telling),
            "function": object! {"index": 0_u64, "name": tool, "arguments": arguments(telling)},
        };
        object! {"role": "assistant", "content": text, "tool_calls": vec![call]}
    }
}

impl Voice for Chat {
    fn kind(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        // A call is told when it is whole.
        if telling.tool.is_some() {
            return Vec::new();
        }
        vec![line(&Chat::line(
            telling,
            object! {"role": "assistant", "content": piece},
            false,
        ))]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let call = telling
            .tool
            .as_ref()
            .map(|tool| line(&Chat::line(telling, Chat::call(telling, tool, ""), false)));
        let done = Chat::line(telling, object! {"role": "assistant", "content": ""}, true);
        call.into_iter().chain([line(&done)]).collect()
    }

    fn whole(&self, telling: &Telling) -> String {
        let message = match &telling.tool {
            Some(tool) => Chat::call(telling, tool, ""),
            None => object! {"role": "assistant", "content": telling.text.as_str()},
        };
        go(&Chat::line(telling, message, true))
    }

    fn whole_kind(&self) -> &'static str {
        "application/json; charset=utf-8"
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        vec![line(&object! {"error": message})]
    }
}

// === impl Generate ===

impl Generate {
    fn line(telling: &Telling, text: &str, done: bool) -> Json {
        let mut line = head(&telling.model);
        line.insert("response".into(), text.into());
        finish(&mut line, telling, done);
        line.into()
    }
}

impl Voice for Generate {
    fn kind(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        vec![line(&Generate::line(telling, piece, false))]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        vec![line(&Generate::line(telling, "", true))]
    }

    fn whole(&self, telling: &Telling) -> String {
        go(&Generate::line(telling, &telling.text, true))
    }

    fn whole_kind(&self) -> &'static str {
        "application/json; charset=utf-8"
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        vec![line(&object! {"error": message})]
    }
}

// === impl OpenAiChat ===

impl OpenAiChat {
    fn chunk(telling: &Telling, model: &str, delta: Option<Json>, reason: Option<&str>) -> Object {
        let choices: Vec<Json> = delta
            .map(|delta| object! {"index": 0_u64, "delta": delta, "finish_reason": reason})
            .into_iter()
            .collect();
        openai_head(telling, "chatcmpl", "chat.completion.chunk", model, choices)
    }

    fn call(telling: &Telling, tool: &str) -> Json {
        object! {
            "id": call_id(telling),
            "index": 0_u64,
            "type": "function",
            "function": object! {"name": tool, "arguments": go(&arguments(telling))},
        }
    }
}

impl Voice for OpenAiChat {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        if telling.tool.is_some() {
            return Vec::new();
        }
        let delta = if telling.is_first() {
            object! {"role": "assistant", "content": piece}
        } else {
            object! {"content": piece}
        };
        vec![data(
            &OpenAiChat::chunk(telling, &telling.model, Some(delta), None).into(),
        )]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let chunk = |delta, reason| OpenAiChat::chunk(telling, &telling.model, delta, reason);
        let mut said = Vec::new();
        if let Some(tool) = &telling.tool {
            let calls = vec![OpenAiChat::call(telling, tool)];
            let delta = object! {"role": "assistant", "content": "", "tool_calls": calls};
            said.push(data(&chunk(Some(delta), None).into()));
        }
        let mut end = data(&chunk(Some(object! {}), Some(telling.reason())).into());
        if telling.usage {
            let mut used = chunk(None, None);
            used.insert("usage".into(), usage(telling));
            end += &data(&used.into());
        }
        said.push(end + DONE);
        said
    }

    fn whole(&self, telling: &Telling) -> String {
        let message = match &telling.tool {
            Some(tool) => object! {
                "role": "assistant", "content": "", "tool_calls": vec![OpenAiChat::call(telling, tool)],
            },
            None => object! {"role": "assistant", "content": telling.text.as_str()},
        };
        let choice =
            object! {"index": 0_u64, "message": message, "finish_reason": telling.reason()};
        let mut whole = openai_head(
            telling,
            "chatcmpl",
            "chat.completion",
            &telling.model,
            vec![choice],
        );
        whole.insert("usage".into(), usage(telling));
        go(&whole.into()) + "\n"
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    /// Its own error is taken for a piece of an answer, and that for an empty one.
    fn broken(&mut self, _message: &str) -> Vec<String> {
        let nothing = Telling::default();
        vec![data(
            &OpenAiChat::chunk(&nothing, "", Some(object! {"content": ""}), None).into(),
        )]
    }
}

// === impl OpenAiCompletion ===

impl OpenAiCompletion {
    fn chunk(telling: &Telling, text: &str, reason: Option<&str>) -> Object {
        let choice = object! {"text": text, "index": 0_u64, "finish_reason": reason};
        let head = openai_head(
            telling,
            "cmpl",
            "text_completion",
            &telling.model,
            vec![choice],
        );
        // Here choices stand before the model.
        let at = |key: &str| {
            [
                "id",
                "object",
                "created",
                "choices",
                "model",
                "system_fingerprint",
            ]
            .iter()
            .position(|has| *has == key)
        };
        let mut head: Vec<_> = head.into_iter().collect();
        head.sort_by_key(|(key, _)| at(key));
        head.into_iter().collect()
    }
}

impl Voice for OpenAiCompletion {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        let mut chunk = OpenAiCompletion::chunk(telling, piece, None);
        if telling.usage {
            chunk.insert("usage".into(), no_usage());
        }
        vec![data(&chunk.into())]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let mut last = OpenAiCompletion::chunk(telling, "", Some(telling.reason()));
        if !telling.usage {
            return vec![data(&last.into()) + DONE];
        }
        last.insert("usage".into(), no_usage());
        let mut used = last.clone();
        used.insert("choices".into(), Json::List(Vec::new()));
        used.insert("usage".into(), usage(telling));
        vec![data(&last.into()) + &data(&used.into()) + DONE]
    }

    fn whole(&self, telling: &Telling) -> String {
        let choice = object! {
            "text": telling.text.as_str(), "index": 0_u64, "finish_reason": telling.reason(),
        };
        let mut whole = openai_head(
            telling,
            "cmpl",
            "text_completion",
            &telling.model,
            vec![choice],
        );
        whole.insert("usage".into(), usage(telling));
        go(&whole.into()) + "\n"
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    fn broken(&mut self, _message: &str) -> Vec<String> {
        let nothing = Telling::default();
        vec![data(&OpenAiCompletion::chunk(&nothing, "", None).into())]
    }
}

fn head(model: &str) -> Object {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Object::from_iter([
        ("model".to_owned(), Json::from(model)),
        ("created_at".to_owned(), rfc3339(now).into()),
    ])
}

/// What stands behind what was said.
fn finish(line: &mut Object, telling: &Telling, done: bool) {
    line.insert("done".into(), done.into());
    if !done {
        return;
    }
    let reason = if telling.finish == Finish::Length {
        "length"
    } else {
        "stop"
    };
    let times = telling.times;
    let mut insert = |key: &str, value: Json| line.insert(key.into(), value);
    insert("done_reason", reason.into());
    insert(
        "total_duration",
        nanos(telling.load + times.wrote - times.came),
    );
    // What takes no time is left out.
    if !telling.load.is_zero() {
        insert("load_duration", nanos(telling.load));
    }
    insert("prompt_eval_count", telling.prompt.into());
    insert("prompt_eval_duration", nanos(times.read - times.began));
    insert("eval_count", telling.written.into());
    insert("eval_duration", nanos(times.wrote - times.read));
}

fn nanos(time: Duration) -> Json {
    (time.as_nanos() as u64).into()
}

fn line(json: &Json) -> String {
    go(json) + "\n"
}

fn data(json: &Json) -> String {
    format!("data: {}\n\n", go(json))
}

/// The arguments of a call are no text here.
pub(crate) fn arguments(telling: &Telling) -> Json {
    Json::read(telling.text.as_bytes()).unwrap_or_else(|_| object! {})
}

pub(crate) fn call_id(telling: &Telling) -> String {
    format!("call_{}", telling.short(8))
}

/// Its ids are numbers up to 999.
fn openai_head(
    telling: &Telling,
    prefix: &str,
    object: &str,
    model: &str,
    choices: Vec<Json>,
) -> Object {
    Object::from_iter([
        (
            "id".to_owned(),
            Json::from(format!("{prefix}-{}", small(telling, 999))),
        ),
        ("object".to_owned(), object.into()),
        ("created".to_owned(), telling.created.into()),
        ("model".to_owned(), model.into()),
        ("system_fingerprint".to_owned(), "fp_ollama".into()),
        ("choices".to_owned(), choices.into()),
    ])
}

/// A number below another one.
pub(crate) fn small(telling: &Telling, below: u64) -> u64 {
    u64::from_str_radix(telling.short(12), 16).unwrap_or(0) % below
}

fn usage(telling: &Telling) -> Json {
    object! {
        "prompt_tokens": telling.prompt,
        "completion_tokens": telling.written,
        "total_tokens": telling.total(),
    }
}

fn no_usage() -> Json {
    object! {"prompt_tokens": 0_u64, "completion_tokens": 0_u64, "total_tokens": 0_u64}
}
