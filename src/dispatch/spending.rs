//! What services spend on nodes that have a price, and whether they may.

use crate::config::plan::PricePlan;
use crate::schedule::{Ticket, TicketId};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::Candidate;

/// What each service has spent in the last hour, by the minute.
#[derive(Debug, Default)]
pub(super) struct Spending {
    start: Option<Instant>,
    services: HashMap<Arc<str>, BTreeMap<u64, f64>>,
    /// Who may be paid for later though not now, and when they are looked at again.
    later: HashSet<TicketId>,
    due: Option<Instant>,
}

/// How often those are looked at again who wait until they may be paid for.
const LOOK: Duration = Duration::from_secs(1);

/// An hour, in minutes.
const HOUR: u64 = 60;

// === impl Spending ===

impl Spending {
    /// So much more was spent, or less than was thought. Units: USD.
    pub(super) fn spend(&mut self, service: &Arc<str>, usd: f64, now: Instant) {
        if usd == 0.0 {
            return;
        }
        let minute = self.minute(now);
        let minutes = self.services.entry(service.clone()).or_default();
        *minutes.entry(minute).or_default() += usd;
        *minutes = minutes.split_off(&minute.saturating_sub(HOUR - 1));
    }

    /// What a service has spent in the last hour, USD.
    pub(super) fn in_last_hour(&self, service: &str, now: Instant) -> f64 {
        let Some(start) = self.start else { return 0.0 };
        let minute = now.saturating_duration_since(start).as_secs() / 60;
        let since = minute.saturating_sub(HOUR - 1);
        let minutes = self.services.get(service);
        let sum: f64 = minutes.map_or(0.0, |m| m.range(since..).map(|(_, usd)| usd).sum());
        sum.max(0.0)
    }

    /// One waits that may be paid for later.
    pub(super) fn waits(&mut self, ticket: TicketId, now: Instant) {
        self.later.insert(ticket);
        self.due.get_or_insert(now + LOOK);
    }

    /// When they are to be looked at again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// It is time: whether any of them waits still.
    pub(super) fn look(&mut self, is_waiting: impl Fn(TicketId) -> bool, now: Instant) -> bool {
        self.later.retain(|ticket| is_waiting(*ticket));
        self.due = (!self.later.is_empty()).then(|| now + LOOK);
        self.due.is_some()
    }

    fn minute(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        now.saturating_duration_since(start).as_secs() / 60
    }
}

/// Whether what is spent, or how long one has waited, bounds what is paid for.
pub(super) fn is_limited(price: &PricePlan) -> bool {
    !price.spill_after.is_zero() || price.usd_per_hour.is_some() || price.usd_per_job.is_some()
}

/// Whether time alone may change that a ticket is not to be paid for.
pub(super) fn may_pay_later(ticket: &Ticket) -> bool {
    !ticket.price.spill_after.is_zero() || ticket.price.usd_per_hour.is_some()
}

/// What a ticket's work is expected to cost at an endpoint, USD.
pub(super) fn usd(ticket: &Ticket, at: &Candidate<'_>) -> f64 {
    let share = super::room::share(ticket.need.slots, at.slots);
    at.terms.occupied_s() * share * at.node.usd_per_hour / 3600.0
}

/// Why a ticket may not go to an endpoint with a price now; `None`: it may. `soonest_s`: when one without a price could
/// take it, seconds from now; `None`: none ever could.
pub(super) fn forbids(
    ticket: &Ticket,
    at: &Candidate<'_>,
    soonest_s: Option<f64>,
    spent_usd: f64,
    now: Instant,
) -> Option<Unpaid> {
    if at.node.usd_per_hour <= 0.0 {
        return None;
    }
    let PricePlan {
        spill_after,
        usd_per_hour,
        usd_per_job,
        ..
    } = ticket.price;
    let usd = usd(ticket, at);
    if let Some(most) = usd_per_job.filter(|most| usd > *most) {
        return Some(Unpaid::Job { usd, most });
    }
    if let Some(most) = usd_per_hour.filter(|most| spent_usd + usd > *most) {
        return Some(Unpaid::Hour {
            usd: spent_usd,
            most,
        });
    }
    let waited_s = now.saturating_duration_since(ticket.since).as_secs_f64();
    let wait_s = ticket.before_s.max(waited_s + soonest_s?);
    (wait_s < spill_after.as_secs_f64()).then_some(Unpaid::Soon {
        wait_s,
        spill_after,
    })
}

/// Why an endpoint with a price is not used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(super) enum Unpaid {
    /// It would cost more than one may.
    #[error("it would cost {usd:.4} USD there, and `usd_per_job` is {most}")]
    Job {
        /// What it is expected to cost.
        usd: f64,
        /// What it may.
        most: f64,
    },
    /// The hour's money is spent.
    #[error("{usd:.2} USD are spent in this hour, and `usd_per_hour` is {most}")]
    Hour {
        /// What is spent.
        usd: f64,
        /// What may be.
        most: f64,
    },
    /// One without a price takes it soon.
    #[error("it waits {wait_s:.0} s in all for a node without a price, and `spill_after` is {} s", .spill_after.as_secs())]
    Soon {
        /// How long it waits for one.
        wait_s: f64,
        /// How long it may be made to.
        spill_after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_longer_than_an_hour_ago_is_forgotten() {
        let (mut spending, start) = (Spending::default(), Instant::now());
        let service: Arc<str> = "s".into();
        let at = |minute: u64| start + Duration::from_secs(60 * minute);
        for minute in 0..600 {
            spending.spend(&service, 0.5, at(minute));
        }
        assert_eq!(spending.in_last_hour("s", at(599)), 30.0);
        assert_eq!(spending.in_last_hour("s", at(629)), 15.0);
        assert_eq!(spending.in_last_hour("s", at(700)), 0.0);
        assert_eq!(spending.in_last_hour("t", at(599)), 0.0);
        assert!(spending.services["s"].len() <= 60, "bounded");
        spending.spend(&service, -99.0, at(599));
        assert_eq!(
            spending.in_last_hour("s", at(599)),
            0.0,
            "never less than nothing"
        );
    }
}
