//! What engines count, in Prometheus' text format: the few lines that say how busy one is.
//!
//! Names as of 2026; a list for each, since engines renamed theirs and NVIDIA's NIM leaves prefixes off.

use crate::engines::Engine;

/// What an engine's metrics say of it now; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Whose they are.
    pub engine: Option<Engine>,
    /// Requests at work, over all ranks.
    pub running: Option<u32>,
    /// Requests that wait, over all ranks.
    pub waiting: Option<u32>,
    /// How much of the memory for what was computed is in use, 0.0 to 1.0; of several ranks the fullest.
    pub kv_used: Option<f64>,
    /// How many tokens that memory holds, over all ranks.
    pub kv_tokens: Option<u64>,
    /// How many requests may run at once.
    pub slots: Option<u32>,
    /// Tokens of prompts, since it started.
    pub prompt_tokens: Option<f64>,
    /// Tokens that were made, since it started.
    pub decode_tokens: Option<f64>,
    /// When its process started, seconds since 1970: another value is another process, whose caches are empty.
    pub started_s: Option<f64>,
}

/// A line: a name, its labels, a value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

// === impl Metrics ===

impl Metrics {
    /// Reads them. Lines that make no sense are passed over.
    pub fn read(text: &str) -> Self {
        let mut metrics = Metrics::default();
        for sample in text.lines().filter_map(Sample::read) {
            metrics.add(&sample);
        }
        metrics
    }

    fn add(&mut self, sample: &Sample<'_>) {
        if self.engine.is_none() {
            self.engine = engine_of(sample.name);
        }
        // SGLang's prefix is written in two ways.
        let name = sample.name.strip_prefix("sglang_").unwrap_or(sample.name);
        let name = name.strip_prefix("sglang:").unwrap_or(name);
        let value = sample.value;
        match name {
            "vllm:num_requests_running"
            | "num_requests_running"
            | "num_running_reqs"
            | "llamacpp:requests_processing"
            | "tgi_batch_current_size"
            | "trtllm_num_requests_running" => sum(&mut self.running, value),
            "vllm:num_requests_waiting"
            | "num_requests_waiting"
            | "num_queue_reqs"
            | "llamacpp:requests_deferred"
            | "tgi_queue_size"
            | "trtllm_num_requests_waiting"
            | "nv_inference_pending_request_count" => sum(&mut self.waiting, value),
            "nv_trt_llm_request_metrics" => match sample.label("request_type") {
                Some("scheduled") => sum(&mut self.running, value),
                Some("waiting") => sum(&mut self.waiting, value),
                _ => {}
            },
            "vllm:kv_cache_usage_perc"
            | "vllm:gpu_cache_usage_perc"
            | "kv_cache_usage_perc"
            | "gpu_cache_usage_perc"
            | "token_usage"
            | "llamacpp:kv_cache_usage_ratio"
            | "trtllm_kv_cache_utilization" => most(&mut self.kv_used, value),
            "nv_trt_llm_kv_cache_block_metrics"
                if sample.label("kv_cache_block_type") == Some("fraction") =>
            {
                most(&mut self.kv_used, value);
            }
            "vllm:cache_config_info" => {
                let number = |name| sample.label(name)?.parse::<u64>().ok();
                if let (Some(size), Some(blocks)) = (number("block_size"), number("num_gpu_blocks"))
                {
                    let tokens = self.kv_tokens.unwrap_or(0);
                    self.kv_tokens = Some(tokens.saturating_add(size.saturating_mul(blocks)));
                }
            }
            "max_total_num_tokens" if value >= 0.0 => {
                self.kv_tokens = Some(self.kv_tokens.unwrap_or(0).saturating_add(value as u64));
            }
            "max_running_requests" | "num_request_max" => sum(&mut self.slots, value),
            "vllm:prompt_tokens_total" | "prompt_tokens_total" | "llamacpp:prompt_tokens_total" => {
                *self.prompt_tokens.get_or_insert(0.0) += value;
            }
            "vllm:generation_tokens_total"
            | "generation_tokens_total"
            | "llamacpp:tokens_predicted_total" => *self.decode_tokens.get_or_insert(0.0) += value,
            "process_start_time_seconds" => self.started_s = Some(value),
            _ => {}
        }
    }
}

fn engine_of(name: &str) -> Option<Engine> {
    let prefixes = [
        ("vllm:", Engine::Vllm),
        ("sglang:", Engine::Sglang),
        ("sglang_", Engine::Sglang),
        ("llamacpp:", Engine::LlamaCpp),
        ("tgi_", Engine::Tgi),
        ("nv_", Engine::Triton),
        ("trtllm_", Engine::TensorRt),
        // NIM has vLLM's names without a prefix.
        ("num_requests_running", Engine::Nim),
        ("gpu_cache_usage_perc", Engine::Nim),
    ];
    let found = prefixes
        .into_iter()
        .find(|(prefix, _)| name.starts_with(prefix));
    found.map(|(_, engine)| engine)
}

