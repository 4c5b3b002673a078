//! The client behind the plugins' `NodeClient`: short exchanges with a node, over Pingora's connector.

use super::hop;
use super::node_socket;
use super::peer::Peers;
use crate::config::plan::TimeoutsPlan;
use crate::dispatch::{Clients, Upstream};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use pingora::ErrorType::{
    ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, InvalidCert, InvalidHTTPHeader,
    ReadTimedout, TLSHandshakeFailure, TLSHandshakeTimedout, WriteTimedout,
};
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Stream;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Content, NodeClient, NodeError, Pieces, Socket};
use tokio::time::timeout;

/// The largest answer that is read: a probe's, a list of models.
const MOST: usize = 8 << 20;

/// How long an exchange may take, and a handshake; a probe's own timeout is shorter.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// How much of a long body is sent at once.
const PIECE: usize = 256 << 10;

const TIMEOUTS: TimeoutsPlan = TimeoutsPlan {
    connect: Duration::from_secs(3),
    read: Some(LONGEST),
    idle: Duration::ZERO,
};

/// Makes clients for nodes.
#[derive(Clone, Default)]
pub struct NodeHttp(Arc<Means>);

struct Means {
    connector: Connector,
    /// For sockets.
    transport: TransportConnector,
    peers: Peers,
}

/// A client for one node.
pub(super) struct Client {
    means: Arc<Means>,
    upstream: Arc<Upstream>,
}

impl Default for Means {
    fn default() -> Self {
        Means {
            connector: Connector::new(None),
            transport: TransportConnector::new(None),
            peers: Peers::default(),
        }
    }
}

impl Clients for NodeHttp {
    fn client(&self, upstream: &Arc<Upstream>) -> Arc<dyn NodeClient> {
        Arc::new(Client {
            means: self.0.clone(),
            upstream: upstream.clone(),
        })
    }
}

#[async_trait]
impl NodeClient for Client {
    fn name(&self) -> &str {
        &self.upstream.name
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
        let mut last = self.unknown();
        // A name may stand for several addresses of which one answers (`localhost` and IPv6).
        for _ in 0..self.upstream.address_count() {
            let Some(address) = self.upstream.address() else {
                break;
            };
            match timeout(LONGEST, self.exchange(address, &request)).await {
                Ok(Err(NodeError::Unreachable(why))) => {
                    self.upstream.address_failed(address);
                    last = NodeError::Unreachable(why);
                }
                Ok(answer) => return answer,
                Err(_) => return Err(NodeError::Timeout),
            }
        }
        Err(last)
    }

    async fn stream(&self, request: Request<Content>) -> Result<Response<Pieces>, NodeError> {
        let (parts, body) = request.into_parts();
        let mut session = self.connect().await?;
        let head = self.head(&parts, body.length())?;
        let sent = send_all(&mut session, head, &body).await;
        // A server that has heard enough answers and closes: its answer is worth more than our broken pipe.
        let read = read_head(&mut session).await;
        let mut answer = match (sent, read) {
            (_, Ok(answer)) => answer,
            (Err(error), Err(_)) => return Err(error),
            (Ok(()), Err(error)) => return Err(error),
        };
        for name in hop::for_us(answer.headers()) {
            answer.headers_mut().remove(name);
        }
        answer.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok(answer.map(|()| pieces(session)))
    }

    async fn socket(&self, request: Request<()>) -> Result<Box<dyn Socket>, NodeError> {
        node_socket::open(self, request).await
    }
}

/// Sends a head and all of a body.
async fn send_all(
    session: &mut HttpSession,
    head: RequestHeader,
    body: &Content,
) -> Result<(), NodeError> {
    session.set_write_timeout(Some(LONGEST));
    let said = |error: Box<Error>| said(&error);
    session
        .write_request_header(Box::new(head))
        .await
        .map_err(said)?;
    let mut given = 0;
    while given < body.length() {
        let piece = body.read(given, PIECE).await;
        let piece = piece.map_err(|error| {
            NodeError::BadRequest(format!("its body cannot be read back: {error}"))
        })?;
        if piece.is_empty() {
            return Err(NodeError::BadRequest("its body is cut short".into()));
        }
        given += piece.len() as u64;
        let end = given == body.length();
        session.write_request_body(piece, end).await.map_err(said)?;
    }
    session.finish_request_body().await.map_err(said)
}

/// The head of an answer, past those that only say that one will come.
async fn read_head(session: &mut HttpSession) -> Result<Response<()>, NodeError> {
    session.set_read_timeout(None);
    let head = answer_head(session).await.map_err(|error| said(&error))?;
    let mut answer = Response::new(());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers.clone();
    Ok(answer)
}

/// The same as Pingora has it.
pub(super) async fn answer_head(session: &mut HttpSession) -> Result<ResponseHeader> {
    loop {
        session.read_response_header().await?;
        let Some(head) = session.response_header() else {
            return Err(Error::explain(InvalidHTTPHeader, "no head"));
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let why = "the node switches to a protocol that nobody asked for";
            return Err(Error::explain(InvalidHTTPHeader, why));
        }
        if !head.status.is_informational() {
            return Ok(head.clone());
        }
    }
}

