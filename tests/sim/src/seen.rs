use serde::Serialize;
use std::collections::BTreeMap;

/// What a node has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Requests for work, sockets and streams among them.
    pub requests: u64,
    /// Questions for `/health`.
    pub probes: u64,
    /// Requests at work now.
    pub at_work: u32,
    /// The most that ever were at work at once.
    pub at_work_peak: u32,
    /// How often a request came that went over the slots.
    pub over_slots: u64,
    /// Requests whose work was done.
    pub finished: u64,
    /// Requests whose client left before their answer was made.
    pub client_gone: u64,
    /// Sockets that are open.
    pub sockets: u32,
    /// Connections that are open.
    pub connections: u32,
    /// Connections that were ever opened.
    pub connections_total: u64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Paths asked for, the last 1000.
    pub paths: Vec<String>,
    /// How often a job was handed over, by its client's own name for it.
    pub submits: BTreeMap<String, u64>,
    /// Jobs whose work ended by itself.
    pub jobs_ended: u64,
    /// Jobs that were stopped.
    pub jobs_canceled: u64,
    /// Calls about the end of a job that somebody took.
    pub callbacks: u64,
}
