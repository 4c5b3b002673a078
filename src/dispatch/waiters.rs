use super::lease::Lease;
use super::world::LiveService;
use crate::schedule::TicketId;
use crate::store::JobId;
use std::collections::HashMap;
use std::sync::Arc;
use tabane_api::{Need, Refusal};
use tokio::sync::oneshot;

/// Someone whose ticket waits.
pub(super) struct Waiter {
    pub(super) tell: Tell,
    pub(super) ticket: TicketId,
    pub(super) service: Arc<LiveService>,
    pub(super) need: Need,
}

/// Who is told that a ticket's turn has come.
pub(super) enum Tell {
    /// A client that holds its connection.
    Client(oneshot::Sender<Result<Lease, Refusal>>),
    /// A job: an attempt begins.
    Job(JobId),
}

/// Everyone whose ticket waits, and how many of each tenant hold a connection meanwhile.
#[derive(Default)]
pub(super) struct Waiters {
    all: HashMap<TicketId, Waiter>,
    held: HashMap<Arc<str>, usize>,
}

// === impl Waiter ===

impl Waiter {
    pub(super) fn is_held(&self) -> bool {
        matches!(self.tell, Tell::Client(_))
    }
}

// === impl Waiters ===

impl Waiters {
    pub(super) fn insert(&mut self, waiter: Waiter) {
        if waiter.is_held() {
            *self.held.entry(waiter.need.tenant.clone()).or_default() += 1;
        }
        self.all.insert(waiter.ticket, waiter);
    }

    pub(super) fn remove(&mut self, ticket: &TicketId) -> Option<Waiter> {
        let waiter = self.all.remove(ticket)?;
        let tenant = &waiter.need.tenant;
        if waiter.is_held()
            && let Some(count) = self.held.get_mut(tenant)
        {
            *count -= 1;
            if *count == 0 {
                self.held.remove(tenant);
            }
        }
        Some(waiter)
    }

    pub(super) fn get(&self, ticket: &TicketId) -> Option<&Waiter> {
        self.all.get(ticket)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &TicketId> {
        self.all.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Waiter> {
        self.all.values()
    }

    /// How many of a tenant hold a connection.
    pub(super) fn held_by(&self, tenant: &str) -> usize {
        self.held.get(tenant).copied().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
