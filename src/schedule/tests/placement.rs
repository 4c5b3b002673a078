//! Who of many goes where, and whose turn it is.

use super::super::*;
use super::{NoChance, SECOND, granted};
use crate::config::plan::PricePlan;
use policies::testing::NOBODY;
use std::collections::BTreeSet;
use tabane_api::{Candidate, Mode, Need, Policy, Registry, Terms};

/// A farm where everybody knows how long each class takes on each endpoint, and one of a class is at work until it is told
/// to be over.
struct Farm {
    /// Seconds of each class (`a`, `b`, …) on each endpoint.
    takes_s: Vec<Vec<f64>>,
    slots: Vec<u32>,
    /// Which cards other services hold.
    away: BTreeSet<u32>,
    /// Which classes never ran.
    new: BTreeSet<usize>,
    /// What is at work on each endpoint: whose, until when, and for how long.
    at_work: Vec<Vec<(TicketId, f64, f64)>>,
    now_s: f64,
}

impl Farm {
    fn class(ticket: &Ticket) -> usize {
        usize::from(ticket.need.class.as_bytes()[0] - b'a')
    }

    fn free_in(&self, i: usize) -> f64 {
        let at_work = &self.at_work[i];
        if (at_work.len() as u32) < self.slots[i] {
            return 0.0;
        }
        let ends = at_work.iter().map(|(_, until, _)| until - self.now_s);
        ends.fold(f64::INFINITY, f64::min).max(0.001)
    }
}

impl Room for Farm {
    fn candidates<'a>(&'a self, ticket: &Ticket, into: &mut Vec<Candidate<'a>>) {
        for (i, takes_s) in self.takes_s[Farm::class(ticket)].iter().enumerate() {
            let id = EndpointId(i as u32);
            if takes_s.is_finite() && !ticket.excluded.contains(&id) {
                into.push(Candidate {
                    id,
                    name: "n/x",
                    hash: i as u64,
                    weight: 1,
                    slots: self.slots[i],
                    used: self.at_work[i].len() as u32,
                    passing: 0,
                    held: !self.away.contains(&id.0),
                    terms: Terms {
                        run_s: *takes_s,
                        wait_s: self.free_in(i),
                        switch_s: if self.away.contains(&id.0) { 5.0 } else { 0.0 },
                        ..Terms::default()
                    },
                    node: &NOBODY,
                });
            }
        }
    }

    fn is_new(&self, ticket: &Ticket) -> bool {
        self.new.contains(&Farm::class(ticket))
    }

    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> Option<f64> {
        let i = endpoint.0 as usize;
        let takes_s = self.takes_s[Farm::class(ticket)][i];
        let fits = (self.at_work[i].len() as u32) < self.slots[i];
        fits.then(|| self.at_work[i].push((ticket.id, self.now_s + takes_s, takes_s)))?;
        // It is found out now.
        self.new.remove(&Farm::class(ticket));
        Some(takes_s)
    }
}

struct World {
    schedule: Schedule,
    farm: Farm,
    start: Instant,
    policy: Arc<dyn Policy>,
    next: u64,
}

impl World {
    fn new(policy: &str, takes_s: &[&[f64]]) -> Self {
        let registry = register(Registry::default());
        let mut block = serde_json::Deserializer::from_str("{}");
        let mut block = <dyn erased_serde::Deserializer<'_>>::erase(&mut block);
        let bound = (registry.find_policy(policy).unwrap().decode)(&mut block).unwrap();
        let endpoints = takes_s[0].len();
        World {
            schedule: Schedule::new(Box::new(NoChance)),
            farm: Farm {
                takes_s: takes_s.iter().map(|row| row.to_vec()).collect(),
                slots: vec![1; endpoints],
                away: BTreeSet::new(),
                new: BTreeSet::new(),
                at_work: vec![Vec::new(); endpoints],
                now_s: 0.0,
            },
            start: Instant::now(),
            policy: bound.build().unwrap(),
            next: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.farm.now_s)
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        let now = self.now();
        self.schedule.apply(event, &mut self.farm, now)
    }

