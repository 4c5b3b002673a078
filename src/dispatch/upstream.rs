use crate::config::plan::Target;
use arc_swap::ArcSwap;
use http::HeaderValue;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tabane_api::{EndpointId, hash};
use tokio::sync::{Notify, watch};

/// An endpoint as the outside reaches it: where it is, and the signal that ends its leases.
///
/// One stands for one target. When the file gives an endpoint another URL, a new one takes its place,
/// and requests under way keep the old.
#[derive(Debug)]
pub struct Upstream {
    /// Which endpoint.
    pub id: EndpointId,
    /// `node/endpoint`.
    pub name: Arc<str>,
    /// Its name's hash, by which cookies know it.
    pub hash: u64,
    /// The name as a header carries it.
    pub header: HeaderValue,
    /// Where it is and how it is spoken to.
    pub target: Target,
    /// What its name stands for now; empty until it was looked up.
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Which of them connected last.
    preferred: AtomicUsize,
    /// Raised to end the leases of now; a lease compares with what it saw at its start.
    revoked: watch::Sender<u64>,
    /// Rung when a probe should not wait for its turn.
    probe_soon: Notify,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(id: EndpointId, name: Arc<str>, target: Target) -> Self {
        let literal = target
            .host
            .parse::<IpAddr>()
            .map(|ip| SocketAddr::new(ip, target.port));
        Upstream {
            id,
            hash: hash(name.as_bytes()),
            header: HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("-")),
            name,
            addresses: ArcSwap::from_pointee(literal.into_iter().collect()),
            preferred: AtomicUsize::new(0),
            revoked: watch::channel(0).0,
            probe_soon: Notify::new(),
            target,
        }
    }

    /// The address to connect to; `None` while the name is not known.
    pub fn address(&self) -> Option<SocketAddr> {
        let all = self.addresses.load();
        all.get(self.preferred.load(Ordering::Relaxed) % all.len().max(1))
            .copied()
    }

    /// How many addresses the name stands for.
    pub fn address_count(&self) -> usize {
        self.addresses.load().len()
    }

    /// `address` did not connect: the next one is tried next.
    pub fn address_failed(&self, address: SocketAddr) {
        if self.address() == Some(address) {
            self.preferred.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The name was looked up: these are its addresses. An empty answer changes nothing, since a name
    /// server's bad minute must not take a node away that still answers.
    pub fn resolved(&self, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() || **self.addresses.load() == addresses {
            return;
        }
        let current = self.address();
        let preferred = current
            .and_then(|a| addresses.iter().position(|b| *b == a))
            .unwrap_or(0);
        self.addresses.store(Arc::new(addresses));
        self.preferred.store(preferred, Ordering::Relaxed);
    }

    /// Ends every lease of now.
    pub(crate) fn revoke(&self) {
        self.revoked.send_modify(|count| *count += 1);
    }

    pub(crate) fn revocation(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// Asks for a probe now instead of at its turn.
    pub fn probe_now(&self) {
        self.probe_soon.notify_one();
    }

    /// Waits until a probe should not wait for its turn.
    pub async fn wants_probe(&self) {
        self.probe_soon.notified().await;
    }
}
