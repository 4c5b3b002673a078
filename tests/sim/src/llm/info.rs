//! What engines tell of themselves and of their models.

use super::ask::{Api, Work};
use super::fault::Fault;
use super::gotime::rfc3339;
use super::routes::Call;
use super::server::{Server, now};
use super::shelf::State;
use super::spec::{Engine, Model, tagged};
use super::token::pieces;
use super::voice::llama_cpp::{BUILD, settings, token_id};
use crate::comfy::json::{Json, Object, object};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// When models were got: some day.
const GOT: Duration = Duration::from_secs(1_790_000_000);

/// How many numbers a model has for each MiB of it, at four bits.
const PARAMETERS_PER_MIB: u64 = 2 * 1024 * 1024;

fn none() -> Json {
    Json::List(Vec::new())
}

// === vLLM ===

pub(crate) fn vllm_models(server: &Server) -> Json {
    let created = server.created();
    let one = |model: &Model| {
        let permission = object! {
            "id": format!("modelperm-{}", server.id().get(..16).unwrap_or_default()),
            "object": "model_permission",
            "created": created,
            "allow_create_engine": false,
            "allow_sampling": true,
            "allow_logprobs": true,
            "allow_search_indices": false,
            "allow_view": true,
            "allow_fine_tuning": false,
            "organization": "*",
            "group": Json::Null,
            "is_blocking": false,
        };
        object! {
            "id": model.name.as_str(),
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": format!("/models/{}", model.name),
            "parent": Json::Null,
            "max_model_len": model.context,
            "permission": vec![permission],
        }
    };
    let models: Vec<Json> = server.spec.models.iter().take(1).map(one).collect();
    object! {"object": "list", "data": models}
}

/// vLLM's and llama.cpp's `/tokenize`, and the way back, which here leads to other words.
pub(crate) fn tokenize(server: &Server, call: &Call) -> Result<Json, Fault> {
    let body = Json::read(&call.body).map_err(|_| Fault::NoJson(call.body.len()))?;
    let is_vllm = server.spec.engine == Engine::Vllm;
    if call.path == "/detokenize" {
        let tokens = body.get("tokens").and_then(Json::list).unwrap_or(&[]);
        let words: Vec<String> = tokens.iter().map(|token| format!("t{token}")).collect();
        let text = words.join(" ");
        return Ok(if is_vllm {
            object! {"prompt": text}
        } else {
            object! {"content": text}
        });
    }
    if is_vllm {
        let is_talk = body.get("messages").is_some();
        let api = if is_talk { Api::Chat } else { Api::Completion };
        let prompt = Work::read(&server.spec, api, &body)?.prompt;
        return Ok(object! {
            "count": prompt.len(),
            "max_model_len": server.spec.models[0].context,
            "tokens": prompt.iter().map(|token| u64::from(token % 32_000)).collect::<Json>(),
            "token_strs": Json::Null,
        });
    }
    let text = body.get("content").and_then(Json::text).unwrap_or("");
    let with_pieces = body.get("with_pieces").is_some_and(Json::is_true);
    let tokens = pieces(text).map(|piece| {
        if with_pieces {
            object! {"id": token_id(piece), "piece": piece}
        } else {
            token_id(piece).into()
        }
    });
    Ok(object! {"tokens": tokens.collect::<Vec<Json>>()})
}

// === llama.cpp ===

pub(crate) fn llama_models(server: &Server) -> Json {
    let models = || server.spec.models.iter().take(1);
    let does = |model: &Model| {
        if model.embeds {
            "embedding"
        } else {
            "completion"
        }
    };
    let named = |model: &Model| {
        let name = model.name.as_str();
        object! {
            "name": name,
            "model": name,
            "modified_at": "",
            "size": "",
            "digest": "",
            "type": "model",
            "description": "",
            "tags": vec![""],
            "capabilities": vec![does(model)],
            "parameters": "",
            "details": object! {
                "parent_model": "",
                "format": "gguf",
                "family": "",
                "families": vec![""],
                "parameter_size": "",
                "quantization_level": "",
            },
        }
    };
    let entry = |model: &Model| llama_model(server, model, &[], true);
    object! {
        "models": models().map(named).collect::<Json>(),
        "object": "list",
        "data": models().map(entry).collect::<Json>(),
    }
}

