use crate::{Choice, EndpointId, Need};

/// What a request asks for, as its kind reads it.
#[derive(Clone, Debug)]
pub enum Intent {
    /// The head does not say enough: call `classify` again with the body.
    NeedBody {
        /// The largest body worth reading for this, in bytes; a longer one is refused with 413.
        max: u64,
    },
    /// The body may say more: call `classify` again with it if it fits into memory, with an empty one if it does
    /// not, or if it streams.
    WantBody,
    /// Send it to the endpoint that the service's policy picks for this need.
    Forward(Need),
    /// Relay it: sent by the gateway's own client, which can change it, speak while nodes are silent, and fall back. The choices are
    /// tried in their order, until a node's answer has begun. Only after [`Intent::NeedBody`]: its body is in memory.
    Relay(Vec<Choice>),
    /// Send it to this endpoint and no other: it is a look-up there, and takes no slot.
    Pinned(EndpointId),
    /// The kind answers itself, by `Service::answer`.
    Own {
        /// The largest body it will take, in bytes; a longer one is refused with 413.
        max: u64,
    },
    /// The kind ends this WebSocket itself, by `Service::socket`. It takes no slot.
    Socket,
}