/// The body of an answer as it comes.
///
/// The connection is not used again: a node may close it in the very moment, and then nobody could say whether the next
/// attempt's request was taken.
fn pieces(session: HttpSession) -> Pieces {
    Box::pin(futures::stream::unfold(Some(session), |session| async {
        let mut session = session?;
        match session.read_response_body().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(session))),
            Ok(None) => None,
            Err(error) => Some((Err(said(&error)), None)),
        }
    }))
}

// === impl Client ===

impl Client {
    /// A connection to the first of the node's addresses that takes one.
    async fn connect(&self) -> Result<HttpSession, NodeError> {
        let mut last = self.unknown();
        for _ in 0..self.upstream.address_count() {
            let Some((address, peer)) = self.peer()? else {
                break;
            };
            match self.means.connector.get_http_session(&peer).await {
                Ok((session, _)) => return Ok(session),
                Err(error) => last = self.not_there(address, &error),
            }
        }
        Err(last)
    }

    /// The same, for what is not HTTP.
    pub(super) async fn dial(&self) -> Result<Stream, NodeError> {
        let mut last = self.unknown();
        for _ in 0..self.upstream.address_count() {
            let Some((address, mut peer)) = self.peer()? else {
                break;
            };
            // The handshake of a socket is HTTP/1.1.
            peer.options.set_http_version(1, 1);
            match self.means.transport.new_stream(&peer).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = self.not_there(address, &error),
            }
        }
        Err(last)
    }

    /// The node's own name for itself, as `Host` has it.
    pub(super) fn authority(&self) -> String {
        self.upstream.target.authority()
    }

    fn unknown(&self) -> NodeError {
        let host = &self.upstream.target.host;
        NodeError::Unreachable(format!("the name `{host}` is not known"))
    }

    /// The address to try next; `None` while the node's name is not known.
    fn peer(&self) -> Result<Option<(SocketAddr, HttpPeer)>, NodeError> {
        let Some(address) = self.upstream.address() else {
            return Ok(None);
        };
        let target = &self.upstream.target;
        let peer = self.means.peers.peer(target, address, &TIMEOUTS, LONGEST);
        let peer = peer.map_err(|error| said(&error))?;
        Ok(Some((address, peer)))
    }

    /// No connection to this address: another one is tried next.
    fn not_there(&self, address: SocketAddr, error: &Error) -> NodeError {
        self.upstream.address_failed(address);
        match said(error) {
            NodeError::Timeout => NodeError::Unreachable("no connection in time".into()),
            other => other,
        }
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, NodeError> {
        let target = &self.upstream.target;
        let peer = self
            .means
            .peers
            .peer(target, address, &TIMEOUTS, LONGEST)
            .map_err(|error| said(&error))?;
        let (parts, body) = request.clone().into_parts();
        let head = self.head(&parts, body.len() as u64)?;
        let (mut session, _) = self
            .means
            .connector
            .get_http_session(&peer)
            .await
            .map_err(|error| said(&error))?;
        self.talk(&mut session, head, body).await
    }

    /// The head of a request to the node: its own `Host` unless the request names one, and the length of its body.
    fn head(&self, request: &Parts, length: u64) -> Result<RequestHeader, NodeError> {
        let path = request
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let made = || -> Result<RequestHeader> {
            let mut head = RequestHeader::build(
                request.method.clone(),
                path.as_bytes(),
                Some(request.headers.len() + 2),
            )?;
            for (name, value) in &request.headers {
                head.append_header(name.clone(), value.clone())?;
            }
            if self.upstream.target.h2 {
                head.set_version(Version::HTTP_2);
            }
            if !request.headers.contains_key(header::HOST) {
                head.insert_header(header::HOST, self.upstream.target.authority())?;
            }
            let wants_body = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
            if length > 0 || wants_body {
                head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
            }
            Ok(head)
        };
        made().map_err(|error| NodeError::BadRequest(error.to_string()))
    }

    async fn talk(
        &self,
        session: &mut HttpSession,
        head: RequestHeader,
        body: Bytes,
    ) -> Result<Response<Bytes>, NodeError> {
        let said = |error: Box<Error>| said(&error);
        session.set_read_timeout(TIMEOUTS.read);
        let bare = body.is_empty();
        session
            .write_request_header(Box::new(head))
            .await
            .map_err(said)?;
        if !bare {
            session.write_request_body(body, true).await.map_err(said)?;
        }
        session.finish_request_body().await.map_err(said)?;
        session.read_response_header().await.map_err(said)?;
        let mut response = Response::new(Bytes::new());
        let head = session
            .response_header()
            .ok_or_else(|| NodeError::Broken("no head".into()))?;
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers.clone();
        let mut all = BytesMut::new();
        while let Some(bytes) = session.read_response_body().await.map_err(said)? {
            if all.len() + bytes.len() > MOST {
                return Err(NodeError::TooLarge { max: MOST });
            }
            all.extend_from_slice(&bytes);
        }
        *response.body_mut() = all.freeze();
        Ok(response)
    }
}

fn said(error: &Error) -> NodeError {
    match error.etype() {
        ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout => NodeError::Timeout,
        ConnectRefused => NodeError::Unreachable("connection refused".into()),
        ConnectNoRoute => NodeError::Unreachable("no route".into()),
        ConnectError => NodeError::Unreachable(error.to_string()),
        TLSHandshakeFailure | InvalidCert => {
            NodeError::Unreachable(format!("TLS was not agreed: {error}"))
        }
        _ => NodeError::Broken(error.to_string()),
    }
}
