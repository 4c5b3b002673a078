//! How an answer is said, in each API of each engine.

pub(crate) mod llama_cpp;
mod ollama;
mod ollama_apis;
mod vllm;
mod vllm_apis;

use super::ask::Api;
use super::batch::Times;
use super::reply::compact;
use super::spec::Engine;
use crate::comfy::json::Json;
use std::time::Duration;

/// What is known of an answer so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telling {
    /// 24 hexadecimal digits that are its own.
    pub(crate) id: String,
    /// When it was asked for, seconds since 1970.
    pub(crate) created: u64,
    /// The model, as the engine names it.
    pub(crate) model: String,
    /// How many tokens its prompt has.
    pub(crate) prompt: usize,
    /// How many of them were in the cache.
    pub(crate) hit: usize,
    /// How many tokens were written.
    pub(crate) written: usize,
    /// What was written: the answer, or the arguments of a call.
    pub(crate) text: String,
    /// How many tokens it may have, if its request says so.
    pub(crate) most: Option<usize>,
    pub(crate) finish: Finish,
    /// It is a call of this tool.
    pub(crate) tool: Option<String>,
    pub(crate) usage: bool,
    pub(crate) usage_always: bool,
    /// Whether vLLM tells how much was in the cache.
    pub(crate) tells_hits: bool,
    pub(crate) slot: usize,
    /// How long the model took to load.
    pub(crate) load: Duration,
    pub(crate) times: Times,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It was complete.
    #[default]
    Stop,
    /// It had no more tokens.
    Length,
    /// It calls a tool.
    Call,
}

/// Says an answer, piece by piece or as a whole. Of what it gives, each part is sent for itself.
pub(crate) trait Voice: Send {
    /// The media type of a stream.
    fn kind(&self) -> &'static str {
        "text/event-stream"
    }

    /// A token was written.
    fn piece(&mut self, telling: &Telling, piece: &str, last: bool) -> Vec<String>;

    /// That was the last one.
    fn end(&mut self, telling: &Telling) -> Vec<String>;

    /// The whole answer at once.
    fn whole(&self, telling: &Telling) -> String;

    /// The media type of a whole answer.
    fn whole_kind(&self) -> &'static str;

    /// Something went wrong in the middle.
    fn broken(&mut self, message: &str) -> Vec<String>;
}

/// The voice for an API, if the engine has it.
pub(crate) fn voice(engine: Engine, api: Api) -> Option<Box<dyn Voice>> {
    Some(match (engine, api) {
        (Engine::Vllm, Api::Chat) => Box::new(vllm::Chat),
        (Engine::Vllm, Api::Completion) => Box::new(vllm::Completion),
        (Engine::Vllm, Api::Responses) => Box::new(vllm_apis::Responses::default()),
        (Engine::Vllm, Api::Messages) => Box::new(vllm_apis::Messages),
        (Engine::LlamaCpp, Api::Chat) => Box::new(llama_cpp::Chat),
        (Engine::LlamaCpp, Api::Completion) => Box::new(llama_cpp::Completion),
        (Engine::LlamaCpp, Api::Native | Api::Infill) => Box::new(llama_cpp::Native),
        (Engine::LlamaCpp, Api::Responses) => Box::new(llama_cpp::Responses),
        (Engine::LlamaCpp, Api::Messages) => Box::new(llama_cpp::Messages),
        (Engine::Ollama, Api::Chat) => Box::new(ollama::OpenAiChat),
        (Engine::Ollama, Api::Completion) => Box::new(ollama::OpenAiCompletion),
        (Engine::Ollama, Api::Responses) => Box::new(ollama_apis::Responses::default()),
        (Engine::Ollama, Api::Messages) => Box::new(ollama_apis::Messages),
        (Engine::Ollama, Api::OllamaChat) => Box::new(ollama::Chat),
        (Engine::Ollama, Api::OllamaGenerate) => Box::new(ollama::Generate),
        _ => return None,
    })
}

/// An event without a name.
fn data(json: &Json) -> String {
    format!("data: {}\n\n", compact(json))
}

/// An event with a name.
fn event(name: &str, json: &Json) -> String {
    format!("event: {name}\ndata: {}\n\n", compact(json))
}

/// The end of a stream of the OpenAI APIs.
const DONE: &str = "data: [DONE]\n\n";

// === impl Telling ===

impl Telling {
    /// Whether this is its first token.
    fn is_first(&self) -> bool {
        self.written <= 1
    }

    /// Its end in the words of the OpenAI APIs.
    fn reason(&self) -> &'static str {
        match self.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Call => "tool_calls",
        }
    }

    /// Its end in the words of the Messages API.
    fn stop_reason(&self) -> &'static str {
        match self.finish {
            Finish::Stop => "end_turn",
            Finish::Length => "max_tokens",
            Finish::Call => "tool_use",
        }
    }

    /// The first digits of its id.
    fn short(&self, length: usize) -> &str {
        self.id.get(..length).unwrap_or(&self.id)
    }

    fn total(&self) -> usize {
        self.prompt + self.written
    }
}
