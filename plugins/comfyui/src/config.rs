//! What a person may type into the kind's block.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// The kind's block in the YAML file. All of it has defaults: `comfyui: {}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The endpoint (`node/endpoint`) whose front end and custom pages are shown; unless said, the first of the pool that is
    /// well.
    pub home: Option<String>,
    /// Models that have different names on different nodes, each line one model, as in
    /// `[[sd_xl_base.safetensors, xl/base_1.0.safetensors]]`. `\` and `/` need no line.
    #[serde(default)]
    pub aliases: Vec<Vec<String>>,
    /// Whose running job `POST /interrupt` without an id ends.
    #[serde(default)]
    pub interrupt: Interrupt,
    /// No two jobs of one client run at the same time: for scripts that tell pictures apart by what was said last.
    #[serde(default)]
    pub one_running_per_client: bool,
    /// How long the history and its files are kept.
    #[serde(default)]
    pub history: History,
    /// Labels that a node must carry to serve this.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The least GPU memory of a node that can serve this, MiB.
    #[serde(default)]
    pub vram_mib: u64,
    /// Where paths of custom nodes lead: the longest that fits counts, as in `routes: {/my_pack: all}`. What is not here leads
    /// to `home`, but for some that are known: what a pack shows of outputs (`/vhs/viewvideo`) is answered as `/view`, what it
    /// keeps in a node's memory (`/etn/image`) is brought to all nodes.
    #[serde(default)]
    pub routes: BTreeMap<String, Route>,
}

/// Whose job is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interrupt {
    /// The caller's: of the same tenant, `comfy-user`, or address.
    #[default]
    Own,
    /// Everybody's.
    All,
}

/// Where requests to a path of custom nodes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// To the home endpoint.
    Home,
    /// To where a job of the caller's runs; else to the home endpoint.
    Owner,
    /// To all; the home endpoint's answer is given.
    All,
    /// What asks for something (GET): to one after the other, until one answers with a status below 400. Anything else: to all.
    First,
    /// As `/view`, without whatever the pack would make of the file; where there is no such file, as `first`.
    View,
}

/// Paths of packs that are known, and where they lead unless the file says otherwise.
pub const KNOWN: [(&str, Route); 5] = [
    ("/etn/image", Route::First),
    ("/vhs/queryvideo", Route::First),
    ("/vhs/viewaudio", Route::View),
    ("/vhs/viewvideo", Route::View),
    ("/viewvideo", Route::View),
];

/// How long what was made is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// How long an entry of the history is kept; `30d` unless said.
    pub keep: Span,
    /// How many entries are kept; 10000 unless said, as on one server.
    pub max: usize,
    /// How long files of the folder `temp` are kept, which previews lie in; `1d` unless said.
    pub temp: Span,
    /// How long files of the folder `output` are kept; for ever unless said.
    pub output: Option<Span>,
}

/// A duration: `90s`, `12h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

const DAY: u64 = 24 * 3600;

impl Default for History {
    fn default() -> Self {
        History {
            keep: Span(Duration::from_secs(30 * DAY)),
            max: 10_000,
            temp: Span(Duration::from_secs(DAY)),
            output: None,
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        let span = humantime::parse_duration(&text);
        let wrong = |_| D::Error::custom(format!("`{text}` is no duration; write `12h` or `30d`"));
        span.map(Span).map_err(wrong)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "ComfyuiSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["12h", "30d"]})
    }
}
