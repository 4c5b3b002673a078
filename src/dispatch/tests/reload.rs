//! Sequences of reloads among requests, failures, drains and time. `checks.rs` says what has to be true.

use super::book::{Farm, Seen};
use super::drive::on_paused_time;
use super::file::{File, NODES};
use crate::cases::tried;
use crate::fleet::{End, Failure};
use parking_lot::Mutex;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    /// A file that differs from the last in so many things, which the seed draws.
    Reload(u64, usize),
    Drain(usize, bool),
    Probe(usize, bool, Option<u32>),
    /// Of which service, and whether without a slot.
    Ask(usize, bool),
    End(usize, Option<End>),
    GiveUp(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        4 => Just(Some(End::Done)),
        1 => Just(Some(End::Failed(Failure::Connect))),
        1 => Just(Some(End::Failed(Failure::Reset))),
        1 => Just(Some(End::Failed(Failure::Status))),
        1 => Just(Some(End::Aborted { began: true })),
        1 => Just(Some(End::Unused)),
        1 => Just(None),
    ];
    prop_oneof![
        4 => (any::<u64>(), 1..4usize).prop_map(|(seed, changes)| Step::Reload(seed, changes)),
        1 => (0..NODES, any::<bool>()).prop_map(|(node, on)| Step::Drain(node, on)),
        4 => (0..20usize, prop::bool::weighted(0.85), prop::option::of(0..3u32)).prop_map(|(n, good, busy)| Step::Probe(n, good, busy)),
        9 => (0..3usize, prop::bool::weighted(0.2)).prop_map(|(service, free)| Step::Ask(service, free)),
        4 => (0..100usize, end).prop_map(|(nth, end)| Step::End(nth, end)),
        1 => (0..100usize).prop_map(Step::GiveUp),
        4 => prop_oneof![9 => 1..900u64, 1 => 20_000..25_000u64].prop_map(Step::Pass),
    ]
}

async fn walk(steps: Vec<Step>, lets_go: bool) -> Seen {
    let mut farm = Farm::new(File::full()).await;
    for step in steps {
        match step {
            Step::Reload(seed, changes) => {
                let (mut file, mut draw) = (farm.file.clone(), StdRng::seed_from_u64(seed));
                (0..changes).for_each(|_| file.change(&mut draw));
                farm.install(file);
            }
            Step::Drain(node, on) => farm.drain(&format!("n{node}"), on),
            Step::Probe(nth, good, busy) => farm.probe(nth, good, busy),
            Step::Ask(service, false) => farm.ask(&format!("/s{service}")),
            Step::Ask(service, true) => farm.ask(&format!("/s{service}/free")),
            Step::End(nth, end) => farm.end(nth, end),
            Step::GiveUp(nth) => farm.give_up(nth),
            Step::Pass(ms) => farm.pass(Duration::from_millis(ms)).await,
        }
        farm.settle().await;
    }
    match lets_go {
        true => farm.let_go(),
        false => farm.all_is_well().await,
    }
    farm.seen
}

#[test]
fn the_promises_hold_through_any_sequence_of_reloads() {
    let seen = Mutex::new(Seen::default());
    let steps = prop::collection::vec(step(), 1..90);
    tried(150, (steps, any::<bool>()), |(steps, lets_go)| {
        let one = on_paused_time(walk(steps, lets_go));
        let mut all = seen.lock();
        all.granted += one.granted;
        all.granted_late += one.granted_late;
        all.full += one.full;
        all.too_long += one.too_long;
        all.revoked += one.revoked;
        all.moved += one.moved;
        all.kept += one.kept;
    });
    let seen = seen.into_inner();
    let Seen {
        granted,
        granted_late,
        full,
        too_long,
        revoked,
        moved,
        kept,
    } = seen;
    let least = [granted, granted_late, full, too_long, revoked, moved, kept]
        .into_iter()
        .min();
    assert!(least >= Some(10), "{seen:?}");
}
