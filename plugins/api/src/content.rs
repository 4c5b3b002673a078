use crate::NodeError;
use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

/// A body that is all here and can be read again: what an attempt sends.
#[derive(Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// Wherever the gateway keeps long ones.
    Stored(Arc<dyn Stored>),
}

/// Bytes kept outside memory. They do not change while a handle is there.
#[async_trait]
pub trait Stored: Send + Sync {
    /// How many there are.
    fn length(&self) -> u64;

    /// At most `most` bytes from `offset`; none at the end.
    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes>;
}

/// A body as it comes from a node. It ends with `None`, or with the error that broke it off.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, NodeError>> + Send>>;

/// The body of an answer that a kind gives.
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// A part of something kept.
    Part {
        /// Of what.
        content: Content,
        /// From which byte.
        from: u64,
        /// How many.
        length: u64,
    },
    /// As it comes. An error breaks it off: its reader does not take it for whole.
    Live(Pieces),
}

// === impl Body ===

impl Body {
    /// All of something kept.
    pub fn whole(content: Content) -> Self {
        let length = content.length();
        Body::Part {
            content,
            from: 0,
            length,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Body::Bytes(Bytes::new())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Body::Bytes(bytes.into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Body::Part { from, length, .. } => write!(f, "{length} bytes from {from}"),
            Body::Live(_) => f.write_str("bytes as they come"),
        }
    }
}

// === impl Content ===

impl Content {
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Stored(stored) => stored.length(),
        }
    }

    /// At most `most` bytes from `offset`; none at the end.
    pub async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        match self {
            Content::Bytes(bytes) => {
                let from = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
                Ok(bytes.slice(from..bytes.len().min(from.saturating_add(most))))
            }
            Content::Stored(stored) => stored.read(offset, most).await,
        }
    }

    /// All of it in memory.
    ///
    /// Errors: it cannot be read, or is longer than `max` bytes ([`io::ErrorKind::FileTooLarge`]).
    pub async fn to_bytes(&self, max: usize) -> io::Result<Bytes> {
        if self.length() > max as u64 {
            let what = format!("{} bytes, and at most {max} are read", self.length());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        if let Content::Bytes(bytes) = self {
            return Ok(bytes.clone());
        }
        let mut all = Vec::with_capacity(self.length() as usize);
        loop {
            let piece = self.read(all.len() as u64, 256 << 10).await?;
            if piece.is_empty() {
                return Ok(all.into());
            }
            all.extend_from_slice(&piece);
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Content::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Content::Bytes(bytes)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.length())
    }
}

/// Bytes in memory as a node's body that comes in one piece.
pub fn one_piece(bytes: Bytes) -> Pieces {
    Box::pin(OnePiece(Some(bytes)))
}

struct OnePiece(Option<Bytes>);

impl Stream for OnePiece {
    type Item = Result<Bytes, NodeError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let bytes = self.0.take().filter(|bytes| !bytes.is_empty());
        std::task::Poll::Ready(bytes.map(Ok))
    }
}
