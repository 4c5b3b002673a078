use super::*;
use crate::config::plan::{HealthPlan, Target};
use std::collections::BTreeMap;
use tabane_api::NodeFacts;

const COOL: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(30);

/// A fleet and the time it lives in.
struct World {
    fleet: Fleet,
    now: Instant,
}

impl World {
    /// Endpoints `a/x`, `b/x`, … of so many slots, all proven.
    fn of(slots: &[u32]) -> Self {
        let mut world = World::unproven(slots);
        for id in world.ids() {
            world.good(id);
        }
        world
    }

    fn unproven(slots: &[u32]) -> Self {
        let mut world = World {
            fleet: Fleet::new(),
            now: Instant::now(),
        };
        let specs = ["a", "b", "c", "d"].iter().zip(slots);
        world.plan(specs.map(|(node, slots)| spec(node, *slots)).collect());
        world
    }

    fn ids(&self) -> Vec<EndpointId> {
        let mut ids: Vec<_> = self.fleet.all().map(Endpoint::id).collect();
        ids.sort();
        ids
    }

    fn id(&self, node: &str) -> EndpointId {
        self.fleet.by_name(&format!("{node}/x")).unwrap()
    }

    fn get(&self, node: &str) -> &Endpoint {
        self.fleet.get(self.id(node)).unwrap()
    }

    fn apply(&mut self, event: Event) -> Vec<Action> {
        self.fleet.apply(event, self.now)
    }

    fn plan(&mut self, specs: Vec<Spec>) -> Vec<Action> {
        self.apply(Event::Plan(specs))
    }

    fn take(&mut self, id: EndpointId, slots: u32) -> bool {
        self.fleet.take(id, slots, self.now)
    }

    fn end(&mut self, endpoint: EndpointId, slots: u32, end: End) -> Vec<Action> {
        self.apply(Event::Ended {
            endpoint,
            slots,
            end,
            cool_down: COOL,
        })
    }

    fn abort(&mut self, endpoint: EndpointId, slots: u32) -> Vec<Action> {
        self.end(endpoint, slots, End::Aborted { began: true })
    }

    fn probe(
        &mut self,
        endpoint: EndpointId,
        started: Instant,
        outcome: Result<Vitals, ProbeError>,
    ) -> Vec<Action> {
        self.apply(Event::Probed {
            endpoint,
            started,
            outcome,
        })
    }

    fn good(&mut self, id: EndpointId) -> Vec<Action> {
        self.probe(id, self.now, Ok(Vitals::default()))
    }

    fn bad(&mut self, id: EndpointId) -> Vec<Action> {
        self.probe(id, self.now, Err(ProbeError::Unhealthy("500".into())))
    }

    /// Takes it down by its probes.
    fn take_down(&mut self, id: EndpointId) -> Vec<Action> {
        let fall = HealthPlan::default().fall;
        (0..fall).flat_map(|_| self.bad(id)).collect()
    }

    /// Has so many of its requests fail that it is ejected.
    fn eject(&mut self, id: EndpointId) {
        for _ in 0..HealthPlan::default().eject_after {
            assert!(self.take(id, 1));
            self.end(id, 1, End::Failed(Failure::Status));
        }
        assert_eq!(self.fleet.get(id).unwrap().state(), State::Ejected);
    }

    fn busy(&mut self, id: EndpointId, started: Instant, busy: u32) -> Vec<Action> {
        let vitals = Vitals {
            busy: Some(busy),
            ..Vitals::default()
        };
        self.probe(id, started, Ok(vitals))
    }

    fn drain(&mut self, node: &str, on: bool) -> Vec<Action> {
        self.apply(Event::Drain {
            node: node.into(),
            on,
        })
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.apply(Event::Tick)
    }
}

