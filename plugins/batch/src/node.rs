//! A node as this kind sees it: every request carries the file's headers, and answers about work are read whole.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde_json::Value;
use tabane_api::{Content, NodeClient, NodeError, Pieces};

/// The longest document that is read into memory: one that is the result, too, may hold an image.
pub(crate) const LONGEST: usize = 64 << 20;

/// Adds headers to every request, in place of those of the same name.
pub(crate) struct WithHeaders<'a> {
    pub(crate) node: &'a dyn NodeClient,
    pub(crate) headers: &'a HeaderMap,
}

/// A document about the work.
#[derive(Debug)]
pub(crate) struct Document {
    /// As it came: it may be the result.
    pub(crate) answer: Response<Bytes>,
    pub(crate) json: Value,
}

// === impl WithHeaders ===

impl WithHeaders<'_> {
    fn add<B>(&self, mut request: Request<B>) -> Request<B> {
        for (name, value) in self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request
    }
}

#[async_trait]
impl NodeClient for WithHeaders<'_> {
    fn name(&self) -> &str {
        self.node.name()
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
        self.node.send(self.add(request)).await
    }

    async fn stream(&self, request: Request<Content>) -> Result<Response<Pieces>, NodeError> {
        self.node.stream(self.add(request)).await
    }
}

/// Sends a short request and reads its answer, also one that is longer than answers to probes are.
pub(crate) async fn exchange(
    node: &dyn NodeClient,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, NodeError> {
    match node.send(request.clone()).await {
        Err(NodeError::TooLarge { .. }) if request.method().is_safe() => {
            let (head, pieces) = node.stream(request.map(Content::from)).await?.into_parts();
            let body = read(pieces, LONGEST).await?;
            Ok(Response::from_parts(head, body))
        }
        answer => answer,
    }
}

/// Reads a body to its end.
pub(crate) async fn read(mut pieces: Pieces, max: usize) -> Result<Bytes, NodeError> {
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if all.len() + piece.len() > max {
            return Err(NodeError::TooLarge { max });
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

// === impl Document ===

impl Document {
    /// Reads a good answer.
    ///
    /// Errors: a sentence; it is not JSON.
    pub(crate) fn of(mut answer: Response<Bytes>) -> Result<Self, String> {
        let json = serde_json::from_slice(answer.body())
            .map_err(|error| format!("it is not JSON: {error}"))?;
        // The length is known now, whatever the server knew when it began.
        answer.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok(Document { answer, json })
    }

    /// What the server sent by itself, as an answer. What is not JSON says nothing but that it was sent.
    pub(crate) fn of_call(call: Request<Bytes>) -> Self {
        let json = serde_json::from_slice(call.body()).unwrap_or_default();
        let (head, body) = call.into_parts();
        let mut answer = Response::new(body);
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            if let Some(value) = head.headers.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        Document { answer, json }
    }
}

/// Whether the server has no such thing, any more or yet.
pub(crate) fn is_missing(status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND || status == StatusCode::GONE
}

/// Whether the server may say something else in a while.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || is_missing(status)
}
