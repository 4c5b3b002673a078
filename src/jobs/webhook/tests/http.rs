//! Letters over real connections, on this machine.

use super::fakes::{SECRET, Scene, answered, swap};
use crate::jobs::webhook::{Guard, HttpPost, Outcome, Post};
use crate::store::Moment;
use arc_swap::ArcSwap;
use http::{HeaderMap, Uri};
use standardwebhooks::Webhook;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Answers each request with these bytes, and keeps the connection; what it was asked comes out of the channel.
async fn server(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tells, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, answer, tells.clone()));
        }
    });
    (address, told)
}

async fn serve(mut socket: TcpStream, answer: &str, tells: mpsc::UnboundedSender<String>) {
    let mut asked = Vec::new();
    while socket.read_buf(&mut asked).await.is_ok_and(|n| n > 0) {
        if is_whole(&asked) {
            let _ = tells.send(String::from_utf8_lossy(&asked).into_owned());
            let _ = socket.write_all(answer.as_bytes()).await;
            asked.clear();
        }
    }
}

/// Whether a request is there to its end; what is no request is.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return !asked.is_empty() && asked[0] != b'P';
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().unwrap())
    });
    body.len() >= length.unwrap_or(0)
}

fn guard(allow: &[&str]) -> Arc<ArcSwap<Guard>> {
    swap(Guard::new(allow.iter().copied()).unwrap())
}

async fn post(allow: &[&str], url: String) -> Outcome {
    let post = HttpPost::new(guard(allow));
    let url: Uri = url.parse().unwrap();
    post.post(&url, HeaderMap::new(), "{}".into()).await
}

#[tokio::test]
async fn a_receiver_gets_a_letter_as_the_standard_says() {
    let (address, mut told) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let guard = guard(&["127.0.0.0/8"]);
    let mut scene = Scene::new(|_| answered(500));
    scene.deliverer.post = Arc::new(HttpPost::new(guard.clone()));
    scene.deliverer.guard = guard;
    // The receivers' crate compares with the real clock.
    scene.deliverer.clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Moment(since.as_millis() as i64)
    });
    scene.write("m1", "a", &format!("http://{address}/hook?to=a"));
    assert_eq!(scene.deliverer.run_due().await, 1);
    assert!(scene.fate("m1").delivered.is_some());

    let asked = told.recv().await.unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /hook?to=a HTTP/1.1"));
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let name = http::HeaderName::try_from(name).unwrap();
        headers.insert(name, value.trim().parse().unwrap());
    }
    assert_eq!(headers["host"], address.to_string());
    assert_eq!(headers["content-type"], "application/json");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(headers["user-agent"], format!("tabane/{version}"));
    assert_eq!(headers["webhook-id"], "m1");
    let receiver = Webhook::new(SECRET).unwrap();
    receiver.verify(body.as_bytes(), &headers).unwrap();
}

#[tokio::test]
async fn answers_are_taken_as_they_are() {
    for (answer, status, retry_after) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, None),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410, None),
        (
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
            429,
            Some("7".to_owned()),
        ),
        // The body is not waited for.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\na",
            200,
            None,
        ),
        ("HTTP/1.1 500 No\r\n\r\n", 500, None),
    ] {
        let (address, _told) = server(answer).await;
        let outcome = post(&["127.0.0.0/8"], format!("http://{address}/")).await;
        let status = http::StatusCode::from_u16(status).unwrap();
        let wants = Outcome::Answered {
            status,
            retry_after,
        };
        assert_eq!(outcome, wants, "{answer}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for answer in [
        "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 303 See Other\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (address, mut told) = server(answer).await;
        let outcome = post(&["127.0.0.0/8"], format!("http://{address}/")).await;
        let redirected = |outcome: &Outcome| matches!(outcome, Outcome::Answered { status, .. } if status.is_redirection());
        assert!(redirected(&outcome), "{outcome:?}");
        assert!(told.recv().await.unwrap().starts_with("POST / "));
        assert!(told.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left() {
    let (address, _told) = server("").await;
    let post = HttpPost::with_timeout(guard(&["127.0.0.0/8"]), Duration::from_millis(100));
    let url: Uri = format!("http://{address}/").parse().unwrap();
    let outcome = post.post(&url, HeaderMap::new(), "{}".into()).await;
    assert_eq!(outcome, Outcome::TimedOut);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_no_receiver_are_failures() {
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (plain, mut told) = server("this is neither HTTP nor TLS").await;
    for url in [
        format!("http://{free}/"),
        format!("http://{plain}/"),
        format!("https://{plain}/"),
        format!("https://localhost:{}/", plain.port()),
    ] {
        let outcome = post(&["localhost", "127.0.0.0/8", "::1"], url.clone()).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{url}: {outcome:?}");
    }
    assert!(told.recv().await.unwrap().starts_with("POST"));
    // A client's hello.
    assert!(told.recv().await.unwrap().starts_with('\u{16}'));
}

#[tokio::test]
async fn a_listed_name_that_leads_inside_is_not_connected_to() {
    let (address, mut told) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let url = format!("http://localhost:{}/", address.port());
    let outcome = post(&["localhost"], url.clone()).await;
    let Outcome::Failed(why) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        why.contains("is loopback, and not in a listed range"),
        "{why}"
    );
    assert!(told.try_recv().is_err());
    // With its range it is; the name is asked for as it was written.
    let outcome = post(&["localhost", "127.0.0.0/8", "::1"], url).await;
    assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
    let asked = told.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        asked.contains(&format!("host: localhost:{}", address.port())),
        "{asked}"
    );
}

#[tokio::test]
async fn a_list_that_is_replaced_counts_at_once() {
    let (address, mut told) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let list = guard(&["127.0.0.0/8"]);
    let post = HttpPost::new(list.clone());
    let url: Uri = format!("http://{address}/").parse().unwrap();
    let first = post.post(&url, HeaderMap::new(), "{}".into()).await;
    assert!(matches!(first, Outcome::Answered { .. }), "{first:?}");
    told.recv().await.unwrap();
    list.store(Arc::new(Guard::default()));
    let second = post.post(&url, HeaderMap::new(), "{}".into()).await;
    assert!(matches!(second, Outcome::Failed(_)), "{second:?}");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_is_used_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        // Kept open, and never answered on again.
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !is_whole(&asked) && socket.read_buf(&mut asked).await.is_ok_and(|n| n > 0) {}
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            kept.push(socket);
        }
        kept
    });
    let post = HttpPost::with_timeout(guard(&["127.0.0.0/8"]), Duration::from_secs(2));
    let url: Uri = format!("http://{address}/").parse().unwrap();
    for _ in 0..2 {
        let outcome = post.post(&url, HeaderMap::new(), "{}".into()).await;
        assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
    }
    assert_eq!(serving.await.unwrap().len(), 2);
}
