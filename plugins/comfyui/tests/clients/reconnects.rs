//! Clients that come late, leave, and come again.

use crate::peer::{Peer, frame, of_node, preview, said};
use std::time::Duration;
use tabane_comfyui::clients::{Clients, Limits, Room};
use tabane_comfyui::frames::Frame;
use tokio::time::advance;

/// All that is told before this.
async fn told(clients: &Clients, peer: &mut Peer, id: &str) -> Vec<String> {
    clients.send(id, said(r#"{"type": "mark"}"#));
    let mut told = Vec::new();
    loop {
        let text = peer.text().await;
        if text.contains("mark") {
            return told;
        }
        told.push(text);
    }
}

fn texts(frames: &[Frame]) -> Vec<String> {
    let texts = frames.iter().map(|frame| frame.text().unwrap().to_owned());
    texts.collect()
}

#[tokio::test]
async fn ends_that_fell_into_a_gap_are_told_once_after_the_greeting() {
    let clients = Clients::default();
    let peer = Peer::greeted(&clients, "a").await;
    clients.send("a", frame("execution_start", "p", 0));
    peer.leaves().await;
    let missed = [
        of_node("executed", "p", "3", 1),
        frame("execution_success", "p", 2),
        Frame::end("p"),
        frame("execution_error", "q", 3),
        frame("execution_interrupted", "r", 4),
    ];
    for frame in &missed {
        clients.send("a", of_node("progress", "p", "3", 9));
        clients.send("a", preview("p", "3", "png", b"x"));
        clients.send("a", frame.clone());
    }
    let mut again = Peer::greeted(&clients, "a").await;
    assert_eq!(told(&clients, &mut again, "a").await, texts(&missed));
    again.leaves().await;
    let mut third = Peer::greeted(&clients, "a").await;
    assert!(told(&clients, &mut third, "a").await.is_empty());
}

#[tokio::test]
async fn one_who_submits_before_it_connects_hears_the_end_as_well() {
    let clients = Clients::default();
    let job = [
        frame("execution_start", "p", 0),
        of_node("executing", "p", "3", 1),
        of_node("executed", "p", "3", 2),
        frame("execution_success", "p", 3),
        Frame::end("p"),
    ];
    for frame in &job {
        clients.send("late", frame.clone());
    }
    let mut late = Peer::greeted(&clients, "late").await;
    let ends = texts(&job[2..]);
    assert_eq!(told(&clients, &mut late, "late").await, ends);
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_kept_for_a_minute_each() {
    let clients = Clients::default();
    Peer::greeted(&clients, "a").await.leaves().await;
    clients.send("a", frame("executed", "p", 1));
    advance(Duration::from_secs(40)).await;
    clients.send("a", frame("executed", "p", 2));
    clients.send("b", frame("executed", "q", 3));
    advance(Duration::from_secs(40)).await;
    let mut again = Peer::greeted(&clients, "a").await;
    let heard = told(&clients, &mut again, "a").await;
    assert_eq!(heard, texts(&[frame("executed", "p", 2)]));
    // What was sent while it was here, and not read, is missed from when it leaves.
    clients.send("a", frame("executed", "p", 4));
    clients.send("a", frame("executed", "p", 5));
    again.leaves().await;
    advance(Duration::from_secs(59)).await;
    let mut third = Peer::greeted(&clients, "a").await;
    let heard = told(&clients, &mut third, "a").await;
    assert_eq!(heard.last(), texts(&[frame("executed", "p", 5)]).last());
    let mut b = Peer::greeted(&clients, "b").await;
    assert!(told(&clients, &mut b, "b").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_told_too_late_is_missed_from_when_the_client_left() {
    let clients = Clients::default();
    let missed: Vec<_> = (0..4).map(|n| frame("executed", "p", n)).collect();
    for frame in &missed {
        clients.send("a", frame.clone());
    }
    // It comes, and reads nothing.
    advance(Duration::from_secs(40)).await;
    let first = Peer::greeted(&clients, "a").await;
    advance(Duration::from_secs(10)).await;
    let arrived = first.leaves().await.len();
    advance(Duration::from_secs(50)).await;
    clients.send("b", frame("executed", "q", 0));
    let mut again = Peer::greeted(&clients, "a").await;
    // Now it is here, and the rest may take as long as it likes.
    advance(Duration::from_secs(50)).await;
    clients.send("b", frame("executed", "q", 0));
    let heard = told(&clients, &mut again, "a").await;
    assert!(arrived < 2, "{arrived}");
    assert_eq!(heard, texts(&missed[arrived..]));
}

#[tokio::test]
async fn what_arrived_is_not_told_again() {
    let clients = Clients::default();
    let mut peer = Peer::greeted(&clients, "a").await;
    for n in 0..3 {
        clients.send("a", frame("executed", "p", n));
    }
    // The first arrived, the second is on its way.
    tokio::task::yield_now().await;
    peer.closes();
    let mut heard = Vec::new();
    while let Some(message) = peer.next().await {
        heard.push(message);
    }
    assert!(heard.len() < 3);
    let mut again = Peer::greeted(&clients, "a").await;
    let rest = told(&clients, &mut again, "a").await;
    assert_eq!(heard.len() + rest.len(), 3, "{heard:?} {rest:?}");
}

#[tokio::test]
async fn nobody_is_remembered_for_nothing() {
    let clients = Clients::new(Limits {
        clients: 2,
        ..Limits::default()
    });
    for id in ["a", "b", "c"] {
        Peer::greeted(&clients, id).await.leaves().await;
        clients.send(id, frame("progress", "p", 0));
        clients.send(id, said(r#"{"type": "execution_success", "data": {}}"#));
        clients.send(id, frame("execution_start", "p", 0));
        clients.send(id, frame("execution_success", "p", 1));
        let mut again = Peer::greeted(&clients, id).await;
        let told = told(&clients, &mut again, id).await;
        assert_eq!(told, texts(&[frame("execution_success", "p", 1)]), "{id}");
        again.leaves().await;
    }
    clients.send("d", frame("executed", "p", 1));
    let mut peer = Peer::greeted(&clients, "d").await;
    assert_eq!(told(&clients, &mut peer, "d").await.len(), 1);
    peer.leaves().await;
    let long = "x".repeat(2000);
    clients.send(&long, frame("executed", "p", 1));
    let mut peer = Peer::greeted(&clients, &long).await;
    assert!(told(&clients, &mut peer, &long).await.is_empty());
}

#[tokio::test]
async fn what_was_missed_is_bounded_and_the_latest_is_kept() {
    let clients = Clients::new(Limits {
        missed: Room {
            frames: 3,
            bytes: 2000,
        },
        clients: 2,
        ..Limits::default()
    });
    for n in 0..10 {
        clients.send("a", frame("executed", "p", n));
    }
    let long = "x".repeat(5000);
    clients.send("b", of_node("executed", &long, "3", 1));
    clients.send("b", frame("executed", "p", 2));
    clients.send("c", frame("executed", "p", 1));
    for (id, kept) in [("a", &[7, 8, 9][..]), ("b", &[2]), ("c", &[])] {
        let mut peer = Peer::greeted(&clients, id).await;
        let frames: Vec<_> = kept.iter().map(|n| frame("executed", "p", *n)).collect();
        assert_eq!(told(&clients, &mut peer, id).await, texts(&frames));
        peer.leaves().await;
    }
    let peer = Peer::greeted(&clients, "a").await;
    for n in 10..20 {
        clients.send("a", frame("executed", "p", n));
    }
    peer.leaves().await;
    let mut again = Peer::greeted(&clients, "a").await;
    let frames = [17, 18, 19].map(|n| frame("executed", "p", n));
    assert_eq!(told(&clients, &mut again, "a").await, texts(&frames));
}

#[tokio::test]
async fn who_connects_while_its_jobs_run_is_told_how_far_they_are() {
    let clients = Clients::default();
    let job = |prompt: &str, n| {
        [
            frame("execution_start", prompt, n),
            of_node("executing", prompt, "3", n),
            frame("progress_state", prompt, n),
            of_node("executing", prompt, "4", n + 1),
            frame("progress_state", prompt, n + 1),
        ]
    };
    for frame in job("p", 1).into_iter().chain(job("q", 3)) {
        clients.send("a", frame);
    }
    for end in [Some("p"), None] {
        let mut peer = Peer::greeted(&clients, "a").await;
        let [.., p, p_state] = job("p", 1);
        let [.., q, q_state] = job("q", 3);
        let all = texts(&[p, p_state, q, q_state]);
        let heard = told(&clients, &mut peer, "a").await;
        assert_eq!(heard, if end.is_some() { &all } else { &all[2..] });
        if let Some(prompt) = end {
            clients.send("a", Frame::end(prompt));
        }
        told(&clients, &mut peer, "a").await;
        peer.leaves().await;
    }
    // An attempt on another node begins anew.
    clients.send("a", frame("execution_start", "q", 9));
    let mut peer = Peer::greeted(&clients, "a").await;
    assert!(told(&clients, &mut peer, "a").await.is_empty());
    for end in [
        "execution_success",
        "execution_error",
        "execution_interrupted",
    ] {
        clients.send("a", frame("execution_start", "r", 0));
        clients.send("a", of_node("executing", "r", "3", 0));
        clients.send("a", frame(end, "r", 0));
        assert_eq!(told(&clients, &mut peer, "a").await.len(), 3);
        peer = Peer::greeted(&clients, "a").await;
        assert!(told(&clients, &mut peer, "a").await.is_empty(), "{end}");
    }
}

#[tokio::test]
async fn what_the_older_socket_was_not_sent_goes_to_the_newer() {
    let clients = Clients::default();
    let mut old = Peer::greeted(&clients, "a").await;
    let job = [
        frame("execution_start", "p", 0),
        of_node("executing", "p", "3", 1),
        frame("progress_state", "p", 2),
        of_node("executed", "p", "3", 3),
        of_node("executing", "p", "4", 4),
    ];
    for frame in &job {
        clients.send("a", frame.clone());
    }
    // It is sent the first, and the second is on its way, when another connects.
    assert_eq!(old.text().await, texts(&job)[0]);
    let mut new = Peer::connects(&clients, "a");
    assert!(new.text().await.contains("sid"));
    let heard = told(&clients, &mut new, "a").await;
    let mut rest = texts(&job);
    // The state is told anew, in case that it was read: it is the latest.
    let state = rest.remove(2);
    rest.push(state);
    let both: Vec<_> = old.arrived().into_iter().collect();
    assert!(both.len() <= 1, "what was on its way may arrive twice");
    assert!(heard == rest[1..] || heard == rest[2..], "{heard:?}");
}
