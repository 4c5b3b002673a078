//! The clients of a service that are connected: each hears of its own jobs, on one socket, whatever node they run on.
//!
//! **Who is told.** A client is known by its id. Its newest socket is told everything; an older one stays open and hears
//! nothing more, as on a real server. What the older one was not sent yet goes to the newer.
//!
//! **What comes of a slow reader.** A client hears a part of what was sent, in the order in which it was sent, bytes and text
//! alike. Left out is only what a later one replaced: of `status` the one that came before, unless a prompt's end stands
//! between them; of `progress` and images in JPEG that of the same prompt and node; of `progress_state` that of the same
//! prompt. They are bounded too, and the oldest go first. Anything else is never left out: where more of it waits than may,
//! the socket is closed with 1013, and what follows is as if the client had left.
//!
//! **What is kept for one who is away**, be it that its socket ended or that none was there yet: of its jobs, `executed`,
//! `execution_success`, `execution_error`, `execution_interrupted` and the `executing` that ends one, each for a minute, and no
//! more than [`Limits`] say. They are told once, after the greeting. So a client learns of an end that fell into a gap of its
//! connection, and one that submits before it connects, of an end that came sooner than it did. They can confuse nobody who
//! looks at `prompt_id`, as all known clients do: each of these frames has one. A client that takes any `executing` without a
//! node for its own would be fooled, but only where it connects under an id that was used less than a minute before by
//! somebody who did not stay for the end.
//!
//! A gateway that comes back keeps for them what ended just before it went down, since it does not know who heard of it.
//!
//! **Who connects while jobs of its own run** is then told, of each, the latest `executing` and `progress_state`. (A real server
//! tells the first of them, without the prompt.)
//!
//! A message that was on its way when its socket broke or was replaced may or may not have arrived: the next socket is sent it
//! again, if it is one that is never left out.
//!
//! One short lock for all, never held over an await or while something large is freed. A client that is idle has no timer and no
//! buffer.

mod client;
mod hub;
mod queue;
mod talk;

use crate::frames::{Event, Frame};
use crate::json::{Json, Number, object};
use hub::Hub;
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::Socket;

/// The clients of a service. A copy is the same.
#[derive(Clone)]
pub struct Clients(Arc<Hub>);

/// How much may wait for clients. Bytes count with what it takes to keep them, some 200 a frame.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of what is never left out, for one client.
    pub kept: Room,
    /// Of what may be left out, for one client.
    pub passing: Room,
    /// For one client that is away.
    pub missed: Room,
    /// How long for one that is away.
    pub missed_for: Duration,
    /// For all clients together, bytes. Where more waits, what is kept for those who are away goes first, the oldest before;
    /// then those who have more than [`Limits::small`] waiting are closed as they get more.
    pub all: usize,
    /// See [`Limits::all`].
    pub small: usize,
    /// How many clients are remembered, connected or not. More may connect.
    pub clients: usize,
}

/// How much may wait somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// How many frames.
    pub frames: usize,
    /// How many bytes.
    pub bytes: usize,
}

// === impl Clients ===

impl Clients {
    /// Nobody is there yet.
    pub fn new(limits: Limits) -> Self {
        Clients(Arc::new(Hub::new(limits)))
    }

    /// Speaks with a client on its socket until that ends. Without an id it gets one, as from a real server.
    ///
    /// `features` is what the gateway says of itself to a client that says first what it understands.
    pub async fn attach(
        &self,
        client: Option<&str>,
        socket: Box<dyn Socket>,
        features: impl Fn() -> Json + Send,
    ) {
        let client = client.filter(|id| !id.is_empty());
        let id = client.map_or_else(new_id, Arc::from);
        talk::talk(&self.0, id, socket, features).await;
    }

    /// Tells a client, or keeps it for one who is away.
    ///
    /// Every prompt that began (`execution_start`) has to end with [`Frame::end`]: what is known of it is kept until then.
    pub fn send(&self, client: &str, frame: Frame) {
        self.0.send(client, frame);
    }

    /// Tells all who are connected.
    pub fn broadcast(&self, frame: Frame) {
        self.0.broadcast(frame);
    }

    /// How many prompts wait or run; all are told, and who connects is greeted with it.
    pub fn status(&self, remaining: u64) {
        self.0.status(remaining);
    }

    /// Whether a client is connected.
    pub fn is_attached(&self, client: &str) -> bool {
        self.0.is_attached(client)
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.0.count()
    }
}

impl Default for Clients {
    fn default() -> Self {
        Clients::new(Limits::default())
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // A batch of results of 4K, some 30 MB each, while the client still reads the first.
            kept: Room {
                frames: 65_536,
                bytes: 256 << 20,
            },
            // Previews have at most 512 pixels a side. So many nodes are seldom at work for one client.
            passing: Room {
                frames: 512,
                bytes: 8 << 20,
            },
            // The ends of some forty jobs.
            missed: Room {
                frames: 128,
                bytes: 1 << 20,
            },
            // A front end connects again within a second, a person within a minute.
            missed_for: Duration::from_secs(60),
            all: 2 << 30,
            small: 1 << 20,
            clients: 65_536,
        }
    }
}

// === what the gateway says itself ===

impl Frame {
    fn status(remaining: u64) -> Self {
        Frame::new("status", object! {"status": queue(remaining)})
    }

    fn greeting(remaining: u64, client: &str) -> Self {
        let data = object! {"status": queue(remaining), "sid": client};
        Frame::new("status", data)
    }
}

fn queue(remaining: u64) -> Json {
    let remaining = Json::Number(Number::written(remaining.to_string()));
    object! {"exec_info": object! {"queue_remaining": remaining}}
}

/// Whether one who is away has to know it later.
fn is_lasting(frame: &Frame) -> bool {
    use Event::{Error, Executed, Executing, Interrupted, Success};
    let is_end = matches!(
        frame.event,
        Executed | Success | Error | Interrupted | Executing(None)
    );
    is_end && frame.prompt.is_some()
}

/// 32 digits, as Python's `uuid4().hex`.
fn new_id() -> Arc<str> {
    let random: u128 = rand::rng().random();
    // Version 4 of RFC 9562.
    let id = random & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    format!("{id:032x}").into()
}
