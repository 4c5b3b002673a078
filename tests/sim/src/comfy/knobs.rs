use crate::knobs::Submission;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a simulated ComfyUI behaves. Everything can be changed while it runs. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComfyKnobs {
    /// Divides all work, and the loading of models: 2.0 is twice as fast.
    pub speed: f64,
    /// How long a node of a prompt takes.
    pub node_ms: u64,
    /// How long a node of this class takes.
    pub class_ms: BTreeMap<String, u64>,
    /// How long one step of a sampler takes.
    pub step_ms: u64,
    /// How long it takes to load a model that is not in the card's memory.
    pub model_load_ms: u64,
    /// How much longer for each GiB of it.
    pub model_load_ms_per_gib: u64,
    /// Whether samplers send previews.
    pub previews: bool,
    /// How large a preview is at least, bytes: what it lacks is put behind the picture.
    pub preview_bytes: usize,
    /// Whether nodes say that they work, in frames of text that go to everybody.
    pub texts: bool,
    /// What others have taken of the card's memory, MiB.
    pub taken_mib: u64,
    /// A node of this class runs out of memory.
    pub out_of_memory_at: Option<String>,
    /// A node of this class fails.
    pub fail_at: Option<String>,
    /// A node of this class never ends, and hears no interrupt.
    pub hang_at: Option<String>,
    /// The process dies when it comes to a node of this class.
    pub crash_at: Option<String>,
    /// How long between the event that ends a prompt, and its entry in the history.
    pub history_lag_ms: u64,
    /// What becomes of the answer to `POST /prompt`.
    pub submission: Submission,
    /// `POST /prompt` is answered 429 while so many are in the queue, as a hosted one does.
    pub queue_limit: Option<usize>,
    /// How long until any request is answered.
    pub answer_ms: u64,
    /// The only status it answers with.
    pub status: Option<u16>,
    /// It takes requests and never answers.
    pub hang: bool,
    /// Sockets stay open, and nothing comes.
    pub silent_sockets: bool,
    /// New sockets are answered 503.
    pub refuse_sockets: bool,
    /// It does nothing at all, as a process that was stopped: the kernel still takes its connections.
    pub frozen: bool,
    /// How much its clock goes before or behind.
    pub clock_skew_ms: i64,
}

// === impl ComfyKnobs ===

impl Default for ComfyKnobs {
    fn default() -> Self {
        ComfyKnobs {
            speed: 1.0,
            node_ms: 0,
            class_ms: BTreeMap::new(),
            step_ms: 1,
            model_load_ms: 0,
            model_load_ms_per_gib: 0,
            previews: true,
            preview_bytes: 0,
            texts: false,
            taken_mib: 0,
            out_of_memory_at: None,
            fail_at: None,
            hang_at: None,
            crash_at: None,
            history_lag_ms: 0,
            submission: Submission::Answer,
            queue_limit: None,
            answer_ms: 0,
            status: None,
            hang: false,
            silent_sockets: false,
            refuse_sockets: false,
            frozen: false,
            clock_skew_ms: 0,
        }
    }
}

impl ComfyKnobs {
    /// The same, so many times as fast.
    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = speed;
        self
    }

    /// Changes some knobs, given as a JSON object.
    ///
    /// Errors: no object, an unknown knob, a value of the wrong type; nothing changes then.
    pub fn overlay(&self, changes: &[u8]) -> Result<ComfyKnobs, String> {
        crate::knobs::overlay(self, changes)
    }

    /// How long work takes that takes so long at speed 1.
    pub(crate) fn time(&self, ms: f64) -> Duration {
        Duration::try_from_secs_f64(ms / 1000.0 / self.speed.max(0.001)).unwrap_or_default()
    }

    pub(crate) fn node_time(&self, class: &str) -> Duration {
        let ms = self.class_ms.get(class).unwrap_or(&self.node_ms);
        self.time(*ms as f64)
    }

    pub(crate) fn load_time(&self, mib: u64) -> Duration {
        let more = self.model_load_ms_per_gib * mib / 1024;
        self.time((self.model_load_ms + more) as f64)
    }
}
