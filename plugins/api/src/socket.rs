use crate::NodeError;
use async_trait::async_trait;
use bytes::Bytes;

/// A message on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

/// A WebSocket whose other end speaks with a kind: a client's, ended in the gateway, or one to a node.
///
/// The gateway pings it, and ends one whose other end does not answer, whatever the kind is busy with. A client's messages have
/// at most 16 MiB, a node's 512 MiB, the kind's own 256 MiB. Dropping it closes it.
#[async_trait]
pub trait Socket: Send {
    /// The next message; `None` when the other end closed it in order. Dropping the future loses nothing.
    ///
    /// Errors: it broke, or its other end was silent for too long.
    async fn receive(&mut self) -> Result<Option<Message>, NodeError>;

    /// Sends a message, and waits while its other end takes no more. Where the future is dropped, the message is still sent.
    ///
    /// Errors: it broke, or its other end took nothing for too long.
    async fn send(&mut self, message: Message) -> Result<(), NodeError>;

    /// Says why it ends, and ends it (RFC 6455, 7.4.1: `code` is 1000 when all is well).
    async fn close(&mut self, code: u16, why: &str);
}
