//! What a decision costs under the one lock: fleet and schedule joined as dispatch joins them.
//!
//! Budgets: 0.2 ms with 16 nodes and 32 waiting lanes, 5 ms with 1000 nodes; 100 000 who wait in few lanes
//! cost as much as few.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane::config::plan::{HealthPlan, Target};
use tabane::fleet::{self, End, Fleet, Spec};
use tabane::schedule::{
    self, Action, PoolId, QueueLimits, Room, Schedule, Ticket, TicketId, register,
};
use tabane_api::{Candidate, EndpointId, Need, NodeFacts, Policy, Registry, Vitals};

struct Gateway {
    fleet: Fleet,
    schedule: Schedule,
    members: Vec<EndpointId>,
    policy: Arc<dyn Policy>,
    now: Instant,
    next: u64,
}

struct FleetRoom<'a> {
    fleet: &'a mut Fleet,
    members: &'a [EndpointId],
    now: Instant,
}

impl Room for FleetRoom<'_> {
    fn candidates<'a>(&'a self, ticket: &Ticket, into: &mut Vec<Candidate<'a>>) {
        let need = &ticket.need;
        let usable = self.members.iter().filter_map(|id| self.fleet.get(*id));
        into.extend(
            usable
                .filter(|e| e.is_usable() && e.node().vram_mib >= need.vram_mib)
                .map(|e| e.candidate(1)),
        );
    }

    fn take(&mut self, endpoint: EndpointId, need: &Need) -> bool {
        self.fleet.take(endpoint, need.slots, self.now)
    }
}

impl Gateway {
    /// So many nodes of one slot, all of them up.
    fn of(nodes: u32) -> Self {
        let now = Instant::now();
        let mut fleet = Fleet::new();
        fleet.apply(fleet::Event::Plan((0..nodes).map(spec).collect()), now);
        let members: Vec<_> = (0..nodes)
            .filter_map(|i| fleet.by_name(&format!("n{i}/x")))
            .collect();
        for endpoint in &members {
            let good = fleet::Event::Probed {
                endpoint: *endpoint,
                started: now,
                outcome: Ok(Vitals::default()),
            };
            fleet.apply(good, now);
        }
        let registry = register(Registry::default());
        let entry = registry.find_policy("least_loaded").expect("it ships");
        let mut config = <dyn erased_serde::Deserializer<'_>>::erase(serde_json::json!({}));
        let bound = (entry.decode)(&mut config).expect("it needs no block");
        Gateway {
            fleet,
            schedule: Schedule::new(Box::new(StdRng::seed_from_u64(1))),
            members,
            policy: bound.build().expect("it needs no block"),
            now,
            next: 0,
        }
    }

    /// All nodes full, and so many wait in so many lanes.
    fn full(nodes: u32, waiting: usize, lanes: u64) -> Self {
        let mut gateway = Gateway::of(nodes);
        for _ in 0..nodes {
            gateway.arrive(0);
        }
        for i in 0..waiting as u64 {
            gateway.arrive(i % lanes);
        }
        assert_eq!(gateway.schedule.waiting(), waiting);
        gateway
    }

    fn schedule(&mut self, event: schedule::Event) -> Vec<Action> {
        let mut room = FleetRoom {
            fleet: &mut self.fleet,
            members: &self.members,
            now: self.now,
        };
        self.schedule.apply(event, &mut room, self.now)
    }

    /// One that wants what its lane wants.
    fn arrive(&mut self, lane: u64) -> Vec<Action> {
        self.next += 1;
        let ticket = Ticket {
            id: TicketId(self.next),
            service: "s".into(),
            pool: PoolId(0),
            need: Need {
                vram_mib: lane,
                ..Need::of_class("x")
            },
            policy: self.policy.clone(),
            excluded: Vec::new(),
            arrived: self.now,
            queue: QueueLimits {
                max: usize::MAX,
                max_wait: Duration::from_secs(60),
            },
        };
        self.schedule(schedule::Event::Arrived(ticket))
    }

    fn end(&mut self, endpoint: EndpointId) -> Vec<Action> {
        let ended = fleet::Event::Ended {
            endpoint,
            slots: 1,
            end: End::Done,
            cool_down: Duration::ZERO,
        };
        self.fleet.apply(ended, self.now);
        black_box(self.fleet.next_due());
        self.schedule(schedule::Event::Freed)
    }

    /// One slot comes free, the first in order gets it, and another comes to wait in its place.
    fn turn(&mut self, lanes: u64) {
        let endpoint = self.members[self.next as usize % self.members.len()];
        assert_eq!(self.end(endpoint).len(), 1);
        self.arrive(self.next % lanes);
    }
}

fn spec(i: u32) -> Spec {
    Spec {
        name: format!("n{i}/x").into(),
        node: Arc::new(NodeFacts {
            name: format!("n{i}").into(),
            vram_mib: 24_000,
            ..NodeFacts::default()
        }),
        target: Target {
            host: "h".into(),
            port: 80,
            tls: None,
            h2: false,
        },
        slots: 1,
        drained: false,
        health: HealthPlan::default(),
        drain: Duration::ZERO,
    }
}

fn decision(c: &mut Criterion) {
    let mut idle = Gateway::of(16);
    c.bench_function("arrive and end, 16 idle nodes", |b| {
        b.iter(|| match idle.arrive(0)[..] {
            [Action::Grant(_, endpoint)] => idle.end(endpoint),
            ref other => panic!("{other:?}"),
        })
    });
    for nodes in [16, 1000] {
        let mut full = Gateway::full(nodes, 320, 32);
        c.bench_function(&format!("nothing free, {nodes} nodes, 32 lanes"), |b| {
            b.iter(|| full.schedule(schedule::Event::Freed))
        });
        c.bench_function(
            &format!("a slot and a newcomer, {nodes} nodes, 32 lanes"),
            |b| b.iter(|| full.turn(32)),
        );
    }
    let mut long = Gateway::full(16, 100_000, 4);
    c.bench_function(
        "a slot and a newcomer, 16 nodes, 100 000 wait in 4 lanes",
        |b| b.iter(|| long.turn(4)),
    );
    c.bench_function("1000 nodes that all come free, 32 lanes", |b| {
        b.iter_batched_ref(
            || {
                let mut gateway = Gateway::full(1000, 2000, 32);
                for endpoint in gateway.members.clone() {
                    let ended = fleet::Event::Ended {
                        endpoint,
                        slots: 1,
                        end: End::Done,
                        cool_down: Duration::ZERO,
                    };
                    gateway.fleet.apply(ended, gateway.now);
                }
                gateway
            },
            |gateway| gateway.schedule(schedule::Event::Freed).len(),
            BatchSize::PerIteration,
        )
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    targets = decision
}
criterion_main!(benches);
