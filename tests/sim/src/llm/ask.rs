//! What a request asks for, in whichever API.

use super::fault::Fault;
use super::spec::{Engine, Spec};
use super::token::{Token, number, tokens};
use crate::comfy::json::Json;

/// An API that answers with text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
    /// llama.cpp's `/completion`
    Native,
    /// llama.cpp's `/infill`
    Infill,
    /// Ollama's `/api/chat`
    OllamaChat,
    /// Ollama's `/api/generate`
    OllamaGenerate,
}

/// A request for text.
pub(crate) struct Work {
    pub(crate) api: Api,
    /// The model, as the request names it.
    pub(crate) named: Option<String>,
    pub(crate) prompt: Vec<Token>,
    /// How many tokens the answer may have.
    pub(crate) most: Option<usize>,
    /// The answer goes on to there, whatever comes.
    pub(crate) to_the_end: bool,
    pub(crate) stream: bool,
    /// What it used is told at the end of a stream.
    pub(crate) usage: bool,
    /// What it used is told with every piece of a stream.
    pub(crate) usage_always: bool,
    /// The name of the first tool.
    pub(crate) tool: Option<String>,
    /// That tool is to be called, whatever comes.
    pub(crate) tool_forced: bool,
    /// How long Ollama is to keep the model afterwards, seconds.
    pub(crate) keep_s: Option<i64>,
    /// Nothing is to be written: Ollama loads the model, or lets go of it.
    pub(crate) only_loads: bool,
}

// === impl Work ===

impl Work {
    /// Reads a body.
    pub(crate) fn read(spec: &Spec, api: Api, body: &Json) -> Result<Work, Fault> {
        let prompt = prompt(spec, api, body)?;
        let most = most(spec, api, body)?;
        let options = body.get("stream_options");
        let usage = |key| {
            options
                .and_then(|options| options.get(key))
                .is_some_and(Json::is_true)
        };
        let streams_by_default = matches!(api, Api::OllamaChat | Api::OllamaGenerate);
        Ok(Work {
            api,
            named: named(body),
            only_loads: prompt.is_empty(),
            prompt,
            most,
            to_the_end: body.get("ignore_eos").is_some_and(Json::is_true),
            stream: body.get("stream").map_or(streams_by_default, Json::is_true),
            usage: usage("include_usage"),
            usage_always: usage("include_usage") && usage("continuous_usage_stats"),
            tool: tool(body),
            tool_forced: body
                .get("tool_choice")
                .is_some_and(|choice| choice.object().is_some()),
            keep_s: keep_s(body),
        })
    }
}

pub(crate) fn named(body: &Json) -> Option<String> {
    let named = body.get("model").and_then(Json::text);
    named.filter(|named| !named.is_empty()).map(str::to_owned)
}

/// The tokens of a prompt, in the template that all models have here.
fn prompt(spec: &Spec, api: Api, body: &Json) -> Result<Vec<Token>, Fault> {
    let talk = |key: &'static str| match body.get(key) {
        Some(Json::List(said)) if said.is_empty() && spec.engine == Engine::Ollama => {
            if api == Api::OllamaChat {
                Ok(String::new())
            } else {
                Err(Fault::Missing(key))
            }
        }
        Some(Json::List(said)) => Ok(said.iter().map(turn).collect()),
        Some(Json::Text(text)) if key == "input" => Ok(mark("user", text)),
        Some(Json::Null) | None if api == Api::OllamaChat => Ok(String::new()),
        Some(Json::Null) | None => Err(Fault::Missing(key)),
        Some(_) => Err(Fault::NoList(key)),
    };
    let text = match api {
        Api::Chat | Api::Messages | Api::OllamaChat => talk("messages")?,
        Api::Responses => talk("input")?,
        Api::Completion | Api::Native => return raw(body, "prompt"),
        Api::Infill => {
            let part = |key| body.get(key).map(content).unwrap_or_default();
            return Ok(tokens(
                &(part("input_prefix") + &part("input_suffix") + &part("prompt")),
            ));
        }
        Api::OllamaGenerate => {
            let prompt = body.get("prompt").map(content).unwrap_or_default();
            if prompt.is_empty() || body.get("raw").is_some_and(Json::is_true) {
                return Ok(tokens(&prompt));
            }
            mark("user", &prompt)
        }
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let before = ["system", "instructions"]
        .into_iter()
        .filter_map(|key| body.get(key));
    let before: String = before.map(|said| mark("system", &content(said))).collect();
    let tools = body.get("tools").filter(|tools| tools.is_true());
    let tools = tools
        .map(|tools| mark("system", &tools.to_string()))
        .unwrap_or_default();
    Ok(tokens(&format!(
        "{tools}{before}{text}<|im_start|>assistant\n"
    )))
}

/// A prompt that stands for itself: text, several texts, or tokens.
fn raw(body: &Json, key: &'static str) -> Result<Vec<Token>, Fault> {
    match body.get(key) {
        None | Some(Json::Null) => Err(Fault::Missing(key)),
        Some(Json::List(parts)) => Ok(parts
            .iter()
            .flat_map(|part| match part {
                Json::Number(token) => vec![number(&token.to_string())],
                other => tokens(&content(other)),
            })
            .collect()),
        Some(text) => Ok(tokens(&content(text))),
    }
}

/// One turn of a talk.
fn turn(said: &Json) -> String {
    let role = said.get("role").and_then(Json::text).unwrap_or("user");
    let mut text = said.get("content").map(content).unwrap_or_default();
    for key in ["tool_calls", "output", "arguments"] {
        if let Some(more) = said.get(key).filter(|more| more.is_true()) {
            text.push_str(&more.to_string());
        }
    }
    mark(role, &text)
}