/// One in the list, with what a router knows besides.
fn llama_model(server: &Server, model: &Model, more: &[(&str, Json)], loaded: bool) -> Json {
    let text = || vec!["text"];
    let mut entry = Object::from_iter([
        ("id".to_owned(), Json::from(model.name.as_str())),
        ("aliases".to_owned(), vec![model.name.as_str()].into()),
        ("tags".to_owned(), none()),
        ("object".to_owned(), "model".into()),
    ]);
    let architecture = object! {"input_modalities": text(), "output_modalities": text()};
    if more.is_empty() {
        entry.insert("architecture".into(), architecture);
        entry.insert("created".into(), server.created().into());
        entry.insert("owned_by".into(), "llamacpp".into());
    } else {
        entry.insert("owned_by".into(), "llamacpp".into());
        entry.insert("created".into(), server.created().into());
        for (key, value) in more {
            entry.insert((*key).into(), value.clone());
        }
        entry.insert("architecture".into(), architecture);
    }
    if loaded {
        let meta = object! {
            "vocab_type": 2_u64,
            "n_vocab": 32_000_u64,
            "n_ctx": model.context,
            "n_ctx_train": model.context,
            "n_embd": 4096_u64,
            "n_params": model.mib * PARAMETERS_PER_MIB,
            "size": model.mib * 1024 * 1024,
            "ftype": "Q4_K - Medium",
        };
        entry.insert("meta".into(), meta);
    }
    entry.into()
}

pub(crate) fn router_models(server: &Server) -> Json {
    let entry = |(at, model): (usize, &Model)| {
        let state = server.shelf.state(at);
        let value = match state {
            State::Away => "unloaded",
            State::Loading => "loading",
            State::There => "loaded",
        };
        let status =
            object! {"value": value, "args": vec!["llama-server", "--alias", model.name.as_str()]};
        let more = [
            ("status", status),
            ("source", Json::from("models_dir")),
            ("can_remove", false.into()),
        ];
        llama_model(server, model, &more, state == State::There)
    };
    let models: Json = server.spec.models.iter().enumerate().map(entry).collect();
    object! {"data": models, "object": "list"}
}

pub(crate) fn router_props(server: &Server) -> Json {
    object! {
        "role": "router",
        "max_instances": server.spec.max_loaded,
        "models_autoload": true,
        "model_alias": "llama-server",
        "model_path": "none",
        "default_generation_settings": object! {"params": object! {}, "n_ctx": 0_u64},
        "ui_settings": object! {},
        "build_info": BUILD,
        "cors_proxy_enabled": false,
    }
}

pub(crate) fn props(server: &Server, model: usize) -> Json {
    let model = &server.spec.models[model];
    let mut params = settings(None, false, false);
    params.insert("reasoning_format".into(), "none".into());
    object! {
        "default_generation_settings": object! {"params": params, "n_ctx": model.context},
        "total_slots": server.spec.slots,
        "model_alias": model.name.as_str(),
        "model_ftype": "Q4_K - Medium",
        "model_path": format!("/models/{}.gguf", model.name),
        "modalities": object! {"vision": false, "video": false, "audio": false},
        "media_marker": "<__media__>",
        "endpoint_slots": server.knobs().metrics,
        "endpoint_props": false,
        "endpoint_metrics": server.knobs().metrics,
        "ui": true,
        "ui_settings": object! {},
        "chat_template": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "chat_template_caps": object! {
            "supports_object_arguments": false,
            "supports_parallel_tool_calls": false,
            "supports_preserve_reasoning": false,
            "supports_reasoning_effort": false,
            "supports_string_content": true,
            "supports_system_role": true,
            "supports_tool_calls": false,
            "supports_tools": false,
            "supports_typed_content": false,
        },
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "build_info": BUILD,
        "is_sleeping": false,
        "cors_proxy_enabled": false,
    }
}

pub(crate) fn slots(server: &Server, model: usize) -> Json {
    let context = server.spec.models[model].context;
    server.runners[model].look(|batch| {
        let slot = |id: usize| {
            let mut slot = Object::from_iter([
                ("id".to_owned(), Json::from(id)),
                ("n_ctx".to_owned(), context.into()),
                ("speculative".to_owned(), false.into()),
            ]);
            let at_work = batch.running().iter().find(|one| one.in_slot(id));
            slot.insert("is_processing".into(), at_work.is_some().into());
            if let Some(one) = at_work {
                let (hit, read) = one.prompt();
                let left = one.job.answer.len() - one.written;
                slot.insert("id_task".into(), one.job.id.into());
                slot.insert("n_prompt_tokens".into(), (hit + read + one.written).into());
                slot.insert("n_prompt_tokens_processed".into(), read.into());
                slot.insert("n_prompt_tokens_cache".into(), hit.into());
                slot.insert(
                    "params".into(),
                    Json::from(settings(Some(one.job.answer.len()), true, false)),
                );
                let next = object! {
                    "has_next_token": true,
                    "has_new_line": false,
                    "n_remain": left,
                    "n_decoded": one.written,
                };
                slot.insert("next_token".into(), vec![next].into());
            }
            Json::from(slot)
        };
        (0..server.spec.slots).map(slot).collect()
    })
}