    fn ticket(&mut self, class: &str) -> Ticket {
        self.next += 1;
        Ticket {
            id: TicketId(self.next),
            asked_as: AskedAs::Number,
            service: "s".into(),
            pool: PoolId(0),
            need: Need::of_class(class),
            policy: self.policy.clone(),
            kind: None,
            price: PricePlan::default(),
            excluded: Vec::new(),
            turn: Turn::Stored(self.next as i64),
            since: self.now(),
            before_s: 0.0,
            barred: Vec::new(),
            share: Share::default(),
            patience: SECOND * 600,
            expected: Span::default(),
            queue: QueueLimits {
                max: 10_000,
                max_wait: SECOND * 300,
            },
        }
    }

    /// One comes; who got what because of it.
    fn arrive(&mut self, change: impl FnOnce(&mut Ticket), class: &str) -> Vec<(u64, u32)> {
        let mut ticket = self.ticket(class);
        change(&mut ticket);
        let actions = self.apply(Event::Arrived(ticket));
        grants(&actions)
    }

    fn comes(&mut self, class: &str) -> Vec<(u64, u32)> {
        self.arrive(|_| {}, class)
    }

    /// Time passes; what is over by then is over, one after the other. Who got what.
    fn pass(&mut self, seconds: f64) -> Vec<(u64, u32)> {
        let end_s = self.farm.now_s + seconds;
        let mut all = Vec::new();
        loop {
            let at_work = self.farm.at_work.iter().enumerate();
            let over = at_work.flat_map(|(i, all)| all.iter().map(move |work| (work.1, i, *work)));
            let next = over
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|n| n.0 <= end_s);
            let due = self.schedule.next_due();
            let due = due.map(|due| (due - self.start).as_secs_f64());
            match (next, due.filter(|due| *due <= end_s)) {
                (Some((until_s, i, (id, _, took_s))), due)
                    if due.is_none_or(|due| until_s <= due) =>
                {
                    self.farm.now_s = until_s;
                    self.farm.at_work[i].retain(|(other, ..)| *other != id);
                    self.apply(Event::Ended(id, took_s));
                }
                (_, Some(due_s)) => self.farm.now_s = due_s,
                (_, None) => break,
            }
            all.extend(grants(&self.apply(Event::Freed)));
        }
        self.farm.now_s = end_s;
        all
    }
}

fn grants(actions: &[Action]) -> Vec<(u64, u32)> {
    granted(actions);
    let one = |action: &Action| match action {
        Action::Grant(id, endpoint) => Some((id.0, endpoint.0)),
        Action::Refuse(..) => None,
    };
    actions.iter().filter_map(one).collect()
}

fn of(tenant: &'static str) -> impl Fn(&mut Ticket) {
    move |ticket| ticket.need.tenant = tenant.into()
}

const NOWHERE: f64 = f64::INFINITY;

#[test]
fn one_waits_for_a_better_node_that_is_free_soon_and_takes_another_where_it_is_not() {
    // The other takes nine times as long.
    let mut world = World::new("match", &[&[10.0, 90.0]]);
    assert_eq!(world.comes("a"), [(1, 0)]);
    assert_eq!(world.comes("a"), [], "20 s in all are better than 90");
    assert_eq!(world.pass(9.0), []);
    assert_eq!(world.pass(1.0), [(2, 0)]);
    // With ten in line, the last of them is better off there.
    let came: Vec<_> = (0..10).flat_map(|_| world.comes("a")).collect();
    assert_eq!(came.len(), 1, "{came:?}");
    assert_eq!(came[0].1, 1);
}

#[test]
fn nobody_waits_beside_a_free_slot_for_longer_than_its_patience() {
    let mut world = World::new("match", &[&[500.0, 5000.0]]);
    assert_eq!(world.comes("a"), [(1, 0)]);
    let patient = |ticket: &mut Ticket| ticket.patience = SECOND * 60;
    assert_eq!(world.arrive(patient, "a"), []);
    assert_eq!(world.pass(59.0), []);
    assert_eq!(world.pass(2.0), [(2, 1)]);
}

