use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;
use std::io;
use std::pin::Pin;
use tabane_api::{Body, Content};

/// An answer of the gateway's own.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, but for those that frame it.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Payload,
}

/// The body of an answer.
pub enum Payload {
    /// In memory.
    Bytes(Bytes),
    /// A part of something kept.
    Part {
        /// Of what.
        content: Content,
        /// From which byte.
        from: u64,
        /// How many.
        length: u64,
    },
    /// As it happens, or as it is made. An error breaks it off: its reader must not take it for whole.
    Live(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

// === impl Payload ===

impl From<Body> for Payload {
    fn from(body: Body) -> Self {
        match body {
            Body::Bytes(bytes) => Payload::Bytes(bytes),
            Body::Part {
                content,
                from,
                length,
            } => Payload::Part {
                content,
                from,
                length,
            },
            Body::Live(pieces) => Payload::Live(Box::pin(pieces.map_err(io::Error::other))),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// A JSON document.
    pub(super) fn json(status: StatusCode, document: &Value) -> Self {
        let mut body = document.to_string();
        body.push('\n');
        let mut answer = Answer {
            status,
            headers: HeaderMap::new(),
            body: Payload::Bytes(body.into()),
        };
        answer.set(header::CONTENT_TYPE, "application/json");
        // What is said of a job is old the moment after.
        answer.set(header::CACHE_CONTROL, "no-cache");
        answer
    }

    /// Sets a header; text that no header can carry is left out.
    pub(super) fn set(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }
}