fn spec(node: &str, slots: u32) -> Spec {
    Spec {
        name: format!("{node}/x").into(),
        node: Arc::new(NodeFacts {
            name: node.into(),
            ..NodeFacts::default()
        }),
        target: target(node),
        slots,
        slots_said: true,
        takes: Takes::default(),
        drained: false,
        health: HealthPlan::default(),
        drain: DRAIN,
        claim: None,
    }
}

fn target(host: &str) -> Target {
    Target {
        host: host.into(),
        port: 80,
        tls: None,
        h2: false,
    }
}

fn freed(actions: &[Action]) -> bool {
    actions.contains(&Action::Freed)
}

// === Slots ===

#[test]
fn slots_are_never_exceeded_those_that_cool_counted() {
    let mut world = World::of(&[3]);
    let a = world.id("a");
    assert!(!world.take(a, 4));
    assert!(!world.take(a, u32::MAX));
    assert!(world.take(a, 2) && world.take(a, 1));
    assert!(!world.take(a, 1));
    world.abort(a, 2);
    assert_eq!((world.get("a").at_work(), world.get("a").cooling()), (1, 2));
    assert!(!world.take(a, 1), "what cools is still the node's");
    world.end(a, 1, End::Done);
    assert!(world.take(a, 1) && !world.take(a, 1));
}

#[test]
fn slots_are_given_back_exactly_however_the_work_ended() {
    let all = [
        (End::Done, 0),
        (End::Unused, 0),
        (End::Failed(Failure::Connect), 0),
        (End::Failed(Failure::Status), 0),
        // After these nobody knows whether the node is still at it.
        (End::Failed(Failure::Reset), 2),
        (End::Failed(Failure::Timeout), 2),
        (End::Aborted { began: false }, 2),
        (End::Aborted { began: true }, 2),
    ];
    for (end, cools) in all {
        let mut world = World::of(&[4]);
        let a = world.id("a");
        assert!(world.take(a, 2) && world.take(a, 1));
        let actions = world.end(a, 2, end);
        assert_eq!(world.get("a").at_work(), 1, "{end:?}");
        assert_eq!(world.get("a").cooling(), cools, "{end:?}");
        assert_eq!(freed(&actions), cools == 0, "{end:?}");
    }
}

#[test]
fn without_a_cool_down_slots_are_free_at_once() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    world.take(a, 1);
    let actions = world.apply(Event::Ended {
        endpoint: a,
        slots: 1,
        end: End::Aborted { began: true },
        cool_down: Duration::ZERO,
    });
    assert!(freed(&actions) && world.get("a").used() == 0);
}

#[test]
fn what_takes_no_slot_fits_a_full_node_and_never_cools() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    assert!(world.take(a, 1) && world.take(a, 0) && world.take(a, 0));
    assert_eq!((world.get("a").used(), world.get("a").passing()), (1, 2));
    world.abort(a, 0);
    assert_eq!((world.get("a").used(), world.get("a").passing()), (1, 1));
}

#[test]
fn a_node_that_shrank_goes_on_with_what_it_has_and_takes_nothing_until_it_is_below() {
    let mut world = World::of(&[3]);
    let a = world.id("a");
    assert!(world.take(a, 1) && world.take(a, 1) && world.take(a, 1));
    assert!(freed(&world.plan(vec![spec("a", 1)])));
    for _ in 0..2 {
        world.end(a, 1, End::Done);
        assert!(!world.take(a, 1));
    }
    world.end(a, 1, End::Done);
    assert!(world.take(a, 1));
}

// === Cooling ===

#[test]
fn cooling_ends_when_cool_down_has_passed() {
    let mut world = World::of(&[2]);
    let a = world.id("a");
    world.take(a, 2);
    world.abort(a, 2);
    assert_eq!(world.fleet.next_due(), Some(world.now + COOL));
    assert!(!freed(&world.pass(COOL - SECOND)));
    assert_eq!(world.get("a").cooling(), 2);
    assert!(freed(&world.pass(SECOND)));
    assert_eq!(world.get("a").used(), 0);
    assert_eq!(world.fleet.next_due(), None);
}

