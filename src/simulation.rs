//! Fleet and schedule together, as dispatch joins them, under events drawn by a seed. Time is made up.
//!
//! After every event the promises are checked that no single table can show: slots, order, conservation, and
//! that nobody waits beside a free slot. A seed that fails is named.

use crate::config::plan::{HealthPlan, PricePlan, Target};
use crate::fleet::{self, End, Failure, Fleet, Spec};
use crate::schedule::{
    Action, AskedAs, Event, PoolId, QueueLimits, Room, Schedule, Share, Span, Ticket, TicketId,
    Turn, register,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{
    Candidate, EndpointId, Need, NodeFacts, Policy, ProbeError, Registry, Urgency, Vitals,
};

const SEEDS: u64 = 300;
const EVENTS: usize = 400;
const NODES: usize = 6;
const COOL: Duration = Duration::from_millis(500);

/// Two pools that share their middle.
struct Pools<'a>(&'a mut Fleet, Instant);

fn pool_of(service: usize) -> std::ops::Range<usize> {
    [0..4, 2..NODES][service].clone()
}

fn name(node: usize) -> String {
    format!("n{node}/http")
}

impl Room for Pools<'_> {
    fn candidates<'b>(&'b self, ticket: &Ticket, into: &mut Vec<Candidate<'b>>) {
        let members =
            pool_of(ticket.pool.0 as usize).filter_map(|node| self.0.by_name(&name(node)));
        into.extend(
            members
                .filter(|id| self.0.usable(*id))
                .filter_map(|id| Some(self.0.get(id)?.candidate(1))),
        );
    }

    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> Option<f64> {
        // Two that were matched at once may have been meant for an endpoint on trial, which takes one: then the fleet
        // says no to the second, as it does to dispatch.
        let fits = self.0.take(endpoint, ticket.need.slots, self.1);
        fits.then_some(1.0)
    }
}

struct Farm {
    fleet: Fleet,
    schedule: Schedule,
    now: Instant,
    draw: StdRng,
    policy: Arc<dyn Policy>,
    next: u64,
    waiting: BTreeMap<u64, Ticket>,
    /// Leases out: endpoint and slots.
    leases: HashMap<u64, (EndpointId, u32)>,
    /// The most slots an endpoint has had while it holds what it holds.
    most: HashMap<EndpointId, u32>,
    arrived: u64,
    granted: u64,
    refused: u64,
    left: u64,
}

