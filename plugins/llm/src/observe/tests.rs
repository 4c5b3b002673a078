use super::*;
use crate::failing;
use crate::testing::{chat, choices, llm};
use std::time::Duration;
use tabane_api::{EndpointId, KeepAlive, Refusal, Service};

const A: EndpointId = EndpointId(1);

/// A request at work on `a/llm`.
struct Scene {
    kind: Llm,
    need: Need,
    notes: Extensions,
    start: Instant,
}

impl Scene {
    fn new(kind: Llm, need: Need) -> Scene {
        let start = Instant::now();
        kind.desk.farm.known(A, "a/llm");
        kind.granted(&need, A, start);
        Scene {
            kind,
            need,
            notes: Extensions::new(),
            start,
        }
    }

    fn chat() -> Scene {
        let kind = llm("{}");
        let need = chat(&kind, "m", &"some text ".repeat(400));
        Scene::new(kind, need)
    }

    fn sees(&mut self, seen: Seen<'_>, ms: u64) {
        let at = self.start + Duration::from_millis(ms);
        observe(&self.kind, &self.need, seen, &mut self.notes, at);
    }

    fn head(&mut self, status: u16, kind: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        self.sees(
            Seen::Head(StatusCode::from_u16(status).unwrap(), &headers),
            100,
        );
    }

    fn says(&self) -> Option<KeepAlive> {
        self.kind.keep_alive(&self.need, &self.notes)
    }

    fn breaks(&self) -> Option<String> {
        let why = Refusal::NodeFailed("it left".into());
        let call = self.need.own.get().unwrap();
        let said = failing::broken(call, &why, &self.notes)?;
        Some(String::from_utf8(said.to_vec()).unwrap())
    }

    fn ahead(&self) -> f64 {
        let node = self.kind.desk.farm.get(A).unwrap();
        node.load(None, 0, 4.0, self.start).0.ahead
    }
}

