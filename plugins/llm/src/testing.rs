//! A node and a gateway that answer as they are told.

use crate::config::Config;
use crate::kind::Llm;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use tabane_api::{
    ANONYMOUS, Ask, Caller, Choice, Intent, Kind, Need, NodeClient, NodeError, Refusal, Service,
};

/// A kind with this block.
pub(crate) fn llm(json: &str) -> Llm {
    let config: Config = serde_json::from_str(json).unwrap();
    Llm::new(config, None).unwrap()
}

/// The same, of which these endpoints have these models; none: they do not say.
pub(crate) fn knowing(json: &str, endpoints: &[(&str, &[&str])]) -> Llm {
    let kind = llm(json);
    for (name, models) in endpoints {
        let models: Vec<String> = models.iter().map(ToString::to_string).collect();
        kind.setup.models.write().set(name, &models);
    }
    kind
}

pub(crate) fn caller() -> Caller {
    Caller {
        tenant: ANONYMOUS.into(),
        address: Ipv4Addr::LOCALHOST.into(),
    }
}

/// What a request asks for, its body looked at where the kind wants that.
pub(crate) fn asked(kind: &Llm, line: &str, body: &str) -> Result<Intent, Refusal> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert("content-length", body.len().into());
        headers.insert("content-type", "application/json".parse().unwrap());
    }
    let ask = Ask {
        method: &method.parse::<Method>().unwrap(),
        path,
        query: Some(query).filter(|query| !query.is_empty()),
        headers: &headers,
        caller: &caller(),
    };
    match kind.classify(&ask, None)? {
        Intent::NeedBody { .. } => {
            kind.classify(&ask, Some(&Bytes::copy_from_slice(body.as_bytes())))
        }
        other => Ok(other),
    }
}

/// The ways to serve a request that is relayed.
pub(crate) fn choices(kind: &Llm, line: &str, body: &str) -> Vec<Choice> {
    match asked(kind, line, body) {
        Ok(Intent::Relay(choices)) => choices,
        other => panic!("{line}: {other:?}"),
    }
}

/// What a chat of this text needs.
pub(crate) fn chat(kind: &Llm, model: &str, text: &str) -> Need {
    let body = serde_json::json!({"model": model, "stream": true, "messages": [{"role": "user", "content": text}]});
    let mut all = choices(kind, "POST /v1/chat/completions", &body.to_string());
    all.remove(0).need
}

/// A node whose answers are written down.
pub(crate) struct FakeNode {
    name: &'static str,
    /// By path; what is not there is answered with 404.
    answers: Mutex<HashMap<&'static str, (u16, String)>>,
    pub(crate) asked: Mutex<Vec<(String, HeaderMap, Bytes)>>,
    pub(crate) gone: Mutex<Option<NodeError>>,
}

impl FakeNode {
    pub(crate) fn new(name: &'static str, answers: &[(&'static str, &str)]) -> Self {
        let node = FakeNode {
            name,
            answers: Mutex::default(),
            asked: Mutex::default(),
            gone: Mutex::default(),
        };
        for (path, body) in answers {
            node.set(path, 200, body);
        }
        node
    }

    pub(crate) fn set(&self, path: &'static str, status: u16, body: &str) {
        self.answers.lock().insert(path, (status, body.to_owned()));
    }

    /// What was posted to it, each its path and body.
    pub(crate) fn posted(&self) -> Vec<String> {
        let asked = self.asked.lock();
        let posted = asked.iter().filter(|(_, _, body)| !body.is_empty());
        posted
            .map(|(path, _, body)| format!("{path} {}", String::from_utf8_lossy(body)))
            .collect()
    }
}

#[async_trait]
impl NodeClient for FakeNode {
    fn name(&self) -> &str {
        self.name
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
        let path = request.uri().path().to_owned();
        let (head, body) = request.into_parts();
        self.asked.lock().push((path.clone(), head.headers, body));
        if let Some(error) = self.gone.lock().clone() {
            return Err(error);
        }
        let answer = self.answers.lock().get(&*path).cloned();
        let (status, body) = answer.unwrap_or((404, String::new()));
        Ok(Response::builder()
            .status(status)
            .body(body.into())
            .unwrap())
    }
}
