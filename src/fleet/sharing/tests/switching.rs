use super::*;

/// Runs a switch from `a` to `b` from where `a` is asked.
fn switch(gpu: &mut Gpu) {
    assert_eq!(gpu.releases(), [gpu.id("a")]);
    gpu.released(gpu.id("a"), Outcome::Freed);
    assert_eq!((gpu.word("a"), gpu.word("b")), ("free", "holds"));
}

#[test]
fn the_order_is_stop_drain_release_prove_grant() {
    let mut gpu = Gpu::of(&[whole(), whole()]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    gpu.probe(b, Some(CARD));
    gpu.want("a", false);
    gpu.probe(b, Some(CARD));
    assert_eq!(gpu.at_work("a"), 1);
    gpu.want("b", true);
    // Stop: `a` has a slot, and gets nothing more.
    assert_eq!(gpu.word("a"), "yields");
    assert!(!gpu.fleet.take(a, 1, gpu.now));
    assert!(gpu.releases().is_empty(), "its work has not ended");
    gpu.end("a");
    assert_eq!(gpu.releases(), [a]);
    let before = gpu.now;
    gpu.released(a, Outcome::Freed);
    assert!(gpu.sees(&Action::Prove(b)));
    assert_eq!(gpu.at_work("b"), 0);
    // A probe that began before saw the past.
    gpu.apply(Event::Probed {
        endpoint: b,
        started: before,
        outcome: Ok(Vitals {
            vram_free_mib: Some(CARD),
            ..Vitals::default()
        }),
    });
    assert_eq!(gpu.at_work("b"), 0);
    gpu.probe(b, Some(CARD / 2));
    assert_eq!(gpu.at_work("b"), 0, "half is still taken");
    gpu.probe(b, Some(CARD / 4 * 3));
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn what_cools_is_still_at_work() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want("b", true);
    gpu.apply(Event::Ended {
        endpoint: gpu.id("a"),
        slots: 1,
        end: End::Aborted { began: true },
        cool_down: SECOND,
    });
    assert!(gpu.releases().is_empty());
    gpu.pass_by_dues(SECOND);
    switch(&mut gpu);
}

#[test]
fn equals_do_not_drive_each_other_out_before_min() {
    for interactive in [false, true] {
        let mut gpu = Gpu::with_a_at_work(interactive);
        gpu.end("a");
        gpu.want("b", interactive);
        gpu.pass_by_dues(HOLD.min - SECOND);
        assert!(gpu.releases().is_empty(), "{interactive}");
        gpu.pass_by_dues(SECOND);
        switch(&mut gpu);
    }
}

#[test]
fn who_is_at_work_goes_on_to_max_and_then_no_further() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want("b", false);
    for _ in 0..29 {
        // Always one at work and the next behind it.
        gpu.pass_by_dues(SECOND * 10);
        assert_eq!(gpu.word("a"), "holds");
        assert!(gpu.fleet.take(gpu.id("a"), 1, gpu.now));
        gpu.end("a");
    }
    gpu.pass_by_dues(SECOND * 10);
    assert_eq!(gpu.word("a"), "yields");
    gpu.end("a");
    switch(&mut gpu);
}

#[test]
fn patience_ends_a_turn_sooner_but_not_before_min() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want_with("b", false, SECOND * 10);
    gpu.pass_by_dues(SECOND * 20);
    assert_eq!(gpu.word("a"), "holds");
    gpu.pass_by_dues(SECOND * 10);
    assert_eq!(gpu.word("a"), "yields");
}

#[test]
fn a_person_does_not_wait_for_batch_but_for_the_job_at_work() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want("b", true);
    assert_eq!(gpu.word("a"), "yields");
    gpu.end("a");
    switch(&mut gpu);
}

#[test]
fn who_has_served_nobody_for_min_is_batch_again() {
    let mut gpu = Gpu::with_a_at_work(true);
    gpu.pass_by_dues(SECOND * 20);
    assert!(gpu.fleet.take(gpu.id("a"), 1, gpu.now));
    gpu.fleet.serves_person(gpu.id("a"), gpu.now);
    gpu.want("b", true);
    gpu.pass_by_dues(HOLD.min - SECOND);
    assert_eq!(gpu.word("a"), "holds");
    gpu.pass_by_dues(SECOND);
    assert_eq!(gpu.word("a"), "yields");
}

