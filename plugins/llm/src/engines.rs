//! Which engine stands behind an endpoint, and what it says of itself: read from the answers to a few short questions.
//!
//! No engine says all of it, and some say nothing: what is `None` here the gateway goes by what it sent there.

use crate::metrics::Metrics;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tabane_api::Vitals;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's server, with one model or several.
    #[serde(rename = "llama_cpp")]
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// Hugging Face's Text Generation Inference.
    Tgi,
    /// TabbyAPI (ExLlama).
    #[serde(rename = "tabby_api")]
    TabbyApi,
    /// LM Studio.
    #[serde(rename = "lm_studio")]
    LmStudio,
    /// KoboldCpp.
    #[serde(rename = "kobold_cpp")]
    KoboldCpp,
    /// NVIDIA NIM.
    Nim,
    /// NVIDIA Triton.
    Triton,
    /// `trtllm-serve` of TensorRT-LLM.
    #[serde(rename = "tensor_rt")]
    TensorRt,
    /// Another one that speaks OpenAI's words, a cloud's among them.
    #[serde(rename = "openai")]
    OpenAi,
}

/// An answer to a question.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What was asked for, without its query.
    pub path: &'a str,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// What is known of an endpoint's engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Which it is; `None`: nothing that was asked tells.
    pub engine: Option<Engine>,
    /// Its version, as it writes it.
    pub version: Option<String>,
    /// Whether it says that it is ready; `None`: it does not say.
    pub ready: Option<bool>,
    /// The models that it can serve.
    pub models: Vec<Model>,
    /// Whether it says which of them are in memory.
    pub says_loaded: bool,
    /// How many requests it works on at once, as it says.
    pub slots: Option<u32>,
    /// How many are at work.
    pub running: Option<u32>,
    /// How many wait in it.
    pub waiting: Option<u32>,
    /// How much of the memory for what was computed is in use, 0.0 to 1.0.
    pub kv_used: Option<f64>,
    /// How many tokens that memory holds.
    pub kv_tokens: Option<u64>,
    /// When its process started, seconds since 1970.
    pub started_s: Option<f64>,
    /// Tokens that it read and made since then: it goes up for as long as anything is done.
    pub counted: Option<f64>,
}

/// A model of an engine's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Other names that the engine takes for it.
    pub aliases: Vec<String>,
    /// Whether it is in memory; `None`: the engine does not say.
    pub loaded: Option<bool>,
    /// How many tokens fit into its context.
    pub context: Option<u64>,
}

/// What an engine is asked, first what says whether it is well. `None`: nobody knows yet which it is.
pub fn questions(engine: Option<Engine>) -> &'static [&'static str] {
    match engine {
        // The first that answers often tells; what is not there is answered with 404 at once.
        None => &[
            "/v1/models",
            "/health",
            "/metrics",
            "/api/version",
            "/api/tags",
            "/api/ps",
            "/props",
            "/version",
            "/server_info",
            "/get_server_info",
            "/info",
            "/api/v0/models",
            "/v1/metrics",
            "/api/extra/version",
        ],
        Some(Engine::Vllm) => &["/health", "/v1/models", "/metrics", "/is_sleeping"],
        // Not `/health_generate`: it makes a token, which takes long where much is at work.
        Some(Engine::Sglang) => &[
            "/health",
            "/v1/models",
            "/v1/loads",
            "/server_info",
            "/metrics",
        ],
        // With several models its `/props` and `/slots` are a model's.
        Some(Engine::LlamaCpp) => &["/health", "/v1/models", "/props", "/slots", "/metrics"],
        Some(Engine::Ollama) => &["/api/version", "/api/tags", "/api/ps"],
        Some(Engine::Tgi) => &["/health", "/v1/models", "/info", "/metrics"],
        Some(Engine::TabbyApi) => &["/health", "/v1/models", "/v1/model"],
        Some(Engine::LmStudio) => &["/v1/models", "/api/v0/models"],
        Some(Engine::KoboldCpp) => &["/api/extra/version", "/v1/models"],
        Some(Engine::Nim) => &["/v1/health/ready", "/v1/models", "/v1/metrics"],
        Some(Engine::Triton) => &["/v2/health/ready", "/v1/models", "/metrics"],
        Some(Engine::TensorRt) => &["/health", "/v1/models", "/metrics", "/version"],
        Some(Engine::OpenAi) => &["/v1/models"],
    }
}

