use super::*;

#[test]
fn at_a_start_all_are_asked_before_anybody_holds() {
    let mut gpu = Gpu::unproven(&[whole(), whole()]);
    assert!(
        gpu.releases().is_empty(),
        "nobody is asked before its first good probe"
    );
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    gpu.up(a);
    gpu.up(b);
    assert_eq!(gpu.releases(), [a, b]);
    gpu.want("a", false);
    gpu.released(a, Outcome::Freed);
    assert_eq!(
        gpu.at_work("a"),
        0,
        "the other may still have its memory there"
    );
    gpu.released(b, Outcome::Freed);
    assert_eq!((gpu.word("a"), gpu.word("b")), ("holds", "free"));
    assert_eq!(gpu.at_work("a"), 1);
}

#[test]
fn work_that_was_taken_up_again_holds_its_card() {
    let mut gpu = Gpu::unproven(&[whole(), whole()]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    assert!(gpu.fleet.occupy(b, 1, gpu.now));
    gpu.up(a);
    gpu.up(b);
    assert_eq!(gpu.releases(), [a], "whoever is at work is not asked");
    assert_eq!(gpu.word("b"), "holds");
    gpu.want("a", false);
    gpu.released(a, Outcome::Freed);
    assert!(!gpu.fleet.take(a, 1, gpu.now));
    assert!(gpu.fleet.take(b, 1, gpu.now), "and it is given more");
}

#[test]
fn who_says_that_it_is_at_work_at_a_start_is_asked_when_it_is_not() {
    let mut gpu = Gpu::unproven(&[whole(), whole()]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    let busy = |busy| Vitals {
        busy: Some(busy),
        ..Vitals::default()
    };
    gpu.says(a, busy(1));
    gpu.up(b);
    assert_eq!(gpu.releases(), [b]);
    gpu.released(b, Outcome::Freed);
    gpu.want("b", true);
    assert_eq!(gpu.at_work("b"), 0);
    assert_eq!(
        gpu.fleet.probe_interval(a),
        HealthPlan::default().interval_down
    );
    gpu.says(a, busy(0));
    assert_eq!(gpu.releases(), [a]);
}

#[test]
fn only_who_holds_is_given_work_that_takes_a_slot() {
    let mut gpu = Gpu::with_a_at_work(false);
    let b = gpu.id("b");
    assert!(!gpu.fleet.take(b, 1, gpu.now));
    assert!(gpu.fleet.take(b, 0, gpu.now), "a page takes no slot");
    let b = gpu.fleet.get(b).unwrap();
    assert!(!b.candidate(1).held && !b.holds_card());
    assert!(gpu.fleet.get(gpu.id("a")).unwrap().candidate(1).held);
}

#[test]
fn who_holds_keeps_the_card_while_nobody_wants_it() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.end("a");
    gpu.pass_by_dues(SECOND * 10_000);
    assert_eq!(gpu.word("a"), "holds");
    assert!(gpu.releases().is_empty());
}

#[test]
fn those_that_fit_together_hold_together_and_a_third_waits_for_room() {
    let mut gpu = Gpu::of(&[part(10_000), part(8_000), part(9_000)]);
    gpu.want("a", false);
    gpu.want("b", false);
    assert_eq!((gpu.at_work("a"), gpu.at_work("b")), (1, 1));
    gpu.want("c", false);
    assert_eq!(gpu.word("c"), "free");
    gpu.end("b");
    gpu.pass_by_dues(HOLD.min);
    // Both have held for long enough, and `b` is idle.
    assert_eq!(gpu.releases(), [gpu.id("b")]);
    gpu.released(gpu.id("b"), Outcome::Freed);
    assert_eq!((gpu.at_work("a"), gpu.at_work("c")), (1, 1));
    assert_eq!(gpu.word("a"), "holds", "and is not disturbed");
}

#[test]
fn who_claims_nothing_under_fits_claims_all() {
    let unsaid = Claim {
        vram_mib: None,
        ..part(0)
    };
    let mut gpu = Gpu::of(&[part(1_000), unsaid]);
    gpu.want("a", false);
    gpu.want("b", false);
    assert_eq!((gpu.at_work("a"), gpu.at_work("b")), (1, 0));
}

#[test]
fn a_node_that_is_not_shared_minds_nobody() {
    let mut gpu = Gpu::unproven(&[]);
    gpu.plan(vec![spec("a", None), spec("b", None)]);
    for id in gpu.ids() {
        gpu.up(id);
        assert!(gpu.fleet.take(id, 1, gpu.now));
    }
    assert!(gpu.releases().is_empty() && !gpu.fleet.shares());
}
