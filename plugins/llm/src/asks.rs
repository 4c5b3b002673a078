//! What a request asks for, and the ways to serve it.

use crate::body::Asked;
use crate::call::{Call, Request};
use crate::config::{Choice as Wanted, Config};
use crate::kind::Llm;
use crate::models::{Found, Models};
use crate::prefix::Blocks;
use crate::route::{ModelAt, Operation, Route};
use crate::{body, errors, form, rendezvous};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Ask, Choice, Intent, Need, Own, Refusal};

/// A longer body is not looked at: it goes on as it comes. Prompts with pictures in them are some megabytes.
const BODY_MOST: u64 = 64 << 20;
/// What the kind answers itself has no body to speak of.
const OWN_MOST: u64 = 64 << 10;
/// For how long an endpoint is waited for where another model is left.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// A longer name is nobody's.
const NAME_MOST: usize = 256;
/// What stands for a model where none is named.
const NO_MODEL: &str = "any model";

/// What a request asks for.
pub(crate) fn classify(kind: &Llm, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal> {
    let route = Route::of(ask.method, ask.path);
    kind.look(false);
    match body {
        None => by_head(kind, ask, &route),
        Some(body) => by_body(kind, ask, route, body),
    }
}

fn by_head(kind: &Llm, ask: &Ask<'_>, route: &Route) -> Result<Intent, Refusal> {
    let config = &kind.setup.config;
    match &route.operation {
        Operation::Manage if !config.manage => Err(Refusal::Forbidden(
            "engines are not managed through this gateway; `manage: true` of its service lets it"
                .into(),
        )),
        Operation::Models
        | Operation::ModelOf(_)
        | Operation::OllamaTags
        | Operation::OllamaPs
        | Operation::OllamaVersion => Ok(Intent::Own { max: OWN_MOST }),
        Operation::ResponseOf(id) => Ok(owner(kind, id).map_or_else(
            || Intent::Forward(plain(config, route, None)),
            Intent::Pinned,
        )),
        _ if says_in_body(ask, route) => Ok(Intent::NeedBody { max: BODY_MOST }),
        _ => {
            let named = ask
                .query_value("model")
                .filter(|_| route.model == ModelAt::Query);
            let named = named.map(|name| percent_decode_str(name).decode_utf8_lossy());
            let models = kind.setup.models.read();
            let known = named.filter(|name| models.is_known(name));
            Ok(Intent::Forward(plain(config, route, known.as_deref())))
        }
    }
}

/// The endpoint that keeps what is asked for.
fn owner(kind: &Llm, id: &str) -> Option<tabane_api::EndpointId> {
    let name = kind.desk.ids.owner(id)?;
    kind.desk.farm.id(&name)
}

/// Whether its body may name a model, and is one to be read.
fn says_in_body(ask: &Ask<'_>, route: &Route) -> bool {
    let in_body = matches!(
        route.model,
        ModelAt::Body | ModelAt::BodyOrName | ModelAt::Form
    );
    let length = ask
        .header("content-length")
        .and_then(|l| l.parse::<u64>().ok());
    let fits = length.is_none_or(|length| length <= BODY_MOST);
    // Of what nobody knows, what can be nothing else is read.
    let is_meant = match route.operation {
        Operation::Other => {
            let is_json = |kind: &str| kind.to_ascii_lowercase().starts_with("application/json");
            length.is_some() && ask.header("content-type").is_some_and(is_json)
        }
        _ => true,
    };
    in_body && fits && is_meant && !matches!(*ask.method, Method::GET | Method::HEAD)
}

fn by_body(kind: &Llm, ask: &Ask<'_>, route: Route, body: &Bytes) -> Result<Intent, Refusal> {
    let config = &kind.setup.config;
    let read = match route.model {
        ModelAt::Form => form::read(ask.header("content-type").unwrap_or_default(), body).ok(),
        at => body::read(body, at).ok(),
    };
    // No JSON: what it is, its engine may know.
    let Some(asked) = read else {
        return Ok(Intent::Forward(plain(config, &route, None)));
    };
    let named = asked.model.as_deref().filter(|name| !name.is_empty());
    if let Some(most) = most_tokens(config, ask, named)
        && asked.max_tokens.is_some_and(|wants| wants > most)
    {
        let why = format!("max_tokens: at most {most} tokens may be asked for here");
        return Err(Refusal::BadRequest(why));
    }
    let mut found = kind.setup.models.read().find(named);
    if matches!(found, Found::Unknown(_)) {
        // It may have been loaded a moment ago.
        kind.look(true);
        found = kind.setup.models.read().find(named);
    }
    let wanted = match found {
        Found::Choices(choices) => choices,
        Found::Unnamed => Vec::new(),
        Found::Unknown(_) if !route.names_models() => Vec::new(),
        Found::Unknown(nearest) => {
            let nearest: Vec<&str> = nearest.iter().map(String::as_str).collect();
            return Err(errors::unknown_model(named.unwrap_or_default(), &nearest));
        }
    };
    let drafts = Drafts::new(kind, ask, route, &asked, body);
    Ok(Intent::Relay(match wanted.as_slice() {
        [] => vec![drafts.untouched()],
        all => (0..all.len()).map(|n| drafts.choice(all, n)).collect(),
    }))
}

/// The most tokens that a request may ask to be made.
fn most_tokens(config: &Config, ask: &Ask<'_>, named: Option<&str>) -> Option<u64> {
    let named = named
        .or(config.default_model.as_deref())
        .unwrap_or_default();
    let limits = config.limits.iter();
    let mine = limits.filter(|limits| limits.fits(&ask.caller.tenant, named));
    mine.filter_map(|limits| limits.max_tokens).min()
}

/// What is needed for something of which no more is known than this.
fn plain(config: &Config, route: &Route, model: Option<&str>) -> Need {
    let class = class(route, model);
    let need = Need {
        model: model.map(Into::into),
        vram_mib: config.vram_mib,
        labels: labels(config),
        ..Need::of_class(&class)
    };
    match route.slot {
        true => need,
        false => need.without_slot(),
    }
}

fn labels(config: &Config) -> Vec<(Arc<str>, Arc<str>)> {
    let labels = config.labels.iter();
    labels
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect()
}

/// What takes as long as others of its kind: text by a model's name alone, all else with what is done.
fn class(route: &Route, model: Option<&str>) -> String {
    let model = model
        .filter(|model| model.len() <= NAME_MOST)
        .unwrap_or(NO_MODEL);
    match route.generates() {
        true => model.to_owned(),
        false => format!("{} {model}", route.word()),
    }
}

/// The headers that the file gives requests to an endpoint, of the first choice that has any.
pub(crate) fn headers_of_endpoints(config: &Config) -> BTreeMap<String, HeaderMap> {
    let mut all = BTreeMap::new();
    for choice in config.aliases.values().flat_map(|choices| &choices.0) {
        if let Some(at) = choice.at.as_ref().filter(|_| !choice.headers.is_empty()) {
            all.entry(at.clone()).or_insert_with(|| headers(choice));
        }
    }
    all
}

/// The headers that a choice is sent with.
pub(crate) fn headers(choice: &Wanted) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &choice.headers {
        // They were looked at when the file was read.
        if let (Ok(name), Ok(mut value)) = (
            HeaderName::try_from(name),
            HeaderValue::try_from(value.show()),
        ) {
            value.set_sensitive(true);
            map.append(name, value);
        }
    }
    map
}

