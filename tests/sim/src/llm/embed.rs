//! Embeddings: numbers that a text decides, after as long as it takes to read it.

use super::fault::Fault;
use super::reply::{self, Reply, compact, go};
use super::seen::{End, Line};
use super::server::Server;
use super::spec::Engine;
use super::token::{Seed, Token, number, tokens};
use crate::comfy::json::{Json, object};
use http::StatusCode;
use std::io;
use std::sync::Arc;
use tokio::time::Instant;

/// An API that answers with embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Embeds {
    /// `/v1/embeddings`
    OpenAi,
    /// Ollama's `/api/embed`
    Ollama,
    /// Ollama's old `/api/embeddings`, which takes one text.
    OllamaOne,
}

/// How many numbers there are, unless a request says otherwise.
const LENGTH: usize = 64;

pub(crate) async fn answer(
    server: &Arc<Server>,
    mut line: Line,
    embeds: Embeds,
    body: &Json,
) -> io::Result<Reply> {
    let engine = server.spec.engine;
    let reply = match embedded(server, &line, embeds, body).await {
        Ok(reply) => reply,
        Err(fault) => {
            let api = (embeds == Embeds::OpenAi).then_some(super::ask::Api::Chat);
            fault.reply(engine, api)
        }
    };
    line.end(End::Answered(reply.status().as_u16()));
    Ok(reply)
}

async fn embedded(
    server: &Arc<Server>,
    line: &Line,
    embeds: Embeds,
    body: &Json,
) -> Result<Reply, Fault> {
    let engine = server.spec.engine;
    let named = super::ask::named(body);
    let key = if embeds == Embeds::OllamaOne {
        "prompt"
    } else {
        "input"
    };
    let texts = inputs(body.get(key).ok_or(Fault::Missing("input"))?);
    let all: Vec<Token> = texts.iter().flatten().copied().collect();
    line.note(|asked| {
        asked.model = named.clone();
        asked.prompt_tokens = all.len().max(1);
    });
    if let Some(status) = server.fails() {
        return Err(Fault::Status(status));
    }
    let model = server
        .spec
        .find(named.as_deref())
        .ok_or_else(|| server.no_model(named.clone()))?;
    let does = server.spec.models[model].embeds || engine == Engine::Ollama;
    if !does {
        return Err(Fault::Cannot(
            "This server does not support embeddings. Start it with `--embeddings`",
        ));
    }
    let began = Instant::now();
    let hold = server
        .shelf
        .take(model, None)
        .await
        .map_err(|_| Fault::Busy)?;
    let mut ticket = server.runners[model].put(all.clone(), vec![0]);
    while let Some(wrote) = ticket.next().await {
        line.note(|asked| asked.hit_tokens = Some(wrote.hit));
    }
    let length = body
        .get("dimensions")
        .and_then(Json::number)
        .map_or(LENGTH, |number| number as usize);
    let vector = |text: &Vec<Token>| -> Json {
        Seed::of(&server.spec.models[model].name, text)
            .vector(length)
            .collect()
    };
    let vectors: Vec<Json> = texts.iter().map(vector).collect();
    let told = Told {
        model: server.model_name(model, named.as_deref()),
        tokens: all.len(),
        id: server.id(),
        created: server.created(),
        load: hold.waited.as_nanos() as u64,
        took: began.elapsed().as_nanos() as u64,
    };
    Ok(said(engine, embeds, &told, vectors))
}

struct Told {
    model: String,
    tokens: usize,
    id: String,
    created: u64,
    load: u64,
    took: u64,
}

fn said(engine: Engine, embeds: Embeds, told: &Told, vectors: Vec<Json>) -> Reply {
    let usage = object! {"prompt_tokens": told.tokens, "total_tokens": told.tokens};
    let data = |entry: &dyn Fn(usize, Json) -> Json| -> Json {
        vectors
            .iter()
            .cloned()
            .enumerate()
            .map(|(at, vector)| entry(at, vector))
            .collect()
    };
    match (engine, embeds) {
        (_, Embeds::Ollama) => {
            let body = object! {
                "model": told.model.as_str(),
                "embeddings": vectors,
                "total_duration": told.took,
                "load_duration": told.load,
                "prompt_eval_count": told.tokens,
            };
            reply::json(engine, 200, &body)
        }
        (_, Embeds::OllamaOne) => {
            let first = vectors.into_iter().next().unwrap_or_default();
            reply::json(engine, 200, &object! {"embedding": first})
        }
        (Engine::Vllm, Embeds::OpenAi) => {
            let entry =
                |at, vector| object! {"index": at, "object": "embedding", "embedding": vector};
            let usage = object! {
                "prompt_tokens": told.tokens,
                "total_tokens": told.tokens,
                "completion_tokens": 0_u64,
                "prompt_tokens_details": Json::Null,
            };
            let body = object! {
                "id": format!("embd-{}", told.id.get(..16).unwrap_or_default()),
                "object": "list",
                "created": told.created,
                "model": told.model.as_str(),
                "data": data(&entry),
                "usage": usage,
            };
            reply::json(engine, 200, &body)
        }
        (Engine::LlamaCpp, Embeds::OpenAi) => {
            let entry =
                |at, vector| object! {"embedding": vector, "index": at, "object": "embedding"};
            let body = object! {
                "model": told.model.as_str(), "object": "list", "usage": usage, "data": data(&entry),
            };
            reply::with(
                StatusCode::OK,
                "application/json; charset=utf-8",
                compact(&body),
            )
        }
        (Engine::Ollama, Embeds::OpenAi) => {
            let entry =
                |at, vector| object! {"object": "embedding", "embedding": vector, "index": at};
            let body = object! {
                "object": "list", "data": data(&entry), "model": told.model.as_str(), "usage": usage,
            };
            reply::with(StatusCode::OK, "application/json", go(&body) + "\n")
        }
    }
}

/// Texts, or tokens: one, or several.
fn inputs(input: &Json) -> Vec<Vec<Token>> {
    let of = |one: &Json| match one {
        Json::Text(text) => tokens(text),
        Json::List(numbers) => numbers.iter().map(|one| number(&one.to_string())).collect(),
        other => vec![number(&other.to_string())],
    };
    match input {
        Json::List(several) if several.iter().all(|one| matches!(one, Json::Number(_))) => {
            vec![of(input)]
        }
        Json::List(several) => several.iter().map(of).collect(),
        one => vec![of(one)],
    }
}
