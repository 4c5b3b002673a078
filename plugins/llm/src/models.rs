//! Which models there are, and what a name stands for.
//!
//! A name is an alias's, or a model's, or a model's but for its case, which is what people mistype. An alias goes before a model of
//! its name: whoever writes one wants it so.

use crate::config::{Choice, Config, Unknown};
use std::collections::{BTreeMap, BTreeSet};

/// So many names are proposed for one that nobody has.
const NEAREST: usize = 3;
/// How much alike a name has to be to be proposed, 0.0 to 1.0 (Jaro and Winkler's measure).
const ALIKE: f64 = 0.75;
/// Of a longer name the beginning is compared.
const NAME_MOST: usize = 256;

/// The models of a service's endpoints, and the aliases for them.
#[derive(Clone, Debug, Default)]
pub struct Models {
    aliases: BTreeMap<String, Vec<Choice>>,
    default: Option<String>,
    forwards: bool,
    /// What the file says of endpoints goes before what their engines say.
    written: BTreeMap<String, Vec<String>>,
    /// What each endpoint has; `None`: it does not say.
    endpoints: BTreeMap<String, Option<Vec<String>>>,
    /// Endpoints that the file sends requests to with headers of their own, clouds mostly: without those they take nothing, and
    /// whoever names one of their models is not to spend what a key is good for.
    apart: BTreeSet<String>,
    /// How many endpoints have a model.
    known: BTreeMap<String, usize>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The models that may serve it, to be tried in this order; never empty.
    Choices(Vec<Choice>),
    /// None; these names are nearest.
    Unknown(Vec<String>),
    /// The request names no model, and the file names none for such.
    Unnamed,
}

// === impl Models ===

impl Models {
    /// As the file has it; nothing is known of endpoints.
    pub fn new(config: &Config) -> Self {
        let choices = config
            .aliases
            .iter()
            .map(|(alias, choices)| (alias.clone(), choices.0.clone()));
        Models {
            aliases: choices.collect(),
            default: config.default_model.clone(),
            forwards: config.unknown_models == Unknown::Forward,
            written: config.models.clone(),
            apart: config.apart(),
            ..Models::default()
        }
    }

    /// The models that an endpoint serves, where the file says it.
    pub fn written(&self, endpoint: &str) -> Option<&[String]> {
        self.written.get(endpoint).map(Vec::as_slice)
    }

    /// Whether an endpoint takes only what the file sends there.
    pub fn is_apart(&self, endpoint: &str) -> bool {
        self.apart.contains(endpoint)
    }

