//! One client's connection from its first byte to its last: whose turn it is, and how long that may take.

use super::client::Client;
use super::doors::Doors;
use super::head::{self, Bounds, Fault, Progress};
use super::lent::Lent;
use super::pace::Pace;
use super::proxy::Edge;
use crate::config::plan::LimitsPlan;
use async_trait::async_trait;
use http::StatusCode;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Refusal, Shape};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a client may take to read that it was refused.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection is still listened to when its listener has closed.
const LINGER: Duration = Duration::from_millis(300);

/// What a connection turned out to be.
enum Opening {
    /// A request of HTTP/1, let through.
    Request,
    /// HTTP/2.
    H2,
    /// The client left, said nothing in time, or the listener closed while it said nothing.
    Over,
    /// The client cannot be served, and is told why.
    Refused(Fault),
}

/// Serves a client until it leaves.
pub(super) async fn serve(
    client: Client,
    from: SocketAddr,
    app: Arc<HttpProxy<Edge>>,
    doors: Arc<Doors>,
    mut closing: watch::Receiver<bool>,
) {
    let mut lent = Box::new(Lent::new(client));
    let mut first = true;
    // A client that was taken back became a socket, which is over by now.
    while let Some(client) = lent.client() {
        match next(client, first, doors.limits(), &mut closing).await {
            Opening::Request => {}
            Opening::H2 => {
                client.open();
                let app = Arc::new(OverH2::new(app, doors.limits()));
                app.process_new(lent, &closing).await;
                return;
            }
            Opening::Over => return,
            Opening::Refused(fault) => {
                doors.turned_away(from, fault);
                if let Some(client) = lent.take() {
                    farewell(client, fault).await;
                }
                return;
            }
        }
        first = false;
        let mut session = ServerSession::new_http1(lent);
        let keep_alive = doors.limits().keep_alive.as_secs().max(1);
        session.set_keepalive(Some(keep_alive));
        let Some(reused) = app.process_new_http(session, &closing).await else {
            return;
        };
        let (stream, _) = reused.consume();
        let Ok(same) = stream.into_any().downcast::<Lent>() else {
            return;
        };
        lent = same;
        // What was not read of a body would be taken for a request.
        if !lent
            .client()
            .is_some_and(|client| client.is_between_requests())
        {
            return;
        }
    }
}

/// Waits for a request, and reads its head.
async fn next(
    client: &mut Client,
    first: bool,
    limits: LimitsPlan,
    closing: &mut watch::Receiver<bool>,
) -> Opening {
    let idle = if first {
        limits.client_head
    } else {
        limits.keep_alive
    };
    if client.ahead().is_empty() {
        let begun = tokio::select! {
            biased;
            begun = timeout(idle, client.fill()) => begun,
            // A request that is on its way may still come, and is told that it was the last.
            () = closed(closing) => timeout(LINGER, client.fill()).await,
        };
        if !matches!(begun, Ok(Ok(1..))) {
            return Opening::Over;
        }
    }
    let whole_by = Instant::now() + limits.client_head;
    let bounds = Bounds {
        bytes: limits.head_bytes,
        fields: limits.head_lines,
    };
    let mut progress = Progress::default();
    let mut skipped = false;
    loop {
        // One empty line before a request means nothing (RFC 9112, 2.2).
        if !skipped && client.ahead().starts_with(b"\r\n") {
            client.skip(2);
            progress = Progress::default();
            skipped = true;
        }
        match first && !skipped {
            true if client.ahead().starts_with(H2) => return Opening::H2,
            // The rest of it is on its way, and may take as long as a head.
            true if H2.starts_with(client.ahead()) => {}
            _ => match head::read(client.ahead(), &mut progress, bounds) {
                Ok(Some(head)) => {
                    client.admit(head, Pace::new(limits.client_write, limits.client_rate));
                    return Opening::Request;
                }
                Ok(None) => {}
                Err(fault) => return Opening::Refused(fault),
            },
        }
        match timeout_at(whole_by, client.fill()).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Opening::Over,
            Err(_) => {
                return Opening::Refused(Fault {
                    status: StatusCode::REQUEST_TIMEOUT,
                    why: "the head of the request did not come in time",
                });
            }
        }
    }
}

/// Waits until the listener closes.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// How HTTP/2 begins; no request of HTTP/1 does (RFC 9113, 3.4). Pingora would wait for the rest of it for ever.
const H2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much a client of HTTP/2 may send before the gateway has read it, on one connection.
const WINDOW: u32 = 1 << 20;

/// Tells a client why it cannot be served, and waits a moment for it to read that.
pub(super) async fn farewell(client: Client, fault: Fault) {
    let word = word(fault);
    let _ = timeout(FAREWELL, client.farewell(word.as_bytes())).await;
}

/// A whole answer to one who cannot be served.
fn word(fault: Fault) -> String {
    let Fault { status, why } = fault;
    let refusal = match status {
        StatusCode::SERVICE_UNAVAILABLE => Refusal::Overloaded(why.into()),
        StatusCode::REQUEST_TIMEOUT => Refusal::TooSlow,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
            Refusal::HeadTooLarge(why.into())
        }
        _ => Refusal::BadRequest(why.into()),
    };
    let Shape {
        content_type, body, ..
    } = Shape::plain(&refusal);
    let reason = status.canonical_reason().unwrap_or_default();
    let again = match status {
        StatusCode::SERVICE_UNAVAILABLE => "retry-after: 5\r\n",
        _ => "",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n{again}connection: close\r\n\r\n{}",
        status.as_u16(),
        body.len(),
        String::from_utf8_lossy(&body)
    )
}

/// The proxy, for a client that speaks HTTP/2.
struct OverH2 {
    app: Arc<HttpProxy<Edge>>,
    options: HttpServerOptions,
    h2: H2Options,
}

impl OverH2 {
    fn new(app: Arc<HttpProxy<Edge>>, limits: LimitsPlan) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(limits.keep_alive);
        let mut h2 = H2Options::default();
        h2.max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
        h2.max_concurrent_streams(limits.h2_streams);
        // The standard's 64 KiB makes an upload over 50 ms of distance crawl at 1.3 MB/s. What a connection may
        // have under way is bounded as a whole, however many its streams.
        h2.initial_window_size(WINDOW);
        h2.initial_connection_window_size(WINDOW);
        OverH2 { app, options, h2 }
    }
}

#[async_trait]
impl HttpServerApp for OverH2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.app.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    async fn http_cleanup(&self) {
        self.app.http_cleanup().await;
    }
}
