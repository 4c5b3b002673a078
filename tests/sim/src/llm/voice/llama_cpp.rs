//! llama.cpp's APIs, as its server of October 2026 says them.

use super::{DONE, Finish, Telling, Voice, data, event};
use crate::comfy::json::{Json, Object, object};
use crate::llm::fault::llama_cpp_type;
use crate::llm::reply::compact;
use std::time::Duration;

/// What it says of itself.
pub(crate) const BUILD: &str = "b0-unknown";

pub(crate) struct Chat;

pub(crate) struct Completion;

pub(crate) struct Native;

pub(crate) struct Responses;

pub(crate) struct Messages;

const WHOLE: &str = "application/json; charset=utf-8";

// === impl Chat ===

impl Chat {
    fn chunk(telling: &Telling, delta: Option<Json>, reason: Option<&str>) -> Object {
        let choices: Vec<Json> = delta
            .map(|delta| object! {"finish_reason": reason, "index": 0_u64, "delta": delta})
            .into_iter()
            .collect();
        Object::from_iter([
            ("choices".to_owned(), Json::from(choices)),
            ("created".to_owned(), telling.created.into()),
            ("id".to_owned(), chat_id(telling).into()),
            ("model".to_owned(), telling.model.as_str().into()),
            ("system_fingerprint".to_owned(), BUILD.into()),
            ("object".to_owned(), "chat.completion.chunk".into()),
        ])
    }
}

impl Voice for Chat {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        let say = |delta| data(&Chat::chunk(telling, Some(delta), None).into());
        let mut said = String::new();
        if telling.is_first() {
            said += &say(object! {"role": "assistant", "content": Json::Null});
        }
        match &telling.tool {
            Some(tool) if telling.is_first() => {
                let call = object! {
                    "index": 0_u64,
                    "id": telling.short(32),
                    "type": "function",
                    "function": object! {"name": tool.as_str(), "arguments": piece},
                };
                said += &say(object! {"tool_calls": vec![call]});
            }
            Some(_) => {
                let call = object! {"index": 0_u64, "function": object! {"arguments": piece}};
                said += &say(object! {"tool_calls": vec![call]});
            }
            None => said += &say(object! {"content": piece}),
        }
        vec![said]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let mut last = Chat::chunk(telling, Some(object! {}), Some(telling.reason()));
        let said = if telling.usage {
            let mut used = Chat::chunk(telling, None, None);
            used.insert("usage".into(), usage(telling));
            used.insert("timings".into(), timings(telling));
            data(&last.into()) + &data(&used.into())
        } else {
            last.insert("timings".into(), timings(telling));
            data(&last.into())
        };
        vec![said, DONE.into()]
    }

    fn whole(&self, telling: &Telling) -> String {
        let message = match &telling.tool {
            Some(tool) => {
                let call = object! {
                    "type": "function",
                    "function": object! {"name": tool.as_str(), "arguments": telling.text.as_str()},
                    "id": telling.short(32),
                };
                object! {"role": "assistant", "content": "", "tool_calls": vec![call]}
            }
            None => object! {"role": "assistant", "content": telling.text.as_str()},
        };
        let choice =
            object! {"finish_reason": telling.reason(), "index": 0_u64, "message": message};
        compact(&object! {
            "choices": vec![choice],
            "created": telling.created,
            "model": telling.model.as_str(),
            "system_fingerprint": BUILD,
            "object": "chat.completion",
            "usage": usage(telling),
            "id": chat_id(telling),
            "timings": timings(telling),
        })
    }

    fn whole_kind(&self) -> &'static str {
        WHOLE
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        broken(message)
    }
}

// === impl Completion ===

impl Completion {
    fn chunk(telling: &Telling, text: &str, done: bool) -> Json {
        let reason = done.then(|| telling.reason());
        let choice = object! {
            "text": text, "index": 0_u64, "logprobs": Json::Null, "finish_reason": reason,
        };
        let mut chunk = Object::from_iter([
            ("choices".to_owned(), Json::from(vec![choice])),
            ("created".to_owned(), telling.created.into()),
            ("model".to_owned(), telling.model.as_str().into()),
            ("system_fingerprint".to_owned(), BUILD.into()),
            ("object".to_owned(), "text_completion".into()),
        ]);
        if done {
            chunk.insert("usage".into(), usage(telling));
        }
        chunk.insert("id".into(), chat_id(telling).into());
        if done {
            chunk.insert("timings".into(), timings(telling));
        }
        chunk.into()
    }
}

