use super::*;
use http::HeaderValue;

/// What answers say, each a path, a status and a body.
fn facts(answers: &[(&str, u16, &str)]) -> Facts {
    let headers = HeaderMap::new();
    let answer = |(path, status, body): &(&'static str, u16, &'static str)| Answer {
        path,
        status: *status,
        headers: &headers,
        body: body.as_bytes(),
    };
    // Tests' texts live as long as the program.
    let answers: Vec<(&'static str, u16, &'static str)> = answers
        .iter()
        .map(|(path, status, body)| {
            (
                &*path.to_string().leak(),
                *status,
                &*body.to_string().leak(),
            )
        })
        .collect();
    let answers: Vec<Answer<'_>> = answers.iter().map(answer).collect();
    Facts::read(&answers)
}

const VLLM_MODELS: &str = r#"{"object":"list","data":[{"id":"tiny","object":"model","created":1795422126,"owned_by":"vllm","root":"/models/hf","parent":null,"max_model_len":2048,"permission":[]},{"id":"sql-lora","owned_by":"vllm","root":"/lora","parent":"tiny"}]}"#;
const LLAMACPP_MODELS: &str = r#"{"models":[{"name":"/models/tiny.gguf","model":"/models/tiny.gguf","digest":"","details":{"format":"gguf"}}],"object":"list","data":[{"id":"/models/tiny.gguf","aliases":["/models/tiny.gguf","tiny"],"object":"model","owned_by":"llamacpp","meta":{"n_ctx":2048,"n_ctx_train":4096,"size":3279360}}]}"#;

