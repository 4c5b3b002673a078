//! Connections that only read. What is being written does not hold them up, nor they the writer: each sees the database as
//! of one commit.

use super::StoreError;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// How many read at once. Reads are short, and what they wait for is mostly in the system's cache.
pub(super) const AT_ONCE: usize = 4;

/// The connections.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
}

/// A connection that is in use. It goes back whatever happens.
struct Lent {
    connection: Option<Connection>,
    readers: Arc<Readers>,
}

impl Readers {
    /// Readers by these connections.
    pub fn new(connections: Vec<Connection>) -> Arc<Readers> {
        Arc::new(Readers {
            turns: Arc::new(Semaphore::new(connections.len())),
            idle: Mutex::new(connections),
        })
    }

    /// Reads something, all of it as of one commit.
    pub async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let failed = move |why: String| StoreError::Unusable(format!("cannot {what}: {why}"));
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|error| failed(error.to_string()))?;
        let lent = Lent {
            connection: self.idle.lock().pop(),
            readers: self.clone(),
        };
        let read = move || {
            // Given up after the connection: its next user finds one.
            let _turn = turn;
            let lent = lent;
            let Some(connection) = &lent.connection else {
                return Err(StoreError::Unusable("no connection is left".into()));
            };
            let whole = connection.unchecked_transaction()?;
            work(&whole)
        };
        match spawn_blocking(read).await {
            Ok(Err(StoreError::Unusable(why))) => Err(failed(why)),
            Ok(outcome) => outcome,
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.readers.idle.lock().extend(self.connection.take());
    }
}