#[test]
fn cooling_ends_by_a_probe_that_began_after_it_and_says_busy_fewer() {
    let mut world = World::of(&[4]);
    let a = world.id("a");
    for _ in 0..3 {
        world.take(a, 1);
    }
    world.abort(a, 1);
    world.now += SECOND;
    world.abort(a, 1);
    world.now += SECOND;
    let started = world.now;
    world.now += SECOND;
    assert!(!freed(&world.busy(a, started, 3)));
    assert_eq!(world.get("a").cooling(), 2);
    assert!(freed(&world.busy(a, started, 2)), "one at work, one cools");
    assert_eq!(world.get("a").cooling(), 1);
    assert!(freed(&world.busy(a, started, 0)));
    assert_eq!(world.get("a").cooling(), 0);
    assert_eq!(world.fleet.next_due(), None);
}

#[test]
fn cooling_does_not_end_by_a_probe_that_began_before_it() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    let started = world.now;
    world.take(a, 1);
    world.now += SECOND;
    world.abort(a, 1);
    assert!(!freed(&world.busy(a, started, 0)));
    assert!(
        !freed(&world.busy(a, world.now, 0)),
        "in the same instant: who knows"
    );
    assert_eq!(world.get("a").cooling(), 1);
}

#[test]
fn cooling_does_not_end_by_a_probe_that_does_not_say_how_busy_it_is() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    world.take(a, 1);
    world.abort(a, 1);
    world.now += SECOND;
    world.good(a);
    assert_eq!(world.get("a").cooling(), 1);
}

#[test]
fn a_probe_did_not_count_what_was_taken_since_it_began() {
    let mut world = World::of(&[2]);
    let a = world.id("a");
    world.take(a, 1);
    world.abort(a, 1);
    world.now += SECOND;
    let started = world.now;
    world.now += SECOND;
    assert!(world.take(a, 1));
    // The one that the node is at is the one that was broken off.
    world.busy(a, started, 1);
    assert_eq!(world.get("a").cooling(), 1);
    assert!(!world.take(a, 1));
    // A probe that saw both tells them apart again.
    world.now += SECOND;
    world.busy(a, world.now, 1);
    assert_eq!(world.get("a").cooling(), 0);
}

#[test]
fn of_two_that_cool_the_longer_stays_when_the_node_says_one_is_left() {
    let mut world = World::of(&[2]);
    let a = world.id("a");
    for cool_down in [COOL, COOL * 2] {
        assert!(world.take(a, 1));
        world.apply(Event::Ended {
            endpoint: a,
            slots: 1,
            end: End::Aborted { began: true },
            cool_down,
        });
    }
    let longest = world.now + COOL * 2;
    world.now += SECOND;
    // Which of the two goes on nobody knows, so its slot is kept for as long as either could.
    world.busy(a, world.now, 1);
    assert_eq!(world.get("a").cooling(), 1);
    world.now = longest - SECOND;
    world.apply(Event::Tick);
    assert_eq!(world.get("a").cooling(), 1);
    world.now = longest;
    world.apply(Event::Tick);
    assert_eq!(world.get("a").cooling(), 0);
}

#[test]
fn what_was_taken_while_something_cools_is_remembered_within_bounds() {
    let mut world = World::of(&[3]);
    let a = world.id("a");
    world.take(a, 1);
    world.abort(a, 1);
    for _ in 0..1000 {
        world.now += Duration::from_millis(1);
        assert!(world.take(a, 1));
        world.end(a, 1, End::Done);
    }
    assert!(world.get("a").young.len() <= 3);
    world.pass(COOL);
    assert!(world.get("a").young.is_empty());
}

