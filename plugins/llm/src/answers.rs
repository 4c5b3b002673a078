//! What the gateway answers itself: the lists of all endpoints as one, as their last probes have them, so that no node is asked and
//! none that is dead is waited for.

use crate::engines::Engine;
use crate::errors;
use crate::kind::Llm;
use crate::lists::{self, List, Sources};
use crate::route::{Operation, Route};
use bytes::Bytes;
use http::{Request, Response, header};
use tabane_api::{Body, Content, Refusal};

/// Answers a request for a list, or for an entry of one.
pub(crate) fn answer(kind: &Llm, request: &Request<Content>) -> Result<Response<Body>, Refusal> {
    let route = Route::of(request.method(), request.uri().path());
    let is_anthropic = request.headers().contains_key("anthropic-version");
    let models = match is_anthropic {
        true => List::Anthropic,
        false => List::OpenAi,
    };
    let body = match &route.operation {
        Operation::Models => shown(kind, models, None),
        Operation::ModelOf(id) => shown(kind, models, Some(id)),
        Operation::OllamaTags => shown(kind, List::Tags, None),
        Operation::OllamaPs => shown(kind, List::Ps, None),
        Operation::OllamaVersion => Some(version(kind)),
        _ => return Err(Refusal::NotFound(request.uri().path().to_owned())),
    };
    let Some(body) = body else {
        let id = match &route.operation {
            Operation::ModelOf(id) => id.as_str(),
            _ => "",
        };
        return Err(errors::unknown_model(id, &[]));
    };
    let mut answer = Response::new(Body::Bytes(body));
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(answer)
}

/// A list, or the entry of it that has this name.
fn shown(kind: &Llm, list: List, name: Option<&str>) -> Option<Bytes> {
    let path = match list {
        List::OpenAi | List::Anthropic => "/v1/models",
        List::Tags => "/api/tags",
        List::Ps => "/api/ps",
    };
    let usable = usable(kind);
    // What the file sends to a cloud is known by its aliases; what else that has is not for everybody.
    let setup = &kind.setup;
    let mine = |name: &str| !setup.headers.contains_key(name);
    let nodes = usable.iter().filter(|name| mine(name));
    let answers: Vec<(String, Bytes)> = nodes
        .filter_map(|name| {
            let node = kind.desk.farm.named(name);
            let said = node.state.lock().lists.get(path).cloned();
            Some((name.clone(), said?))
        })
        .collect();
    let models = setup.models.read();
    let known: Vec<&str> = match list {
        List::Ps => Vec::new(),
        _ => models.known().collect(),
    };
    let aliases: Vec<(&str, &str)> = models.aliases().collect();
    let bodies: Vec<&[u8]> = answers.iter().map(|(_, body)| &**body).collect();
    let sources = Sources {
        answers: &bodies,
        known: &known,
        aliases: &aliases,
    };
    // Where the file says what an endpoint serves, no more of it is shown.
    let is_alias = |name: &str| aliases.iter().any(|(alias, _)| *alias == name);
    let sees = |name: &str| {
        list == List::Ps || is_alias(name) || models.is_known(name) || models.is_open()
    };
    match name {
        None => Some(lists::merge(list, sources, sees)),
        Some(name) if sees(name) => lists::one(list, sources, name),
        Some(_) => None,
    }
}

/// The names of the endpoints that are well, in the file's order.
fn usable(kind: &Llm) -> Vec<String> {
    let all = kind.desk.host.get().map(|host| host.endpoints());
    let usable = all.into_iter().flatten().filter(|at| at.usable);
    usable.map(|at| at.name.to_string()).collect()
}

/// Ollama's version: clients look at it to know what there is.
fn version(kind: &Llm) -> Bytes {
    let nodes = kind.desk.farm.all();
    let version = nodes.iter().find_map(|node| {
        let state = node.state.lock();
        let is_ollama = state.facts.engine == Some(Engine::Ollama);
        state.facts.version.clone().filter(|_| is_ollama)
    });
    let version = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    serde_json::json!({ "version": version }).to_string().into()
}

#[cfg(test)]
mod tests;
