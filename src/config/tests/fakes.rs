use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use tabane_api::*;

/// `http` with a path to probe; refuses one that does not begin with a slash.
pub(super) struct Http;

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpConfig {
    /// The path that is probed.
    probe: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Probe {
    path: String,
    #[serde(default)]
    port: u16,
}

#[async_trait]
impl Service for Http {
    fn classify(&self, ask: &Ask<'_>, _: Option<&Bytes>) -> Result<Intent, Refusal> {
        Ok(Intent::Forward(Need::of_class(ask.path)))
    }
    async fn probe(&self, _: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        Ok(Vitals::default())
    }
}

impl Kind for Http {
    const NAME: &'static str = "http";
    type Config = HttpConfig;
    fn new(config: HttpConfig, _: Option<Arc<Self>>) -> Result<Self, String> {
        match config.probe {
            Some(probe) if !probe.path.starts_with('/') => {
                Err("the probe's path must begin with `/`; write `/health`".to_owned())
            }
            _ => Ok(Http),
        }
    }
}

/// `keeps` takes work in for later.
pub(super) struct Keeps;

#[async_trait]
impl Service for Keeps {
    fn classify(&self, _: &Ask<'_>, _: Option<&Bytes>) -> Result<Intent, Refusal> {
        Ok(Intent::Own { max: 0 })
    }
    async fn probe(&self, _: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        Ok(Vitals::default())
    }
}

impl Kind for Keeps {
    const NAME: &'static str = "keeps";
    const KEEPS: bool = true;
    type Config = NoConfig;
    fn new(_: NoConfig, _: Option<Arc<Self>>) -> Result<Self, String> {
        Ok(Keeps)
    }
}

pub(super) struct Pick;

impl Policy for Pick {
    fn pick(&self, _: &Need, among: &[Candidate<'_>], _: &mut dyn Draw) -> Option<usize> {
        (!among.is_empty()).then_some(0)
    }
}

impl PolicyKind for Pick {
    const NAME: &'static str = "least_loaded";
    type Config = NoConfig;
    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Pick)
    }
}

macro_rules! policy {
    ($type:ident, $name:literal, $config:ty) => {
        pub(super) struct $type;
        impl Policy for $type {
            fn pick(
                &self,
                need: &Need,
                among: &[Candidate<'_>],
                draw: &mut dyn Draw,
            ) -> Option<usize> {
                Pick.pick(need, among, draw)
            }
        }
        impl PolicyKind for $type {
            const NAME: &'static str = $name;
            type Config = $config;
            fn new(_: $config) -> Result<Self, String> {
                Ok($type)
            }
        }
    };
}

policy!(RoundRobin, "round_robin", NoConfig);
policy!(First, "first", NoConfig);
policy!(Hash, "hash", HashConfig);
policy!(Sticky, "sticky", StickyConfig);

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HashConfig {
    key: HashKey,
    #[serde(default)]
    strict: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum HashKey {
    Header(String),
    Cookie(String),
    Query(String),
    Json(String),
    Address,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StickyConfig {
    cookie: String,
    #[serde(default)]
    when_full: WhenFull,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WhenFull {
    #[default]
    Wait,
    Move,
}

pub(super) fn registry() -> Registry {
    Registry::default()
        .kind::<Http>()
        .kind::<Keeps>()
        .policy::<Pick>()
        .policy::<RoundRobin>()
        .policy::<First>()
        .policy::<Hash>()
        .policy::<Sticky>()
}

pub(super) fn no_env(_: &str) -> Option<String> {
    None
}

/// A folder of the repository.
pub(super) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