    /// Leaves only these endpoints.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        let before = self.endpoints.len();
        self.endpoints.retain(|endpoint, _| is_there(endpoint));
        if self.endpoints.len() != before {
            self.count();
        }
    }

    /// An endpoint is there, with these models by every name that it takes; none: it does not say. Whether that is new.
    pub fn set(&mut self, endpoint: &str, models: &[String]) -> bool {
        let written = self.written.get(endpoint).map(Vec::as_slice);
        let models = written.unwrap_or(models);
        let says = !models.is_empty() && !self.is_apart(endpoint);
        let has = says.then(|| models.to_vec());
        let is_new = self.endpoints.get(endpoint) != Some(&has);
        if is_new {
            self.endpoints.insert(endpoint.to_owned(), has);
            self.count();
        }
        is_new
    }

    fn count(&mut self) {
        self.known.clear();
        let says = self.endpoints.values().flatten();
        for model in says.flatten() {
            *self.known.entry(model.clone()).or_default() += 1;
        }
    }

    /// The models that endpoints say they have, in order.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// The aliases, each with the model that stands for it first.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.iter().filter_map(|(alias, choices)| {
            let there = choices.iter().find(|choice| self.is_there(choice));
            let model = there.or(choices.first())?.model.as_str();
            Some((alias.as_str(), model))
        })
    }

    /// What a name stands for. Of an alias's models those are left out that no endpoint has, unless none has any.
    pub fn find(&self, name: Option<&str>) -> Found {
        let named = name.filter(|name| !name.is_empty());
        let Some(name) = named.or(self.default.as_deref()) else {
            return Found::Unnamed;
        };
        if let Some(choices) = self.aliases.get(name) {
            let there: Vec<Choice> = choices
                .iter()
                .filter(|choice| self.is_there(choice))
                .cloned()
                .collect();
            return Found::Choices(if there.is_empty() {
                choices.clone()
            } else {
                there
            });
        }
        if self.known.contains_key(name) {
            return Found::Choices(vec![plain(name)]);
        }
        let mut alike = self
            .known
            .keys()
            .filter(|known| known.eq_ignore_ascii_case(name));
        if let (Some(only), None) = (alike.next(), alike.next()) {
            return Found::Choices(vec![plain(only)]);
        }
        let may_be_there = self.forwards || self.is_open() || self.endpoints.is_empty();
        match may_be_there {
            true => Found::Choices(vec![plain(name)]),
            false => Found::Unknown(self.nearest(name)),
        }
    }

    /// Whether a model is one that an endpoint says it has.
    pub fn is_known(&self, model: &str) -> bool {
        self.known.contains_key(model)
    }

    /// Whether an endpoint does not say what it has.
    pub fn is_open(&self) -> bool {
        let mut all = self.endpoints.iter();
        all.any(|(endpoint, has)| has.is_none() && !self.is_apart(endpoint))
    }

    /// Whether an endpoint has it, or may have it.
    fn is_there(&self, choice: &Choice) -> bool {
        let has = |models: &Option<Vec<String>>| {
            models
                .as_ref()
                .is_none_or(|models| models.contains(&choice.model))
        };
        match &choice.at {
            Some(endpoint) => self.endpoints.get(endpoint).is_some_and(has),
            None => self.known.contains_key(&choice.model) || self.is_open(),
        }
    }

    /// The names that are most like this one, the nearest first.
    fn nearest(&self, name: &str) -> Vec<String> {
        let wanted = short(name);
        let names = self.aliases.keys().chain(self.known.keys());
        let mut alike: Vec<(f64, &String)> = names
            .map(|known| (likeness(&wanted, &short(known)), known))
            .collect();
        alike.retain(|(likeness, _)| *likeness >= ALIKE);
        alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        alike.dedup_by_key(|(_, known)| *known);
        alike
            .into_iter()
            .take(NEAREST)
            .map(|(_, known)| known.clone())
            .collect()
    }
}

fn plain(model: &str) -> Choice {
    Choice {
        model: model.to_owned(),
        at: None,
        headers: BTreeMap::new(),
        max_wait: None,
    }
}

fn short(name: &str) -> String {
    name.chars()
        .take(NAME_MOST)
        .flat_map(char::to_lowercase)
        .collect()
}

