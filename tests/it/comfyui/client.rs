//! A client of a ComfyUI server: a node's, or the gateway's, which must not matter to it.

use crate::scene::Reply;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// Longer than anything here takes on a slow machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Who asks, and whom.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    /// What it calls itself.
    pub(crate) id: String,
    /// Sent with every request.
    headers: Vec<(&'static str, String)>,
    http: Http<HttpConnector, Full<Bytes>>,
}

/// Its event socket.
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

// === impl Client ===

impl Client {
    pub(crate) fn new(address: SocketAddr, id: &str) -> Self {
        Client {
            address,
            id: id.into(),
            headers: Vec::new(),
            http: Http::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The same, with a header in all its requests.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let answer = self.try_ask(method, path, headers, body).await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// The same, of a gateway that may not be there.
    async fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        let own = self.headers.iter().map(|(name, value)| (*name, &**value));
        for (name, value) in headers.iter().copied().chain(own) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let asked = timeout(LONG, async {
            let (head, body) = self.http.request(request).await.ok()?.into_parts();
            Some(Reply {
                status: head.status,
                headers: head.headers,
                body: body.collect().await.ok()?.to_bytes(),
            })
        });
        asked.await.ok()?
    }

    pub(crate) async fn try_get(&self, path: &str) -> Option<Reply> {
        self.try_ask("GET", path, &[], "").await
    }

    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> Option<Reply> {
        self.try_ask("POST", path, &[], body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[], body.to_string()).await
    }

    // === prompts ===

    /// Hands a prompt over, and says what it is called.
    pub(crate) async fn submit(&self, prompt: &Value) -> String {
        self.submit_with(prompt, json!({})).await
    }

    /// The same, with more in its body.
    pub(crate) async fn submit_with(&self, prompt: &Value, more: Value) -> String {
        let mut body = json!({"prompt": prompt, "client_id": self.id});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = self.post("/prompt", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["prompt_id"].as_str().unwrap().to_owned()
    }

    /// Asks until what is answered is so.
    pub(crate) async fn until(&self, path: &str, mut so: impl FnMut(&Value) -> bool) -> Value {
        let mut look = interval(Duration::from_millis(5));
        let mut last = Value::Null;
        let looked = timeout(LONG, async {
            loop {
                look.tick().await;
                last = self.get(path).await.json();
                if so(&last) {
                    return;
                }
            }
        });
        if looked.await.is_err() {
            panic!("{path} never comes to it, but is {last}");
        }
        last
    }

    /// Waits until a prompt is in the history, and gives its entry.
    pub(crate) async fn finished(&self, id: &str) -> Value {
        let path = format!("/history/{id}");
        let told = self.until(&path, |history| history.get(id).is_some()).await;
        told[id].clone()
    }

    /// Hands a prompt over and waits for what comes of it.
    pub(crate) async fn run(&self, prompt: &Value) -> Value {
        let id = self.submit(prompt).await;
        self.finished(&id).await
    }

    /// Hands a prompt over and listens until it has ended.
    pub(crate) async fn run_heard(&self, prompt: &Value) -> Vec<Message> {
        let mut socket = self.listen().await;
        let id = self.submit(prompt).await;
        socket.until_end(&id).await
    }

    /// Waits until `/queue` has so many that run, and so many that wait.
    pub(crate) async fn until_queue(&self, running: usize, waiting: usize) {
        let many = |queue: &Value, key: &str| queue[key].as_array().map(Vec::len);
        self.until("/queue", |queue| {
            many(queue, "queue_running") == Some(running)
                && many(queue, "queue_pending") == Some(waiting)
        })
        .await;
    }

    /// The ids of what runs, and of what waits.
    pub(crate) async fn queue(&self) -> (Vec<String>, Vec<String>) {
        let queue = self.get("/queue").await.json();
        let ids = |key: &str| {
            let items = queue[key].as_array().unwrap().iter();
            items
                .map(|item| item[1].as_str().unwrap().to_owned())
                .collect()
        };
        (ids("queue_running"), ids("queue_pending"))
    }

    // === files ===

    /// A file, by what an output says of it.
    pub(crate) async fn view(&self, image: &Value) -> Bytes {
        let reply = self.get(&path_of(image)).await;
        assert_eq!(reply.status, 200, "{image} {reply:?}");
        reply.body
    }

    /// All images of an entry of the history, in its order.
    pub(crate) async fn images(&self, entry: &Value) -> Vec<Bytes> {
        let mut all = Vec::new();
        for image in images_of(entry) {
            all.push(self.view(&image).await);
        }
        all
    }

    pub(crate) async fn upload(&self, name: &str, bytes: &[u8], fields: &[(&str, &str)]) -> Reply {
        self.upload_to("/upload/image", name, bytes, fields).await
    }

    pub(crate) async fn upload_to(
        &self,
        path: &str,
        name: &str,
        bytes: &[u8],
        fields: &[(&str, &str)],
    ) -> Reply {
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!(
                "--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend(part.into_bytes());
        }
        let head = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend(head.into_bytes());
        body.extend(bytes);
        body.extend(b"\r\n--XX--\r\n");
        let kind = ("content-type", "multipart/form-data; boundary=XX");
        self.ask("POST", path, &[kind], body).await
    }

    // === its socket ===

    /// Connects.
    pub(crate) async fn listen(&self) -> Socket {
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let url = format!("ws://{}/ws?clientId={}", self.address, self.id);
        let opened = timeout(LONG, connect_async_with_config(url, Some(config), true));
        Socket(opened.await.unwrap().unwrap().0)
    }

    /// The same, and says first that it understands what previews are of.
    pub(crate) async fn listen_to_metadata(&self) -> Socket {
        let mut socket = self.listen().await;
        let flags = json!({"supports_preview_metadata": true});
        socket
            .say(&json!({"type": "feature_flags", "data": flags}))
            .await;
        socket.event_of("feature_flags").await;
        socket
    }
}

/// Where a file is seen.
pub(crate) fn path_of(image: &Value) -> String {
    let text = |key: &str| image[key].as_str().unwrap().to_owned();
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("filename", &text("filename"))
        .append_pair("subfolder", &text("subfolder"))
        .append_pair("type", &text("type"))
        .finish();
    format!("/view?{query}")
}

/// What an entry of the history names as images, in its order.
pub(crate) fn images_of(entry: &Value) -> Vec<Value> {
    let outputs = entry["outputs"].as_object().unwrap().values();
    let images = outputs.filter_map(|output| output["images"].as_array());
    images.flatten().cloned().collect()
}

// === impl Socket ===

impl Socket {
    pub(crate) async fn say(&mut self, said: &Value) {
        self.0.send(Message::text(said.to_string())).await.unwrap();
    }

    pub(crate) async fn close(mut self) {
        self.0.close(None).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }

    /// The next message. `None`: it was closed.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let next = timeout(LONG, self.0.next()).await;
            match next.expect("a message is missing")?.ok()? {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return None,
                message => return Some(message),
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            match self.next().await.expect("the socket is closed") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                _ => continue,
            }
        }
    }

    /// The data of the next one of this kind.
    pub(crate) async fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event["data"].clone();
            }
        }
    }

    /// Whatever comes until a prompt has ended, `executing` without a node among it.
    pub(crate) async fn until_end(&mut self, id: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await.expect("the socket is closed");
            let ends = event(&message).is_some_and(|event| is_end(&event, id));
            messages.push(message);
            if ends {
                return messages;
            }
        }
    }
}

/// A message that is an event.
pub(crate) fn event(message: &Message) -> Option<Value> {
    match message {
        Message::Text(text) => Some(serde_json::from_str(text).unwrap()),
        _ => None,
    }
}

/// The names of events, one after the other.
pub(crate) fn kinds(messages: &[Message]) -> Vec<String> {
    let events = messages.iter().filter_map(event);
    events
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

fn is_end(event: &Value, id: &str) -> bool {
    event["type"] == "executing" && event["data"]["node"].is_null() && {
        let of = &event["data"]["prompt_id"];
        *of == id
    }
}
