use super::*;
use crate::learn::Sample;
use crate::testing::{chat, knowing, llm};
use std::time::Instant;
use tabane_api::{NodeFacts, Service, hash};

fn candidate<'a>(n: u32, name: &'a str, facts: &'a NodeFacts) -> Candidate<'a> {
    Candidate {
        id: EndpointId(n),
        name,
        hash: hash(name.as_bytes()),
        weight: 1,
        slots: 8,
        used: 0,
        passing: 0,
        held: true,
        terms: Terms::default(),
        node: facts,
    }
}

fn measured(kind: &Llm, endpoint: &str, reads_per_s: f64, step_s: f64) {
    for _ in 0..20 {
        let sample = Sample {
            endpoint,
            model: "m",
            tenant: "t",
            prompt: 1000,
            prompt_bytes: 4000,
            first_s: Some(1000.0 / reads_per_s),
            step_s: Some(step_s),
            made: 100,
            whole: true,
            ..Sample::default()
        };
        kind.desk.learned.write().add(&sample);
    }
}

fn total(kind: &Llm, need: &Need, at: &Candidate<'_>) -> f64 {
    terms(kind, need, at, &Vitals::default(), Terms::default()).total_s()
}

#[test]
fn a_prompt_stays_where_it_was_read_until_another_is_over_sooner_all_the_same() {
    let (kind, facts, now) = (llm("{}"), NodeFacts::default(), Instant::now());
    let (slow, fast) = (
        candidate(1, "slow/llm", &facts),
        candidate(2, "fast/llm", &facts),
    );
    measured(&kind, "slow/llm", 2000.0, 0.02);
    measured(&kind, "fast/llm", 4000.0, 0.018);
    let long = chat(&kind, "m", &"a long talk ".repeat(2000));
    let (at_slow, at_fast) = (total(&kind, &long, &slow), total(&kind, &long, &fast));
    assert!(at_fast < at_slow, "{at_fast} {at_slow}");
    kind.granted(&long, EndpointId(1), now);
    let there = kind.desk.farm.known(EndpointId(1), "slow/llm");
    there.heard(long.own.get().unwrap(), true, now);
    kind.released(&long, EndpointId(1), now);
    let (at_slow, at_fast) = (total(&kind, &long, &slow), total(&kind, &long, &fast));
    assert!(at_slow < at_fast, "{at_slow} {at_fast}");
    // Not where so much is to be read before it that reading it again is over first.
    for n in 0..3 {
        let other = chat(&kind, "m", &format!("{n} another talk ").repeat(2000));
        kind.granted(&other, EndpointId(1), now);
    }
    assert!(total(&kind, &long, &slow) > at_fast);
}

#[test]
fn what_is_still_to_be_read_there_is_waited_for() {
    let (kind, facts, now) = (llm("{}"), NodeFacts::default(), Instant::now());
    let at = candidate(1, "a/llm", &facts);
    measured(&kind, "a/llm", 1000.0, 0.02);
    let (long, short) = (
        chat(&kind, "m", &"x".repeat(40_000)),
        chat(&kind, "m", "hi"),
    );
    let before = total(&kind, &short, &at);
    kind.granted(&long, EndpointId(1), now);
    let behind = total(&kind, &short, &at);
    assert!(
        (9.0..12.0).contains(&(behind - before)),
        "{before} {behind}"
    );
    let node = kind.desk.farm.known(EndpointId(1), "a/llm");
    node.heard(long.own.get().unwrap(), true, now);
    assert!(total(&kind, &short, &at) - before < 0.1);
}

#[test]
fn where_no_speed_is_known_sessions_are_spread_and_stay() {
    let (kind, facts) = (llm("{}"), NodeFacts::default());
    let names = ["a/llm", "b/llm", "c/llm"];
    let all: Vec<Candidate<'_>> = (0..3)
        .map(|n| candidate(n as u32, names[n], &facts))
        .collect();
    let session = |user: &str| {
        let body = format!(r#"{{"model":"m","user":"{user}","messages":[]}}"#);
        crate::testing::choices(&kind, "POST /v1/chat/completions", &body)
            .remove(0)
            .need
    };
    let home = |user: &str| {
        let need = session(user);
        let costs = all.iter().map(|at| total(&kind, &need, at));
        let least = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        least.map(|(n, _)| n).unwrap()
    };
    let mut counts = [0; 3];
    for n in 0..90 {
        let user = format!("user {n}");
        assert_eq!(home(&user), home(&user));
        counts[home(&user)] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 15), "{counts:?}");
    // It decides nothing beside what is known.
    let need = session("user 1");
    let busy = Candidate {
        used: 1,
        ..all[home("user 1")]
    };
    assert!(
        all.iter()
            .any(|at| total(&kind, &need, at) < total(&kind, &need, &busy))
    );
}

#[test]
fn a_model_in_memory_is_worth_waiting_for() {
    let kind = knowing("{}", &[("a/llm", &["m"])]);
    let facts = NodeFacts::default();
    let at = candidate(1, "a/llm", &facts);
    let need = chat(&kind, "m", "hi");
    let cost = |loaded: Option<Vec<String>>| {
        let vitals = Vitals {
            loaded,
            ..Vitals::default()
        };
        let learned = Terms {
            load_s: 3.0,
            ..Terms::default()
        };
        terms(&kind, &need, &at, &vitals, learned).load_s
    };
    assert_eq!(cost(Some(vec!["m".into()])), 0.0);
    assert!(cost(Some(vec!["n".into()])) > 5.0);
    assert_eq!(cost(None), 3.0, "the gateway knows what it sent there");
}

#[test]
fn what_is_no_text_costs_what_the_gateway_measured() {
    let (kind, facts) = (llm("{}"), NodeFacts::default());
    let body = r#"{"model":"m","prompt":"a cat"}"#;
    let need = crate::testing::choices(&kind, "POST /v1/images/generations", body)
        .remove(0)
        .need;
    let learned = Terms {
        run_s: 7.0,
        ..Terms::default()
    };
    let at = candidate(1, "a/llm", &facts);
    assert_eq!(
        terms(&kind, &need, &at, &Vitals::default(), learned),
        learned
    );
}

#[test]
#[ignore = "prints times"]
fn what_weighing_costs() {
    let (kind, facts) = (llm("{}"), NodeFacts::default());
    let at = candidate(1, "a/llm", &facts);
    measured(&kind, "a/llm", 1000.0, 0.02);
    for kb in [0, 16, 256] {
        let need = chat(&kind, "m", &"x".repeat(kb << 10));
        let vitals = Vitals::default();
        crate::cost::print(&format!("terms, {kb} KB"), 0, || {
            terms(&kind, &need, &at, &vitals, Terms::default())
        });
        crate::cost::print(&format!("lacks, {kb} KB"), 0, || lacks(&kind, &need, at.id));
    }
    for kb in [0, 16] {
        let text = "x".repeat(kb << 10);
        crate::cost::print(&format!("classify, {kb} KB"), kb << 10, || {
            chat(&kind, "m", &text)
        });
    }
}
