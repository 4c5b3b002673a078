//! Exactly what a person may type; `short.rs` has the short forms. `check/` gives it meaning.
//!
//! Only plain structs and the wrappers of `typed.rs`: with these every fault keeps its place.
//! The doc comments are what an editor shows, by way of `conf/tabane.schema.json`.

use super::file_jobs::{Cors, Jobs, JobsWord, Webhooks};
use super::file_placement::{Price, Scale};
use super::typed::{Field, Named, OneOrMany, Raw, Short};
use super::units::{OrNone, Size, Span};
use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of tabane. Only `services` is needed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "tabane")]
pub(crate) struct File {
    /// Further files, relative to this one; `*` matches. What they hold is joined; a name may stand in one file only.
    pub(crate) include: Field<OneOrMany<String>>,
    /// Where clients connect; 127.0.0.1:8080 when nothing is said.
    pub(crate) listen: Field<Vec<Field<Short<Listen>>>>,
    /// The operator's listener; `off` for none.
    pub(crate) admin: Field<Short<Admin>>,
    /// Where jobs, their results and drain marks are kept, relative to this file, on a local disk; without it no jobs are taken, and drain marks are forgotten at a restart.
    pub(crate) data_dir: Field<String>,
    /// The address by which clients reach the gateway, such as `https://gpu.studio.example`, with a path where it stands below one: for links in answers and letters.
    pub(crate) public_url: Field<String>,
    /// The address by which nodes reach the gateway, such as `http://10.0.0.1:8080`: for backends that call back.
    pub(crate) nodes_reach_us_at: Field<String>,
    /// Where the ends of jobs may be told.
    pub(crate) webhooks: Field<Webhooks>,
    /// Who may ask without a key.
    pub(crate) access: Field<Access>,
    /// What is logged, and what answers carry about it.
    pub(crate) log: Field<Log>,
    /// Bounds of the whole gateway.
    pub(crate) limits: Field<Limits>,
    /// Who may ask, by name.
    pub(crate) tenants: Field<Named<Short<Tenant>>>,
    /// The machines with GPUs, by name.
    pub(crate) nodes: Field<Named<Node>>,
    /// Weighted sets of endpoints, by name.
    pub(crate) pools: Field<Named<Vec<Field<Short<Member>>>>>,
    /// What clients see, by name.
    pub(crate) services: Field<Named<Service>>,
}

/// One address that clients connect to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    /// Address and port, such as `0.0.0.0:8080`; `:8080` is every IPv4 address.
    pub(crate) address: Field<String>,
    /// The one service of this port; without it, services are found by host and path.
    pub(crate) service: Field<String>,
}

/// The operator's listener: health, metrics, and `/api/v1`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Address and port; 127.0.0.1:9900 when nothing is said.
    pub(crate) address: Field<String>,
    /// The bearer token it asks for; needed on any address but loopback.
    pub(crate) token: Field<String>,
    #[serde(skip)]
    pub(crate) off: bool,
}

/// Who may ask without a key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Access {
    /// Who may ask without a key: whoever comes over a `loopback` address (the default), everybody (`allow`), nobody (`deny`).
    pub(crate) anonymous: Field<AnonymousWord>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum AnonymousWord {
    Loopback,
    Allow,
    Deny,
}

/// What is logged, and what answers carry about it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `auto` (the default): human on a terminal, else json.
    pub(crate) format: Field<LogFormatWord>,
    /// Whether each request writes a line; true.
    pub(crate) access: Field<bool>,
    /// Whether answers carry `Tabane-Node` and `Tabane-Wait-Ms`; true.
    pub(crate) headers: Field<bool>,
    /// Whether answers carry `X-Request-Id`; true.
    pub(crate) request_id: Field<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum LogFormatWord {
    Auto,
    Json,
    Human,
}