impl Voice for Completion {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        vec![data(&Completion::chunk(telling, piece, false))]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        vec![data(&Completion::chunk(telling, "", true)), DONE.into()]
    }

    fn whole(&self, telling: &Telling) -> String {
        compact(&Completion::chunk(telling, &telling.text, true))
    }

    fn whole_kind(&self) -> &'static str {
        WHOLE
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        broken(message)
    }
}

// === impl Native ===

impl Native {
    fn done(telling: &Telling, text: &str, stream: bool) -> Json {
        let stop = if telling.finish == Finish::Length {
            "limit"
        } else {
            "eos"
        };
        let (content, slot) = (("content".to_owned(), Json::from(text)), telling.slot);
        let tokens = ("tokens".to_owned(), Json::List(Vec::new()));
        let mut done =
            Object::from_iter([("index".to_owned(), Json::from(0_u64)), content, tokens]);
        done.insert("id_slot".into(), slot.into());
        done.insert("stop".into(), true.into());
        done.insert("model".into(), telling.model.as_str().into());
        done.insert("tokens_predicted".into(), telling.written.into());
        done.insert("tokens_evaluated".into(), telling.prompt.into());
        done.insert(
            "generation_settings".into(),
            Json::from(settings(telling.most, stream, true)),
        );
        done.insert("prompt".into(), "".into());
        done.insert("has_new_line".into(), telling.text.contains('\n').into());
        done.insert("truncated".into(), false.into());
        done.insert("stop_type".into(), stop.into());
        done.insert("stopping_word".into(), "".into());
        done.insert(
            "tokens_cached".into(),
            telling.total().saturating_sub(1).into(),
        );
        done.insert("timings".into(), timings(telling));
        done.into()
    }
}

impl Voice for Native {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        vec![data(&object! {
            "index": 0_u64,
            "content": piece,
            "tokens": vec![token_id(piece)],
            "stop": false,
            "id_slot": -1_i64,
            "tokens_predicted": telling.written,
            "tokens_evaluated": telling.prompt,
        })]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        vec![data(&Native::done(telling, "", true))]
    }

    fn whole(&self, telling: &Telling) -> String {
        compact(&Native::done(telling, &telling.text, false))
    }

    fn whole_kind(&self) -> &'static str {
        WHOLE
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        broken(message)
    }
}

// === impl Responses ===

impl Responses {
    fn event(name: &str, fields: Json) -> String {
        let Json::Object(fields) = fields else {
            return String::new();
        };
        let named = Object::from_iter([("type".to_owned(), Json::from(name))]);
        event(
            name,
            &named.into_iter().chain(fields).collect::<Object>().into(),
        )
    }

    fn id(telling: &Telling) -> String {
        format!("resp_{}", long(telling))
    }

    fn item_id(telling: &Telling) -> String {
        let prefix = if telling.tool.is_some() { "fc" } else { "msg" };
        format!("{prefix}_{}", long(telling))
    }

    fn part(telling: &Telling) -> Json {
        let none = || Json::List(Vec::new());
        object! {
            "type": "output_text", "annotations": none(), "logprobs": none(), "text": telling.text.as_str(),
        }
    }

    fn item(telling: &Telling) -> Json {
        match &telling.tool {
            Some(tool) => object! {
                "type": "function_call",
                "status": "completed",
                "arguments": telling.text.as_str(),
                "call_id": format!("fc_{}", telling.short(32)),
                "name": tool.as_str(),
            },
            None => object! {
                "type": "message",
                "status": "completed",
                "id": Responses::item_id(telling),
                "content": vec![Responses::part(telling)],
                "role": "assistant",
            },
        }
    }

    fn usage(telling: &Telling) -> Json {
        object! {
            "input_tokens": telling.prompt,
            "output_tokens": telling.written,
            "total_tokens": telling.total(),
            "input_tokens_details": object! {"cached_tokens": telling.hit},
        }
    }
}

