use super::batch::Step;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a simulated engine behaves. Everything can be changed while it runs. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmKnobs {
    /// Divides all work, and the loading of models: 2.0 is twice as fast.
    pub speed: f64,
    /// How many tokens of prompts it reads in a second.
    pub prefill_tps: f64,
    /// How long a step takes: each answer at work grows by a token.
    pub step_ms: f64,
    /// How much longer for each answer.
    pub step_ms_per_stream: f64,
    /// How long it takes to load a model.
    pub load_ms: u64,
    /// How much longer for each GiB of it.
    pub load_ms_per_gib: u64,
    /// How long answers are about, in tokens, where their request does not say it.
    pub answer_tokens: f64,
    /// Answers end where they would, though their request allows more.
    pub stops_early: bool,
    /// Requests that bring tools are answered by a call of the first one.
    pub calls_tools: bool,
    /// More waiting requests than that are refused, as the engine refuses them.
    pub queue_limit: Option<usize>,
    /// The only status work is answered with, before the first byte of an answer.
    pub status: Option<u16>,
    /// That many requests get that status, and then no more of them.
    pub status_times: Option<u64>,
    /// What `Retry-After` says beside that status, or beside a refusal.
    pub retry_after: Option<String>,
    /// The connection drops after so many tokens of an answer; 0: before its head.
    pub drop_after: Option<usize>,
    /// The answer breaks off with the engine's own error after so many tokens; 0: instead of the first one.
    pub error_after: Option<usize>,
    /// Nothing comes any more after so many tokens of an answer, until this is changed.
    pub stall_after: Option<usize>,
    /// How long until the head of an answer.
    pub answer_ms: u64,
    /// It takes work and never answers.
    pub hang: bool,
    /// Whether it stops working when its client leaves.
    pub notices_disconnect: bool,
    /// The only status `/health`, or what the engine has for it, is answered with.
    pub health_status: Option<u16>,
    /// How long until that is answered.
    pub health_ms: u64,
    /// Neither that nor any other question about the engine is answered.
    pub hang_health: bool,
    /// Whether it has `/metrics`, and llama.cpp `/slots`.
    pub metrics: bool,
    /// New connections are refused, as where nobody listens.
    pub refuse: bool,
    /// It does nothing at all, as a process that was stopped: the kernel still takes its connections.
    pub frozen: bool,
}

// === impl LlmKnobs ===

impl Default for LlmKnobs {
    fn default() -> Self {
        LlmKnobs {
            speed: 1.0,
            prefill_tps: 8000.0,
            step_ms: 10.0,
            step_ms_per_stream: 0.5,
            load_ms: 0,
            load_ms_per_gib: 0,
            answer_tokens: 32.0,
            stops_early: false,
            calls_tools: false,
            queue_limit: None,
            status: None,
            status_times: None,
            retry_after: None,
            drop_after: None,
            error_after: None,
            stall_after: None,
            answer_ms: 0,
            hang: false,
            notices_disconnect: true,
            health_status: None,
            health_ms: 0,
            hang_health: false,
            metrics: true,
            refuse: false,
            frozen: false,
        }
    }
}

impl LlmKnobs {
    /// As fast as it goes: for tests that care for what is said, not when.
    pub fn instant() -> Self {
        LlmKnobs {
            speed: 1000.0,
            ..LlmKnobs::default()
        }
    }

    /// The same, so many times as fast.
    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = speed;
        self
    }

    /// Changes some knobs, given as a JSON object.
    ///
    /// Errors: no object, an unknown knob, a value of the wrong type; nothing changes then.
    pub fn overlay(&self, changes: &[u8]) -> Result<LlmKnobs, String> {
        crate::knobs::overlay(self, changes)
    }

    /// How long a step takes.
    pub(crate) fn step(&self, step: &Step) -> Duration {
        let streams = step.writes.len() as f64;
        let reading = step.tokens() as f64 / self.prefill_tps.max(0.001) * 1000.0;
        self.time(self.step_ms + self.step_ms_per_stream * streams + reading)
    }

    pub(crate) fn load(&self, mib: u64) -> Duration {
        self.time((self.load_ms + self.load_ms_per_gib * mib / 1024) as f64)
    }

    fn time(&self, ms: f64) -> Duration {
        Duration::try_from_secs_f64(ms / 1000.0 / self.speed.max(0.001)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_longer_for_each_answer_and_for_what_is_read_beside_them() {
        let knobs = LlmKnobs {
            prefill_tps: 1000.0,
            step_ms: 10.0,
            step_ms_per_stream: 2.0,
            ..LlmKnobs::default()
        };
        let step = |read: usize, streams: u64| Step {
            reads: if read > 0 {
                vec![(99, read)]
            } else {
                Vec::new()
            },
            writes: (0..streams).collect(),
        };
        for (read, streams, ms) in [(0, 1, 12), (0, 5, 20), (100, 0, 110), (100, 5, 120)] {
            let took = knobs.step(&step(read, streams));
            assert_eq!(took, Duration::from_millis(ms), "{read} {streams}");
        }
        let faster = knobs.speed(2.0);
        assert_eq!(faster.step(&step(0, 5)), Duration::from_millis(10));
    }
}