/// Bounds of the whole gateway.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// How many client connections at once; 10000. More are answered 503.
    pub(crate) connections: Field<u64>,
    /// How many of them from one address; half of `connections`.
    pub(crate) connections_per_address: Field<u64>,
    /// How many requests at once on one connection of HTTP/2; 100.
    pub(crate) h2_streams: Field<u64>,
    /// How long an idle client connection is kept; 75s.
    pub(crate) keep_alive: Field<Span>,
    /// How long a client may take over the head of a request; 30s. Past it, 408.
    pub(crate) client_head: Field<Span>,
    /// How long a client may be silent within a body, or fall behind `client_rate`; 60s. Past it, 408.
    pub(crate) client_read: Field<Span>,
    /// How long a client may take nothing of an answer, or fall behind `client_rate`; 60s. Past it, it is cut.
    pub(crate) client_write: Field<Span>,
    /// Bytes per second at which a request's body has to come, and an answer to be taken; 1KiB. 0: any.
    pub(crate) client_rate: Field<Size>,
    /// How long the head of a request may be; 64KiB. Past it, 431, or 414 where its first line is that long.
    pub(crate) head_bytes: Field<Size>,
    /// How many lines of headers it may have, up to 256; 128. Past it, 431.
    pub(crate) head_lines: Field<u64>,
    /// Bytes of request bodies held in memory by all requests together; 1GiB. Past it, 503.
    pub(crate) held_bytes: Field<Size>,
    /// Bytes of longer bodies held in `data_dir` by all requests together; 16GiB. Past it, 503.
    pub(crate) spool_bytes: Field<Size>,
    /// Bytes of jobs' bodies and results kept in `data_dir`; 100GiB. Past it, 507.
    pub(crate) job_bytes: Field<Size>,
    /// How large the database in `data_dir` may grow; 8GiB. Past it, 507.
    pub(crate) database_bytes: Field<Size>,
    /// How long a shutdown waits for requests at work; 20s.
    pub(crate) grace: Field<Span>,
}

/// A tenant: the unit of fairness.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Its key; better as `${file:/run/secrets/name}` than in this file.
    pub(crate) key: Field<String>,
    /// Several keys, any of which is good: for changing them one by one.
    pub(crate) keys: Field<OneOrMany<String>>,
    /// Its share against other tenants, 1 to 1000; 1.
    pub(crate) weight: Field<u64>,
    /// The most urgent that its jobs may ask for, where a service says `priority: header`; 0.
    pub(crate) priority_cap: Field<u64>,
    /// How many of its requests may wait for a node at once; any number. Past it, 429.
    pub(crate) max_waiting: Field<u64>,
    /// How many slots its work may take at once; any number. What is more waits.
    pub(crate) max_at_work: Field<u64>,
}

/// One machine, or one card with its own servers: facts about it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Node {
    /// Its card.
    pub(crate) gpu: Field<Short<Gpu>>,
    /// Free labels, such as `os: windows`.
    pub(crate) labels: Field<Named<String>>,
    /// What it costs while it runs, USD per hour; 0.
    pub(crate) price_per_hour: Field<f64>,
    /// Which of its endpoints may have the card at the same time, where different services answer on it: `exclusive` (one), or `fits` (as many as its memory holds, by each endpoint's `vram`). Nobody minds the others unless said.
    pub(crate) sharing: Field<SharingWord>,
    /// Keeps new work from it while it is true; what it has goes on.
    pub(crate) drained: Field<bool>,
    /// Where services answer on it, by name.
    pub(crate) endpoints: Field<Named<Short<Endpoint>>>,
    /// In place of `endpoints` when there is only one, which is then called `http`.
    pub(crate) url: Field<String>,
    /// With `url`: how many requests it works on at once; 1.
    pub(crate) slots: Field<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum SharingWord {
    Exclusive,
    Fits,
}

/// A card.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gpu {
    /// Its model, such as `RTX 4090`.
    pub(crate) model: Field<String>,
    /// Its memory.
    pub(crate) vram: Field<Size>,
}

/// A URL on a node where one service answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Endpoint {
    /// Scheme, host and port; no path.
    pub(crate) url: Field<String>,
    /// How many requests it works on at once, 1 to 10000; 1.
    pub(crate) slots: Field<u64>,
    /// How much of the card's memory its service takes, such as `10GiB`, where its node says `sharing`; all of it.
    pub(crate) vram: Field<Size>,
    /// HTTP/2 instead of HTTP/1.1; false.
    pub(crate) h2: Field<bool>,
    /// How its certificate is checked; for `https` only.
    pub(crate) tls: Field<Tls>,
    /// The models that it has; what its probe says. What asks for another goes elsewhere.
    pub(crate) models: Field<OneOrMany<String>>,
    /// The largest request it takes, in the unit of its class (steps, frames); any. A larger one goes elsewhere.
    pub(crate) max_size: Field<f64>,
}