impl Voice for Responses {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        let mut said = String::new();
        let item = Responses::item_id(telling);
        if telling.is_first() {
            let response = || {
                let begun = object! {
                    "id": Responses::id(telling), "object": "response", "status": "in_progress",
                };
                object! {"response": begun}
            };
            said += &Responses::event("response.created", response());
            said += &Responses::event("response.in_progress", response());
            let begun = match &telling.tool {
                Some(tool) => object! {
                    "arguments": "",
                    "call_id": format!("fc_{}", telling.short(32)),
                    "name": tool.as_str(),
                    "type": "function_call",
                    "status": "in_progress",
                },
                None => object! {
                    "content": Json::List(Vec::new()),
                    "id": item.as_str(),
                    "role": "assistant",
                    "status": "in_progress",
                    "type": "message",
                },
            };
            said += &Responses::event("response.output_item.added", object! {"item": begun});
            if telling.tool.is_none() {
                let part = object! {"type": "output_text", "text": ""};
                let begun = object! {"item_id": item.as_str(), "part": part};
                said += &Responses::event("response.content_part.added", begun);
            }
        }
        let delta = object! {"item_id": item, "delta": piece};
        said += &if telling.tool.is_some() {
            Responses::event("response.function_call_arguments.delta", delta)
        } else {
            Responses::event("response.output_text.delta", delta)
        };
        vec![said]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let item = Responses::item_id(telling);
        let mut said = String::new();
        if telling.tool.is_none() {
            let done = object! {"item_id": item.as_str(), "text": telling.text.as_str()};
            said += &Responses::event("response.output_text.done", done);
            let done = object! {"item_id": item, "part": Responses::part(telling)};
            said += &Responses::event("response.content_part.done", done);
        }
        said += &Responses::event(
            "response.output_item.done",
            object! {"item": Responses::item(telling)},
        );
        let response = object! {
            "id": Responses::id(telling),
            "object": "response",
            "created_at": telling.created,
            "status": "completed",
            "model": telling.model.as_str(),
            "output": vec![Responses::item(telling)],
            "usage": Responses::usage(telling),
        };
        said += &Responses::event(
            "response.completed",
            object! {"response": response, "timings": timings(telling)},
        );
        vec![said]
    }

    fn whole(&self, telling: &Telling) -> String {
        let item = match &telling.tool {
            Some(_) => Responses::item(telling),
            None => object! {
                "content": vec![object! {
                    "type": "output_text",
                    "annotations": Json::List(Vec::new()),
                    "logprobs": Json::List(Vec::new()),
                    "text": telling.text.as_str(),
                }],
                "id": Responses::item_id(telling),
                "role": "assistant",
                "status": "completed",
                "type": "message",
            },
        };
        compact(&object! {
            "completed_at": telling.created,
            "created_at": telling.created,
            "id": Responses::id(telling),
            "model": telling.model.as_str(),
            "object": "response",
            "output": vec![item],
            "status": "completed",
            "usage": Responses::usage(telling),
        })
    }

    fn whole_kind(&self) -> &'static str {
        WHOLE
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        broken(message)
    }
}

// === impl Messages ===

impl Messages {
    fn usage(telling: &Telling, written: usize) -> Json {
        object! {
            "cache_read_input_tokens": telling.hit,
            "input_tokens": telling.prompt - telling.hit,
            "output_tokens": written,
        }
    }
}

impl Voice for Messages {
    fn piece(&mut self, telling: &Telling, piece: &str, _last: bool) -> Vec<String> {
        let mut said = String::new();
        if telling.is_first() {
            let message = object! {
                "id": chat_id(telling),
                "type": "message",
                "role": "assistant",
                "content": Json::List(Vec::new()),
                "model": telling.model.as_str(),
                "stop_reason": Json::Null,
                "stop_sequence": Json::Null,
                "usage": Messages::usage(telling, 0),
            };
            said += &event(
                "message_start",
                &object! {"type": "message_start", "message": message},
            );
            let block = match &telling.tool {
                Some(tool) => object! {
                    "type": "tool_use", "id": telling.short(32), "name": tool.as_str(),
                },
                None => object! {"type": "text", "text": ""},
            };
            let begun =
                object! {"type": "content_block_start", "index": 0_u64, "content_block": block};
            said += &event("content_block_start", &begun);
        }
        let delta = if telling.tool.is_some() {
            object! {"type": "input_json_delta", "partial_json": piece}
        } else {
            object! {"type": "text_delta", "text": piece}
        };
        let delta = object! {"type": "content_block_delta", "index": 0_u64, "delta": delta};
        said += &event("content_block_delta", &delta);
        vec![said]
    }

    fn end(&mut self, telling: &Telling) -> Vec<String> {
        let delta = object! {"stop_reason": telling.stop_reason(), "stop_sequence": Json::Null};
        let usage = object! {"output_tokens": telling.written};
        let delta = object! {"type": "message_delta", "delta": delta, "usage": usage};
        vec![
            event(
                "content_block_stop",
                &object! {"type": "content_block_stop", "index": 0_u64},
            ) + &event("message_delta", &delta)
                + &event("message_stop", &object! {"type": "message_stop"}),
        ]
    }

    fn whole(&self, telling: &Telling) -> String {
        let block = match &telling.tool {
            Some(tool) => object! {
                "type": "tool_use",
                "id": telling.short(32),
                "name": tool.as_str(),
                "input": Json::read(telling.text.as_bytes()).unwrap_or_default(),
            },
            None => object! {"type": "text", "text": telling.text.as_str()},
        };
        compact(&object! {
            "id": chat_id(telling),
            "type": "message",
            "role": "assistant",
            "content": vec![block],
            "model": telling.model.as_str(),
            "stop_reason": telling.stop_reason(),
            "stop_sequence": Json::Null,
            "usage": Messages::usage(telling, telling.written),
        })
    }

