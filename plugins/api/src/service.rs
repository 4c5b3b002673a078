use crate::{
    Ask, Attempt, Body, Caller, Candidate, Content, Done, EndpointId, EndpointView, Found, Host,
    Intent, JobView, KeepAlive, Need, NodeClient, NodeError, ProbeError, Refusal, Report, RunError,
    Shape, Socket, Stop, Terms, Vitals,
};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response, StatusCode};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// What the gateway asks of a kind: it knows one API, and never sees a socket or chooses a node.
///
/// A panic in any of these fails the one request (or probe), not the gateway.
#[async_trait]
pub trait Service: Any + Send + Sync {
    /// What is this request? Pure. Called with the head; after [`Intent::NeedBody`], once more with the body.
    fn classify(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal>;

    /// Is this node well? The health-check hook, called at the service's `health.interval`.
    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError>;

    /// A refusal in this API's own shape. The status is not the kind's to choose.
    fn refuse(&self, _ask: &Ask<'_>, why: &Refusal) -> Shape {
        Shape::plain(why)
    }

    /// Called once for each kind that is made, as soon as there is a gateway around it: a place to take up what was kept.
    /// Requests may come before it is over.
    async fn open(&self, _host: &Arc<dyn Host>) {}

    /// Answers a request that `classify` called [`Intent::Own`]. Its URI is the client's, its headers too, but for the key.
    async fn answer(
        &self,
        request: Request<Content>,
        _caller: &Caller,
        _host: &Arc<dyn Host>,
    ) -> Result<Response<Body>, Refusal> {
        Err(Refusal::NotFound(request.uri().path().to_owned()))
    }

    /// Speaks on a socket that `classify` called [`Intent::Socket`], until it ends: the socket is over with this, and this is
    /// dropped a few seconds after the socket.
    async fn socket(
        &self,
        _request: Request<()>,
        _caller: &Caller,
        _socket: Box<dyn Socket>,
        _host: &Arc<dyn Host>,
    ) {
    }

    /// Looks after an endpoint for as long as it is in the pool, beside its probe: an event socket, say. Begun again a
    /// moment after it returns.
    async fn attend(&self, _at: EndpointView, _node: Arc<dyn NodeClient>, _host: &Arc<dyn Host>) {
        std::future::pending().await
    }

    /// What an endpoint lacks for a need, as what follows on "it"; `None`: nothing that this kind knows of. Pure, and quick:
    /// it is called under the gateway's one lock. [`Host::changed`] says that it may answer otherwise now: those that lack the
    /// same wait together.
    fn lacks(&self, _need: &Need, _at: EndpointId) -> Option<String> {
        None
    }

    /// May this begin? Asked once for each request that is relayed, of its first choice, before it waits. What is counted for it
    /// here can be given back when the last copy of its [`Need::own`] is dropped.
    ///
    /// Errors: who asks may not have this now; `Limited`, mostly.
    fn admit(&self, _need: &Need, _now: Instant) -> Result<(), Refusal> {
        Ok(())
    }

    /// A need got its slots at an endpoint. Quick: it is called under the gateway's one lock, before the next one chooses.
    fn granted(&self, _need: &Need, _at: EndpointId, _now: Instant) {}

    /// They were given back. Quick, too.
    fn released(&self, _need: &Need, _at: EndpointId, _now: Instant) {}

    /// What can be said in an answer that is relayed, while its node is silent; `None`: nothing, or nothing here. `notes`
    /// are those of `observe`: what went by may have left something open.
    fn keep_alive(&self, _need: &Need, _notes: &Extensions) -> Option<KeepAlive> {
        None
    }

    /// What an answer that is relayed says at its end, where it broke off after it had begun; `None`: it can only be cut off.
    fn broken(&self, _need: &Need, _why: &Refusal, _notes: &Extensions) -> Option<Bytes> {
        None
    }

    /// Whether this answer of a node's to a relayed request, an error, is reason to try its next choice: a prompt is too long
    /// for this model, say.
    fn falls_back(&self, _need: &Need, _status: StatusCode, _body: &[u8]) -> bool {
        false
    }

    /// A job of this service changed, by whatever way. Quick: whoever changed it waits.
    fn job_changed(&self, _job: &JobView) {}

    /// An answer going by, byte for byte; `notes` live as long as the request. Where [`OutOfMemory`] is among them at the end,
    /// such requests go elsewhere; a [`Usage`](crate::Usage) is counted.
    fn observe(&self, _need: &Need, _seen: Seen<'_>, _notes: &mut Extensions) {}

    /// A request was broken off (its client left, its time was over): tells the node to stop working on it.
    ///
    /// Until this says [`Stopped::Idle`], a probe says so, or the service's `cool_down` has passed, the slot stays taken.
    async fn stop(&self, _need: &Need, _node: &dyn NodeClient) -> Result<Stopped, NodeError> {
        Ok(Stopped::Unknown)
    }

    /// The cost of a need at an endpoint, for policies that ask; `learned` is what the gateway would say of it, from times
    /// that it measured. Pure, and quick: it is called under the gateway's one lock.
    fn terms(&self, _need: &Need, _at: &Candidate<'_>, _vitals: &Vitals, learned: Terms) -> Terms {
        learned
    }

    /// Has the node let go of the GPU, for another service that shares it. To be called when nothing is at work there.
    ///
    /// Returns when the memory is free, not when the request was accepted.
    async fn release(&self, _node: &dyn NodeClient) -> Result<Released, NodeError> {
        Ok(Released::Unsupported)
    }

    /// Runs one attempt of a job on the leased endpoint. Unless the kind says otherwise, the stored request is sent
    /// and its answer is the result.
    ///
    /// Dropped when the job is taken back, takes too long, or its lease is revoked; `cancel` is called then, in the
    /// first two cases. When the gateway goes down it is dropped without: the work goes on.
    async fn run(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        _report: &dyn Report,
    ) -> Result<Done, RunError> {
        let mut request = Request::new(attempt.body.clone());
        *request.method_mut() = attempt.method.clone();
        *request.uri_mut() = attempt.uri.clone();
        *request.headers_mut() = attempt.headers.clone();
        Ok(Done::by_status(node.stream(request).await?))
    }

    /// Looks for work that was handed over while the gateway went down, so that it is not handed over twice.
    async fn find(&self, _attempt: &Attempt, _node: &dyn NodeClient) -> Result<Found, NodeError> {
        Ok(Found::CannotTell)
    }

    /// An attempt was broken off: tells the node to stop working on it, as `stop` does for a request.
    async fn cancel(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        _why: Stop,
    ) -> Result<Stopped, NodeError> {
        self.stop(&attempt.need, node).await
    }
}

/// A piece of a forwarded answer.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Its head.
    Head(StatusCode, &'a HeaderMap),
    /// A chunk of its body.
    Bytes(&'a [u8]),
    /// Its end; not seen when it broke.
    End,
    /// It broke off, or whoever asked left: nothing more comes. Seen of what is relayed.
    Broken,
}

/// A note of `Service::observe`: the answer says that the card's memory was too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// What `Service::stop` achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The node no longer works on it.
    Idle,
    /// Nobody can say.
    Unknown,
}

/// What `Service::release` achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The memory is free.
    Freed,
    /// This API has no way to ask for it: turns are taken all the same, and its memory stays taken.
    Unsupported,
}