#[test]
fn vllm_is_known_by_its_models_and_measured_by_its_metrics() {
    let read = facts(&[
        ("/health", 200, ""),
        ("/v1/models", 200, VLLM_MODELS),
        ("/version", 200, r#"{"version":"0.32.0"}"#),
        (
            "/metrics",
            200,
            "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"100\"} 1\nprocess_start_time_seconds 5",
        ),
        ("/props", 404, r#"{"detail":"Not Found"}"#),
    ]);
    assert_eq!(read.engine, Some(Engine::Vllm));
    assert_eq!(
        (read.version.as_deref(), read.ready),
        (Some("0.32.0"), Some(true))
    );
    assert_eq!(
        (read.running, read.waiting, read.kv_used),
        (Some(3), Some(1), Some(0.5))
    );
    assert_eq!(
        (read.kv_tokens, read.started_s, read.slots),
        (Some(1600), Some(5.0), None)
    );
    assert_eq!(read.models[0].context, Some(2048));
    let vitals = read.vitals();
    assert_eq!(vitals.models, ["tiny", "sql-lora"]);
    assert_eq!((vitals.busy, vitals.loaded), (Some(4), None));
    let asleep = facts(&[
        ("/v1/models", 200, VLLM_MODELS),
        ("/is_sleeping", 200, r#"{"is_sleeping":true}"#),
    ]);
    assert_eq!(asleep.vitals().loaded, Some(vec![]));
    let dead = facts(&[("/health", 503, ""), ("/v1/models", 200, VLLM_MODELS)]);
    assert_eq!(dead.ready, Some(false));
}

#[test]
fn llamacpp_is_known_by_its_head_and_says_its_slots() {
    let mut headers = HeaderMap::new();
    headers.insert("server", HeaderValue::from_static("llama.cpp"));
    let loading = Answer {
        path: "/health",
        status: 503,
        headers: &headers,
        body: br#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
    };
    let read = Facts::read(&[loading]);
    assert_eq!(
        (read.engine, read.ready),
        (Some(Engine::LlamaCpp), Some(false))
    );
    let read = facts(&[
        ("/v1/models", 200, LLAMACPP_MODELS),
        // It answers at this path too.
        ("/api/tags", 200, LLAMACPP_MODELS),
        (
            "/props",
            200,
            r#"{"total_slots":4,"model_path":"/models/tiny.gguf","build_info":"b1","is_sleeping":false,"default_generation_settings":{"n_ctx":2048}}"#,
        ),
        (
            "/slots",
            200,
            r#"[{"id":0,"is_processing":true,"n_ctx":2048},{"id":1,"is_processing":false,"n_ctx":2048}]"#,
        ),
    ]);
    assert_eq!(read.engine, Some(Engine::LlamaCpp));
    assert_eq!(
        (read.slots, read.running, read.kv_tokens),
        (Some(2), Some(1), Some(4096))
    );
    let vitals = read.vitals();
    assert_eq!(vitals.models, ["/models/tiny.gguf", "tiny"]);
    assert_eq!(
        vitals.loaded,
        Some(vec!["/models/tiny.gguf".into(), "tiny".into()])
    );
    let several = r#"{"data":[{"id":"a","owned_by":"llamacpp","status":{"value":"loaded"}},{"id":"b","owned_by":"llamacpp","status":{"value":"unloaded"}}]}"#;
    let read = facts(&[("/models", 200, several)]);
    assert_eq!(read.vitals().loaded, Some(vec!["a".into()]));
}

#[test]
fn ollama_says_what_is_loaded_and_nothing_of_its_load() {
    let read = facts(&[
        ("/api/version", 200, r#"{"version":"0.14.0"}"#),
        (
            "/api/tags",
            200,
            r#"{"models":[{"name":"llama3:latest","model":"llama3:latest","digest":"365c"},{"name":"qwen3:8b","digest":"500a"}]}"#,
        ),
        (
            "/api/ps",
            200,
            r#"{"models":[{"name":"qwen3:8b","size_vram":5137025024,"context_length":8192}]}"#,
        ),
        (
            "/v1/models",
            200,
            r#"{"data":[{"id":"llama3:latest","owned_by":"library"},{"id":"qwen3:8b","owned_by":"library"}]}"#,
        ),
    ]);
    assert_eq!(
        (read.engine, read.version.as_deref()),
        (Some(Engine::Ollama), Some("0.14.0"))
    );
    assert_eq!((read.running, read.slots), (None, None));
    assert_eq!(read.vitals().loaded, Some(vec!["qwen3:8b".into()]));
    assert_eq!(read.models[1].context, Some(8192));
    assert_eq!(
        read.vitals().models,
        ["llama3:latest", "llama3", "qwen3:8b"],
        "Ollama takes the first by its short name too"
    );
    let empty = facts(&[("/api/ps", 200, r#"{"models":[]}"#)]);
    assert_eq!(empty.vitals().loaded, Some(vec![]));
    assert_eq!(
        facts(&[("/", 200, "Ollama is running")]).engine,
        Some(Engine::Ollama)
    );
}

#[test]
fn sglang_says_its_load_for_each_rank() {
    let loads = r#"{"timestamp":1,"dp_rank_count":2,"loads":[{"dp_rank":0,"num_running_reqs":3,"num_waiting_reqs":1,"token_usage":0.2,"max_total_num_tokens":1000,"max_running_requests":16},{"dp_rank":1,"num_running_reqs":2,"num_waiting_reqs":0,"token_usage":0.4,"max_total_num_tokens":1000,"max_running_requests":16}]}"#;
    let read = facts(&[
        ("/health", 200, ""),
        ("/v1/loads", 200, loads),
        (
            "/server_info",
            200,
            r#"{"tp_size":1,"version":"0.5.4","internal_states":[{"max_running_requests":8}]}"#,
        ),
    ]);
    assert_eq!(
        (read.engine, read.version.as_deref()),
        (Some(Engine::Sglang), Some("0.5.4"))
    );
    assert_eq!(
        (read.running, read.waiting, read.kv_used),
        (Some(5), Some(1), Some(0.4))
    );
    assert_eq!(read.kv_tokens, Some(2000));
    let old = facts(&[(
        "/get_load",
        200,
        r#"[{"dp_rank":0,"num_reqs":7,"num_waiting_reqs":2}]"#,
    )]);
    assert_eq!((old.running, old.waiting), (Some(7), Some(2)));
    let metrics = facts(&[("/metrics", 200, "sglang_num_running_reqs 1")]);
    assert_eq!(metrics.engine, Some(Engine::Sglang));
}

#[test]
fn others_are_known_by_what_only_they_say() {
    let tgi = facts(&[(
        "/info",
        200,
        r#"{"model_id":"m","max_concurrent_requests":128,"max_total_tokens":4096,"max_batch_total_tokens":16000,"version":"3.3.4","router":"text-generation-router"}"#,
    )]);
    assert_eq!(
        (tgi.engine, tgi.kv_tokens, tgi.models[0].context),
        (Some(Engine::Tgi), Some(16_000), Some(4096))
    );
    assert_eq!(tgi.slots, None, "it takes more at once than it works on");
    let studio = facts(&[
        (
            "/v1/models",
            200,
            r#"{"data":[{"id":"a","object":"model","owned_by":"organization_owner"}]}"#,
        ),
        (
            "/api/v0/models",
            200,
            r#"{"data":[{"id":"a","state":"loaded","max_context_length":4096},{"id":"b","state":"not-loaded"}]}"#,
        ),
    ]);
    assert_eq!(
        (studio.engine, studio.vitals().loaded),
        (Some(Engine::LmStudio), Some(vec!["a".into()]))
    );
    let tabby = facts(&[
        (
            "/v1/models",
            200,
            r#"{"data":[{"id":"a","owned_by":"tabbyAPI"},{"id":"b","owned_by":"tabbyAPI"}]}"#,
        ),
        (
            "/v1/model",
            200,
            r#"{"id":"b","parameters":{"max_seq_len":8192,"cache_size":16384,"max_batch_size":4}}"#,
        ),
    ]);
    assert_eq!(
        (tabby.engine, tabby.slots, tabby.kv_tokens),
        (Some(Engine::TabbyApi), Some(4), Some(16_384))
    );
    assert_eq!(tabby.vitals().loaded, Some(vec!["b".into()]));
    let nim = facts(&[
        (
            "/v1/health/ready",
            200,
            r#"{"object":"health.response","message":"Service is ready."}"#,
        ),
        (
            "/v1/metrics",
            200,
            "num_requests_running 2\nnum_request_max 64\ngpu_cache_usage_perc 0.5",
        ),
    ]);
    assert_eq!(
        (nim.engine, nim.ready, nim.slots),
        (Some(Engine::Nim), Some(true), Some(64))
    );
    let kobold = facts(&[(
        "/api/extra/version",
        200,
        r#"{"result":"KoboldCpp","version":"1.99"}"#,
    )]);
    assert_eq!(kobold.engine, Some(Engine::KoboldCpp));
    let cloud = facts(&[(
        "/v1/models",
        200,
        r#"{"data":[{"id":"gpt-5-mini","owned_by":"system"}]}"#,
    )]);
    assert_eq!(cloud.engine, Some(Engine::OpenAi));
    assert_eq!(
        facts(&[("/version", 200, r#"{"version":"1"}"#)]).engine,
        Some(Engine::Vllm)
    );
}

#[test]
fn the_first_that_tells_is_right() {
    let version = ("/api/version", 200, r#"{"version":"0.1"}"#);
    let both = facts(&[("/v1/models", 200, VLLM_MODELS), version]);
    assert_eq!(
        both.engine,
        Some(Engine::Vllm),
        "something before it answers for others too"
    );
    let tags = facts(&[("/api/tags", 200, LLAMACPP_MODELS)]);
    assert_eq!(tags.engine, None, "llama.cpp answers here as well");
}

#[test]
fn what_makes_no_sense_says_nothing() {
    for (path, body) in [
        ("/v1/models", "[]"),
        ("/v1/models", r#"{"data":{"id":"a"}}"#),
        ("/v1/models", r#"{"data":[{"id":7},null,"x"]}"#),
        ("/api/tags", "<html>"),
        ("/api/ps", "{}"),
        ("/props", r#"{"total_slots":-1}"#),
        ("/slots", r#"{"error":"disabled"}"#),
        ("/server_info", "null"),
        ("/v1/loads", r#"{"loads":5}"#),
        ("/info", r#"{"name":"something else"}"#),
        ("/metrics", "\u{0}\u{1}"),
        ("/anything", "{}"),
    ] {
        assert_eq!(
            facts(&[(path, 200, body)]),
            Facts::default(),
            "{path} {body}"
        );
    }
    assert_eq!(facts(&[("/v1/models", 401, VLLM_MODELS)]), Facts::default());
}

#[test]
fn whatever_is_asked_begins_with_a_slash_and_is_read() {
    use Engine::*;
    let all = [
        Vllm, Sglang, LlamaCpp, Ollama, Tgi, TabbyApi, LmStudio, KoboldCpp, Nim, Triton, TensorRt,
        OpenAi,
    ];
    for engine in all.into_iter().map(Some).chain([None]) {
        let asked = questions(engine);
        assert!(
            !asked.is_empty() && asked.iter().all(|path| path.starts_with('/')),
            "{engine:?}"
        );
        let route = crate::route::Route::of(&http::Method::GET, asked[0]);
        assert!(!route.slot, "{engine:?}");
    }
}
