//! What a file says of jobs, of letters about them, and of web pages.

use super::fakes::{no_env, registry};
use crate::config::plan::{JobsMode, JobsPlan, OnDisconnect, OnUnknown, Plan, Priority};
use crate::config::{Loaded, diff, load_text};
use std::time::Duration;
use tabane_api::Urgency;

fn loaded(text: &str) -> Loaded {
    match load_text("t.yaml", text, &registry(), &no_env) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems:#?}"),
    }
}

fn plan(text: &str) -> Plan {
    loaded(text).plan
}

/// The plan of a file with one service, which says `more`.
fn service(top: &str, more: &str) -> Plan {
    plan(&format!(
        "{top}\nservices: {{s: {{pool: ['http://g:1'], routes: [/], {more}}}}}\n"
    ))
}

const KEPT: &str = "data_dir: ./data";

#[test]
fn jobs_are_taken_from_those_who_ask_where_there_is_a_place_and_nowhere_else() {
    assert_eq!(service(KEPT, "").services[0].jobs, JobsPlan::default());
    assert_eq!(service(KEPT, "").services[0].jobs.mode, JobsMode::OptIn);
    let without = loaded("services: {s: {pool: ['http://g:1']}}\n");
    assert_eq!(without.plan.services[0].jobs.mode, JobsMode::Off);
    assert!(without.warnings.is_empty(), "{:?}", without.warnings);
    // Who says more of jobs than that there are none probably wants some.
    let vain = loaded("services: {s: {pool: ['http://g:1'], jobs: {max: 10}}}\n");
    assert_eq!(vain.plan.services[0].jobs.mode, JobsMode::Off);
    assert_eq!(vain.warnings.len(), 1);
    assert_eq!(
        vain.warnings[0].to_string(),
        "t.yaml:1:44: services.s.jobs: no jobs are taken, since there is no place to keep them; \
         add `data_dir: ./data`, on a local disk"
    );
    let off = loaded("services: {s: {pool: ['http://g:1'], jobs: {mode: off, max: 10}}}\n");
    assert!(off.warnings.is_empty(), "{:?}", off.warnings);
}

#[test]
fn a_word_of_jobs_means_its_mode() {
    for (word, mode) in [
        ("off", JobsMode::Off),
        ("false", JobsMode::Off),
        ("opt-in", JobsMode::OptIn),
        ("always", JobsMode::Always),
    ] {
        let short = service(KEPT, &format!("jobs: {word}"));
        assert_eq!(short.services[0].jobs.mode, mode, "{word}");
        assert_eq!(short.services[0].jobs.attempts, 3);
    }
    // Somebody who turns jobs on does not want all requests to become some.
    let text = "data_dir: ./d\nservices: {s: {pool: ['http://g:1'], jobs: true}}\n";
    assert!(load_text("t.yaml", text, &registry(), &no_env).is_err());
}

#[test]
fn every_key_of_jobs_arrives() {
    let plan = service(
        KEPT,
        "jobs: {mode: always, max: 50, max_per_tenant: 5, priority: 6, priority_cap: 2, attempts: 7, \
         backoff: [0, 3s], timeout: 1h, retry_on_timeout: true, start_by: 2h, keep: 3h, keep_dead: 4h, \
         on_unknown: resubmit, on_disconnect: cancel}",
    );
    const HOUR: Duration = Duration::from_secs(3600);
    let expected = JobsPlan {
        mode: JobsMode::Always,
        max: 50,
        max_per_tenant: 5,
        priority: Some(Priority::Fixed(Urgency::new(6))),
        priority_cap: Urgency::new(2),
        attempts: 7,
        backoff: vec![Duration::ZERO, Duration::from_secs(3)],
        timeout: HOUR,
        retry_on_timeout: true,
        start_by: Some(2 * HOUR),
        keep: 3 * HOUR,
        keep_dead: 4 * HOUR,
        on_unknown: OnUnknown::Resubmit,
        on_disconnect: OnDisconnect::Cancel,
    };
    assert_eq!(plan.services[0].jobs, expected);
    // Nobody may have more jobs than there may be, unless that is said of one alone.
    let fewer = service(KEPT, "jobs: {max: 50, start_by: none}");
    assert_eq!(fewer.services[0].jobs.max_per_tenant, 50);
    assert_eq!(fewer.services[0].jobs.start_by, None);
}

#[test]
fn a_route_says_of_jobs_what_counts_in_place_of_its_service() {
    let plan = plan(
        "data_dir: ./d\nservices: {s: {pool: ['http://g:1'], jobs: off, routes: [/, {path: /render, jobs: always}]}}\n",
    );
    assert_eq!(plan.services[0].jobs.mode, JobsMode::Off);
    let modes = plan.routes.iter().map(|r| (&*r.path, r.options.jobs));
    assert_eq!(
        modes.collect::<Vec<_>>(),
        [("/render", Some(JobsMode::Always)), ("/", None)]
    );
}

