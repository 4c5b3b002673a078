//! The outside, as clients and nodes see it: Pingora's types stop here.

mod admit;
mod answer;
mod attempt;
mod chunks;
mod client;
mod context;
mod cors;
mod doors;
mod exchange;
mod frames;
mod handshake;
mod head;
mod held;
mod hold;
mod hop;
mod jobs;
mod lent;
mod line;
mod listen;
mod messages;
mod node_http;
mod node_socket;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
mod outcome;
mod pace;
mod peer;
mod probe;
mod proxy;
mod relay;
mod relayed;
mod reply;
mod seat;
mod serve;
mod socket;
mod speech;
mod talk;
mod tunnel;

pub use listen::{Listeners, Prepared};
pub use node_http::NodeHttp;
pub use probe::look_after;

use crate::dispatch::Dispatch;
use crate::store::Spool;
use crate::telemetry::EdgeGauge;
use crate::wire::Wire;
use hold::Budget;
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use proxy::Edge;
use std::sync::Arc;

/// The proxy of a gateway: its listeners, and what they hold together.
pub struct Front {
    /// Where clients connect.
    pub listeners: Listeners,
    budget: Arc<Budget>,
    spool: Option<Arc<Spool>>,
}

// === impl Front ===

impl Front {
    /// A front without listeners. Without a `spool`, bodies too long for memory stream.
    pub fn new(dispatch: Dispatch, spool: Option<Arc<Spool>>) -> Self {
        let conf = Arc::new(ServerConf {
            // Our own count of attempts ends a request long before; 0 would send none at all.
            max_retries: 64,
            upstream_keepalive_pool_size: 1024,
            // Into so many parts Pingora divides what all requests touch.
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            ..ServerConf::default()
        });
        let bound = Arc::default();
        let budget = Arc::<Budget>::default();
        let doors = doors::Doors::new(dispatch.clone());
        let wire = Wire::new(dispatch.clone());
        let edge = Edge {
            dispatch,
            bound: Arc::clone(&bound),
            budget: budget.clone(),
            spool: spool.clone(),
            peers: peer::Peers::default(),
            connector: TransportConnector::new(None),
            relays: Connector::new(None),
            wire,
        };
        let mut proxy = HttpProxy::new(edge, conf);
        proxy.handle_init_modules();
        Front {
            listeners: Listeners::new(Arc::new(proxy), bound, doors),
            budget,
            spool,
        }
    }

    /// What is held at this moment.
    pub fn gauge(&self) -> EdgeGauge {
        EdgeGauge {
            connections: self.listeners.connections(),
            held_bytes: self.budget.held(),
            spooled_bytes: self.spool.as_ref().map_or(0, |spool| spool.used()),
        }
    }
}
