use super::*;
use crate::config::plan::{HealthPlan, Target};
use tabane_api::NodeFacts;

const COOL: Duration = Duration::from_secs(10);

fn spec(name: &str, slots: u32) -> Spec {
    Spec {
        name: format!("{name}/http").into(),
        node: Arc::new(NodeFacts {
            name: name.into(),
            ..NodeFacts::default()
        }),
        target: Target {
            host: name.into(),
            port: 80,
            tls: None,
            h2: false,
        },
        slots,
        drained: false,
        health: HealthPlan {
            rise: 1,
            fall: 1,
            ..HealthPlan::default()
        },
        drain: Duration::from_secs(60),
    }
}

fn good(busy: Option<u32>) -> Result<Vitals, ProbeError> {
    Ok(Vitals {
        busy,
        ..Vitals::default()
    })
}

/// A fleet of one node `a`, up, and its number.
fn one(slots: u32, now: Instant) -> (Fleet, EndpointId) {
    let mut fleet = Fleet::new();
    fleet.apply(Event::Plan(vec![spec("a", slots)]), now);
    let id = fleet.by_name("a/http").unwrap();
    fleet.apply(
        Event::Probed {
            endpoint: id,
            started: now,
            outcome: good(None),
        },
        now,
    );
    assert!(fleet.usable(id));
    (fleet, id)
}

fn end(fleet: &mut Fleet, endpoint: EndpointId, end: End, now: Instant) -> Vec<Action> {
    fleet.apply(
        Event::Ended {
            endpoint,
            slots: 1,
            end,
            cool_down: COOL,
        },
        now,
    )
}

fn used(fleet: &Fleet, id: EndpointId) -> u32 {
    fleet.get(id).unwrap().used()
}

#[test]
fn never_more_than_slots_are_taken_and_all_are_given_back() {
    let now = Instant::now();
    let (mut fleet, id) = one(2, now);
    assert!(fleet.take(id, 1) && fleet.take(id, 1));
    assert!(!fleet.take(id, 1));
    assert!(
        fleet.take(id, 0),
        "what takes no slot finds room on a full node"
    );
    assert!(end(&mut fleet, id, End::Done, now).contains(&Action::Freed));
    assert!(!fleet.take(id, 2), "two do not fit into one");
    assert!(fleet.take(id, 1));
    end(&mut fleet, id, End::Done, now);
    end(&mut fleet, id, End::Unused, now);
    fleet.apply(
        Event::Ended {
            endpoint: id,
            slots: 0,
            end: End::Done,
            cool_down: COOL,
        },
        now,
    );
    let endpoint = fleet.get(id).unwrap();
    assert_eq!((endpoint.used(), endpoint.passing()), (0, 0));
}

#[test]
fn a_slot_of_what_was_broken_off_cools_until_its_time_is_over() {
    let now = Instant::now();
    for broken in [
        End::Aborted { began: true },
        End::Failed(Failure::Reset),
        End::Failed(Failure::Timeout),
    ] {
        let (mut fleet, id) = one(1, now);
        assert_eq!(fleet.next_due(), None);
        fleet.take(id, 1);
        assert!(!end(&mut fleet, id, broken, now).contains(&Action::Freed));
        assert!(!fleet.take(id, 1), "{broken:?}");
        assert_eq!(fleet.next_due(), Some(now + COOL));
        assert!(fleet.apply(Event::Tick, now + COOL / 2).is_empty());
        assert!(
            fleet
                .apply(Event::Tick, now + COOL)
                .contains(&Action::Freed)
        );
        assert!(fleet.take(id, 1), "{broken:?}");
        assert_eq!(fleet.next_due(), None);
    }
}

#[test]
fn a_failure_that_left_nothing_behind_frees_its_slot_at_once() {
    let now = Instant::now();
    for failure in [Failure::Connect, Failure::Status] {
        let (mut fleet, id) = one(1, now);
        fleet.take(id, 1);
        end(&mut fleet, id, End::Failed(failure), now);
        assert_eq!(used(&fleet, id), 0, "{failure:?}");
    }
}

#[test]
fn a_probe_ends_cooling_only_if_it_began_after_and_says_so() {
    let start = Instant::now();
    let later = start + Duration::from_secs(1);
    let (mut fleet, id) = one(2, start);
    fleet.take(id, 1);
    fleet.take(id, 1);
    end(&mut fleet, id, End::Aborted { began: false }, later);
    let mut probe = |started, busy| {
        fleet.apply(
            Event::Probed {
                endpoint: id,
                started,
                outcome: good(busy),
            },
            later,
        );
        used(&fleet, id)
    };
    assert_eq!(probe(start, Some(0)), 2, "it saw the past");
    assert_eq!(probe(later + COOL / 5, None), 2, "it says nothing");
    assert_eq!(
        probe(later + COOL / 5, Some(2)),
        2,
        "both are still at work"
    );
    assert_eq!(probe(later + COOL / 5, Some(1)), 1, "only ours is");
}

#[test]
fn what_the_kind_stopped_cools_no_longer() {
    let now = Instant::now();
    let (mut fleet, id) = one(1, now);
    fleet.take(id, 1);
    end(&mut fleet, id, End::Aborted { began: false }, now);
    assert_eq!(
        fleet.apply(
            Event::Stopped {
                endpoint: id,
                slots: 1
            },
            now
        ),
        [Action::Freed]
    );
    assert_eq!(
        fleet.apply(
            Event::Stopped {
                endpoint: id,
                slots: 1
            },
            now
        ),
        []
    );
    assert!(fleet.take(id, 1));
}

