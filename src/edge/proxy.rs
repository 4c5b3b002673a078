//! `impl ProxyHttp`: each hook maps, calls, maps back. What happens is in `admit.rs` and `attempt.rs`.

use super::context::Ctx;
use super::held;
use super::hold::Budget;
use super::hop;
use super::listen::Bound;
use super::peer::Peers;
use super::{admit, attempt, outcome};
use crate::dispatch::Dispatch;
use crate::store::Spool;
use crate::wire::Wire;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// How long an unread body is read on after its request was answered, so that its connection can be kept.
const DRAIN: Duration = Duration::from_secs(5);

/// The edge's part of the proxy: what its hooks work with.
pub struct Edge {
    pub(super) dispatch: Dispatch,
    pub(super) bound: Arc<Bound>,
    pub(super) budget: Arc<Budget>,
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) peers: Peers,
    pub(super) connector: pingora::connectors::TransportConnector,
    /// For what is relayed.
    pub(super) relays: pingora::connectors::http::Connector,
    pub(super) wire: Wire,
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        // The one time a request reads the world.
        Ctx::new(
            self.dispatch.world(),
            tokio::time::Instant::now().into_std(),
        )
    }

    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {
        // Pingora's default is a compression module that is off; bytes pass untouched here.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        ctx.identify(&session.req_header().headers);
        let limits = ctx.limits();
        let old = session.req_header().version < Version::HTTP_11;
        let client = session.as_downstream_mut();
        // HTTP/1.0 knows no answers before the answer (RFC 9110, 15.2).
        client.set_ignore_info_resp(old);
        client.set_read_timeout(Some(limits.client_read));
        client.set_write_timeout(Some(limits.client_write));
        // Reading on what nobody wants, only to keep the connection.
        client.set_total_drain_timeout(Some(DRAIN));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        admit::admit(self, session, ctx).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        attempt::begin(self, session, ctx).await
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // Sockets go another way; from here nothing is upgraded to.
        head.remove_header(&header::UPGRADE);
        head.remove_header(&header::CONNECTION);
        attempt::request_head(head, ctx)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        attempt::request_body(body, end, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        attempt::response_head(session, head, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        hop::answer(head, session.req_header().version)?;
        ctx.sign(head)
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        attempt::response_body(body.as_ref(), end, ctx);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Ctx,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::connect_failed(peer, error, ctx)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        _reused: bool,
    ) -> Box<Error> {
        attempt::failed(session, error, ctx)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        outcome::fail(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        outcome::close(session, error, ctx);
        held::unwrap(session, &ctx.slot);
    }

    // Outcomes are told once, in the access line: Pingora's own lines would tell them again.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _at: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
