//! Clients that do not read as fast as they are told.

use crate::peer::{Peer, frame, of_node, preview, said};
use tabane_api::Message;
use tabane_comfyui::clients::{Clients, Limits, Room};
use tabane_comfyui::frames::Frame;

/// Whatever has to be read until this.
async fn until(peer: &mut Peer, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let text = match peer.next().await.unwrap() {
            Message::Text(text) => text,
            Message::Binary(bytes) => format!("{:?}", &bytes[bytes.len() - 1..]),
        };
        let is_last = text.contains(last);
        heard.push(text);
        if is_last {
            return heard;
        }
    }
}

/// `type number`
fn short(heard: &[String]) -> Vec<String> {
    let short = heard.iter().map(|text| {
        let part = |after: &str, to: &[char]| {
            let rest = text.split_once(after).map_or("", |(_, rest)| rest);
            rest.split(to).next().unwrap().to_owned()
        };
        match text.strip_prefix('[') {
            Some(image) => format!("image {}", image.trim_end_matches(']')),
            None if text.contains("status") => {
                format!("status {}", part("remaining\": ", &['}']))
            }
            None if text.contains("null") => "end".to_owned(),
            None => format!("{} {}", part("type\": \"", &['"']), part("\"n\": ", &['}'])),
        }
    });
    short.collect()
}

#[tokio::test]
async fn one_who_reads_slowly_misses_steps_and_no_result() {
    let clients = Clients::default();
    let mut peer = Peer::greeted(&clients, "a").await;
    clients.send("a", frame("execution_start", "p", 0));
    for n in 1..100 {
        clients.send("a", of_node("progress", "p", "3", n));
        clients.send("a", frame("progress_state", "p", n));
        clients.send("a", preview("p", "3", "jpeg", &[n as u8]));
        if n % 33 == 0 {
            clients.send("a", of_node("progress", "p", "4", n));
            clients.send("a", of_node("executed", "p", "3", n));
            clients.send("a", preview("p", "3", "png", &[n as u8]));
        }
    }
    clients.send("a", frame("execution_success", "p", 100));
    clients.send("a", Frame::end("p"));
    let heard = until(&mut peer, "null").await;
    assert_eq!(
        short(&heard),
        [
            "execution_start 0",
            "executed 33",
            "image 33",
            "executed 66",
            "image 66",
            "progress 99",
            "progress_state 99",
            "image 99",
            "progress 99",
            "executed 99",
            "image 99",
            "execution_success 100",
            "end"
        ]
    );
}

#[tokio::test]
async fn steps_of_other_prompts_and_nodes_do_not_replace_each_other() {
    let clients = Clients::default();
    let mut peer = Peer::greeted(&clients, "a").await;
    for n in 0..2 {
        for prompt in ["p", "q"] {
            clients.send("a", of_node("progress", prompt, "3", n));
            clients.send("a", of_node("progress", prompt, "4", n));
            clients.send("a", frame("progress_state", prompt, n));
            clients.send("a", preview(prompt, "3", "jpeg", &[n as u8]));
            clients.send("a", preview(prompt, "4", "jpeg", &[n as u8]));
        }
    }
    clients.send("a", frame("executed", "p", 9));
    let heard = until(&mut peer, "executed").await;
    assert_eq!(heard.len(), 11, "{heard:?}");
    assert!(heard[..10].iter().all(|text| !text.contains("\"n\": 0")));
}

#[tokio::test]
async fn a_count_is_replaced_and_still_comes_before_the_end_that_it_counts() {
    let clients = Clients::default();
    let mut peer = Peer::greeted(&clients, "a").await;
    for remaining in [3, 4, 5] {
        clients.status(remaining);
    }
    for (prompt, remaining) in [("p", 2), ("q", 1)] {
        clients.send("a", frame("execution_success", prompt, 0));
        clients.status(remaining + 10);
        clients.status(remaining);
        clients.send("a", Frame::end(prompt));
    }
    clients.status(8);
    clients.status(9);
    let heard = until(&mut peer, ": 9}").await;
    assert_eq!(
        short(&heard),
        [
            "execution_success 0",
            "status 2",
            "end",
            "execution_success 0",
            "status 1",
            "end",
            "status 9"
        ]
    );
}

