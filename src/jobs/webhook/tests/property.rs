//! Whatever receivers do: order is kept, and nothing is lost.

use super::fakes::{Scene, answered};
use crate::cases::tried;
use crate::jobs::webhook::Outcome;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const TWO_HOURS: i64 = 7_200_000;

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(answered(200)),
        2 => Just(answered(500)),
        1 => Just(answered(302)),
        1 => Just(answered(429)),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Failed("cannot connect".into())),
    ]
}

#[test]
fn whatever_fails_letters_about_a_job_keep_their_order_and_none_is_lost() {
    // A letter: which job it is about, to which host, and how long after the one before it.
    let letters = prop::collection::vec((0..4_usize, 0..3_usize, 0..TWO_HOURS), 1..24);
    let outcomes = prop::collection::vec(outcome(), 1..40);
    tried(200, (letters, outcomes), |(letters, outcomes)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(one_case(letters, outcomes));
    });
}

async fn one_case(letters: Vec<(usize, usize, i64)>, outcomes: Vec<Outcome>) {
    let tries = AtomicUsize::new(0);
    let scene = Scene::new(move |_| {
        let at = tries.fetch_add(1, Ordering::Relaxed);
        outcomes[at % outcomes.len()].clone()
    });
    for (n, (job, host, after)) in letters.iter().enumerate() {
        scene.pass_ms(*after);
        let url = format!("https://h{host}.example/");
        scene.write(&format!("{n:02}"), &format!("job{job}"), &url);
        scene.run_out().await;
    }
    // A letter has ten tries, and those about one job wait for each other.
    let mut turns = 0;
    while let Some(due) = scene.outbox.next_due() {
        scene.pass_ms((due.0 - scene.now().0).max(0));
        scene.run_out().await;
        turns += 1;
        assert!(turns <= 10 * letters.len(), "a letter waits for ever");
    }
    // Seen by the receiver: of each job, ids never go back.
    let mut newest: BTreeMap<usize, String> = BTreeMap::new();
    for id in scene.ids() {
        let (job, ..) = letters[id.parse::<usize>().unwrap()];
        let before = newest.insert(job, id.clone()).unwrap_or_default();
        assert!(before <= id, "{id} after {before}");
    }
    let ids = scene.ids();
    for letter in scene.outbox.all() {
        let id = &letter.letter.id;
        if letter.delivered.is_some() {
            assert!(ids.contains(id), "{id} was never sent");
        } else {
            assert_eq!(letter.tries, 10, "{id} was given up early");
        }
    }
}
