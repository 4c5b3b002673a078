use super::*;
use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tabane_api::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const RULES: Rules = Rules {
    ping: Some(Duration::from_secs(10)),
    silence: Duration::from_secs(30),
    longest: 1 << 20,
};

type Other = WebSocketStream<DuplexStream>;

/// A talk with a client over a pipe that holds so many bytes.
async fn with_client(holds: usize) -> (Seat, Other, JoinHandle<Carried>) {
    let (ours, theirs) = duplex(holds);
    let (talk, seat) = Talk::with_client(ours, RULES);
    let other = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    (seat, other, tokio::spawn(talk.run(std::future::pending())))
}

/// What a close frame says that comes next, past pings.
async fn parting(other: &mut Other) -> Option<(CloseCode, String)> {
    loop {
        match other.next().await {
            Some(Ok(Frame::Close(frame))) => {
                return frame.map(|frame| (frame.code, frame.reason.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn one_who_answers_pings_stays_and_one_who_does_not_is_given_up() {
    let (mut seat, mut other, talk) = with_client(4096).await;
    // Reading is answering.
    let answering = async {
        while let Some(Ok(said)) = other.next().await {
            assert!(said.is_ping(), "{said:?}");
        }
    };
    let an_hour = Duration::from_secs(3600);
    assert!(timeout(an_hour, answering).await.is_err(), "it stays");
    let began = Instant::now();
    assert_eq!(seat.receive().await, Err(NodeError::Timeout));
    let waited = began.elapsed();
    assert!(
        waited.abs_diff(RULES.silence) < RULES.silence / 2,
        "{waited:?}"
    );
    assert!(talk.await.unwrap().received > 0);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_does_not_listen_costs_nobody_a_socket() {
    let (mut seat, mut other, _talk) = with_client(4096).await;
    for text in ["one", "two"] {
        other.send(Frame::text(text)).await.unwrap();
    }
    tokio::time::sleep(20 * RULES.silence).await;
    for text in ["one", "two"] {
        assert_eq!(seat.receive().await, Ok(Some(Message::Text(text.into()))));
    }
    other.send(Frame::text("three")).await.unwrap();
    assert_eq!(
        seat.receive().await,
        Ok(Some(Message::Text("three".into())))
    );
}

#[tokio::test]
async fn a_message_is_one_frame_whatever_is_said_meanwhile() {
    let (ours, mut theirs) = duplex(1000);
    let (talk, mut seat) = Talk::with_client(ours, RULES);
    let _talk = tokio::spawn(talk.run(std::future::pending()));
    let message = pattern(300_000);
    let sent = tokio::spawn({
        let message = message.clone();
        async move {
            seat.send(Message::Binary(message)).await.unwrap();
            seat.send(Message::Text("next".into())).await.unwrap();
            seat
        }
    });
    let mut began = [0; 10];
    theirs.read_exact(&mut began).await.unwrap();
    // A ping in the middle of it, which wants to be answered.
    let ping = [0x89, 0x81, 0, 0, 0, 0, b'!'];
    theirs.write_all(&ping).await.unwrap();
    let mut wants = BytesMut::new();
    frames::put_head(&mut wants, frames::BINARY, message.len(), None);
    wants.extend_from_slice(&message);
    wants.extend_from_slice(&[0x8A, 1, b'!']);
    let mut got = BytesMut::from(&began[..]);
    got.resize(wants.len(), 0);
    theirs.read_exact(&mut got[10..]).await.unwrap();
    assert!(got == wants, "the message, then the pong");
    let mut next = [0; 6];
    theirs.read_exact(&mut next).await.unwrap();
    assert_eq!(&next, b"\x81\x04next");
    sent.await.unwrap();
}

#[tokio::test]
async fn a_message_that_nobody_waited_for_comes_whole_and_before_the_next() {
    let (mut seat, mut other, _talk) = with_client(1000).await;
    let message = pattern(100_000);
    let unfinished = timeout(
        Duration::from_millis(20),
        seat.send(Message::Binary(message.clone())),
    );
    assert!(unfinished.await.is_err(), "nobody reads");
    let sent = tokio::spawn(async move {
        seat.send(Message::Text("next".into())).await.unwrap();
        seat
    });
    assert_eq!(other.next().await.unwrap().unwrap(), Frame::binary(message));
    assert_eq!(other.next().await.unwrap().unwrap(), Frame::text("next"));
    sent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_who_takes_nothing_is_given_up() {
    let (mut seat, _other, _talk) = with_client(1000).await;
    let sent = seat.send(Message::Binary(pattern(100_000))).await;
    assert_eq!(sent, Err(NodeError::Timeout));
    assert_eq!(seat.receive().await, Err(NodeError::Timeout));
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_its_code() {
    let (mut seat, mut other, _talk) = with_client(64 << 10).await;
    // It may be refused before it is all there.
    let _ = other.send(Frame::binary(pattern(RULES.longest + 1))).await;
    let (code, why) = parting(&mut other).await.unwrap();
    assert_eq!(code, CloseCode::Size);
    assert!(why.contains("1048576 bytes"), "{why}");
    assert!(matches!(seat.receive().await, Err(NodeError::Broken(_))));
    // Not masked, no text, of no kind that there is.
    for (frame, code) in [
        (&[0x81, 0x01, b'a'][..], 1002_u16),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
    ] {
        let (ours, mut theirs) = duplex(1000);
        let (talk, _seat) = Talk::with_client(ours, RULES);
        let _talk = tokio::spawn(talk.run(std::future::pending()));
        theirs.write_all(frame).await.unwrap();
        let mut close = [0; 4];
        theirs.read_exact(&mut close).await.unwrap();
        assert_eq!(close[0], 0x88, "{frame:?}");
        assert_eq!(close[2..], code.to_be_bytes(), "{frame:?}");
    }
}

#[tokio::test]
async fn the_last_word_is_the_kinds() {
    let (mut seat, mut other, _talk) = with_client(4096).await;
    seat.close(4001, "enough").await;
    let said = parting(&mut other).await;
    assert_eq!(said, Some((CloseCode::Library(4001), "enough".into())));
    assert_eq!(seat.receive().await, Ok(None));
    assert!(seat.send(Message::Text("more".into())).await.is_err());

    // A reason is short, and a code one that may be sent.
    let (mut seat, mut other, _talk) = with_client(4096).await;
    seat.close(1006, &"é".repeat(100)).await;
    let said = parting(&mut other).await;
    assert_eq!(said, Some((CloseCode::Error, "é".repeat(61))));

    let (seat, mut other, _talk) = with_client(4096).await;
    drop(seat);
    let said = parting(&mut other).await;
    assert_eq!(said, Some((CloseCode::Normal, String::new())));

    let (seat, mut other, _talk) = with_client(4096).await;
    let panicked = tokio::spawn(async move {
        let _seat = seat;
        panic!("as the test wants it");
    });
    assert!(panicked.await.is_err());
    let (code, _) = parting(&mut other).await.unwrap();
    assert_eq!(code, CloseCode::Error);
}

#[tokio::test]
async fn what_the_kind_said_before_it_left_is_said() {
    let (mut seat, mut other, talk) = with_client(1000).await;
    let message = pattern(50_000);
    let unfinished = timeout(
        Duration::from_millis(20),
        seat.send(Message::Binary(message.clone())),
    );
    assert!(unfinished.await.is_err());
    drop(seat);
    assert_eq!(other.next().await.unwrap().unwrap(), Frame::binary(message));
    let (code, _) = parting(&mut other).await.unwrap();
    assert_eq!(code, CloseCode::Normal);
    assert!(talk.await.unwrap().sent > 50_000);
}

#[tokio::test]
async fn whoever_closes_is_answered() {
    let (mut seat, mut other, talk) = with_client(4096).await;
    other.send(Frame::text("bye")).await.unwrap();
    other.close(None).await.unwrap();
    // What came before the close is still heard.
    assert_eq!(seat.receive().await, Ok(Some(Message::Text("bye".into()))));
    assert_eq!(seat.receive().await, Ok(None));
    assert_eq!(parting(&mut other).await, None);
    talk.await.unwrap();
    let (mut seat, other, _talk) = with_client(4096).await;
    drop(other);
    assert!(matches!(seat.receive().await, Err(NodeError::Broken(_))));
}

#[tokio::test]
async fn one_that_the_gateway_lets_go_of_hears_so_after_the_message_under_way() {
    let (ours, theirs) = duplex(1000);
    let (talk, mut seat) = Talk::with_client(ours, RULES);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let over = async move { drop(ended.await) };
    let _talk = tokio::spawn(talk.run(over));
    let mut other = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    let message = pattern(50_000);
    let unfinished = timeout(
        Duration::from_millis(20),
        seat.send(Message::Binary(message.clone())),
    );
    assert!(unfinished.await.is_err());
    end.send(()).unwrap();
    assert!(matches!(seat.receive().await, Err(NodeError::Broken(_))));
    assert_eq!(other.next().await.unwrap().unwrap(), Frame::binary(message));
    let (code, _) = parting(&mut other).await.unwrap();
    assert_eq!(code, CloseCode::Restart);
}

#[tokio::test]
async fn a_client_of_a_node_masks_what_it_says() {
    let (ours, theirs) = duplex(1000);
    // It refuses what is not masked.
    let mut node = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    let early = Bytes::from_static(b"\x81\x05early");
    let (talk, mut seat) = Talk::with_server(ours, early, RULES);
    let _talk = tokio::spawn(talk.run(std::future::pending()));
    let message = pattern(100_003);
    let both = Message::Binary(message.clone());
    let (sent, got) = tokio::join!(seat.send(both), node.next());
    sent.unwrap();
    assert_eq!(got.unwrap().unwrap(), Frame::binary(message));
    node.send(Frame::text("good")).await.unwrap();
    for text in ["early", "good"] {
        assert_eq!(seat.receive().await, Ok(Some(Message::Text(text.into()))));
    }
    seat.close(1000, "").await;
    assert!(node.next().await.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn one_who_pings_and_never_reads_is_still_heard() {
    // The answers fill the pipe at once.
    let (ours, mut theirs) = duplex(100);
    let (talk, mut seat) = Talk::with_client(ours, RULES);
    let _talk = tokio::spawn(talk.run(std::future::pending()));
    let flood = tokio::spawn(async move {
        let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(10_000);
        theirs.write_all(&pings).await.unwrap();
        let text = [0x81, 0x81, 0, 0, 0, 0, b'!'];
        theirs.write_all(&text).await.unwrap();
        theirs
    });
    assert_eq!(seat.receive().await, Ok(Some(Message::Text("!".into()))));
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_lies_unread_is_no_sign_of_life() {
    let (mut seat, _other, _talk) = with_client(1 << 20).await;
    let began = Instant::now();
    while seat.send(Message::Text("more".into())).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < 2 * RULES.silence, "it reads nothing");
    }
}
