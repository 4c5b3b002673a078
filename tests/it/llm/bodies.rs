//! What is asked and answered passes byte for byte.

use super::{CHAT, Farm, last};
use tabane_sim::llm::{LlmKnobs, LlmNode, Spec};

/// Bodies that a gateway which reads and writes JSON again would change.
const AWKWARD: &[&str] = &[
    r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":3}"#,
    " \n{ \"max_tokens\" : 3 ,\t\"model\":\"tiny\", \"messages\":[ {\"content\":\"hi\",\"role\":\"user\",\"unknown\":{\"b\":1,\"a\":2}} ] }\n\n",
    r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":3,"seed":12345678901234567890123,"x":1.10,"y":1E+2,"z":-0}"#,
    r#"{"model":"tiny","messages":[],"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"model":"tiny","model":"tiny"}"#,
    r#"{"messages":[{"role":"user","content":"\u00e9\ud83d\ude00 é😀 \/ \" \\ \u0000"}],"model":"t\u0069ny","max_tokens":3}"#,
    r#"{"zzz":null,"aaa":[],"model":"tiny","logit_bias":{"50256":-100},"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_tokens":3,"stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"model":"tiny","prompt":"not a chat","max_tokens":2,"logprobs":null,"stream":false}"#,
];

#[tokio::test]
async fn no_byte_of_an_awkward_body_changes_on_its_way() {
    let engines = [
        Spec::vllm("a", "tiny"),
        Spec::llama_cpp("a", "tiny"),
        Spec::ollama("a", "tiny"),
    ];
    for spec in engines {
        let engine = spec.engine;
        let farm = Farm::start(vec![spec.knobs(LlmKnobs::instant())], "").await;
        for body in AWKWARD {
            let path = match body.contains("prompt") {
                true => "/v1/completions",
                false => CHAT,
            };
            let request = http::Request::post(farm.scene.url(path))
                .header("content-type", "application/json; charset=UTF-8")
                .header("x-odd", "a  b")
                .header("user-agent", "odd/1")
                .body((*body).to_owned().into())
                .unwrap();
            let told = farm.scene.send(request).await;
            let asked = farm.node("a").seen().asked;
            let asked = asked.iter().rfind(|asked| asked.path == path).unwrap();
            assert_eq!(asked.body, body, "{engine}: {told:?}");
            assert_eq!(asked.header("x-odd"), Some("a  b"));
            assert_eq!(asked.header("user-agent"), Some("odd/1"));
            assert_eq!(
                asked.header("content-type"),
                Some("application/json; charset=UTF-8")
            );
            let alone = asked_alone(farm.node("a"), path, body).await;
            assert_eq!(told.status, alone.0, "{engine} {body}");
            assert_eq!(plain(&told.body), plain(&alone.1), "{engine} {body}");
        }
    }
}

/// What the node answers to whoever asks it directly.
async fn asked_alone(node: &LlmNode, path: &str, body: &str) -> (u16, Vec<u8>) {
    use http_body_util::{BodyExt, Full};
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let client = client.build_http::<Full<bytes::Bytes>>();
    let request = http::Request::post(format!("{}{path}", node.url()))
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), body.to_vec())
}

/// Without what differs each time: numbers, and what is made of chance.
fn plain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut plain = String::new();
    let mut rest = &*text;
    while let Some(at) = ["chatcmpl-", "cmpl-"]
        .iter()
        .filter_map(|id| rest.find(id))
        .min()
    {
        let end = rest[at..].find('"').map_or(rest.len(), |end| at + end);
        plain += &rest[..at];
        rest = &rest[end..];
    }
    plain += rest;
    plain.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[tokio::test]
async fn an_alias_is_changed_in_its_place_and_nothing_else() {
    let kind = "aliases: {fast: tiny}, default_model: tiny";
    let farm = Farm::start(
        vec![Spec::vllm("a", "tiny").knobs(LlmKnobs::instant())],
        kind,
    )
    .await;
    for (sent, wants) in [
        (
            r#"{"x": 12345678901234567890123, "model" : "fast" ,"messages":[{"role":"user","content":"fast"}],"max_tokens":2}"#,
            r#"{"x": 12345678901234567890123, "model" : "tiny" ,"messages":[{"role":"user","content":"fast"}],"max_tokens":2}"#,
        ),
        (
            r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":2}"#,
            r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":2}"#,
        ),
        (
            r#"{"model":"TINY","messages":[{"role":"user","content":"hi"}],"max_tokens":2}"#,
            r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":2}"#,
        ),
    ] {
        let told = farm.post(CHAT, sent).await;
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(last(farm.node("a")).body, wants);
    }
}