/// Whether an alias sends a model to an endpoint.
pub(crate) fn sends(config: &Config, model: Option<&str>, to: &str) -> bool {
    let mut choices = config.aliases.values().flat_map(|choices| &choices.0);
    choices.any(|choice| choice.at.as_deref() == Some(to) && Some(&*choice.model) == model)
}

/// The choice by which something was leased for a model on an endpoint. Headers of the file's are for their endpoint alone.
pub(crate) fn choice_for(
    models: &Models,
    named: Option<&str>,
    model: &str,
    on: &str,
) -> Option<Wanted> {
    let is =
        |choice: &Wanted| choice.model == model && choice.at.as_deref().is_none_or(|at| at == on);
    match models.find(named) {
        Found::Choices(choices) => choices.into_iter().find(is),
        Found::Unnamed | Found::Unknown(_) => None,
    }
}

/// What the ways to serve a request have in common.
struct Drafts<'a> {
    kind: &'a Llm,
    asked: &'a Asked<'a>,
    body: &'a Bytes,
    request: Arc<Request>,
    tenant: &'a str,
    /// The endpoint that keeps what it goes on from.
    keeper: Option<Arc<str>>,
}

// === impl Drafts ===

impl<'a> Drafts<'a> {
    fn new(
        kind: &'a Llm,
        ask: &Ask<'a>,
        route: Route,
        asked: &'a Asked<'a>,
        body: &'a Bytes,
    ) -> Self {
        let config = &kind.setup.config;
        let named = asked.model.as_deref().filter(|name| !name.is_empty());
        let named = named
            .or(config.default_model.as_deref())
            .unwrap_or_default();
        let session = asked.cache_key.as_deref().or(asked.user.as_deref());
        let session = session.map_or(0, rendezvous::key);
        let is_kept = route.operation == Operation::Responses
            || ask.path.trim_end_matches('/').ends_with("/conversations");
        let keeper = asked.previous.as_deref();
        Drafts {
            keeper: keeper.and_then(|id| kind.desk.ids.owner(id)),
            request: Arc::new(Request {
                streams: route.generates()
                    && asked.stream.unwrap_or_else(|| {
                        route.streams_unless_said() || ask.path.ends_with("/generate_stream")
                    }),
                named: named.into(),
                prompt_bytes: asked.prompt.bytes(),
                is_text: asked.prompt.media() == 0,
                session,
                is_kept,
                route,
                admitted: Mutex::default(),
            }),
            kind,
            asked,
            body,
            tenant: &ask.caller.tenant,
        }
    }

