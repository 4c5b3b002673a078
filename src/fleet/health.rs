//! When an endpoint counts as well. A pure machine: events and the time go in, the state comes out.
//!
//! Rules.
//! - A new endpoint is *unproven* and gets nothing before its first good probe; a target that changed is new.
//! - `fall` bad probes in a row take it down, `rise` good ones bring it up again.
//! - *Busy is not dead.* A probe that times out does not count while all slots work: many GPU servers answer
//!   nothing while they compute. Unreachable and unhealthy always count.
//! - *Frozen is dead.* Without any sign of life (a good probe, an answer's first byte, an answer's end) for
//!   `stall_after`, with probes that time out, it is down whatever its slots do, and its leases are revoked.
//! - A request that could not connect counts as a bad probe too: nobody listens there.
//! - `eject_after` failed requests in a row eject it for `eject_for`, twice as long each further time, at
//!   most `eject_max`, whatever its probes say: a node can answer its health page and nothing else. Then it
//!   is on *trial*: one request at a time; a success brings it back, a failure ejects it for longer.
//!   An ejection does not ask whether the pool has another: its requests wait, which is kinder than failing.
//! - An endpoint that comes up from down starts with a clean record.

use crate::config::plan::HealthPlan;
use std::fmt;
use std::time::{Duration, Instant};
use tabane_api::ProbeError;

/// Whether an endpoint is well, by its probes and by its requests.
#[derive(Clone, Debug)]
pub(super) struct Health {
    probes: Probes,
    record: Record,
    /// Failed requests in a row.
    failures: u32,
    /// Ejections since the last success on trial.
    ejections: u32,
    last_life: Instant,
    /// Bad probes in a row, timeouts that did not count among them: a reason to ask again soon.
    unanswered: u32,
}

/// What probes say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Probes {
    Unproven,
    Up { bad: u32 },
    Down { good: u32 },
}

/// What requests say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Good,
    Ejected {
        until: Instant,
    },
    /// One request at a time until one succeeds.
    Trial {
        out: bool,
    },
}

/// Health in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Unproven,
    Up,
    Down,
    Ejected,
    Trial,
}

/// Why an endpoint went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its probes failed: the last one's words.
    Probes(String),
    /// No sign of life for so long.
    Stalled(Duration),
    /// It was removed, and its time to drain is over.
    Left,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down(Why),
    Ejected(Duration),
    /// Its leases must end.
    Revoke(Why),
    /// It may take work now that it could not before.
    Room,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Probes(last) => f.write_str(last),
            Why::Stalled(silence) => write!(f, "no sign of life for {} s", silence.as_secs()),
            Why::Left => f.write_str("it was removed and its time to drain is over"),
        }
    }
}

