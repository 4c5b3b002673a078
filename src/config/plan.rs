//! What the runtime trusts: every default filled in, every name resolved to an index.
//!
//! `check.rs` makes a [`Plan`] out of what was typed; nothing else does, so that whoever holds one
//! need not check again. Indexes are positions in the plan's own lists.

mod jobs;

pub use jobs::{CorsPlan, JobsMode, JobsPlan, OnDisconnect, OnUnknown, WebhooksPlan};

use http::StatusCode;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{BoundKind, BoundPolicy, NodeFacts, Urgency};

/// Everything that was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// SHA-256 of all files that made it, in hex: what `tabane_config_info` and `/api/v1/config` show.
    pub hash: String,
    /// Where clients connect.
    pub listeners: Vec<ListenerPlan>,
    /// The operator's listener; `None` when it was turned off.
    pub admin: Option<AdminPlan>,
    /// Where jobs, their results and drain marks are kept; `None`: no jobs are taken, and marks are forgotten.
    pub data_dir: Option<PathBuf>,
    /// The address by which clients reach the gateway, for links in answers and letters; `None`: links begin with `/`.
    pub public_url: Option<Arc<str>>,
    /// The address by which nodes reach the gateway, for callbacks; without a trailing slash.
    pub nodes_reach_us_at: Option<Arc<str>>,
    /// Where letters about jobs may go.
    pub webhooks: WebhooksPlan,
    /// Who may ask.
    pub tenants: Vec<TenantPlan>,
    /// Whether one without a key may ask.
    pub anonymous: Anonymous,
    /// How the access log looks.
    pub log: LogPlan,
    /// Bounds of the whole gateway.
    pub limits: LimitsPlan,
    /// The machines.
    pub nodes: Vec<NodePlan>,
    /// The URLs on them.
    pub endpoints: Vec<EndpointPlan>,
    /// Weighted sets of endpoints.
    pub pools: Vec<PoolPlan>,
    /// What clients see.
    pub services: Vec<ServicePlan>,
    /// Which host and path leads to which service, most specific first; for listeners without a service of their own.
    pub routes: Vec<RoutePlan>,
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerPlan {
    /// Where it listens. Port 0 takes any free one.
    pub address: SocketAddr,
    /// The one service of this port (an index into `services`), or `None`: by `routes`.
    pub service: Option<usize>,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminPlan {
    /// Where it listens.
    pub address: SocketAddr,
    /// The bearer token it asks for; only a loopback address may do without.
    pub token: Option<Secret>,
}

/// A tenant: the unit of fairness.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantPlan {
    /// Its name.
    pub name: Arc<str>,
    /// Any of these is its key.
    pub keys: Vec<Secret>,
    /// Its share against other tenants.
    pub weight: u32,
    /// The most urgent that its jobs may ask for.
    pub priority_cap: Urgency,
    /// How many of its requests that hold a connection may wait at once; past it, 429.
    pub max_waiting: Option<usize>,
    /// How many slots its work may take at once; what is more waits.
    pub max_at_work: Option<u32>,
}

/// Who may ask without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Whoever reaches a loopback listener: the default.
    Loopback,
    /// Everybody: the file said so in so many words.
    Allow,
    /// Nobody.
    Deny,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// JSON, or human on a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// For eyes.
    Human,
}

/// What is logged, and what answers carry about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// How lines look. Fixed at start.
    pub format: LogFormat,
    /// Whether each request writes a line.
    pub access: bool,
    /// Whether answers carry `Tabane-Node` and `Tabane-Wait-Ms`.
    pub headers: bool,
    /// Whether answers carry `X-Request-Id`.
    pub request_id: bool,
}

