use bytes::Bytes;
use http::HeaderMap;
use std::time::Duration;

/// Why the gateway does not serve a request. Which status it gets is the edge's to say; its shape is the kind's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// No key, or one that nobody has.
    #[error("{0}")]
    Unauthorized(String),
    /// Nothing is served under this host and path.
    #[error("nothing is served here: {0}")]
    NotFound(String),
    /// What is asked for by its name is not there.
    #[error("{0}")]
    NoSuch(String),
    /// The body is larger than this route takes.
    #[error("the body is larger than {max} bytes")]
    BodyTooLarge {
        /// The bound, in bytes.
        max: u64,
    },
    /// The request's line or headers are longer, or more, than may be.
    #[error("{0}")]
    HeadTooLarge(String),
    /// The client takes too long to send the request.
    #[error("the request came too slowly")]
    TooSlow,
    /// As many wait as may.
    #[error("the queue of service `{service}` is full: {waiting} are waiting")]
    QueueFull {
        /// The service's name.
        service: String,
        /// How many wait.
        waiting: usize,
        /// When a place may be free.
        retry_after: Duration,
    },
    /// As many of one tenant are there as may be.
    #[error("tenant `{tenant}` has as many {what} as it may: {has}")]
    TenantFull {
        /// The tenant's name.
        tenant: String,
        /// How many it has.
        has: usize,
        /// Of what: `requests waiting`, `jobs that are not over`.
        what: &'static str,
        /// When a place may be free.
        retry_after: Duration,
    },
    /// Somebody asks for more than they may have.
    #[error("{what}")]
    Limited {
        /// Of what, and who.
        what: String,
        /// When there may be more.
        retry_after: Duration,
    },
    /// It waited as long as it may.
    #[error("no node of service `{service}` came free within {} s", .waited.as_secs())]
    WaitedTooLong {
        /// The service's name.
        service: String,
        /// How long it waited.
        waited: Duration,
    },
    /// No node of the pool could ever serve it.
    #[error("no node of service `{service}` can serve this: {why}")]
    NoFit {
        /// The service's name.
        service: String,
        /// What the nearest miss lacks.
        why: String,
    },
    /// The node broke off and it was not safe, or no longer allowed, to try another.
    #[error("{0}")]
    NodeFailed(String),
    /// A node did not answer in time.
    #[error("{0}")]
    NodeTimeout(String),
    /// The gateway is going down, or has no world to serve yet.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// The gateway holds as much as it may.
    #[error("{0}")]
    Overloaded(String),
    /// The path is served, and not by this method.
    #[error("`{method}` is not served here; {allow} is")]
    WrongMethod {
        /// The method that was asked for.
        method: String,
        /// Those that are served, separated by commas.
        allow: &'static str,
    },
    /// A browser's page, or a tenant, may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// What is asked for does not go with how things stand.
    #[error("{0}")]
    Conflict(String),
    /// It was here, and is not kept any more.
    #[error("{0}")]
    Gone(String),
    /// The request is understood and contradicts an earlier one.
    #[error("{0}")]
    Unprocessable(String),
    /// There is no more room to keep it.
    #[error("{0}")]
    StoreFull(String),
    /// A fault of the gateway or of a plugin.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// A word for programs: stable, in answers, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) => "bad_request",
            Refusal::Unauthorized(_) => "unauthorized",
            Refusal::NotFound(_) | Refusal::NoSuch(_) => "not_found",
            Refusal::BodyTooLarge { .. } => "body_too_large",
            Refusal::HeadTooLarge(_) => "head_too_large",
            Refusal::TooSlow => "too_slow",
            Refusal::QueueFull { .. } => "queue_full",
            Refusal::TenantFull { .. } => "tenant_full",
            Refusal::Limited { .. } => "limited",
            Refusal::WaitedTooLong { .. } => "waited_too_long",
            Refusal::NoFit { .. } => "no_fit",
            Refusal::NodeFailed(_) => "node_failed",
            Refusal::NodeTimeout(_) => "node_timeout",
            Refusal::ShuttingDown => "shutting_down",
            Refusal::Overloaded(_) => "overloaded",
            Refusal::WrongMethod { .. } => "wrong_method",
            Refusal::Forbidden(_) => "forbidden",
            Refusal::Conflict(_) => "conflict",
            Refusal::Gone(_) => "gone",
            Refusal::Unprocessable(_) => "unprocessable",
            Refusal::StoreFull(_) => "store_full",
            Refusal::Internal(_) => "internal",
        }
    }
}

/// The body of a refusal, in the form that a kind's clients understand.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: Bytes,
    /// More headers: when a limit is over, say. `Retry-After` is the gateway's to send.
    pub headers: HeaderMap,
}

impl Shape {
    /// `{"error":{"code":…,"message":…}}`: the gateway's own form.
    pub fn plain(why: &Refusal) -> Self {
        let body = serde_json::json!({"error": {"code": why.code(), "message": why.to_string()}});
        Shape {
            content_type: "application/json",
            body: body.to_string().into(),
            headers: HeaderMap::new(),
        }
    }
}
