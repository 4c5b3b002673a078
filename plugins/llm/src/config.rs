//! What a person may type into the kind's block.

use crate::engines::Engine;
use http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The kind's block in the YAML file. All of it has defaults: `llm: {}`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What an endpoint serves, where its engine does not say, or only some of what it says, as in
    /// `models: {rack-1/llm: [qwen3:8b]}`.
    pub models: BTreeMap<String, Vec<String>>,
    /// Which engine stands behind an endpoint, where asking does not tell, as in `engines: {cloud/openai: openai}`.
    pub engines: BTreeMap<String, Engine>,
    /// Names by purpose, each with the models that may stand for it, tried in their order, as in
    /// `aliases: {fast: [qwen3:8b, {model: gpt-5-mini, at: cloud/openai}]}`.
    pub aliases: BTreeMap<String, Choices>,
    /// The model, or alias, of requests that name none; unless said, they go to any endpoint as they are.
    pub default_model: Option<String>,
    /// What becomes of a request for a model that no endpoint is known to have.
    pub unknown_models: Unknown,
    /// Whether prompts go where their beginning was computed before: `true`, `false`, or how much is remembered, as in
    /// `prefix: {tokens: 500000}`.
    pub prefix: Prefix,
    /// How long a stream may be silent until something is said that means nothing, so that nobody takes it for dead: `15s`
    /// unless said, or `off`.
    pub keep_alive: KeepAlive,
    /// What tenants may ask for, each line for some, as in `limits: [{tenant: students, tokens_per_minute: 20000}]`; all lines
    /// that fit a request count.
    pub limits: Vec<Limits>,
    /// Whether clients may have engines pull, delete, load and unload models, sleep, and forget caches.
    pub manage: bool,
    /// Labels that a node must carry to serve this.
    pub labels: BTreeMap<String, String>,
    /// The least GPU memory of a node that can serve this, MiB.
    pub vram_mib: u64,
}

/// The models that may stand for an alias, in order: one, or a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices(pub Vec<Choice>);

/// A model that may stand for an alias: its name, or more.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The model's name, as engines know it.
    pub model: String,
    /// The endpoint that it is to run on (`node/endpoint`); unless said, any of the pool that has it.
    pub at: Option<String>,
    /// Headers that requests are sent there with, instead of the client's: a cloud's key, say.
    pub headers: BTreeMap<String, Hidden>,
    /// For how long an endpoint is waited for before the next model is tried; the last one is waited for as long as the service
    /// lets anyone wait.
    pub max_wait: Option<Duration>,
}

/// The long form of a choice, as it is typed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Long {
    /// The model's name, as engines know it.
    model: String,
    /// The endpoint that it is to run on (`node/endpoint`); unless said, any of the pool that has it.
    at: Option<String>,
    /// Headers that requests are sent there with, instead of the client's, as in
    /// `headers: {authorization: "Bearer ${OPENAI_API_KEY}"}`.
    #[serde(default)]
    headers: BTreeMap<String, Hidden>,
    /// For how long an endpoint is waited for before the next model is tried: `10s` unless said. The last model is waited for as
    /// long as the service lets anyone wait.
    #[serde(default)]
    max_wait: Option<Span>,
}

/// A duration, as it is typed: `10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Hidden(String);

/// What becomes of a request for a model that nobody is known to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// It is refused with 404 and the names that are nearest; but not while an endpoint does not say what it has.
    #[default]
    Refuse,
    /// It goes to any endpoint, which may know more.
    Forward,
}

/// Whether prompts go where their beginning was computed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Whether they do.
    pub enabled: bool,
    /// How many tokens are remembered for each endpoint; unless said, what its engine says of its memory, else a million.
    pub tokens: Option<u64>,
}

/// The long form of [`Prefix`], as it is typed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongPrefix {
    /// How many tokens are remembered for each endpoint; unless said, what its engine says of its memory, else a million.
    tokens: Option<u64>,
}

/// How long a stream may be silent; `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive(pub Option<Duration>);

/// What some may ask for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whose requests; unless said, each tenant's by themselves.
    pub tenant: Option<String>,
    /// Requests for which model or alias, as clients name it; unless said, for all together.
    pub model: Option<String>,
    /// So many at once.
    #[schemars(range(min = 1))]
    pub at_once: Option<u32>,
    /// So many in a minute.
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u64>,
    /// So many tokens in a minute, read and made.
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<u64>,
    /// So many tokens in a day (UTC), read and made.
    #[schemars(range(min = 1))]
    pub tokens_per_day: Option<u64>,
    /// So many tokens that one request may ask to be made; one that does not say how many is let by.
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
}

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What is said more often is traffic.
const KEEP_ALIVE_LEAST: Duration = Duration::from_secs(1);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Config {
            models: BTreeMap::new(),
            engines: BTreeMap::new(),
            aliases: BTreeMap::new(),
            default_model: None,
            unknown_models: Unknown::default(),
            prefix: Prefix::default(),
            keep_alive: KeepAlive(Some(KEEP_ALIVE)),
            limits: Vec::new(),
            manage: false,
            labels: BTreeMap::new(),
            vram_mib: 0,
        }
    }
}

