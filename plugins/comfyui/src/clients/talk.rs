//! One socket, from the greeting to its end.

use super::client::Line;
use super::hub::{Hub, Next};
use crate::frames::Frame;
use crate::json::Json;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Message, NodeError, Socket};
use tokio::select;
use tokio::time::timeout;

/// "Try again later": registered after RFC 6455.
const TOO_SLOW: u16 = 1013;

/// How long one who does not read may take to read that its socket is over.
const LAST_WORD: Duration = Duration::from_secs(5);

pub(super) async fn talk(
    hub: &Hub,
    id: Arc<str>,
    mut socket: Box<dyn Socket>,
    features: impl Fn() -> Json + Send,
) {
    let (place, greeting) = Place::taken(hub, id);
    let is_cut = select! {
        biased;
        () = place.line.cut.notified() => true,
        // Whoever connects again gets what this one did not: nothing is to be said of how it ended.
        _ = follow(&place, greeting, &mut *socket, features) => false,
    };
    if is_cut {
        let why = "more waits for this client than may: connect again";
        let _ = timeout(LAST_WORD, socket.close(TOO_SLOW, why)).await;
    }
}

async fn follow(
    place: &Place<'_>,
    greeting: Frame,
    socket: &mut dyn Socket,
    features: impl Fn() -> Json + Send,
) -> Result<(), NodeError> {
    socket.send(greeting.message(false)).await?;
    let mut opening = Opening::default();
    loop {
        let next = select! {
            biased;
            // First, since it is little, and its first word says how previews are told.
            said = socket.receive() => {
                let Some(said) = said? else { return Ok(()) };
                if opening.asks(&said) && place.is_newest() {
                    let told = Frame::new("feature_flags", features());
                    socket.send(told.message(false)).await?;
                }
                continue;
            }
            next = place.next() => next,
        };
        match next {
            Next::Send(frame) => {
                socket.send(frame.message(opening.wants_metadata)).await?;
                place.sent();
            }
            Next::Nothing => break,
        }
    }
    while socket.receive().await?.is_some() {}
    Ok(())
}

// === the first word ===

/// What a client says of itself. Only its first word counts; what is no object is none, as on a real server.
#[derive(Default)]
struct Opening {
    is_over: bool,
    wants_metadata: bool,
}

impl Opening {
    /// Whether it is to be told in turn what the gateway understands.
    fn asks(&mut self, said: &Message) -> bool {
        let Message::Text(text) = said else {
            return false;
        };
        if self.is_over {
            return false;
        }
        let Ok(said @ Json::Object(_)) = Json::read(text.as_bytes()) else {
            return false;
        };
        self.is_over = true;
        let data = said.get("data");
        let metadata = data.and_then(|data| data.get("supports_preview_metadata"));
        let is_asking = said.get("type").and_then(Json::text) == Some("feature_flags");
        self.wants_metadata = is_asking && metadata == Some(&Json::Bool(true));
        is_asking
    }
}

// === its place in the hub ===

/// Given back however the socket ends.
struct Place<'a> {
    hub: &'a Hub,
    id: Arc<str>,
    line: Arc<Line>,
}

impl<'a> Place<'a> {
    /// With the greeting.
    fn taken(hub: &'a Hub, id: Arc<str>) -> (Self, Frame) {
        let line = Arc::default();
        let remaining = hub.attach(&id, &line);
        let greeting = Frame::greeting(remaining, &id);
        (Place { hub, id, line }, greeting)
    }

    /// Nothing is taken before this is over: it may be dropped at any time.
    async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.hub.next(&self.id, &self.line) {
                return next;
            }
            self.line.wake.notified().await;
        }
    }

    fn sent(&self) {
        self.hub.sent(&self.id, &self.line);
    }

    fn is_newest(&self) -> bool {
        self.hub.has(&self.id, &self.line)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.hub.detach(&self.id, &self.line);
    }
}
