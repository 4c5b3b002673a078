//! Which request asks for what: the APIs of OpenAI, Anthropic and Ollama, and what engines have beside them.
//!
//! Paths of OpenAI's are known with and without `/v1` (llama.cpp serves both), and with any version before rerank and embed
//! (Cohere's have `/v2`). Whatever is not known is forwarded; a POST takes a slot, since it may well work the GPU: a router that
//! did not count such requests once sent hundreds of them to one worker.

use http::Method;
use percent_encoding::percent_decode_str;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/responses`
    Responses,
    /// `/v1/responses/{id}` and below, `/v1/conversations/{id}` and below: kept by the node that made it.
    ResponseOf(String),
    /// `POST /v1/embeddings`, Cohere's `/v2/embed`, llama.cpp's `/embedding`
    Embeddings,
    /// `POST /v1/rerank`
    Rerank,
    /// `POST /v1/score`, `/classify`, `/pooling`, `/v1/moderations`: one pass over a text.
    Score,
    /// `POST /v1/audio/transcriptions`, `/v1/audio/translations`: a form with a file.
    Transcriptions,
    /// `POST /v1/audio/speech`
    Speech,
    /// `POST /v1/images/generations`
    Images,
    /// `POST /v1/images/edits`, `/v1/images/variations`: a form with pictures.
    ImageEdits,
    /// `GET /v1/realtime`: a WebSocket.
    Realtime,
    /// `GET /v1/models`: the list of all nodes.
    Models,
    /// `GET /v1/models/{id}`
    ModelOf(String),
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/generate`
    OllamaGenerate,
    /// `POST /api/embed`, `/api/embeddings`
    OllamaEmbed,
    /// `GET /api/tags`: the list of all nodes.
    OllamaTags,
    /// `GET /api/ps`: what is loaded on all nodes.
    OllamaPs,
    /// `POST /api/show`
    OllamaShow,
    /// `GET /api/version`
    OllamaVersion,
    /// An engine's own way to have text made: llama.cpp's `/completion` and `/infill`, `/generate` of SGLang and TGI, LM Studio's
    /// `/api/v1/chat`, `/invocations`.
    Native,
    /// `POST /tokenize`, `/detokenize`, `/apply-template` and their like: no work for a GPU.
    Tokens,
    /// What an engine says of itself: `/health`, `/metrics`, `/props`, `/slots`, `/version` ..
    Status,
    /// What changes an engine for all who use it: pull, delete, load, unload, sleep, flush ..
    Manage,
    /// Whatever else there is.
    Other,
}

/// Whose words a client speaks: what a refusal looks like, and how an answer streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's, and what engines have beside it.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Ollama's.
    Ollama,
}

/// Where a request says which model it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelAt {
    /// `model` in a JSON body.
    Body,
    /// `model` in a JSON body, or its older name `name`.
    BodyOrName,
    /// `model` in a form (`multipart/form-data`).
    Form,
    /// The rest of the path.
    Path,
    /// `?model=`
    Query,
    /// Nowhere.
    Nowhere,
}

/// What is known of a request by its method and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is asked for.
    pub operation: Operation,
    /// Whose words the client speaks.
    pub dialect: Dialect,
    /// Whether it works a GPU, and so takes a slot.
    pub slot: bool,
    /// Where the model stands.
    pub model: ModelAt,
}

// === impl Route ===

impl Route {
    /// What a request asks for. `path` is as it came, without its query.
    pub fn of(method: &Method, path: &str) -> Route {
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let verb = match *method {
            Method::GET | Method::HEAD => Verb::Get,
            Method::POST => Verb::Post,
            Method::PUT | Method::PATCH | Method::DELETE => Verb::Change,
            // Asks what is allowed.
            _ => return Route::looks(Operation::Other, Dialect::OpenAi),
        };
        match parts.as_slice() {
            ["api", "v0" | "v1", rest @ ..] => lm_studio(verb, rest),
            ["api", rest @ ..] => ollama(verb, rest),
            ["anthropic", "v1", "messages", rest @ ..] | ["v1", "messages", rest @ ..] => {
                anthropic(verb, rest)
            }
            ["openai", version, rest @ ..] if is_version(version) => openai(verb, rest, true),
            [version, rest @ ..] if is_version(version) => openai(verb, rest, true),
            rest => openai(verb, rest, false),
        }
    }

