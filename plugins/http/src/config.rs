use crate::extract::{Parts, Size};
use crate::release::Release;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// The kind's block in the YAML file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How a node is asked whether it is well: a path, or more.
    #[serde(default)]
    pub probe: Probe,
    /// The least GPU memory of a node that can serve this, MiB.
    #[serde(default)]
    pub vram_mib: u64,
    /// Labels that a node must carry to serve this.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which requests take alike long: those with the same values in these places, as in
    /// `class: [path: 1, json: /model, header: X-Scene-Type]`; unless said, those with the same method and first part
    /// of the path. Bodies past 1 MiB, and those that stream, are not looked into.
    #[serde(default)]
    pub class: Parts,
    /// Which model a request asks for: the first of these places that says one, as in `model: {json: /model}`. It goes to
    /// nodes that have it, and rather to those where it is loaded.
    #[serde(default)]
    pub model: Parts,
    /// How much work a request is, in whatever unit, as in
    /// `size: {multiply: [json: /steps, json: /width, json: /height], per: 1000000}`: times are learned per unit.
    #[serde(default)]
    pub size: Size,
    /// Words by which a failing answer tells that the card's memory was too small, as in `["CUDA out of memory"]`: a job
    /// then goes elsewhere, and after the second time no request of its class goes there for a day.
    #[serde(default)]
    pub out_of_memory: Vec<String>,
    /// How a server is told to let go of the GPU, where it shares the card with another (`sharing` at its node): a path, or
    /// `{path, method, body, status}`. Without it the services take turns, and what this one has loaded stays.
    pub release: Option<Release>,
}

/// How a node is asked whether it is well. In its short form a path: `probe: /health`.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked for.
    pub path: String,
    /// Whether only the head is asked for.
    pub head_only: bool,
    /// The statuses of a node that is well.
    pub status: Statuses,
    /// What the answer must contain.
    pub body: Option<String>,
    /// Where in a JSON answer it stands how many requests are at work (RFC 6901).
    pub busy: Option<String>,
    /// Where in a JSON answer the free GPU memory stands, MiB (RFC 6901).
    pub vram_free_mib: Option<String>,
    /// Where in a JSON answer the models stand that the node has (RFC 6901).
    pub models: Option<String>,
    /// Where in a JSON answer the models stand that are in its memory (RFC 6901).
    pub loaded: Option<String>,
}

/// A set of statuses: `200`, `"200-299"`, or a list of such.
#[derive(Clone, Debug, PartialEq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

/// The long form, as it is typed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Long {
    /// What is asked for; `/` unless said.
    #[serde(default = "root")]
    path: String,
    /// GET unless said.
    #[serde(default)]
    method: ProbeMethod,
    /// The statuses of a node that is well: `200`, `"200-299"`, or a list of such; anything below 500 unless said.
    #[serde(default)]
    status: Statuses,
    /// What the answer must contain.
    body: Option<String>,
    /// Where in a JSON answer it stands how many requests are at work: `/queue/running` (RFC 6901).
    busy: Option<String>,
    /// Where in a JSON answer the free GPU memory stands, MiB (RFC 6901).
    vram_free_mib: Option<String>,
    /// Where in a JSON answer the models stand that the node has (RFC 6901): a list of names, or of maps with `name`, `id`
    /// or `model`, or a map by names. What asks for another goes elsewhere.
    models: Option<String>,
    /// Where in a JSON answer the models stand that are in the node's memory (RFC 6901), as `models`, or one name.
    loaded: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum ProbeMethod {
    #[default]
    Get,
    Head,
}

fn root() -> String {
    "/".into()
}

// === impl Config ===

impl Config {
    /// Says what makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let probe = &self.probe;
        if !probe.path.starts_with('/') {
            return Err(format!(
                "probe.path: must begin with `/`, got `{}`",
                probe.path
            ));
        }
        // Else every probe would fail, and the file would be the last to be suspected.
        if let Err(error) = probe.path.parse::<PathAndQuery>() {
            return Err(format!(
                "probe.path: `{}` cannot be asked for: {error}; write odd characters as %20",
                probe.path
            ));
        }
        if probe.head_only && (probe.body.is_some() || probe.is_read()) {
            return Err(
                "probe.method: HEAD has no answer to read; take GET, or leave out `body` and what points into it"
                    .into(),
            );
        }
        probe.status.check("probe.status")?;
        if let Some(release) = &self.release {
            release.check()?;
        }
        for (name, pointer) in [
            ("busy", &probe.busy),
            ("vram_free_mib", &probe.vram_free_mib),
            ("models", &probe.models),
            ("loaded", &probe.loaded),
        ] {
            if let Some(pointer) = pointer.as_ref().filter(|pointer| !pointer.starts_with('/')) {
                return Err(format!(
                    "probe.{name}: a JSON pointer begins with `/`, got `{pointer}`"
                ));
            }
        }
        Ok(())
    }
}

