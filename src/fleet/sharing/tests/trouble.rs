use super::*;

/// `a` has ended and was asked to let go for `b`.
fn asked() -> Gpu {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.want("b", true);
    gpu.end("a");
    assert_eq!(gpu.releases(), [gpu.id("a")]);
    gpu
}

#[test]
fn a_release_that_failed_is_tried_again_and_nobody_gets_the_card_before() {
    let mut gpu = asked();
    let a = gpu.id("a");
    gpu.released(a, Outcome::Failed);
    assert_eq!((gpu.word("a"), gpu.at_work("b")), ("not_released", 0));
    assert!(gpu.releases().is_empty(), "not at once");
    gpu.pass_by_dues(SECOND);
    assert_eq!(gpu.releases(), [a]);
    gpu.released(a, Outcome::Failed);
    gpu.pass_by_dues(SECOND * 2);
    assert_eq!(gpu.releases(), [a]);
    gpu.released(a, Outcome::Freed);
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn whoever_held_and_never_lets_go_is_not_kept_idle_for_it() {
    let mut gpu = asked();
    let a = gpu.id("a");
    gpu.want("a", false);
    for _ in 0..3 {
        assert_eq!(gpu.at_work("a"), 0);
        gpu.released(a, Outcome::Failed);
        gpu.pass_by_dues(SECOND * 30);
    }
    assert_eq!((gpu.at_work("a"), gpu.at_work("b")), (1, 0));
    // The other still waits, and it is asked again when its work has ended.
    gpu.seen.clear();
    gpu.end("a");
    assert_eq!(gpu.releases(), [a]);
}

#[test]
fn one_that_cannot_let_go_takes_turns() {
    let mut gpu = asked();
    let a = gpu.id("a");
    gpu.released(a, Outcome::Unsupported);
    assert_eq!((gpu.word("a"), gpu.at_work("b")), ("stays", 1));
    // And comes back without a proof: what is taken may be its own.
    gpu.end("b");
    gpu.want("a", false);
    gpu.pass_by_dues(HOLD.min);
    assert_eq!(gpu.releases(), [gpu.id("b")]);
    gpu.released(gpu.id("b"), Outcome::Freed);
    gpu.probe(a, Some(0));
    assert_eq!(gpu.at_work("a"), 1);
}

#[test]
fn memory_that_is_never_freed_stays_counted() {
    let of = |vram_mib| Claim {
        vram_mib: Some(vram_mib),
        ..whole()
    };
    for (b, fits) in [(8_000, true), (9_000, false)] {
        let mut gpu = Gpu::of(&[of(16_000), of(b)]);
        gpu.want("a", false);
        gpu.want("b", true);
        gpu.end("a");
        let a = gpu.id("a");
        gpu.seen.clear();
        gpu.released(a, Outcome::Unsupported);
        assert_eq!(gpu.at_work("b") == 1, fits, "{b}");
        let told = Action::NoRoom(gpu.id("b"));
        let times = gpu.seen.iter().filter(|action| **action == told).count();
        assert_eq!(times, usize::from(!fits), "said once");
        if !fits {
            gpu.want("a", false);
            assert_eq!(gpu.at_work("a"), 1, "the one that is there works on");
        }
    }
}

#[test]
fn under_fits_what_cannot_let_go_is_never_asked_to_make_room() {
    let mut gpu = Gpu::unasked(&[part(16_000), part(16_000)]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    gpu.released(a, Outcome::Unsupported);
    gpu.released(b, Outcome::Freed);
    gpu.want("a", false);
    gpu.want("b", true);
    assert_eq!((gpu.at_work("a"), gpu.at_work("b")), (1, 0));
    gpu.seen.clear();
    gpu.end("a");
    gpu.pass_by_dues(HOLD.max);
    assert_eq!((gpu.word("a"), gpu.at_work("b")), ("holds", 0));
    assert!(gpu.releases().is_empty());
}

#[test]
fn a_server_that_is_not_there_has_nothing_on_the_card() {
    let mut gpu = Gpu::unproven(&[whole(), whole()]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    gpu.up(a);
    gpu.released(a, Outcome::Freed);
    gpu.down(b);
    gpu.seen.clear();
    gpu.want("a", false);
    assert_eq!(gpu.releases(), [b], "it is asked all the same");
    gpu.released(b, Outcome::Absent);
    assert_eq!(gpu.at_work("a"), 1);
    // It is started, and may have loaded something.
    gpu.up(b);
    assert_eq!(gpu.releases(), [b]);
}

#[test]
fn one_that_answers_probes_and_no_call_to_let_go_has_not_let_go() {
    let mut gpu = asked();
    gpu.released(gpu.id("a"), Outcome::Absent);
    assert_eq!((gpu.word("a"), gpu.at_work("b")), ("not_released", 0));
}

#[test]
fn a_holder_that_went_down_is_not_waited_for() {
    let mut gpu = Gpu::with_a_at_work(false);
    gpu.end("a");
    gpu.want("b", false);
    let a = gpu.id("a");
    gpu.down(a);
    assert_eq!(gpu.releases(), [a]);
    gpu.released(a, Outcome::Absent);
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn memory_that_does_not_come_free_has_all_asked_once_more() {
    let mut gpu = Gpu::of(&[whole(), whole()]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    gpu.want("a", false);
    gpu.probe(b, Some(0));
    gpu.want("b", true);
    gpu.end("a");
    gpu.seen.clear();
    gpu.released(a, Outcome::Freed);
    for _ in 0..35 {
        gpu.pass_by_dues(SECOND);
        gpu.probe(b, Some(2_000));
    }
    assert!(gpu.seen.contains(&Action::Unproven(b)));
    assert_eq!(gpu.releases(), [a, b]);
    gpu.released(a, Outcome::Freed);
    gpu.released(b, Outcome::Freed);
    gpu.probe(b, Some(CARD));
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn where_the_newcomer_cannot_say_what_is_free_another_of_the_card_can() {
    let mut gpu = Gpu::of(&[whole(), whole()]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    gpu.probe(a, Some(CARD));
    gpu.want("a", false);
    gpu.probe(a, Some(CARD));
    gpu.want("b", true);
    gpu.end("a");
    gpu.released(a, Outcome::Freed);
    gpu.up(b);
    assert_eq!(gpu.at_work("b"), 0);
    assert!(gpu.sees(&Action::Prove(a)));
    gpu.probe(a, Some(CARD));
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn turned_on_with_both_at_work_nobody_gets_more_until_one_has_let_go() {
    let mut gpu = Gpu::unproven(&[]);
    gpu.plan(vec![spec("a", None), spec("b", None)]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    for id in [a, b] {
        gpu.up(id);
        assert!(gpu.fleet.take(id, 1, gpu.now));
    }
    gpu.plan(vec![spec("a", Some(whole())), spec("b", Some(whole()))]);
    for id in [a, b] {
        assert!(!gpu.fleet.take(id, 1, gpu.now));
    }
    gpu.end("a");
    assert_eq!(gpu.releases(), [a]);
    assert!(!gpu.fleet.take(b, 1, gpu.now), "its memory is still there");
    gpu.released(a, Outcome::Freed);
    assert!(gpu.fleet.take(b, 1, gpu.now));
    assert!(!gpu.fleet.take(a, 1, gpu.now));
}

#[test]
fn turned_off_everybody_works() {
    let mut gpu = asked();
    gpu.plan(vec![spec("a", None), spec("b", None)]);
    let (a, b) = (gpu.id("a"), gpu.id("b"));
    assert!(gpu.fleet.take(a, 1, gpu.now) && gpu.fleet.take(b, 1, gpu.now));
    gpu.released(a, Outcome::Freed);
}

#[test]
fn one_that_leaves_lets_go_before_it_is_forgotten() {
    let mut gpu = Gpu::with_a_at_work(false);
    let a = gpu.id("a");
    gpu.want("b", true);
    gpu.plan(vec![spec("b", Some(whole()))]);
    assert!(gpu.releases().is_empty());
    gpu.end("a");
    assert_eq!(gpu.releases(), [a]);
    assert!(gpu.fleet.get(a).is_some());
    gpu.released(a, Outcome::Freed);
    assert!(gpu.fleet.get(a).is_none());
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn one_that_leaves_and_does_not_let_go_is_not_waited_for_for_ever() {
    let mut gpu = Gpu::with_a_at_work(false);
    let a = gpu.id("a");
    gpu.want("b", true);
    gpu.plan(vec![spec("b", Some(whole()))]);
    gpu.end("a");
    for _ in 0..3 {
        assert!(gpu.fleet.get(a).is_some());
        gpu.pass_by_dues(SECOND * 30);
        gpu.released(a, Outcome::Failed);
    }
    assert!(gpu.fleet.get(a).is_none());
    assert_eq!(gpu.at_work("b"), 1);
}

#[test]
fn one_that_moved_is_asked_at_its_new_place() {
    let mut gpu = Gpu::with_a_at_work(false);
    let b = gpu.id("b");
    let mut moved = spec("b", Some(whole()));
    moved.target.port = 81;
    gpu.plan(vec![spec("a", Some(whole())), moved]);
    assert_eq!(gpu.word("b"), "unknown");
    gpu.up(b);
    assert_eq!(gpu.releases(), [b]);
}
