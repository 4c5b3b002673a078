//! Has services let go of a card, has free memory seen, and tells who holds it.

use super::{Shared, now};
use crate::fleet::{self, Outcome};
use crate::telemetry::Event;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{EndpointId, NodeError, Released};
use tokio::time::timeout;

/// How long letting go may take: a large model leaves a card within seconds, a server that sleeps first within a minute.
const LONGEST: Duration = Duration::from_secs(90);

// === impl Shared ===

impl Shared {
    /// Does what the fleet wants done about a card.
    pub(super) fn share_card(self: &Arc<Self>, action: fleet::Action) {
        match action {
            fleet::Action::Release(id) => self.release(id),
            fleet::Action::Prove(id) => {
                if let Some(upstream) = self.core.lock().upstreams.get(&id) {
                    upstream.probe_now();
                }
            }
            fleet::Action::Held {
                endpoint,
                from,
                took,
            } => {
                let (to, node) = self.names(endpoint);
                let from = from.map_or_else(String::new, |id| self.names(id).0);
                let took_s = took.as_secs_f64();
                tracing::info!(node, from, to, took_s, "gpu changes hands");
                self.means.metrics.gpu_switched(&node);
                self.means.events.send(Event::GpuSwitched {
                    node,
                    from,
                    to,
                    took_seconds: took_s,
                });
            }
            fleet::Action::NoRoom(id) => {
                let (endpoint, node) = self.names(id);
                let what = "this endpoint gets no work: what its service takes of the card does not fit beside what cannot let go of it";
                tracing::warn!(node, endpoint, "{what}");
            }
            fleet::Action::Unproven(id) => {
                let (endpoint, node) = self.names(id);
                let what = "all have let go of the card, and too little of its memory is free for this endpoint; they are asked once more";
                tracing::warn!(node, endpoint, "{what}");
            }
            _ => {}
        }
    }

    /// An endpoint's name, and its node's.
    fn names(&self, id: EndpointId) -> (String, String) {
        let core = self.core.lock();
        let endpoint = core.rooms.fleet.get(id);
        endpoint.map_or_else(Default::default, |endpoint| {
            (
                endpoint.name().to_string(),
                endpoint.node().name.to_string(),
            )
        })
    }

    /// Asks an endpoint's kind to let go, in the background: nobody gets the card meanwhile.
    fn release(self: &Arc<Self>, id: EndpointId) {
        let (upstream, service) = {
            let core = self.core.lock();
            (
                core.upstreams.get(&id).cloned(),
                core.kinds.get(&id).cloned(),
            )
        };
        let (Some(upstream), Some(service), Ok(runtime)) =
            (upstream, service, tokio::runtime::Handle::try_current())
        else {
            return self.released(id, Outcome::Failed);
        };
        let shared = self.clone();
        runtime.spawn(async move {
            let client = shared.means.clients.client(&upstream);
            let began = now();
            let release = AssertUnwindSafe(service.kind.release(&*client)).catch_unwind();
            let outcome = match timeout(LONGEST, release).await {
                Ok(Ok(Ok(Released::Freed))) => Ok(Outcome::Freed),
                Ok(Ok(Ok(Released::Unsupported))) => Ok(Outcome::Unsupported),
                Ok(Ok(Err(error @ NodeError::Unreachable(_)))) => Err((Outcome::Absent, error.to_string())),
                Ok(Ok(Err(error))) => Err((Outcome::Failed, error.to_string())),
                Ok(Err(_)) => Err((Outcome::Failed, "its kind panicked".to_owned())),
                Err(_) => Err((Outcome::Failed, "no answer in time".to_owned())),
            };
            let endpoint = &upstream.name;
            let outcome = outcome.unwrap_or_else(|(outcome, why)| {
                tracing::warn!(%endpoint, %why, "this endpoint does not let go of the card; nobody gets it until it does");
                outcome
            });
            tracing::debug!(%endpoint, ?outcome, took_s = (now() - began).as_secs_f64(), "asked to let go of the card");
            let current = shared.core.lock().upstreams.get(&id).cloned();
            // Where a file moved it meanwhile, another server was asked than the one that counts now.
            let moved = current.is_none_or(|current| !Arc::ptr_eq(&current, &upstream));
            shared.released(id, if moved { Outcome::Failed } else { outcome });
        });
    }

    fn released(self: &Arc<Self>, endpoint: EndpointId, outcome: Outcome) {
        let event = fleet::Event::Released { endpoint, outcome };
        self.turn(|core, now, out| core.apply(event, now, out));
    }
}
