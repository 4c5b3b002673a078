//! What a node is for as long as its process runs: its engine, its models, how much it works on at once.

use super::knobs::LlmKnobs;
use crate::gpu::Gpu;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::str::FromStr;

/// What a simulated engine is.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name: it decides what is random.
    pub name: String,
    /// Which engine it speaks as.
    pub engine: Engine,
    /// Where it listens; port 0: any.
    pub listen: SocketAddr,
    /// The models that it has. vLLM, SGLang and llama.cpp serve the first one, and more only where `router` says so.
    pub models: Vec<Model>,
    /// How many requests a model works on at once: `--max-num-seqs`, `--parallel`, `OLLAMA_NUM_PARALLEL`.
    pub slots: usize,
    /// How many tokens vLLM's and SGLang's cache holds.
    pub kv_tokens: usize,
    /// How many tokens a block of that cache has.
    pub block_tokens: usize,
    /// How many tokens a step reads and writes at most: `--max-num-batched-tokens`, `--batch-size`.
    pub chunk_tokens: usize,
    /// The card's memory, MiB.
    pub vram_mib: u64,
    /// How many models are loaded at once at most: `OLLAMA_MAX_LOADED_MODELS`, `--models-max`.
    pub max_loaded: usize,
    /// How many requests Ollama lets wait for models to be loaded: `OLLAMA_MAX_QUEUE`.
    pub max_queue: usize,
    /// How long Ollama keeps a model that nobody uses, seconds: `OLLAMA_KEEP_ALIVE`.
    pub keep_alive_s: i64,
    /// vLLM tells how much of a prompt was in its cache: `--enable-prompt-tokens-details`.
    pub tells_hits: bool,
    /// llama.cpp loads models on demand, as it does when it is started without one.
    pub router: bool,
    /// How it behaves at first.
    pub knobs: LlmKnobs,
    /// The card that it shares with other servers, whose memory counts then.
    pub shared: Option<Gpu>,
}

/// A program that serves models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// vLLM 0.32.
    Vllm,
    /// llama.cpp's server, of October 2026.
    LlamaCpp,
    /// Ollama, of August 2026.
    Ollama,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// How many tokens a prompt and its answer may have.
    pub context: usize,
    /// How much of the card's memory it takes, MiB.
    pub mib: u64,
    /// It makes embeddings, and nothing else. (Ollama makes them of any model.)
    pub embeds: bool,
}

// === impl Spec ===

impl Spec {
    /// A node without models.
    pub fn new(engine: Engine, name: &str) -> Self {
        Spec {
            name: name.into(),
            engine,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            models: Vec::new(),
            slots: match engine {
                Engine::Vllm => 16,
                Engine::LlamaCpp => 4,
                Engine::Ollama => 1,
            },
            kv_tokens: 256 * 1024,
            block_tokens: 16,
            chunk_tokens: 2048,
            vram_mib: 24 * 1024,
            max_loaded: match engine {
                Engine::Ollama => 3,
                _ => 4,
            },
            max_queue: 512,
            keep_alive_s: 300,
            tells_hits: false,
            router: false,
            knobs: LlmKnobs::default(),
            shared: None,
        }
    }

    /// vLLM with one model.
    pub fn vllm(name: &str, model: &str) -> Self {
        Spec::new(Engine::Vllm, name).model(model, 6000)
    }

    /// llama.cpp with one model.
    pub fn llama_cpp(name: &str, model: &str) -> Self {
        Spec::new(Engine::LlamaCpp, name).model(model, 6000)
    }

    /// Ollama with one model, which is not loaded yet.
    pub fn ollama(name: &str, model: &str) -> Self {
        Spec::new(Engine::Ollama, name).model(model, 6000)
    }

    /// The same, with another model.
    pub fn model(mut self, name: &str, mib: u64) -> Self {
        self.models.push(Model {
            name: name.into(),
            context: 8192,
            mib,
            embeds: false,
        });
        self
    }

    /// The same, with another model that makes embeddings.
    pub fn embedder(mut self, name: &str, mib: u64) -> Self {
        self = self.model(name, mib);
        self.models
            .iter_mut()
            .for_each(|model| model.embeds |= model.name == name);
        self
    }

    /// The same, working on so many requests at once.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// The same, on a card that it shares.
    pub fn on(mut self, gpu: &Gpu) -> Self {
        self.shared = Some(gpu.clone());
        self
    }

    /// The same, behaving so.
    pub fn knobs(mut self, knobs: LlmKnobs) -> Self {
        self.knobs = knobs;
        self
    }

    /// Whether models are loaded when they are asked for.
    pub(crate) fn loads_on_demand(&self) -> bool {
        self.engine == Engine::Ollama || self.router
    }

    /// Which model a request means. A server that has only one takes any name for it, but for vLLM.
    pub(crate) fn find(&self, named: Option<&str>) -> Option<usize> {
        let is = |model: &Model| match (self.engine, named) {
            (Engine::Vllm, None) => true,
            (Engine::LlamaCpp, _) if !self.router => true,
            // `llama3` is `llama3:latest`.
            (Engine::Ollama, Some(named)) => tagged(&model.name) == tagged(named),
            (_, named) => named == Some(model.name.as_str()),
        };
        let served = if self.loads_on_demand() {
            self.models.len()
        } else {
            1
        };
        self.models.iter().take(served).position(is)
    }
}

/// A name as Ollama writes it.
pub(crate) fn tagged(name: &str) -> String {
    if name.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

// === impl Engine ===

impl Display for Engine {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Engine::Vllm => "vllm",
            Engine::LlamaCpp => "llama.cpp",
            Engine::Ollama => "ollama",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "vllm" => Ok(Engine::Vllm),
            "llama.cpp" | "llamacpp" => Ok(Engine::LlamaCpp),
            "ollama" => Ok(Engine::Ollama),
            _ => Err(format!(
                "an engine is vllm, llama.cpp or ollama, got {text}"
            )),
        }
    }
}
