//! vLLM's OpenAI APIs, as version 0.32 says them.

use super::{DONE, Telling, Voice, data};
use crate::comfy::json::{Json, Object, object};
use crate::llm::fault::vllm_body;
use crate::llm::reply::compact;

/// What it says of itself.
const FINGERPRINT: &str = "vllm-0.32.0-50c5d469";

pub(crate) struct Chat;

pub(crate) struct Completion;

// === impl Chat ===

impl Chat {
    fn chunk(telling: &Telling, choices: Vec<Json>) -> Object {
        chunk("chatcmpl", "chat.completion.chunk", telling, choices)
    }

    fn delta(telling: &Telling, delta: Json, last: bool) -> String {
        let mut choice = Object::from_iter([
            ("index".to_owned(), Json::from(0_u64)),
            ("delta".to_owned(), delta),
            ("logprobs".to_owned(), Json::Null),
            ("finish_reason".to_owned(), reason(telling, last)),
        ]);
        if last {
            choice.insert("stop_reason".into(), Json::Null);
        }
        choice.insert("token_ids".into(), Json::Null);
        let mut chunk = Chat::chunk(telling, vec![choice.into()]);
        finish_chunk(&mut chunk, telling, last);
        data(&chunk.into())
    }

    fn role(telling: &Telling) -> String {
        let choice = object! {
            "index": 0_u64,
            "delta": object! {"role": "assistant", "content": ""},
            "logprobs": Json::Null,
            "finish_reason": Json::Null,
        };
        let mut chunk = Chat::chunk(telling, vec![choice]);
        if telling.usage_always {
            chunk.insert("usage".into(), usage_so_far(telling, 0));
        }
        chunk.insert("prompt_token_ids".into(), Json::Null);
        chunk.insert("prompt_text".into(), Json::Null);
        data(&chunk.into())
    }
}