#[test]
fn cooling_ends_when_the_kind_stopped_it() {
    let mut world = World::of(&[3]);
    let a = world.id("a");
    world.take(a, 2);
    world.take(a, 1);
    world.abort(a, 2);
    world.abort(a, 1);
    let stop = |slots| Event::Stopped { endpoint: a, slots };
    assert!(freed(&world.apply(stop(2))));
    assert_eq!(world.get("a").cooling(), 1);
    assert!(!freed(&world.apply(stop(2))), "nothing of that size cools");
    assert!(freed(&world.apply(stop(1))));
    assert_eq!(world.get("a").used(), 0);
}

// === Reload ===

#[test]
fn a_reload_that_does_not_move_an_endpoint_keeps_what_is_known_of_it() {
    let mut world = World::of(&[3]);
    let a = world.id("a");
    world.take(a, 1);
    world.take(a, 1);
    world.take(a, 0);
    world.abort(a, 1);
    world.drain("a", true);
    let facts = NodeFacts {
        name: "a".into(),
        vram_mib: 24_000,
        labels: BTreeMap::from([("os".into(), "windows".into())]),
        ..NodeFacts::default()
    };
    let changed = Spec {
        node: Arc::new(facts),
        slots: 5,
        health: HealthPlan {
            fall: 9,
            ..HealthPlan::default()
        },
        ..spec("a", 3)
    };
    let actions = world.plan(vec![changed]);
    assert_eq!(actions, [Action::Freed]);
    assert_eq!(world.ids(), [a]);
    let endpoint = world.get("a");
    assert_eq!(endpoint.state(), State::Draining, "the mark stays");
    assert_eq!((endpoint.at_work(), endpoint.cooling()), (1, 1));
    assert_eq!((endpoint.passing(), endpoint.slots()), (1, 5));
    assert_eq!(endpoint.node().vram_mib, 24_000);
    world.drain("a", false);
    assert_eq!(world.get("a").state(), State::Up, "so does its health");
}

#[test]
fn a_reload_keeps_who_is_down_and_who_is_ejected() {
    let mut world = World::of(&[1, 1]);
    let (a, b) = (world.id("a"), world.id("b"));
    world.take_down(a);
    world.eject(b);
    let due = world.fleet.next_due();
    world.plan(vec![spec("b", 2), spec("a", 2)]);
    assert_eq!(world.get("a").state(), State::Down);
    assert_eq!(world.get("b").state(), State::Ejected);
    assert_eq!(world.fleet.next_due(), due);
}

#[test]
fn a_changed_target_starts_unproven_under_the_same_number() {
    let mut world = World::of(&[2]);
    let a = world.id("a");
    world.take(a, 1);
    let before = world.now;
    world.now += SECOND;
    let moved = Spec {
        target: target("elsewhere"),
        ..spec("a", 2)
    };
    world.plan(vec![moved]);
    assert_eq!(world.id("a"), a);
    assert_eq!(world.get("a").state(), State::Unproven);
    assert_eq!(world.get("a").at_work(), 1, "its lease is still counted");
    assert!(!world.take(a, 1));
    world.probe(a, before, Ok(Vitals::default()));
    assert_eq!(
        world.get("a").state(),
        State::Unproven,
        "this probe asked the old address"
    );
    assert!(world.good(a).contains(&Action::Up(a)));
    assert!(world.take(a, 1));
}

#[test]
fn an_idle_endpoint_that_is_removed_is_gone_at_once() {
    let mut world = World::of(&[1, 1]);
    let b = world.id("b");
    assert!(world.plan(vec![spec("a", 1)]).contains(&Action::Gone(b)));
    assert!(world.fleet.get(b).is_none() && world.fleet.by_name("b/x").is_none());
    assert_eq!(world.fleet.next_due(), None);
}

