//! Who hears what.

use crate::client::{LONG, Socket, finished, socket, submit};
use crate::prompts::empty_save;
use crate::queue::{sleep, started};
use futures::FutureExt;
use serde_json::{Value, json};
use tabane_sim::comfy::{ComfyNode, Saw, Spec};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

async fn start() -> ComfyNode {
    ComfyNode::start(Spec::named("a")).await.unwrap()
}

fn kinds(messages: &[Message]) -> Vec<String> {
    let kinds = messages.iter().map(|message| match message {
        Message::Text(text) => {
            let event: Value = serde_json::from_str(text).unwrap();
            event["type"].as_str().unwrap().to_owned()
        }
        _ => "binary".to_owned(),
    });
    kinds.collect()
}

/// Whatever comes until nothing is queued any more, which everybody hears last.
async fn until_idle(socket: &mut Socket) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut busy = false;
    loop {
        let message = socket.next().await.expect("the socket is closed");
        let is = |remaining: &str| {
            matches!(&message, Message::Text(text)
            if text.starts_with(r#"{"type": "status""#) && text.contains(&format!(r#""queue_remaining": {remaining}}}"#)))
        };
        let idle = busy && is("0");
        busy |= is("1");
        messages.push(message);
        if idle {
            return messages;
        }
    }
}

/// Whatever it has heard by now.
fn heard(socket: &mut Socket) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(Some(message)) = socket.next().now_or_never() {
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn a_socket_without_an_id_is_given_one() {
    let node = start().await;
    let mut socket = socket(&node, "").await;
    let greeting = socket.event().await;
    assert_eq!(
        greeting["data"]["status"],
        json!({"exec_info": {"queue_remaining": 0}})
    );
    assert_eq!(greeting["data"]["sid"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn others_hear_only_how_long_the_queue_is() {
    let node = start().await;
    let (mut own, mut other) = (socket(&node, "own").await, socket(&node, "other").await);
    other.event().await;
    let id = submit(&node, "own", &empty_save("x")).await;
    own.until_end().await;
    finished(&node, &id).await;
    // The last one is of this: nothing else came in between.
    crate::client::post(&node, "/queue", &json!({"clear": true})).await;
    for remaining in [1, 1, 0, 0] {
        let event = other.event().await;
        let status = json!({"exec_info": {"queue_remaining": remaining}});
        assert_eq!(event, json!({"type": "status", "data": {"status": status}}));
    }
}

#[tokio::test]
async fn who_comes_back_hears_what_is_executed() {
    let node = start().await;
    let mut first = socket(&node, "c").await;
    let id = submit(&node, "c", &sleep(60.0)).await;
    first.event_of("progress").await;
    let mut second = socket(&node, "c").await;
    assert_eq!(second.event().await["type"], "status");
    assert_eq!(
        second.event().await,
        json!({"type": "executing", "data": {"node": "2"}}),
        "and names no prompt"
    );
    second.event_of("progress").await;
    node.set(|knobs| knobs.speed = 1e9);
    crate::client::post(&node, "/interrupt", &json!({})).await;
    let end = kinds(&second.until_end().await);
    assert_eq!(
        end[end.len() - 3..],
        ["execution_interrupted", "status", "executing"]
    );
    finished(&node, &id).await;
    // The first one is still open, and got nothing since.
    assert!(!kinds(&heard(&mut first)).contains(&"execution_interrupted".to_owned()));
}

#[tokio::test]
async fn when_the_old_socket_ends_the_new_one_hears_no_more() {
    let node = start().await;
    let first = socket(&node, "c").await;
    let mut second = socket(&node, "c").await;
    second.event().await;
    first.close().await;
    timeout(
        LONG,
        node.until(|saw| saw.iter().any(|saw| matches!(saw, Saw::Closed { .. }))),
    )
    .await
    .unwrap();
    let id = submit(&node, "c", &empty_save("x")).await;
    finished(&node, &id).await;
    assert!(heard(&mut second).is_empty(), "as in the real server");
}

#[tokio::test]
async fn a_prompt_without_a_client_is_told_to_all_in_part() {
    let node = start().await;
    let mut socket = socket(&node, "c").await;
    let answer = crate::client::post(&node, "/prompt", &json!({"prompt": sleep(0.02)})).await;
    assert_eq!(answer.status, 200);
    let mut kinds = kinds(&until_idle(&mut socket).await);
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds, ["progress", "progress_state", "status"]);
}

#[tokio::test]
async fn an_interrupt_of_a_prompt_without_a_client_is_told_to_all() {
    let node = start().await;
    let mut socket = socket(&node, "c").await;
    let prompt = json!({"prompt": sleep(60.0)});
    crate::client::post(&node, "/prompt", &prompt).await;
    socket.event_of("progress").await;
    crate::client::post(&node, "/interrupt", &json!({})).await;
    assert_eq!(
        socket.event_of("execution_interrupted").await["node_id"],
        "2"
    );
}

#[tokio::test]
async fn only_the_first_word_counts() {
    let node = start().await;
    let mut socket = socket(&node, "c").await;
    socket.event().await;
    socket.say(&json!({"type": "hello"})).await;
    socket
        .say(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
        .await;
    timeout(
        LONG,
        node.until(|saw| {
            saw.iter()
                .filter(|saw| matches!(saw, Saw::Said { .. }))
                .count()
                == 2
        }),
    )
    .await
    .unwrap();
    let id = submit(&node, "c", &sleep(0.0)).await;
    started(&node, &id).await;
    let messages = socket.until_end().await;
    assert!(!kinds(&messages).contains(&"feature_flags".to_owned()));
}

#[tokio::test]
async fn a_node_says_in_a_frame_of_text_that_it_works() {
    let node = start().await;
    node.set(|knobs| knobs.texts = true);
    let mut other = socket(&node, "other").await;
    submit(&node, "c", &empty_save("x")).await;
    let mut heard = until_idle(&mut other).await.into_iter();
    let frame = heard.find(Message::is_binary).unwrap();
    // Its kind, the length of the node's id, that, and a text.
    assert_eq!(&frame.into_data()[..], b"\0\0\0\x03\0\0\0\x0111 works");
}

#[tokio::test]
async fn a_result_of_several_megabytes_comes_in_one_frame() {
    let node = start().await;
    let mut socket = socket(&node, "c").await;
    let prompt = json!({
        "1": {"class_type": "StubImage", "inputs": {"content": "NOISE", "height": 1024, "width": 1024, "batch_size": 1}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    });
    submit(&node, "c", &prompt).await;
    let frames = socket.until_end().await;
    let frame = frames
        .into_iter()
        .find(Message::is_binary)
        .unwrap()
        .into_data();
    assert_eq!(frame[..12], *b"\0\0\0\x01\0\0\0\x02\x89PNG");
    assert!(frame.len() > 3_000_000, "{}", frame.len());
}