// === Ollama ===

fn digest(model: &Model) -> String {
    let digits = Sha256::digest(model.name.as_bytes());
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn details(model: &Model) -> Object {
    let billions = (model.mib * PARAMETERS_PER_MIB) as f64 / 1e9;
    Object::from_iter([
        ("parent_model".to_owned(), Json::from("")),
        ("format".to_owned(), "gguf".into()),
        ("family".to_owned(), "llama".into()),
        ("families".to_owned(), vec!["llama"].into()),
        (
            "parameter_size".to_owned(),
            format!("{billions:.1}B").into(),
        ),
        ("quantization_level".to_owned(), "Q4_K_M".into()),
    ])
}

fn capabilities(model: &Model) -> Json {
    if model.embeds {
        vec!["embedding"].into()
    } else {
        vec!["completion", "tools"].into()
    }
}

pub(crate) fn tags(server: &Server) -> Json {
    let entry = |model: &Model| {
        let mut details = details(model);
        details.insert("context_length".into(), model.context.into());
        details.insert("embedding_length".into(), 4096_u64.into());
        object! {
            "name": tagged(&model.name),
            "model": tagged(&model.name),
            "modified_at": rfc3339(GOT),
            "size": model.mib * 1024 * 1024,
            "digest": digest(model),
            "details": details,
            "capabilities": capabilities(model),
        }
    };
    object! {"models": server.spec.models.iter().map(entry).collect::<Json>()}
}

pub(crate) fn ps(server: &Server) -> Json {
    let loaded = server.spec.models.iter().enumerate();
    let loaded = loaded.filter(|(at, _)| server.shelf.state(*at) == State::There);
    let mut loaded: Vec<(Duration, Json)> = loaded
        .map(|(at, model)| {
            // What stays for ever is told as three hundred years.
            let stays = server
                .shelf
                .stays(at)
                .unwrap_or(Duration::from_secs(300 * 365 * 86_400));
            let size = model.mib * 1024 * 1024;
            let entry = object! {
                "name": tagged(&model.name),
                "model": tagged(&model.name),
                "size": size,
                "digest": digest(model),
                "details": details(model),
                "expires_at": rfc3339(now() + stays),
                "size_vram": size.min(server.spec.vram_mib * 1024 * 1024),
                "context_length": model.context,
            };
            (stays, entry)
        })
        .collect();
    loaded.sort_by_key(|(stays, _)| std::cmp::Reverse(*stays));
    object! {"models": loaded.into_iter().map(|(_, entry)| entry).collect::<Json>()}
}

pub(crate) fn show(server: &Server, model: usize) -> Json {
    let model = &server.spec.models[model];
    let info = object! {
        "general.architecture": "llama",
        "general.parameter_count": model.mib * PARAMETERS_PER_MIB,
        "llama.context_length": model.context,
        "llama.embedding_length": 4096_u64,
    };
    object! {
        "modelfile": format!("FROM {}\n", tagged(&model.name)),
        "template": "{{ .Prompt }}",
        "details": details(model),
        "model_info": info,
        "capabilities": capabilities(model),
        "modified_at": rfc3339(GOT),
    }
}

pub(crate) fn ollama_models(server: &Server) -> Json {
    let entries = server
        .spec
        .models
        .iter()
        .map(|model| ollama_model(&tagged(&model.name)));
    let entries: Vec<Json> = entries.collect();
    // Go writes an empty list that was never made as nothing.
    let data = if entries.is_empty() {
        Json::Null
    } else {
        entries.into()
    };
    object! {"object": "list", "data": data}
}

pub(crate) fn ollama_model(name: &str) -> Json {
    let owner = name.rsplit_once('/').map_or("library", |(owner, _)| owner);
    object! {"id": name, "object": "model", "created": GOT.as_secs(), "owned_by": owner}
}

/// The blocks of vLLM's cache.
pub(crate) fn blocks(server: &Server) -> usize {
    server.spec.kv_tokens.div_ceil(server.spec.block_tokens)
}
