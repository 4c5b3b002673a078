//! Keeps books beside a dispatch: what it was asked, and what it gave. `checks.rs` compares the two.

use super::drive::{Waiting, dispatch};
use super::file::{COOL_DOWN, File, MAX_WAIT};
use crate::config::plan::Plan;
use crate::dispatch::{Dispatch, Lease, Upstream};
use crate::fleet::{End, State};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, ProbeError, Refusal, Vitals};

/// The clock of timers has whole milliseconds.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// A dispatch and what has to be true of it.
pub(super) struct Farm {
    pub(super) dispatch: Dispatch,
    pub(super) file: File,
    pub(super) plan: Plan,
    pub(super) waiting: Vec<Waiting>,
    pub(super) held: Vec<Held>,
    pub(super) marks: BTreeSet<String>,
    /// The most slots an endpoint has had while it holds what it holds.
    pub(super) most: HashMap<EndpointId, u32>,
    /// When the leases of those that left are ended.
    pub(super) leaving: HashMap<EndpointId, Instant>,
    pub(super) seen: Seen,
}

pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) slots: u32,
    pub(super) revoked: bool,
}

/// How often what came about: a property that never gets there says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) granted: usize,
    pub(super) granted_late: usize,
    pub(super) full: usize,
    pub(super) too_long: usize,
    pub(super) revoked: usize,
    pub(super) moved: usize,
    pub(super) kept: usize,
}

/// An endpoint at one moment.
pub(super) struct Was {
    pub(super) id: EndpointId,
    pub(super) state: State,
    pub(super) at_work: u32,
    pub(super) cooling: u32,
    pub(super) upstream: Arc<Upstream>,
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

// === impl Farm ===

impl Farm {
    /// A dispatch to which this file is new, and all of whose endpoints are up.
    pub(super) async fn new(file: File) -> Farm {
        let (dispatch, plan) = (dispatch(), file.plan());
        dispatch.install(plan.clone()).unwrap();
        let clock = dispatch.clone();
        tokio::spawn(async move { clock.keep_time().await });
        let mut farm = Farm {
            dispatch,
            file,
            plan,
            waiting: Vec::new(),
            held: Vec::new(),
            marks: BTreeSet::new(),
            most: HashMap::new(),
            leaving: HashMap::new(),
            seen: Seen::default(),
        };
        for nth in 0..farm.endpoints().len() {
            farm.probe(nth, true, None);
        }
        farm.settle().await;
        farm
    }

    // --- what happens ---

    /// Puts another file to work, and compares what came of it with the old state, with its diff, and with a start
    /// from scratch.
    pub(super) fn install(&mut self, file: File) {
        let (before, plan) = (self.endpoints(), file.plan());
        self.compare_diff(&file, &plan);
        let world = self.dispatch.world().unwrap();
        self.dispatch.install(plan.clone()).unwrap();
        let old = std::mem::replace(&mut self.file, file);
        self.plan = plan;
        self.kept(&before);
        self.services_kept(&old, &world);
        let used = old.used();
        let leaving = self
            .endpoints()
            .into_iter()
            .filter(|(_, is)| is.state == State::Leaving);
        let leaving: Vec<_> = leaving.map(|(name, is)| (name, is.id)).collect();
        self.leaving
            .retain(|id, _| leaving.iter().any(|(_, leaves)| leaves == id));
        for (name, id) in leaving {
            self.leaving
                .entry(id)
                .or_insert_with(|| now() + used[&name]);
        }
        let scratch = dispatch();
        scratch.install(self.plan.clone()).unwrap();
        assert_eq!(self.picture(&self.dispatch), self.picture(&scratch));
    }

    pub(super) fn drain(&mut self, node: &str, on: bool) {
        let known = self.file.nodes.contains_key(node);
        let said = self.dispatch.drain(node, on).unwrap();
        assert_eq!(said, known || !on && self.marks.contains(node));
        if said {
            let _ = if on {
                self.marks.insert(node.into())
            } else {
                self.marks.remove(node)
            };
        }
    }

    /// Tells what a probe of the nth endpoint said, if there is one.
    pub(super) fn probe(&mut self, nth: usize, good: bool, busy: Option<u32>) {
        let all = self.endpoints();
        let Some(is) = all.values().nth(nth % all.len().max(1)) else {
            return;
        };
        let outcome = match good {
            true => Ok(Vitals {
                busy,
                ..Vitals::default()
            }),
            false => Err(ProbeError::Unreachable("refused".into())),
        };
        self.dispatch.probed(is.id, now(), outcome);
    }

