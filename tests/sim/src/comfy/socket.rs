//! `/ws`: greets, answers the first word if it is `feature_flags`, and from then on only tells.

use super::hub::event;
use super::info::features;
use super::json::{Json, object};
use super::node::unfrozen;
use super::reply::{Reply, empty, set, text};
use super::routes::decoded;
use super::seen::Saw;
use super::server::Server;
use crate::answer::text_value;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rand::RngExt;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// As much as a client may say at once.
const MOST_SAID: usize = 4 << 20;

pub(crate) fn open(server: &Arc<Server>, mut request: Request<Incoming>) -> Reply {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let Some(accept) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        let told = "No WebSocket UPGRADE hdr: None\n Can \"Upgrade\" only to \"WebSocket\".";
        return text(StatusCode::BAD_REQUEST, told);
    };
    if server.knobs().refuse_sockets {
        return empty(StatusCode::SERVICE_UNAVAILABLE);
    }
    let asked = text_value(request.uri().query(), "clientId").map(decoded);
    let sid = asked.filter(|sid| !sid.is_empty()).unwrap_or_else(|| {
        let id: u128 = rand::rng().random();
        format!("{id:032x}")
    });
    let server = server.clone();
    let mut cut = server.cut.subscribe();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else {
            return;
        };
        let config = WebSocketConfig::default().max_message_size(Some(MOST_SAID));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config));
        let socket = socket.await;
        tokio::select! {
            _ = cut.changed() => {}
            _ = unfrozen(&server, talk(&server, socket, &sid)) => {}
            () = server.killed() => {}
        }
    });
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    reply.headers_mut().clear();
    set(&mut reply, header::CONNECTION, "upgrade");
    set(&mut reply, header::UPGRADE, "websocket");
    set(&mut reply, header::SEC_WEBSOCKET_ACCEPT, &accept);
    reply
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Server,
    socket: WebSocketStream<S>,
    sid: &str,
) -> Result<(), Error> {
    let (out, mut to_send) = mpsc::unbounded_channel();
    server.hub.open(sid, out);
    server.record.note(Saw::Opened {
        sid: sid.to_owned(),
    });
    // Whoever leaves takes the id away, however it goes.
    let _left = Left { server, sid };
    greet(server, sid);
    let (mut write, mut read) = socket.split();
    let sends = async {
        while let Some(message) = to_send.recv().await {
            write.send(message).await?;
        }
        // Another has the id now: nothing comes any more, and nobody says so.
        std::future::pending().await
    };
    let hears = async {
        let mut first = true;
        while let Some(message) = read.next().await {
            let Message::Text(said) = message? else {
                continue;
            };
            server.record.note(Saw::Said {
                sid: sid.to_owned(),
                text: said.to_string(),
            });
            // What is no object is not counted.
            if first && let Ok(said @ Json::Object(_)) = Json::read(said.as_bytes()) {
                first = false;
                negotiate(server, sid, &said);
            }
        }
        Ok(())
    };
    tokio::select! {
        sent = sends => sent,
        heard = hears => heard,
    }
}

fn greet(server: &Server, sid: &str) {
    let status = object! {"status": server.exec_info(), "sid": sid};
    server.send(&event("status", status), Some(sid));
    let now = server.now.lock();
    if now.client.as_deref() == Some(sid)
        && let Some(node) = &now.node
    {
        let executing = object! {"node": node.as_str()};
        server.send(&event("executing", executing), Some(sid));
    }
}

fn negotiate(server: &Server, sid: &str, said: &Json) {
    let is_flags = said.get("type").and_then(Json::text) == Some("feature_flags");
    if is_flags && server.spec.version.tells_progress_state() {
        server
            .hub
            .negotiated(sid, said.get("data").unwrap_or(&Json::Null));
        server.send(&event("feature_flags", features()), Some(sid));
    }
}

struct Left<'a> {
    server: &'a Server,
    sid: &'a str,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.server.hub.close(self.sid);
        self.server.record.note(Saw::Closed {
            sid: self.sid.to_owned(),
        });
    }
}
