//! The outside, as clients and nodes see it: Pingora's types stop here.

mod admit;
mod attempt;
mod context;
mod hold;
mod listen;
mod node_http;
mod outcome;
mod peer;
mod probe;
mod proxy;
mod reply;
mod tunnel;

pub use listen::{Listeners, Prepared};
pub use node_http::NodeHttp;
pub use probe::look_after;

use crate::dispatch::Dispatch;
use hold::Budget;
use pingora::connectors::TransportConnector;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use proxy::Edge;
use std::sync::Arc;

/// The proxy of a gateway: its listeners, and what they hold together.
pub struct Front {
    /// Where clients connect.
    pub listeners: Listeners,
    budget: Arc<Budget>,
}

// === impl Front ===

impl Front {
    /// A front without listeners. `connections` bounds the clients of all of them together.
    pub fn new(dispatch: Dispatch, connections: usize) -> Self {
        let conf = Arc::new(ServerConf {
            // Our own count of attempts ends a request long before; 0 would send none at all.
            max_retries: 64,
            upstream_keepalive_pool_size: 1024,
            ..ServerConf::default()
        });
        let bound = Arc::default();
        let budget = Budget::new();
        let edge = Edge {
            dispatch,
            bound: Arc::clone(&bound),
            budget: budget.clone(),
            peers: peer::Peers::default(),
            connector: TransportConnector::new(None),
        };
        let mut proxy = HttpProxy::new(edge, conf);
        proxy.handle_init_modules();
        Front {
            listeners: Listeners::new(Arc::new(proxy), bound, connections),
            budget,
        }
    }

    /// How many bytes of request bodies are held.
    pub fn held_bytes(&self) -> u64 {
        self.budget.held()
    }
}