impl Farm {
    fn new(seed: u64, policy: &str) -> Self {
        let registry = register(Registry::default());
        let mut block = serde_json::Deserializer::from_str("{}");
        let mut block = <dyn erased_serde::Deserializer<'_>>::erase(&mut block);
        let policy = (registry.find_policy(policy).unwrap().decode)(&mut block)
            .unwrap()
            .build()
            .unwrap();
        Farm {
            fleet: Fleet::new(),
            schedule: Schedule::new(Box::new(StdRng::seed_from_u64(seed))),
            now: Instant::now(),
            draw: StdRng::seed_from_u64(seed ^ 0x5eed),
            policy,
            next: 0,
            waiting: BTreeMap::new(),
            leases: HashMap::new(),
            most: HashMap::new(),
            arrived: 0,
            granted: 0,
            refused: 0,
            left: 0,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        (self.draw.next_u64() % n as u64) as usize
    }

    fn plan(&mut self) {
        let mut specs = Vec::new();
        for node in 0..NODES {
            if self.below(8) == 0 {
                continue;
            }
            specs.push(Spec {
                name: name(node).into(),
                node: Arc::new(NodeFacts {
                    name: format!("n{node}").into(),
                    ..NodeFacts::default()
                }),
                target: Target {
                    host: "h".into(),
                    port: 1 + u16::from(self.below(20) == 0),
                    tls: None,
                    h2: false,
                },
                slots: 1 + self.below(3) as u32,
                slots_said: true,
                takes: fleet::Takes::default(),
                drained: self.below(10) == 0,
                health: HealthPlan {
                    rise: 1,
                    fall: 2,
                    eject_after: 2,
                    eject_for: COOL,
                    eject_max: COOL * 4,
                    stall_after: COOL * 4,
                    ..HealthPlan::default()
                },
                drain: COOL * 2,
                claim: None,
            });
        }
        self.happen(fleet::Event::Plan(specs));
    }

    fn probe(&mut self, node: usize, good: bool) {
        let Some(endpoint) = self.fleet.by_name(&name(node)) else {
            return;
        };
        let busy = self.fleet.get(endpoint).map(|e| e.at_work());
        let outcome = match (good, self.below(3)) {
            (true, n) => Ok(Vitals {
                busy: busy.filter(|_| n == 0),
                ..Vitals::default()
            }),
            (false, 0) => Err(ProbeError::Unreachable("refused".into())),
            (false, _) => Err(ProbeError::Timeout),
        };
        self.happen(fleet::Event::Probed {
            endpoint,
            started: self.now,
            outcome,
        });
    }

    /// As dispatch does it: what the fleet frees, the schedule gives.
    fn happen(&mut self, event: fleet::Event) {
        let actions = self.fleet.apply(event, self.now);
        if actions.contains(&fleet::Action::Freed) {
            let served = self.schedule.apply(
                Event::Freed,
                &mut Pools(&mut self.fleet, self.now),
                self.now,
            );
            self.served(served);
        }
    }

    fn arrive(&mut self) {
        self.next += 1;
        self.arrived += 1;
        let service = self.below(2);
        let slots = [1, 1, 1, 0][self.below(4)];
        let need = Need {
            slots,
            urgency: Urgency::new(self.below(8) as u8),
            ..Need::of_class("x")
        };
        let ticket = Ticket {
            id: TicketId(self.next),
            asked_as: AskedAs::Number,
            service: ["one", "two"][service].into(),
            pool: PoolId(service as u32),
            need,
            policy: self.policy.clone(),
            kind: None,
            price: PricePlan::default(),
            excluded: Vec::new(),
            // A job's number is not the order in which it comes to wait: a second attempt keeps its turn.
            turn: match self.below(3) {
                // Bounded when they are accepted, as jobs are.
                0 if self.schedule.waiting() < 50 => {
                    Turn::Stored(self.below(self.next as usize) as i64)
                }
                _ => Turn::Held(self.now),
            },
            since: self.now,
            before_s: 0.0,
            barred: Vec::new(),
            share: Share::default(),
            patience: Duration::from_secs(600),
            expected: Span::new(self.below(9) as f64, 1.0),
            queue: QueueLimits {
                max: 20,
                max_wait: Duration::from_secs(60),
            },
        };
        self.waiting.insert(self.next, ticket.clone());
        let served = self.schedule.apply(
            Event::Arrived(ticket),
            &mut Pools(&mut self.fleet, self.now),
            self.now,
        );
        self.served(served);
    }

    fn served(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Grant(id, endpoint) => {
                    let ticket = self
                        .waiting
                        .remove(&id.0)
                        .expect("only who waits is served, and once");
                    let wants = |other: &&Ticket| {
                        other.pool == ticket.pool && other.need.slots == ticket.need.slots
                    };
                    let first = self
                        .waiting
                        .values()
                        .filter(wants)
                        .map(|t| (t.need.urgency, t.turn, t.id))
                        .min();
                    assert!(
                        first.is_none_or(
                            |first| (ticket.need.urgency, ticket.turn, ticket.id) < first
                        ),
                        "order"
                    );
                    self.leases.insert(id.0, (endpoint, ticket.need.slots));
                    self.granted += 1;
                }
                Action::Refuse(id, _) => {
                    let ticket = self
                        .waiting
                        .remove(&id.0)
                        .expect("only who waits is refused, and once");
                    assert!(
                        matches!(ticket.turn, Turn::Held(_)),
                        "a job is never refused"
                    );
                    self.refused += 1;
                }
            }
        }
    }

    fn end_one(&mut self) {
        let mut ids: Vec<u64> = self.leases.keys().copied().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.below(ids.len())];
        let (endpoint, slots) = self.leases.remove(&id).unwrap();
        let end = match self.below(8) {
            0 => End::Aborted { began: true },
            1 => End::Failed(Failure::Connect),
            2 => End::Failed([Failure::Reset, Failure::Status, Failure::Timeout][self.below(3)]),
            3 => End::Unused,
            _ => End::Done,
        };
        self.happen(fleet::Event::Ended {
            endpoint,
            slots,
            end,
            cool_down: COOL,
        });
    }

    fn leave_one(&mut self) {
        let Some(id) = self.waiting.keys().next().copied() else {
            return;
        };
        self.waiting.remove(&id);
        self.left += 1;
        self.schedule.apply(
            Event::Left(TicketId(id)),
            &mut Pools(&mut self.fleet, self.now),
            self.now,
        );
    }

    fn move_one(&mut self) {
        let urgency = Urgency::new(self.below(8) as u8);
        let Some((id, ticket)) = self.waiting.iter_mut().next_back() else {
            return;
        };
        ticket.need.urgency = urgency;
        let served = self.schedule.apply(
            Event::Moved(TicketId(*id), urgency),
            &mut Pools(&mut self.fleet, self.now),
            self.now,
        );
        assert_eq!(served, [], "a move gives nothing");
    }

    fn pass_time(&mut self, time: Duration) {
        self.now += time;
        while self.fleet.next_due().is_some_and(|due| due <= self.now) {
            self.happen(fleet::Event::Tick);
        }
    }

    fn check(&mut self) {
        assert_eq!(
            self.arrived,
            self.granted + self.refused + self.left + self.waiting.len() as u64,
            "conservation"
        );
        assert_eq!(self.schedule.waiting(), self.waiting.len());
        // A scan of all for each of all: not after every event.
        if self.arrived.is_multiple_of(8) {
            self.check_lines();
        }
        for endpoint in self.fleet.all() {
            let most = self.most.entry(endpoint.id()).or_default();
            // A plan may make it smaller than what it holds; then nothing is added until it is below.
            *most = if endpoint.used() <= endpoint.slots() {
                endpoint.slots()
            } else {
                (*most).max(endpoint.slots())
            };
            assert!(
                endpoint.used() <= *most,
                "{} of {} slots",
                endpoint.used(),
                endpoint.slots()
            );
            let held: u32 = self
                .leases
                .values()
                .filter(|(id, _)| *id == endpoint.id())
                .map(|(_, slots)| slots)
                .sum();
            assert_eq!(
                endpoint.at_work(),
                held,
                "every lease is on the books, and nothing else"
            );
        }
        for ticket in self.waiting.values() {
            let mut among = Vec::new();
            let pools = Pools(&mut self.fleet, self.now);
            pools.candidates(ticket, &mut among);
            assert!(
                !among.iter().any(|c| c.has_room(&ticket.need)),
                "{ticket:?} waits beside a free slot"
            );
        }
    }

    /// What the schedule says of its lines is what a scan of all who wait says.
    fn check_lines(&self) {
        let place = |t: &Ticket| (t.need.urgency, t.turn, t.id);
        for service in ["one", "two"] {
            let of_service = || self.waiting.values().filter(|t| &*t.service == service);
            let stored = of_service().filter(|t| matches!(t.turn, Turn::Stored(_)));
            let stored = stored.count();
            assert_eq!(self.schedule.stored_in(service), stored);
            assert_eq!(
                self.schedule.waiting_in(service),
                of_service().count() - stored
            );
            let backlog: f64 = of_service().map(|t| t.expected.mean_s()).sum();
            assert_eq!(self.schedule.backlog(service).mean_s(), backlog);
            for ticket in of_service().step_by(7) {
                let before = || of_service().filter(|t| place(t) < place(ticket));
                let seconds: f64 = before().map(|t| t.expected.mean_s()).sum();
                let (rank, time) = self.schedule.before(ticket.id).unwrap();
                assert_eq!((rank, time.mean_s()), (before().count(), seconds));
            }
        }
        let first: Vec<u64> = self
            .schedule
            .snapshot(5)
            .iter()
            .map(|view| view.ticket)
            .collect();
        let mut all: Vec<&Ticket> = self.waiting.values().collect();
        all.sort_by_key(|t| place(t));
        let wanted: Vec<u64> = all.iter().take(5).map(|t| t.id.0).collect();
        assert_eq!(first, wanted);
    }
}

