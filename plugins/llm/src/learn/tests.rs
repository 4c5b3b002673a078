use super::*;
use proptest::prelude::*;

/// A card as it is, which nobody tells.
#[derive(Clone, Copy)]
struct Card {
    name: &'static str,
    reads_per_s: f64,
    base_s: f64,
    d0: f64,
    d1: f64,
    slots: u32,
}

const FAST: Card = Card {
    name: "fast/llm",
    reads_per_s: 20_000.0,
    base_s: 0.02,
    d0: 0.008,
    d1: 0.0002,
    slots: 48,
};
const SLOW: Card = Card {
    name: "slow/llm",
    reads_per_s: 2_500.0,
    base_s: 0.03,
    d0: 0.028,
    d1: 0.002,
    slots: 8,
};

/// The same numbers in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = tabane_api::hash(&self.0.to_le_bytes());
        self.0 % most
    }

    /// A few per cent more or less.
    fn about(&mut self, value: f64) -> f64 {
        value * (0.9 + self.below(201) as f64 / 1000.0)
    }
}

fn runs(learned: &mut Learned, card: Card, count: usize, chance: &mut Chance) {
    for _ in 0..count {
        let prompt = 50 + chance.below(4000);
        let cached = chance.below(prompt);
        let running = chance.below(card.slots.into()) as u32;
        let first_s = card.base_s + (prompt - cached) as f64 / card.reads_per_s;
        let step_s = card.d0 + card.d1 * f64::from(running + 1);
        learned.add(&Sample {
            endpoint: card.name,
            model: "m",
            tenant: "t",
            prompt,
            prompt_bytes: (prompt * 3) as usize,
            cached,
            running,
            first_s: Some(chance.about(first_s)),
            step_s: Some(chance.about(step_s)),
            made: 150 + chance.below(101),
            whole: true,
            ..Sample::default()
        });
    }
}

fn near(got: f64, wants: f64, share: f64) {
    assert!((got - wants).abs() <= wants * share, "{got} for {wants}");
}

const ASKS: Asks = Asks {
    prompt: 3000.0,
    hit: 1000.0,
    out: 200.0,
};

fn idle(slots: u32) -> Load {
    Load {
        slots,
        loaded: true,
        ..Load::default()
    }
}

#[test]
fn what_a_request_costs_is_learned_from_what_went_by() {
    let (mut learned, mut chance) = (Learned::default(), Chance(1));
    runs(&mut learned, FAST, 200, &mut chance);
    runs(&mut learned, SLOW, 200, &mut chance);
    for card in [FAST, SLOW] {
        let cost = learned.estimate(card.name, "m", ASKS, idle(card.slots));
        near(cost.prefill_s, card.base_s + 2000.0 / card.reads_per_s, 0.1);
        near(cost.decode_s, 200.0 * (card.d0 + card.d1), 0.1);
        assert_eq!((cost.wait_s, cost.load_s, cost.measured), (0.0, 0.0, true));
        let busy = Load {
            running: card.slots - 1,
            ahead: 5000.0,
            ..idle(card.slots)
        };
        let cost = learned.estimate(card.name, "m", ASKS, busy);
        near(cost.prefill_s, card.base_s + 7000.0 / card.reads_per_s, 0.1);
        near(
            cost.decode_s,
            200.0 * (card.d0 + card.d1 * f64::from(card.slots)),
            0.1,
        );
    }
    near(learned.out("t", "m", None), 200.0, 0.1);
    near(learned.bytes_per_token("m"), 3.0, 0.02);
    near(learned.tokens("m", 3000), 1000.0, 0.02);
    let (fast, slow) = (
        learned.weight(FAST.name, "m", 48),
        learned.weight(SLOW.name, "m", 8),
    );
    near(
        fast / slow,
        (48.0 / (0.008 + 0.0096)) / (8.0 / (0.028 + 0.016)),
        0.2,
    );
}

#[test]
fn a_fast_card_that_is_full_costs_more_than_a_slow_one_that_is_free() {
    let (mut learned, mut chance) = (Learned::default(), Chance(2));
    runs(&mut learned, FAST, 100, &mut chance);
    runs(&mut learned, SLOW, 100, &mut chance);
    let slow = learned.estimate(SLOW.name, "m", ASKS, idle(8)).total_s();
    let mut load = idle(48);
    assert!(learned.estimate(FAST.name, "m", ASKS, load).total_s() < slow / 2.0);
    load.running = 48;
    load.waiting = 150;
    let full = learned.estimate(FAST.name, "m", ASKS, load);
    let over = Load {
        running: 300,
        ..idle(48)
    };
    let over = learned.estimate(FAST.name, "m", ASKS, over);
    near(over.decode_s, 200.0 * (FAST.d0 + FAST.d1 * 48.0), 0.1);
    assert!(
        full.wait_s > 0.0 && full.total_s() > slow,
        "{full:?} {slow}"
    );
    // Where the prompt was computed before, a slow card may be worth it.
    let long = Asks {
        prompt: 100_000.0,
        hit: 0.0,
        out: 10.0,
    };
    let hit = Asks {
        hit: 99_900.0,
        ..long
    };
    let fast = learned.estimate(FAST.name, "m", long, idle(48)).total_s();
    assert!(learned.estimate(SLOW.name, "m", hit, idle(8)).total_s() < fast);
}