    /// One that works a GPU.
    fn works(operation: Operation, dialect: Dialect) -> Route {
        Route {
            operation,
            dialect,
            slot: true,
            model: ModelAt::Body,
        }
    }

    /// One that does not.
    fn looks(operation: Operation, dialect: Dialect) -> Route {
        Route {
            operation,
            dialect,
            slot: false,
            model: ModelAt::Nowhere,
        }
    }

    fn at(self, model: ModelAt) -> Route {
        Route { model, ..self }
    }

    /// Whether its answer is text that is made token by token, and so may stream.
    pub fn generates(&self) -> bool {
        use Operation::*;
        matches!(
            self.operation,
            ChatCompletions
                | Completions
                | Responses
                | Messages
                | OllamaChat
                | OllamaGenerate
                | Native
        )
    }

    /// Whether it is for a model, so that one which nobody has is a mistake; else its engine may know better.
    pub fn names_models(&self) -> bool {
        !matches!(self.operation, Operation::Other | Operation::Manage)
    }

    /// What is done, in a word.
    pub fn word(&self) -> &'static str {
        use Operation::*;
        match self.operation {
            Embeddings | OllamaEmbed => "embed",
            Rerank => "rerank",
            Score => "score",
            Transcriptions => "transcribe",
            Speech => "speak",
            Images | ImageEdits => "draw",
            Realtime => "realtime",
            Tokens | CountTokens => "count",
            Status | Models | ModelOf(_) | OllamaTags | OllamaPs | OllamaShow | OllamaVersion => {
                "status"
            }
            Manage => "manage",
            ResponseOf(_) => "kept",
            ChatCompletions | Completions | Responses | Messages | OllamaChat | OllamaGenerate
            | Native => "text",
            Other => "other",
        }
    }

    /// Whether the answer streams where the request does not say.
    pub fn streams_unless_said(&self) -> bool {
        use Operation::*;
        matches!(self.operation, OllamaChat | OllamaGenerate)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Change,
}

fn is_version(part: &str) -> bool {
    matches!(part, "v1" | "v2" | "v3")
}

/// A part of a path.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// What is left of a path: names of models have slashes in them (`Qwen/Qwen3-8B`).
fn rest_of(parts: &[&str]) -> String {
    decoded(&parts.join("/"))
}

fn openai(verb: Verb, parts: &[&str], versioned: bool) -> Route {
    use Operation::*;
    use Verb::{Get, Post};
    let works = |operation| Route::works(operation, Dialect::OpenAi);
    let looks = |operation| Route::looks(operation, Dialect::OpenAi);
    match (verb, parts) {
        (Post, ["chat", "completions"] | ["chat", "completions", "batch"]) => {
            works(ChatCompletions)
        }
        (Post, ["completions"]) => works(Completions),
        (Post, ["responses"]) => works(Responses),
        (_, ["responses" | "conversations", id, ..]) => looks(ResponseOf(decoded(id))),
        (Post, ["embeddings" | "embedding" | "embed"]) => works(Embeddings),
        (Post, ["rerank" | "reranking"]) => works(Rerank),
        (Post, ["score" | "classify" | "pooling" | "moderations" | "generative_scoring"]) => {
            works(Score)
        }
        (Post, ["audio", "transcriptions" | "translations"]) => {
            works(Transcriptions).at(ModelAt::Form)
        }
        (Post, ["audio", "speech"]) => works(Speech),
        (Post, ["images", "generations"]) => works(Images),
        (Post, ["images", "edits" | "variations"]) => works(ImageEdits).at(ModelAt::Form),
        (Get, ["realtime"]) => looks(Realtime).at(ModelAt::Query),
        (Get, ["models"]) => looks(Models),
        (Post, ["models", "load" | "unload"]) => looks(Manage).at(ModelAt::Body),
        (Get, ["models", id @ ..]) => looks(ModelOf(rest_of(id))).at(ModelAt::Path),
        (_, ["models", ..]) => looks(Manage),
        _ => extras(verb, parts, versioned),
    }
}