/// TLS towards a node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// The name that the certificate must carry; the URL's host.
    pub(crate) server_name: Field<String>,
    /// Whether the certificate is checked; true.
    pub(crate) verify: Field<bool>,
    /// A PEM file with an authority of one's own, relative to this file.
    pub(crate) ca: Field<String>,
}

/// An endpoint's place in a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Member {
    /// `node/endpoint`, or a node's name when it has only one endpoint.
    pub(crate) endpoint: Field<String>,
    /// A URL, in place of `endpoint`: its node is then made of it.
    pub(crate) url: Field<String>,
    /// Its weight, 1 to 1000; 1.
    pub(crate) weight: Field<u64>,
    /// With `url`: how many requests it works on at once; 1.
    pub(crate) slots: Field<u64>,
}

/// What clients see: an API in front of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Service {
    /// Which API it speaks; `http` (any HTTP).
    pub(crate) kind: Field<Raw>,
    /// A pool's name, or its members.
    pub(crate) pool: Field<PoolRef>,
    /// How a node is chosen; `least_loaded`.
    pub(crate) policy: Field<Raw>,
    /// How many may wait, and how long.
    pub(crate) queue: Field<Queue>,
    /// Who waits shorter: 0 (first) to 7 (last), or `header` for the client's `Priority: u=N`; 3.
    pub(crate) priority: Field<Short<Priority>>,
    /// When a node counts as well.
    pub(crate) health: Field<Health>,
    /// When a request is tried again, on another node; `off`, `unsafe`, or a map.
    pub(crate) retry: Field<Short<Retry>>,
    /// How long a node may take.
    pub(crate) timeouts: Field<Timeouts>,
    /// What happens to request bodies; `stream`, or a map.
    pub(crate) body: Field<Short<Body>>,
    /// How long a slot stays taken after a request was broken off; 500ms.
    pub(crate) cool_down: Field<Span>,
    /// How long it keeps a card that it shares (`sharing` at a node).
    pub(crate) gpu_hold: Field<GpuHold>,
    /// How long a removed node may go on with what it has; 10m.
    pub(crate) drain: Field<Span>,
    /// How long a WebSocket may be silent both ways; 1h.
    pub(crate) socket_idle: Field<Span>,
    /// How long a WebSocket is silent until its client is sent a ping, so that nobody between takes it for dead; 30s, or `none`.
    pub(crate) socket_ping: Field<OrNone<Span>>,
    /// Whether requests are accepted for later: `off`, `opt-in` (the default where there is a `data_dir`: those that say `Prefer: respond-async`), `always`, or a map.
    pub(crate) jobs: Field<Short<Jobs>>,
    /// Whether its requests go before all that are not, whoever asks: a person waits for them; false.
    pub(crate) interactive: Field<bool>,
    /// How long one may be made to wait, beside a node that is free, for a better one; 10m, or `none` for as long as it takes.
    pub(crate) patience: Field<OrNone<Span>>,
    /// What it may spend on nodes with a `price_per_hour`.
    pub(crate) price: Field<Price>,
    /// What an autoscaler is told of its pool.
    pub(crate) scale: Field<Scale>,
    /// Which web pages may ask: `"*"`, an origin, a list of them, or a map with `origins`.
    pub(crate) cors: Field<Short<Cors>>,
    /// Which hosts and paths lead here, on listeners without a service of their own.
    pub(crate) routes: Field<Vec<Field<Short<Route>>>>,
}

/// A pool by its name, or written in place.
#[derive(Debug)]
pub(crate) enum PoolRef {
    Name(String),
    Members(Vec<Field<Short<Member>>>),
}

/// How many may wait, and how long.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Queue {
    /// How many requests may wait at once; 1000. 0: nobody waits.
    pub(crate) max: Field<u64>,
    /// How long each; 5m.
    pub(crate) max_wait: Field<Span>,
}