#[test]
fn one_answer_is_enough_to_guess_and_a_stranger_is_guessed_from_others() {
    let mut learned = Learned::default();
    let unknown = learned.estimate("a/llm", "m", ASKS, idle(1));
    assert!(!unknown.measured);
    near(unknown.prefill_s, 1.0, 0.01);
    near(learned.out("t", "m", None), OUT, 0.001);
    learned.add(&Sample {
        endpoint: "a/llm",
        model: "m",
        prompt: 1000,
        first_s: Some(0.1),
        step_s: Some(0.01),
        ..Sample::default()
    });
    let measured = learned.estimate("a/llm", "m", ASKS, idle(1));
    assert!(measured.measured);
    near(measured.prefill_s, 0.2, 0.01);
    for (endpoint, model) in [("a/llm", "other"), ("b/llm", "m")] {
        let guess = learned.estimate(endpoint, model, ASKS, idle(1));
        assert!(!guess.measured);
        near(guess.prefill_s, 0.2, 0.01);
        near(guess.decode_s, measured.decode_s, 0.01);
    }
    near(
        learned.estimate("c/llm", "other", ASKS, idle(1)).prefill_s,
        1.0,
        0.01,
    );
    learned.forget("a/llm");
    assert!(!learned.estimate("a/llm", "m", ASKS, idle(1)).measured);
}

#[test]
fn hiccups_are_let_by_and_what_lasts_is_learned() {
    let (mut learned, mut chance) = (Learned::default(), Chance(3));
    runs(&mut learned, FAST, 100, &mut chance);
    let before = learned.estimate(FAST.name, "m", ASKS, idle(48));
    learned.add(&Sample {
        endpoint: FAST.name,
        model: "m",
        prompt: 2000,
        first_s: Some(300.0),
        step_s: Some(60.0),
        made: 10_000_000,
        whole: true,
        ..Sample::default()
    });
    let after = learned.estimate(FAST.name, "m", ASKS, idle(48));
    assert!(
        after.total_s() < before.total_s() * 1.4,
        "{before:?} {after:?}"
    );
    assert!(learned.out("t", "m", None) < 300.0);
    // Another card in its place.
    let other = Card {
        name: FAST.name,
        ..SLOW
    };
    runs(&mut learned, other, 250, &mut chance);
    let cost = learned.estimate(FAST.name, "m", ASKS, idle(8));
    near(cost.prefill_s, 0.03 + 2000.0 / 2500.0, 0.15);
    near(cost.decode_s, 200.0 * 0.030, 0.15);
}

#[test]
fn loading_is_counted_where_the_model_is_not_in_memory() {
    let (mut learned, mut chance) = (Learned::default(), Chance(4));
    runs(&mut learned, FAST, 50, &mut chance);
    learned.add(&Sample {
        endpoint: FAST.name,
        model: "m",
        prompt: 2000,
        cold: true,
        first_s: Some(12.12),
        ..Sample::default()
    });
    let mut load = idle(48);
    let warm = learned.estimate(FAST.name, "m", ASKS, load);
    load.loaded = false;
    let cold = learned.estimate(FAST.name, "m", ASKS, load);
    near(cold.load_s, 12.0, 0.01);
    assert_eq!(
        (warm.load_s, cold.prefill_s),
        (0.0, warm.prefill_s),
        "it says nothing of reading"
    );
}

#[test]
fn first_tokens_that_had_to_wait_for_others_say_less_or_nothing() {
    let sample = Sample {
        endpoint: "a/llm",
        model: "m",
        prompt: 1000,
        first_s: Some(0.5),
        ..Sample::default()
    };
    let mut learned = Learned::default();
    learned.add(&Sample {
        queued: true,
        first_s: Some(90.0),
        ..sample
    });
    assert!(!learned.estimate("a/llm", "m", ASKS, idle(1)).measured);
    learned.add(&Sample {
        ahead: 4000,
        ..sample
    });
    let cost = learned.estimate("a/llm", "m", ASKS, idle(1));
    near(cost.prefill_s, 0.2, 0.01);
    let mut learned = Learned::default();
    learned.add(&sample);
    learned.add(&Sample {
        prompt: 500,
        ahead: 500,
        first_s: Some(1.0),
        ..sample
    });
    let cost = learned.estimate("a/llm", "m", ASKS, idle(1));
    near(cost.prefill_s, 2.0 * 0.6, 0.02);
}