    fn whole_kind(&self) -> &'static str {
        WHOLE
    }

    fn broken(&mut self, message: &str) -> Vec<String> {
        vec![event("error", &error(message))]
    }
}

fn chat_id(telling: &Telling) -> String {
    format!("chatcmpl-{}", long(telling))
}

/// Its ids have 32 letters and digits.
fn long(telling: &Telling) -> String {
    telling.id.chars().chain("Qx7Lw2Tb".chars()).collect()
}

/// A token's number, as its vocabulary may have it.
pub(crate) fn token_id(piece: &str) -> u64 {
    u64::from(crate::llm::token::number(piece) % 32_000)
}

fn usage(telling: &Telling) -> Json {
    object! {
        "completion_tokens": telling.written,
        "prompt_tokens": telling.prompt,
        "total_tokens": telling.total(),
        "prompt_tokens_details": object! {"cached_tokens": telling.hit},
    }
}

/// How fast it was: what it is good for to whoever wants to know.
fn timings(telling: &Telling) -> Json {
    let times = telling.times;
    let read = telling.prompt - telling.hit;
    let (prompt, predicted) = (times.read - times.began, times.wrote - times.read);
    // The first token comes with the prompt.
    let after_first = telling.written.saturating_sub(1) as f64;
    object! {
        "cache_n": telling.hit,
        "prompt_n": read,
        "prompt_ms": ms(prompt),
        "prompt_per_token_ms": per(ms(prompt), read as f64),
        "prompt_per_second": per(read as f64 * 1000.0, ms(prompt)),
        "predicted_n": telling.written,
        "predicted_ms": ms(predicted),
        "predicted_per_token_ms": per(ms(predicted), after_first),
        "predicted_per_second": per(after_first * 1000.0, ms(predicted)),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn per(all: f64, each: f64) -> f64 {
    if each > 0.0 { all / each } else { 0.0 }
}

/// How it writes, if nobody tells it otherwise. What a request says of it is not looked at here, but for its length.
const SETTINGS: &str = r#"{"seed":4294967295,"temperature":0.800000011920929,"dynatemp_range":0.0,"dynatemp_exponent":1.0,"top_k":40,"top_p":0.949999988079071,"min_p":0.05000000074505806,"top_n_sigma":-1.0,"xtc_probability":0.0,"xtc_threshold":0.10000000149011612,"typical_p":1.0,"repeat_last_n":64,"repeat_penalty":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"dry_multiplier":0.0,"dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":64,"dry_sequence_breakers":["\n",":","\"","*"],"mirostat":0,"mirostat_tau":5.0,"mirostat_eta":0.10000000149011612,"adaptive_target":-1.0,"adaptive_decay":0.8999999761581421,"stop":[],"max_tokens":-1,"n_predict":-1,"n_keep":0,"n_discard":0,"ignore_eos":false,"stream":false,"logit_bias":[],"n_probs":0,"min_keep":0,"grammar":"","grammar_lazy":false,"grammar_triggers":[],"preserved_tokens":[],"chat_format":"Content-only","reasoning_format":"deepseek","reasoning_in_content":false,"generation_prompt":"","samplers":["penalties","dry","top_n_sigma","top_k","typ_p","top_p","min_p","xtc","temperature"],"speculative.types":"none","timings_per_token":false,"post_sampling_probs":false,"backend_sampling":false,"lora":[]}"#;

/// What only a finished answer tells of them.
const ONLY_DONE: [&str; 7] = [
    "dry_sequence_breakers",
    "stop",
    "logit_bias",
    "grammar",
    "grammar_lazy",
    "grammar_triggers",
    "preserved_tokens",
];

/// How an answer is written.
pub(crate) fn settings(most: Option<usize>, stream: bool, done: bool) -> Object {
    let Ok(Json::Object(mut settings)) = Json::read(SETTINGS.as_bytes()) else {
        return Object::new();
    };
    if let Some(most) = most {
        settings.insert("max_tokens".into(), most.into());
        settings.insert("n_predict".into(), most.into());
    }
    settings.insert("stream".into(), stream.into());
    if !done {
        settings.retain(|key, _| !ONLY_DONE.contains(&key.as_str()));
    }
    settings
}

fn error(message: &str) -> Json {
    object! {"error": object! {"code": 500_u64, "message": message, "type": llama_cpp_type(500)}}
}

fn broken(message: &str) -> Vec<String> {
    vec![data(&error(message))]
}
