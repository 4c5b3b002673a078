//! How long a scheduling decision takes. Budgets: 0.2 ms with 16 nodes and 32 waiting classes, 5 ms with
//! 1000 nodes. Source: measured here, with the fleet and the schedule as dispatch joins them.

// criterion's macro writes a function without docs.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane::config::plan::{HealthPlan, PricePlan, Target};
use tabane::fleet::{self, End, Fleet, Spec};
use tabane::schedule::{
    Action, AskedAs, Event, PoolId, QueueLimits, Room, Schedule, Share, Span, Ticket, TicketId,
    Turn, register,
};
use tabane_api::{Candidate, EndpointId, Need, NodeFacts, Policy, Registry, Vitals};

struct OnePool<'a>(&'a mut Fleet, &'a [EndpointId], Instant);

impl Room for OnePool<'_> {
    fn candidates<'b>(&'b self, _ticket: &Ticket, into: &mut Vec<Candidate<'b>>) {
        into.extend(
            self.1
                .iter()
                .filter(|id| self.0.usable(**id))
                .filter_map(|id| Some(self.0.get(*id)?.candidate(1))),
        );
    }

    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> Option<f64> {
        let fits = self.0.take(endpoint, ticket.need.slots, self.2);
        fits.then_some(1.0)
    }
}

fn fleet(n: usize, now: Instant) -> (Fleet, Vec<EndpointId>) {
    let mut fleet = Fleet::new();
    let spec = |i: usize| Spec {
        name: format!("node-{i}/http").into(),
        node: Arc::new(NodeFacts {
            name: format!("node-{i}").into(),
            ..NodeFacts::default()
        }),
        target: Target {
            host: "127.0.0.1".into(),
            port: 1,
            tls: None,
            h2: false,
        },
        slots: 1,
        slots_said: true,
        takes: fleet::Takes::default(),
        drained: false,
        health: HealthPlan::default(),
        drain: Duration::ZERO,
        claim: None,
    };
    fleet.apply(fleet::Event::Plan((0..n).map(spec).collect()), now);
    let ids: Vec<EndpointId> = (0..n)
        .filter_map(|i| fleet.by_name(&format!("node-{i}/http")))
        .collect();
    for &endpoint in &ids {
        fleet.apply(
            fleet::Event::Probed {
                endpoint,
                started: now,
                outcome: Ok(Vitals::default()),
            },
            now,
        );
    }
    (fleet, ids)
}

fn ticket(id: u64, class: usize, policy: &Arc<dyn Policy>, now: Instant) -> Ticket {
    // Classes that want different things: each is a lane of its own.
    let need = Need {
        key: Some(class as u64),
        ..Need::of_class("bench")
    };
    let queue = QueueLimits {
        max: 1_000_000,
        max_wait: Duration::from_secs(60),
    };
    Ticket {
        id: TicketId(id),
        asked_as: AskedAs::Number,
        service: "any".into(),
        pool: PoolId(0),
        need,
        policy: policy.clone(),
        kind: None,
        price: PricePlan::default(),
        excluded: Vec::new(),
        turn: Turn::Held(now),
        since: now,
        before_s: 0.0,
        barred: Vec::new(),
        share: Share::default(),
        patience: Duration::from_secs(600),
        expected: Span::new(1.0, 0.1),
        queue,
    }
}

fn least_loaded() -> Arc<dyn Policy> {
    let registry = register(Registry::default());
    let entry = registry.find_policy("least_loaded").expect("it ships");
    let mut block = serde_json::Deserializer::from_str("{}");
    let mut block = <dyn erased_serde::Deserializer<'_>>::erase(&mut block);
    (entry.decode)(&mut block)
        .expect("an empty block")
        .build()
        .expect("nothing to refuse")
}

fn decisions(c: &mut Criterion) {
    let now = Instant::now();
    let policy = least_loaded();
    for (nodes, waiting, lanes) in [(16, 0, 1), (16, 32, 32), (1000, 32, 32), (16, 100_000, 32)] {
        c.bench_function(
            &format!("{nodes} nodes, {waiting} waiting in {lanes} lanes"),
            |b| {
                let (mut fleet, ids) = fleet(nodes, now);
                let mut schedule = Schedule::new(Box::new(StdRng::seed_from_u64(1)));
                let mut next = 0;
                let mut arrive = |fleet: &mut Fleet, schedule: &mut Schedule| {
                    next += 1;
                    schedule.apply(
                        Event::Arrived(ticket(next, next as usize % lanes, &policy, now)),
                        &mut OnePool(fleet, &ids, now),
                        now,
                    )
                };
                // All busy, so that the rest waits; or all idle.
                for _ in 0..(if waiting > 0 { nodes + waiting } else { 0 }) {
                    arrive(&mut fleet, &mut schedule);
                }
                let mut free = 0;
                b.iter(|| {
                    // One comes; one ends, and whoever is first gets its slot.
                    let granted = arrive(&mut fleet, &mut schedule);
                    let endpoint = match granted.first() {
                        Some(Action::Grant(_, endpoint)) => *endpoint,
                        _ => ids[free % ids.len()],
                    };
                    fleet.apply(
                        fleet::Event::Ended {
                            endpoint,
                            slots: 1,
                            end: End::Done,
                            cool_down: Duration::ZERO,
                        },
                        now,
                    );
                    if waiting > 0 {
                        let served =
                            schedule.apply(Event::Freed, &mut OnePool(&mut fleet, &ids, now), now);
                        if let Some(Action::Grant(_, endpoint)) = served.first() {
                            free = ids.iter().position(|id| id == endpoint).unwrap_or(0);
                        }
                    }
                    black_box(&fleet);
                });
            },
        );
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