fn token(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

#[test]
fn a_stream_teaches_how_fast_its_endpoint_is() {
    let mut scene = Scene::chat();
    assert!(scene.ahead() > 900.0);
    scene.head(200, "text/event-stream");
    for n in 0..11 {
        scene.sees(Seen::Bytes(token("a").as_bytes()), 500 + 20 * n);
        assert_eq!(scene.ahead(), 0.0, "its prompt is read");
    }
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1100,\"completion_tokens\":11}}\n\ndata: [DONE]\n\n";
    scene.sees(Seen::Bytes(end.as_bytes()), 720);
    scene.sees(Seen::End, 720);
    let usage = scene.notes.get::<Usage>().unwrap();
    assert_eq!((&*usage.model, usage.read, usage.made), ("m", 1100, 11));
    assert_eq!(usage.first, Some(Duration::from_millis(500)));
    assert_eq!(usage.each.unwrap().as_millis(), 20);
    let learned = scene.kind.desk.learned.read();
    let asks = crate::learn::Asks {
        prompt: 1100.0,
        out: 10.0,
        ..Default::default()
    };
    let load = crate::learn::Load {
        loaded: true,
        ..Default::default()
    };
    let cost = learned.estimate("a/llm", "m", asks, load);
    assert!(cost.measured);
    assert!((0.4..0.6).contains(&cost.prefill_s), "{cost:?}");
    assert!((0.15..0.25).contains(&cost.decode_s), "{cost:?}");
}

#[test]
fn an_answer_that_came_at_once_is_counted_too() {
    let mut scene = Scene::chat();
    scene.head(200, "application/json");
    let whole = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":3}}}"#;
    scene.sees(Seen::Bytes(whole.as_bytes()), 900);
    scene.sees(Seen::End, 900);
    let usage = scene.notes.get::<Usage>().unwrap();
    assert_eq!((usage.read, usage.cached, usage.made), (7, Some(3), 9));
    assert_eq!(scene.ahead(), 0.0);
}

#[test]
fn of_an_answer_that_broke_off_counts_what_came() {
    let mut scene = Scene::chat();
    scene.head(200, "text/event-stream");
    for _ in 0..3 {
        scene.sees(Seen::Bytes(token("a").as_bytes()), 500);
    }
    scene.sees(Seen::Broken, 600);
    let usage = scene.notes.get::<Usage>().unwrap();
    assert_eq!((usage.read, usage.made), (1001, 3));
}

#[test]
fn nothing_is_said_within_a_line_and_what_breaks_off_ends_with_an_error() {
    let mut scene = Scene::chat();
    let says = scene.says().unwrap();
    assert_eq!(says.every, Duration::from_secs(15));
    assert!(says.content_type.starts_with("text/event-stream"));
    scene.head(200, "text/event-stream");
    assert!(scene.says().is_some());
    let (one, other) = (token("a"), token("b"));
    scene.sees(Seen::Bytes(one.as_bytes()), 500);
    assert!(scene.says().is_some());
    scene.sees(Seen::Bytes(&other.as_bytes()[..20]), 500);
    assert_eq!(scene.says(), None);
    scene.sees(Seen::Broken, 600);
    assert_eq!(scene.says(), None, "the half line is there still");
    let said = scene.breaks().unwrap();
    assert!(said.starts_with("\n\ndata: {\"error\":"), "{said}");
    assert!(said.contains("it left"));

    // What does not stream can only be cut off, and an error of a node's is its own.
    let mut plain = Scene::chat();
    plain.head(500, "application/json");
    assert_eq!((plain.says(), plain.breaks()), (None, None));
    let kind = llm("{}");
    let body = r#"{"model":"m","stream":false,"messages":[]}"#;
    let need = choices(&kind, "POST /v1/chat/completions", body)
        .remove(0)
        .need;
    let quiet = Scene::new(kind, need);
    assert_eq!((quiet.says(), quiet.breaks()), (None, None));
    let kind = llm("{}");
    let need = choices(&kind, "POST /api/chat", r#"{"model":"m","messages":[]}"#)
        .remove(0)
        .need;
    let ollama = Scene::new(kind, need);
    assert_eq!(ollama.says(), None, "its clients read every line as JSON");
    assert!(ollama.breaks().unwrap().starts_with("{\"error\""));
    let kind = llm(r#"{"keep_alive": "off"}"#);
    let need = chat(&kind, "m", "hi");
    assert_eq!(Scene::new(kind, need).says(), None);
}

#[test]
fn a_card_that_is_too_small_is_told_of() {
    let mut scene = Scene::chat();
    scene.head(500, "application/json");
    let said = br#"{"error":{"message":"CUDA out of memory. Tried to allocate"}}"#;
    scene.sees(Seen::Bytes(said), 500);
    scene.sees(Seen::End, 500);
    assert!(scene.notes.get::<OutOfMemory>().is_some());
    let mut other = Scene::chat();
    other.head(400, "application/json");
    other.sees(Seen::Bytes(b"{}"), 500);
    other.sees(Seen::End, 500);
    assert!(other.notes.get::<OutOfMemory>().is_none() && other.notes.get::<Usage>().is_none());
}

#[test]
fn who_made_a_response_is_remembered() {
    let kind = llm("{}");
    let body = r#"{"model":"m","stream":true,"input":"x"}"#;
    let need = choices(&kind, "POST /v1/responses", body).remove(0).need;
    let mut scene = Scene::new(kind, need);
    scene.head(200, "text/event-stream");
    let event = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_9\"}}\n\n";
    scene.sees(Seen::Bytes(event.as_bytes()), 200);
    assert_eq!(
        scene.kind.desk.ids.owner("resp_9").as_deref(),
        Some("a/llm")
    );
}

#[test]
fn a_limit_gets_back_what_was_not_used() {
    let kind = llm(r#"{"limits": [{"tokens_per_minute": 3000}]}"#);
    let ask = || chat(&kind, "m", &"some text ".repeat(400));
    let now = Instant::now();
    let first = ask();
    kind.admit(&first, now).unwrap();
    let mut scene = Scene::new(kind.clone(), first);
    scene.head(200, "application/json");
    let whole = r#"{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":2500,"completion_tokens":400}}"#;
    scene.sees(Seen::Bytes(whole.as_bytes()), 900);
    scene.sees(Seen::End, 900);
    drop(scene);
    let refused = kind.admit(&ask(), now).unwrap_err();
    assert_eq!(refused.code(), "limited");
    assert!(kind.admit(&ask(), now + Duration::from_secs(60)).is_ok());
}