#[test]
fn answers_that_come_at_once_tell_how_fast_tokens_are_made() {
    let mut learned = Learned::default();
    for made in [50, 100, 200, 400] {
        learned.add(&Sample {
            endpoint: "a/llm",
            model: "m",
            prompt: 200,
            total_s: Some(0.1 + 0.02 * made as f64),
            made,
            ..Sample::default()
        });
    }
    let cost = learned.estimate("a/llm", "m", ASKS, idle(1));
    near(cost.decode_s, 200.0 * 0.02, 0.05);
}

#[test]
fn what_is_made_is_bounded_by_what_was_asked_for_and_learned_for_each_tenant() {
    let mut learned = Learned::default();
    let sample = |tenant, made, whole| Sample {
        endpoint: "a/llm",
        model: "m",
        tenant,
        made,
        whole,
        ..Sample::default()
    };
    for _ in 0..60 {
        learned.add(&sample("talks", 1000, true));
        learned.add(&sample("classifies", 2, true));
        learned.add(&sample("leaves", 1, false));
    }
    assert!(learned.out("talks", "m", None) > 800.0);
    assert!(learned.out("classifies", "m", None) < 40.0);
    assert_eq!(learned.out("talks", "m", Some(16)), 16.0);
    near(learned.out("new", "m", None), 501.0, 0.1);
    assert_eq!(
        learned.out("leaves", "m", None),
        learned.out("new", "m", None)
    );
    assert_eq!(learned.out("talks", "m", Some(0)), 1.0);
}

#[test]
fn it_is_written_down_and_read_again() {
    let (mut learned, mut chance) = (Learned::default(), Chance(5));
    runs(&mut learned, FAST, 20, &mut chance);
    let text = serde_json::to_string(&learned).unwrap();
    let again: Learned = serde_json::from_str(&text).unwrap();
    let cost = |learned: &Learned| learned.estimate(FAST.name, "m", ASKS, idle(48)).total_s();
    near(cost(&again), cost(&learned), 1e-9);
    let older: Learned =
        serde_json::from_str(r#"{"speeds": {"a/llm": {"m": {}}}, "newer": 5}"#).unwrap();
    assert!(!older.estimate("a/llm", "m", ASKS, idle(1)).measured);
}

#[test]
fn it_does_not_grow_with_names_that_are_made_up() {
    let mut learned = Learned::default();
    let names: Vec<String> = (0..PAIRS_MOST + 200).map(|n| format!("n{n}")).collect();
    for name in &names {
        learned.add(&Sample {
            endpoint: name,
            model: name,
            tenant: name,
            prompt: 10,
            prompt_bytes: 40,
            first_s: Some(0.1),
            made: 5,
            whole: true,
            ..Sample::default()
        });
    }
    let sizes = (
        learned.speeds.len(),
        learned.outputs.len(),
        learned.models.len(),
    );
    assert_eq!(sizes, (PAIRS_MOST, PAIRS_MOST, PAIRS_MOST));
    let last = names.last().unwrap();
    assert!(learned.speeds.contains_key(last) && !learned.speeds.contains_key(&names[0]));
}

proptest! {
    #[test]
    fn no_sample_makes_nonsense_of_it(
        samples in proptest::collection::vec(
            (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<f64>(), any::<f64>(), any::<f64>(), any::<u64>()),
            0..20,
        ),
        out in any::<f64>(),
        running in any::<u32>(),
    ) {
        let mut learned = Learned::default();
        for (prompt, cached, ahead, running, first_s, step_s, total_s, made) in samples {
            let seconds = |value: f64| (value.abs() < 1e7).then_some(value);
            learned.add(&Sample {
                endpoint: "a/llm",
                model: "m",
                tenant: "t",
                prompt: prompt >> 20,
                prompt_bytes: prompt as usize,
                cached,
                ahead: ahead >> 20,
                running,
                first_s: seconds(first_s),
                step_s: seconds(step_s),
                total_s: seconds(total_s),
                made,
                whole: true,
                ..Sample::default()
            });
        }
        let asks = Asks { out: if out.abs() < 1e12 { out } else { 1.0 }, ..ASKS };
        let load = Load { running, waiting: running, ..idle(running) };
        let cost = learned.estimate("a/llm", "m", asks, load);
        for part in [cost.wait_s, cost.load_s, cost.prefill_s, cost.decode_s] {
            prop_assert!(part.is_finite() && part >= 0.0, "{cost:?}");
        }
        prop_assert!(learned.out("t", "m", None) >= 1.0);
    }
}

/// `cargo test --release -p tabane-llm what_estimating_costs -- --ignored --nocapture`
#[test]
#[ignore = "prints times"]
fn what_estimating_costs() {
    let (mut learned, mut chance) = (Learned::default(), Chance(6));
    runs(&mut learned, FAST, 20, &mut chance);
    runs(&mut learned, SLOW, 20, &mut chance);
    crate::cost::print("estimate", 0, || {
        learned.estimate(FAST.name, "m", ASKS, idle(48))
    });
    crate::cost::print("estimate of a stranger", 0, || {
        learned.estimate("x/llm", "m", ASKS, idle(48))
    });
    crate::cost::print("add", 0, || runs(&mut learned, FAST, 1, &mut chance));
}