impl Config {
    /// The endpoints that requests are sent to with headers of the file's.
    pub fn apart(&self) -> BTreeSet<String> {
        let choices = self.aliases.values().flat_map(|choices| &choices.0);
        let with_headers = choices.filter(|choice| !choice.headers.is_empty());
        with_headers
            .filter_map(|choice| choice.at.clone())
            .collect()
    }

    /// Says what makes no sense.
    pub fn check(&self) -> Result<(), String> {
        for (endpoint, models) in &self.models {
            is_endpoint("models", endpoint)?;
            if models.is_empty() || models.iter().any(String::is_empty) {
                return Err(format!(
                    "models.{endpoint}: names no model; take the line out, or name one"
                ));
            }
        }
        for endpoint in self.engines.keys() {
            is_endpoint("engines", endpoint)?;
        }
        for (alias, Choices(choices)) in &self.aliases {
            let at = format!("aliases.{alias}");
            if alias.is_empty() || choices.is_empty() {
                return Err(format!("{at}: needs a name, and at least one model"));
            }
            for choice in choices {
                choice.check(&at)?;
                // Else it would be tried under that name, which no engine knows.
                if choice.model != *alias && self.aliases.contains_key(&choice.model) {
                    let model = &choice.model;
                    return Err(format!(
                        "{at}: `{model}` is an alias itself; name the models that it stands for"
                    ));
                }
            }
        }
        if self.default_model.as_deref() == Some("") {
            return Err(
                "default_model: is empty; leave it out to refuse requests that name none".into(),
            );
        }
        if let KeepAlive(Some(every)) = self.keep_alive
            && every < KEEP_ALIVE_LEAST
        {
            return Err("keep_alive: must be at least 1s; `off` says nothing".into());
        }
        if self.prefix.tokens == Some(0) {
            return Err(
                "prefix.tokens: must be at least 1; to remember nothing use `prefix: false`".into(),
            );
        }
        for (n, limits) in self.limits.iter().enumerate() {
            limits.check().map_err(|why| format!("limits[{n}]{why}"))?;
        }
        Ok(())
    }
}

fn is_endpoint(place: &str, name: &str) -> Result<(), String> {
    match name.split_once('/') {
        Some((node, endpoint)) if !node.is_empty() && !endpoint.is_empty() => Ok(()),
        _ => Err(format!(
            "{place}: `{name}` is no endpoint; one is written `node/endpoint`"
        )),
    }
}

// === impl Choice ===

impl Choice {
    fn check(&self, at: &str) -> Result<(), String> {
        if self.model.is_empty() {
            return Err(format!("{at}: a model has no name"));
        }
        if let Some(endpoint) = &self.at {
            is_endpoint(&format!("{at}: at"), endpoint)?;
        } else if !self.headers.is_empty() {
            return Err(format!(
                "{at}: `headers` need `at`, or any node would hear them"
            ));
        }
        for (name, value) in &self.headers {
            let wrong = |what: &str| Err(format!("{at}: headers: `{name}` {what}"));
            if HeaderName::try_from(name).is_err() {
                return wrong("is no header's name");
            }
            if HeaderValue::try_from(value.show()).is_err() {
                return wrong("has a value that no header can have");
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand and not `untagged`: an error inside keeps its own place.
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model's name, or a map with `model`")
            }

            fn visit_str<E: Error>(self, model: &str) -> Result<Choice, E> {
                Ok(Choice {
                    model: model.to_owned(),
                    at: None,
                    headers: BTreeMap::new(),
                    max_wait: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Choice, A::Error> {
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Choice {
                    model: long.model,
                    at: long.at,
                    headers: long.headers,
                    max_wait: long.max_wait.map(|Span(wait)| wait),
                })
            }
        }
        from.deserialize_any(ChoiceVisitor)
    }
}

impl JsonSchema for Choice {
    fn schema_name() -> Cow<'static, str> {
        "LlmChoice".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<Long>();
        json_schema!({"anyOf": [{"type": "string"}, long]})
    }
}

// === impl Span ===

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let wrong = |_| D::Error::custom(format!("`{text}` is no duration; write `10s`"));
        humantime::parse_duration(&text).map(Span).map_err(wrong)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "LlmSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["10s", "2m"]})
    }
}

