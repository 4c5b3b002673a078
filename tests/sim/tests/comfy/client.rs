//! A client, as simple as they come.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::time::Duration;
use tabane_sim::comfy::ComfyNode;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request; an error is a connection that broke.
pub async fn ask(
    node: &ComfyNode,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    ask_at(&node.url(), method, path, headers, body).await
}

/// The same of a server that is not ours.
pub async fn ask_at(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let http = Http::builder(TokioExecutor::new()).build_http();
    let mut request = Request::new(Full::<Bytes>::from(body.into()));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    *request.uri_mut() = format!("{base}{path}").parse().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let asked = timeout(LONG, http.request(request)).await.unwrap();
    let (head, body) = asked.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
    })
}

pub async fn get(node: &ComfyNode, path: &str) -> Answer {
    ask(node, "GET", path, &[], "").await.unwrap()
}

pub async fn post(node: &ComfyNode, path: &str, body: &Value) -> Answer {
    ask(node, "POST", path, &[], body.to_string())
        .await
        .unwrap()
}

/// Hands a prompt over, and gives its id.
pub async fn submit(node: &ComfyNode, client: &str, prompt: &Value) -> String {
    let answer = post(
        node,
        "/prompt",
        &json!({"prompt": prompt, "client_id": client}),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["prompt_id"].as_str().unwrap().to_owned()
}

/// Uploads a file.
pub async fn upload(node: &ComfyNode, name: &str, bytes: &[u8], fields: &[(&str, &str)]) -> Answer {
    upload_to(node, "/upload/image", name, bytes, fields).await
}

pub async fn upload_to(
    node: &ComfyNode,
    path: &str,
    name: &str,
    bytes: &[u8],
    fields: &[(&str, &str)],
) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.into_bytes());
    }
    let head = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n"
    );
    body.extend(head.into_bytes());
    body.extend(bytes);
    body.extend(b"\r\n--XX--\r\n");
    let kind = ("content-type", "multipart/form-data; boundary=XX");
    ask(node, "POST", path, &[kind], body).await.unwrap()
}

/// Waits until a prompt is in the history, and gives its entry.
pub async fn finished(node: &ComfyNode, id: &str) -> Value {
    let ended = node.until(|saw| {
        saw.iter().any(
            |saw| matches!(saw, tabane_sim::comfy::Saw::Ended { prompt_id, .. } if prompt_id == id),
        )
    });
    timeout(LONG, ended).await.unwrap();
    // What was seen comes before what is in the history.
    loop {
        let path = format!("/history/{}", id.replace('/', "%2F"));
        let history = get(node, &path).await.json();
        if let Some(entry) = history.get(id) {
            return entry.clone();
        }
        tokio::task::yield_now().await;
    }
}

pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

pub async fn socket(node: &ComfyNode, client: &str) -> Socket {
    let url = format!("ws://{}/ws?clientId={client}", node.addr());
    Socket(connect_async(url).await.unwrap().0)
}

impl Socket {
    pub async fn say(&mut self, said: &Value) {
        self.0.send(Message::text(said.to_string())).await.unwrap();
    }

    pub async fn close(mut self) {
        self.0.close(None).await.unwrap();
        while self.0.next().await.is_some() {}
    }

    /// The next message. `None`: it was closed.
    pub async fn next(&mut self) -> Option<Message> {
        let message = timeout(LONG, self.0.next())
            .await
            .expect("a message is missing");
        message?.ok()
    }

    pub async fn event(&mut self) -> Value {
        loop {
            match self.next().await.expect("the socket is closed") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                _ => continue,
            }
        }
    }

    /// The next one of this kind.
    pub async fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event["data"].clone();
            }
        }
    }

    /// Whatever comes until a prompt has ended, `executing` without a node among it.
    pub async fn until_end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await.expect("the socket is closed");
            let ends = matches!(&message, Message::Text(text)
                if text.starts_with(r#"{"type": "executing", "data": {"node": null"#));
            messages.push(message);
            if ends {
                return messages;
            }
        }
    }
}
