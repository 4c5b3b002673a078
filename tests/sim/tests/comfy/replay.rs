//! What a real server, 0.3.64, said of thirteen workflows, against what this one says: every byte of every answer and every
//! frame, but for ids, times, pictures and where its code lies.

use crate::client::{Answer, ask, get, socket};
use crate::recording::{Recorded, SID, mask, told};
use std::fs;
use std::path::{Path, PathBuf};
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Saw, Spec};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/comfy/recorded")
}

fn recorded(name: &str) -> Recorded {
    crate::recording::recorded(&folder(), name)
}

async fn submit(node: &ComfyNode, recorded: &Recorded) -> Answer {
    let body = recorded.body_to_post();
    ask(node, "POST", "/prompt", &[], body).await.unwrap()
}

async fn hold(name: &str) {
    let wants = recorded(name);
    // Times are masked: what took five seconds there takes fifty milliseconds.
    let node = ComfyNode::start(Spec::named("a").knobs(ComfyKnobs::default().speed(100.0)))
        .await
        .unwrap();
    if let Some(before) = &wants.after {
        let mut other = socket(&node, SID).await;
        submit(&node, &recorded(before)).await;
        other.until_end().await;
        other.close().await;
        node.until(|saw| saw.iter().any(|s| matches!(s, Saw::Closed { .. })))
            .await;
    }
    let mut socket = socket(&node, SID).await;
    let mut frames = Vec::new();
    if let Some(flags) = &wants.flags {
        socket.say(flags).await;
        frames.extend([socket.next().await.unwrap(), socket.next().await.unwrap()]);
    }
    let answer = submit(&node, &wants).await;
    assert_eq!(answer.status, wants.status, "{name}: status");
    let id = answer.json()["prompt_id"]
        .as_str()
        .unwrap_or("no id")
        .to_owned();
    assert_eq!(mask(answer.text(), &id), wants.body, "{name}: answer");
    if wants.status != 200 {
        return;
    }
    frames.extend(socket.until_end().await);
    let mut said = Vec::new();
    for frame in &frames {
        said.push(told(frame, &id));
        let n = said.len();
        if n >= 4 && said[n - 2..] == said[n - 4..n - 2] {
            said.truncate(n - 2);
        }
    }
    // The recorder stopped listening at an error; what follows is the same as at any other end.
    let heard = &said[..said.len().min(wants.frames.len())];
    for (heard, wants) in heard.iter().zip(&wants.frames) {
        assert_eq!(heard, wants, "{name}");
    }
    let last = wants.frames.last().unwrap();
    let all = heard.len() == said.len() || last.contains("execution_error");
    assert!(
        all,
        "{name}: more than was recorded: {:?}",
        &said[heard.len()..]
    );
    if let Some(history) = &wants.history {
        let answer = get(&node, &format!("/history/{id}")).await;
        assert_eq!(&mask(answer.text(), &id), history, "{name}: history");
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            hold(stringify!($name)).await;
        })*

        #[test]
        fn nothing_that_was_recorded_is_left_out() {
            let files = fs::read_dir(folder()).unwrap().count();
            assert_eq!(files, [$(stringify!($name)),*].len());
        }
    };
}

replays! {
    async_progress
    empty_preview
    empty_save
    error
    invalid
    load_scale_blur_save
    sleep
    slow_blur_batch
    tiny_sd3_featureflags
    tiny_sd3_ksampler
    tiny_sd3_ksampler_ws
    unknown_node
    ws_image
}
