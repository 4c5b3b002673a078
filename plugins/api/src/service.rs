use crate::{
    Ask, Attempt, Caller, Candidate, Done, EndpointId, Found, Intent, Need, NodeClient, NodeError,
    NodeFacts, ProbeError, Refusal, Report, RunError, Shape, Stop, Terms, Vitals,
};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response, StatusCode};
use std::any::Any;
use std::sync::Arc;

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

    /// Answers a request that `classify` called [`Intent::Own`].
    async fn answer(
        &self,
        request: Request<Bytes>,
        _caller: &Caller,
        _host: &dyn Host,
    ) -> Result<Response<Bytes>, Refusal> {
        Err(Refusal::NotFound(request.uri().path().to_owned()))
    }

    /// A forwarded answer going by, byte for byte; `notes` live as long as the request. Where [`OutOfMemory`] is among them
    /// at the end, such requests go elsewhere.
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

/// An endpoint as the outside may see it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Which endpoint.
    pub id: EndpointId,
    /// `node/endpoint`.
    pub name: Arc<str>,
    /// The node it stands on.
    pub node: Arc<NodeFacts>,
    /// Whether it gets requests: well, not drained, not removed.
    pub usable: bool,
    /// How many requests it works on at once.
    pub slots: u32,
    /// How many of them are taken.
    pub used: u32,
    /// What its last good probe said.
    pub vitals: Arc<Vitals>,
}

/// What a kind may use of the gateway, for the service it answers for.
pub trait Host: Send + Sync {
    /// The endpoints of the service's pool.
    fn endpoints(&self) -> Vec<EndpointView>;

    /// A client for one of them; `None` when it has left.
    fn client(&self, endpoint: EndpointId) -> Option<Arc<dyn NodeClient>>;
}