impl Voice for Chat {
    fn kind(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn piece(&mut self, telling: &Telling, piece: &str, last: bool) -> Vec<String> {
        let mut said = Vec::new();
        if telling.is_first() {
            said.push(Chat::role(telling));
        }
        let Some(tool) = &telling.tool else {
            said.push(Chat::delta(telling, object! {"content": piece}, last));
            return said;
        };
        let call = |call: Json| object! {"content": Json::Null, "tool_calls": vec![call]};
        if telling.is_first() {
            let begun = call(object! {
                "id": tool_id(telling),
                "type": "function",
                "index": 0_u64,
                "function": object! {"name": tool.as_str()},
            });
            said.push(Chat::delta(telling, begun, false));
        }
        let goes_on = call(object! {"index": 0_u64, "function": object! {"arguments": piece}});
        said.push(Chat::delta(telling, goes_on, false));
        if last {
            said.push(Chat::delta(telling, object! {}, true));
        }
        said
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let mut said = Vec::new();
        if telling.usage {
            said.push(usage_chunk(Chat::chunk(telling, Vec::new()), telling));
        }
        said.push(DONE.into());
        said
    }

    fn whole(&self, telling: &Telling) -> String {
        let mut message = Object::from_iter([
            ("role".to_owned(), Json::from("assistant")),
            ("content".to_owned(), telling.text.as_str().into()),
            ("refusal".to_owned(), Json::Null),
            ("annotations".to_owned(), Json::Null),
            ("audio".to_owned(), Json::Null),
            ("function_call".to_owned(), Json::Null),
        ]);
        if let Some(tool) = &telling.tool {
            let call = object! {
                "id": tool_id(telling),
                "type": "function",
                "function": object! {"name": tool.as_str(), "arguments": telling.text.as_str()},
            };
            message.insert("content".into(), "".into());
            message.insert("tool_calls".into(), vec![call].into());
        }
        message.insert("reasoning".into(), Json::Null);
        let choice = object! {
            "index": 0_u64,
            "message": message,
            "logprobs": Json::Null,
            "finish_reason": telling.reason(),
            "stop_reason": Json::Null,
            "token_ids": Json::Null,
            "routed_experts": Json::Null,
        };
        compact(&object! {
            "id": format!("chatcmpl-{}", telling.short(16)),
            "object": "chat.completion",
            "created": telling.created,
            "model": telling.model.as_str(),
            "choices": vec![choice],
            "service_tier": Json::Null,
            "system_fingerprint": FINGERPRINT,
            "usage": usage(telling),
            "prompt_logprobs": Json::Null,
            "prompt_token_ids": Json::Null,
            "prompt_text": Json::Null,
            "kv_transfer_params": Json::Null,
            "ec_transfer_params": Json::Null,
            "metrics": Json::Null,
        })
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        broken(message)
    }
}

// === impl Completion ===

impl Completion {
    fn chunk(telling: &Telling, choices: Vec<Json>) -> Object {
        chunk("cmpl", "text_completion", telling, choices)
    }
}

impl Voice for Completion {
    fn kind(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn piece(&mut self, telling: &Telling, piece: &str, last: bool) -> Vec<String> {
        let choice = object! {
            "index": 0_u64,
            "text": piece,
            "logprobs": Json::Null,
            "finish_reason": reason(telling, last),
            "stop_reason": Json::Null,
            "prompt_token_ids": Json::Null,
            "token_ids": Json::Null,
        };
        let mut chunk = Completion::chunk(telling, vec![choice]);
        finish_chunk(&mut chunk, telling, last);
        vec![data(&chunk.into())]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let mut said = Vec::new();
        if telling.usage {
            said.push(usage_chunk(Completion::chunk(telling, Vec::new()), telling));
        }
        said.push(DONE.into());
        said
    }

    fn whole(&self, telling: &Telling) -> String {
        let choice = object! {
            "index": 0_u64,
            "text": telling.text.as_str(),
            "logprobs": Json::Null,
            "finish_reason": telling.reason(),
            "stop_reason": Json::Null,
            "token_ids": Json::Null,
            "prompt_logprobs": Json::Null,
            "prompt_token_ids": Json::Null,
            "routed_experts": Json::Null,
        };
        compact(&object! {
            "id": format!("cmpl-{}", telling.short(16)),
            "object": "text_completion",
            "created": telling.created,
            "model": telling.model.as_str(),
            "choices": vec![choice],
            "service_tier": Json::Null,
            "system_fingerprint": FINGERPRINT,
            "usage": usage(telling),
            "kv_transfer_params": Json::Null,
            "ec_transfer_params": Json::Null,
            "metrics": Json::Null,
        })
    }

    fn whole_kind(&self) -> &'static str {
        "application/json"
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        broken(message)
    }
}

fn chunk(prefix: &str, object: &str, telling: &Telling, choices: Vec<Json>) -> Object {
    Object::from_iter([
        (
            "id".to_owned(),
            Json::from(format!("{prefix}-{}", telling.short(16))),
        ),
        ("object".to_owned(), object.into()),
        ("created".to_owned(), telling.created.into()),
        ("model".to_owned(), telling.model.as_str().into()),
        ("choices".to_owned(), choices.into()),
    ])
}

/// What stands behind the choices of a piece.
fn finish_chunk(chunk: &mut Object, telling: &Telling, last: bool) {
    if telling.usage_always {
        chunk.insert("usage".into(), usage_so_far(telling, telling.written));
    }
    // Whoever wants to know what was used gets one more chunk, which has it.
    if last && !telling.usage {
        chunk.insert("system_fingerprint".into(), FINGERPRINT.into());
    }
}

fn usage_chunk(mut chunk: Object, telling: &Telling) -> String {
    let mut usage = Object::from_iter([
        ("prompt_tokens".to_owned(), Json::from(telling.prompt)),
        ("total_tokens".to_owned(), telling.total().into()),
        ("completion_tokens".to_owned(), telling.written.into()),
    ]);
    if telling.tells_hits {
        let details = object! {"cached_tokens": telling.hit, "created_cache_tokens": 0_u64};
        usage.insert("prompt_tokens_details".into(), details);
    }
    chunk.insert("usage".into(), usage.into());
    chunk.insert("system_fingerprint".into(), FINGERPRINT.into());
    data(&chunk.into())
}

fn usage_so_far(telling: &Telling, written: usize) -> Json {
    object! {
        "prompt_tokens": telling.prompt,
        "total_tokens": telling.prompt + written,
        "completion_tokens": written,
        "completion_tokens_details": Json::Null,
    }
}

fn usage(telling: &Telling) -> Json {
    let details = telling.tells_hits.then(|| {
        object! {"cached_tokens": telling.hit, "created_cache_tokens": 0_u64, "multimodal_tokens": Json::Null}
    });
    object! {
        "prompt_tokens": telling.prompt,
        "total_tokens": telling.total(),
        "completion_tokens": telling.written,
        "prompt_tokens_details": details,
        "completion_tokens_details": Json::Null,
    }
}

fn reason(telling: &Telling, last: bool) -> Json {
    last.then(|| telling.reason()).into()
}

pub(crate) fn tool_id(telling: &Telling) -> String {
    format!("chatcmpl-tool-{}", telling.short(16))
}

/// Here it writes as Python does, with spaces.
fn broken(message: &str) -> Vec<String> {
    let error = vllm_body(message, "InternalServerError", Json::Null, 500);
    vec![format!("data: {error}\n\n"), DONE.into()]
}
