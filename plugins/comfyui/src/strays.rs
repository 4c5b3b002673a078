//! Prompts that a node may be at though nobody follows them any more: it went silent, and what it had was run elsewhere; or it
//! could not be told that they were taken back. They are ended as soon as it can be told.

use crate::farm::Node;
use crate::lookup;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::NodeClient;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long until a node that cannot be told is told again, or asked whether it did.
const AGAIN: Duration = Duration::from_secs(1);

/// The strays of a node.
#[derive(Default)]
pub struct Strays {
    ids: Mutex<HashSet<Arc<str>>>,
    more: Notify,
    /// One of them is being ended.
    ending: tokio::sync::Mutex<()>,
}

// === impl Strays ===

impl Strays {
    /// Nobody follows this one any more.
    pub fn add(&self, id: &Arc<str>) {
        self.ids.lock().insert(id.clone());
        self.more.notify_one();
    }

    /// Somebody follows it again: it is not ended from here on.
    pub async fn remove(&self, id: &str) {
        let _none_is_being_ended = self.ending.lock().await;
        self.ids.lock().remove(id);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.lock().is_empty()
    }

    fn first(&self) -> Option<Arc<str>> {
        self.ids.lock().iter().next().cloned()
    }
}

/// Ends whatever strays on a node, for ever.
pub async fn end(node: &Node, client: &dyn NodeClient) {
    let strays = &node.strays;
    loop {
        let Some(id) = strays.first() else {
            strays.more.notified().await;
            continue;
        };
        let one = strays.ending.lock().await;
        let is_there = strays.ids.lock().contains(&id);
        let ended = match is_there {
            true => lookup::end(node, client, &id).await,
            false => Ok(true),
        };
        match ended {
            Ok(true) => {
                strays.ids.lock().remove(&id);
            }
            Ok(false) => {
                drop(one);
                sleep(AGAIN).await;
            }
            Err(error) => {
                drop(one);
                tracing::debug!(endpoint = %node.name, prompt = %id, %error, "a node cannot be told to end what nobody follows");
                sleep(AGAIN).await;
            }
        }
    }
}
