//! What a file that is good comes to mean.

use super::fakes::{no_env, registry};
use crate::config::plan::{Anonymous, HostPattern, Plan, PricePlan, Priority, ScalePlan};
use crate::config::{Loaded, load_text};
use std::time::Duration;
use tabane_api::Urgency;

fn loaded(text: &str) -> Loaded {
    match load_text("t.yaml", text, &registry(), &no_env) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}", told(&problems)),
    }
}

fn plan(text: &str) -> Plan {
    loaded(text).plan
}

fn told(problems: &[crate::config::Problem]) -> String {
    problems.iter().map(|p| format!("{p}\n")).collect()
}

fn problems(text: &str) -> String {
    match load_text("t.yaml", text, &registry(), &no_env) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => told(&problems),
    }
}

const SHORTEST: &str = "services: {any: {pool: [http://gpu1:8188, http://gpu2:8188]}}\n";

#[test]
fn the_shortest_file_serves_everything_on_loopback() {
    let loaded = loaded(SHORTEST);
    let plan = &loaded.plan;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(plan.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(
        plan.admin.as_ref().unwrap().address.to_string(),
        "127.0.0.1:9900"
    );
    assert_eq!(&*plan.nodes[1].facts.name, "gpu2:8188");
    assert_eq!(&*plan.endpoints[1].name, "gpu2:8188/http");
    assert_eq!(plan.endpoints[1].probed_by, Some(0));
    assert_eq!(&*plan.routes[0].path, "/");
    assert_eq!(plan.services[0].kind.name(), "http");
    assert_eq!(plan.services[0].policy.name(), "least_loaded");
    assert_eq!(plan.anonymous, Anonymous::Loopback);
    assert_eq!(plan.hash.len(), 64);
}

#[test]
fn short_forms_mean_what_their_long_forms_say() {
    let short = plan(
        "listen: [\":8188\"]\nadmin: off\ntenants: {a: 12345678}\n\
         nodes: {n: {gpu: 4090, url: 'http://h:1', slots: 2}, m: {endpoints: {x: 'http://h:2/'}}}\n\
         pools: {p: [n, m/x]}\n\
         services: {s: {kind: http, pool: p, retry: off, body: stream, priority: header, routes: [/v1]}}",
    );
    let long = plan(
        "listen: [{address: 0.0.0.0:8188}]\nadmin: false\ntenants: {a: {keys: ['12345678']}}\n\
         nodes:\n  n: {gpu: {model: 4090}, endpoints: {http: {url: 'http://h:1', slots: 2}}}\n  m: {endpoints: {x: {url: 'HTTP://H:2'}}}\n\
         pools: {p: [{endpoint: n/http, weight: 1}, {endpoint: m}]}\n\
         services: {s: {kind: {http: {}}, pool: p, retry: {attempts: 1}, body: stream, priority: header, routes: [{path: /v1}]}}",
    );
    assert_eq!(
        crate::config::diff(&short, &long).to_string(),
        "nothing changed"
    );
    assert!(short.admin.is_none());
    assert_eq!(short.services[0].priority, Priority::Header);
    assert!(short.routes[0].options.stream && short.services[0].body.stream);
    assert_eq!(short.services[0].retry.attempts, 1);
}

#[test]
fn what_is_said_of_placement_reaches_the_plan() {
    let said = plan(
        "tenants: {t: {key: '12345678', max_waiting: 0, max_at_work: 2}, u: '87654321'}\n\
         nodes: {n: {price_per_hour: 1, endpoints: {x: {url: 'http://h:1', models: [a, b, a], max_size: 2.5}, y: {url: 'http://h:2', models: a}}}}\n\
         services:\n  s:\n    pool: [n/x, n/y]\n    interactive: true\n    patience: 5s\n\
         \x20   price: {seconds_per_usd: 600, spill_after: 30s, usd_per_hour: 5, usd_per_job: 0.5}\n\
         \x20   scale: {drain_in: 2m, min: 1, max: 20}\n\
         \x20   routes: [/, {path: /batch, interactive: false}]\n",
    );
    let models = |i: usize| said.endpoints[i].models.as_deref().unwrap().join(" ");
    assert_eq!((models(0), models(1)), ("a b".into(), "a".into()));
    assert_eq!(said.endpoints[0].max_size, Some(2.5));
    let bounds = |i: usize| (said.tenants[i].max_waiting, said.tenants[i].max_at_work);
    assert_eq!((bounds(0), bounds(1)), ((Some(0), Some(2)), (None, None)));
    let service = &said.services[0];
    assert!(service.interactive);
    assert_eq!(service.patience, Duration::from_secs(5));
    let price = PricePlan {
        seconds_per_usd: 600.0,
        spill_after: Duration::from_secs(30),
        usd_per_hour: Some(5.0),
        usd_per_job: Some(0.5),
    };
    assert_eq!(service.price, price);
    let scale = ScalePlan {
        drain_in: Duration::from_secs(120),
        min: 1,
        max: 20,
    };
    assert_eq!(service.scale, scale);
    let of_routes: Vec<_> = said.routes.iter().map(|r| r.options.interactive).collect();
    assert_eq!(of_routes, [Some(false), None]);
}

#[test]
fn what_is_not_said_of_placement_has_its_usual_value() {
    let usual = plan(SHORTEST);
    let service = &usual.services[0];
    assert!(!service.interactive && usual.endpoints[0].models.is_none());
    assert_eq!(service.patience, Duration::from_secs(600));
    assert_eq!((service.price, service.scale), Default::default());
    // Whoever has endless patience has more than any request may wait.
    let patient = plan("services: {s: {pool: ['http://g:1'], patience: none}}");
    assert!(patient.services[0].patience > Duration::from_secs(300 * 24 * 3600));
    // The most that are wanted are at least the fewest.
    let large = plan("services: {s: {pool: ['http://g:1'], scale: {min: 200}}}");
    assert_eq!(large.services[0].scale.max, 200);
}

#[test]
fn a_url_in_two_pools_is_one_node() {
    let plan = plan(
        "services:\n  a: {pool: ['http://g:1'], routes: [/a]}\n  b: {pool: [{url: 'http://g:1', weight: 2, slots: 3}], routes: [/b]}\n",
    );
    assert_eq!(plan.nodes.len(), 1);
    assert_eq!(plan.endpoints[0].slots, 3);
    assert_eq!(plan.pools[1].members[0].weight, 2);
}

#[test]
fn variables_stand_for_numbers_switches_and_anything_else() {
    let env = |name: &str| (name == "SLOTS").then(|| "7".to_owned());
    let text = "nodes: {n: {url: 'http://h:1', slots: \"${SLOTS}\", drained: \"${NONE:-true}\"}}\n\
                services: {s: {pool: [n], queue: {max: \"${MAX:-5}\", max_wait: \"${W:-9}s\"}}}";
    let loaded = load_text("t.yaml", text, &registry(), &env).unwrap();
    assert_eq!(loaded.plan.endpoints[0].slots, 7);
    assert!(loaded.plan.nodes[0].drained);
    assert_eq!(loaded.plan.services[0].queue.max, 5);
    assert_eq!(
        loaded.plan.services[0].queue.max_wait,
        Duration::from_secs(9)
    );
    // Another value is another plan, though the file is the same.
    let other =
        load_text("t.yaml", text, &registry(), &|_| Some("8".to_owned())).map(|l| l.plan.hash);
    assert_ne!(other.unwrap_or_default(), loaded.plan.hash);
}

#[test]
fn routes_are_sorted_from_special_to_general() {
    let plan = plan(
        "services:\n  a: {pool: ['http://g:1'], routes: [/, /v1, {path: /, host: '*.example.com'}, {path: /, host: A.example.com, priority: 1, slots: 0, retry: unsafe}]}\n",
    );
    let shown: Vec<String> = plan
        .routes
        .iter()
        .map(|r| match &r.host {
            Some(HostPattern::Exact(h)) => format!("{h}{}", r.path),
            Some(HostPattern::Suffix(h)) => format!("*{h}{}", r.path),
            None => r.path.to_string(),
        })
        .collect();
    assert_eq!(shown, ["a.example.com/", "*.example.com/", "/v1", "/"]);
    let options = plan.routes[0].options;
    assert_eq!(options.slots, Some(0));
    assert_eq!(options.priority, Some(Priority::Fixed(Urgency::new(1))));
    assert_eq!(options.repeat_unsafe, Some(true));
}

#[test]
fn no_problem_shows_a_secret() {
    let env = |_: &str| Some("TOPSECRET9".to_owned());
    let text = "tenants:\n  a: hunter2\n  b: {key: \"${K}\", weight: \"${K}\"}\n  c: \"${K}\"\n  d: {key: {x: 1}}\n\
                nodes: {n: {url: 'http://me:hunter2@h:1', slots: \"${K}\", drained: \"${K}\"}}\nservices: {s: {pool: [n], queue: {max_wait: \"${K}\"}}}";
    let problems = load_text("t.yaml", text, &registry(), &env)
        .map(|_| ())
        .unwrap_err();
    let shown = told(&problems);
    assert!(problems.len() >= 6, "{shown}");
    assert!(
        !shown.contains("TOPSECRET9") && !shown.contains("hunter2"),
        "{shown}"
    );
    let plan = plan("tenants: {a: 12345678}\nservices: {s: {pool: ['http://h:1']}}");
    assert!(!format!("{plan:?}").contains("12345678"));
}

#[test]
fn at_most_fifty_problems_are_told_and_the_rest_counted() {
    let text: String = (0..2000).map(|i| format!("k{i}: 1\n")).collect();
    let problems = load_text("t.yaml", &text, &registry(), &no_env)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(problems.len(), 51);
    assert!(problems[50].what.ends_with("more"), "{}", problems[50]);
    assert!(problems[50].what.contains("1950"), "{}", problems[50]);
}

#[test]
fn what_cannot_be_a_file_is_told_at_its_place() {
    let check = |text: &str, expected: &str| {
        let shown = problems(text);
        assert!(shown.contains(expected), "{text:?}: {shown}");
    };
    check("", "t.yaml:1:1: the file is empty");
    check("# nothing\n", "t.yaml:1:1: the file is empty");
    check("~", "t.yaml:1:1: the file is empty");
    check("- a\n", "t.yaml:1:1: expected a map");
    check("word", "t.yaml:1:1: expected a map");
    check(
        "services: {}\n---\na: 1\n",
        "t.yaml:2:1: a second document begins here",
    );
    check("services: {}\n", "`services` is missing");
    check("services:\n\tany: 1\n", "indent with spaces");
    check("services: !x {}\n", "tags");
    check("? [a, b]\n: 1\n", "a key must be plain text");
    check(
        "services: {any: {pool: [http://a:1]}, any: {pool: []}}\n",
        "t.yaml:1:39: services.any: the key `any` stands here twice; the first is on line 1",
    );
    let bom = plan("\u{feff}services: {any: {pool: ['http://a:1']}}\r\nlisten:\r\n  - :1\r\n");
    assert_eq!(bom.listeners[0].address.port(), 1);
}

#[test]
fn a_default_that_the_registry_lacks_is_a_problem() {
    let problems = load_text(
        "t.yaml",
        SHORTEST,
        &tabane_api::Registry::default(),
        &no_env,
    );
    let shown = told(&problems.map(|_| ()).unwrap_err());
    assert_eq!(
        shown,
        "t.yaml:1:12: services.any.kind: there is no kind `http`; none is known here\n\
         t.yaml:1:12: services.any.policy: there is no policy `least_loaded`; none is known here\n"
    );
}

#[test]
fn what_is_unreachable_by_mistake_is_told_and_what_is_only_one_is_not() {
    let lost = |text: &str| {
        let warnings = loaded(text).warnings;
        warnings
            .iter()
            .filter(|w| w.what.contains("nobody can reach"))
            .count()
    };
    assert_eq!(lost(SHORTEST), 0);
    let two = "services: {a: {pool: ['http://a:1']}, b: {pool: ['http://a:1'], routes: [/]}}\n";
    assert_eq!(lost(two), 1);
    assert_eq!(
        lost(&format!(
            "{two}listen: [{{address: ':0', service: a}}, ':0']\n"
        )),
        0
    );
    // Its routes count only where no service has the whole port.
    assert_eq!(
        lost(&format!("{two}listen: [{{address: ':0', service: a}}]\n")),
        1
    );
}