#[test]
fn nobody_starves_behind_shorter_work_where_other_endpoints_are_free_and_do_not_fit() {
    // The second endpoint is free for others all the time.
    let mut world = World::new("match", &[&[1.0, NOWHERE], &[50.0, NOWHERE]]);
    world.comes("a");
    world.comes("a");
    let patient = |ticket: &mut Ticket| ticket.patience = SECOND * 60;
    assert_eq!(world.arrive(patient, "b"), []);
    let long = world.next;
    let begins = (0..70).find(|_| {
        let granted = world.pass(1.0);
        world.comes("a");
        granted.iter().any(|(id, _)| *id == long)
    });
    assert!(begins.is_some_and(|second| second > 50), "{begins:?}");
}

#[test]
fn work_of_two_slots_is_not_kept_out_by_work_of_one_for_ever() {
    for policy in ["least_loaded", "fastest", "match"] {
        let mut world = World::new(policy, &[&[10.0], &[10.0]]);
        world.farm.slots = vec![2];
        world.comes("a");
        world.pass(5.0);
        world.comes("a");
        let wide = |ticket: &mut Ticket| {
            ticket.need.slots = 2;
            ticket.patience = SECOND * 60;
        };
        assert_eq!(world.arrive(wide, "b"), [], "{policy}");
        let wide = world.next;
        let begins = (0..30).find(|_| {
            world.comes("a");
            let granted = world.pass(5.0);
            granted.iter().any(|(id, _)| *id == wide)
        });
        assert!(begins.is_some(), "{policy}");
    }
}

#[test]
fn what_a_person_waits_for_hides_no_older_work_of_the_same_tenant_elsewhere() {
    let mut world = World::new("match", &[&[10.0, NOWHERE], &[NOWHERE, 5.0]]);
    assert_eq!(world.comes("a"), [(1, 0)]);
    assert_eq!(world.comes("b"), [(2, 1)]);
    assert_eq!(world.comes("b"), []);
    assert_eq!(
        world.arrive(|ticket| ticket.need.interactive = true, "a"),
        []
    );
    assert_eq!(world.pass(5.0), [(3, 1)], "its node is free");
    assert_eq!(world.pass(5.0), [(4, 0)]);
}

#[test]
fn work_from_before_a_restart_counts_for_its_tenant_until_it_ends() {
    let mut world = World::new("match", &[&[10.0, 10.0]]);
    let few = |ticket: &mut Ticket| ticket.share.most = Some(1);
    world.apply(Event::Resumed {
        ticket: TicketId(99),
        pool: PoolId(0),
        tenant: Need::of_class("a").tenant,
        weight: 1,
        slots: 1,
    });
    assert_eq!(world.arrive(few, "a"), []);
    world.apply(Event::Ended(TicketId(99), 10.0));
    assert_eq!(grants(&world.apply(Event::Freed)).len(), 1);
}