#[test]
fn a_reload_keeps_what_lives() {
    let now = Instant::now();
    let (mut fleet, id) = one(2, now);
    fleet.take(id, 1);
    let mut facts = spec("a", 5);
    facts.node = Arc::new(NodeFacts {
        vram_mib: 9,
        ..(*facts.node).clone()
    });
    facts.health.interval = Duration::from_secs(99);
    fleet.apply(Event::Plan(vec![facts]), now);
    assert_eq!(fleet.by_name("a/http"), Some(id));
    let endpoint = fleet.get(id).unwrap();
    assert_eq!(
        (
            endpoint.slots(),
            endpoint.at_work(),
            endpoint.state(),
            endpoint.node().vram_mib
        ),
        (5, 1, State::Up, 9)
    );
    // Smaller than what it holds: that may go on, nothing new fits.
    fleet.apply(Event::Plan(vec![spec("a", 1)]), now);
    assert!(!fleet.take(id, 1));
    end(&mut fleet, id, End::Done, now);
    assert!(fleet.take(id, 1));
}

#[test]
fn another_machine_under_the_old_name_is_unproven() {
    let now = Instant::now();
    let (mut fleet, id) = one(1, now);
    let mut moved = spec("a", 1);
    moved.target.port = 81;
    fleet.apply(Event::Plan(vec![moved]), now);
    assert_eq!(fleet.by_name("a/http"), Some(id));
    assert!(!fleet.usable(id) && !fleet.take(id, 1));
}

#[test]
fn who_left_ends_what_it_is_at_and_is_let_go_when_its_time_is_over() {
    let now = Instant::now();
    let (mut fleet, id) = one(1, now);
    fleet.take(id, 1);
    assert!(
        !fleet
            .apply(Event::Plan(vec![]), now)
            .contains(&Action::Gone(id))
    );
    assert_eq!(fleet.get(id).unwrap().state(), State::Leaving);
    assert!(!fleet.take(id, 0));
    let over = now + Duration::from_secs(60);
    assert_eq!(fleet.next_due(), Some(over));
    assert!(
        fleet
            .apply(Event::Tick, over)
            .contains(&Action::Revoke(id, Why::Left))
    );
    assert!(
        !fleet
            .apply(Event::Tick, over)
            .contains(&Action::Revoke(id, Why::Left)),
        "told once"
    );
    assert!(end(&mut fleet, id, End::Failed(Failure::Timeout), over).contains(&Action::Gone(id)));
    assert!(fleet.get(id).is_none() && fleet.by_name("a/http").is_none());
    // The same name later is another endpoint: whoever still holds the old number finds nobody.
    fleet.apply(Event::Plan(vec![spec("a", 1)]), over);
    assert_ne!(fleet.by_name("a/http"), Some(id));
}

#[test]
fn who_left_idle_is_gone_and_who_comes_back_in_time_is_taken_up_again() {
    let now = Instant::now();
    let (mut fleet, id) = one(1, now);
    fleet.take(id, 1);
    fleet.apply(Event::Plan(vec![]), now);
    fleet.apply(Event::Plan(vec![spec("a", 1)]), now);
    assert_eq!(
        (fleet.by_name("a/http"), fleet.get(id).unwrap().state()),
        (Some(id), State::Up)
    );
    end(&mut fleet, id, End::Done, now);
    assert!(
        fleet
            .apply(Event::Plan(vec![]), now)
            .contains(&Action::Gone(id))
    );
}

#[test]
fn a_mark_of_the_file_and_one_of_an_operator_are_two_things() {
    let now = Instant::now();
    let (mut fleet, id) = one(1, now);
    let drained = || Spec {
        drained: true,
        ..spec("a", 1)
    };
    let mark = |fleet: &mut Fleet, on| {
        fleet.apply(
            Event::Drain {
                node: "a".into(),
                on,
            },
            now,
        )
    };
    mark(&mut fleet, true);
    assert!(!fleet.usable(id));
    fleet.apply(Event::Plan(vec![drained()]), now);
    mark(&mut fleet, false);
    assert!(!fleet.usable(id), "the file still says so");
    fleet.apply(Event::Plan(vec![spec("a", 1)]), now);
    assert!(fleet.usable(id));
    // A mark from before the node was known, as after a restart.
    fleet.apply(
        Event::Drain {
            node: "b".into(),
            on: true,
        },
        now,
    );
    fleet.apply(Event::Plan(vec![spec("a", 1), spec("b", 1)]), now);
    let b = fleet.by_name("b/http").unwrap();
    fleet.apply(
        Event::Probed {
            endpoint: b,
            started: now,
            outcome: good(None),
        },
        now,
    );
    assert_eq!(
        (fleet.get(b).unwrap().state(), fleet.usable(b)),
        (State::Draining, false)
    );
}

#[test]
fn one_on_trial_gets_one_request_at_a_time() {
    let mut now = Instant::now();
    let (mut fleet, id) = one(4, now);
    for _ in 0..3 {
        assert!(fleet.take(id, 1));
        end(&mut fleet, id, End::Failed(Failure::Status), now);
    }
    assert_eq!(
        (fleet.get(id).unwrap().state(), fleet.take(id, 1)),
        (State::Ejected, false)
    );
    now = fleet.next_due().unwrap();
    assert!(fleet.apply(Event::Tick, now).contains(&Action::Freed));
    assert!(fleet.take(id, 1) && !fleet.take(id, 1));
    assert!(end(&mut fleet, id, End::Done, now).contains(&Action::Up(id)));
    assert!(fleet.take(id, 1) && fleet.take(id, 1));
}