#[tokio::test]
async fn what_may_be_left_out_is_bounded_and_the_oldest_goes_first() {
    let passing = Room {
        frames: 8,
        bytes: 10_000,
    };
    let clients = Clients::new(Limits {
        passing,
        ..Limits::default()
    });
    let mut peer = Peer::greeted(&clients, "a").await;
    for n in 0..50 {
        clients.send("a", of_node("progress", &format!("p{n}"), "3", n));
    }
    clients.send("a", frame("executed", "p", 50));
    let heard = short(&until(&mut peer, "executed").await);
    assert_eq!(heard.len(), 9);
    assert_eq!(heard[0], "progress 42");

    let large = [7; 4000];
    for n in 0..5 {
        clients.send("a", preview(&format!("p{n}"), "3", "jpeg", &large));
    }
    // It is longer than all may be together: it takes the place of all.
    clients.send("a", preview("p", "4", "jpeg", &[8; 20_000]));
    clients.send("a", frame("executed", "p", 51));
    let heard = short(&until(&mut peer, "executed").await);
    assert_eq!(heard, ["image 8", "executed 51"]);
}

#[tokio::test]
async fn one_for_whom_too_many_results_wait_is_closed_and_hears_the_ends_when_it_comes_again() {
    let clients = Clients::new(Limits {
        kept: Room {
            frames: 100,
            bytes: 100_000,
        },
        ..Limits::default()
    });
    let peer = Peer::greeted(&clients, "a").await;
    let mut other = Peer::greeted(&clients, "b").await;
    clients.send("a", frame("execution_start", "p", 0));
    // One is taken however long it is.
    clients.send("a", preview("p", "3", "png", &[1; 90_000]));
    clients.send("a", of_node("executed", "p", "3", 1));
    assert!(clients.is_attached("a"));
    clients.send("a", preview("p", "3", "png", &[1; 90_000]));
    assert!(!clients.is_attached("a"), "it is over at once");
    clients.send("a", frame("execution_success", "p", 2));
    clients.send("a", Frame::end("p"));
    let (code, why) = peer.closed().await;
    assert_eq!((code, why.len() < 124), (1013, true), "{why}");

    let mut again = Peer::greeted(&clients, "a").await;
    let heard = until(&mut again, "null").await;
    assert_eq!(short(&heard), ["executed 1", "execution_success 2", "end"]);
    for n in 0..101 {
        clients.send("a", frame("executed", "q", n));
    }
    assert!(!clients.is_attached("a"), "frames are counted, too");
    assert_eq!(again.closed().await.0, 1013);

    let third = Peer::greeted(&clients, "c").await;
    for n in 0..110 {
        clients.broadcast(frame("notification", "q", n));
        other.text().await;
    }
    assert!(!clients.is_attached("c"), "whatever they are");
    assert_eq!(third.closed().await.0, 1013);

    clients.send("b", frame("executed", "r", 1));
    assert!(other.text().await.contains("\"r\""), "others go on");
}

#[tokio::test]
async fn a_single_result_may_be_of_any_length() {
    let clients = Clients::new(Limits {
        kept: Room {
            frames: 100,
            bytes: 1000,
        },
        ..Limits::default()
    });
    let mut peer = Peer::greeted(&clients, "a").await;
    clients.send("a", preview("p", "3", "png", &[1; 50_000]));
    assert_eq!(peer.bytes().await.len(), 50_008);
}

#[tokio::test]
async fn all_clients_together_are_bounded_and_one_with_little_waiting_is_not_closed_for_others() {
    let clients = Clients::new(Limits {
        all: 100_000,
        small: 10_000,
        ..Limits::default()
    });
    let hog = Peer::greeted(&clients, "hog").await;
    let mut small = Peer::greeted(&clients, "small").await;
    clients.send("gone", frame("executed", "p", 1));
    for _ in 0..9 {
        clients.send("hog", preview("p", "3", "png", &[1; 10_000]));
    }
    for n in 0..30 {
        clients.send("small", frame("executed", "q", n));
    }
    assert!(clients.is_attached("hog"));
    clients.send("hog", preview("p", "3", "png", &[1; 10_000]));
    assert!(!clients.is_attached("hog") && clients.is_attached("small"));
    assert_eq!(hog.closed().await.0, 1013);
    let heard = short(&until(&mut small, "\"n\": 29").await);
    assert_eq!(heard.len(), 30);
    // What was kept for one who is away went before anybody was closed.
    let mut gone = Peer::greeted(&clients, "gone").await;
    clients.send("gone", said(r#"{"type": "x", "data": {"n": 5}}"#));
    assert_eq!(short(&until(&mut gone, "n").await), ["x 5"]);
}
