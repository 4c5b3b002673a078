//! What several nodes are asked: all of them, or one after the other.

use super::Call;
use crate::farm::one_list;
use crate::json::{Json, object};
use crate::probe::post;
use crate::reply::{Reply, empty, ok};
use futures::future::join_all;
use http::{Request, Response, StatusCode, header};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Body, Content, EndpointView, NodeClient, NodeError, Refusal};
use tokio::time::timeout;

/// How long a node may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(20);

impl Call<'_> {
    /// `POST /free`: all nodes let go.
    pub(super) async fn free(&self) -> Reply {
        let Some(asked) = self.document().await else {
            return Ok(crate::reply::broken());
        };
        let told = self.usable().into_iter().map(|(at, client)| {
            let asked = &asked;
            async move {
                let told = match post("/free", asked) {
                    Ok(request) => client.send(request).await.map(drop),
                    Err(error) => Err(error),
                };
                match told {
                    Ok(()) => {
                        if let Some(node) = self.kind.desk.farm.get(at.id) {
                            node.forgets();
                        }
                    }
                    Err(error) => {
                        tracing::warn!(endpoint = %at.name, %error, "a node cannot be told to free its memory");
                    }
                }
            }
        });
        join_all(told.collect::<Vec<_>>()).await;
        Ok(empty(StatusCode::OK))
    }

    /// A list of names that every node has one of: all names, each once.
    pub(super) async fn lists(&self, path: &str) -> Reply {
        let answers = self.usable().into_iter().map(|(_, client)| async move {
            let request = Request::get(path).body(bytes::Bytes::new())?;
            client.send(request).await
        });
        let answers: Vec<Result<_, NodeError>> = join_all(answers.collect::<Vec<_>>()).await;
        let answers: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
        let lists: Vec<Json> = answers
            .iter()
            .filter(|answer| answer.status() == StatusCode::OK)
            .filter_map(|answer| Json::read(answer.body()).ok())
            .collect();
        match (lists.is_empty(), answers.first()) {
            (false, _) => Ok(ok(&united(&lists))),
            (true, Some(answer)) => Ok(empty(answer.status())),
            (true, None) => Err(Refusal::NodeFailed(
                "no ComfyUI node of this service can be reached now".into(),
            )),
        }
    }

    /// To one node after the other, the home node first, until one has it.
    pub(super) async fn first(&self) -> Reply {
        let mut last = None;
        for (at, client) in self.usable() {
            match self.pass(&*client).await {
                Ok(answer) if answer.status().as_u16() < 400 => return Ok(answer),
                Ok(answer) => last = last.or(Some(answer)),
                Err(error) => {
                    tracing::debug!(endpoint = %at.name, %error, "a node does not answer");
                }
            }
        }
        last.ok_or_else(|| {
            Refusal::NodeFailed("no ComfyUI node of this service can be reached now".into())
        })
    }

    /// To all nodes; the home node's answer is given.
    pub(super) async fn all(&self) -> Reply {
        let mut answers = join_all(
            self.usable()
                .into_iter()
                .map(|(_, client)| async move { self.pass(&*client).await })
                .collect::<Vec<_>>(),
        )
        .await
        .into_iter()
        .filter_map(Result::ok);
        answers.next().ok_or_else(|| {
            Refusal::NodeFailed("no ComfyUI node of this service can be reached now".into())
        })
    }

    /// The request as it came, to a node.
    async fn pass(&self, client: &dyn NodeClient) -> Result<Response<Body>, NodeError> {
        let mut request = Request::new(Content::clone(self.request.body()));
        *request.method_mut() = self.request.method().clone();
        *request.uri_mut() = self.request.uri().clone();
        *request.headers_mut() = self.request.headers().clone();
        // The node is asked by its own name: with another's, and from a page, it would refuse.
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::ORIGIN);
        request.headers_mut().remove("sec-fetch-site");
        let answer = timeout(PATIENCE, client.stream(request)).await;
        let answer = answer.map_err(|_| NodeError::Timeout)??;
        let (mut parts, pieces) = answer.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(parts, Body::Live(pieces)))
    }

    /// The nodes that are well, the home node first.
    fn usable(&self) -> Vec<(EndpointView, Arc<dyn NodeClient>)> {
        let all = self.kind.endpoints().into_iter().filter(|at| at.usable);
        let all = all.filter_map(|at| {
            let client = self.kind.client(at.id)?;
            Some((at, client))
        });
        all.collect()
    }
}

/// Lists of names as one; of objects (`[{"name", ..}]`), each name once, as the first node has it.
fn united(lists: &[Json]) -> Json {
    let is_names = lists
        .iter()
        .filter_map(Json::list)
        .flatten()
        .all(|item| item.text().is_some());
    if is_names {
        return one_list(lists);
    }
    let mut seen = std::collections::HashSet::new();
    let mut all = Vec::new();
    for item in lists.iter().filter_map(Json::list).flatten() {
        let name = item.get("name").and_then(Json::text);
        let name = name.map_or_else(
            || item.to_string(),
            |name| crate::names::portable(name).into_owned(),
        );
        if seen.insert(name) {
            all.push(item.clone());
        }
    }
    match lists {
        // No list at all: whatever the home node says.
        [first, ..] if first.list().is_none() => first.clone(),
        [] => object! {},
        _ => Json::List(all),
    }
}
