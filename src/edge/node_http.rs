//! The client behind the plugins' `NodeClient`: short exchanges with a node, over Pingora's connector.

use super::peer::Peers;
use crate::config::plan::TimeoutsPlan;
use crate::dispatch::{Clients, Upstream};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Version, header};
use pingora::ErrorType::{
    ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, InvalidCert, ReadTimedout,
    TLSHandshakeFailure, TLSHandshakeTimedout, WriteTimedout,
};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{NodeClient, NodeError};
use tokio::time::timeout;

/// The largest answer that is read: a probe's, a list of models.
const MOST: usize = 8 << 20;

/// How long an exchange may take; a probe's own timeout is shorter.
const LONGEST: Duration = Duration::from_secs(30);

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
    peers: Peers,
}

struct Client {
    means: Arc<Means>,
    upstream: Arc<Upstream>,
}

impl Default for Means {
    fn default() -> Self {
        Means {
            connector: Connector::new(None),
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
        let mut last = NodeError::Unreachable(format!(
            "the name `{}` is not known",
            self.upstream.target.host
        ));
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
}

// === impl Client ===

impl Client {
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
        let head = self.head(request)?;
        let (mut session, _) = self
            .means
            .connector
            .get_http_session(&peer)
            .await
            .map_err(|error| said(&error))?;
        self.talk(&mut session, head, request.body().clone()).await
    }

    fn head(&self, request: &Request<Bytes>) -> Result<RequestHeader, NodeError> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let made = || -> Result<RequestHeader> {
            let mut head = RequestHeader::build(
                request.method().clone(),
                path.as_bytes(),
                Some(request.headers().len() + 2),
            )?;
            for (name, value) in request.headers() {
                head.append_header(name.clone(), value.clone())?;
            }
            let authority = self.upstream.target.authority();
            if self.upstream.target.h2 {
                head.set_version(Version::HTTP_2);
            }
            head.insert_header(header::HOST, authority)?;
            if !request.body().is_empty() {
                head.insert_header(
                    header::CONTENT_LENGTH,
                    HeaderValue::from(request.body().len()),
                )?;
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