// === impl Choices ===

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ChoicesVisitor;
        impl<'de> Visitor<'de> for ChoicesVisitor {
            type Value = Choices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model's name, a map with `model`, or a list of such")
            }

            fn visit_str<E: Error>(self, model: &str) -> Result<Choices, E> {
                let one = Choice::deserialize(serde::de::value::StrDeserializer::new(model))?;
                Ok(Choices(vec![one]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Choices, A::Error> {
                let one = Choice::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Choices(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices, A::Error> {
                let mut all = Vec::new();
                while let Some(choice) = list.next_element()? {
                    all.push(choice);
                }
                Ok(Choices(all))
            }
        }
        from.deserialize_any(ChoicesVisitor)
    }
}

impl JsonSchema for Choices {
    fn schema_name() -> Cow<'static, str> {
        "LlmChoices".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Choice>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

// === impl Hidden ===

impl Hidden {
    /// The text.
    pub fn show(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

// === impl Prefix ===

impl Default for Prefix {
    fn default() -> Self {
        Prefix {
            enabled: true,
            tokens: None,
        }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PrefixVisitor;
        impl<'de> Visitor<'de> for PrefixVisitor {
            type Value = Prefix;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, or a map with `tokens`")
            }

            fn visit_bool<E: Error>(self, enabled: bool) -> Result<Prefix, E> {
                Ok(Prefix {
                    enabled,
                    tokens: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Prefix, A::Error> {
                let LongPrefix { tokens } =
                    LongPrefix::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Prefix {
                    enabled: true,
                    tokens,
                })
            }
        }
        from.deserialize_any(PrefixVisitor)
    }
}

impl JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "LlmPrefix".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<LongPrefix>();
        json_schema!({"anyOf": [{"type": "boolean"}, long]})
    }
}

// === impl KeepAlive ===

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeepAliveVisitor;
        impl Visitor<'_> for KeepAliveVisitor {
            type Value = KeepAlive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration, as `15s`, or `off`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<KeepAlive, E> {
                if text.eq_ignore_ascii_case("off") {
                    return Ok(KeepAlive(None));
                }
                let wrong =
                    |_| E::custom(format!("`{text}` is no duration; write `15s`, or `off`"));
                humantime::parse_duration(text)
                    .map(|every| KeepAlive(Some(every)))
                    .map_err(wrong)
            }

            // As older YAML reads `off`.
            fn visit_bool<E: Error>(self, on: bool) -> Result<KeepAlive, E> {
                Ok(KeepAlive(on.then_some(KEEP_ALIVE)))
            }
        }
        from.deserialize_any(KeepAliveVisitor)
    }
}

impl JsonSchema for KeepAlive {
    fn schema_name() -> Cow<'static, str> {
        "LlmKeepAlive".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string", "examples": ["15s", "off"]}, {"type": "boolean"}]})
    }
}

// === impl Limits ===

impl Limits {
    /// Whether a request is one of those that it is for.
    pub fn fits(&self, tenant: &str, model: &str) -> bool {
        let is =
            |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        is(&self.tenant, tenant) && is(&self.model, model)
    }

