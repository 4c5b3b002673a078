use crate::{Content, Pieces, Socket, one_piece};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the YAML file says of a node: facts, never a URL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: Arc<str>,
    /// The card's model, such as `RTX 4090`; empty when nobody said.
    pub gpu: Arc<str>,
    /// The card's memory, MiB; 0 when nobody said.
    pub vram_mib: u64,
    /// What it costs while it runs, USD per hour.
    pub usd_per_hour: f64,
    /// Free labels (`os: windows`, `site: studio`).
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// A short exchange with one endpoint: how a kind probes, stops and looks things up.
///
/// The request's URI is a path (and query) below the endpoint's URL; `Host` is set for it. Answers
/// are bounded in size and time by the gateway.
#[async_trait]
pub trait NodeClient: Send + Sync {
    /// The endpoint's name, `node/endpoint`.
    fn name(&self) -> &str;

    /// Sends one request and reads the whole answer, whatever its status.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError>;

    /// Sends a request of any length and gives the answer as it comes, however long it takes: how an attempt runs.
    ///
    /// Dropping the future or the pieces closes the connection.
    async fn stream(&self, request: Request<Content>) -> Result<Response<Pieces>, NodeError> {
        let (head, body) = request.into_parts();
        let body = body
            .to_bytes(64 << 20)
            .await
            .map_err(|error| NodeError::BadRequest(error.to_string()))?;
        let answer = self.send(Request::from_parts(head, body)).await?;
        Ok(answer.map(one_piece))
    }

    /// Opens a WebSocket; the request's headers are sent with its handshake.
    ///
    /// Errors: `BadRequest` with what the node answered when it takes no socket there.
    async fn socket(&self, request: Request<()>) -> Result<Box<dyn Socket>, NodeError> {
        let path = request.uri().path();
        Err(NodeError::BadRequest(format!("no socket at {path} here")))
    }
}

/// Why an exchange with a node failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// No connection: refused, no route, no name, TLS not agreed.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// It took longer than it may.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, or what came is not HTTP.
    #[error("the exchange broke: {0}")]
    Broken(String),
    /// The answer is larger than the gateway reads.
    #[error("the answer is larger than {max} bytes")]
    TooLarge {
        /// The bound, in bytes.
        max: usize,
    },
    /// The kind made a request that cannot be sent.
    #[error("not a request: {0}")]
    BadRequest(String),
}

impl From<http::Error> for NodeError {
    fn from(error: http::Error) -> Self {
        NodeError::BadRequest(error.to_string())
    }
}

/// What a probe says of an endpoint that is well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// How many requests the node says are at work; `None` when it does not say. 0 ends the cooling of its slots early.
    pub busy: Option<u32>,
    /// The card's free memory, MiB.
    pub vram_free_mib: Option<u64>,
    /// The models it can serve; empty when it does not say.
    pub models: Vec<String>,
    /// The models that are in its memory now; `None` when it does not say, and then the gateway goes by what it sent there.
    pub loaded: Option<Vec<String>>,
    /// How many requests it works on at once, as it says: what counts where the file does not say.
    pub slots: Option<u32>,
}

/// What a probe says of an endpoint that is not well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens there. Counts always.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time. Does not count while all its slots are at work: busy is not dead.
    #[error("no answer in time")]
    Timeout,
    /// It answered, and not well. Counts always.
    #[error("unhealthy: {0}")]
    Unhealthy(String),
}

impl From<NodeError> for ProbeError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Unreachable(why) => ProbeError::Unreachable(why),
            NodeError::Timeout => ProbeError::Timeout,
            other => ProbeError::Unhealthy(other.to_string()),
        }
    }
}

impl From<http::Error> for ProbeError {
    fn from(error: http::Error) -> Self {
        NodeError::from(error).into()
    }
}