// === impl Health ===

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Health {
            probes: Probes::Unproven,
            record: Record::Good,
            failures: 0,
            ejections: 0,
            last_life: now,
            unanswered: 0,
        }
    }

    pub(super) fn word(&self) -> Word {
        match (&self.probes, self.record) {
            (Probes::Unproven, _) => Word::Unproven,
            (Probes::Down { .. }, _) => Word::Down,
            (Probes::Up { .. }, Record::Good) => Word::Up,
            (Probes::Up { .. }, Record::Ejected { .. }) => Word::Ejected,
            (Probes::Up { .. }, Record::Trial { .. }) => Word::Trial,
        }
    }

    /// Whether it may be given one more request.
    pub(super) fn takes_work(&self) -> bool {
        matches!(
            (&self.probes, self.record),
            (
                Probes::Up { .. },
                Record::Good | Record::Trial { out: false }
            )
        )
    }

    /// It was given a request.
    pub(super) fn taken(&mut self) {
        if let Record::Trial { out } = &mut self.record {
            *out = true;
        }
    }

    /// Whether the next probe should come soon.
    pub(super) fn wants_attention(&self) -> bool {
        self.word() != Word::Up || self.unanswered > 0
    }

    pub(super) fn good_probe(&mut self, plan: &HealthPlan, now: Instant) -> Option<Change> {
        self.last_life = now;
        self.unanswered = 0;
        match &mut self.probes {
            Probes::Up { bad } => {
                *bad = 0;
                None
            }
            Probes::Down { good } if *good + 1 < plan.rise => {
                *good += 1;
                None
            }
            Probes::Unproven | Probes::Down { .. } => {
                *self = Health::new(now);
                self.probes = Probes::Up { bad: 0 };
                Some(Change::Up)
            }
        }
    }

    /// `full`: all slots are at work. `holds`: leases are out.
    pub(super) fn bad_probe(
        &mut self,
        why: &ProbeError,
        full: bool,
        holds: bool,
        plan: &HealthPlan,
        now: Instant,
    ) -> Vec<Change> {
        self.unanswered = self.unanswered.saturating_add(1);
        let timeout = *why == ProbeError::Timeout;
        let silence = now.saturating_duration_since(self.last_life);
        let stalled = timeout && silence >= plan.stall_after;
        let mut changes = Vec::new();
        if stalled && holds {
            // Its connections are open and dead: nothing but us will end what waits on them.
            changes.push(Change::Revoke(Why::Stalled(silence)));
        }
        if timeout && full && !stalled {
            return changes;
        }
        let down = match &mut self.probes {
            Probes::Unproven => false,
            Probes::Down { good } => {
                *good = 0;
                false
            }
            Probes::Up { bad } => {
                *bad += 1;
                stalled || *bad >= plan.fall
            }
        };
        if down {
            self.probes = Probes::Down { good: 0 };
            changes.insert(
                0,
                Change::Down(if stalled {
                    Why::Stalled(silence)
                } else {
                    Why::Probes(why.to_string())
                }),
            );
        }
        changes
    }

    /// A request could not connect.
    pub(super) fn refused(&mut self, plan: &HealthPlan, now: Instant) -> Vec<Change> {
        let why = ProbeError::Unreachable("a request could not connect".into());
        let mut changes = self.bad_probe(&why, false, false, plan, now);
        if !changes
            .iter()
            .any(|change| matches!(change, Change::Down(_)))
        {
            changes.extend(self.failed(plan, now));
        }
        changes
    }

    /// A request failed by the node's fault.
    pub(super) fn failed(&mut self, plan: &HealthPlan, now: Instant) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        let eject = match self.record {
            Record::Trial { .. } => true,
            Record::Good => self.failures >= plan.eject_after,
            // Those that were under way when it was ejected tell nothing new.
            Record::Ejected { .. } => false,
        };
        if !eject {
            return None;
        }
        let length = plan
            .eject_for
            .saturating_mul(1 << self.ejections.min(20))
            .min(plan.eject_max);
        self.ejections = self.ejections.saturating_add(1);
        self.record = Record::Ejected {
            until: now + length,
        };
        Some(Change::Ejected(length))
    }

    /// An answer was whole and well, or has begun.
    pub(super) fn succeeded(&mut self, whole: bool, now: Instant) -> Option<Change> {
        self.last_life = now;
        if !whole {
            return None;
        }
        self.failures = 0;
        let on_trial = matches!(self.record, Record::Trial { .. });
        if on_trial {
            self.record = Record::Good;
            self.ejections = 0;
        }
        on_trial.then_some(Change::Up)
    }

    /// A request on trial ended without saying anything about the node.
    pub(super) fn trial_over(&mut self) -> Option<Change> {
        match &mut self.record {
            Record::Trial { out } if *out => {
                *out = false;
                Some(Change::Room)
            }
            _ => None,
        }
    }

    /// When time alone changes something.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.record {
            Record::Ejected { until } => Some(until),
            _ => None,
        }
    }

    pub(super) fn tick(&mut self, now: Instant) -> Option<Change> {
        match self.record {
            Record::Ejected { until } if until <= now => {
                self.record = Record::Trial { out: false };
                Some(Change::Room)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> HealthPlan {
        HealthPlan {
            fall: 2,
            rise: 2,
            eject_after: 3,
            ..HealthPlan::default()
        }
    }

    fn up(now: Instant) -> Health {
        let mut health = Health::new(now);
        assert_eq!(health.good_probe(&plan(), now), Some(Change::Up));
        health
    }

    #[test]
    fn a_new_endpoint_is_not_used_before_its_first_good_probe() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert!(!health.takes_work());
        assert!(
            health
                .bad_probe(&ProbeError::Timeout, false, false, &plan(), now)
                .is_empty()
        );
        assert!(!health.takes_work());
        health.good_probe(&plan(), now);
        assert!(health.takes_work());
    }

    #[test]
    fn fall_takes_down_and_rise_brings_up() {
        let now = Instant::now();
        let mut health = up(now);
        let bad = ProbeError::Unhealthy("500".into());
        assert!(
            health
                .bad_probe(&bad, false, false, &plan(), now)
                .is_empty()
        );
        assert!(health.takes_work());
        assert!(matches!(
            health.bad_probe(&bad, false, false, &plan(), now)[..],
            [Change::Down(_)]
        ));
        assert!(!health.takes_work());
        assert_eq!(health.good_probe(&plan(), now), None);
        assert_eq!(health.good_probe(&plan(), now), Some(Change::Up));
        assert!(health.takes_work());
    }

    #[test]
    fn a_full_node_that_does_not_answer_probes_is_not_dead_but_a_refusing_one_is() {
        let now = Instant::now();
        let mut health = up(now);
        for _ in 0..50 {
            assert!(
                health
                    .bad_probe(&ProbeError::Timeout, true, true, &plan(), now)
                    .is_empty()
            );
        }
        assert!(health.takes_work());
        let refused = ProbeError::Unreachable("refused".into());
        health.bad_probe(&refused, true, true, &plan(), now);
        assert!(matches!(
            health.bad_probe(&refused, true, true, &plan(), now)[..],
            [Change::Down(_)]
        ));
    }

    #[test]
    fn a_frozen_node_is_out_within_stall_after_and_its_leases_are_revoked() {
        let start = Instant::now();
        let mut health = up(start);
        let later = start + plan().stall_after;
        let just_before = later - Duration::from_millis(1);
        assert!(
            health
                .bad_probe(&ProbeError::Timeout, true, true, &plan(), just_before)
                .is_empty()
        );
        let changes = health.bad_probe(&ProbeError::Timeout, true, true, &plan(), later);
        assert!(
            matches!(
                changes[..],
                [
                    Change::Down(Why::Stalled(_)),
                    Change::Revoke(Why::Stalled(_))
                ]
            ),
            "{changes:?}"
        );
    }

    #[test]
    fn a_first_byte_is_a_sign_of_life() {
        let start = Instant::now();
        let mut health = up(start);
        let later = start + plan().stall_after;
        health.succeeded(false, later);
        assert!(
            health
                .bad_probe(&ProbeError::Timeout, true, true, &plan(), later)
                .is_empty()
        );
    }

    #[test]
    fn failures_in_a_row_eject_for_ever_longer_and_a_trial_ends_it() {
        let mut now = Instant::now();
        let plan = plan();
        let mut health = up(now);
        assert_eq!(health.failed(&plan, now), None);
        health.succeeded(true, now);
        for _ in 0..2 {
            assert_eq!(health.failed(&plan, now), None);
        }
        let mut length = plan.eject_for;
        assert_eq!(health.failed(&plan, now), Some(Change::Ejected(length)));
        for _ in 0..10 {
            assert!(!health.takes_work());
            // Probes do not end an ejection.
            health.good_probe(&plan, now);
            assert!(!health.takes_work());
            now += length;
            assert_eq!(health.due(), Some(now));
            assert_eq!(health.tick(now), Some(Change::Room));
            assert!(health.takes_work());
            health.taken();
            assert!(!health.takes_work(), "one request at a time while on trial");
            length = (length * 2).min(plan.eject_max);
            assert_eq!(health.failed(&plan, now), Some(Change::Ejected(length)));
        }
        now += length;
        health.tick(now);
        health.taken();
        assert_eq!(health.succeeded(true, now), Some(Change::Up));
        assert!(health.takes_work());
        for _ in 0..2 {
            health.failed(&plan, now);
        }
        assert_eq!(
            health.failed(&plan, now),
            Some(Change::Ejected(plan.eject_for)),
            "the record is clean again"
        );
    }

    #[test]
    fn a_trial_that_says_nothing_is_given_again() {
        let now = Instant::now();
        let mut health = up(now);
        health.record = Record::Trial { out: false };
        health.taken();
        assert_eq!(health.trial_over(), Some(Change::Room));
        assert!(health.takes_work());
    }
}
