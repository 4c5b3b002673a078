//! Has an engine let go of the card, and asks whether it is done with what was broken off.
//!
//! Only of engines that load a model again when it is asked for: one that has to be woken by hand (vLLM's `/sleep`, SGLang's
//! `/release_memory_occupation`) would be asked before anybody had.

use crate::engines::{Answer, Engine, Facts, Model, questions};
use crate::kind::Llm;
use bytes::Bytes;
use http::{Request, Response, header};
use serde_json::{Value, json};
use std::time::Duration;
use tabane_api::{NodeClient, NodeError, Released, Stopped};
use tokio::time::sleep;

/// Between two looks at whether it has let go.
const LOOK: Duration = Duration::from_millis(100);
/// So often it is looked at whether a request that was broken off is over: in all engines it ends when its connection does.
const LOOKS: u32 = 3;

/// Returns when no model is in memory.
pub(crate) async fn release(kind: &Llm, node: &dyn NodeClient) -> Result<Released, NodeError> {
    let engine = engine(kind, node);
    let Some(loaded) = loaded(engine, node).await? else {
        return Ok(Released::Unsupported);
    };
    for model in &loaded {
        unload(engine, node, &model.name).await?;
    }
    // For as long as the gateway waits for it.
    while loaded_now(engine, node).await? {
        sleep(LOOK).await;
    }
    Ok(Released::Freed)
}

async fn loaded_now(engine: Option<Engine>, node: &dyn NodeClient) -> Result<bool, NodeError> {
    let loaded = loaded(engine, node).await?;
    Ok(loaded.is_some_and(|loaded| !loaded.is_empty()))
}

/// Which models are in memory; `None`: this engine does not say, or cannot let go of one.
async fn loaded(
    engine: Option<Engine>,
    node: &dyn NodeClient,
) -> Result<Option<Vec<Model>>, NodeError> {
    let path = match engine {
        Some(Engine::Ollama) => "/api/ps",
        Some(Engine::LlamaCpp) => "/v1/models",
        Some(Engine::LmStudio) => return instances(node).await,
        _ => return Ok(None),
    };
    let facts = facts(node, &[path]).await?;
    let loaded = facts.models.into_iter();
    let loaded = loaded.filter(|model| model.loaded == Some(true));
    // With one model of its own, llama.cpp does not speak of loading.
    Ok(facts.says_loaded.then(|| loaded.collect()))
}

/// LM Studio's: what is loaded has names of its own.
async fn instances(node: &dyn NodeClient) -> Result<Option<Vec<Model>>, NodeError> {
    let said = get(node, "/api/v1/models").await?;
    let Ok(said) = serde_json::from_slice::<Value>(said.body()) else {
        return Ok(None);
    };
    let Some(models) = said["models"].as_array() else {
        return Ok(None);
    };
    let instances = models
        .iter()
        .filter_map(|model| model["loaded_instances"].as_array());
    let names = instances
        .flatten()
        .filter_map(|instance| instance["id"].as_str());
    Ok(Some(
        names
            .map(|name| Model {
                name: name.to_owned(),
                ..Model::default()
            })
            .collect(),
    ))
}

async fn unload(
    engine: Option<Engine>,
    node: &dyn NodeClient,
    model: &str,
) -> Result<(), NodeError> {
    let (path, body) = match engine {
        Some(Engine::Ollama) => ("/api/generate", json!({"model": model, "keep_alive": 0})),
        Some(Engine::LmStudio) => ("/api/v1/models/unload", json!({"instance_id": model})),
        _ => ("/models/unload", json!({"model": model})),
    };
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()))?;
    let said = node.send(request).await?;
    match said.status().is_success() {
        true => Ok(()),
        false => Err(NodeError::BadRequest(format!(
            "`{path}` of {model} is answered with {}",
            said.status()
        ))),
    }
}

/// Whether what was broken off is over there: no more is at work than what is ours.
pub(crate) async fn stopped(kind: &Llm, node: &dyn NodeClient) -> Result<Stopped, NodeError> {
    let there = kind.desk.farm.named(node.name());
    let engine = engine(kind, node);
    if there.state.lock().facts.running.is_none() {
        return Ok(Stopped::Unknown);
    }
    for look in 1..=LOOKS {
        let facts = facts(node, questions(engine)).await?;
        let Some(running) = facts.running else {
            return Ok(Stopped::Unknown);
        };
        if running.saturating_add(facts.waiting.unwrap_or(0)) <= there.running() {
            return Ok(Stopped::Idle);
        }
        sleep(LOOK * look).await;
    }
    Ok(Stopped::Unknown)
}

fn engine(kind: &Llm, node: &dyn NodeClient) -> Option<Engine> {
    let written = kind.setup.config.engines.get(node.name()).copied();
    written.or_else(|| kind.desk.farm.named(node.name()).state.lock().facts.engine)
}

async fn facts(node: &dyn NodeClient, paths: &[&'static str]) -> Result<Facts, NodeError> {
    let mut said = Vec::new();
    for path in paths {
        said.push((*path, get(node, path).await?));
    }
    let answers: Vec<Answer<'_>> = said
        .iter()
        .map(|(path, said)| Answer {
            path,
            status: said.status().as_u16(),
            headers: said.headers(),
            body: said.body(),
        })
        .collect();
    Ok(Facts::read(&answers))
}

async fn get(node: &dyn NodeClient, path: &str) -> Result<Response<Bytes>, NodeError> {
    node.send(Request::get(path).body(Bytes::new())?).await
}

#[cfg(test)]
mod tests;