    pub(super) fn ask(&mut self, path: &str) {
        match Waiting::ask(&self.dispatch, &self.plan, path) {
            Ok(mut waiting) => match waiting.poll() {
                Some(verdict) => self.verdict(&waiting, verdict, false),
                None => self.waiting.push(waiting),
            },
            Err(Refusal::NotFound(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    /// How many hold a lease, and how many wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.held.len(), self.waiting.len())
    }

    pub(super) fn give_up(&mut self, nth: usize) {
        if !self.waiting.is_empty() {
            let nth = nth % self.waiting.len();
            drop(self.waiting.swap_remove(nth));
        }
    }

    /// Ends the nth lease; `None`: it is dropped without a word.
    pub(super) fn end(&mut self, nth: usize, end: Option<End>) {
        if self.held.is_empty() {
            return;
        }
        let nth = nth % self.held.len();
        let mut lease = self.held.swap_remove(nth).lease;
        if matches!(end, Some(End::Done | End::Aborted { began: true })) {
            lease.answered();
        }
        match end {
            Some(end) => lease.end(end),
            None => drop(lease),
        }
    }

    pub(super) async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
    }

    /// Lets whatever follows from a step happen, and looks through the books.
    pub(super) async fn settle(&mut self) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let mut still = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match waiting.poll() {
                Some(verdict) => self.verdict(&waiting, verdict, true),
                None => still.push(waiting),
            }
        }
        self.waiting = still;
        self.check();
    }

    fn verdict(&mut self, waiting: &Waiting, verdict: Result<Lease, Refusal>, late: bool) {
        match verdict {
            Ok(lease) => {
                self.may_have(waiting, &lease);
                self.seen.granted += 1;
                self.seen.granted_late += usize::from(late);
                self.held.push(Held {
                    lease,
                    slots: waiting.slots,
                    revoked: false,
                });
            }
            Err(Refusal::QueueFull { .. }) => self.seen.full += 1,
            Err(Refusal::WaitedTooLong { .. }) => self.seen.too_long += 1,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// What is granted is of the request's pool, as the file has it now, and is kept from nothing.
    fn may_have(&self, waiting: &Waiting, lease: &Lease) {
        let upstream = lease.upstream();
        let members = self.file.pools.get(&waiting.pool);
        let name = &*upstream.name;
        assert!(
            members.is_some_and(|members| members.contains_key(name)),
            "`{name}` is not in the pool `{}`",
            waiting.pool
        );
        let (node, port, _) = self.file.endpoints()[name];
        assert_eq!(upstream.target.port, port, "`{name}` has moved");
        assert!(
            !self.file.nodes[node].drained && !self.marks.contains(node),
            "`{node}` is drained"
        );
    }

    // --- the end ---

    /// When all is well again and all work has ended, everybody was served or told, and nothing is held.
    pub(super) async fn all_is_well(&mut self) {
        for mark in self.marks.clone() {
            self.drain(&mark, false);
            self.settle().await;
        }
        self.install(File::full());
        self.settle().await;
        let begun = now();
        while !self.waiting.is_empty() || !self.held.is_empty() {
            for nth in 0..self.endpoints().len() {
                self.probe(nth, true, None);
            }
            self.settle().await;
            self.end(0, Some(End::Done));
            self.settle().await;
            self.pass(Duration::from_millis(100)).await;
            self.settle().await;
            assert!(
                now() - begun < MAX_WAIT + Duration::from_secs(30),
                "{} wait",
                self.waiting.len()
            );
        }
        self.pass(COOL_DOWN + TICK).await;
        self.settle().await;
        assert_eq!(self.dispatch.at_work(), 0);
        let core = self.dispatch.0.core.lock();
        assert!(
            core.rooms
                .fleet
                .all()
                .all(|endpoint| endpoint.used() == 0 && endpoint.passing() == 0)
        );
    }

    /// When the gateway lets go, whoever holds a lease and whoever waits hears of it.
    pub(super) fn let_go(&mut self) {
        self.dispatch.let_go();
        for held in &self.held {
            assert!(
                held.lease.revocation().came(),
                "a lease on `{}` heard nothing",
                held.lease.upstream().name
            );
        }
        for mut waiting in std::mem::take(&mut self.waiting) {
            assert!(matches!(waiting.poll(), Some(Err(Refusal::ShuttingDown))));
        }
        // Nobody is left who could be given their slots.
        for held in self.held.drain(..) {
            held.lease.end(End::Done);
        }
        assert_eq!(self.dispatch.at_work(), 0);
    }
}
