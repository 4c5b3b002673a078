//! The event socket of a node, as whoever follows a prompt sees it: whether it is open, and whether anything comes on it.
//!
//! An open socket may be deaf. A server forgets the socket of a client as an older one of the same client ends (ComfyUI
//! #16010), and then nothing comes any more, though it stays open.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long a socket has to be over until the next one is opened: the node must have noticed, or it forgets the new one.
const BETWEEN: Duration = Duration::from_millis(300);

/// A node's event socket.
pub struct Line {
    open: watch::Sender<bool>,
    last: Mutex<Instant>,
    closed: Mutex<Option<Instant>>,
    anew: Notify,
}

/// The socket is open while this is there.
pub struct Open<'a>(&'a Line);

// === impl Line ===

impl Line {
    /// The socket is open until what comes back is dropped.
    pub fn opened(&self) -> Open<'_> {
        self.heard();
        self.open.send_replace(true);
        Open(self)
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Something came on it.
    pub fn heard(&self) {
        *self.last.lock() = Instant::now();
    }

    /// For how long nothing came.
    pub fn quiet_for(&self) -> Duration {
        self.last.lock().elapsed()
    }

    /// Waits until it is not open any more.
    pub async fn ends(&self) {
        let mut open = self.open.subscribe();
        if open.wait_for(|open| !open).await.is_err() {
            std::future::pending().await
        }
    }

    /// It is to be opened anew: it seems to be deaf.
    pub fn open_anew(&self) {
        // Not again while that is being done.
        self.heard();
        self.anew.notify_one();
    }

    /// Waits until it is to be opened anew.
    pub async fn is_to_be_anew(&self) {
        self.anew.notified().await;
    }

    /// Waits until the node has noticed that the last one is over.
    pub async fn settles(&self) {
        let closed = *self.closed.lock();
        if let Some(closed) = closed {
            tokio::time::sleep_until(closed + BETWEEN).await;
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Line {
            open: watch::Sender::new(false),
            last: Mutex::new(Instant::now()),
            closed: Mutex::default(),
            anew: Notify::new(),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *self.0.closed.lock() = Some(Instant::now());
        self.0.open.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    #[tokio::test(start_paused = true)]
    async fn the_next_socket_is_opened_when_the_node_has_noticed_the_end_of_the_last() {
        let line = Line::default();
        timeout(Duration::ZERO, line.settles()).await.unwrap();
        drop(line.opened());
        assert!(!line.is_open());
        let before = Instant::now();
        line.settles().await;
        assert!(before.elapsed() >= BETWEEN);
        timeout(Duration::ZERO, line.settles()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_quiet_is_asked_for_anew_once_and_not_while_that_is_done() {
        let line = Line::default();
        let _open = line.opened();
        advance(Duration::from_secs(30)).await;
        assert_eq!(line.quiet_for(), Duration::from_secs(30));
        line.open_anew();
        assert_eq!(line.quiet_for(), Duration::ZERO);
        line.is_to_be_anew().await;
        let again = timeout(Duration::from_secs(1), line.is_to_be_anew());
        assert!(again.await.is_err());
    }
}
