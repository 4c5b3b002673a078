//! Whether an engine is well, and what it says of itself.
//!
//! One that is full is well. One whose streams stand still, and which counts nothing meanwhile, is not: such an engine answers
//! questions as if nothing were the matter.

use crate::clock::now;
use crate::engines::{Answer, Engine, Facts, questions};
use crate::farm::Node;
use crate::kind::Llm;
use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, Request, Response};
use std::collections::HashMap;
use std::time::Duration;
use tabane_api::{NodeClient, NodeError, ProbeError, Vitals};
use tokio::time::timeout;

/// What says whether it is well is waited for as long as the service says; what it tells besides no longer than this.
const BESIDES: Duration = Duration::from_secs(1);
/// So long an engine that is in the middle of answers may be silent, in all that it says and counts.
const SILENT: Duration = Duration::from_secs(10);
/// The same where it counts nothing: it may be reading a long prompt between two tokens.
const SILENT_UNCOUNTED: Duration = Duration::from_secs(30);
/// A longer list of models is not kept.
const LIST_MOST: usize = 1 << 20;
/// Requests at once of engines that do not say how many, and are made for one person: some of them take four unless told
/// otherwise, others one, and let the rest wait.
const AT_ONCE: u32 = 4;

/// The lists that are shown as one.
pub(crate) const LISTS: [&str; 3] = ["/v1/models", "/api/tags", "/api/ps"];

/// Asks an engine how it is.
pub(crate) async fn probe(kind: &Llm, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
    let there = kind.desk.farm.named(node.name());
    let told = asked(kind, node, &there).await;
    let facts = match told {
        Ok(facts) => facts,
        Err(error) => {
            if matches!(error, ProbeError::Unreachable(_)) {
                there.state.lock().was_gone = true;
            }
            return Err(error);
        }
    };
    let (vitals, ready) = (vitals(kind, &there, &facts), facts.ready);
    there.told(facts, &kind.setup.config.prefix, now());
    if ready == Some(false) {
        let why = "it says that it is not ready: it loads its model, or its engine died";
        return Err(ProbeError::Unhealthy(why.into()));
    }
    if let Some((silent, counts)) = there.silent(now()) {
        let most = if counts { SILENT } else { SILENT_UNCOUNTED };
        if silent >= most {
            let s = silent.as_secs();
            let why = format!("its answers have stood still for {s} s");
            return Err(ProbeError::Unhealthy(why));
        }
    }
    let is_new = kind.setup.models.write().set(&there.name, &vitals.models);
    if let Some(host) = kind.desk.host.get().filter(|_| is_new) {
        host.changed();
    }
    Ok(vitals)
}

/// What the gateway hears: what the file says of models goes before what the engine does.
fn vitals(kind: &Llm, there: &Node, facts: &Facts) -> Vitals {
    let mut vitals = facts.vitals();
    let models = kind.setup.models.read();
    if let Some(written) = models.written(&there.name) {
        vitals.models = written.to_vec();
    } else if models.is_apart(&there.name) {
        // Clouds do not list all that they serve, and the file says what is asked of them.
        vitals.models.clear();
    }
    if let Some(Engine::Ollama | Engine::LmStudio | Engine::KoboldCpp) = facts.engine {
        vitals.slots = vitals.slots.or(Some(AT_ONCE));
    }
    vitals
}

async fn asked(kind: &Llm, node: &dyn NodeClient, there: &Node) -> Result<Facts, ProbeError> {
    let written = kind.setup.config.engines.get(node.name()).copied();
    let known = written.or_else(|| there.state.lock().facts.engine);
    let own = kind.setup.headers.get(node.name());
    let mut engine = known;
    loop {
        let paths = questions(engine);
        let (first, rest) = paths.split_first().ok_or_else(nothing)?;
        let rest = besides(engine, rest);
        let rest = rest.iter().map(|path| async {
            let asked = timeout(BESIDES, ask(node, path, own)).await;
            Some((*path, asked.ok()?.ok()?))
        });
        let (first_said, said) = futures::join!(ask(node, first, own), join_all(rest));
        let first_said = match (first_said, engine) {
            (Ok(said), _) => Some((*first, said)),
            // Of an engine that nobody knows, another question may tell.
            (Err(error), None) if said.iter().all(Option::is_none) => return Err(error.into()),
            (Err(_), None) => None,
            (Err(error), Some(_)) => return Err(error.into()),
        };
        if let (Some(_), Some((_, said))) = (engine, &first_said) {
            let status = said.status().as_u16();
            // It is another engine now.
            if written.is_none() && matches!(status, 404 | 405) {
                engine = None;
                continue;
            }
            judged(written, first, status)?;
        }
        let said: Vec<_> = first_said
            .into_iter()
            .chain(said.into_iter().flatten())
            .collect();
        keep_lists(there, &said);
        let answers: Vec<Answer<'_>> = said.iter().map(answer).collect();
        let mut facts = Facts::read(&answers);
        facts.engine = written.or(facts.engine);
        if facts.engine.is_none() && answers.iter().all(|answer| answer.status >= 400) {
            let status = answers.first().map_or(0, |answer| answer.status);
            let why = format!("no question of an engine's is answered here (status {status})");
            return Err(ProbeError::Unhealthy(why));
        }
        return Ok(facts);
    }
}

/// What else it is asked: Ollama has a list in OpenAI's words too.
fn besides(engine: Option<Engine>, rest: &'static [&'static str]) -> Vec<&'static str> {
    let more = (engine == Some(Engine::Ollama)).then_some("/v1/models");
    rest.iter().copied().chain(more).collect()
}

/// Whether this answer is one of an engine that is well. Those that say it by `/health` say it by [`Facts::ready`].
fn judged(written: Option<Engine>, path: &str, status: u16) -> Result<(), ProbeError> {
    let is_cloud = written == Some(Engine::OpenAi);
    let is_bad = match status {
        // Too many questions are no illness, and not all that speak these words have a list.
        429 | 404 | 405 if is_cloud => false,
        400.. => !path.ends_with("/health") || status < 500,
        _ => false,
    };
    match is_bad {
        true => Err(ProbeError::Unhealthy(format!(
            "`{path}` is answered with {status}"
        ))),
        false => Ok(()),
    }
}

async fn ask(
    node: &dyn NodeClient,
    path: &str,
    own: Option<&HeaderMap>,
) -> Result<Response<Bytes>, NodeError> {
    let mut request = Request::get(path).body(Bytes::new())?;
    if let Some(own) = own {
        request.headers_mut().extend(own.clone());
    }
    node.send(request).await
}

fn answer<'a>((path, said): &'a (&'static str, Response<Bytes>)) -> Answer<'a> {
    Answer {
        path,
        status: said.status().as_u16(),
        headers: said.headers(),
        body: said.body(),
    }
}

fn keep_lists(there: &Node, said: &[(&'static str, Response<Bytes>)]) {
    let lists = said.iter().filter(|(path, said)| {
        LISTS.contains(path) && said.status().is_success() && said.body().len() <= LIST_MOST
    });
    let lists: HashMap<_, _> = lists
        .map(|(path, said)| (*path, said.body().clone()))
        .collect();
    there.state.lock().lists = lists;
}

fn nothing() -> ProbeError {
    ProbeError::Unhealthy("there is nothing to ask it".into())
}

#[cfg(test)]
mod tests;