    /// As it is, wherever there is room.
    fn untouched(&self) -> Choice {
        let mut need = plain(&self.kind.setup.config, &self.request.route, None);
        let model: Arc<str> = NO_MODEL.into();
        self.call(&mut need, model, None, false);
        Choice::plain(need)
    }

    /// The `n`th of these.
    fn choice(&self, all: &[Wanted], n: usize) -> Choice {
        let wanted = &all[n];
        let config = &self.kind.setup.config;
        let at: Option<Arc<str>> = wanted.at.as_deref().map(Into::into);
        let at = at.or_else(|| self.keeper.clone());
        let (is_known, may_be) = {
            let models = self.kind.setup.models.read();
            (models.is_known(&wanted.model), models.is_open())
        };
        // A name that goes to any endpoint, since one of them may know it.
        let is_unknown = !is_known && !may_be && at.is_none();
        let farm = || self.kind.desk.farm.all();
        let is_meant = is_unknown && farm().iter().any(|node| !node.takes_any_name());
        let mut need = plain(config, &self.request.route, Some(&wanted.model));
        if is_unknown {
            need.model = None;
        }
        self.call(&mut need, wanted.model.as_str().into(), at, is_meant);
        Choice {
            need,
            edits: self.asked.edits(&wanted.model),
            headers: headers(wanted),
            max_wait: Some(wanted.max_wait.unwrap_or(MAX_WAIT)),
        }
    }

    fn call(&self, need: &mut Need, model: Arc<str>, at: Option<Arc<str>>, is_unknown: bool) {
        let request = &self.request;
        let generates = request.route.generates();
        let prompt = &self.asked.prompt;
        let blocks = match self.kind.setup.config.prefix.enabled && generates {
            true => Blocks::of(&model, prompt.pieces(self.body)),
            false => Blocks::default(),
        };
        let learned = self.kind.desk.learned.read();
        let tokens = learned.tokens(&model, prompt.bytes());
        let out = match generates {
            true => learned.out(self.tenant, &model, self.asked.max_tokens),
            false => 0.0,
        };
        drop(learned);
        let out = out * self.asked.n.unwrap_or(1).clamp(1, 128) as f64;
        need.size = (tokens + out).max(1.0).round();
        need.own = Own::new(Arc::new(Call {
            request: request.clone(),
            model,
            at,
            is_unknown,
            blocks,
            tokens,
            out,
            placed: Mutex::default(),
        }));
    }
}

#[cfg(test)]
mod tests;