// === impl Probe ===

impl Default for Probe {
    fn default() -> Self {
        Probe {
            path: root(),
            head_only: false,
            status: Statuses::default(),
            body: None,
            busy: None,
            vram_free_mib: None,
            models: None,
            loaded: None,
        }
    }
}

impl Probe {
    /// The method it asks with.
    pub fn method(&self) -> Method {
        if self.head_only {
            Method::HEAD
        } else {
            Method::GET
        }
    }

    /// Whether the answer is read as JSON.
    pub(crate) fn is_read(&self) -> bool {
        let all = [&self.busy, &self.vram_free_mib, &self.models, &self.loaded];
        all.into_iter().any(Option::is_some)
    }

    /// Whether a path is a status page of its own: the root is the service itself.
    pub fn is_page(&self, path: &str) -> bool {
        self.path != "/" && self.path.split('?').next() == Some(path)
    }
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand and not `untagged`: an error inside keeps its own place.
        struct ProbeVisitor;
        impl<'de> Visitor<'de> for ProbeVisitor {
            type Value = Probe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, as `/health`, or a map with `path`")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Probe, E> {
                Ok(Probe {
                    path: path.to_owned(),
                    ..Probe::default()
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Probe, A::Error> {
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Probe {
                    path: long.path,
                    head_only: long.method == ProbeMethod::Head,
                    status: long.status,
                    body: long.body,
                    busy: long.busy,
                    vram_free_mib: long.vram_free_mib,
                    models: long.models,
                    loaded: long.loaded,
                })
            }
        }
        from.deserialize_any(ProbeVisitor)
    }
}

impl JsonSchema for Probe {
    fn schema_name() -> Cow<'static, str> {
        "Probe".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<Long>();
        json_schema!({"anyOf": [{"type": "string", "pattern": "^/"}, long]})
    }
}

// === impl Statuses ===

impl Default for Statuses {
    /// Anything below 500: a 401 or a 404 proves that somebody is at home.
    fn default() -> Self {
        Statuses(vec![100..=499])
    }
}

impl Statuses {
    /// Those of what was done.
    pub(crate) fn good() -> Self {
        Statuses(vec![200..=299])
    }

    /// Says what makes no sense in what was typed at `place`.
    pub(crate) fn check(&self, place: &str) -> Result<(), String> {
        for range in &self.0 {
            if let Some(odd) = [range.start(), range.end()]
                .into_iter()
                .find(|status| !(100..=599).contains(*status))
            {
                return Err(format!(
                    "{place}: {odd} is no status; one lies between 100 and 599"
                ));
            }
            if range.is_empty() {
                return Err(format!(
                    "{place}: `{}-{}` ends before it begins",
                    range.start(),
                    range.end()
                ));
            }
        }
        Ok(())
    }

    /// Whether a status is among them.
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct StatusVisitor;
        impl<'de> Visitor<'de> for StatusVisitor {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status, as 200, or a range, as 200-299, or a list of such")
            }

            fn visit_u64<E: Error>(self, status: u64) -> Result<Statuses, E> {
                // What does not fit is no status; `check` says so with its own words.
                let status = u16::try_from(status).unwrap_or(u16::MAX);
                Ok(Statuses(vec![status..=status]))
            }

            fn visit_i64<E: Error>(self, status: i64) -> Result<Statuses, E> {
                self.visit_u64(status.try_into().unwrap_or(0))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                let (start, end) = text.split_once('-').unwrap_or((text, text));
                match (start.trim().parse(), end.trim().parse()) {
                    (Ok(start), Ok(end)) => Ok(Statuses(vec![start..=end])),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Statuses, A::Error> {
                let mut all = Vec::new();
                while let Some(Statuses(more)) = list.next_element()? {
                    all.extend(more);
                }
                if all.is_empty() {
                    Err(A::Error::invalid_length(0, &self))
                } else {
                    Ok(Statuses(all))
                }
            }
        }
        from.deserialize_any(StatusVisitor)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        let one = serde_json::json!({"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, {"type": "string", "pattern": "^[0-9]{3}( *- *[0-9]{3})?$"}]});
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}