#[test]
fn of_a_class_who_came_first_goes_first_whatever_the_others_do() {
    let mut world = World::new(
        "match",
        &[&[3.0, 8.0, 8.0], &[20.0, 5.0, 30.0], &[9.0, 9.0, NOWHERE]],
    );
    let mut begun: Vec<u64> = Vec::new();
    for i in 0..200 {
        let class = ["a", "b", "c"][(i * 7 / 3) % 3];
        begun.extend(world.comes(class).iter().map(|(id, _)| id));
        begun.extend(world.pass(1.5).iter().map(|(id, _)| id));
    }
    begun.extend(world.pass(10_000.0).iter().map(|(id, _)| id));
    assert_eq!(begun.len(), 200, "nobody is left behind");
    for class in 0..3 {
        let of_class = |id: &&u64| ((**id as usize - 1) * 7 / 3) % 3 == class;
        let order: Vec<u64> = begun.iter().filter(of_class).copied().collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}

#[test]
fn with_many_in_line_a_slot_takes_what_loses_most_by_waiting() {
    let mut world = World::new("match", &[&[10.0, 10.0], &[40.0, 10.0]]);
    world.comes("a");
    world.comes("a");
    for _ in 0..20 {
        world.comes("a");
        world.comes("b");
    }
    let begun = world.pass(10.0);
    let class = |id: u64| if id % 2 == 1 { "a" } else { "b" };
    let on = |endpoint: u32| {
        begun
            .iter()
            .find(|(_, on)| *on == endpoint)
            .map(|(id, _)| class(*id))
    };
    // All are as old. Of those that are as fast, who came first.
    assert_eq!((on(0), on(1)), (Some("a"), Some("b")), "{begun:?}");
}

#[test]
fn with_many_in_line_one_of_what_never_ran_goes_first_and_no_more() {
    // Guessed to be long: by what it loses, it would wait until all others are served.
    let mut world = World::new("match", &[&[1.0, 1.0], &[100.0, 100.0]]);
    world.farm.new.insert(1);
    for _ in 0..20 {
        world.comes("a");
    }
    let (one, other) = (world.next + 1, world.next + 2);
    world.comes("b");
    world.comes("b");
    let granted: Vec<u64> = world.pass(1.0).into_iter().map(|(id, _)| id).collect();
    assert!(
        granted.contains(&one) && !granted.contains(&other),
        "{granted:?}"
    );
}

#[test]
fn what_is_urgent_counts_for_more_and_what_is_interactive_goes_first() {
    let mut world = World::new("match", &[&[10.0]]);
    world.comes("a");
    world.comes("a");
    world.arrive(|t| t.need.urgency = Urgency::new(1), "a");
    world.arrive(|t| t.need.interactive = true, "a");
    world.arrive(|t| t.need.urgency = Urgency::new(7), "a");
    let order: Vec<u64> = world.pass(60.0).iter().map(|(id, _)| *id).collect();
    assert_eq!(order, [4, 3, 2, 5]);
}

#[test]
fn a_flood_by_one_tenant_makes_another_wait_for_one_job_that_is_running() {
    for policy in ["match", "fastest", "least_loaded", "round_robin"] {
        let mut world = World::new(policy, &[&[10.0, 10.0]]);
        for _ in 0..2000 {
            world.arrive(of("flood"), "a");
        }
        for _ in 0..20 {
            world.pass(7.0);
            let asked_s = world.farm.now_s;
            let mut begun = world.arrive(of("single"), "a");
            let id = world.next;
            while !begun.iter().any(|(of, _)| *of == id) {
                begun = world.pass(0.5);
                assert!(world.farm.now_s - asked_s <= 10.5, "{policy}");
            }
        }
    }
}

#[test]
fn tenants_that_always_wait_share_by_their_weights() {
    let mut world = World::new("match", &[&[10.0, 10.0, 10.0]]);
    for _ in 0..400 {
        world.arrive(of("one"), "a");
        let heavy = |ticket: &mut Ticket| {
            ticket.need.tenant = "three".into();
            ticket.share.weight = 3;
        };
        world.arrive(heavy, "a");
    }
    let begun = world.pass(1000.0);
    let of_three = begun.iter().filter(|(id, _)| id % 2 == 0).count();
    let share = of_three as f64 / begun.len() as f64;
    assert!((0.72..0.78).contains(&share), "{share} of {}", begun.len());
}

#[test]
fn a_tenant_has_no_more_at_work_than_it_may() {
    for policy in ["match", "least_loaded"] {
        let mut world = World::new(policy, &[&[10.0, 10.0, 10.0]]);
        let few = |ticket: &mut Ticket| {
            ticket.need.tenant = "few".into();
            ticket.share.most = Some(2);
        };
        let begun: Vec<_> = (0..5).flat_map(|_| world.arrive(few, "a")).collect();
        assert_eq!(begun.len(), 2, "{policy}");
        assert_eq!(world.comes("a").len(), 1, "others are not held up");
        assert_eq!(world.pass(10.0).len(), 2);
    }
}

#[test]
fn who_waits_for_a_card_that_another_service_holds_says_so() {
    for policy in ["match", "fastest", "least_loaded"] {
        let mut world = World::new(policy, &[&[10.0, 10.0]]);
        world.farm.away.extend([0, 1]);
        assert_eq!(world.comes("a"), [], "{policy}");
        let wants: Vec<u32> = world.schedule.wants().map(|w| w.endpoint.0).collect();
        assert!(!wants.is_empty(), "{policy}");
        world.farm.away.remove(&wants[0]);
        assert_eq!(grants(&world.apply(Event::Freed)), [(1, wants[0])]);
        assert_eq!(world.schedule.wants().count(), 0, "{policy}");
    }
}

#[test]
fn pools_that_share_no_node_owe_each_other_nothing() {
    let mut world = World::new("match", &[&[10.0, NOWHERE], &[NOWHERE, 10.0]]);
    world.apply(Event::Domains([(PoolId(0), 0), (PoolId(1), 1)].into()));
    let second = |world: &mut World, tenant: &'static str| {
        let elsewhere = |ticket: &mut Ticket| {
            ticket.need.tenant = tenant.into();
            ticket.pool = PoolId(1);
        };
        world.arrive(elsewhere, "b")
    };
    // A long time alone on the first pool.
    for _ in 0..50 {
        world.arrive(of("busy"), "a");
    }
    world.pass(400.0);
    second(&mut world, "other");
    for _ in 0..3 {
        second(&mut world, "other");
        second(&mut world, "busy");
    }
    let begun: Vec<u64> = world
        .pass(60.0)
        .iter()
        .filter(|(_, on)| *on == 1)
        .map(|(id, _)| *id)
        .collect();
    let busy = begun.iter().take(4).filter(|id| *id % 2 == 1).count();
    assert_eq!(busy, 2, "they take turns: {begun:?}");
}

