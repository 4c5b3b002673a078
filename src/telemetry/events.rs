use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::broadcast;

/// How many events a slow listener may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// What happens on the farm, for whoever listens.
#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Arc<Told>>,
    seq: Arc<AtomicU64>,
}

/// An event as it is told.
#[derive(Debug, Serialize)]
pub struct Told {
    /// Counts up from 1 in each process: a gap is a miss.
    pub seq: u64,
    /// When (RFC 3339, UTC).
    pub at: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// An endpoint is used again, or for the first time.
    EndpointUp {
        /// `node/endpoint`.
        endpoint: String,
    },
    /// An endpoint is no longer used.
    EndpointDown {
        /// `node/endpoint`.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// An endpoint is not used for a while: its requests failed in a row.
    EndpointEjected {
        /// `node/endpoint`.
        endpoint: String,
        /// For how long.
        for_seconds: f64,
    },
    /// An endpoint left, and its last request has ended.
    EndpointGone {
        /// `node/endpoint`.
        endpoint: String,
    },
    /// A card that several services share changed hands.
    GpuSwitched {
        /// Its node.
        node: String,
        /// Who had to make room: `node/endpoint`; empty when nobody held it.
        from: String,
        /// Who holds it now: `node/endpoint`.
        to: String,
        /// How long it took from when `from` got no further work.
        took_seconds: f64,
    },
    /// An operator drained a node.
    NodeDrained {
        /// The node.
        node: String,
    },
    /// An operator took the mark back.
    NodeUndrained {
        /// The node.
        node: String,
    },
    /// The files were read again.
    Reloaded {
        /// The generation that serves now.
        generation: u64,
        /// What changed.
        changes: String,
    },
    /// The files were read again and have problems; the old configuration stays.
    ReloadFailed {
        /// All of them.
        problems: Vec<String>,
    },
    /// A request was refused because as many wait as may.
    QueueFull {
        /// The service.
        service: String,
    },
    /// Requests were accepted for later: one, or an array of them.
    JobAccepted {
        /// The job, or the array.
        job: String,
        /// The service.
        service: String,
        /// Whose it is.
        tenant: String,
        /// How many jobs: more than one of an array.
        jobs: usize,
    },
    /// An attempt at a job began.
    JobStarted {
        /// The job.
        job: String,
        /// The service.
        service: String,
        /// Where: `node/endpoint`.
        endpoint: String,
        /// Counts the job's attempts from 1.
        attempt: u32,
    },
    /// A job is over.
    JobFinished {
        /// The job.
        job: String,
        /// The service.
        service: String,
        /// The state it ended in.
        state: &'static str,
        /// Where its last attempt ended; none when it was over without one at work.
        #[serde(skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
    },
    /// The gateway is going down.
    ShuttingDown,
}

// === impl Events ===

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Events {
            sender: broadcast::channel(BACKLOG).0,
            seq: Arc::default(),
        }
    }

    /// Tells an event. Costs next to nothing while nobody listens.
    pub fn send(&self, event: Event) {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        if self.sender.receiver_count() > 0 {
            let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let _ = self.sender.send(Arc::new(Told { seq, at, event }));
        }
    }

    /// Everything from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Told>> {
        self.sender.subscribe()
    }
}

// === impl Told ===

impl Told {
    /// Whether it is about this node (by its name, or one of its endpoints) or service; about anything, where none is named.
    pub fn concerns(&self, node: Option<&str>, service: Option<&str>) -> bool {
        let of_node = node.is_none_or(|node| self.event.node() == Some(node));
        let of_service = service.is_none_or(|service| self.event.service() == Some(service));
        of_node && of_service
    }

    /// The event's name, as in its `type`.
    pub fn name(&self) -> &'static str {
        match self.event {
            Event::EndpointUp { .. } => "endpoint_up",
            Event::EndpointDown { .. } => "endpoint_down",
            Event::EndpointEjected { .. } => "endpoint_ejected",
            Event::EndpointGone { .. } => "endpoint_gone",
            Event::GpuSwitched { .. } => "gpu_switched",
            Event::NodeDrained { .. } => "node_drained",
            Event::NodeUndrained { .. } => "node_undrained",
            Event::Reloaded { .. } => "reloaded",
            Event::ReloadFailed { .. } => "reload_failed",
            Event::QueueFull { .. } => "queue_full",
            Event::JobAccepted { .. } => "job_accepted",
            Event::JobStarted { .. } => "job_started",
            Event::JobFinished { .. } => "job_finished",
            Event::ShuttingDown => "shutting_down",
        }
    }
}

// === impl Event ===

impl Event {
    /// An endpoint is used again, or for the first time.
    pub fn endpoint_up(endpoint: &str) -> Self {
        Event::EndpointUp {
            endpoint: endpoint.into(),
        }
    }

    /// An endpoint is no longer used.
    pub fn endpoint_down(endpoint: &str, why: &str) -> Self {
        Event::EndpointDown {
            endpoint: endpoint.into(),
            why: why.into(),
        }
    }

    /// An endpoint is not used for a while.
    pub fn endpoint_ejected(endpoint: &str, length: Duration) -> Self {
        Event::EndpointEjected {
            endpoint: endpoint.into(),
            for_seconds: length.as_secs_f64(),
        }
    }

    /// An endpoint left.
    pub fn endpoint_gone(endpoint: &str) -> Self {
        Event::EndpointGone {
            endpoint: endpoint.into(),
        }
    }

    fn node(&self) -> Option<&str> {
        match self {
            Event::NodeDrained { node }
            | Event::NodeUndrained { node }
            | Event::GpuSwitched { node, .. } => Some(node),
            Event::EndpointUp { endpoint }
            | Event::EndpointDown { endpoint, .. }
            | Event::EndpointEjected { endpoint, .. }
            | Event::EndpointGone { endpoint }
            | Event::JobStarted { endpoint, .. }
            | Event::JobFinished {
                endpoint: Some(endpoint),
                ..
            } => endpoint.split('/').next(),
            _ => None,
        }
    }

    fn service(&self) -> Option<&str> {
        match self {
            Event::QueueFull { service }
            | Event::JobAccepted { service, .. }
            | Event::JobStarted { service, .. }
            | Event::JobFinished { service, .. } => Some(service),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_hears_what_it_asked_for_and_sees_gaps() {
        let events = Events::new();
        events.send(Event::ShuttingDown);
        let mut heard = events.subscribe();
        events.send(Event::endpoint_down("tokyo/llm", "refused"));
        let told = heard.try_recv().unwrap();
        assert_eq!(told.seq, 2);
        assert!(told.concerns(Some("tokyo"), None) && told.concerns(None, None));
        assert!(!told.concerns(Some("osaka"), None) && !told.concerns(None, Some("chat")));
        let json = serde_json::to_value(&*told).unwrap();
        assert_eq!(
            (json["type"].as_str(), json["why"].as_str()),
            (Some(told.name()), Some("refused"))
        );
    }
}