#[test]
fn the_gateways_own_addresses_have_no_slash_at_their_ends() {
    for (typed, kept) in [
        ("https://gpu.studio.example", "https://gpu.studio.example"),
        ("https://gpu.studio.example/", "https://gpu.studio.example"),
        ("http://[fd7a::1]:8080/a/b//", "http://[fd7a::1]:8080/a/b"),
    ] {
        let plan = service(&format!("public_url: '{typed}'"), "");
        assert_eq!(plan.public_url.as_deref(), Some(kept));
    }
    let plan = service("nodes_reach_us_at: http://10.0.0.1:8080/", "");
    assert_eq!(
        plan.nodes_reach_us_at.as_deref(),
        Some("http://10.0.0.1:8080")
    );
    assert_eq!(plan.public_url, None);
}

#[test]
fn origins_are_kept_as_browsers_send_them() {
    let origins = |more: &str| {
        let cors = service("", more).services[0].cors.clone();
        (cors.origins.join(" "), cors.any)
    };
    for more in [
        "cors: {origins: ['https://Studio.example:443', 'http://localhost:3000', 'app://obsidian.md']}",
        "cors: ['https://Studio.example:443', 'http://localhost:3000', 'app://obsidian.md']",
    ] {
        let all = "https://studio.example http://localhost:3000 app://obsidian.md";
        assert_eq!(origins(more), (all.to_owned(), false), "{more}");
    }
    let one = ("https://studio.example".to_owned(), false);
    assert_eq!(origins("cors: 'https://studio.example'"), one);
    assert_eq!(origins("cors: {origins: 'https://studio.example'}"), one);
    assert_eq!(origins("cors: '*'"), (String::new(), true));
    assert_eq!(origins("cors: []"), (String::new(), false));
}

#[test]
fn no_problem_shows_a_secret_of_letters_or_a_password() {
    let text = "public_url: 'http://me:hunter2@h'\nnodes_reach_us_at: 'me:hun/hunter2@h'\n\
                webhooks: {secret: whsec_hunter2}\nservices: {s: {pool: [{url: 'me:hunter2@h'}]}}\n";
    let Err(problems) = load_text("t.yaml", text, &registry(), &no_env) else {
        panic!("accepted");
    };
    let shown = format!("{problems:?}");
    assert_eq!(problems.len(), 4, "{shown}");
    assert!(!shown.contains("hun"), "{shown}");
    let good = "webhooks: {secret: whsec_bmV3IHNlY3JldCBvZiB0aGVzZSB0ZXN0cw==}";
    let plan = service(good, "");
    assert_eq!(plan.webhooks.secrets.len(), 1);
    assert!(!format!("{plan:?}").contains("bmV3"));
}

/// What a reload of a service or of the whole changes, for each key: the text before, after, and what the diff says.
#[test]
fn a_change_of_what_is_said_of_jobs_is_in_the_diff() {
    let mode = "jobs: {mode: opt-in}";
    for more in [
        "jobs: always",
        "jobs: {max: 9}",
        "jobs: {max_per_tenant: 9}",
        "jobs: {priority: 1}",
        "jobs: {priority_cap: 1}",
        "jobs: {attempts: 9}",
        "jobs: {backoff: [9s]}",
        "jobs: {timeout: 9s}",
        "jobs: {retry_on_timeout: true}",
        "jobs: {start_by: 9s}",
        "jobs: {keep: 9s}",
        "jobs: {keep_dead: 9s}",
        "jobs: {on_unknown: resubmit}",
        "jobs: {on_disconnect: cancel}",
        "cors: '*'",
        "cors: 'https://studio.example'",
    ] {
        let diff = diff(&service(KEPT, mode), &service(KEPT, more));
        assert_eq!(diff.to_string(), "services ~s", "{more}");
    }
    for (path, top) in [
        ("public_url", "public_url: http://a"),
        ("nodes_reach_us_at", "nodes_reach_us_at: http://a"),
        ("webhooks.allow", "webhooks: {allow: a.example}"),
        (
            "webhooks.secret",
            "webhooks: {secret: whsec_bmV3IHNlY3JldCBvZiB0aGVzZSB0ZXN0cw==}",
        ),
        ("limits.job_bytes", "limits: {job_bytes: 1GiB}"),
        ("limits.database_bytes", "limits: {database_bytes: 1GiB}"),
    ] {
        let diff = diff(&service("", ""), &service(top, ""));
        assert_eq!(diff.to_string(), path);
        assert!(diff.needs_restart.is_empty(), "{path}");
    }
    let route = |jobs: &str| {
        plan(&format!(
            "{KEPT}\nservices: {{s: {{pool: ['http://g:1'], routes: [{{path: /, jobs: {jobs}}}]}}}}\n"
        ))
    };
    assert_eq!(
        diff(&route("off"), &route("always")).to_string(),
        "services ~s"
    );
}