/// Bounds of the whole gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsPlan {
    /// How many client connections at once; more are told so (503).
    pub connections: usize,
    /// How many of them from one address.
    pub connections_per_address: usize,
    /// How many requests at once on one connection of HTTP/2.
    pub h2_streams: u32,
    /// How long an idle keep-alive connection is kept.
    pub keep_alive: Duration,
    /// How long a client may take over the whole head of a request; past it, 408.
    pub client_head: Duration,
    /// How long a client may say nothing within a body, and how long it may fall behind `client_rate`; past it, 408.
    pub client_read: Duration,
    /// How long a client may take to accept a piece of an answer (at most 64 KiB).
    pub client_write: Duration,
    /// Bytes per second that a body has to come with; 0: any.
    pub client_rate: u64,
    /// How many bytes the head of a request may have; past it, 431.
    pub head_bytes: usize,
    /// How many header lines; past it, 431.
    pub head_lines: usize,
    /// Bytes of request bodies held in memory by all requests together; past it, 503.
    pub held_bytes: u64,
    /// Bytes of longer request bodies held in `data_dir` by all requests together; past it, 503.
    pub spool_bytes: u64,
    /// How many bytes of jobs' bodies and results are kept in `data_dir`; past it, 507.
    pub job_bytes: u64,
    /// How large the database may grow; past it, 507.
    pub database_bytes: u64,
    /// How long SIGTERM waits for requests at work.
    pub grace: Duration,
}

/// One machine.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePlan {
    /// Its name and facts.
    pub facts: Arc<NodeFacts>,
    /// Whether the file keeps it from new work.
    pub drained: bool,
    /// Which of its endpoints may hold the card at the same time.
    pub sharing: Sharing,
}

/// Which endpoints of a node may hold its card at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All of them: they do not mind each other.
    #[default]
    Free,
    /// One.
    Exclusive,
    /// As many as fit: each claims memory ([`EndpointPlan::vram_mib`]), and one that claims none claims all.
    Fits,
}

/// A URL on a node where one service answers.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointPlan {
    /// `node/endpoint`.
    pub name: Arc<str>,
    /// An index into `nodes`.
    pub node: usize,
    /// Where it is.
    pub target: Target,
    /// How many requests at once, 1.. .
    pub slots: u32,
    /// Whether the file says so; else its own word counts, where it has one.
    pub slots_said: bool,
    /// The models that it has; `None`: what its probe says.
    pub models: Option<Arc<[Arc<str>]>>,
    /// The largest request it takes, in the unit of its class; `None`: any.
    pub max_size: Option<f64>,
    /// How much of the card's memory its service takes, MiB, where it shares the card; `None`: all of it.
    pub vram_mib: Option<u64>,
    /// The service (an index) whose kind and `health` probe it: the first by name whose pool holds it. `None`: nobody uses it.
    pub probed_by: Option<usize>,
}

/// Where an endpoint is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// A name or an address, without brackets.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// `https` in the URL.
    pub tls: Option<TlsPlan>,
    /// HTTP/2 instead of HTTP/1.1 (with prior knowledge where there is no TLS).
    pub h2: bool,
}

impl Target {
    /// The `Host` to speak to it with: `host:port`, IPv6 in brackets, a scheme's own port left out (RFC 9110, 7.2).
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.to_string()
        };
        let default = if self.tls.is_some() { 443 } else { 80 };
        if self.port == default {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// TLS towards a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPlan {
    /// The name that the certificate must carry and that SNI sends.
    pub server_name: Arc<str>,
    /// Whether the certificate is checked at all.
    pub verify: bool,
    /// An authority of one's own (PEM), instead of the system's; read and checked when the file was loaded.
    pub ca: Option<PathBuf>,
}

/// A named, weighted set of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolPlan {
    /// Its name; a pool written inside a service carries the service's name.
    pub name: Arc<str>,
    /// Who is in it, in the order of the file. May be empty: every node has left.
    pub members: Vec<Member>,
}

/// An endpoint's place in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// An index into `endpoints`.
    pub endpoint: usize,
    /// Its weight, 1..=1000.
    pub weight: u32,
}

