//! Who is told what.

use crate::peer::{Peer, frame, of_node, preview, said};
use bytes::Bytes;
use tabane_api::Message;
use tabane_comfyui::clients::Clients;
use tabane_comfyui::frames::Frame;

#[tokio::test]
async fn each_hears_of_its_own_jobs_and_all_hear_what_is_for_all() {
    let clients = Clients::default();
    let mut a = Peer::greeted(&clients, "a").await;
    let mut b = Peer::greeted(&clients, "b").await;
    assert_eq!(clients.count(), 2);
    assert!(clients.is_attached("a") && !clients.is_attached("c"));
    clients.send("a", frame("executed", "p", 1));
    clients.send("b", frame("executed", "q", 2));
    clients.send("c", frame("executed", "r", 3));
    clients.broadcast(said(r#"{"type": "notification", "data": {}}"#));
    clients.status(4);
    for (peer, prompt) in [(&mut a, "p"), (&mut b, "q")] {
        assert!(peer.text().await.contains(prompt));
        assert!(peer.text().await.contains("notification"));
        assert!(peer.text().await.contains(r#""queue_remaining": 4"#));
    }
    a.leaves().await;
    assert_eq!(clients.count(), 1);
    assert!(Peer::connects(&clients, "a").text().await.contains(": 4}"));
}

#[tokio::test]
async fn text_and_bytes_stay_in_order() {
    let clients = Clients::default();
    let mut peer = Peer::greeted(&clients, "a").await;
    peer.negotiates().await;
    for n in 0..40 {
        clients.send("a", of_node("executing", "p", "save", n));
        clients.send("a", preview("p", "save", "png", &[n as u8]));
    }
    for n in 0..40 {
        assert!(peer.text().await.contains(&format!(r#""n": {n}}}"#)));
        assert_eq!(peer.bytes().await.last(), Some(&(n as u8)));
    }
}

#[tokio::test]
async fn a_preview_comes_as_its_client_understands_it() {
    let clients = Clients::default();
    let mut plain = Peer::greeted(&clients, "plain").await;
    let mut full = Peer::greeted(&clients, "full").await;
    full.negotiates().await;
    let mut refusing = Peer::greeted(&clients, "refusing").await;
    refusing.says(r#"{"type": "feature_flags", "data": {"supports_preview_metadata": 1}}"#);
    assert!(refusing.text().await.contains("feature_flags"));
    for (kind, format) in [("jpeg", 1), ("png", 2)] {
        let told = preview("p", "3", kind, b"image");
        let Message::Binary(as_sent) = told.clone().message(true) else {
            panic!("a preview is bytes");
        };
        clients.broadcast(told);
        assert_eq!(full.bytes().await, as_sent);
        let rewritten = [&[0, 0, 0, 1, 0, 0, 0, format], &b"image"[..]].concat();
        for peer in [&mut plain, &mut refusing] {
            assert_eq!(peer.bytes().await, rewritten, "{kind}");
        }
    }
    // From a node that tells no metadata: there is nothing to add.
    let bare = Bytes::from_static(b"\0\0\0\x01\0\0\0\x01image");
    clients.send("full", Frame::read(Message::Binary(bare.clone())));
    assert_eq!(full.bytes().await, bare);
}

#[tokio::test]
async fn the_newest_socket_of_a_client_is_told_and_the_older_stays_open_and_hears_nothing() {
    let clients = Clients::default();
    let mut old = Peer::greeted(&clients, "a").await;
    clients.send("a", frame("executed", "p", 1));
    assert!(old.text().await.contains(r#""n": 1"#));
    let mut new = Peer::greeted(&clients, "a").await;
    assert_eq!(clients.count(), 1);
    for n in 2..5 {
        clients.send("a", frame("executed", "p", n));
        assert!(new.text().await.contains(&format!(r#""n": {n}"#)));
    }
    clients.status(1);
    assert!(new.text().await.contains("status"));
    old.says(r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#);
    clients.send("a", preview("p", "3", "png", b""));
    assert_eq!(
        new.bytes().await[..4],
        [0, 0, 0, 1],
        "the older's word is not the newer's"
    );
    // It is open, and empty: its end takes nothing from the newer one.
    assert_eq!(old.leaves().await, []);
    assert!(clients.is_attached("a"));
    clients.send("a", frame("executed", "p", 5));
    assert!(new.text().await.contains(r#""n": 5"#));
    new.leaves().await;
    assert!(!clients.is_attached("a"));
}
