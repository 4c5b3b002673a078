use super::*;
use crate::schedule::register;
use tabane_api::Registry;

const POOL8: &str = include_str!("../../benches/data/pool8.yaml");

fn pool8(policy: &str) -> Setup {
    let table = Table::read(POOL8).unwrap();
    Setup::of_table(&table, &register(Registry::default()), policy).unwrap()
}

fn seeded(seed: u64) -> Options {
    Options {
        seed,
        ..Options::default()
    }
}

fn simulated(setup: &Setup, trace: &Trace, changes: &[Change], seed: u64) -> (Outcome, Report) {
    let outcome = Farm::run(setup, trace, changes, seeded(seed)).unwrap();
    let report = Report::of(setup, trace, &outcome, 0);
    (outcome, report)
}

fn never_more_than_slots(setup: &Setup, outcome: &Outcome) {
    for (endpoint, most) in setup.plan.endpoints.iter().zip(&outcome.most_at_work) {
        assert!(*most <= endpoint.slots, "{}: {most}", endpoint.name);
    }
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_another() {
    let setup = pool8("match");
    let drawn = |seed| Trace::draw(Shape::Bursts(0.8), &setup, 600, seed).unwrap();
    let report = |seed| simulated(&setup, &drawn(seed), &[], seed).1;
    assert_eq!(report(1), report(1));
    assert_ne!(report(1), report(2));
}

#[test]
fn a_node_that_is_lost_loses_no_job_and_doubles_none() {
    for policy in ["round_robin", "least_loaded", "match"] {
        let setup = pool8(policy);
        let trace = Trace::draw(Shape::Poisson(0.8), &setup, 1500, 3).unwrap();
        let lost = |node: &str, at_s: f64| Change {
            at_s,
            node: node.into(),
            what: What::Lost,
        };
        let half_s = trace.last_s() / 2.0;
        let changes = [lost("h100-1", half_s), lost("rtx4060ti-2", half_s + 0.5)];
        let (outcome, report) = simulated(&setup, &trace, &changes, 3);
        assert_eq!(
            (report.lost, report.doubled, report.refused),
            (0, 0, 0),
            "{policy}"
        );
        assert_eq!(report.wait.count, 1500);
        never_more_than_slots(&setup, &outcome);
        let again = outcome.runs.iter().filter(|run| run.attempts > 1).count();
        assert!(again >= 1, "{policy}: what was at work there ran elsewhere");
        let gone = setup.endpoint("h100-1").unwrap();
        let late = |run: &&Run| run.endpoint == gone && run.end_s.unwrap() > half_s;
        assert_eq!(outcome.runs.iter().filter(late).count(), 0, "{policy}");
    }
}

#[test]
fn a_node_that_is_added_gets_work_from_then_on() {
    let mut setup = pool8("match");
    setup.add("new", "rtx4090-1").unwrap();
    let trace = Trace::draw(Shape::Poisson(0.8), &setup, 1000, 1).unwrap();
    let at_s = trace.last_s() / 2.0;
    let change = Change {
        at_s,
        node: "new".into(),
        what: What::Added,
    };
    let (outcome, report) = simulated(&setup, &trace, &[change], 1);
    assert_eq!((report.lost, report.doubled), (0, 0));
    let new = setup.endpoint("new").unwrap();
    let there: Vec<&Run> = outcome
        .runs
        .iter()
        .filter(|run| run.endpoint == new && run.ended == 1)
        .collect();
    assert!(there.len() > 20, "{}", there.len());
    assert!(there.iter().all(|run| run.begin_s >= at_s));
}

#[test]
fn a_plain_balancer_makes_people_wait_on_a_mixed_pool_as_long_as_was_measured_elsewhere() {
    let setup = pool8("least_loaded");
    let trace = Trace::draw(Shape::Poisson(0.7), &setup, 6000, 1).unwrap();
    let outcome = Farm::run(&setup, &trace, &[], seeded(1)).unwrap();
    never_more_than_slots(&setup, &outcome);
    let report = Report::of(&setup, &trace, &outcome, 1000);
    assert!(
        (100.0..500.0).contains(&report.latency.mean),
        "{:?}",
        report.latency
    );
    assert!(
        (400.0..1500.0).contains(&report.latency.p95),
        "{:?}",
        report.latency
    );
    assert!((0.2..0.4).contains(&report.loads_per_job));
    assert_eq!((report.lost, report.doubled, report.refused), (0, 0, 0));
}

#[test]
fn the_bound_of_the_mixed_pool_is_where_another_search_finds_it() {
    // The least over all prices of classes, found by nested golden sections in another language.
    let setup = pool8("least_loaded");
    let bound = bound(&setup.supply(), &setup.shares()).unwrap();
    assert!((bound.per_s - 0.300_899_088).abs() < 1e-6, "{bound:?}");
    assert!((bound.best_s - 13.8).abs() < 1e-9, "{bound:?}");
}

#[test]
fn one_job_after_another_takes_its_time_and_loads_its_model_once() {
    let setup = pool8("least_loaded");
    let setup = [
        "h100-1",
        "a6000-1",
        "a6000-2",
        "rtx4090-1",
        "rtx4090-2",
        "rtx4060ti-1",
        "rtx4060ti-2",
    ]
    .iter()
    .fold(setup, |setup, node| setup.without(node).unwrap());
    let small = setup.class(0, "small").unwrap();
    let arrivals = (0..3).map(|i| Arrival {
        at_s: f64::from(i) * 20.0,
        class: small,
        size: 2.0,
        luck: 1.5,
        tenant: "t".into(),
        urgency: tabane_api::Urgency::default(),
        interactive: false,
        held: false,
    });
    let trace = Trace {
        arrivals: arrivals.collect(),
    };
    let (outcome, report) = simulated(&setup, &trace, &[], 1);
    let ends: Vec<f64> = outcome.runs.iter().map(|run| run.end_s.unwrap()).collect();
    // 11 s a piece, twice the size, half as long again; and 6 s until its model is loaded.
    assert_eq!(ends, [39.0, 72.0, 105.0]);
    assert_eq!(
        outcome.runs.iter().map(|run| run.loads).collect::<Vec<_>>(),
        [1, 0, 0]
    );
    assert_eq!(report.nodes.len(), 1);
    assert!((report.nodes[0].used - 1.0).abs() < 1e-9);
    assert_eq!(report.wait.max, 32.0);
}

#[test]
fn one_who_holds_a_connection_is_refused_or_leaves_and_a_job_is_not() {
    let mut setup = pool8("least_loaded");
    setup.plan.services[0].queue.max = 5;
    setup.plan.services[0].queue.max_wait = std::time::Duration::from_secs(1);
    let mut trace = Trace::draw(Shape::Batch, &setup, 40, 1).unwrap();
    let all_run = simulated(&setup, &trace, &[], 1).1;
    assert_eq!((all_run.refused, all_run.wait.count), (0, 40));
    for arrival in &mut trace.arrivals {
        arrival.held = true;
    }
    let (outcome, report) = simulated(&setup, &trace, &[], 1);
    let why = |what: &str| {
        let refused = outcome.runs.iter().filter_map(|run| run.refused.as_ref());
        refused.filter(|why| why.contains(what)).count()
    };
    assert_eq!(report.refused, 32, "eight nodes, one job each");
    assert_eq!(why("waited too long"), 5);
    assert_eq!((report.lost, report.wait.count), (0, 8));
}

#[test]
fn what_was_seen_is_taken_for_true() {
    let setup = pool8("match");
    let line = |at_s: u32, class: &str, node: &str, seconds: u32| {
        format!(
            r#"{{"at_s": {at_s}, "class": "{class}", "node": "{node}", "seconds": {seconds}, "cold": false}}"#
        )
    };
    let text = [
        line(0, "a", "h100-1", 10),
        line(1, "a", "a6000-1", 30),
        line(2, "b", "h100-1", 20),
        line(3, "a", "h100-1", 30),
    ];
    let recorded = Recorded::read(&text.join("\n")).unwrap();
    let mut known = Known::default();
    known.learn(&recorded, &setup).unwrap();
    let setup = known.into_setup(setup).unwrap();
    let cost = |class: &str, node: &str| {
        let class = &setup.classes[setup.class(0, class).unwrap()];
        class.costs[setup.endpoint(node).unwrap()].unwrap().run_s
    };
    assert_eq!(cost("a", "h100-1"), 20.0);
    assert_eq!(cost("a", "a6000-1"), 30.0);
    let guess = cost("b", "a6000-1");
    assert!(
        (20.0..60.0).contains(&guess),
        "as much slower as with the other class: {guess}"
    );
    let trace = recorded.trace(&setup).unwrap();
    let luck: Vec<f64> = trace.arrivals.iter().map(|arrival| arrival.luck).collect();
    assert_eq!(luck, [0.5, 1.0, 1.0, 1.5]);
    let unknown = Recorded::read(r#"{"at_s": 0, "class": "c"}"#).unwrap();
    let said = unknown.trace(&setup).unwrap_err();
    assert_eq!(said, "line 1: nothing is known of how long `c` takes");
}

#[test]
fn a_bad_table_says_what_is_wrong() {
    for (from, to, what) in [
        (
            "nodes: [h100,",
            "nodes: [h200,",
            "nodes: `h200` is not one of `gpus`",
        ),
        ("share: 0.50", "share: -1", "classes.small: share"),
        (
            "h100: 3, ",
            "h200: 3, ",
            "classes.small: `h200` is not one of `gpus`",
        ),
        (
            "h100: 3, ",
            "h100: 0, ",
            "classes.small.run.h100: has to be above 0",
        ),
        ("cv: 0.5", "cw: 0.5", "unknown field `cw`"),
    ] {
        let text = POOL8
            .replace("  h100:", " h100:")
            .replace("{h100: 3,   a", "{h100: 3, a");
        let bad = text.replacen(from, to, 1);
        assert_ne!(text, bad, "{from}");
        let said = Table::read(&bad).unwrap_err();
        assert!(said.contains(what), "{said}");
    }
    let said = policy(&register(Registry::default()), "fastets")
        .err()
        .unwrap();
    assert!(
        said.contains("there is no `fastets`; there are least_loaded"),
        "{said}"
    );
}

#[test]
fn a_node_that_is_left_out_gets_nothing_and_costs_nothing() {
    let setup = pool8("match").without("a6000-1").unwrap();
    let trace = Trace::draw(Shape::Batch, &setup, 100, 1).unwrap();
    let (outcome, report) = simulated(&setup, &trace, &[], 1);
    let left_out = setup.endpoint("a6000-1").unwrap();
    assert_eq!(outcome.most_at_work[left_out], 0);
    assert_eq!(report.nodes.len(), 7);
    assert_eq!(report.lost, 0);
}