/// What clients see.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Its name.
    pub name: Arc<str>,
    /// Which API it speaks, with that kind's own block.
    pub kind: Arc<dyn BoundKind>,
    /// An index into `pools`.
    pub pool: usize,
    /// How a node is chosen, with that policy's own block.
    pub policy: Arc<dyn BoundPolicy>,
    /// How many may wait, and how long.
    pub queue: QueuePlan,
    /// Where a request's urgency comes from.
    pub priority: Priority,
    /// When a node counts as well.
    pub health: HealthPlan,
    /// When a request is tried again.
    pub retry: RetryPlan,
    /// How long a node may take.
    pub timeouts: TimeoutsPlan,
    /// What happens to request bodies.
    pub body: BodyPlan,
    /// How long a slot stays taken after a request was broken off.
    pub cool_down: Duration,
    /// How long a removed node may go on with what it has.
    pub drain: Duration,
    /// How long a WebSocket may be silent both ways.
    pub socket_idle: Duration,
    /// How long a WebSocket is silent until its client is sent a ping; `None`: it is sent none.
    pub socket_ping: Option<Duration>,
    /// Requests that are accepted for later.
    pub jobs: JobsPlan,
    /// Which web pages may ask.
    pub cors: CorsPlan,
    /// Whether its requests go before all that are not, whoever asks: a person waits for them.
    pub interactive: bool,
    /// How long one may be made to wait, beside an endpoint that is free, for a better one, or for another service that
    /// holds the card.
    pub patience: Duration,
    /// How long it keeps a card that it shares.
    pub gpu_hold: HoldPlan,
    /// What it may spend on nodes that have a price.
    pub price: PricePlan,
    /// What an autoscaler is told.
    pub scale: ScalePlan,
}

/// How long a service keeps a card that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldPlan {
    /// It is not asked to let go before, unless someone interactive waits and it is not.
    pub min: Duration,
    /// It gets no further work after, while another waits.
    pub max: Duration,
}

/// What a service may spend on nodes that have a price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PricePlan {
    /// How many seconds of waiting one would accept to save one USD; 0: speed alone counts.
    pub seconds_per_usd: f64,
    /// Nodes with a price are used only where one would wait longer than this for those without.
    pub spill_after: Duration,
    /// How much in any hour; past it, nodes with a price get no more. `None`: no bound.
    pub usd_per_hour: Option<f64>,
    /// How much a single request or job may be expected to cost. `None`: no bound.
    pub usd_per_job: Option<f64>,
}

/// What an autoscaler is told of a service's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalePlan {
    /// What waits should be worked off in this time.
    pub drain_in: Duration,
    /// Nodes that are wanted when nothing waits.
    pub min: u32,
    /// The most that are ever wanted.
    pub max: u32,
}

/// How many may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    /// How many tickets at once; 0: nobody waits.
    pub max: usize,
    /// How long each.
    pub max_wait: Duration,
}

/// Where a request's urgency comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The same for all requests of the service or route.
    Fixed(Urgency),
    /// The client's `Priority: u=N` (RFC 9218), 3 without it.
    Header,
}

/// When a node counts as well. One machine reads it: `fleet/health.rs` says the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    /// Between two probes of a node that is well.
    pub interval: Duration,
    /// Between two probes of one that is not, or that is new.
    pub interval_down: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Good probes in a row until a node that was down is used again. A new one needs a single good probe.
    pub rise: u32,
    /// Bad probes in a row until it is out.
    pub fall: u32,
    /// Failed requests in a row until it is ejected.
    pub eject_after: u32,
    /// The first ejection's length; each further one doubles it, up to `eject_max`.
    pub eject_for: Duration,
    /// The longest ejection.
    pub eject_max: Duration,
    /// A node whose probes time out while all its slots work is out after this long without any sign of life.
    pub stall_after: Duration,
}