fn run(seed: u64, policy: &str) {
    let mut farm = Farm::new(seed, policy);
    farm.plan();
    for _ in 0..EVENTS {
        match farm.below(20) {
            0 => farm.plan(),
            1 => {
                let (node, on) = (format!("n{}", farm.below(NODES)), farm.below(2) == 0);
                farm.happen(fleet::Event::Drain {
                    node: node.as_str().into(),
                    on,
                });
            }
            2..=5 => {
                let (node, good) = (farm.below(NODES), farm.below(4) > 0);
                farm.probe(node, good);
            }
            6..=11 => farm.arrive(),
            12..=16 => farm.end_one(),
            17 => farm.leave_one(),
            18 => farm.move_one(),
            _ => {
                let time = Duration::from_millis(farm.below(300) as u64);
                farm.pass_time(time);
            }
        }
        farm.check();
    }
    // When all is well again and all work has ended, nobody waits and nothing is held.
    for node in 0..NODES {
        farm.happen(fleet::Event::Drain {
            node: format!("n{node}").as_str().into(),
            on: false,
        });
    }
    for _ in 0..1000 {
        farm.plan();
        for node in 0..NODES {
            farm.probe(node, true);
        }
        farm.end_one();
        farm.pass_time(COOL);
        farm.check();
        if farm.waiting.is_empty() && farm.leases.is_empty() {
            break;
        }
    }
    farm.pass_time(COOL * 10);
    assert!(
        farm.waiting.is_empty() && farm.leases.is_empty(),
        "{} wait, {} hold",
        farm.waiting.len(),
        farm.leases.len()
    );
    assert!(
        farm.fleet
            .all()
            .all(|endpoint| endpoint.used() == 0 && endpoint.passing() == 0)
    );
}

#[test]
fn the_promises_hold_whatever_happens() {
    for policy in ["least_loaded", "match", "fastest"] {
        for seed in 0..SEEDS {
            let ran = std::panic::catch_unwind(|| run(seed, policy));
            assert!(
                ran.is_ok(),
                "seed {seed} with {policy} breaks a promise; see above"
            );
        }
    }
}
