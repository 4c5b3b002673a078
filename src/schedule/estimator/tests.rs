use super::*;
use crate::cases;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn class(name: &str) -> ClassKey {
    ClassKey {
        service: "s".into(),
        class: name.into(),
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Learns a run of size 1, and one more of it at once, so that the second is warm.
fn ran(estimator: &mut Estimator, name: &str, endpoint: &str, took_s: f64) {
    for cold in [true, false] {
        estimator.learn(&class(name), endpoint, 1.0, seconds(took_s), cold);
    }
}

fn warm_s(estimator: &mut Estimator, name: &str, endpoint: &str) -> Option<f64> {
    let estimate = estimator.estimate(&class(name), endpoint, 1.0)?;
    Some((estimate.warm_s * 1e6).round() / 1e6)
}

#[test]
fn it_converges_to_the_truth_under_noise() {
    let truth = (0.5f64..20.0, 0.0f64..60.0, any::<u64>());
    cases::tried(60, truth, |(unit_s, cold_s, seed)| {
        let (mut estimator, mut draw) = (Estimator::default(), StdRng::seed_from_u64(seed));
        for run in 0..600 {
            // Now and then something else runs in between.
            let cold = run % 20 == 0;
            let size = 1.0 + (draw.next_u64() % 8) as f64;
            let noise = 0.9 + 0.2 * (draw.next_u64() as f64 / u64::MAX as f64);
            let extra_s = if cold { cold_s } else { 0.0 };
            let took_s = unit_s * size * noise + extra_s;
            estimator.learn(&class("a"), "n/x", size, seconds(took_s), cold);
        }
        let estimate = estimator.estimate(&class("a"), "n/x", 4.0).unwrap();
        let off = estimate.warm_s / (unit_s * 4.0) - 1.0;
        assert!(off.abs() < 0.05, "warm is off by {off}");
        let off_s = estimate.cold_s - cold_s;
        assert!(off_s.abs() < 0.4 * unit_s, "cold is off by {off_s} s");
        // Evenly spread over 20 %: the standard deviation is 20 % / √12.
        let sd = estimate.sd_s / estimate.warm_s;
        assert!((0.02..0.12).contains(&sd), "{sd}");
        assert_eq!((estimate.runs, estimate.prior), (600, false));
    });
}

#[test]
fn getting_ready_is_told_from_the_work_itself() {
    let mut estimator = Estimator::default();
    for (took_s, cold) in [(30.0, true), (10.0, false), (40.0, true), (10.0, false)] {
        estimator.learn(&class("a"), "n/x", 1.0, seconds(took_s), cold);
    }
    let estimate = estimator.estimate(&class("a"), "n/x", 1.0).unwrap();
    assert_eq!((estimate.warm_s, estimate.cold_s), (10.0, 25.0));
    assert_eq!(estimate.span(true).mean_s(), 35.0);
}

#[test]
fn what_never_ran_is_guessed_from_what_is_nearest() {
    let mut estimator = Estimator::default();
    assert_eq!(warm_s(&mut estimator, "a", "n/x"), None);
    estimator.weigh([("n/x".into(), 1), ("n/y".into(), 4)]);
    ran(&mut estimator, "a", "n/x", 8.0);
    // Another class of the service, elsewhere: by weights.
    assert_eq!(warm_s(&mut estimator, "b", "n/x"), Some(8.0));
    assert_eq!(warm_s(&mut estimator, "b", "n/y"), Some(2.0));
    // The class itself, elsewhere: by weights.
    assert_eq!(warm_s(&mut estimator, "a", "n/y"), Some(2.0));
    // Once two classes ran on both, by how they compare: 2 and 8 times as fast, so 4.
    for (name, on_x, on_y) in [("b", 10.0, 5.0), ("c", 16.0, 2.0)] {
        ran(&mut estimator, name, "n/x", on_x);
        ran(&mut estimator, name, "n/y", on_y);
    }
    ran(&mut estimator, "a", "n/x", 12.0);
    let on_x = warm_s(&mut estimator, "a", "n/x").unwrap();
    let on_y = warm_s(&mut estimator, "a", "n/y").unwrap();
    assert!((on_y - on_x / 4.0).abs() < 1e-5, "{on_x} {on_y}");
    let guess = estimator.estimate(&class("a"), "n/y", 1.0).unwrap();
    assert!(
        guess.prior && guess.runs == 0 && guess.sd_s > 0.0,
        "{guess:?}"
    );
    // Another service's classes say nothing about this one's.
    let other = ClassKey {
        service: "t".into(),
        class: "a".into(),
    };
    assert_eq!(estimator.estimate(&other, "n/x", 1.0), None);
    // What ran counts, and nothing else, from the first run on.
    estimator.learn(&class("a"), "n/y", 1.0, seconds(99.0), true);
    let cold = estimator.estimate(&class("a"), "n/y", 1.0).unwrap();
    assert_eq!(cold.span(true).mean_s(), 99.0);
}

#[test]
fn where_every_run_was_cold_a_warm_one_is_hoped_to_be_shorter() {
    let mut estimator = Estimator::default();
    for _ in 0..3 {
        estimator.learn(&class("a"), "n/x", 1.0, seconds(10.0), true);
    }
    let hoped = estimator.estimate(&class("a"), "n/x", 1.0).unwrap();
    assert_eq!((hoped.warm_s, hoped.cold_s), (8.0, 2.0));
    // One that was warm says how it is.
    ran(&mut estimator, "a", "n/x", 10.0);
    let known = estimator.estimate(&class("a"), "n/x", 1.0).unwrap();
    assert_eq!((known.warm_s, known.cold_s), (10.0, 0.0));
}

#[test]
fn what_is_long_not_measured_on_an_endpoint_is_known_to_be() {
    let mut estimator = Estimator::default();
    estimator.learn(&class("a"), "x", 1.0, seconds(1.0), false);
    for _ in 0..7 {
        estimator.learn(&class("a"), "y", 1.0, seconds(1.0), false);
        estimator.learn(&class("b"), "x", 1.0, seconds(1.0), false);
    }
    let (x, y, z) = (
        estimator.number("x"),
        estimator.number("y"),
        estimator.number("z"),
    );
    estimator.refresh();
    let row = estimator.row(&class("a"));
    assert_eq!((row.stale(x), row.stale(y), row.stale(z)), (7, 0, 8));
}

#[test]
fn a_backlog_divided_by_all_slots_is_the_time_in_which_it_is_worked_off() {
    let mut estimator = Estimator::default();
    ran(&mut estimator, "a", "fast", 10.0);
    ran(&mut estimator, "a", "slow", 40.0);
    let pool = [("fast", 1), ("slow", 2)];
    let pool = pool.map(|(name, slots)| (estimator.number(name), slots));
    let expected = estimator.expected(&class("a"), 1.0, pool).unwrap();
    // In 40 s, fast does four of them and each slot of slow one.
    let worked_off_s = 6.0 * expected.mean_s() / 3.0;
    assert!((worked_off_s - 40.0).abs() < 1e-9, "{worked_off_s}");
    assert!(expected.sd_s() > 0.0);
    assert_eq!(estimator.expected(&class("a"), 1.0, []), None);
    let fast = estimator.number("fast");
    assert_eq!(estimator.expected(&class("a"), 1.0, [(fast, 0)]), None);
}

#[test]
fn what_is_exported_is_taken_up_as_it_was() {
    let run = (0usize..6, 0usize..5, 0.1f64..9.0, 0.1f64..900.0);
    cases::tried(100, proptest::collection::vec(run, 0..60), |runs| {
        let (mut first, mut second) = (Estimator::default(), Estimator::default());
        let name = |class: usize| format!("class {class}");
        let endpoint = |endpoint: usize| format!("n{endpoint}/x");
        let mut kept = HashMap::new();
        for (i, (of, on, size, took_s)) in runs.iter().enumerate() {
            let took = seconds(*took_s);
            first.learn(&class(&name(*of)), &endpoint(*on), *size, took, i % 3 == 0);
            // As the store does it: what changed, now and then, over what was there.
            if i % 5 == 0 {
                let changed = first.changed_since_export();
                assert!(changed.len() <= 5, "only what changed");
                kept.extend(changed.into_iter().map(|time| (time.key, time.value)));
            }
        }
        let changed = first.changed_since_export();
        kept.extend(changed.into_iter().map(|time| (time.key, time.value)));
        assert_eq!(first.changed_since_export(), []);
        let kept = kept
            .into_iter()
            .map(|(key, value)| LearnedTime { key, value });
        assert_eq!(second.import(kept), 0);
        assert_eq!(second.export().len(), first.export().len());
        for (of, on) in (0..6).flat_map(|of| (0..5).map(move |on| (of, on))) {
            let (class, endpoint) = (class(&name(of)), endpoint(on));
            let before = first.estimate(&class, &endpoint, 3.0);
            let after = second.estimate(&class, &endpoint, 3.0);
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
            match (before, after) {
                (None, None) => {}
                (Some(a), Some(b)) => assert!(
                    close(a.warm_s, b.warm_s)
                        && close(a.sd_s, b.sd_s)
                        && close(a.cold_s, b.cold_s)
                        && (a.runs, a.prior) == (b.runs, b.prior),
                    "{a:?} {b:?}"
                ),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn what_cannot_have_been_learned_is_not_taken_up() {
    let mut estimator = Estimator::default();
    let key = || ("s".to_owned(), "a".to_owned(), "n/x".to_owned());
    let sound =
        r#"{"runs":1,"warm_s":2.0,"variance_s2":0.0,"colds":0,"cold_s":0.0,"cold_size":0.0}"#;
    for value in [
        "",
        "{}",
        "[1]",
        &sound.replace("2.0", "-2.0"),
        &sound.replace("2.0", "0.0"),
        &sound.replace("2.0", "1e999"),
        &sound.replace("\"runs\":1", "\"runs\":0"),
        &sound.replace("\"colds\":0", "\"colds\":3"),
    ] {
        let value = value.to_owned();
        let time = LearnedTime { key: key(), value };
        assert_eq!(estimator.import([time.clone()]), 1, "{time:?}");
        assert_eq!(warm_s(&mut estimator, "a", "n/x"), None);
    }
    let value = sound.to_owned();
    let key = key();
    assert_eq!(estimator.import([LearnedTime { key, value }]), 0);
    assert_eq!(warm_s(&mut estimator, "a", "n/x"), Some(2.0));
}

#[test]
fn no_size_and_no_time_makes_an_estimate_that_is_none() {
    let odd = || {
        prop_oneof![
            Just(0.0),
            Just(-1.0),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(1e300),
            Just(5e-324),
            0.001f64..1e9,
        ]
    };
    let took = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0u64..1_000_000).prop_map(Duration::from_millis),
    ];
    let run = (0usize..4, 0usize..3, odd(), took);
    let runs = proptest::collection::vec(run, 1..30);
    cases::tried(300, (runs, odd()), |(runs, size)| {
        let mut estimator = Estimator::default();
        let (classes, endpoints) = (["a", "b", "c", "d"], ["x", "y", "z"]);
        for (of, on, size, took) in runs {
            estimator.learn(&class(classes[of]), endpoints[on], size, took, on == of);
        }
        let whole = |s: f64| s.is_finite() && s >= 0.0;
        for (name, endpoint) in classes.iter().flat_map(|c| endpoints.map(|e| (c, e))) {
            // Something ran, so there is at least a guess.
            let estimate = estimator.estimate(&class(name), endpoint, size).unwrap();
            assert!(
                whole(estimate.warm_s) && whole(estimate.sd_s) && whole(estimate.cold_s),
                "{estimate:?}"
            );
            let number = estimator.number(endpoint);
            let expected = estimator.expected(&class(name), size, [(number, 3)]);
            let expected = expected.unwrap();
            assert!(whole(expected.mean_s()) && whole(expected.sd_s()));
        }
        let mut again = Estimator::default();
        assert_eq!(again.import(estimator.export()), 0, "all of it is sound");
    });
}

#[test]
fn what_learned_longest_ago_is_forgotten_beyond_the_bound() {
    let mut estimator = Estimator::bounded(3);
    for (name, endpoint) in [("a", "x"), ("b", "x"), ("c", "y"), ("a", "x"), ("d", "z")] {
        estimator.learn(&class(name), endpoint, 1.0, seconds(1.0), true);
    }
    let keys = |times: Vec<LearnedTime>| -> Vec<String> {
        times.into_iter().map(|time| time.key.1).collect()
    };
    assert_eq!(keys(estimator.export()), ["c", "a", "d"]);
    assert_eq!(keys(estimator.changed_since_export()), ["a", "c", "d"]);
    for i in 0..10_000 {
        let name = format!("class {i}");
        let endpoint = format!("n{}/x", i % 700);
        estimator.learn(&class(&name), &endpoint, 1.0, seconds(1.0), true);
        estimator.estimate(&class(&format!("never {i}")), &endpoint, 1.0);
    }
    let kept = [
        estimator.classes.len(),
        estimator.by_age.len(),
        estimator.changed.len(),
    ];
    assert!(kept.iter().all(|len| *len <= 3), "{kept:?}");
    estimator.weigh([]);
    assert!(estimator.names.len() <= 3);
    assert_eq!(estimator.names.len(), estimator.numbers.len());
}
