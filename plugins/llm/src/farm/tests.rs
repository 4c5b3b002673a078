use super::*;
use crate::testing::{chat, llm};
use tabane_api::Need;

const MODEL: &str = "m";

fn call(need: &Need) -> &Call {
    need.own.get().unwrap()
}

#[test]
fn what_is_still_to_be_read_is_what_no_token_came_of() {
    let (kind, farm, now) = (llm("{}"), Farm::default(), Instant::now());
    let node = farm.known(EndpointId(1), "a/llm");
    let learned = Learned::default();
    let (one, two) = (
        chat(&kind, MODEL, &"x".repeat(4000)),
        chat(&kind, MODEL, "hi"),
    );
    node.begins(call(&one), &learned, now);
    node.begins(call(&two), &learned, now);
    let load = || node.load(None, 0, 4.0, now).0;
    let tokens = call(&one).tokens as u64 as f64 + call(&two).tokens as u64 as f64;
    assert_eq!((load().running, load().ahead), (2, tokens));
    assert_eq!(
        call(&two).placed.lock().as_ref().unwrap().ahead,
        call(&one).tokens as u64
    );
    node.heard(call(&one), true, now);
    assert_eq!(load().ahead, call(&two).tokens as u64 as f64);
    node.ends(Some(call(&one)));
    node.ends(Some(call(&two)));
    assert_eq!((load().running, load().ahead), (0, 0.0));
    // One more than began changes nothing.
    node.ends(Some(call(&two)));
    node.ends(None);
    assert_eq!(load().running, 0);
}

#[test]
fn what_was_read_is_remembered_until_its_engine_starts_anew() {
    let (kind, farm, now) = (llm("{}"), Farm::default(), Instant::now());
    let node = farm.known(EndpointId(1), "a/llm");
    let need = chat(&kind, MODEL, &"a long talk ".repeat(1000));
    let hit = || node.load(Some(call(&need)), 0, 4.0, now).1;
    let told = |started: Option<f64>, counted: Option<f64>| {
        let facts = Facts {
            started_s: started,
            counted,
            ..Facts::default()
        };
        node.told(facts, &Prefix::default(), now)
    };
    for (first, second, restarted) in [
        ((Some(100.0), Some(5.0)), (Some(100.0), Some(9.0)), false),
        ((Some(100.0), None), (Some(200.0), None), true),
        ((None, Some(50.0)), (None, Some(3.0)), true),
        ((None, None), (None, None), false),
    ] {
        node.state.lock().facts = Facts::default();
        node.state.lock().counted = None;
        told(first.0, first.1);
        node.begins(call(&need), &Learned::default(), now);
        node.heard(call(&need), true, now);
        node.ends(Some(call(&need)));
        assert!(hit() > 2000.0, "{}", hit());
        assert_eq!(told(second.0, second.1), restarted, "{first:?} {second:?}");
        assert_eq!(hit() == 0.0, restarted);
    }
    // One that nobody could reach was away, whatever it says.
    node.state.lock().was_gone = true;
    assert!(told(None, None));
    assert_eq!(hit(), 0.0);
}

#[test]
fn an_engine_is_silent_that_is_in_the_middle_of_answers_and_counts_nothing() {
    let (kind, farm, start) = (llm("{}"), Farm::default(), Instant::now());
    let node = farm.known(EndpointId(1), "a/llm");
    let need = chat(&kind, MODEL, "hi");
    let at = |s| start + Duration::from_secs(s);
    let told = |counted, running, s| {
        let facts = Facts {
            counted,
            running,
            ..Facts::default()
        };
        node.told(facts, &Prefix::default(), at(s));
    };
    told(Some(1.0), Some(1), 0);
    assert_eq!(node.silent(at(60)), None, "nothing is at work");
    node.begins(call(&need), &Learned::default(), at(0));
    told(Some(1.0), Some(1), 50);
    assert_eq!(node.silent(at(60)), None, "it may still be reading");
    node.heard(call(&need), true, at(60));
    told(Some(1.0), Some(1), 65);
    assert_eq!(node.silent(at(71)), Some((Duration::from_secs(11), true)));
    told(Some(2.0), Some(1), 70);
    assert_eq!(
        node.silent(at(71)),
        Some((Duration::from_secs(1), true)),
        "it counts"
    );
    told(Some(2.0), Some(0), 90);
    assert_eq!(
        node.silent(at(99)),
        None,
        "it is done, and its client reads slowly"
    );
    told(None, Some(1), 100);
    let silent = Some((Duration::from_secs(139), false));
    assert_eq!(node.silent(at(199)), silent, "it does not count");
    told(Some(2.0), Some(1), 200);
    node.ends(Some(call(&need)));
    assert_eq!(node.silent(at(300)), None);
}

#[test]
fn what_others_have_at_work_is_what_is_not_ours() {
    let (kind, farm, now) = (llm("{}"), Farm::default(), Instant::now());
    let node = farm.known(EndpointId(1), "a/llm");
    let need = chat(&kind, MODEL, "hi");
    let busy = |running, waiting| {
        let facts = Facts {
            running: Some(running),
            waiting: Some(waiting),
            ..Facts::default()
        };
        node.told(facts, &Prefix::default(), now);
        node.load(None, 0, 4.0, now).0.running
    };
    assert_eq!(busy(3, 2), 5);
    node.begins(call(&need), &Learned::default(), now);
    assert_eq!(busy(1, 0), 1, "it is ours");
    node.ends(Some(call(&need)));
    assert_eq!(busy(1, 0), 0, "it was ours a moment ago");
    assert_eq!(busy(1, 0), 1);
}

#[test]
fn an_endpoint_that_has_left_is_forgotten_and_one_that_comes_back_is_known() {
    let farm = Farm::default();
    farm.known(EndpointId(1), "a/llm");
    let node = farm.known(EndpointId(2), "a/llm");
    assert!(farm.get(EndpointId(1)).is_none());
    assert_eq!(farm.id("a/llm"), Some(EndpointId(2)));
    assert!(Arc::ptr_eq(&node, &farm.named("a/llm")));
    farm.set(&[]);
    assert!(farm.get(EndpointId(2)).is_none() && farm.all().is_empty());
}

#[test]
fn a_prompt_whose_answer_comes_at_once_is_taken_to_be_read_when_it_should_be() {
    let (kind, farm, now) = (llm("{}"), Farm::default(), Instant::now());
    let node = farm.known(EndpointId(1), "a/llm");
    let text = "x".repeat(40_000);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let mut all = crate::testing::choices(&kind, "POST /v1/chat/completions", &body);
    let need = all.remove(0).need;
    node.begins(call(&need), &Learned::default(), now);
    let ahead = |s| {
        let at = now + Duration::from_secs(s);
        node.load(None, 0, 4.0, at).0.ahead
    };
    // Ten thousand tokens, of which a middling card reads two thousand a second.
    assert!(ahead(0) > 9000.0 && ahead(4) > 9000.0);
    assert_eq!(ahead(6), 0.0);
    node.ends(Some(call(&need)));
    assert_eq!(node.load(None, 0, 4.0, now).0.running, 0);
}
