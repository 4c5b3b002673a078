//! What a node is for as long as its process runs: its version, card, models and classes.

use super::knobs::ComfyKnobs;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Instant;

/// What a simulated ComfyUI is.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name: it is in the log of what it saw, and decides what is random.
    pub name: String,
    /// Which server it claims to be, and behaves as.
    pub version: Version,
    /// Where it listens; port 0: any.
    pub listen: SocketAddr,
    /// Its card.
    pub gpu: String,
    /// The card's memory, MiB.
    pub vram_mib: u64,
    /// The models in its folders.
    pub models: Vec<Model>,
    /// Classes of the built-in library that it has not.
    pub without: Vec<String>,
    /// Classes that it has besides, each doing what one of the library does: `("MyBlur", "ImageBlur")`.
    pub extra: Vec<(String, String)>,
    /// It runs on Windows: names of files in folders are written with `\`.
    pub windows: bool,
    /// `--enable-cors-header`: replaces the rule about origins.
    pub cors: Option<String>,
    /// Previews end with when they were sent: nanoseconds since this, as a big-endian `u64` behind the picture.
    pub stamps_since: Option<Instant>,
    /// How it behaves at first.
    pub knobs: ComfyKnobs,
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The folder: `checkpoints`, `loras`, `vae`, ..
    pub folder: String,
    /// Its name there, with `/` even on Windows.
    pub name: String,
    /// How much of the card's memory it takes, MiB.
    pub mib: u64,
}

/// A version of the server. What differs between them is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

// === impl Spec ===

impl Spec {
    /// The server of the recorded transcripts, with the one model that they use.
    pub fn named(name: &str) -> Self {
        Spec {
            name: name.into(),
            version: Version::RECORDED,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            gpu: "NVIDIA GeForce RTX 4090".into(),
            vram_mib: 24 * 1024,
            models: vec![Model::new("checkpoints", "tiny_sd3.safetensors", 275)],
            without: Vec::new(),
            extra: Vec::new(),
            windows: false,
            cors: None,
            stamps_since: None,
            knobs: ComfyKnobs::default(),
        }
    }

    /// The same, in another version.
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The same, with another model.
    pub fn model(mut self, folder: &str, name: &str, mib: u64) -> Self {
        self.models.push(Model::new(folder, name, mib));
        self
    }

    /// The same, behaving so.
    pub fn knobs(mut self, knobs: ComfyKnobs) -> Self {
        self.knobs = knobs;
        self
    }

    /// The names of a folder's models, as this system writes and sorts them.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let models = self.models.iter().filter(|model| model.folder == folder);
        let mut names: Vec<String> = models.map(|model| self.native(&model.name)).collect();
        names.sort();
        names
    }

    /// The model that is named so.
    pub(crate) fn find(&self, folder: &str, native: &str) -> Option<&Model> {
        let mut models = self.models.iter();
        models.find(|model| model.folder == folder && self.native(&model.name) == native)
    }

    /// A path as this system writes it.
    pub(crate) fn native(&self, path: &str) -> String {
        if self.windows {
            path.replace('/', "\\")
        } else {
            path.to_owned()
        }
    }
}

impl Model {
    /// One in a folder.
    pub fn new(folder: &str, name: &str, mib: u64) -> Self {
        Model {
            folder: folder.into(),
            name: name.into(),
            mib,
        }
    }
}

// === impl Version ===

impl Version {
    /// The one in the recorded transcripts.
    pub const RECORDED: Version = Version(0, 3, 64);
    /// One of August 2026: strict ids, `/api/jobs`, a cancel that cannot hit another job.
    pub const LATE: Version = Version(0, 33, 0);

    /// A client may choose the id of its prompt (July 2025).
    pub(crate) fn takes_prompt_id(self) -> bool {
        self >= Version(0, 3, 45)
    }

    /// `progress_state`, `feature_flags` and previews that tell what they belong to (July 2025).
    pub(crate) fn tells_progress_state(self) -> bool {
        self >= Version(0, 3, 45)
    }

    /// `/interrupt` can name a prompt (September 2025).
    pub(crate) fn interrupts_one(self) -> bool {
        self >= Version(0, 3, 57)
    }

    /// `create_time` is stamped, and secrets are kept out of `/queue` (November 2025).
    pub(crate) fn stamps_create_time(self) -> bool {
        self >= Version(0, 3, 69)
    }

    /// `/api/jobs` (December 2025).
    pub(crate) fn has_jobs(self) -> bool {
        self >= Version(0, 5, 0)
    }

    /// An unknown class is a `missing_node_type`, a cycle is found. (2026; which release began with it is not known.)
    pub(crate) fn names_what_is_wrong(self) -> bool {
        self >= Version(0, 20, 0)
    }

    /// Only canonical UUIDs as ids of prompts, and `/api/jobs/{id}/cancel` (June 2026).
    pub(crate) fn is_strict(self) -> bool {
        self >= Version(0, 26, 0)
    }

    /// What earlier prompts made is kept for later ones, not only for the next (2026).
    pub(crate) fn keeps_more_than_one_prompt(self) -> bool {
        self >= Version(0, 20, 0)
    }
}

impl Display for Version {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some([major, minor, patch]) => Ok(Version(*major, *minor, *patch)),
            _ => Err(format!("a version is three numbers, as 0.3.64, got {text}")),
        }
    }
}