/// How long a service keeps a card that it shares, while another service waits for it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GpuHold {
    /// It does not have to let go before, unless a person waits and it serves none; 30s.
    pub(crate) min: Field<Span>,
    /// It gets no further work after; 5m, or `min` when that is longer.
    pub(crate) max: Field<Span>,
}

/// When a node counts as well.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    /// Between two probes of a node that is well; 5s.
    pub(crate) interval: Field<Span>,
    /// Between two probes of one that is not; 1s, or `interval` when that is shorter.
    pub(crate) interval_down: Field<Span>,
    /// How long a probe may take; 2s.
    pub(crate) timeout: Field<Span>,
    /// Good probes in a row until it is used again; 2.
    pub(crate) rise: Field<u64>,
    /// Bad probes in a row until it is out; 3.
    pub(crate) fall: Field<u64>,
    /// Failed requests in a row until it is ejected; 3.
    pub(crate) eject_after: Field<u64>,
    /// How long the first ejection lasts; each further one doubles it; 5s.
    pub(crate) eject_for: Field<Span>,
    /// The longest ejection; 2m.
    pub(crate) eject_max: Field<Span>,
    /// A busy node whose probes time out is out after this long without a sign of life; 10m.
    pub(crate) stall_after: Field<Span>,
}

/// When a request is tried again, on another node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// How many attempts in total, 1 to 100; 3.
    pub(crate) attempts: Field<u64>,
    /// No attempt begins later than this after the first; 30s.
    pub(crate) within: Field<Span>,
    /// Which answers of a node count as its failure; 502, 503 and 504.
    pub(crate) statuses: Field<Vec<Field<u64>>>,
    /// Which answers say that the node is busy and did not take the request, such as 409 of Cog: it goes on to another node, whatever its method.
    pub(crate) busy: Field<Vec<Field<u64>>>,
    /// How many retries there may be for each hundred requests, 0 to 1000, beside a reserve of 100; 25. Connections that failed do not count.
    pub(crate) budget: Field<u64>,
    /// Whether requests that are not idempotent may run again too; false.
    #[serde(rename = "unsafe")]
    pub(crate) repeat_unsafe: Field<bool>,
    #[serde(skip)]
    pub(crate) word: Option<RetryWord>,
}

/// `retry:` as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryWord {
    Off,
    Unsafe,
}

/// How long a node may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// To accept a connection; 3s.
    pub(crate) connect: Field<Span>,
    /// To send the next byte of an answer; `none`, since GPU work is silent for long.
    pub(crate) read: Field<OrNone<Span>>,
    /// How long an idle connection to a node is kept; 4s, shorter than most servers do.
    pub(crate) idle: Field<Span>,
}

/// What happens to request bodies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Body {
    /// The largest body at all; `none`.
    pub(crate) max: Field<OrNone<Size>>,
    /// How much is held in memory before a node is chosen; 1MiB. A longer body is held in `data_dir`; without one it streams, without a second try.
    pub(crate) hold: Field<Size>,
    #[serde(skip)]
    pub(crate) stream: bool,
}

/// Which host and path lead to the service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Route {
    /// `/v1` takes `/v1` and all below, `/v1/` only what is below, `/` everything.
    pub(crate) path: Field<String>,
    /// A host without port, or `*.example.com`; any host when nothing is said.
    pub(crate) host: Field<String>,
    /// How many slots each request takes; 0 for pages and assets that must not hold a GPU.
    pub(crate) slots: Field<u64>,
    /// `stream` lets bodies through as they come.
    pub(crate) body: Field<StreamWord>,
    /// `unsafe` or `safe`, in place of what the service says.
    pub(crate) retry: Field<RouteRetry>,
    /// In place of what the service says.
    pub(crate) priority: Field<Short<Priority>>,
    /// `off`, `opt-in` or `always`, in place of what the service says.
    pub(crate) jobs: Field<JobsWord>,
    /// In place of what the service says.
    pub(crate) interactive: Field<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum StreamWord {
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum RouteRetry {
    Unsafe,
    Safe,
}

/// 0 to 7, or `header`. It has no long form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Priority {
    Fixed(u64),
    Header,
}