/// What engines have beside the APIs.
fn extras(verb: Verb, parts: &[&str], versioned: bool) -> Route {
    use Operation::*;
    use Verb::{Get, Post};
    let works = |operation| Route::works(operation, Dialect::OpenAi);
    let looks = |operation| Route::looks(operation, Dialect::OpenAi);
    match (verb, parts) {
        // llama.cpp; SGLang and TGI; SageMaker's and Vertex's ways into vLLM and SGLang; vLLM's tokens in, tokens out.
        (Post, ["completion" | "infill"])
        | (Post, ["generate" | "generate_stream" | "encode" | "vertex_generate" | "invocations"])
        | (Post, ["inference", "v1", "generate"]) => works(Native),
        // TGI takes a request at its root.
        (Post, [] | [""]) => works(Native),
        (Post, ["tokenize" | "detokenize" | "apply-template" | "chat_tokenize"])
        | (Post, ["token", "encode" | "decode"])
        | (Post, ["chat", "completions", "render"] | ["completions", "render"]) => {
            looks(Tokens).at(ModelAt::Body)
        }
        // llama.cpp with several models asks for one of them.
        (Get, ["props" | "slots"]) => looks(Status).at(ModelAt::Query),
        (Get, ["health" | "ping" | "version" | "metrics" | "load" | "loads" | "info"])
        | (Get, ["health", "live" | "ready"])
        | (Get, ["health_generate" | "server_info" | "get_server_info"])
        | (Get, ["model_info" | "get_model_info" | "get_load"])
        | (Get, ["is_sleeping" | "is_paused" | "lora-adapters" | "metadata"])
        | (Get, ["model" | "model_list" | "lora" | "loras" | "template" | "templates"]) => {
            looks(Status)
        }
        (_, ["slots", ..])
        | (Post | Verb::Change, ["props" | "lora-adapters" | "lora" | "template" | "sampling"])
        | (
            Post,
            ["sleep" | "wake_up" | "pause" | "resume" | "reset_prefix_cache" | "flush_cache"],
        )
        | (Get, ["flush_cache"])
        | (Post, ["reset_mm_cache" | "reset_encoder_cache" | "abort_request" | "collective_rpc"])
        | (Post, ["load_lora_adapter" | "unload_lora_adapter" | "scale_elastic_ep"])
        | (Post, ["release_memory_occupation" | "resume_memory_occupation"])
        | (Post, ["start_profile" | "stop_profile" | "open_session" | "close_session"])
        | (Post, ["update_weights_from_disk" | "update_weights_from_tensor"])
        | (Post, ["update_weights_from_distributed" | "init_weights_update_group"])
        | (
            Post | Get,
            [
                "model" | "lora" | "template",
                "load" | "unload" | "embedding",
                ..,
            ],
        )
        | (Post, ["download"]) => looks(Manage).at(match parts {
            ["load_lora_adapter" | "unload_lora_adapter", ..] => ModelAt::Nowhere,
            _ => ModelAt::Body,
        }),
        (Get, _) => looks(Other),
        (Post, _) => works(Other),
        // OpenAI's files, batches and stored things are no work; what else is changed may be.
        (Verb::Change, _) if versioned => looks(Other),
        (Verb::Change, _) => works(Other),
    }
}

fn anthropic(verb: Verb, parts: &[&str]) -> Route {
    let dialect = Dialect::Anthropic;
    match (verb, parts) {
        (Verb::Post, []) => Route::works(Operation::Messages, dialect),
        (Verb::Post, ["count_tokens"]) => {
            Route::looks(Operation::CountTokens, dialect).at(ModelAt::Body)
        }
        _ => Route::looks(Operation::Other, dialect),
    }
}

