//! One request to a node by our own client, over connections that are kept.

use super::attempt;
use super::context::Ctx;
use super::held::REVOKED;
use super::hop;
use super::node_http::answer_head;
use super::proxy::Edge;
use crate::config::plan::ServicePlan;
use crate::dispatch::Upstream;
use bytes::Bytes;
use http::{HeaderValue, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tabane_api::Choice;

/// So many connections that were kept may turn out to be closed.
const STALE_MOST: usize = 4;

/// A request under way.
pub(super) struct Exchange {
    session: HttpSession,
    peer: HttpPeer,
}

/// Sends a request, and reads the head of its answer.
///
/// Errors: the node's; of no connection ([`is_connect`]), or of one that broke.
pub(super) async fn open(
    edge: &Edge,
    upstream: &Upstream,
    plan: &ServicePlan,
    head: RequestHeader,
    body: &Bytes,
    repeats: bool,
) -> Result<(Exchange, ResponseHeader)> {
    let mut stale = 0;
    loop {
        let Some(address) = upstream.address() else {
            let why = format!("the name `{}` is not known", upstream.target.host);
            return Err(Error::explain(ErrorType::ConnectNoRoute, why));
        };
        let (target, timeouts) = (&upstream.target, &plan.timeouts);
        let peer = edge
            .peers
            .peer(target, address, timeouts, plan.health.stall_after)?;
        let (session, was_kept) = match edge.relays.get_http_session(&peer).await {
            Ok(got) => got,
            Err(error) => {
                upstream.address_failed(address);
                return Err(error);
            }
        };
        let mut exchange = Exchange { session, peer };
        exchange.session.set_read_timeout(timeouts.read);
        match exchange.send(head.clone(), body.clone()).await {
            Ok(answer) => return Ok((exchange, answer)),
            // A node may close a connection in the very moment in which it is used again.
            Err(error) if was_kept && repeats && stale < STALE_MOST && is_closed(&error) => {
                stale += 1;
            }
            Err(mut error) => {
                error.as_up();
                return Err(error);
            }
        }
    }
}

/// The head of a request as its node gets it.
pub(super) fn request_head(
    head: &mut RequestHeader,
    ctx: &mut Ctx,
    choice: &Choice,
    body: &Bytes,
) -> Result<()> {
    for name in hop::for_us(&head.headers) {
        head.remove_header(&name);
    }
    head.remove_header(&header::UPGRADE);
    // Over HTTP/2 the host is no header.
    if !head.headers.contains_key(header::HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.insert_header(header::HOST, host)?;
    }
    attempt::request_head(head, ctx)?;
    head.remove_header(&header::TRANSFER_ENCODING);
    head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    for name in choice.headers.keys() {
        head.remove_header(name);
    }
    for (name, value) in &choice.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    let h2 = ctx.upstream.as_ref().is_some_and(|at| at.target.h2);
    head.set_version(if h2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    });
    Ok(())
}

/// Reads the rest of an answer, up to so many bytes more than there are. Whether that is all of it.
pub(super) async fn read_some(exchange: &mut Exchange, most: usize, into: &mut Vec<u8>) -> bool {
    while into.len() < most {
        match exchange.next().await {
            Ok(Some(piece)) => into.extend_from_slice(&piece),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// The lease was revoked.
pub(super) fn revoked() -> Box<Error> {
    Error::explain(REVOKED, "the node is frozen or has left")
}

/// Whether no connection came about, or the system has no socket for us: nothing was sent.
pub(super) fn is_connect(error: &Error) -> bool {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectProxyFailure, ConnectRefused, ConnectTimedout,
        InternalError, InvalidCert, TLSHandshakeFailure, TLSHandshakeTimedout,
    };
    matches!(
        error.etype(),
        ConnectTimedout
            | ConnectRefused
            | ConnectNoRoute
            | ConnectError
            | ConnectProxyFailure
            | TLSHandshakeFailure
            | TLSHandshakeTimedout
            | InvalidCert
            | InternalError
    )
}

fn is_closed(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    )
}

// === impl Exchange ===

impl Exchange {
    async fn send(&mut self, head: RequestHeader, body: Bytes) -> Result<ResponseHeader> {
        let sent = async {
            self.session.write_request_header(Box::new(head)).await?;
            if !body.is_empty() {
                self.session.write_request_body(body, true).await?;
            }
            self.session.finish_request_body().await
        };
        let sent = sent.await;
        // A server that has heard enough answers and closes: its answer is worth more than our broken pipe.
        match (sent, answer_head(&mut self.session).await) {
            (_, Ok(answer)) => Ok(answer),
            (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
        }
    }

    /// The next piece of the answer's body; `None`: it is over.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.session
            .read_response_body()
            .await
            .map_err(|mut error| {
                error.as_up();
                error
            })
    }

    /// The answer is over: its connection may be used again.
    pub(super) async fn keep(mut self, edge: &Edge) {
        if let HttpSession::H1(session) = &mut self.session {
            session.respect_keepalive();
        }
        let idle = self.peer.options.idle_timeout;
        edge.relays
            .release_http_session(self.session, &self.peer, idle)
            .await;
    }

    /// It is given up: its connection is closed, its stream is reset.
    pub(super) async fn cut(mut self) {
        self.session.shutdown().await;
    }
}
