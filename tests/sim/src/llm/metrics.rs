//! `/metrics`, with the engines' own names.

use super::batch::Counts;
use super::histogram::Histogram;
use super::info::blocks;
use super::server::Server;
use super::shelf::State;
use std::fmt::{Display, Write};

/// vLLM's, without those of Python and of its web server.
pub(crate) fn vllm(server: &Server) -> String {
    let runner = &server.runners[0];
    let (running, waiting, counts, used) = runner.look(|batch| {
        (
            batch.running().len(),
            batch.waiting(),
            batch.counts(),
            batch.used(),
        )
    });
    let latencies = runner.latencies();
    let awake = server.shelf.state(0) == State::There;
    let model = &server.spec.models[0].name;
    let mut text = Text {
        text: String::new(),
        labels: format!("engine=\"0\",model_name=\"{model}\""),
    };
    text.gauge(
        "num_requests_running",
        "Number of requests in model execution batches.",
        running as f64,
    );
    text.gauge(
        "num_requests_waiting",
        "Number of requests waiting to be processed.",
        waiting as f64,
    );
    text.gauge_of(
        "engine_sleep_state",
        "Engine sleep state.",
        &[
            ("sleep_state=\"awake\"", usize::from(awake)),
            ("sleep_state=\"weights_offloaded\"", usize::from(!awake)),
            ("sleep_state=\"discard_all\"", 0),
        ],
    );
    let usage = used as f64 / server.spec.kv_tokens.max(1) as f64;
    text.gauge(
        "kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        usage,
    );
    let queries = "Prefix cache queries, in terms of number of queried tokens.";
    text.counter("prefix_cache_queries", queries, counts.prompt);
    text.counter(
        "prefix_cache_hits",
        "Prefix cache hits, in terms of number of cached tokens.",
        counts.hit,
    );
    text.counter(
        "num_preemptions",
        "Cumulative number of preemption from the engine.",
        0,
    );
    text.counter(
        "prompt_tokens",
        "Number of prefill tokens processed.",
        counts.prompt,
    );
    text.counter(
        "prompt_tokens_cached",
        "Number of cached prompt tokens.",
        counts.hit,
    );
    text.counter(
        "generation_tokens",
        "Number of generation tokens processed.",
        counts.written,
    );
    text.counter(
        "request_success",
        "Count of successfully processed requests.",
        latencies.whole.count,
    );
    for (name, help, histogram) in [
        (
            "time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            &latencies.first,
        ),
        (
            "inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            &latencies.between,
        ),
        (
            "e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            &latencies.whole,
        ),
        (
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            &latencies.queue,
        ),
        (
            "request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            &latencies.prefill,
        ),
        (
            "request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            &latencies.decode,
        ),
    ] {
        text.histogram(name, help, histogram);
    }
    let config = format!(
        "block_size=\"{}\",cache_dtype=\"auto\",enable_prefix_caching=\"True\",engine=\"0\",\
         gpu_memory_utilization=\"0.9\",num_gpu_blocks=\"{}\"",
        server.spec.block_tokens,
        blocks(server)
    );
    text.head(
        "cache_config_info",
        "Information of the LLMEngine CacheConfig",
        "gauge",
    );
    let _ = writeln!(text.text, "vllm:cache_config_info{{{config}}} 1.0");
    text.text
}

struct Text {
    text: String,
    labels: String,
}

// === impl Text ===

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(
            self.text,
            "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}\n"
        );
    }

    fn line(&mut self, name: &str, more: &str, value: impl Display) {
        let comma = if more.is_empty() { "" } else { "," };
        let labels = &self.labels;
        let _ = writeln!(self.text, "vllm:{name}{{{labels}{comma}{more}}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.line(name, "", float(value));
    }

    fn gauge_of(&mut self, name: &str, help: &str, values: &[(&str, usize)]) {
        self.head(name, help, "gauge");
        for (more, value) in values {
            self.line(name, more, float(*value as f64));
        }
    }

    /// A counter's name has `_total` behind it.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.head(&name, help, "counter");
        self.line(&name, "", float(value as f64));
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.bounds.iter().zip(&histogram.at_most) {
            self.line(
                &bucket,
                &format!("le=\"{}\"", float(*bound)),
                float(*count as f64),
            );
        }
        self.line(&bucket, "le=\"+Inf\"", float(histogram.count as f64));
        self.line(&format!("{name}_count"), "", float(histogram.count as f64));
        self.line(&format!("{name}_sum"), "", float(histogram.sum));
    }
}

/// A number as Python writes it.
fn float(number: f64) -> String {
    format!("{number:?}")
}

/// llama.cpp's.
pub(crate) fn llama_cpp(server: &Server, model: usize) -> String {
    let runner = &server.runners[model];
    let (running, waiting, counts) =
        runner.look(|batch| (batch.running().len(), batch.waiting(), batch.counts()));
    let latencies = runner.latencies();
    let (reading, writing) = (latencies.prefill.sum, latencies.decode.sum);
    let Counts {
        prompt,
        hit,
        written,
        steps,
        busy,
        longest,
        ..
    } = counts;
    let read = prompt - hit;
    let rate = |count: u64, seconds: f64| {
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    };
    let each = if steps > 0 {
        busy as f64 / steps as f64
    } else {
        0.0
    };
    let rows: [(&str, &str, &str, f64); 15] = [
        (
            "prompt_tokens_total",
            "Number of prompt tokens processed, excluding cached tokens",
            "counter",
            read as f64,
        ),
        (
            "prompt_tokens_cached_total",
            "Number of prompt tokens reused from the cache",
            "counter",
            hit as f64,
        ),
        (
            "prompt_seconds_total",
            "Total time spent processing prompts",
            "counter",
            reading,
        ),
        (
            "tokens_predicted_total",
            "Number of generation tokens processed",
            "counter",
            written as f64,
        ),
        (
            "tokens_predicted_seconds_total",
            "Total time spent generating tokens",
            "counter",
            writing,
        ),
        (
            "n_decode_total",
            "Total number of llama_decode() calls, excluding speculative decoding and multimodal decoding",
            "counter",
            steps as f64,
        ),
        (
            "n_tokens_max",
            "Largest observed sequence length (prompt + generation)",
            "counter",
            longest as f64,
        ),
        (
            "spec_decode_num_draft_tokens_total",
            "Speculative: Total draft tokens generated",
            "counter",
            0.0,
        ),
        (
            "spec_decode_num_accepted_tokens_total",
            "Speculative: Total draft tokens accepted by the target model",
            "counter",
            0.0,
        ),
        (
            "spec_decode_num_drafts_total",
            "Speculative: Total speculative decoding verification steps",
            "counter",
            0.0,
        ),
        (
            "prompt_tokens_seconds",
            "Average prompt throughput in tokens/s",
            "gauge",
            rate(read, reading),
        ),
        (
            "predicted_tokens_seconds",
            "Average generation throughput in tokens/s",
            "gauge",
            rate(written, writing),
        ),
        (
            "requests_processing",
            "Number of requests processing",
            "gauge",
            running as f64,
        ),
        (
            "requests_deferred",
            "Number of requests deferred",
            "gauge",
            waiting as f64,
        ),
        (
            "n_busy_slots_per_decode",
            "Average number of busy slots per llama_decode() call",
            "gauge",
            each,
        ),
    ];
    let mut text = String::new();
    for (name, help, kind, value) in rows {
        let _ = write!(
            text,
            "# HELP llamacpp:{name} {help}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n"
        );
    }
    text
}