fn mark(role: &str, text: &str) -> String {
    format!("<|im_start|>{role}\n{text}<|im_end|>\n")
}

/// What stands in a content: a text, or parts.
fn content(content: &Json) -> String {
    match content {
        Json::Text(text) => text.clone(),
        Json::List(parts) => parts
            .iter()
            .map(|part| {
                match part
                    .get("text")
                    .and_then(Json::text)
                    .or_else(|| part.text())
                {
                    Some(text) => text.to_owned(),
                    // A picture: as many tokens as its description has.
                    None => part.to_string(),
                }
            })
            .collect(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

fn most(spec: &Spec, api: Api, body: &Json) -> Result<Option<usize>, Fault> {
    let keys: &[&'static str] = match api {
        Api::Chat => &["max_completion_tokens", "max_tokens"],
        Api::Completion | Api::Messages => &["max_tokens"],
        Api::Responses => &["max_output_tokens"],
        Api::Native | Api::Infill => &["n_predict", "max_tokens"],
        Api::OllamaChat | Api::OllamaGenerate => &["num_predict"],
    };
    let body = match api {
        Api::OllamaChat | Api::OllamaGenerate => body.get("options").unwrap_or(&Json::Null),
        _ => body,
    };
    let found = keys.iter().find_map(|key| Some((*key, body.get(key)?)));
    let Some((key, value)) = found.filter(|(_, value)| **value != Json::Null) else {
        return if api == Api::Messages && spec.engine == Engine::Ollama {
            Err(Fault::Missing("max_tokens"))
        } else {
            Ok(None)
        };
    };
    let Some(number) = value.number() else {
        return Err(Fault::NoNumber(key, value.python()));
    };
    match (spec.engine, number as i64) {
        (Engine::Vllm, ..1) => Err(Fault::TooFew(key, number as i64)),
        // llama.cpp writes one in any case.
        (_, 0) => Ok(Some(1)),
        (_, ..0) => Ok(None),
        (_, number) => Ok(Some(number as usize)),
    }
}

fn tool(body: &Json) -> Option<String> {
    let chooses_none = body.get("tool_choice").and_then(Json::text) == Some("none");
    let first = body
        .get("tools")
        .and_then(Json::list)?
        .first()
        .filter(|_| !chooses_none)?;
    let named = first
        .get("function")
        .and_then(|function| function.get("name"));
    named
        .or_else(|| first.get("name"))?
        .text()
        .map(str::to_owned)
}

/// `keep_alive`: seconds, or a text as `5m`.
fn keep_s(body: &Json) -> Option<i64> {
    match body.get("keep_alive")? {
        Json::Number(number) => number.as_f64().map(|seconds| seconds as i64),
        Json::Text(text) => {
            let (digits, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
            let unit = match unit {
                "" | "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "ms" => 0.001,
                _ => return None,
            };
            digits
                .parse::<f64>()
                .ok()
                .map(|number| (number * unit) as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: Api, body: &str) -> Result<Work, Fault> {
        let spec = Spec::new(Engine::Vllm, "a");
        Work::read(&spec, api, &Json::read(body.as_bytes()).unwrap_or_default())
    }

    fn length(api: Api, body: &str) -> usize {
        read(api, body).map_or(0, |work| work.prompt.len())
    }

    #[test]
    fn the_same_talk_is_the_same_prompt_in_every_api() {
        let chat = length(
            Api::Chat,
            r#"{"messages":[{"role":"user","content":"tell me"}]}"#,
        );
        assert_eq!(chat, 12);
        for (api, body) in [
            (
                Api::Chat,
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"tell me"}]}]}"#,
            ),
            (
                Api::Messages,
                r#"{"messages":[{"role":"user","content":"tell me"}]}"#,
            ),
            (Api::Responses, r#"{"input":"tell me"}"#),
            (
                Api::Responses,
                r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"tell me"}]}]}"#,
            ),
            (
                Api::OllamaChat,
                r#"{"messages":[{"role":"user","content":"tell me"}]}"#,
            ),
            (Api::OllamaGenerate, r#"{"prompt":"tell me"}"#),
        ] {
            assert_eq!(length(api, body), chat, "{body}");
        }
        assert_eq!(length(Api::Completion, r#"{"prompt":"tell me"}"#), 2);
        assert_eq!(length(Api::Completion, r#"{"prompt":[5,6,7]}"#), 3);
    }

    #[test]
    fn the_next_turn_begins_as_this_one_ended() {
        let first = read(
            Api::Chat,
            r#"{"messages":[{"role":"user","content":"tell me"}]}"#,
        );
        let next = read(
            Api::Chat,
            r#"{"messages":[{"role":"user","content":"tell me"},{"role":"assistant","content":"rain on"},{"role":"user","content":"more"}]}"#,
        );
        let (Ok(first), Ok(next)) = (first, next) else {
            unreachable!()
        };
        let mut whole = first.prompt;
        whole.extend(tokens("rain on"));
        assert_eq!(next.prompt[..whole.len()], whole);
    }

    #[test]
    fn how_long_a_model_is_kept_is_read_as_ollama_reads_it() {
        for (body, kept) in [
            (r#"{"keep_alive":0}"#, Some(0)),
            (r#"{"keep_alive":-1}"#, Some(-1)),
            (r#"{"keep_alive":"10m"}"#, Some(600)),
            (r#"{"keep_alive":"-1m"}"#, Some(-60)),
            (r#"{}"#, None),
        ] {
            assert_eq!(
                keep_s(&Json::read(body.as_bytes()).unwrap_or_default()),
                kept,
                "{body}"
            );
        }
    }
}