fn ollama(verb: Verb, parts: &[&str]) -> Route {
    use Operation::*;
    use Verb::{Get, Post};
    let works = |operation| Route::works(operation, Dialect::Ollama);
    let looks = |operation| Route::looks(operation, Dialect::Ollama);
    match (verb, parts) {
        (Post, ["chat"]) => works(OllamaChat),
        (Post, ["generate"]) => works(OllamaGenerate),
        (Post, ["embed" | "embeddings"]) => works(OllamaEmbed),
        (Get, ["tags"]) => looks(OllamaTags),
        (Get, ["ps"]) => looks(OllamaPs),
        (Post, ["show"]) => looks(OllamaShow).at(ModelAt::BodyOrName),
        (Get, ["version"]) => looks(OllamaVersion),
        (Get, ["status"]) => looks(Status),
        (_, ["pull" | "push" | "create" | "delete"]) => looks(Manage).at(ModelAt::BodyOrName),
        (_, ["copy" | "signout"] | ["blobs" | "user", ..]) => looks(Manage),
        (Get, _) => looks(Other),
        (Post, _) => works(Other),
        _ => looks(Other),
    }
}

/// LM Studio's, and KoboldCpp's `/api/v1/generate`.
fn lm_studio(verb: Verb, parts: &[&str]) -> Route {
    use Operation::*;
    use Verb::{Get, Post};
    let works = |operation| Route::works(operation, Dialect::OpenAi);
    let looks = |operation| Route::looks(operation, Dialect::OpenAi);
    match (verb, parts) {
        // Its list says which models are loaded where, so it is one node's.
        (Get, ["models", ..]) => looks(Status),
        (_, ["models", ..]) => looks(Manage).at(ModelAt::Body),
        (Post, ["chat"] | ["generate"]) => works(Native),
        _ => openai(verb, parts, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dialect::*;
    use ModelAt::*;
    use Operation::*;

    fn check(
        method: Method,
        path: &str,
        operation: Operation,
        dialect: Dialect,
        slot: bool,
        model: ModelAt,
    ) {
        let wants = Route {
            operation,
            dialect,
            slot,
            model,
        };
        assert_eq!(Route::of(&method, path), wants, "{method} {path}");
    }

    #[test]
    fn what_works_a_gpu_takes_a_slot() {
        for (path, operation, dialect, model) in [
            ("/v1/chat/completions", ChatCompletions, OpenAi, Body),
            ("/chat/completions", ChatCompletions, OpenAi, Body),
            ("/v1/chat/completions/", ChatCompletions, OpenAi, Body),
            ("/v1/completions", Completions, OpenAi, Body),
            ("/v1/responses", Responses, OpenAi, Body),
            ("/v1/embeddings", Embeddings, OpenAi, Body),
            ("/v2/embed", Embeddings, OpenAi, Body),
            ("/rerank", Rerank, OpenAi, Body),
            ("/v2/rerank", Rerank, OpenAi, Body),
            ("/v1/score", Score, OpenAi, Body),
            ("/classify", Score, OpenAi, Body),
            ("/v1/audio/transcriptions", Transcriptions, OpenAi, Form),
            ("/v1/audio/translations", Transcriptions, OpenAi, Form),
            ("/v1/audio/speech", Speech, OpenAi, Body),
            ("/v1/images/generations", Images, OpenAi, Body),
            ("/v1/images/edits", ImageEdits, OpenAi, Form),
            ("/v1/messages", Messages, Anthropic, Body),
            ("/api/chat", OllamaChat, Ollama, Body),
            ("/api/generate", OllamaGenerate, Ollama, Body),
            ("/api/embed", OllamaEmbed, Ollama, Body),
            ("/completion", Native, OpenAi, Body),
            ("/infill", Native, OpenAi, Body),
            ("/generate_stream", Native, OpenAi, Body),
            ("/", Native, OpenAi, Body),
            ("/api/v1/chat", Native, OpenAi, Body),
            ("/api/v0/chat/completions", ChatCompletions, OpenAi, Body),
            ("/v1/some/novelty", Other, OpenAi, Body),
            ("/api/novelty", Other, Ollama, Body),
        ] {
            check(Method::POST, path, operation, dialect, true, model);
        }
    }

    #[test]
    fn what_only_looks_takes_none() {
        let get = Method::GET;
        check(get.clone(), "/v1/models", Models, OpenAi, false, Nowhere);
        check(Method::HEAD, "/models", Models, OpenAi, false, Nowhere);
        let name = "Qwen/Qwen3-8B".to_owned();
        for path in ["/v1/models/Qwen/Qwen3-8B", "/v1/models/Qwen%2FQwen3-8B"] {
            check(
                get.clone(),
                path,
                ModelOf(name.clone()),
                OpenAi,
                false,
                Path,
            );
        }
        let response = ResponseOf("resp_1".into());
        for method in [Method::GET, Method::DELETE, Method::POST] {
            check(
                method,
                "/v1/responses/resp_1/cancel",
                response.clone(),
                OpenAi,
                false,
                Nowhere,
            );
        }
        check(get.clone(), "/v1/realtime", Realtime, OpenAi, false, Query);
        check(get.clone(), "/api/tags", OllamaTags, Ollama, false, Nowhere);
        check(get.clone(), "/api/ps", OllamaPs, Ollama, false, Nowhere);
        check(
            Method::HEAD,
            "/api/version",
            OllamaVersion,
            Ollama,
            false,
            Nowhere,
        );
        check(get.clone(), "/props", Status, OpenAi, false, Query);
        for path in [
            "/health",
            "/v1/health/ready",
            "/metrics",
            "/version",
            "/get_server_info",
            "/v1/loads",
            "/api/v0/models",
        ] {
            check(get.clone(), path, Status, OpenAi, false, Nowhere);
        }
        check(get.clone(), "/", Other, OpenAi, false, Nowhere);
        check(get, "/favicon.ico", Other, OpenAi, false, Nowhere);
        let post = Method::POST;
        check(
            post.clone(),
            "/v1/messages/count_tokens",
            CountTokens,
            Anthropic,
            false,
            Body,
        );
        check(
            post.clone(),
            "/api/show",
            OllamaShow,
            Ollama,
            false,
            BodyOrName,
        );
        check(post.clone(), "/tokenize", Tokens, OpenAi, false, Body);
        check(
            post,
            "/v1/chat/completions/render",
            Tokens,
            OpenAi,
            false,
            Body,
        );
        check(
            Method::OPTIONS,
            "/v1/chat/completions",
            Other,
            OpenAi,
            false,
            Nowhere,
        );
    }

    #[test]
    fn what_changes_an_engine_for_all_is_told_apart() {
        for (method, path) in [
            (Method::POST, "/api/pull"),
            (Method::DELETE, "/api/delete"),
            (Method::POST, "/api/blobs/sha256:0"),
            (Method::HEAD, "/api/blobs/sha256:0"),
            (Method::POST, "/models/unload"),
            (Method::DELETE, "/v1/models/x"),
            (Method::POST, "/v1/model/load"),
            (Method::POST, "/api/v1/models/load"),
            (Method::POST, "/sleep"),
            (Method::POST, "/flush_cache"),
            (Method::POST, "/slots/0"),
            (Method::POST, "/v1/load_lora_adapter"),
            (Method::POST, "/update_weights_from_disk"),
        ] {
            let route = Route::of(&method, path);
            assert_eq!(route.operation, Manage, "{method} {path}");
            assert!(!route.slot, "{method} {path}");
            let names = path.contains("models/") && method == Method::POST;
            assert_eq!(names, names && route.model == Body, "{method} {path}");
        }
    }

    #[test]
    fn what_is_made_token_by_token_may_stream() {
        let generates = |path| Route::of(&Method::POST, path).generates();
        assert!(generates("/v1/messages") && generates("/api/chat") && generates("/completion"));
        assert!(!generates("/v1/embeddings") && !generates("/v1/audio/speech"));
        assert!(Route::of(&Method::POST, "/api/generate").streams_unless_said());
        assert!(!Route::of(&Method::POST, "/v1/completions").streams_unless_said());
    }
}