// === impl Facts ===

impl Facts {
    /// What these answers say together. One that contradicts an earlier one counts.
    pub fn read(answers: &[Answer<'_>]) -> Self {
        let mut facts = Facts::default();
        let mut guess = None;
        for answer in answers {
            facts.header(answer.headers);
            let told = facts.engine;
            if (200..300).contains(&answer.status) {
                facts.add(answer, &mut guess);
            }
            facts.health(answer);
            // The first that tells it is right: some engines answer at others' paths too.
            facts.engine = told.or(facts.engine);
        }
        facts.engine = facts.engine.or(guess);
        facts
    }

    /// What the gateway hears of it. A model stands there by every name that the engine takes for it.
    pub fn vitals(&self) -> Vitals {
        let names = |model: &Model| {
            let short = match self.engine {
                Some(Engine::Ollama) => model.name.strip_suffix(":latest"),
                _ => None,
            };
            let first = [Some(model.name.clone()), short.map(str::to_owned)];
            let all = first.into_iter().flatten().chain(model.aliases.clone());
            all.collect::<Vec<_>>()
        };
        let loaded = self
            .models
            .iter()
            .filter(|model| model.loaded == Some(true));
        let waiting = self.waiting.unwrap_or(0);
        Vitals {
            busy: self.running.map(|running| running.saturating_add(waiting)),
            vram_free_mib: None,
            models: self.models.iter().flat_map(names).collect(),
            loaded: self.says_loaded.then(|| loaded.flat_map(names).collect()),
            slots: self.slots,
        }
    }

    /// Its own name in its head.
    fn header(&mut self, headers: &HeaderMap) {
        let server = headers
            .get(http::header::SERVER)
            .and_then(|value| value.to_str().ok());
        if self.engine.is_none() && server == Some("llama.cpp") {
            self.engine = Some(Engine::LlamaCpp);
        }
    }

    fn health(&mut self, answer: &Answer<'_>) {
        let path = answer.path;
        if path == "/health" || path.ends_with("/health/ready") {
            self.ready = match answer.status {
                200..300 => Some(self.ready != Some(false)),
                // llama.cpp loads its model; vLLM's process for the GPU died.
                500..600 => Some(false),
                _ => self.ready,
            };
        }
    }

    fn add(&mut self, answer: &Answer<'_>, guess: &mut Option<Engine>) {
        if answer.path.ends_with("/metrics") {
            self.metrics(&Metrics::read(&String::from_utf8_lossy(answer.body)));
            return;
        }
        if answer.path == "/" && answer.body.starts_with(b"Ollama is running") {
            self.engine = Some(Engine::Ollama);
        }
        let Ok(said) = serde_json::from_slice::<Value>(answer.body) else {
            return;
        };
        match answer.path {
            "/v1/models" | "/models" => self.openai_models(&said, guess),
            "/api/tags" => self.ollama_tags(&said),
            "/api/ps" => self.ollama_ps(&said),
            "/api/version" => {
                self.is_as(Engine::Ollama, said["version"].is_string());
                self.version(&said["version"]);
            }
            // vLLM's, and others' after it.
            "/version" if said["version"].is_string() => {
                guess.get_or_insert(Engine::Vllm);
                self.version(&said["version"]);
            }
            "/props" => self.llamacpp_props(&said),
            "/slots" => self.llamacpp_slots(&said),
            "/server_info" | "/get_server_info" => self.sglang_info(&said),
            "/v1/loads" => self.sglang_loads(&said["loads"]),
            "/get_load" => self.sglang_loads(&said),
            "/load" => self.running = count(&said["server_load"]).or(self.running),
            "/is_sleeping" => {
                if let Some(sleeps) = said["is_sleeping"].as_bool() {
                    let models = self.models.iter_mut();
                    models.for_each(|model| model.loaded = Some(!sleeps));
                    self.says_loaded = true;
                }
            }
            "/info" => self.tgi_info(&said),
            "/v1/model" => self.tabby_model(&said),
            "/api/v0/models" => self.lm_studio(&said),
            "/api/extra/version" => {
                self.is_as(Engine::KoboldCpp, said["result"] == "KoboldCpp");
                self.version(&said["version"]);
            }
            "/v2/models" | "/v2" => self.is_as(Engine::Triton, !said.is_null()),
            _ => {}
        }
    }

    fn is_as(&mut self, engine: Engine, told: bool) {
        if told {
            self.engine = Some(engine);
        }
    }

    fn version(&mut self, said: &Value) {
        self.version = said.as_str().map(str::to_owned).or(self.version.take());
    }

    fn metrics(&mut self, metrics: &Metrics) {
        self.engine = metrics.engine.or(self.engine);
        self.running = metrics.running.or(self.running);
        self.waiting = metrics.waiting.or(self.waiting);
        self.kv_used = metrics.kv_used.or(self.kv_used);
        self.kv_tokens = metrics.kv_tokens.or(self.kv_tokens);
        self.slots = self.slots.or(metrics.slots);
        self.started_s = metrics.started_s.or(self.started_s);
        let counted = [metrics.prompt_tokens, metrics.decode_tokens];
        let counted = counted.into_iter().flatten().reduce(|a, b| a + b);
        self.counted = counted.or(self.counted);
    }

    /// The model of this name, made where there is none.
    fn model(&mut self, name: &str) -> &mut Model {
        let at = self.models.iter().position(|model| model.name == name);
        let at = at.unwrap_or_else(|| {
            self.models.push(Model {
                name: name.to_owned(),
                ..Model::default()
            });
            self.models.len() - 1
        });
        &mut self.models[at]
    }

    fn openai_models(&mut self, said: &Value, guess: &mut Option<Engine>) {
        for entry in list(&said["data"]) {
            let Some(name) = entry["id"].as_str() else {
                continue;
            };
            let engine = match entry["owned_by"].as_str() {
                Some("vllm") => Some(Engine::Vllm),
                Some("sglang") => Some(Engine::Sglang),
                Some("llamacpp") => Some(Engine::LlamaCpp),
                Some("library") => Some(Engine::Ollama),
                Some("tabbyAPI") => Some(Engine::TabbyApi),
                Some("koboldcpp") => Some(Engine::KoboldCpp),
                Some("organization_owner") => Some(Engine::LmStudio),
                _ => None,
            };
            self.engine = engine.or(self.engine);
            guess.get_or_insert(Engine::OpenAi);
            let model = self.model(name);
            let aliases = list(&entry["aliases"]).filter_map(Value::as_str);
            let aliases = aliases.filter(|alias| *alias != name).map(str::to_owned);
            model.aliases = aliases.collect();
            let contexts = [
                &entry["max_model_len"],
                &entry["meta"]["n_ctx"],
                &entry["meta"]["n_ctx_train"],
                &entry["context_length"],
                &entry["max_context_length"],
            ];
            model.context = contexts
                .into_iter()
                .find_map(Value::as_u64)
                .or(model.context);
            // llama.cpp with several models.
            if let Some(status) = entry["status"]["value"].as_str() {
                model.loaded = Some(status == "loaded");
                self.says_loaded = true;
            }
        }
    }

    fn ollama_tags(&mut self, said: &Value) {
        for entry in list(&said["models"]) {
            if let Some(name) = entry["name"].as_str().or(entry["model"].as_str()) {
                // llama.cpp answers here too, with empty digests.
                self.is_as(
                    Engine::Ollama,
                    entry["digest"]
                        .as_str()
                        .is_some_and(|digest| !digest.is_empty()),
                );
                self.model(name);
            }
        }
    }

    fn ollama_ps(&mut self, said: &Value) {
        if !said["models"].is_array() {
            return;
        }
        self.is_as(Engine::Ollama, true);
        self.says_loaded = true;
        self.models
            .iter_mut()
            .for_each(|model| model.loaded = Some(false));
        for entry in list(&said["models"]) {
            if let Some(name) = entry["name"].as_str().or(entry["model"].as_str()) {
                let context = entry["context_length"].as_u64();
                let model = self.model(name);
                model.loaded = Some(true);
                model.context = context.or(model.context);
            }
        }
    }

    fn llamacpp_props(&mut self, said: &Value) {
        let slots = count(&said["total_slots"]);
        self.is_as(Engine::LlamaCpp, slots.is_some());
        self.slots = slots.or(self.slots);
        self.version(&said["build_info"]);
        let context = said["default_generation_settings"]["n_ctx"].as_u64();
        // Slots have their own parts of the memory, each as long as one context.
        if let (Some(slots), Some(context)) = (slots, context) {
            self.kv_tokens = Some(u64::from(slots).saturating_mul(context));
        }
        if let (Some(sleeps), [model]) = (said["is_sleeping"].as_bool(), self.models.as_mut_slice())
        {
            model.loaded = Some(!sleeps);
            self.says_loaded = true;
        }
    }

    fn llamacpp_slots(&mut self, said: &Value) {
        let Some(slots) = said.as_array() else {
            return;
        };
        let working = |slot: &&Value| slot["is_processing"] == true;
        self.slots = Some(slots.len().try_into().unwrap_or(u32::MAX));
        self.running = slots.iter().filter(working).count().try_into().ok();
        let contexts = slots.iter().filter_map(|slot| slot["n_ctx"].as_u64());
        let tokens = contexts.fold(0u64, u64::saturating_add);
        self.kv_tokens = Some(tokens).filter(|tokens| *tokens > 0).or(self.kv_tokens);
    }

    fn sglang_info(&mut self, said: &Value) {
        let tokens = [&said["max_total_num_tokens"], &said["max_total_tokens"]];
        let tokens = tokens.into_iter().find_map(Value::as_u64);
        self.is_as(
            Engine::Sglang,
            said["tp_size"].is_number() || tokens.is_some(),
        );
        self.kv_tokens = tokens.or(self.kv_tokens);
        let inner = &said["internal_states"][0]["max_running_requests"];
        let slots = [&said["max_running_requests"], inner];
        self.slots = slots.into_iter().find_map(count).or(self.slots);
        self.version(&said["version"]);
    }

    fn sglang_loads(&mut self, said: &Value) {
        let all = |name: &str| {
            let mut counts = list(said).filter_map(|rank| rank[name].as_u64()).peekable();
            counts
                .peek()
                .is_some()
                .then(|| counts.fold(0, u64::saturating_add))
        };
        let small = |count: Option<u64>| count.and_then(|count| count.try_into().ok());
        self.running = small(all("num_running_reqs").or(all("num_reqs"))).or(self.running);
        self.waiting = small(all("num_waiting_reqs")).or(self.waiting);
        self.kv_tokens = all("max_total_num_tokens").or(self.kv_tokens);
        self.slots = small(all("max_running_requests")).or(self.slots);
        let used = list(said).filter_map(|rank| rank["token_usage"].as_f64());
        self.kv_used = used
            .fold(None, |most: Option<f64>, used| {
                Some(most.map_or(used, |most| most.max(used)))
            })
            .or(self.kv_used);
        self.is_as(Engine::Sglang, self.running.is_some());
    }

    fn tgi_info(&mut self, said: &Value) {
        let Some(name) = said["model_id"].as_str() else {
            return;
        };
        self.is_as(
            Engine::Tgi,
            said["max_concurrent_requests"].is_number() || said["router"].is_string(),
        );
        let context = said["max_total_tokens"].as_u64();
        let model = self.model(name);
        model.context = context.or(model.context);
        self.kv_tokens = said["max_batch_total_tokens"].as_u64().or(self.kv_tokens);
        self.version(&said["version"]);
    }

    fn tabby_model(&mut self, said: &Value) {
        let Some(name) = said["id"].as_str() else {
            return;
        };
        self.is_as(Engine::TabbyApi, true);
        self.says_loaded = true;
        self.models
            .iter_mut()
            .for_each(|model| model.loaded = Some(false));
        let parameters = &said["parameters"];
        let context = parameters["max_seq_len"].as_u64();
        self.slots = count(&parameters["max_batch_size"]).or(self.slots);
        self.kv_tokens = parameters["cache_size"].as_u64().or(self.kv_tokens);
        let model = self.model(name);
        model.loaded = Some(true);
        model.context = context.or(model.context);
    }

    fn lm_studio(&mut self, said: &Value) {
        for entry in list(&said["data"]) {
            let (Some(name), Some(state)) = (entry["id"].as_str(), entry["state"].as_str()) else {
                continue;
            };
            self.is_as(Engine::LmStudio, true);
            self.says_loaded = true;
            let contexts = [
                &entry["loaded_context_length"],
                &entry["max_context_length"],
            ];
            let context = contexts.into_iter().find_map(Value::as_u64);
            let model = self.model(name);
            model.loaded = Some(state == "loaded");
            model.context = context.or(model.context);
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn count(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests;