/// How much a name is like another: as a whole, or like what stands behind its last slash (`Qwen/Qwen3-8B`).
fn likeness(wanted: &str, known: &str) -> f64 {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let whole = strsim::jaro_winkler(wanted, known);
    let parts = strsim::jaro_winkler(&last(wanted), &last(known));
    whole.max(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(config: &str, endpoints: &[(&str, &[&str])]) -> Models {
        let config: Config = serde_json::from_str(config).unwrap();
        config.check().unwrap();
        let mut models = Models::new(&config);
        for (endpoint, has) in endpoints {
            let has: Vec<String> = has.iter().map(|model| (*model).to_owned()).collect();
            models.set(endpoint, &has);
        }
        models
    }

    fn names(found: Found) -> Vec<String> {
        match found {
            Found::Choices(choices) => choices.into_iter().map(|choice| choice.model).collect(),
            other => panic!("{other:?}"),
        }
    }

    const ALIASES: &str = r#"{"aliases": {"fast": ["small", {"model": "gpt-5-mini", "at": "cloud/openai"}], "big": "huge"}}"#;

    #[test]
    fn a_name_stands_for_its_model() {
        let models = models(
            "{}",
            &[("a/llm", &["Qwen/Qwen3-8B", "x"]), ("b/llm", &["x", "X"])],
        );
        assert_eq!(names(models.find(Some("x"))), ["x"]);
        assert_eq!(
            names(models.find(Some("qwen/qwen3-8b"))),
            ["Qwen/Qwen3-8B"],
            "people mistype case"
        );
        assert_eq!(
            models.known().collect::<Vec<_>>(),
            ["Qwen/Qwen3-8B", "X", "x"]
        );
        assert_eq!(models.find(None), Found::Unnamed);
        assert_eq!(models.find(Some("")), Found::Unnamed);
    }

    #[test]
    fn an_alias_stands_for_those_of_its_models_that_are_there() {
        let mut models = models(
            ALIASES,
            &[("a/llm", &["small"]), ("cloud/openai", &["gpt-5-mini"])],
        );
        assert_eq!(names(models.find(Some("fast"))), ["small", "gpt-5-mini"]);
        models.keep(|endpoint| endpoint != "a/llm");
        assert_eq!(names(models.find(Some("fast"))), ["gpt-5-mini"]);
        models.keep(|endpoint| endpoint != "cloud/openai");
        assert_eq!(
            names(models.find(Some("fast"))),
            ["small", "gpt-5-mini"],
            "none is there: all may come"
        );
        models.set("a/llm", &["gpt-5-mini".into()]);
        assert_eq!(
            names(models.find(Some("fast"))),
            ["small", "gpt-5-mini"],
            "it is not where it is to run"
        );
        assert_eq!(
            models.aliases().collect::<Vec<_>>(),
            [("big", "huge"), ("fast", "small")]
        );
        models.set("cloud/openai", &["gpt-5-mini".into()]);
        assert_eq!(models.aliases().last(), Some(("fast", "gpt-5-mini")));
    }

    #[test]
    fn an_alias_goes_before_a_model_of_its_name() {
        let models = models(ALIASES, &[("a/llm", &["fast", "small"])]);
        assert_eq!(names(models.find(Some("fast"))), ["small"]);
    }

    #[test]
    fn requests_that_name_none_get_what_the_file_says() {
        let models = models(
            r#"{"default_model": "fast", "aliases": {"fast": "small"}}"#,
            &[("a/llm", &["small"])],
        );
        assert_eq!(names(models.find(None)), ["small"]);
        assert_eq!(names(models.find(Some(""))), ["small"]);
    }

    #[test]
    fn a_name_that_nobody_has_is_refused_with_the_nearest() {
        let all: &[&str] = &[
            "llama3.1:8b",
            "llama3.1:70b",
            "qwen3:8b",
            "Qwen/Qwen3-Coder-30B",
            "whisper-1",
        ];
        let models = models(ALIASES, &[("a/llm", all)]);
        let nearest = |name| match models.find(Some(name)) {
            Found::Unknown(nearest) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("llama3.1:8")[0], "llama3.1:8b");
        assert_eq!(nearest("qwen3-coder-30b")[0], "Qwen/Qwen3-Coder-30B");
        assert_eq!(nearest("fasst")[0], "fast");
        assert!(nearest("llama").len() <= NEAREST);
        assert!(nearest("zzzzzz").is_empty());
        assert!(nearest(&"llama".repeat(100_000)).len() <= NEAREST);
    }

    #[test]
    fn where_an_endpoint_does_not_say_what_it_has_no_name_is_unknown() {
        let mut models = models("{}", &[("a/llm", &["x"]), ("b/llm", &[])]);
        assert_eq!(names(models.find(Some("anything"))), ["anything"]);
        models.set("b/llm", &["y".into()]);
        assert_eq!(models.find(Some("anything")), Found::Unknown(vec![]));
        let nobody = self::models("{}", &[]);
        assert_eq!(
            names(nobody.find(Some("anything"))),
            ["anything"],
            "none was asked yet"
        );
        let forward = self::models(r#"{"unknown_models": "forward"}"#, &[("a/llm", &["x"])]);
        assert_eq!(names(forward.find(Some("anything"))), ["anything"]);
    }

    #[test]
    fn what_the_file_says_of_an_endpoint_goes_before_what_its_engine_says() {
        let models = models(
            r#"{"models": {"a/llm": ["x"], "b/llm": ["z"]}}"#,
            &[("a/llm", &["x", "y"]), ("b/llm", &[])],
        );
        assert_eq!(models.known().collect::<Vec<_>>(), ["x", "z"]);
        assert!(matches!(models.find(Some("y")), Found::Unknown(_)));
    }
}