#[test]
fn a_removed_endpoint_gets_nothing_new_and_is_gone_when_its_last_lease_ends() {
    for last in [0, 1] {
        let mut world = World::of(&[3]);
        let a = world.id("a");
        assert!(world.take(a, 1) && world.take(a, last));
        assert_eq!(world.plan(Vec::new()), [Action::Freed]);
        assert_eq!(world.get("a").state(), State::Leaving);
        assert!(!world.take(a, 1) && !world.take(a, 0));
        assert!(!world.end(a, 1, End::Done).contains(&Action::Gone(a)));
        assert!(
            world.abort(a, last).contains(&Action::Gone(a)),
            "what cools there is no longer ours to wait for"
        );
        assert!(world.fleet.get(a).is_none());
        assert_eq!(world.fleet.next_due(), None);
    }
}

#[test]
fn a_removed_endpoint_is_revoked_once_when_its_time_to_drain_is_over() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    world.take(a, 1);
    world.plan(Vec::new());
    assert_eq!(world.fleet.next_due(), Some(world.now + DRAIN));
    assert!(world.pass(DRAIN - SECOND).is_empty());
    // A second reload without it does not give it more time.
    world.plan(Vec::new());
    assert_eq!(world.pass(SECOND), [Action::Revoke(a, Why::Left)]);
    assert_eq!(world.fleet.next_due(), None);
    for _ in 0..3 {
        assert!(world.pass(Duration::from_secs(100_000)).is_empty());
    }
    assert!(world.end(a, 1, End::Done).contains(&Action::Gone(a)));
}

#[test]
fn a_removed_endpoint_that_is_wanted_again_comes_back_as_it_was() {
    let mut world = World::of(&[2]);
    let a = world.id("a");
    world.take(a, 1);
    world.plan(Vec::new());
    world.pass(SECOND);
    assert!(freed(&world.plan(vec![spec("a", 2)])));
    assert_eq!(world.id("a"), a);
    assert_eq!(world.get("a").state(), State::Up);
    assert_eq!(world.get("a").at_work(), 1);
    assert_eq!(world.fleet.next_due(), None, "nothing is revoked any more");
    assert!(world.pass(DRAIN).is_empty());
    assert!(world.take(a, 1));
}

#[test]
fn numbers_are_never_used_again() {
    let mut world = World::of(&[1, 1]);
    let mut seen = world.ids();
    for _ in 0..5 {
        world.plan(Vec::new());
        world.plan(vec![spec("a", 1), spec("b", 1)]);
        for id in world.ids() {
            assert!(!seen.contains(&id), "{id:?} came twice");
            seen.push(id);
        }
    }
}

// === Drain marks ===

#[test]
fn a_mark_of_the_file_and_a_mark_of_an_operator_are_two_things() {
    let drained = |drained| Spec {
        drained,
        ..spec("a", 1)
    };
    for (file, operator, usable) in [
        (false, false, true),
        (true, false, false),
        (false, true, false),
        (true, true, false),
    ] {
        let mut world = World::of(&[1]);
        let a = world.id("a");
        world.drain("a", operator);
        world.plan(vec![drained(file)]);
        assert_eq!(world.fleet.usable(a), usable, "{file} {operator}");
        // Taking one back leaves the other.
        world.drain("a", false);
        assert_eq!(world.fleet.usable(a), !file, "{file} {operator}");
        world.drain("a", operator);
        world.plan(vec![drained(false)]);
        assert_eq!(world.fleet.usable(a), !operator, "{file} {operator}");
    }
}

