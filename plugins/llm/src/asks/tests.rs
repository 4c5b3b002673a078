use super::*;
use crate::testing::{asked, choices, knowing};
use tabane_api::{Edit, EndpointId, EndpointView};

const CHAT: &str = "POST /v1/chat/completions";

/// What comes of a request, in a word.
fn word(intent: Result<Intent, Refusal>) -> String {
    match intent {
        Ok(Intent::Forward(need)) => format!("forward {} {}", need.class, need.slots),
        Ok(Intent::Relay(choices)) => {
            let shown = choices
                .iter()
                .map(|c| format!("{} {}", c.need.class, c.need.slots));
            format!("relay {}", shown.collect::<Vec<_>>().join(", "))
        }
        Ok(Intent::Own { .. }) => "own".into(),
        Ok(Intent::Pinned(id)) => format!("pinned {}", id.0),
        Ok(other) => format!("{other:?}"),
        Err(why) => format!("{}: {why}", why.code()),
    }
}

#[test]
fn each_request_is_served_as_what_it_is() {
    let kind = knowing(
        r#"{"aliases": {"fast": ["m", {"model": "gpt", "at": "cloud/o"}]}}"#,
        &[
            ("a/llm", &["m"]),
            ("b/llm", &["Qwen/Q-8B"]),
            ("cloud/o", &["gpt"]),
        ],
    );
    for (line, body, wants) in [
        (CHAT, r#"{"model":"m"}"#, "relay m 1"),
        (CHAT, r#"{"model":"M"}"#, "relay m 1"),
        (CHAT, r#"{"model":"fast"}"#, "relay m 1, gpt 1"),
        (
            CHAT,
            r#"{"model":"n"}"#,
            "not_found: The model `n` does not exist.",
        ),
        (
            CHAT,
            r#"{"model":"qwen/q-9b"}"#,
            "not_found: The model `qwen/q-9b` does not exist. Did you mean `Qwen/Q-8B`?",
        ),
        (CHAT, r#"{"messages":[]}"#, "relay any model 1"),
        (CHAT, "no JSON", "forward any model 1"),
        (
            "POST /v1/embeddings",
            r#"{"model":"m","input":"x"}"#,
            "relay embed m 1",
        ),
        (
            "POST /tokenize",
            r#"{"model":"fast"}"#,
            "relay count m 0, count gpt 0",
        ),
        ("POST /api/show", r#"{"name":"m"}"#, "relay status m 0"),
        ("GET /v1/models", "", "own"),
        ("GET /v1/models/Qwen/Q-8B", "", "own"),
        ("GET /api/tags", "", "own"),
        ("GET /props?model=m", "", "forward status m 0"),
        ("GET /props?model=no", "", "forward status any model 0"),
        ("GET /health", "", "forward status any model 0"),
        (
            "GET /v1/realtime?model=Qwen%2FQ-8B",
            "",
            "forward realtime Qwen/Q-8B 0",
        ),
        ("GET /v1/responses/resp_1", "", "forward kept any model 0"),
        (
            "POST /something",
            r#"{"model":"n"}"#,
            "relay other any model 1",
        ),
        ("POST /something", "", "forward other any model 1"),
        (
            "POST /api/pull",
            r#"{"model":"m"}"#,
            "forbidden: engines are not managed through this gateway; `manage: true` of its service lets it",
        ),
    ] {
        assert_eq!(word(asked(&kind, line, body)), wants, "{line} {body}");
    }
    let kind = knowing(r#"{"manage": true}"#, &[("a/llm", &["m"])]);
    let pull = asked(&kind, "POST /api/pull", r#"{"model":"new"}"#);
    assert_eq!(word(pull), "relay manage any model 0");
}

#[test]
fn only_a_name_that_differs_is_changed() {
    let kind = knowing(
        r#"{"aliases": {"fast": "m"}, "default_model": "fast"}"#,
        &[("a/llm", &["m"])],
    );
    for (body, wants) in [
        (
            r#"{ "model" : "m","x":1e400}"#,
            r#"{ "model" : "m","x":1e400}"#,
        ),
        (r#"{"x":1, "model":"fast"}"#, r#"{"x":1, "model":"m"}"#),
        (
            r#"{"x":12345678901234567890123}"#,
            r#"{"model":"m","x":12345678901234567890123}"#,
        ),
        (" {}", r#" {"model":"m"}"#),
        (r#"{"model":null}"#, r#"{"model":"m"}"#),
        (r#"{"model":""}"#, r#"{"model":"m"}"#),
    ] {
        let choice = choices(&kind, CHAT, body).remove(0);
        let sent = Edit::apply(&Bytes::copy_from_slice(body.as_bytes()), &choice.edits);
        assert_eq!(sent, wants, "{body}");
        assert_eq!(choice.need.model.as_deref(), Some("m"));
    }
}

#[test]
fn a_key_goes_where_the_file_says_and_another_model_is_waited_for_no_longer_than_it_says() {
    let kind = knowing(
        r#"{"aliases": {"fast": [{"model": "m", "max_wait": "2s"}, "n", {"model": "gpt", "at": "cloud/o", "headers": {"authorization": "Bearer k"}}]},
            "labels": {"site": "studio"}, "vram_mib": 8000}"#,
        &[("a/llm", &["m", "n"]), ("cloud/o", &["gpt", "gpt-large"])],
    );
    let all = choices(&kind, CHAT, r#"{"model":"fast"}"#);
    let waits: Vec<u64> = all.iter().map(|c| c.max_wait.unwrap().as_secs()).collect();
    assert_eq!(waits, [2, 10, 10]);
    assert!(all[0].headers.is_empty() && all[1].headers.is_empty());
    assert_eq!(all[2].headers["authorization"], "Bearer k");
    assert!(!format!("{all:?}").contains("Bearer"), "{all:?}");
    let need = &all[0].need;
    assert_eq!((need.vram_mib, need.labels.len()), (8000, 1));
    // Nobody spends a key by naming a model of the cloud's.
    let told = asked(&kind, CHAT, r#"{"model":"gpt-large"}"#);
    assert!(matches!(told, Err(Refusal::NoSuch(_))), "{told:?}");
    // And a job is sent there by its alias alone.
    assert!(sends(&kind.setup.config, Some("gpt"), "cloud/o"));
    // Of an endpoint that nobody knows, nobody knows that it is the one.
    assert!(crate::weigh::lacks(&kind, &all[2].need, EndpointId(9)).is_some());
    assert!(crate::weigh::lacks(&kind, &all[0].need, EndpointId(9)).is_none());
    kind.desk.farm.known(EndpointId(9), "cloud/o");
    assert!(crate::weigh::lacks(&kind, &all[2].need, EndpointId(9)).is_none());
    assert!(crate::weigh::lacks(&kind, &all[0].need, EndpointId(9)).is_some());
    let models = kind.setup.models.read();
    let choice = |on| choice_for(&models, Some("fast"), "gpt", on);
    assert!(choice("cloud/o").is_some() && choice("a/llm").is_none());
}

#[test]
fn more_tokens_than_a_line_allows_are_not_asked_for() {
    let kind = knowing(
        r#"{"limits": [{"max_tokens": 100, "model": "m"}, {"max_tokens": 50, "tenant": "x"}]}"#,
        &[("a/llm", &["m"])],
    );
    let ask = |most| {
        asked(
            &kind,
            CHAT,
            &format!(r#"{{"model":"m","max_tokens":{most}}}"#),
        )
    };
    assert!(ask(100).is_ok());
    assert_eq!(ask(101).unwrap_err().code(), "bad_request");
}

#[test]
fn what_is_gone_on_from_goes_to_who_keeps_it() {
    let kind = knowing("{}", &[("a/llm", &["m"]), ("b/llm", &["m"])]);
    let view = |n: u32, name: &str| EndpointView {
        id: EndpointId(n),
        name: name.into(),
        node: Arc::default(),
        usable: true,
        slots: 1,
        used: 0,
        vitals: Arc::default(),
    };
    kind.desk.farm.set(&[view(1, "a/llm"), view(2, "b/llm")]);
    kind.desk.ids.made("resp_7", &"b/llm".into());
    let line = "GET /v1/responses/resp_7/input_items";
    assert_eq!(word(asked(&kind, line, "")), "pinned 2");
    let next = r#"{"model":"m","previous_response_id":"resp_7","input":"x"}"#;
    let next = choices(&kind, "POST /v1/responses", next).remove(0);
    let lacks = |n| crate::weigh::lacks(&kind, &next.need, EndpointId(n));
    assert_eq!((lacks(1).is_some(), lacks(2).is_some()), (true, false));
}

#[test]
fn an_engine_with_one_model_is_not_asked_by_a_name_that_nobody_has() {
    let kind = knowing(
        r#"{"unknown_models": "forward"}"#,
        &[("a/llm", &["m"]), ("b/llm", &["x", "y"])],
    );
    let ids = [(EndpointId(1), "a/llm"), (EndpointId(2), "b/llm")];
    for (id, name) in ids {
        kind.desk.farm.known(id, name);
    }
    let engine = |name: &str, models: &[&str]| {
        let node = kind.desk.farm.named(name);
        let mut state = node.state.lock();
        state.facts.engine = Some(crate::engines::Engine::LlamaCpp);
        let model = |name: &&str| crate::engines::Model {
            name: name.to_string(),
            ..Default::default()
        };
        state.facts.models = models.iter().map(model).collect();
    };
    engine("a/llm", &["m"]);
    engine("b/llm", &["x", "y"]);
    let lacks = |model: &str, n| {
        let need = crate::testing::chat(&kind, model, "hi");
        crate::weigh::lacks(&kind, &need, EndpointId(n)).is_some()
    };
    assert_eq!((lacks("new", 1), lacks("new", 2)), (true, false));
    assert_eq!(
        (lacks("m", 1), lacks("m", 2)),
        (false, false),
        "its own name it takes"
    );
    // Where all have one, whoever wrote `forward` wants it to go somewhere.
    engine("b/llm", &["x"]);
    assert!(!lacks("new", 1));
}
