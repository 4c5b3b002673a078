//! WebSockets to nodes, on which a kind speaks as the client.

use super::handshake;
use super::node_http::{Client, LONGEST};
use super::talk::{Rules, Talk};
use http::Request;
use std::future::pending;
use std::time::Duration;
use tabane_api::{NodeError, Socket};
use tokio::time::timeout;

/// A node that answers no ping for so long is gone; one that sends what it made may send much.
const RULES: Rules = Rules {
    ping: Some(Duration::from_secs(10)),
    silence: Duration::from_secs(30),
    longest: 512 << 20,
};

/// Opens a socket to a client's node, and gives the kind its seat at it.
pub(super) async fn open(
    client: &Client,
    request: Request<()>,
) -> Result<Box<dyn Socket>, NodeError> {
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str());
    let (host, said) = (client.authority(), request.headers());
    let mut stream = client.dial().await?;
    let asked = timeout(LONGEST, handshake::ask(&mut stream, &host, path, said));
    let rest = asked.await.map_err(|_| NodeError::Timeout)??;
    let (talk, seat) = Talk::with_server(stream, rest, RULES);
    // It ends with its seat.
    tokio::spawn(talk.run(pending()));
    Ok(Box::new(seat))
}
