use super::hooks::guarded;
use super::upstream::Upstream;
use super::world::LiveService;
use super::{Shared, now};
use crate::fleet::End;
use crate::schedule::TicketId;
use crate::telemetry::EndpointMetrics;
use std::sync::Arc;
use std::time::Instant;
use tabane_api::{Need, Usage};
use tokio::sync::watch;

/// Slots held on an endpoint. They are given back when it is dropped, whatever happened.
///
/// One that was not told how the work ended counts as broken off: its slots cool.
pub struct Lease {
    shared: Arc<Shared>,
    ticket: TicketId,
    upstream: Arc<Upstream>,
    service: Arc<LiveService>,
    need: Need,
    revocation: Revocation,
    counts: Arc<EndpointMetrics>,
    granted: Instant,
    began: bool,
    well: bool,
    untypical: bool,
    /// Its slots are free already, though what came of the work is still fetched.
    freed: bool,
    end: Option<End>,
}

// === impl Lease ===

impl Lease {
    pub(super) fn new(
        shared: Arc<Shared>,
        ticket: TicketId,
        upstream: Arc<Upstream>,
        service: Arc<LiveService>,
        need: Need,
    ) -> Self {
        let counts = service.counts(&upstream);
        let count = upstream.revocation();
        let at_grant = *count.borrow();
        Lease {
            shared,
            ticket,
            upstream,
            service,
            need,
            revocation: Revocation { count, at_grant },
            counts,
            granted: now(),
            began: false,
            well: false,
            untypical: false,
            freed: false,
            end: None,
        }
    }

    /// Where the work goes.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The ticket it was granted to.
    pub(super) fn ticket(&self) -> TicketId {
        self.ticket
    }

    /// What was asked of the node was done: how long it took is worth learning. An error tells nothing of that.
    pub fn went_well(&mut self) {
        self.well = !self.untypical;
    }

    /// How long it takes says nothing of others.
    pub(super) fn is_untypical(&mut self) {
        self.untypical = true;
    }

    /// Whether it is worth learning from.
    pub(super) fn is_learned(&self) -> bool {
        self.well
    }

    /// The service it was granted to.
    pub(super) fn service(&self) -> &Arc<LiveService> {
        &self.service
    }

    /// What it was granted for.
    pub fn need(&self) -> &Need {
        &self.need
    }

    /// The first byte of the node's answer came.
    pub fn answered(&mut self) {
        if !self.began {
            self.began = true;
            self.counts.first_byte(now() - self.granted);
            self.shared.answered(self.upstream.id);
        }
    }

    /// Whether the first byte of the node's answer came.
    pub fn began(&self) -> bool {
        self.began
    }

    /// The answer used this.
    pub fn used(&self, usage: &Usage) {
        let (name, tenant) = (&self.service.plan.name, &self.need.tenant);
        self.shared
            .count_usage(name, tenant, &self.upstream.name, usage);
    }

    /// The node is done with the work: its slots are free for others, while what came of it is still fetched.
    pub(super) fn free(&mut self) {
        if !self.freed {
            self.freed = true;
            self.went_well();
            self.counts.finished(now() - self.granted);
            self.tell_released();
            self.shared.ended(self, End::Done);
        }
    }

    /// Its kind hears that its slots are free, before the next one chooses.
    fn tell_released(&self) {
        if self.need.slots > 0 {
            let (kind, at) = (&self.service.kind, self.upstream.id);
            // What is said of a panic there is said already.
            let _ = guarded(&self.service.plan.name, || {
                kind.released(&self.need, at, now());
            });
        }
    }

    /// Gives the slots back, and says how the work ended.
    pub fn end(mut self, end: End) {
        self.end = Some(end);
    }

    /// A watch that resolves when the endpoint must be let go of: it is frozen, or it left and its time to drain is over.
    pub fn revocation(&self) -> Revocation {
        self.revocation.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.freed {
            return;
        }
        let end = self
            .end
            .take()
            .unwrap_or(End::Aborted { began: self.began });
        match end {
            End::Done => self.counts.finished(now() - self.granted),
            End::Failed(_) => self.counts.failed(),
            End::Aborted { .. } => self.counts.aborted(),
            End::Unused => {}
        }
        let aborted = matches!(end, End::Aborted { .. });
        self.tell_released();
        self.shared.ended(self, end);
        if aborted && self.need.slots > 0 {
            self.shared
                .stop_on_node(&self.upstream, &self.service, &self.need);
        }
    }
}

/// Resolves when a lease's endpoint must be let go of.
#[derive(Clone, Debug)]
pub struct Revocation {
    count: watch::Receiver<u64>,
    at_grant: u64,
}

impl Revocation {
    /// Waits for it; for ever when it does not come.
    pub async fn wait(&mut self) {
        let at_grant = self.at_grant;
        if self
            .count
            .wait_for(|count| *count != at_grant)
            .await
            .is_err()
        {
            // The lease holds the upstream and so the sender; without it nobody is left to revoke.
            std::future::pending().await
        }
    }

    /// Whether it came.
    pub fn came(&self) -> bool {
        *self.count.borrow() != self.at_grant
    }
}
