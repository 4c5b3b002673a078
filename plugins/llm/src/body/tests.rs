//! The golden corpus: bodies as clients send them and as nobody should, and what each has to say of itself.

use super::*;
use crate::prompt::{MEDIA_BYTES, Piece};
use proptest::prelude::*;
use tabane_api::Edit;

fn asked(body: &str) -> Asked<'_> {
    read(body.as_bytes(), ModelAt::Body).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// The pieces of the prompt, media in brackets.
fn pieces(body: &str) -> Vec<String> {
    let read = asked(body);
    let pieces = read.prompt.pieces(body.as_bytes());
    let shown = pieces.map(|piece| match piece {
        Piece::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Piece::Media(media) => format!("<{}>", media.len()),
    });
    shown.collect()
}

/// What the body becomes when it is to ask for `model`.
fn renamed(body: &str, model: &str) -> String {
    let edits = asked(body).edits(model);
    let edited = Edit::apply(&Bytes::copy_from_slice(body.as_bytes()), &edits);
    String::from_utf8(edited.to_vec()).unwrap()
}

/// Awkward bodies, the model each asks for, and the text that stands for it.
fn awkward() -> Vec<(String, &'static str, &'static str)> {
    let long = "x\\n\u{4e16}\\\"".repeat(200_000);
    let rows: Vec<(&str, &str, &str)> = vec![
        (
            r#"{"model":"m","max_tokens":12345678901234567890123,"seed":-0,"x":1e400}"#,
            "m",
            r#""m""#,
        ),
        (
            r#"{"messages":[{"content":"a","role":"user"}],"zzz":{"deep":[[[{"model":"not me"}]]]},"model":"m"}"#,
            "m",
            r#""m""#,
        ),
        (
            r#"{"model":"m","unknown":{"model":"inner","x":[{"model":1}]},"tools":[{"model":"t"}],"metadata":{"model":"u"}}"#,
            "m",
            r#""m""#,
        ),
        (
            "{\n\t\"model\" :\r\n \"m\"\t,\n \"stream\" : true }\n",
            "m",
            r#""m""#,
        ),
        (r#"{"mod\u0065l":"m"}"#, "m", r#""m""#),
        (
            r#"{"model":"a\/b\u003a\ud83d\ude00"}"#,
            "a/b:😀",
            r#""a\/b\u003a\ud83d\ude00""#,
        ),
        (
            r#"{"model":"Qwen/Qwen3-8B","temperature":NaN,"top_p":Infinity,"logit_bias":{"1":-Infinity}}"#,
            "Qwen/Qwen3-8B",
            r#""Qwen/Qwen3-8B""#,
        ),
        (
            r#"{"logprobs":false,"model":"モデル","messages":[]}"#,
            "モデル",
            r#""モデル""#,
        ),
        ("\u{feff}{\"model\":\"m\"}", "m", r#""m""#),
        (r#"{"model":"","x":"\"model\":\"fake\""}"#, "", r#""""#),
        (r#"{"model":"m"} {"model":"second"}"#, "m", r#""m""#),
        (
            r#"{"prompt":"\\\\\\\"","model":"m","stop":["\"}","\\"]}"#,
            "m",
            r#""m""#,
        ),
        (
            "{\"prompt\":\"\u{7f}\u{2028}\u{10ffff}\u{fffd}é́\",\"model\":\"m\"}",
            "m",
            r#""m""#,
        ),
    ];
    let mut all: Vec<_> = rows
        .into_iter()
        .map(|(body, model, raw)| (body.to_owned(), model, raw))
        .collect();
    all.push((
        format!(r#"{{"prompt":"{long}","model":"m","n":2}}"#),
        "m",
        r#""m""#,
    ));
    all.push((
        format!(
            r#"{{"model":"m","a":{}1{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        ),
        "m",
        r#""m""#,
    ));
    all
}

#[test]
fn only_the_models_bytes_change() {
    for (body, model, raw) in awkward() {
        let shown: String = body.chars().take(60).collect();
        let read = asked(&body);
        assert_eq!(read.model.as_deref(), Some(model), "{shown}");
        assert!(!read.disputed, "{shown}");
        assert!(
            read.edits(model).is_empty(),
            "{shown}: nothing is to be changed"
        );
        let other = "new/\"name\"\n";
        let edits = read.edits(other);
        assert_eq!(edits.len(), 1, "{shown}");
        assert_eq!(&body[edits[0].range.clone()], raw, "{shown}");
        let edited = renamed(&body, other);
        let at = edits[0].range.start;
        assert_eq!(edited[..at], body[..at], "{shown}");
        assert!(edited[at..].starts_with(r#""new/\"name\"\n""#), "{shown}");
        assert_eq!(edited[at + 16..], body[edits[0].range.end..], "{shown}");
        assert_eq!(asked(&edited).model.as_deref(), Some(other), "{shown}");
    }
}

#[test]
fn bodies_that_are_not_utf_8_keep_their_bytes() {
    let body = b"{\"messages\":[{\"content\":\"\xff\xfe \xc3\"}],\"model\":\"a\xffb\"}".as_slice();
    let read = read(body, ModelAt::Body).unwrap();
    assert_eq!(read.model.as_deref(), Some("a\u{fffd}b"), "as Go reads it");
    let edited = Edit::apply(&Bytes::copy_from_slice(body), &read.edits("m"));
    assert_eq!(
        edited,
        b"{\"messages\":[{\"content\":\"\xff\xfe \xc3\"}],\"model\":\"m\"}".as_slice()
    );
}

#[test]
fn of_two_models_the_last_counts_and_both_are_changed() {
    let body = r#"{"model":"a","stream":true,"model":"b","stream":false}"#;
    let read = asked(body);
    assert_eq!((read.model.as_deref(), read.disputed), (Some("b"), true));
    assert_eq!(read.stream, Some(false));
    assert_eq!(
        renamed(body, "b"),
        r#"{"model":"b","stream":true,"model":"b","stream":false}"#
    );
    // Ollama takes keys in any case.
    let body = r#"{"model":"a","MODEL":"b","mode\u006c":"a"}"#;
    let read = asked(body);
    assert_eq!((read.model.as_deref(), read.disputed), (Some("a"), true));
    assert_eq!(
        renamed(body, "a"),
        r#"{"model":"a","MODEL":"a","mode\u006c":"a"}"#
    );
    let read = asked(r#"{"Model":"b"}"#);
    assert_eq!((read.model.as_deref(), read.disputed), (Some("b"), false));
    let read = asked(r#"{"model":"a","model":"\u0061"}"#);
    assert!(!read.disputed, "they say the same");
    let read = asked(r#"{"model":"a","model":7}"#);
    assert_eq!((read.model, read.disputed), (None, true));
}

#[test]
fn a_model_that_is_no_text_is_none() {
    for body in [
        r#"{"model":null}"#,
        r#"{"model":{"id":"a"}}"#,
        r#"{"model":["a"]}"#,
        r#"{"model":1}"#,
        "{}",
    ] {
        assert_eq!(asked(body).model, None, "{body}");
    }
    assert_eq!(
        renamed(r#"{"model":{"id":"a"},"x":1}"#, "m"),
        r#"{"model":"m","x":1}"#
    );
}

#[test]
fn the_older_name_of_a_model_counts_where_ollama_takes_it() {
    let read_as = |body: &'static str, at| read(body.as_bytes(), at).unwrap();
    let show = read_as(r#"{"name":"a"}"#, ModelAt::BodyOrName);
    assert_eq!(show.model.as_deref(), Some("a"));
    assert_eq!(show.edits("b")[0].range, 8..11);
    assert_eq!(read_as(r#"{"name":"a"}"#, ModelAt::Body).model, None);
    let both = read_as(r#"{"model":"b","name":"a"}"#, ModelAt::BodyOrName);
    assert_eq!(both.model.as_deref(), Some("b"));
    let empty = read_as(r#"{"name":"a","model":""}"#, ModelAt::BodyOrName);
    assert_eq!(empty.model.as_deref(), Some("a"));
}

#[test]
fn what_is_no_object_is_no_body() {
    for body in [
        "",
        " ",
        "[]",
        "\"model\"",
        "{",
        r#"{"model""#,
        r#"{"model":"a"#,
        r#"{"model":"a","x":[1"#,
        "model=a",
    ] {
        assert!(read(body.as_bytes(), ModelAt::Body).is_err(), "{body}");
    }
    // As Python would read it, and nothing else.
    let utf16: Vec<u8> = r#"{"model":"a"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(read(&utf16, ModelAt::Body).is_err());
}

#[test]
fn wishes_are_read_in_each_apis_words() {
    let read = asked(
        r#"{"stream":true,"stream_options":{"include_usage":true},"max_tokens":10,"n":3,"user":"u","prompt_cache_key":"k","previous_response_id":"resp_1"}"#,
    );
    assert_eq!((read.stream, read.include_usage), (Some(true), Some(true)));
    assert_eq!((read.max_tokens, read.n), (Some(10), Some(3)));
    assert_eq!(read.user.as_deref(), Some("u"));
    assert_eq!(read.cache_key.as_deref(), Some("k"));
    assert_eq!(read.previous.as_deref(), Some("resp_1"));
    for (body, wants) in [
        (r#"{"max_completion_tokens":5,"max_tokens":10}"#, Some(5)),
        (
            r#"{"max_tokens":10,"max_completion_tokens":null}"#,
            Some(10),
        ),
        (r#"{"max_output_tokens":7}"#, Some(7)),
        (
            r#"{"options":{"stop":["num_predict"],"num_predict":9}}"#,
            Some(9),
        ),
        (r#"{"options":{"num_predict":-1}}"#, None),
        (r#"{"n_predict":11}"#, Some(11)),
        (r#"{"parameters":{"max_new_tokens":12}}"#, Some(12)),
        (
            r#"{"max_tokens":99999999999999999999999999}"#,
            Some(u64::MAX),
        ),
        (r#"{"max_tokens":"10"}"#, None),
        (r#"{"x":{"max_tokens":10}}"#, None),
    ] {
        assert_eq!(asked(body).max_tokens, wants, "{body}");
    }
    assert_eq!(
        asked(r#"{"metadata":{"user_id":"user_1_session_2"}}"#)
            .user
            .as_deref(),
        Some("user_1_session_2")
    );
    assert_eq!(
        asked(r#"{"conversation":{"id":"conv_1"}}"#)
            .previous
            .as_deref(),
        Some("conv_1")
    );
    assert_eq!(
        asked(r#"{"conversation":"conv_2"}"#).previous.as_deref(),
        Some("conv_2")
    );
    let nothing =
        asked(r#"{"stream":null,"stream_options":null,"user":"","options":[],"metadata":3}"#);
    let wants = Asked {
        opens: nothing.opens,
        ..Asked::default()
    };
    assert_eq!(nothing, wants);
}

#[test]
fn a_prompt_is_read_in_the_engines_order_not_in_the_bodys() {
    let openai = r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":[{"type":"text","text":"U"}]}],"model":"m","tools":[{"type":"function"}]}"#;
    assert_eq!(
        pieces(openai),
        [
            r#"[{"type":"function"}"#,
            "system",
            "S",
            "user",
            "text",
            "U"
        ]
    );
    let anthropic = r#"{"messages":[{"role":"user","content":"U"}],"system":[{"type":"text","text":"S","cache_control":{"type":"ephemeral"}}]}"#;
    assert_eq!(pieces(anthropic), ["text", "S", "user", "U"]);
    let ollama = r#"{"prompt":"P","suffix":"F","system":"S","context":[1,2,3]}"#;
    assert_eq!(pieces(ollama), ["S", "[1,2,3", "P", "F"]);
    let responses = r#"{"input":"I","instructions":"S","cache_salt":"a"}"#;
    assert_eq!(pieces(responses), ["a", "S", "I"]);
    assert_eq!(pieces(r#"{"prompt":["a","b"]}"#), ["a", "b"]);
    assert_eq!(pieces(r#"{"prompt":[[1, 2],[3]]}"#), ["[[1, 2],[3]"]);
    assert_eq!(
        pieces(r#"{"query":"q","documents":["d",{"text":"e"}]}"#),
        ["q", "d", "e"]
    );
    assert_eq!(pieces(r#"{"text":"t","sampling_params":{}}"#), ["t"]);
    assert_eq!(pieces(r#"{"input_ids":[5,6]}"#), ["[5,6"]);
    assert_eq!(
        pieces(r#"{"input":"I","text":{"format":{"type":"text"}}}"#),
        ["I"]
    );
    assert!(pieces(r#"{"prompt":null,"tools":null,"messages":5}"#).is_empty());
}

#[test]
fn a_longer_conversation_begins_as_the_shorter_one_did() {
    let short = r#"{"model":"m","tools":[{"a":1}],"messages":[{"role":"user","content":"1"}],"stream":true}"#;
    let long = r#"{"model":"m","tools":[{"a":1}],"messages":[{"role":"user","content":"1"},{"role":"assistant","content":"2"}]}"#;
    let (short, long) = (pieces(short), pieces(long));
    assert_eq!(long[..short.len()], short);
    let (short, long) = (
        pieces(r#"{"prompt":[1,2]}"#),
        pieces(r#"{"prompt":[1,2,3]}"#),
    );
    assert!(long[0].starts_with(&short[0]));
}

#[test]
fn a_part_of_the_prompt_that_is_there_twice_counts_once() {
    let body =
        r#"{"messages":[{"content":"first"}],"system":"S","messages":[{"content":"second"}]}"#;
    assert_eq!(pieces(body), ["S", "second"]);
    assert_eq!(asked(body).prompt.bytes(), "Ssecond".len());
}

#[test]
fn pictures_count_as_pictures_whatever_their_size() {
    let picture = "A".repeat(100_000);
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}},{{"type":"text","text":"{picture}"}}],"images":["{picture}"]}}]}}"#
    );
    let read = asked(&body);
    assert_eq!(read.prompt.media(), 2);
    let text = "user".len() + "image_url".len() + "text".len() + 100_000;
    assert_eq!(read.prompt.bytes(), text + 2 * MEDIA_BYTES);
    assert_eq!(
        pieces(&body)[2],
        format!("<{}>", 100_000 + "data:image/png;base64,".len())
    );
}

proptest! {
    #[test]
    fn any_body_that_a_parser_takes_says_what_the_parser_says(
        before in proptest::collection::vec(("[a-z]{1,8}", "\\PC{0,20}"), 0..6),
        model in "\\PC{0,30}",
        stream in any::<bool>(),
        max in any::<u32>(),
        text in "\\PC{0,60}",
        to in "\\PC{0,20}",
    ) {
        let mut object = serde_json::Map::new();
        for (key, value) in before {
            object.insert(key, value.into());
        }
        object.insert("messages".into(), serde_json::json!([{"content": text}]));
        object.insert("stream".into(), stream.into());
        object.insert("max_tokens".into(), max.into());
        object.insert("model".into(), model.clone().into());
        object.remove("prompt");
        object.remove("name");
        let body = serde_json::Value::Object(object.clone()).to_string();
        let read = asked(&body);
        prop_assert_eq!(read.model.as_deref(), Some(model.as_str()));
        prop_assert_eq!(read.stream, Some(stream));
        prop_assert_eq!(read.max_tokens, Some(u64::from(max)));
        let edited: serde_json::Value = serde_json::from_str(&renamed(&body, &to)).unwrap();
        object.insert("model".into(), to.into());
        prop_assert_eq!(edited, serde_json::Value::Object(object));
    }

    #[test]
    fn no_body_is_a_danger(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes, ModelAt::Body);
        let _ = crate::form::read("multipart/form-data; boundary=a", &bytes);
    }
}

/// Prints what reading costs: `cargo test --release -p tabane-llm what_reading_costs -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
fn what_reading_costs() {
    let text = "The quick brown fox jumps over the lazy dog, and says \\\"so\\\".\\n";
    let message = |n: usize| {
        let content = text.repeat(n);
        format!(r#"{{"role":"user","content":"{content}"}}"#)
    };
    let tool = r#"{"type":"function","function":{"name":"read_file","description":"Reads a file.","parameters":{"type":"object","properties":{"path":{"type":"string"},"line":{"type":"integer"}},"required":["path"]}}}"#;
    let chat = |bytes: usize, each: usize| {
        let one = message(each);
        let all = vec![one.as_str(); bytes / one.len()].join(",");
        format!(r#"{{"model":"m","stream":true,"temperature":0.7,"messages":[{all}]}}"#)
    };
    let tools = vec![tool; (16 << 10) / tool.len()].join(",");
    let tokens = (0..4000)
        .map(|n| (n * 31).to_string())
        .collect::<Vec<_>>()
        .join(",");
    for (name, body) in [
        ("200 B", chat(200, 1)),
        ("16 KB, one message", chat(16 << 10, 250)),
        ("16 KB, messages of 70 B", chat(16 << 10, 1)),
        (
            "16 KB, tools",
            format!(r#"{{"tools":[{tools}],"model":"m"}}"#),
        ),
        (
            "20 KB, tokens",
            format!(r#"{{"prompt":[{tokens}],"model":"m"}}"#),
        ),
        ("2 MB, one message", chat(2 << 20, 32_000)),
    ] {
        crate::cost::print(name, body.len(), || asked(&body).prompt.bytes());
    }
}
