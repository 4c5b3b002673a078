//! vLLM's Responses and Messages APIs.

use super::vllm::tool_id;
use super::{Finish, Telling, Voice, event};
use crate::comfy::json::{Json, Object, object};
use crate::llm::reply::compact;

#[derive(Default)]
pub(crate) struct Responses {
    /// The number of the next event.
    next: u64,
}

pub(crate) struct Messages;

// === impl Responses ===

impl Responses {
    fn event(&mut self, name: &str, fields: Json) -> String {
        let Json::Object(mut fields) = fields else {
            return String::new();
        };
        fields.insert("sequence_number".into(), self.next.into());
        fields.insert("type".into(), name.into());
        self.next += 1;
        // Its keys are sorted, but for the response itself.
        fields.sort_keys();
        event(name, &fields.into())
    }

    fn item_id(telling: &Telling) -> String {
        format!("msg_{}", telling.id.get(8..24).unwrap_or(&telling.id))
    }

    fn part(text: &str, logprobs: Json) -> Json {
        object! {"annotations": Json::List(Vec::new()), "text": text, "type": "output_text", "logprobs": logprobs}
    }

    /// The one thing that it puts out: a message, or a call.
    fn item(telling: &Telling, status: &str) -> Json {
        if let Some(tool) = &telling.tool {
            return object! {
                "arguments": telling.text.as_str(),
                "call_id": tool_id(telling),
                "name": tool.as_str(),
                "type": "function_call",
                "id": format!("fc_{}", telling.short(16)),
                "status": status,
            };
        }
        let parts = if status == "completed" {
            vec![Responses::part(&telling.text, Json::Null)]
        } else {
            Vec::new()
        };
        object! {
            "id": Responses::item_id(telling),
            "content": parts,
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": Json::Null,
        }
    }

    fn response(telling: &Telling, done: bool) -> Json {
        let cut = done && telling.finish == Finish::Length;
        let incomplete = cut.then(|| object! {"reason": "max_output_tokens"});
        let status = match (done, cut) {
            (false, _) => "in_progress",
            (true, true) => "incomplete",
            (true, false) => "completed",
        };
        let output = if done {
            vec![Responses::item(telling, "completed")]
        } else {
            Vec::new()
        };
        let none = || Json::List(Vec::new());
        let usage = done.then(|| {
            object! {
                "input_tokens": telling.prompt,
                "input_tokens_details": object! {
                    "cached_tokens": if telling.tells_hits { telling.hit } else { 0 },
                    "cache_write_tokens": 0_u64,
                    "input_tokens_per_turn": none(),
                    "cached_tokens_per_turn": none(),
                },
                "output_tokens": telling.written,
                "output_tokens_details": object! {
                    "reasoning_tokens": 0_u64,
                    "tool_output_tokens": 0_u64,
                    "output_tokens_per_turn": none(),
                    "tool_output_tokens_per_turn": none(),
                },
                "total_tokens": telling.total(),
            }
        });
        object! {
            "id": format!("resp_{}", telling.short(16)),
            "created_at": telling.created,
            "incomplete_details": incomplete,
            "instructions": Json::Null,
            "metadata": Json::Null,
            "model": telling.model.as_str(),
            "object": "response",
            "output": output,
            "parallel_tool_calls": true,
            "temperature": 1.0,
            "tool_choice": "none",
            "tools": none(),
            "top_p": 1.0,
            "background": false,
            "max_output_tokens": telling.most,
            "max_tool_calls": Json::Null,
            "previous_response_id": Json::Null,
            "prompt": Json::Null,
            "reasoning": Json::Null,
            "service_tier": "auto",
            "status": status,
            "text": Json::Null,
            "top_logprobs": Json::Null,
            "truncation": "disabled",
            "usage": usage,
            "user": Json::Null,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": Json::Null,
            "ec_transfer_params": Json::Null,
            "input_messages": Json::Null,
            "output_messages": Json::Null,
        }
    }
}