#[test]
fn batch_gets_something_done_before_a_person_drives_it_out() {
    let mut gpu = Gpu::with_a_at_work(true);
    gpu.want("b", false);
    gpu.pass_by_dues(HOLD.max);
    gpu.want("a", true);
    gpu.end("a");
    assert_eq!(gpu.releases(), [gpu.id("a")]);
    gpu.released(gpu.id("a"), Outcome::Freed);
    assert_eq!(
        (gpu.at_work("b"), gpu.word("b")),
        (1, "yields"),
        "its one job"
    );
    gpu.end("b");
    assert_eq!(gpu.releases(), [gpu.id("b")]);
    gpu.released(gpu.id("b"), Outcome::Freed);
    assert_eq!(gpu.at_work("a"), 1);
}

#[test]
fn a_switch_is_taken_back_when_nobody_wants_it_any_more() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want("b", true);
    assert_eq!(gpu.word("a"), "yields");
    gpu.leave("b");
    assert_eq!(gpu.word("a"), "holds");
    assert!(gpu.fleet.take(gpu.id("a"), 1, gpu.now));
    assert!(gpu.releases().is_empty());
}

#[test]
fn whoever_was_asked_has_let_go_though_nobody_wants_it_any_more() {
    let mut gpu = Gpu::with_a_at_work(false);
    let a = gpu.id("a");
    gpu.want("b", true);
    gpu.end("a");
    gpu.leave("b");
    gpu.want("a", false);
    assert_eq!(gpu.at_work("a"), 0, "it is being asked");
    gpu.released(a, Outcome::Freed);
    assert_eq!(gpu.at_work("a"), 1);
}

#[test]
fn the_one_that_room_was_made_for_is_next_whoever_waits_longer() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.pass(SECOND);
    gpu.fleet.take(gpu.id("a"), 1, gpu.now);
    gpu.want("a", false);
    gpu.pass(SECOND);
    gpu.want("b", true);
    gpu.end("a");
    gpu.end("a");
    switch(&mut gpu);
    assert_eq!((gpu.at_work("a"), gpu.at_work("b")), (0, 1));
}

#[test]
fn two_who_are_interactive_do_not_keep_a_third_waiting_for_ever() {
    let mut gpu = Gpu::of(&[whole(), whole(), whole()]);
    gpu.want_with("c", false, SECOND * 600);
    let c = gpu.id("c");
    // Somebody waits for `a` and `b` all the time, and each of their jobs takes 10 s.
    gpu.end("c");
    gpu.want("c", false);
    gpu.end("c");
    let started = gpu.now;
    gpu.want("a", true);
    gpu.want("b", true);
    gpu.want("c", false);
    let mut served = 0;
    for _ in 0..200 {
        for id in gpu.releases() {
            gpu.released(id, Outcome::Freed);
        }
        gpu.pass_by_dues(SECOND * 10);
        for name in ["a", "b", "c"] {
            while gpu.at_work(name) > 0 {
                served += u32::from(name == "c");
                gpu.end(name);
            }
            let id = gpu.id(name);
            if !gpu.waiting.contains_key(&id) {
                gpu.want(name, name != "c");
            }
        }
    }
    assert!(served > 2, "{served} in {:?}", gpu.now - started);
    assert!(gpu.waiting.contains_key(&c) || gpu.at_work("c") > 0);
}

#[test]
fn a_switch_is_told_with_whose_it_was_and_how_long_it_took() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want("b", true);
    gpu.pass_by_dues(SECOND * 5);
    gpu.end("a");
    gpu.released(gpu.id("a"), Outcome::Freed);
    let told = Action::Held {
        endpoint: gpu.id("b"),
        from: Some(gpu.id("a")),
        took: SECOND * 5 + Duration::from_millis(1),
    };
    assert!(gpu.sees(&told), "{:?}", gpu.seen);
}
