use super::*;

const VLLM: &str = include_str!("recorded/vllm.sse");
const LLAMACPP: &str = include_str!("recorded/llamacpp.sse");

const ANTHROPIC: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":5,"cache_read_input_tokens":70,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"usage\":{\"output_tokens\":999}}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

const RESPONSES: &str = r#"event: response.created
data: {"response":{"id":"resp_1","status":"in_progress","usage":null,"error":null},"sequence_number":0,"type":"response.created"}

event: response.output_text.delta
data: {"content_index":0,"delta":"Hi","item_id":"i","sequence_number":4,"type":"response.output_text.delta"}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","delta":"{\"done\":true}"}

event: response.output_text.done
data: {"type":"response.output_text.done","text":"Hi"}

event: response.completed
data: {"response":{"id":"resp_1","status":"completed","output":[{"content":[{"text":"Hi"}]}],"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":8},"output_tokens":2,"total_tokens":14}},"sequence_number":9,"type":"response.completed"}

"#;

const OLLAMA: &str = r#"{"model":"m","created_at":"2026-11-23T08:22:06Z","message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}
{"model":"m","created_at":"2026-11-23T08:22:06Z","message":{"role":"assistant","content":"Hel"},"done":false}
{"model":"m","created_at":"2026-11-23T08:22:06Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"done":true,"eval_count":7}}}]},"done":false}
{"model":"m","created_at":"2026-11-23T08:22:07Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":5000000000,"load_duration":1500000000,"prompt_eval_count":26,"prompt_eval_duration":130000000,"eval_count":3,"eval_duration":1000000000}
"#;

const SSE: &str = "text/event-stream; charset=utf-8";

/// Feeds an answer in chunks of a size; which step was the first, and what there is to say.
fn follow(kind: &str, text: &str, size: usize) -> (Vec<Step>, Account) {
    let mut follow = Follow::new(Some(kind), None);
    let steps = text
        .as_bytes()
        .chunks(size)
        .map(|chunk| follow.feed(chunk))
        .collect();
    (steps, follow.end())
}

fn account(kind: &str, text: &str) -> Account {
    let (_, whole) = follow(kind, text, usize::MAX);
    for size in [1, 7, 100] {
        let (steps, account) = follow(kind, text, size);
        assert_eq!(account, whole, "in chunks of {size}");
        let firsts = steps.iter().filter(|step| step.first).count();
        assert_eq!(firsts, usize::from(whole.events > 0), "in chunks of {size}");
        assert!(steps.iter().map(|step| step.tokens).sum::<u64>() <= whole.events);
    }
    whole
}

fn usage(prompt: u64, cached: Option<u64>, completion: u64) -> Usage {
    Usage {
        prompt: Some(prompt),
        cached,
        completion: Some(completion),
    }
}

#[test]
fn what_real_servers_streamed_is_followed() {
    let vllm = account(SSE, VLLM);
    assert_eq!(vllm.usage, usage(15, None, 64));
    assert_eq!((vllm.events, vllm.tokens()), (64, 64));
    assert_eq!((vllm.finish, vllm.whole), (Some(Finish::Length), true));
    let llamacpp = account(SSE, LLAMACPP);
    assert_eq!(llamacpp.usage, usage(16, Some(4), 64));
    assert!(
        llamacpp.events <= 64 && llamacpp.events > 55,
        "{}",
        llamacpp.events
    );
    assert_eq!(
        (llamacpp.finish, llamacpp.whole),
        (Some(Finish::Length), true)
    );
    assert_eq!(llamacpp.timings.prompt_tokens, Some(12));
    let near = |said: Option<f64>, wants: f64| (said.unwrap() - wants).abs() < 1e-9;
    assert!(
        near(llamacpp.timings.prompt_s, 0.000676),
        "{:?}",
        llamacpp.timings
    );
    assert!(
        near(llamacpp.timings.decode_s, 0.014326),
        "{:?}",
        llamacpp.timings
    );
}

#[test]
fn each_api_says_in_its_own_words_what_was_used_and_why_it_ended() {
    let anthropic = account(SSE, ANTHROPIC);
    assert_eq!(anthropic.usage, usage(100, Some(70), 15));
    assert_eq!(
        (anthropic.events, anthropic.finish),
        (2, Some(Finish::Tool))
    );
    let responses = account(SSE, RESPONSES);
    assert_eq!(responses.usage, usage(12, Some(8), 2));
    assert_eq!(
        (responses.events, responses.finish),
        (2, Some(Finish::Stop))
    );
    let ollama = account("application/x-ndjson", OLLAMA);
    assert_eq!(ollama.usage, usage(26, None, 3));
    assert_eq!((ollama.events, ollama.finish), (3, Some(Finish::Stop)));
    assert_eq!(ollama.timings.load_s, Some(1.5));
    assert_eq!(
        (ollama.timings.prompt_s, ollama.timings.decode_s),
        (Some(0.13), Some(1.0))
    );
    for account in [anthropic, responses, ollama] {
        assert!(account.whole && account.error.is_none());
    }
}

#[test]
fn engines_own_streams_are_followed() {
    let generate = concat!(
        r#"{"model":"m","response":"Hel","done":false}"#,
        "\n",
        r#"{"model":"m","response":"","thinking":"x","done":false}"#,
        "\n",
        r#"{"model":"m","response":"","done":true,"done_reason":"length","context":[1,2],"prompt_eval_count":4,"eval_count":2}"#,
        "\n",
    );
    let ollama = account("application/x-ndjson", generate);
    assert_eq!(
        (ollama.events, ollama.usage, ollama.whole),
        (2, usage(4, None, 2), true)
    );
    let llamacpp = concat!(
        "data: {\"index\":0,\"content\":\"a\",\"stop\":false,\"tokens_predicted\":1}\n\n",
        "data: {\"content\":\"\",\"stop\":true,\"stop_type\":\"limit\",\"tokens_predicted\":1,\"tokens_evaluated\":9,\"timings\":{\"cache_n\":3,\"prompt_n\":6,\"prompt_ms\":2.0}}\n\n",
    );
    let llamacpp = account(SSE, llamacpp);
    assert_eq!((llamacpp.events, llamacpp.usage), (1, usage(9, Some(3), 1)));
    assert_eq!(
        (llamacpp.finish, llamacpp.whole),
        (Some(Finish::Length), true)
    );
    let tgi = concat!(
        "data:{\"index\":1,\"token\":{\"id\":1,\"text\":\"a\",\"special\":false},\"generated_text\":null,\"details\":null}\r\n\r\n",
        "data:{\"index\":2,\"token\":{\"id\":2,\"text\":\"b\",\"special\":false},\"generated_text\":\"ab\",\"details\":null}\r\n\r\n",
    );
    let tgi = account(SSE, tgi);
    assert_eq!((tgi.events, tgi.whole), (2, true));
    let sglang = concat!(
        "data: {\"text\":\"a\",\"meta_info\":{\"id\":\"x\",\"prompt_tokens\":5,\"completion_tokens\":1,\"cached_tokens\":2,\"finish_reason\":null}}\n\n",
        "data: {\"text\":\"ab\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"cached_tokens\":2,\"finish_reason\":{\"type\":\"length\"}}}\n\n",
        "data: [DONE]\n\n",
    );
    let sglang = account(SSE, sglang);
    assert_eq!(
        (sglang.events, sglang.usage, sglang.whole),
        (2, usage(5, Some(2), 2), true)
    );
}

#[test]
fn the_opening_words_are_no_token_and_one_that_shows_nothing_is() {
    let opening = r#"data: {"choices":[{"index":0,"delta":{"content":"","role":"assistant"},"finish_reason":null}]}"#;
    let nothing = r#"data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}"#;
    let mut follow = Follow::new(Some(SSE), None);
    assert_eq!(
        follow.feed(format!("{opening}\n\n: keep-alive\n\n").as_bytes()),
        Step::default()
    );
    let first = Step {
        tokens: 1,
        first: true,
    };
    assert_eq!(follow.feed(format!("{nothing}\n").as_bytes()), first);
    let step = follow.feed(format!("{nothing}\n\n{nothing}\n\n").as_bytes());
    assert_eq!((step.tokens, step.first), (2, false));
    for delta in [
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#,
        r#"{"reasoning_content":"x"}"#,
        r#"{"content":null,"reasoning":"x"}"#,
    ] {
        let text = format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
        assert_eq!(account(SSE, &text).events, 1, "{delta}");
    }
    for delta in [
        r#"{}"#,
        r#"{"content":null}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[]}"#,
    ] {
        let text =
            format!("data: {{\"choices\":[{{\"delta\":{delta},\"finish_reason\":null}}]}}\n\n");
        assert_eq!(account(SSE, &text).events, 0, "{delta}");
    }
}

#[test]
fn a_stream_that_was_cut_off_is_not_whole() {
    for (kind, text, at) in [
        (SSE, VLLM, "\"choices\":[],"),
        (SSE, ANTHROPIC, "event: message_delta"),
        (SSE, RESPONSES, "event: response.output_text.done"),
        (
            "application/x-ndjson",
            OLLAMA,
            "\"done\":true,\"done_reason\"",
        ),
    ] {
        // Within the event before it.
        let cut = text.find(at).unwrap() - 20;
        let account = account(kind, &text[..cut]);
        // OpenAI's says why it stops before it says what was used.
        assert_eq!(account.whole, text == VLLM, "{at}");
        assert!(account.events > 0 && account.error.is_none(), "{at}");
    }
    let cut = VLLM.find("\"finish_reason\":\"length\"").unwrap();
    assert!(!account(SSE, &VLLM[..cut]).whole);
    assert!(!account(SSE, "").whole);
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for last in [stop, stop.split_once('\n').unwrap().1] {
        let account = account(SSE, last);
        assert!(account.whole && account.finish.is_none(), "{last}");
    }
    // The last line's end may be missing.
    assert!(account(SSE, VLLM.trim_end()).whole);
    assert!(account("application/x-ndjson", OLLAMA.trim_end()).whole);
}

#[test]
fn an_error_in_the_stream_is_heard() {
    let vllm = format!(
        "{}data: {{\"error\": {{\"message\": \"CUDA out of \\\"memory\\\"\", \"type\": \"X\", \"code\": 500}}}}\n\ndata: [DONE]\n\n",
        VLLM[..1000].rsplit_once("data:").unwrap().0
    );
    let ollama = format!(
        "{}\n{{\"error\":\"an error was encountered while running the model\"}}\n",
        OLLAMA.lines().next().unwrap()
    );
    for (kind, text, wants) in [
        (SSE, vllm.as_str(), "CUDA out of \"memory\""),
        (
            "application/x-ndjson",
            &ollama,
            "an error was encountered while running the model",
        ),
        (
            SSE,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            "Overloaded",
        ),
        (
            SSE,
            "data: {\"object\":\"error\",\"message\":\"too long\",\"type\":\"BadRequestError\"}\n\n",
            "too long",
        ),
        (
            SSE,
            "data: {\"type\":\"error\",\"code\":\"x\",\"message\":\"gone\",\"param\":null}\n\n",
            "gone",
        ),
        (
            SSE,
            "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\",\"message\":\"failed\"}}}\n\n",
            "failed",
        ),
        (
            SSE,
            "event: response.failed\ndata: {\"response\":{\"error\":null}}\n\n",
            "the response failed",
        ),
        (
            SSE,
            "error: {\"code\":500,\"message\":\"old\",\"type\":\"server_error\"}\n\n",
            "the stream ended with an error",
        ),
        (
            SSE,
            "data: {\"error\":{\"code\":1}}\n\n",
            "an error without a message",
        ),
    ] {
        let account = account(kind, text);
        assert_eq!(account.error.as_deref(), Some(wants), "{text}");
        assert!(!account.whole, "{text}");
    }
    let long = format!("data: {{\"error\":\"{}\"}}\n\n", "é".repeat(5000));
    assert_eq!(account(SSE, &long).error.unwrap().chars().count(), 300);
}

#[test]
fn what_a_text_says_is_not_taken_for_what_the_engine_says() {
    let said = r#"{"choices":[{"delta":{"content":"\"error\": {\"message\":\"no\"}, [DONE] \"usage\":{\"prompt_tokens\":1}"}}],"usage":null,"error":null}"#;
    let account = account(SSE, &format!("data: {said}\n\n"));
    assert_eq!(
        (account.error, account.usage, account.whole),
        (None, Usage::default(), false)
    );
}

#[test]
fn an_answer_that_comes_at_once_says_what_was_used_however_long_it_is() {
    let answer = |content: &str| {
        format!(
            r#"{{"id":"x","choices":[{{"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":15,"completion_tokens":16}},"prompt_logprobs":null}}"#
        )
    };
    for content in [
        "Hi".to_owned(),
        "x\\\"usage\\\":{\\\"prompt_tokens\\\":1}".repeat(9000),
    ] {
        let text = answer(&content);
        let account = account("application/json", &text);
        assert_eq!((account.usage, account.events), (usage(15, None, 16), 0));
        assert_eq!(account.finish, Some(Finish::Stop));
        assert!(account.whole);
        assert!(!self::account("application/json", &text[..text.len() - 1]).whole);
    }
    let error = account(
        "application/json",
        r#"{"error":{"message":"The model `nosuch` does not exist.","code":404}}"#,
    );
    assert_eq!(
        error.error.as_deref(),
        Some("The model `nosuch` does not exist.")
    );
    let ollama = r#"{"error":"model 'x' not found"}"#;
    assert_eq!(
        account("application/json", ollama).error.as_deref(),
        Some("model 'x' not found")
    );
    assert!(
        account("application/json", "").whole,
        "a 204 has nothing to be missing"
    );
    assert!(account("application/json", "[1,2]").whole);
}

#[test]
fn a_last_event_that_is_long_still_says_what_was_used() {
    let text = "x".repeat(500_000);
    let last = format!(
        "event: response.completed\ndata: {{\"response\":{{\"output\":[{{\"text\":\"{text}\"}}],\"usage\":{{\"input_tokens\":12,\"output_tokens\":900}}}},\"sequence_number\":9,\"type\":\"response.completed\"}}\n\n"
    );
    let account = account(SSE, &last);
    assert_eq!(account.usage, usage(12, None, 900));
    assert!(account.whole);
}

#[test]
fn what_cannot_be_read_is_let_by() {
    let pictures = Follow::new(Some("image/png"), None);
    assert!(!pictures.streams());
    let mut zipped = Follow::new(Some("text/event-stream"), Some("gzip"));
    assert_eq!(
        zipped.feed(b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n"),
        Step::default()
    );
    assert!(zipped.end().whole);
    assert!(Follow::new(None, None).end().whole);
    let odd = account(
        SSE,
        "data: {\"choices\":[{\"text\":\"a\"\n\ndata: nonsense\n\ndata:\n\nretry: 5\n\nid: 1\n\ndata: [1]\n\n",
    );
    assert_eq!((odd.events, odd.error), (1, None));
}

/// `cargo test --release -p tabane-llm what_following_costs -- --ignored --nocapture`
#[test]
#[ignore = "prints times"]
fn what_following_costs() {
    for (name, kind, text) in [
        ("vllm", SSE, VLLM),
        ("llama.cpp", SSE, LLAMACPP),
        ("anthropic", SSE, ANTHROPIC),
        ("ollama", "application/x-ndjson", OLLAMA),
    ] {
        let events: Vec<&str> = text
            .split_inclusive(if kind == SSE { "\n\n" } else { "\n" })
            .collect();
        crate::cost::print(
            &format!("{name}, {} events", events.len()),
            text.len(),
            || {
                let mut follow = Follow::new(Some(kind), None);
                for event in &events {
                    follow.feed(event.as_bytes());
                }
                follow.end()
            },
        );
        let event = events[1].as_bytes();
        let mut follow = Follow::new(Some(kind), None);
        crate::cost::print(&format!("{name}, one event"), event.len(), || {
            follow.feed(event)
        });
        let (one, other) = event.split_at(event.len() / 2);
        crate::cost::print(&format!("{name}, one event in two"), event.len(), || {
            follow.feed(one);
            follow.feed(other)
        });
    }
}
