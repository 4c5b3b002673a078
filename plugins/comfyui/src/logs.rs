//! The nodes' logs as one: each line with its node's name.

use crate::farm::Node;
use crate::frames::Frame;
use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::probe;
use http::{Method, header};
use parking_lot::Mutex;
use std::collections::HashSet;
use tabane_api::NodeClient;

/// So many clients may listen.
const MOST: usize = 1_000;

/// Who listens to logs.
#[derive(Default)]
pub struct Logs(Mutex<HashSet<String>>);

// === impl Logs ===

impl Logs {
    /// Whether anybody listens.
    pub fn is_wanted(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// A client listens from now on, or does not any more. Whether the nodes have to be told.
    pub fn subscribe(&self, client: &str, listens: bool) -> bool {
        let mut all = self.0.lock();
        let before = all.is_empty();
        match listens {
            true if all.len() < MOST => {
                all.insert(client.to_owned());
            }
            true => {}
            false => {
                all.remove(client);
            }
        }
        before != all.is_empty()
    }

    /// A node logged something.
    pub fn told(&self, kind: &Comfyui, node: &Node, frame: &Frame) {
        let told = frame
            .text()
            .and_then(|text| Json::read(text.as_bytes()).ok());
        let Some(data) = told.as_ref().and_then(|told| told.get("data")) else {
            return;
        };
        let data = prefixed(data, &node.short);
        let frame = Frame::new("logs", data);
        let clients: Vec<String> = self.0.lock().iter().cloned().collect();
        for client in clients {
            kind.desk.clients.send(&client, frame.clone());
        }
    }
}

/// `{"entries": [{"t", "m"}], "size"}`, each line with the node's name before it.
pub fn prefixed(data: &Json, name: &str) -> Json {
    let mut data = data.clone();
    if let Json::Object(data) = &mut data
        && let Some(Json::List(entries)) = data.get_mut("entries")
    {
        for entry in entries {
            if let Json::Object(entry) = entry
                && let Some(Json::Text(line)) = entry.get_mut("m")
            {
                line.insert_str(0, &format!("[{name}] "));
            }
        }
    }
    data
}

/// Has a node tell what it logs, or not any more.
pub async fn subscribe(node: &Node, client: &dyn NodeClient, listens: bool) {
    let asked = object! {"clientId": &*node.sid, "enabled": listens};
    let request = http::Request::builder()
        .method(Method::PATCH)
        .uri("/internal/logs/subscribe")
        .header(header::CONTENT_TYPE, "application/json")
        .body(asked.to_string().into());
    let told = match request {
        Ok(request) => client.send(request).await.map(drop),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = told {
        tracing::debug!(endpoint = %node.name, %error, "a node's log cannot be followed");
    }
}

/// All logs in one document.
pub async fn raw(kind: &Comfyui) -> Json {
    let mut all: Vec<Json> = Vec::new();
    let mut size = Json::Null;
    for node in kind.nodes() {
        let Some(client) = kind.client(node.id) else {
            continue;
        };
        let Ok(told) = probe::get(&*client, "/internal/logs/raw").await else {
            continue;
        };
        let told = prefixed(&told, &node.short);
        all.extend(
            told.get("entries")
                .and_then(Json::list)
                .unwrap_or(&[])
                .iter()
                .cloned(),
        );
        if size == Json::Null {
            size = told.get("size").cloned().unwrap_or_default();
        }
    }
    all.sort_by(|a, b| {
        let at = |entry: &Json| {
            entry
                .get("t")
                .and_then(Json::text)
                .unwrap_or_default()
                .to_owned()
        };
        at(a).cmp(&at(b))
    });
    object! {"entries": Json::List(all), "size": size}
}