fn sum(place: &mut Option<u32>, value: f64) {
    if value.is_finite() && value >= 0.0 {
        *place = Some(place.unwrap_or(0).saturating_add(value as u32));
    }
}

fn most(place: &mut Option<f64>, value: f64) {
    if value.is_finite() {
        // SGLang's rounding and vLLM's name ("perc") promise less than they hold: it is a share.
        let share = value.clamp(0.0, 1.0);
        *place = Some(place.map_or(share, |other| other.max(share)));
    }
}

// === impl Sample ===

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let end = line.find(['{', ' ', '\t'])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inner) => {
                let end = end_of_labels(inner)?;
                (&inner[..end], &inner[end + 1..])
            }
            None => ("", rest),
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Sample {
            name,
            labels,
            value,
        })
    }

    /// A label's value, its escapes not read: those that are asked for have none.
    fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (key, after) = rest.split_once("=\"")?;
            let end = end_of_text(after)?;
            if key.trim_matches([',', ' ']) == name {
                return Some(&after[..end]);
            }
            rest = &after[end + 1..];
        }
    }
}

/// Where the closing quote is.
fn end_of_text(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Where the closing brace is: one within a text is none.
fn end_of_labels(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = at + text[at..].find(['"', '}'])?;
        if text.as_bytes()[found] == b'}' {
            return Some(found);
        }
        at = found + 1 + end_of_text(&text[found + 1..])? + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vllm_is_read_over_all_its_ranks() {
        let text = r#"
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a}b\"c{"} 1.0
vllm:num_requests_waiting_by_reason{reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="1000",swap="x, num_gpu_blocks=\"5\""} 1.0
vllm:prompt_tokens_total{engine="0"} 1.5e+06
vllm:generation_tokens_total{engine="0"} 200.0
process_start_time_seconds 1.79542e+09
vllm:odd NaN
nonsense
vllm:unfinished{a="b
"#;
        let wants = Metrics {
            engine: Some(Engine::Vllm),
            running: Some(5),
            waiting: Some(1),
            kv_used: Some(0.75),
            kv_tokens: Some(16_000),
            slots: None,
            prompt_tokens: Some(1.5e6),
            decode_tokens: Some(200.0),
            started_s: Some(1.79542e9),
        };
        assert_eq!(Metrics::read(text), wants);
    }

    #[test]
    fn each_engine_has_its_own_names() {
        let check = |text: &str, engine, running, waiting, kv| {
            let read = Metrics::read(text);
            let said = (read.engine, read.running, read.waiting, read.kv_used);
            assert_eq!(said, (Some(engine), running, waiting, kv), "{text}");
        };
        check(
            "sglang:num_running_reqs{m=\"a\"} 4\nsglang:num_queue_reqs 2\nsglang:token_usage 0.5",
            Engine::Sglang,
            Some(4),
            Some(2),
            Some(0.5),
        );
        check(
            "sglang_num_running_reqs 4\nsglang_token_usage 1.5",
            Engine::Sglang,
            Some(4),
            None,
            Some(1.0),
        );
        check(
            "llamacpp:requests_processing 1\nllamacpp:requests_deferred 7\nllamacpp:prompt_tokens_total 5",
            Engine::LlamaCpp,
            Some(1),
            Some(7),
            None,
        );
        check(
            "tgi_queue_size 3\ntgi_batch_current_size 8",
            Engine::Tgi,
            Some(8),
            Some(3),
            None,
        );
        check(
            "num_requests_running 2\ngpu_cache_usage_perc 0.1\nnum_request_max 64",
            Engine::Nim,
            Some(2),
            None,
            Some(0.1),
        );
        check(
            "trtllm_num_requests_running 2\ntrtllm_num_requests_waiting 1\ntrtllm_kv_cache_utilization 0.2",
            Engine::TensorRt,
            Some(2),
            Some(1),
            Some(0.2),
        );
        check(
            "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\"} 5\nnv_trt_llm_request_metrics{request_type=\"scheduled\"} 6\nnv_trt_llm_request_metrics{request_type=\"max\"} 512\nnv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.3",
            Engine::Triton,
            Some(6),
            Some(5),
            Some(0.3),
        );
        assert_eq!(
            Metrics::read("python_gc_objects_collected_total 5\n"),
            Metrics::default()
        );
        assert_eq!(Metrics::read(""), Metrics::default());
    }

    #[test]
    fn values_that_make_no_sense_say_nothing() {
        let read = Metrics::read(
            "vllm:num_requests_running -1\nvllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc +Inf\nsglang:max_total_num_tokens -5",
        );
        assert_eq!(
            (read.running, read.waiting, read.kv_used, read.kv_tokens),
            (None, None, None, None)
        );
        let read = Metrics::read("vllm:num_requests_running 1e300");
        assert_eq!(read.running, Some(u32::MAX));
    }
}
