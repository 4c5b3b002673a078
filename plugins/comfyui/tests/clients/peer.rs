//! A client at the other end of a socket, and what is sent to it.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Message, NodeError, Socket};
use tabane_comfyui::clients::Clients;
use tabane_comfyui::frames::Frame;
use tabane_comfyui::json::Json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A client. Whoever drops it is gone without a word.
pub struct Peer {
    say: mpsc::UnboundedSender<Message>,
    hear: mpsc::Receiver<Message>,
    closed: Arc<Mutex<Option<(u16, String)>>>,
    task: JoinHandle<()>,
}

struct Channels {
    said: mpsc::UnboundedReceiver<Message>,
    tell: mpsc::Sender<Message>,
    closed: Arc<Mutex<Option<(u16, String)>>>,
}

#[async_trait]
impl Socket for Channels {
    async fn receive(&mut self) -> Result<Option<Message>, NodeError> {
        Ok(self.said.recv().await)
    }

    async fn send(&mut self, message: Message) -> Result<(), NodeError> {
        let sent = self.tell.send(message).await;
        sent.map_err(|_| NodeError::Broken("gone".into()))
    }

    async fn close(&mut self, code: u16, why: &str) {
        *self.closed.lock() = Some((code, why.to_owned()));
    }
}

pub const FEATURES: &str = r#"{"supports_preview_metadata": true, "max_upload_size": 104857600}"#;

impl Peer {
    /// Connects, and is told nothing yet. It takes one message that it has not read; the next has to wait.
    pub fn connects(clients: &Clients, id: &str) -> Self {
        let (say, said) = mpsc::unbounded_channel();
        let (tell, hear) = mpsc::channel(1);
        let closed = Arc::new(Mutex::new(None));
        let socket = Box::new(Channels {
            said,
            tell,
            closed: closed.clone(),
        });
        let (clients, id) = (clients.clone(), id.to_owned());
        let task = tokio::spawn(async move {
            let features = || Json::read(FEATURES.as_bytes()).unwrap();
            clients.attach(Some(&id), socket, features).await;
        });
        Peer {
            say,
            hear,
            closed,
            task,
        }
    }

    /// Connects, and is greeted.
    pub async fn greeted(clients: &Clients, id: &str) -> Self {
        let mut peer = Peer::connects(clients, id);
        assert!(peer.text().await.contains(r#""sid": "#));
        peer
    }

    pub fn says(&self, text: &str) {
        self.say.send(Message::Text(text.to_owned())).unwrap();
    }

    /// Says what it understands, and reads what the gateway does.
    pub async fn negotiates(&mut self) {
        self.says(r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#);
        assert!(self.text().await.contains("feature_flags"));
    }

    /// Closes in order, and reads on what is on its way.
    pub fn closes(&mut self) {
        self.say = mpsc::unbounded_channel().0;
    }

    /// The next message; `None`: its socket is over.
    pub async fn next(&mut self) -> Option<Message> {
        let next = timeout(Duration::from_secs(20), self.hear.recv());
        next.await.expect("a message, or the end")
    }

    pub async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    pub async fn bytes(&mut self) -> Bytes {
        match self.next().await {
            Some(Message::Binary(bytes)) => bytes,
            other => panic!("no bytes: {other:?}"),
        }
    }

    /// What has arrived and was not read.
    pub fn arrived(&mut self) -> Option<Message> {
        self.hear.try_recv().ok()
    }

    /// Closes in order, and what had arrived before.
    pub async fn leaves(self) -> Vec<Message> {
        let Peer {
            say,
            mut hear,
            task,
            ..
        } = self;
        drop(say);
        // What is on its way does not arrive any more.
        hear.close();
        timeout(Duration::from_secs(20), task)
            .await
            .unwrap()
            .unwrap();
        let mut arrived = Vec::new();
        while let Ok(message) = hear.try_recv() {
            arrived.push(message);
        }
        arrived
    }

    /// How the gateway closed it.
    pub async fn closed(mut self) -> (u16, String) {
        while self.next().await.is_some() {}
        self.task.await.unwrap();
        self.closed.lock().take().expect("it was closed")
    }
}

/// A frame of text with a number by which it is known again.
pub fn frame(name: &str, prompt: &str, number: usize) -> Frame {
    said(&format!(
        r#"{{"type": "{name}", "data": {{"prompt_id": "{prompt}", "n": {number}}}}}"#
    ))
}

pub fn of_node(name: &str, prompt: &str, node: &str, number: usize) -> Frame {
    said(&format!(
        r#"{{"type": "{name}", "data": {{"node": "{node}", "prompt_id": "{prompt}", "n": {number}}}}}"#
    ))
}

pub fn said(text: &str) -> Frame {
    Frame::read(Message::Text(text.to_owned()))
}

/// As a node sends one that says what it is of.
pub fn preview(prompt: &str, node: &str, kind: &str, image: &[u8]) -> Frame {
    let json = format!(
        r#"{{"node_id": "{node}", "prompt_id": "{prompt}", "image_type": "image/{kind}"}}"#
    );
    let length = (json.len() as u32).to_be_bytes();
    let bytes = [&4u32.to_be_bytes(), &length, json.as_bytes(), image].concat();
    Frame::read(Message::Binary(bytes.into()))
}