#[test]
fn a_policy_that_matches_and_one_that_picks_say_so() {
    let matched = World::new("match", &[&[1.0]]);
    assert!(matches!(matched.policy.mode(), Mode::Match(_)));
    let fastest = World::new("fastest", &[&[1.0]]).policy.mode();
    assert!(matches!(fastest, Mode::InTurn { .. }));
    assert_eq!(
        World::new("least_loaded", &[&[1.0]]).policy.mode(),
        Mode::Load
    );
}

#[test]
fn every_decision_says_by_what_it_was_made() {
    let takes_s: [&[f64]; 3] = [&[3.0, 8.0, 8.0], &[20.0, 5.0, 30.0], &[9.0, 9.0, NOWHERE]];
    for policy in ["match", "fastest", "least_loaded"] {
        let mut world = World::new(policy, &takes_s);
        let mut seen = 0;
        for i in 0..300 {
            world.comes(["a", "b", "c"][(i * 7 / 3) % 3]);
            world.pass(2.0);
            let decisions: Vec<Decision> = world.schedule.decisions().collect();
            for decision in decisions {
                seen += 1;
                let class = ((decision.ticket.0 as usize - 1) * 7 / 3) % 3;
                assert_eq!(*decision.class, *["a", "b", "c"][class], "{policy}");
                let could = takes_s[class].iter().filter(|takes_s| takes_s.is_finite());
                assert_eq!(decision.considered.len(), could.count(), "{policy}");
                for considered in &decision.considered {
                    let on = considered.endpoint.0 as usize;
                    assert_eq!(considered.terms.run_s, takes_s[class][on], "{policy}");
                    // Room, and no wait; or a wait, and no room.
                    assert_eq!(considered.room, considered.terms.wait_s == 0.0, "{policy}");
                }
                let of = |c: &&Considered| c.endpoint == decision.endpoint;
                let picked = decision.considered.iter().find(of).unwrap();
                assert!(picked.room, "{policy}: {decision:?}");
            }
        }
        assert!(seen > 100, "{policy}: {seen}");
    }
}
