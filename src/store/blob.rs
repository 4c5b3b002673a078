//! Bodies too long for a row, by name, until somebody deletes them. Files are one way to keep them; S3 can be another.

use super::StoreError;
use super::spool::{Spool, Spooled};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tabane_api::Stored;

/// A body that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Its name.
    pub name: Arc<str>,
    /// How many bytes.
    pub length: u64,
    /// What they hash to.
    pub sha256: [u8; 32],
}

/// A body on its way into the store. Dropped before its end, nothing is left of it.
#[async_trait]
pub trait BlobWriter: Send {
    /// Adds to its end.
    ///
    /// Errors: [`StoreError::Full`] when the quota or the disk is full.
    async fn append(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// All of it came. On disk, under its name, when this returns.
    async fn finish(self: Box<Self>) -> Result<BlobRef, StoreError>;
}

/// Where long bodies are kept.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// A new body.
    async fn begin(&self) -> Result<Box<dyn BlobWriter>, StoreError>;

    /// A body of the spool, which is kept from now on. It can be read from the spool as before.
    ///
    /// Errors: [`StoreError::Full`] when the quota or the disk is full.
    async fn adopt(&self, spooled: &Spooled) -> Result<BlobRef, StoreError>;

    /// A body that is kept.
    ///
    /// Errors: it is not there, or its length is not what it was.
    async fn open(&self, blob: &BlobRef) -> Result<Arc<dyn Stored>, StoreError>;

    /// Gives its space back. One that is not there is nothing; one that is being read can be read to its end.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// Names of all bodies older than this process: among them are those that a crash left without a row.
    async fn older(&self) -> Result<Vec<String>, StoreError>;

    /// How many bytes are kept.
    fn used(&self) -> u64;

    /// How many bytes may be kept from now on.
    fn set_quota(&self, bytes: u64);
}

/// Copies a body of the spool: what can always be done.
pub(super) async fn copy(store: &dyn BlobStore, spooled: &Spooled) -> Result<BlobRef, StoreError> {
    let mut writer = store.begin().await?;
    let mut at = 0;
    while at < spooled.length() {
        let piece = spooled.read(at, Spool::IN_MEMORY).await;
        let piece = piece.map_err(|error| {
            StoreError::Unusable(format!("cannot read a body that was held: {error}"))
        })?;
        at += piece.len() as u64;
        writer.append(piece).await?;
    }
    writer.finish().await
}
