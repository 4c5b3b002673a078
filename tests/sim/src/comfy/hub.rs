//! The sockets of a server, one for each client's id.

use super::json::{Json, object};
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::mpsc::UnboundedSender;
use tokio_tungstenite::tungstenite::protocol::Message;

/// A picture that is shown before the result is there, or is the result itself.
#[derive(Clone)]
pub(crate) struct Preview {
    pub(crate) is_png: bool,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Hub {
    sockets: Mutex<HashMap<String, Socket>>,
}

struct Socket {
    out: UnboundedSender<Message>,
    wants_metadata: bool,
}

// === impl Hub ===

impl Hub {
    /// Whoever had this id before stays connected, and hears nothing any more.
    pub(crate) fn open(&self, sid: &str, out: UnboundedSender<Message>) {
        let socket = Socket {
            out,
            wants_metadata: false,
        };
        self.sockets.lock().insert(sid.to_owned(), socket);
    }

    /// As in the real server, whoever has the id now is forgotten, even if it was another one that left.
    pub(crate) fn close(&self, sid: &str) {
        self.sockets.lock().remove(sid);
    }

    /// A client told what it understands.
    pub(crate) fn negotiated(&self, sid: &str, flags: &Json) {
        if let Some(socket) = self.sockets.lock().get_mut(sid) {
            socket.wants_metadata = flags
                .get("supports_preview_metadata")
                .is_some_and(Json::is_true);
        }
    }

    pub(crate) fn wants_metadata(&self, sid: Option<&str>) -> bool {
        let sockets = self.sockets.lock();
        sid.and_then(|sid| sockets.get(sid))
            .is_some_and(|socket| socket.wants_metadata)
    }

    /// Sends to one, or to all.
    pub(crate) fn send(&self, message: &Message, sid: Option<&str>) {
        let sockets = self.sockets.lock();
        let to = sockets
            .iter()
            .filter(|(id, _)| sid.is_none_or(|sid| sid == *id));
        for (_, socket) in to {
            // One that just left is not told.
            let _ = socket.out.send(message.clone());
        }
    }
}

/// `{"type": .., "data": ..}`
pub(crate) fn event(kind: &str, data: Json) -> Message {
    Message::text(object! {"type": kind, "data": data}.to_string())
}

/// A preview for clients that do not know what it belongs to: the event before it says so.
pub(crate) fn plain_preview(preview: &Preview) -> Message {
    let mut frame = BytesMut::new();
    frame.put_u32(1);
    frame.put_u32(if preview.is_png { 2 } else { 1 });
    frame.put_slice(&preview.bytes);
    Message::Binary(frame.freeze())
}

/// A preview that says what it belongs to.
pub(crate) fn told_preview(preview: &Preview, node: &str, prompt_id: &str) -> Message {
    let metadata = object! {
        "node_id": node,
        "prompt_id": prompt_id,
        "display_node_id": node,
        "parent_node_id": Json::Null,
        "real_node_id": node,
        "image_type": if preview.is_png { "image/png" } else { "image/jpeg" },
    };
    let metadata = metadata.to_string();
    let mut frame = BytesMut::new();
    frame.put_u32(4);
    frame.put_u32(metadata.len() as u32);
    frame.put_slice(metadata.as_bytes());
    frame.put_slice(&preview.bytes);
    Message::Binary(frame.freeze())
}

/// What a node says of its progress. It names no prompt, and goes to everybody.
pub(crate) fn progress_text(node: &str, text: &str) -> Message {
    let mut frame = BytesMut::new();
    frame.put_u32(3);
    frame.put_u32(node.len() as u32);
    frame.put_slice(node.as_bytes());
    frame.put_slice(text.as_bytes());
    Message::Binary(Bytes::from(frame))
}