#[test]
fn an_operators_mark_holds_for_every_endpoint_of_the_node_and_for_those_to_come() {
    let mut world = World::of(&[1]);
    let second = |slots| Spec {
        name: "a/y".into(),
        ..spec("a", slots)
    };
    world.drain("a", true);
    world.drain("b", true);
    world.plan(vec![spec("a", 1), second(1), spec("b", 1), spec("c", 1)]);
    for id in world.ids() {
        world.good(id);
    }
    let usable = |world: &World| {
        let mut names: Vec<String> = world
            .fleet
            .all()
            .filter(|endpoint| endpoint.is_usable())
            .map(|endpoint| endpoint.name().to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(usable(&world), ["c/x"]);
    // It outlives the node.
    world.plan(vec![spec("c", 1)]);
    world.plan(vec![spec("b", 1), spec("c", 1)]);
    let b = world.id("b");
    world.good(b);
    assert_eq!(usable(&world), ["c/x"]);
    assert!(freed(&world.drain("b", false)));
    assert_eq!(usable(&world), ["b/x", "c/x"]);
}

// === Who gets work ===

#[test]
fn nobody_who_is_unproven_down_drained_ejected_or_leaving_is_taken() {
    type Case = (&'static str, fn(&mut World), State);
    let cases: [Case; 5] = [
        (
            "unproven",
            |world| {
                let moved = Spec {
                    target: target("elsewhere"),
                    ..spec("a", 2)
                };
                world.plan(vec![moved]);
            },
            State::Unproven,
        ),
        (
            "down",
            |world| {
                let a = world.id("a");
                world.take_down(a);
            },
            State::Down,
        ),
        (
            "drained",
            |world| {
                world.drain("a", true);
            },
            State::Draining,
        ),
        (
            "ejected",
            |world| {
                let a = world.id("a");
                world.eject(a);
            },
            State::Ejected,
        ),
        (
            "leaving",
            |world| {
                let a = world.id("a");
                assert!(world.take(a, 0));
                world.plan(Vec::new());
            },
            State::Leaving,
        ),
    ];
    for (name, make, state) in cases {
        let mut world = World::of(&[2]);
        make(&mut world);
        let a = world.id("a");
        assert_eq!(world.get("a").state(), state, "{name}");
        assert!(!world.take(a, 1) && !world.take(a, 0), "{name}");
        assert!(
            !world.get("a").is_usable() && !world.get("a").view().usable,
            "{name}"
        );
        assert!(!world.fleet.take(EndpointId(99), 0, world.now));
    }
}

#[test]
fn whoever_waits_looks_again_when_an_endpoint_is_out() {
    let mut world = World::of(&[1, 1, 1]);
    let (a, b) = (world.id("a"), world.id("b"));
    assert!(freed(&world.take_down(a)));
    // Resets cool, so that what frees is the ejection alone.
    let fail = |world: &mut World| {
        assert!(world.take(b, 1));
        world.end(b, 1, End::Failed(Failure::Reset))
    };
    for _ in 1..HealthPlan::default().eject_after {
        assert!(!freed(&fail(&mut world)));
        world.apply(Event::Stopped {
            endpoint: b,
            slots: 1,
        });
    }
    assert!(freed(&fail(&mut world)));
    assert!(freed(&world.drain("c", true)));
}

#[test]
fn a_node_on_trial_gets_one_request_at_a_time() {
    let mut world = World::of(&[4]);
    let a = world.id("a");
    world.eject(a);
    let due = world.now + HealthPlan::default().eject_for;
    assert_eq!(world.fleet.next_due(), Some(due));
    assert!(freed(&world.pass(HealthPlan::default().eject_for)));
    assert_eq!(world.get("a").state(), State::Trial);
    assert_eq!(world.fleet.next_due(), None);
    assert!(world.take(a, 1));
    assert!(!world.take(a, 1) && !world.take(a, 0));
    // It said nothing: another may try.
    assert!(freed(&world.end(a, 1, End::Unused)));
    assert!(world.take(a, 1) && !world.take(a, 1));
    let actions = world.end(a, 1, End::Done);
    assert!(actions.contains(&Action::Up(a)) && freed(&actions));
    assert!(world.take(a, 1) && world.take(a, 1));
}

#[test]
fn a_trial_that_fails_ejects_for_twice_as_long() {
    let mut world = World::of(&[4]);
    let a = world.id("a");
    let first = HealthPlan::default().eject_for;
    world.eject(a);
    world.pass(first);
    world.take(a, 1);
    let actions = world.end(a, 1, End::Failed(Failure::Status));
    assert!(
        actions.contains(&Action::Ejected(a, first * 2)),
        "{actions:?}"
    );
    assert_eq!(world.fleet.next_due(), Some(world.now + first * 2));
}

#[test]
fn a_frozen_node_is_down_and_what_waits_on_it_is_revoked() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    world.take(a, 1);
    world.now += HealthPlan::default().stall_after;
    let actions = world.probe(a, world.now, Err(ProbeError::Timeout));
    assert!(
        matches!(
            actions[..],
            [
                Action::Down(_, Why::Stalled(_)),
                Action::Freed,
                Action::Revoke(_, Why::Stalled(_))
            ]
        ),
        "{actions:?}"
    );
}

// === Time ===

#[test]
fn the_soonest_of_all_that_is_due_is_next() {
    let mut world = World::of(&[4, 4, 4]);
    let (a, b, c) = (world.id("a"), world.id("b"), world.id("c"));
    assert_eq!(world.fleet.next_due(), None);
    let start = world.now;
    world.take(a, 1);
    world.abort(a, 1);
    assert_eq!(world.fleet.next_due(), Some(start + COOL));
    world.take(c, 1);
    world.plan(vec![spec("a", 4), spec("b", 4)]);
    assert_eq!(world.fleet.next_due(), Some(start + DRAIN));
    world.eject(b);
    let ejected = start + HealthPlan::default().eject_for;
    assert_eq!(world.fleet.next_due(), Some(ejected));
    // Time alone changes nothing before it is due.
    assert!(world.pass(SECOND).is_empty());
    assert_eq!(world.fleet.next_due(), Some(ejected));
    // What ends early is no longer due.
    world.end(c, 1, End::Done);
    world.apply(Event::Stopped {
        endpoint: a,
        slots: 1,
    });
    assert_eq!(world.fleet.next_due(), Some(ejected));
    // One late tick does all that was due.
    assert!(freed(&world.pass(COOL)));
    assert_eq!(world.fleet.next_due(), None);
}

#[test]
fn a_new_or_troubled_node_is_asked_more_often() {
    let mut world = World::unproven(&[1]);
    let a = world.id("a");
    let plan = HealthPlan::default();
    assert_eq!(world.fleet.probe_interval(a), plan.interval_down);
    world.good(a);
    assert_eq!(world.fleet.probe_interval(a), plan.interval);
    world.bad(a);
    assert_eq!(world.fleet.probe_interval(a), plan.interval_down);
    world.good(a);
    world.take(a, 1);
    world.abort(a, 1);
    assert_eq!(
        world.fleet.probe_interval(a),
        plan.interval_down,
        "a probe may end the cooling"
    );
}

#[test]
fn news_of_an_endpoint_that_is_gone_is_nothing() {
    let mut world = World::of(&[1]);
    let a = world.id("a");
    world.plan(Vec::new());
    let events = [
        Event::Answered { endpoint: a },
        Event::Stopped {
            endpoint: a,
            slots: 1,
        },
        Event::Ended {
            endpoint: a,
            slots: 1,
            end: End::Done,
            cool_down: COOL,
        },
        Event::Probed {
            endpoint: a,
            started: world.now,
            outcome: Ok(Vitals::default()),
        },
    ];
    for event in events {
        assert!(world.apply(event).is_empty());
    }
}

#[test]
fn a_probe_that_shows_another_model_lets_those_who_wait_look_again() {
    let mut world = World::of(&[1]);
    let a = world.ids()[0];
    let shows = |models: &[&str]| {
        Ok(Vitals {
            models: models.iter().map(|model| model.to_string()).collect(),
            ..Vitals::default()
        })
    };
    let now = world.now;
    assert!(freed(&world.probe(a, now, shows(&["sd15"]))));
    assert!(!freed(&world.probe(a, now, shows(&["sd15"]))));
    assert!(freed(&world.probe(a, now, shows(&["sd15", "flux"]))));
}
