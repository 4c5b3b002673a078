//! The Responses and Messages APIs that Ollama has.

use super::ollama::{arguments, call_id, small};
use super::{Telling, Voice};
use crate::comfy::json::{Json, Object, object};
use crate::llm::reply::go;

#[derive(Default)]
pub(crate) struct Responses {
    /// The number of the next event.
    next: u64,
}

pub(crate) struct Messages;

// === impl Responses ===

impl Responses {
    /// Its events are maps of Go, whose keys are sorted.
    fn event(&mut self, name: &str, fields: Json) -> String {
        let Json::Object(mut fields) = fields else {
            return String::new();
        };
        fields.insert("type".into(), name.into());
        fields.insert("sequence_number".into(), self.next.into());
        self.next += 1;
        event(name, &sorted(fields.into()))
    }

    fn item_id(telling: &Telling) -> String {
        let number = small(telling, 999_999);
        if telling.tool.is_some() {
            format!("fc_{number}_0")
        } else {
            format!("msg_{number}")
        }
    }

    fn part(text: &str) -> Json {
        let none = || Json::List(Vec::new());
        object! {"type": "output_text", "text": text, "annotations": none(), "logprobs": none()}
    }

    fn item(telling: &Telling, status: &str) -> Json {
        match &telling.tool {
            Some(tool) => object! {
                "id": Responses::item_id(telling),
                "type": "function_call",
                "status": status,
                "call_id": call_id(telling),
                "name": tool.as_str(),
                "arguments": if status == "completed" { go(&arguments(telling)) } else { String::new() },
            },
            None => object! {
                "id": Responses::item_id(telling),
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": if status == "completed" {
                    vec![Responses::part(&telling.text)]
                } else {
                    Vec::new()
                },
            },
        }
    }

    fn response(telling: &Telling, done: bool) -> Json {
        let none = || Json::List(Vec::new());
        let usage = done.then(|| {
            object! {
                "input_tokens": telling.prompt,
                "output_tokens": telling.written,
                "total_tokens": telling.total(),
                "input_tokens_details": object! {"cached_tokens": 0_u64},
                "output_tokens_details": object! {"reasoning_tokens": 0_u64},
            }
        });
        object! {
            "id": format!("resp_{}", small(telling, 999_999)),
            "object": "response",
            "created_at": telling.created,
            "completed_at": done.then_some(telling.created),
            "status": if done { "completed" } else { "in_progress" },
            "incomplete_details": Json::Null,
            "model": telling.model.as_str(),
            "previous_response_id": Json::Null,
            "instructions": Json::Null,
            "output": if done { vec![Responses::item(telling, "completed")] } else { Vec::new() },
            "error": Json::Null,
            "tools": none(),
            "tool_choice": "auto",
            "truncation": "disabled",
            "parallel_tool_calls": true,
            "text": object! {"format": object! {"type": "text"}},
            "top_p": 1_u64,
            "presence_penalty": 0_u64,
            "frequency_penalty": 0_u64,
            "top_logprobs": 0_u64,
            "temperature": 1_u64,
            "reasoning": Json::Null,
            "usage": usage,
            "max_output_tokens": telling.most,
            "max_tool_calls": Json::Null,
            "store": false,
            "background": false,
            "service_tier": "default",
            "metadata": object! {},
            "safety_identifier": Json::Null,
            "prompt_cache_key": Json::Null,
        }
    }

    fn begin(&mut self, telling: &Telling) -> Vec<String> {
        let response = || object! {"response": Responses::response(telling, false)};
        vec![
            self.event("response.created", response()),
            self.event("response.in_progress", response()),
        ]
    }

    fn begin_item(&mut self, telling: &Telling) -> String {
        let item = Responses::item(telling, "in_progress");
        self.event(
            "response.output_item.added",
            object! {"output_index": 0_u64, "item": item},
        )
    }
}