    fn check(&self) -> Result<(), String> {
        let counts = [
            ("at_once", self.at_once.map(u64::from)),
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_day", self.tokens_per_day),
            ("max_tokens", self.max_tokens),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(format!(
                ".{name}: must be at least 1; to let nobody in leave the model out"
            ));
        }
        if counts.iter().all(|(_, count)| count.is_none()) {
            let names = counts.map(|(name, _)| format!("`{name}`")).join(", ");
            return Err(format!(": limits nothing; say one of {names}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, String> {
        let config: Config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn nothing_has_to_be_said() {
        let config = read("{}").unwrap();
        assert_eq!(config, Config::default());
        assert!(config.prefix.enabled && !config.manage);
        assert_eq!(config.keep_alive, KeepAlive(Some(Duration::from_secs(15))));
    }

    #[test]
    fn all_of_it_is_read() {
        let config = read(
            r#"{
                "models": {"rack-1/llm": ["qwen3:8b"]},
                "engines": {"cloud/openai": "openai", "rack-1/llm": "llama_cpp"},
                "aliases": {
                    "fast": "qwen3:8b",
                    "one": {"model": "m", "at": "rack-1/llm"},
                    "accurate": [{"model": "llama-70b", "max_wait": "3s"}, {"model": "gpt-5", "at": "cloud/openai", "headers": {"Authorization": "Bearer sk-1"}}]
                },
                "default_model": "fast",
                "unknown_models": "forward",
                "prefix": {"tokens": 500000},
                "keep_alive": "20s",
                "limits": [{"tenant": "students", "model": "accurate", "at_once": 2, "tokens_per_minute": 20000}],
                "manage": true,
                "labels": {"site": "studio"},
                "vram_mib": 8192
            }"#,
        )
        .unwrap();
        let accurate = &config.aliases["accurate"].0;
        assert_eq!(accurate[0].model, "llama-70b");
        assert_eq!(accurate[0].max_wait, Some(Duration::from_secs(3)));
        assert_eq!(accurate[1].headers["Authorization"].show(), "Bearer sk-1");
        assert_eq!(config.aliases["fast"].0.len(), 1);
        assert_eq!(config.aliases["one"].0[0].at.as_deref(), Some("rack-1/llm"));
        assert_eq!(config.engines["rack-1/llm"], Engine::LlamaCpp);
        assert_eq!(config.prefix.tokens, Some(500_000));
        let limits = &config.limits[0];
        assert!(limits.fits("students", "accurate"));
        assert!(!limits.fits("students", "fast") && !limits.fits("staff", "accurate"));
        assert!(Limits::default().fits("anyone", "anything"));
        let shown = format!("{config:?}");
        assert!(!shown.contains("sk-1"), "{shown}");
    }

    #[test]
    fn short_forms_are_read() {
        assert!(!read(r#"{"prefix": false}"#).unwrap().prefix.enabled);
        for off in [r#""off""#, r#""Off""#, "false"] {
            let config = read(&format!(r#"{{"keep_alive": {off}}}"#)).unwrap();
            assert_eq!(config.keep_alive, KeepAlive(None), "{off}");
        }
    }

    #[test]
    fn what_makes_no_sense_says_what_to_do() {
        for (json, wants) in [
            (r#"{"aliasses": {}}"#, "unknown field `aliasses`"),
            (
                r#"{"aliases": {"fast": []}}"#,
                "aliases.fast: needs a name, and at least one model",
            ),
            (
                r#"{"aliases": {"fast": ""}}"#,
                "aliases.fast: a model has no name",
            ),
            (
                r#"{"aliases": {"fast": {"modell": "x"}}}"#,
                "unknown field `modell`",
            ),
            (
                r#"{"aliases": {"fast": 5}}"#,
                "expected a model's name, a map with `model`, or a list of such",
            ),
            (
                r#"{"aliases": {"fast": [5]}}"#,
                "expected a model's name, or a map with `model`",
            ),
            (
                r#"{"aliases": {"a": "b", "b": "c"}}"#,
                "aliases.a: `b` is an alias itself",
            ),
            (
                r#"{"aliases": {"a": {"model": "b", "at": "node"}}}"#,
                "aliases.a: at: `node` is no endpoint; one is written `node/endpoint`",
            ),
            (
                r#"{"aliases": {"a": {"model": "b", "headers": {"x-key": "1"}}}}"#,
                "aliases.a: `headers` need `at`",
            ),
            (
                r#"{"aliases": {"a": {"model": "b", "at": "n/e", "headers": {"x key": "1"}}}}"#,
                "`x key` is no header's name",
            ),
            (
                r#"{"aliases": {"a": {"model": "b", "at": "n/e", "headers": {"x-key": "a\nb"}}}}"#,
                "has a value that no header can have",
            ),
            (
                r#"{"aliases": {"a": {"model": "b", "max_wait": "soon"}}}"#,
                "`soon` is no duration; write `10s`",
            ),
            (
                r#"{"models": {"llm": ["a"]}}"#,
                "models: `llm` is no endpoint",
            ),
            (
                r#"{"models": {"n/llm": []}}"#,
                "models.n/llm: names no model",
            ),
            (
                r#"{"engines": {"n/llm": "ollamma"}}"#,
                "unknown variant `ollamma`",
            ),
            (r#"{"default_model": ""}"#, "default_model: is empty"),
            (
                r#"{"keep_alive": "soon"}"#,
                "`soon` is no duration; write `15s`, or `off`",
            ),
            (
                r#"{"keep_alive": "10ms"}"#,
                "keep_alive: must be at least 1s",
            ),
            (
                r#"{"prefix": {"tokens": 0}}"#,
                "prefix.tokens: must be at least 1",
            ),
            (
                r#"{"prefix": "yes"}"#,
                "expected `true`, `false`, or a map with `tokens`",
            ),
            (
                r#"{"limits": [{"tenant": "a"}]}"#,
                "limits[0]: limits nothing; say one of `at_once`",
            ),
            (
                r#"{"limits": [{"at_once": 0}]}"#,
                "limits[0].at_once: must be at least 1",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(wants), "{json}: {error}");
            assert!(
                !error.contains("a\nb"),
                "a header's value is shown: {error}"
            );
        }
        assert!(
            read(r#"{"aliases": {"a": "a"}}"#).is_ok(),
            "a model may have its own name"
        );
    }

    #[test]
    fn the_schema_knows_all_of_it() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let known = schema["properties"].as_object().unwrap();
        assert_eq!(known.len(), 11, "{:?}", known.keys());
        assert_eq!(schema["additionalProperties"], false);
        assert!(
            known.values().all(|field| field["description"].is_string()),
            "{schema}"
        );
    }
}
