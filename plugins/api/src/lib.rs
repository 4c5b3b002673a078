//! The words that a kind, a policy and the gateway speak with each other.
//!
//! A **kind** knows one API ([`Service`]): it says what a request asks for, whether a node is well,
//! and how a refusal looks. A **policy** ([`Policy`]) chooses among the endpoints that could serve.
//! Both get values and give values: neither sees a socket, and only the policy chooses a node.
//!
//! # A kind of one's own: the health-check hook
//!
//! ```
//! use http::Request;
//! use tabane_api::*;
//!
//! /// A renderer that says on `/status` whether its licence is still valid.
//! struct Renderer(Settings);
//!
//! /// Its own block in the YAML file: `kind: {renderer: {licence: studio}}`.
//! #[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     licence: String,
//! }
//!
//! #[async_trait::async_trait]
//! impl Service for Renderer {
//!     fn classify(&self, ask: &Ask<'_>, _body: Option<&bytes::Bytes>) -> Result<Intent, Refusal> {
//!         Ok(Intent::Forward(Need::of_class(ask.path)))
//!     }
//!
//!     async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
//!         let status = node.send(Request::get("/status").body(Default::default())?).await?;
//!         if status.body().starts_with(self.0.licence.as_bytes()) {
//!             Ok(Vitals::default())
//!         } else {
//!             Err(ProbeError::Unhealthy("its licence is not ours".into()))
//!         }
//!     }
//! }
//!
//! impl Kind for Renderer {
//!     const NAME: &'static str = "renderer";
//!     type Config = Settings;
//!     fn new(config: Settings, _prior: Option<std::sync::Arc<Self>>) -> Result<Self, String> {
//!         Ok(Renderer(config))
//!     }
//! }
//!
//! let registry = Registry::default().kind::<Renderer>();
//! assert!(registry.find_kind("renderer").is_some());
//! ```
//!
//! # A policy of one's own: the upstream-selection hook
//!
//! ```
//! use tabane_api::*;
//!
//! /// Takes the cheapest card that has room.
//! struct Cheapest;
//!
//! impl Policy for Cheapest {
//!     fn pick(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
//!         (0..among.len())
//!             .filter(|&i| among[i].has_room(need))
//!             .min_by(|&a, &b| among[a].node.usd_per_hour.total_cmp(&among[b].node.usd_per_hour))
//!     }
//! }
//!
//! impl PolicyKind for Cheapest {
//!     const NAME: &'static str = "cheapest";
//!     type Config = NoConfig;
//!     fn new(_config: NoConfig) -> Result<Self, String> {
//!         Ok(Cheapest)
//!     }
//! }
//!
//! let registry = Registry::default().policy::<Cheapest>();
//! assert!(registry.find_policy("cheapest").is_some());
//! ```
//!
//! The gateway that knows both is a main of one line, in a crate that depends on this one and on
//! `tabane`: `tabane::app().kind::<Renderer>().policy::<Cheapest>().main()`.

mod ask;
mod content;
mod host;
mod intent;
mod job;
mod need;
mod node;
mod policy;
mod refusal;
mod registry;
mod relay;
mod service;
mod socket;

pub use ask::{ANONYMOUS, Ask, Caller};
pub use content::{Body, Content, Pieces, Stored, one_piece};
pub use host::{EndpointView, Host, JobView, Work};
pub use intent::Intent;
pub use job::{Attempt, Done, Found, JobState, Report, RunError, Stop, Superseded, Verdict};
pub use need::{Need, Own, Urgency};
pub use node::{NodeClient, NodeError, NodeFacts, ProbeError, Vitals};
pub use policy::{Candidate, Draw, EndpointId, Key, Matching, Mode, Policy, Terms, hash};
pub use refusal::{Refusal, Shape};
pub use registry::{
    BoundKind, BoundPolicy, Kind, KindEntry, NoConfig, PolicyEntry, PolicyKind, Registry,
};
pub use relay::{Choice, Edit, KeepAlive, Usage};
pub use service::{OutOfMemory, Released, Seen, Service, Stopped};
pub use socket::{Message, Socket};