/// When a request is tried again, on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    /// How many attempts in total, 1.. .
    pub attempts: u32,
    /// No attempt begins later than this after the first.
    pub within: Duration,
    /// Statuses of a node that count as its failure, for requests that may run again.
    pub statuses: Vec<StatusCode>,
    /// Statuses that say the node did not take the request, and is well: any request goes on to another.
    pub busy: Vec<StatusCode>,
    /// How many retries for each hundred requests, beside a reserve; connections that failed do not count.
    pub budget: u32,
    /// Whether a request may run again though its method is not idempotent and it carries no `Idempotency-Key`.
    pub repeat_unsafe: bool,
}

/// How long a node may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsPlan {
    /// To accept a connection (and agree on TLS).
    pub connect: Duration,
    /// To send the next byte of an answer; `None`: as long as it likes, since GPU work is silent for long.
    pub read: Option<Duration>,
    /// How long an idle connection to a node is kept; shorter than the servers' own (uvicorn: 5 s).
    pub idle: Duration,
}

/// What happens to request bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPlan {
    /// The largest body at all, in bytes; `None`: no bound.
    pub max: Option<u64>,
    /// How many bytes are held in memory before a node is chosen; a longer body goes to disk, or streams without a second try.
    pub hold: usize,
    /// Bodies of the whole service go through as they come; its routes' options and its own listener follow it.
    pub stream: bool,
}

/// Which host and path leads where.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// The host asked for, lower case, without port; `*.example.com` as its suffix; `None`: any.
    pub host: Option<HostPattern>,
    /// Matched by whole segments: `/v1` takes `/v1` and `/v1/chat`, `/v1/` only what is below, `/` everything.
    pub path: Arc<str>,
    /// An index into `services`.
    pub service: usize,
    /// What this route does differently from its service.
    pub options: RouteOptions,
}

/// A host to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(Arc<str>),
    /// Any host that ends like this: `.example.com`.
    Suffix(Arc<str>),
}

/// What a route does differently from its service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// How many slots each request takes; `Some(0)` for pages and assets that must not hold a GPU.
    pub slots: Option<u32>,
    /// The body goes through as it comes: no second try, and no notice of a client that leaves while it waits.
    pub stream: bool,
    /// In place of the service's.
    pub repeat_unsafe: Option<bool>,
    /// In place of the service's.
    pub priority: Option<Priority>,
    /// In place of the service's.
    pub jobs: Option<JobsMode>,
    /// In place of the service's.
    pub interactive: Option<bool>,
}

/// Text that must not be seen: shows as `***`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: String) -> Self {
        Secret(text)
    }

    /// The text, for comparing and sending.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for LimitsPlan {
    fn default() -> Self {
        LimitsPlan {
            connections: 10_000,
            connections_per_address: 5_000,
            h2_streams: 100,
            keep_alive: Duration::from_secs(75),
            client_head: Duration::from_secs(30),
            client_read: Duration::from_secs(60),
            client_write: Duration::from_secs(60),
            client_rate: 1024,
            head_bytes: 64 << 10,
            head_lines: 128,
            held_bytes: 1 << 30,
            spool_bytes: 16 << 30,
            job_bytes: 100 << 30,
            database_bytes: 8 << 30,
            grace: Duration::from_secs(20),
        }
    }
}

impl Default for HealthPlan {
    fn default() -> Self {
        HealthPlan {
            interval: Duration::from_secs(5),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            eject_after: 3,
            eject_for: Duration::from_secs(5),
            eject_max: Duration::from_secs(120),
            stall_after: Duration::from_secs(600),
        }
    }
}

impl Default for HoldPlan {
    fn default() -> Self {
        HoldPlan {
            min: Duration::from_secs(30),
            max: Duration::from_secs(300),
        }
    }
}

impl Default for PricePlan {
    fn default() -> Self {
        PricePlan {
            seconds_per_usd: 0.0,
            spill_after: Duration::ZERO,
            usd_per_hour: None,
            usd_per_job: None,
        }
    }
}

impl Default for ScalePlan {
    fn default() -> Self {
        ScalePlan {
            drain_in: Duration::from_secs(60),
            min: 0,
            max: 100,
        }
    }
}
