use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a node behaves. Everything can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// Its name, in every answer.
    pub name: String,
    /// Its card.
    pub gpu: String,
    /// The card's memory, MiB.
    pub vram_mib: u64,
    /// How many requests it can really work on at once; more are counted in `Seen::over_slots`.
    pub slots: u32,
    /// What it does with more than its slots.
    pub overload: Overload,
    /// How long a request takes.
    pub work_ms: u64,
    /// How much longer for each KiB of its body.
    pub work_ms_per_kib: f64,
    /// Divides all work: 2.0 is twice as fast.
    pub speed: f64,
    /// How long it takes to load a model other than the one that is loaded (named by `?model=`).
    pub model_load_ms: u64,
    /// After so many requests it fails as `status` says, or with 500.
    pub fail_after: Option<u64>,
    /// The only status it answers work with.
    pub status: Option<u16>,
    /// The only status it answers `/health` with.
    pub health_status: Option<u16>,
    /// It takes requests and never answers.
    pub hang: bool,
    /// It never answers `/health`.
    pub hang_health: bool,
    /// It does nothing at all, as a process that was stopped: the kernel still takes its connections.
    pub frozen: bool,
    /// It drops connections.
    pub drop: Drop,
    /// How long until the head of an answer, after the work.
    pub slow_head_ms: u64,
    /// Pieces of so many bytes for answers' bodies; 0: whole.
    pub trickle_bytes: usize,
    /// Between two such pieces.
    pub trickle_ms: u64,
    /// Whether it stops working when its client leaves. A renderer does not.
    pub notices_disconnect: bool,
    /// What becomes of the answer to a job that is handed over (`POST /jobs`).
    pub submission: Submission,
    /// Jobs do not end, however long they take.
    pub hold_jobs: bool,
    /// Why jobs come to nothing.
    pub job_error: Option<String>,
    /// How long the results of jobs are; 0: they tell of the request.
    pub result_bytes: usize,
    /// It never answers questions about jobs.
    pub hang_status: bool,
    /// How often it calls whoever wants to hear of a job's end, until somebody listens.
    pub callback_tries: u32,
    /// How much of a shared card's memory it takes with its first work, MiB.
    pub loads_mib: u64,
    /// What becomes of `POST /unload`.
    pub unload: Unload,
    /// How long until it has let go, after it said so.
    pub unload_ms: u64,
}

/// What becomes of a request to let go of a shared card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unload {
    /// It lets go.
    #[default]
    Frees,
    /// It says so, and does not.
    Never,
    /// It answers 500.
    Fails,
}

/// What becomes of the answer to a job that is handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Submission {
    /// It is given.
    #[default]
    Answer,
    /// The connection drops, and the job was not taken.
    DropBefore,
    /// The connection drops, and the job was taken.
    DropAfter,
    /// It never comes, and the job was taken.
    Hang,
}

/// What a node does with more requests than it has slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overload {
    /// It works on them all the same.
    #[default]
    Accept,
    /// It answers 503.
    Refuse,
}

/// When a node drops a request's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drop {
    /// Never.
    #[default]
    Never,
    /// After the request was read, before anything is answered.
    BeforeHead,
    /// In the middle of the answer's body.
    MidBody,
}

// === impl Knobs ===

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            name: "node".into(),
            gpu: String::new(),
            vram_mib: 0,
            slots: 1,
            overload: Overload::Accept,
            work_ms: 0,
            work_ms_per_kib: 0.0,
            speed: 1.0,
            model_load_ms: 0,
            fail_after: None,
            status: None,
            health_status: None,
            hang: false,
            hang_health: false,
            frozen: false,
            drop: Drop::Never,
            slow_head_ms: 0,
            trickle_bytes: 0,
            trickle_ms: 0,
            notices_disconnect: true,
            submission: Submission::Answer,
            hold_jobs: false,
            job_error: None,
            result_bytes: 0,
            hang_status: false,
            callback_tries: 1,
            loads_mib: 0,
            unload: Unload::Frees,
            unload_ms: 0,
        }
    }
}

impl Knobs {
    /// A node of this name with so many slots, otherwise at its best.
    pub fn named(name: &str, slots: u32) -> Self {
        Knobs {
            name: name.into(),
            slots,
            ..Knobs::default()
        }
    }

    /// The same, taking so long for each request.
    pub fn working(mut self, ms: u64) -> Self {
        self.work_ms = ms;
        self
    }

    /// Changes some knobs, given as a JSON object.
    ///
    /// Errors: no object, an unknown knob, a value of the wrong type; nothing changes then.
    pub fn overlay(&self, changes: &[u8]) -> Result<Knobs, String> {
        overlay(self, changes)
    }

    pub(crate) fn work(
        &self,
        body_bytes: usize,
        asked_ms: Option<u64>,
        loads_model: bool,
    ) -> Duration {
        let work = asked_ms.unwrap_or(self.work_ms) as f64
            + self.work_ms_per_kib * body_bytes as f64 / 1024.0;
        let load = if loads_model { self.model_load_ms } else { 0 };
        let ms = work / self.speed.max(0.001) + load as f64;
        Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
    }
}

/// Lays a JSON object of knobs over all of them.
pub(crate) fn overlay<K: Serialize + DeserializeOwned>(
    knobs: &K,
    changes: &[u8],
) -> Result<K, String> {
    let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(changes)
        .map_err(|error| format!("a JSON object of knobs is wanted: {error}"))?;
    let serde_json::Value::Object(mut all) =
        serde_json::to_value(knobs).map_err(|error| error.to_string())?
    else {
        return Err("the knobs are not an object".into());
    };
    all.extend(changes);
    serde_json::from_value(all.into()).map_err(|error| error.to_string())
}