impl Voice for Responses {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        if telling.tool.is_some() {
            return Vec::new();
        }
        let none = || Json::List(Vec::new());
        let mut said = Vec::new();
        let item = Responses::item_id(telling);
        if telling.is_first() {
            said.extend(self.begin(telling));
            said.push(self.begin_item(telling));
            let begun = object! {
                "item_id": item.as_str(),
                "output_index": 0_u64,
                "content_index": 0_u64,
                "part": Responses::part(""),
            };
            said.push(self.event("response.content_part.added", begun));
        }
        let delta = object! {
            "item_id": item,
            "output_index": 0_u64,
            "content_index": 0_u64,
            "delta": piece,
            "logprobs": none(),
        };
        said.push(self.event("response.output_text.delta", delta));
        said
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let mut said = Vec::new();
        let item = Responses::item_id(telling);
        if telling.tool.is_some() {
            said.extend(self.begin(telling));
            said.push(self.begin_item(telling));
            let arguments = go(&arguments(telling));
            for (name, key) in [
                ("response.function_call_arguments.delta", "delta"),
                ("response.function_call_arguments.done", "arguments"),
            ] {
                let mut fields = Object::new();
                fields.insert("item_id".into(), item.as_str().into());
                fields.insert("output_index".into(), 0_u64.into());
                fields.insert(key.into(), arguments.as_str().into());
                said.push(self.event(name, fields.into()));
            }
        } else {
            let done = object! {
                "item_id": item.as_str(),
                "output_index": 0_u64,
                "content_index": 0_u64,
                "text": telling.text.as_str(),
                "logprobs": Json::List(Vec::new()),
            };
            said.push(self.event("response.output_text.done", done));
            let done = object! {
                "item_id": item,
                "output_index": 0_u64,
                "content_index": 0_u64,
                "part": Responses::part(&telling.text),
            };
            said.push(self.event("response.content_part.done", done));
        }
        let item = Responses::item(telling, "completed");
        said.push(self.event(
            "response.output_item.done",
            object! {"output_index": 0_u64, "item": item},
        ));
        let response = Responses::response(telling, true);
        said.push(self.event("response.completed", object! {"response": response}));
        said
    }

    fn whole(&self, telling: &Telling) -> String {
        go(&Responses::response(telling, true)) + "\n"
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    /// Its own error is taken for an empty piece of an answer, of which nothing is said.
    fn broken(&mut self, _message: &str) -> Vec<String> {
        Vec::new()
    }
}

// === impl Messages ===

impl Messages {
    fn message(
        telling: &Telling,
        content: Vec<Json>,
        reason: Option<&str>,
        written: usize,
    ) -> Json {
        let mut message = Object::from_iter([
            ("id".to_owned(), Json::from(format!("msg_{}", telling.id))),
            ("type".to_owned(), "message".into()),
            ("role".to_owned(), "assistant".into()),
            ("model".to_owned(), telling.model.as_str().into()),
            ("content".to_owned(), content.into()),
        ]);
        if let Some(reason) = reason {
            message.insert("stop_reason".into(), reason.into());
        }
        let usage = object! {"input_tokens": telling.prompt, "output_tokens": written};
        message.insert("usage".into(), usage);
        message.into()
    }

    fn begin(telling: &Telling) -> Vec<String> {
        let message = Messages::message(telling, Vec::new(), None, 0);
        let block = match &telling.tool {
            Some(tool) => object! {
                "type": "tool_use", "id": call_id(telling), "name": tool.as_str(), "input": object! {},
            },
            None => object! {"type": "text", "text": ""},
        };
        let begun = object! {"type": "content_block_start", "index": 0_u64, "content_block": block};
        vec![
            event(
                "message_start",
                &object! {"type": "message_start", "message": message},
            ),
            event("content_block_start", &begun),
        ]
    }

    fn delta(delta: Json) -> String {
        let delta = object! {"type": "content_block_delta", "index": 0_u64, "delta": delta};
        event("content_block_delta", &delta)
    }
}

impl Voice for Messages {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        if telling.tool.is_some() {
            return Vec::new();
        }
        let mut said = Vec::new();
        if telling.is_first() {
            said.extend(Messages::begin(telling));
        }
        said.push(Messages::delta(
            object! {"type": "text_delta", "text": piece},
        ));
        said
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let mut said = Vec::new();
        if telling.tool.is_some() {
            said.extend(Messages::begin(telling));
            let json = go(&arguments(telling));
            said.push(Messages::delta(
                object! {"type": "input_json_delta", "partial_json": json},
            ));
        }
        let usage = object! {"input_tokens": telling.prompt, "output_tokens": telling.written};
        let delta = object! {
            "type": "message_delta",
            "delta": object! {"stop_reason": telling.stop_reason()},
            "usage": usage,
        };
        said.push(event(
            "content_block_stop",
            &object! {"type": "content_block_stop", "index": 0_u64},
        ));
        said.push(event("message_delta", &delta));
        said.push(event("message_stop", &object! {"type": "message_stop"}));
        said
    }

    fn whole(&self, telling: &Telling) -> String {
        let block = match &telling.tool {
            Some(tool) => object! {
                "type": "tool_use",
                "id": call_id(telling),
                "name": tool.as_str(),
                "input": arguments(telling),
            },
            None => object! {"type": "text", "text": telling.text.as_str()},
        };
        let reason = Some(telling.stop_reason());
        go(&Messages::message(
            telling,
            vec![block],
            reason,
            telling.written,
        )) + "\n"
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    fn broken(&mut self, _message: &str) -> Vec<String> {
        Vec::new()
    }
}

fn event(name: &str, json: &Json) -> String {
    format!("event: {name}\ndata: {}\n\n", go(json))
}

/// With sorted keys, all the way down.
fn sorted(json: Json) -> Json {
    match json {
        Json::Object(object) => {
            let mut object: Object = object
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            object.sort_keys();
            object.into()
        }
        Json::List(list) => Json::List(list.into_iter().map(sorted).collect()),
        other => other,
    }
}
