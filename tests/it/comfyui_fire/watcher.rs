//! A client that only listens, and connects again whenever its socket ends: what it was told of each prompt.

use super::{LONG, eventually};
use crate::comfyui::client::Client;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// Listens until it is dropped.
pub(super) struct Watcher {
    heard: Arc<Mutex<Heard>>,
    address: Arc<Mutex<SocketAddr>>,
    listens: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    events: Vec<Value>,
    /// How often a socket was open.
    sockets: usize,
    /// Prompts that were said to have ended, and were not in the history.
    early: Vec<String>,
}

/// What was told of the end of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// `execution_success`, `execution_error`, `execution_interrupted`, each time that it was told.
    pub(super) words: Vec<String>,
    /// How often `executing` without a node was told.
    pub(super) nulls: usize,
}

impl Ends {
    /// Told once, as this.
    pub(super) fn once(word: &str) -> Self {
        Ends {
            words: vec![word.into()],
            nulls: 1,
        }
    }
}

// === impl Watcher ===

impl Watcher {
    /// Listens as this client. It is connected when this returns.
    pub(super) async fn of(address: SocketAddr, client: &str) -> Self {
        let address = Arc::new(Mutex::new(address));
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let listens = tokio::spawn(listen(address.clone(), client.to_owned(), heard.clone()));
        let watcher = Watcher {
            heard,
            address,
            listens,
        };
        watcher.until_sockets(1).await;
        watcher
    }

    /// The gateway is somewhere else now.
    pub(super) fn moves_to(&self, address: SocketAddr) {
        *self.address.lock() = address;
    }

    /// How many sockets it had so far.
    pub(super) fn sockets(&self) -> usize {
        self.heard.lock().sockets
    }

    pub(super) async fn until_sockets(&self, many: usize) {
        eventually("it is connected", async || self.sockets() >= many).await;
    }

    /// What it was told of a prompt, in this order.
    pub(super) fn events(&self, id: &str) -> Vec<Value> {
        let heard = self.heard.lock();
        let of = heard.events.iter().filter(|e| e["data"]["prompt_id"] == id);
        of.cloned().collect()
    }

    /// The names of what it was told of a prompt; `null` for `executing` without a node.
    pub(super) fn kinds(&self, id: &str) -> Vec<String> {
        let events = self.events(id).into_iter();
        events
            .map(|event| match is_null(&event) {
                true => "null".to_owned(),
                false => event["type"].as_str().unwrap().to_owned(),
            })
            .collect()
    }

    pub(super) fn ends(&self, id: &str) -> Ends {
        let kinds = self.kinds(id);
        let words = [
            "execution_success",
            "execution_error",
            "execution_interrupted",
        ];
        Ends {
            nulls: kinds.iter().filter(|kind| *kind == "null").count(),
            words: kinds
                .into_iter()
                .filter(|kind| words.contains(&kind.as_str()))
                .collect(),
        }
    }

    /// Waits until a prompt is said to be over.
    pub(super) async fn until_ended(&self, id: &str) {
        eventually("its end is told", async || self.ends(id).nulls > 0).await;
        assert_eq!(self.heard.lock().early, Vec::<String>::new());
    }

    /// Waits until a prompt is said to be over, which has to be so: once, and last of all.
    pub(super) async fn hears_once(&self, id: &str, word: &str) {
        self.until_ended(id).await;
        // What came too often would come now.
        sleep(Duration::from_millis(100)).await;
        let kinds = self.kinds(id);
        assert_eq!(self.ends(id), Ends::once(word), "{kinds:?}");
        assert_eq!(kinds[kinds.len() - 2..], [word, "null"], "{kinds:?}");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

fn is_null(event: &Value) -> bool {
    event["type"] == "executing" && event["data"]["node"].is_null()
}

async fn listen(address: Arc<Mutex<SocketAddr>>, client: String, heard: Arc<Mutex<Heard>>) {
    loop {
        let at = *address.lock();
        let url = format!("ws://{at}/ws?clientId={client}");
        // One that hangs is one that is not there.
        if let Ok(Ok((mut socket, _))) = timeout(Duration::from_secs(5), connect_async(url)).await {
            heard.lock().sockets += 1;
            let asks = Client::new(at, &client);
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else {
                    continue;
                };
                let event: Value = serde_json::from_str(&text).unwrap();
                if is_null(&event) {
                    look(&asks, at, &event, &heard).await;
                }
                heard.lock().events.push(event);
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether what is said to be over is in the history. Of a gateway that died meanwhile, nobody knows.
async fn look(asks: &Client, at: SocketAddr, event: &Value, heard: &Mutex<Heard>) {
    let Some(id) = event["data"]["prompt_id"].as_str() else {
        return;
    };
    if TcpStream::connect(at).await.is_err() {
        return;
    }
    let path = format!("/history/{id}");
    let Ok(Some(told)) = timeout(LONG, asks.try_get(&path)).await else {
        return;
    };
    if told.status == 200 && told.json().get(id).is_none() {
        heard.lock().early.push(id.to_owned());
    }
}