impl Voice for Responses {
    fn kind(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        let none = || Json::List(Vec::new());
        let mut said = Vec::new();
        if telling.is_first() {
            for name in ["response.created", "response.in_progress"] {
                said.push(self.event(
                    name,
                    object! {"response": Responses::response(telling, false)},
                ));
            }
            let mut begun = telling.clone();
            begun.text.clear();
            let item = Responses::item(&begun, "in_progress");
            said.push(self.event(
                "response.output_item.added",
                object! {"item": item, "output_index": 0_u64},
            ));
        }
        if telling.tool.is_some() {
            let delta = object! {
                "delta": piece, "item_id": format!("fc_{}", telling.short(16)), "output_index": 0_u64,
            };
            said.push(self.event("response.function_call_arguments.delta", delta));
            return said;
        }
        if telling.is_first() {
            let begun = object! {
                "content_index": 0_u64,
                "item_id": Responses::item_id(telling),
                "output_index": 0_u64,
                "part": Responses::part("", none()),
            };
            said.push(self.event("response.content_part.added", begun));
        }
        let delta = object! {
            "content_index": 0_u64,
            "delta": piece,
            "item_id": Responses::item_id(telling),
            "logprobs": none(),
            "output_index": 0_u64,
        };
        said.push(self.event("response.output_text.delta", delta));
        said
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let none = || Json::List(Vec::new());
        let item = Responses::item_id(telling);
        let mut said = Vec::new();
        if telling.tool.is_some() {
            let done = object! {
                "arguments": telling.text.as_str(),
                "item_id": format!("fc_{}", telling.short(16)),
                "output_index": 0_u64,
            };
            said.push(self.event("response.function_call_arguments.done", done));
        } else {
            let done = object! {
                "content_index": 0_u64,
                "item_id": item.as_str(),
                "logprobs": none(),
                "output_index": 0_u64,
                "text": telling.text.as_str(),
            };
            said.push(self.event("response.output_text.done", done));
            let done = object! {
                "content_index": 0_u64,
                "item_id": item,
                "output_index": 0_u64,
                "part": Responses::part(&telling.text, Json::Null),
            };
            said.push(self.event("response.content_part.done", done));
        }
        let item = Responses::item(telling, "completed");
        said.push(self.event(
            "response.output_item.done",
            object! {"item": item, "output_index": 0_u64},
        ));
        let response = Responses::response(telling, true);
        said.push(self.event("response.completed", object! {"response": response}));
        said
    }

    fn whole(&self, telling: &Telling) -> String {
        compact(&Responses::response(telling, true))
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        let error = crate::llm::fault::vllm_body(message, "InternalServerError", Json::Null, 500);
        vec![format!("data: {error}\n\n")]
    }
}

// === impl Messages ===

impl Messages {
    fn id(telling: &Telling) -> String {
        format!("chatcmpl-{}", telling.short(16))
    }

    fn usage(telling: &Telling, written: usize, with_hits: bool) -> Json {
        let mut usage = Object::from_iter([
            ("input_tokens".to_owned(), Json::from(telling.prompt)),
            ("output_tokens".to_owned(), written.into()),
        ]);
        if with_hits && telling.tells_hits {
            usage.insert("cache_creation_input_tokens".into(), 0_u64.into());
            usage.insert("cache_read_input_tokens".into(), telling.hit.into());
        }
        usage.into()
    }
}

impl Voice for Messages {
    fn kind(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        let mut said = Vec::new();
        if telling.is_first() {
            let message = object! {
                "id": Messages::id(telling),
                "type": "message",
                "role": "assistant",
                "content": Json::List(Vec::new()),
                "model": telling.model.as_str(),
                "stop_reason": Json::Null,
                "stop_sequence": Json::Null,
                "usage": Messages::usage(telling, 0, false),
            };
            said.push(event(
                "message_start",
                &object! {"type": "message_start", "message": message},
            ));
            let block = match &telling.tool {
                Some(tool) => object! {
                    "type": "tool_use", "id": tool_id(telling), "name": tool.as_str(), "input": object! {},
                },
                None => object! {"type": "text", "text": ""},
            };
            let begun =
                object! {"type": "content_block_start", "content_block": block, "index": 0_u64};
            said.push(event("content_block_start", &begun));
        }
        let delta = if telling.tool.is_some() {
            object! {"type": "input_json_delta", "partial_json": piece}
        } else {
            object! {"type": "text_delta", "text": piece}
        };
        let delta = object! {"type": "content_block_delta", "delta": delta, "index": 0_u64};
        said.push(event("content_block_delta", &delta));
        said
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let delta = object! {"stop_reason": telling.stop_reason(), "stop_sequence": Json::Null};
        vec![
            event(
                "content_block_stop",
                &object! {"type": "content_block_stop", "index": 0_u64},
            ),
            event(
                "message_delta",
                &object! {
                    "type": "message_delta",
                    "delta": delta,
                    "usage": Messages::usage(telling, telling.written, true),
                },
            ),
            event("message_stop", &object! {"type": "message_stop"}),
        ]
    }

    fn whole(&self, telling: &Telling) -> String {
        let block = match &telling.tool {
            Some(tool) => object! {
                "type": "tool_use",
                "id": tool_id(telling),
                "name": tool.as_str(),
                "input": Json::read(telling.text.as_bytes()).unwrap_or_default(),
            },
            None => object! {"type": "text", "text": telling.text.as_str()},
        };
        compact(&object! {
            "id": Messages::id(telling),
            "type": "message",
            "role": "assistant",
            "content": vec![block],
            "model": telling.model.as_str(),
            "stop_reason": telling.stop_reason(),
            "usage": Messages::usage(telling, telling.written, true),
        })
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        let error = object! {"type": "internal_error", "message": message};
        vec![
            event("error", &object! {"type": "error", "error": error}),
            super::DONE.into(),
        ]
    }
}
