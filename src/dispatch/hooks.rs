//! What a request's kind and policy are asked on its way. A panic of theirs fails this one request.

use super::world::LiveService;
use super::{Dispatch, Journey, Lease};
use bytes::Bytes;
use futures::FutureExt;
use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tabane_api::{Ask, Body, Content, KeepAlive, Refusal, Seen, Shape, Socket};

impl Journey {
    /// A refusal in its kind's shape; the gateway's own when the kind panics over it.
    pub fn refuse(service: Option<&LiveService>, ask: &Ask<'_>, why: &Refusal) -> Shape {
        let shaped =
            service.map(|service| guarded(&service.plan.name, || service.kind.refuse(ask, why)));
        match shaped {
            Some(Ok(shape)) => shape,
            _ => Shape::plain(why),
        }
    }

    /// Lets the kind see a piece of the answer. A kind that panics over it is not shown the rest of it.
    pub fn observe(&self, seen: Seen<'_>, notes: &mut Extensions) {
        #[derive(Clone)]
        struct Blind;
        if notes.get::<Blind>().is_none()
            && guarded(&self.service.plan.name, || {
                self.service.kind.observe(self.need(), seen, notes)
            })
            .is_err()
        {
            notes.insert(Blind);
        }
    }

    /// What can be said in its answer while its node is silent.
    pub fn keep_alive(&self, notes: &Extensions) -> Option<KeepAlive> {
        let kind = &self.service.kind;
        guarded(&self.service.plan.name, || {
            kind.keep_alive(self.need(), notes)
        })
        .ok()?
    }

    /// What its answer says at its end, where that broke off.
    pub fn broken(&self, why: &Refusal, notes: &Extensions) -> Option<Bytes> {
        let kind = &self.service.kind;
        guarded(&self.service.plan.name, || {
            kind.broken(self.need(), why, notes)
        })
        .ok()?
    }

    /// Whether an error of a node's is reason to try its next choice.
    pub fn falls_back(&self, status: StatusCode, body: &[u8]) -> bool {
        let kind = &self.service.kind;
        let falls = guarded(&self.service.plan.name, || {
            kind.falls_back(self.need(), status, body)
        });
        falls.unwrap_or(false)
    }

    /// A `Set-Cookie` by which the client's next request finds its way back.
    pub fn remember(&self, ask: &Ask<'_>, lease: &Lease) -> Option<HeaderValue> {
        let upstream = lease.upstream();
        guarded(&self.service.plan.name, || {
            self.service
                .policy
                .remember(ask, &upstream.name, upstream.hash)
        })
        .ok()?
    }

    /// Has the kind answer. Errors: the kind's refusal, or `Internal` when it panicked.
    pub async fn answer(
        &self,
        dispatch: &Dispatch,
        request: Request<Content>,
    ) -> Result<Response<Body>, Refusal> {
        let host = dispatch.host(&self.service.plan.name);
        let answer = AssertUnwindSafe(self.service.kind.answer(request, &self.caller, &host))
            .catch_unwind()
            .await;
        answer.unwrap_or_else(|_| Err(panicked(&self.service.plan.name)))
    }

    /// Has the kind speak on a socket, until that ends.
    pub async fn socket(&self, dispatch: &Dispatch, request: Request<()>, socket: Box<dyn Socket>) {
        let host = dispatch.host(&self.service.plan.name);
        let kind = &self.service.kind;
        let spoken = AssertUnwindSafe(kind.socket(request, &self.caller, socket, &host));
        if spoken.catch_unwind().await.is_err() {
            panicked(&self.service.plan.name);
        }
    }
}

/// Runs a plugin's code; its panic fails this one request.
pub(super) fn guarded<T>(service: &str, run: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| panicked(service))
}

fn panicked(service: &str) -> Refusal {
    tracing::error!(
        service,
        "the kind or policy of this service panicked; this request fails, the gateway goes on"
    );
    Refusal::Internal(format!(
        "the kind or policy of service `{service}` failed on this request"
    ))
}
