//! What a kind holds of a WebSocket: its messages, wherever the kind takes it.

use super::talk::LARGEST;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tabane_api::{Message, NodeError, Socket};

/// The kind's end. Between it and the talk one message waits each way.
pub(super) struct Seat(Arc<Table>);

/// What lies between a kind and the talk that is held for it.
#[derive(Default)]
pub(super) struct Table(Mutex<State>);

#[derive(Default)]
struct State {
    /// For the kind.
    incoming: Option<Message>,
    /// For the other end.
    outgoing: Option<Message>,
    /// A message of the kind's is not out yet.
    busy: bool,
    /// How the kind ends it.
    parting: Option<Parting>,
    over: Option<Over>,
    kind: Option<Waker>,
    talk: Option<Waker>,
}

/// The last word (RFC 6455, 7.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parting {
    pub(super) code: u16,
    pub(super) why: Cow<'static, str>,
}

/// Why nothing more comes, and nothing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// One of both said so.
    Closed,
    Failed(NodeError),
}

/// What the kind wants of the talk.
pub(super) enum Wish {
    Say(Message),
    Part(Parting),
}

// === impl Seat ===

impl Seat {
    pub(super) fn at(table: Arc<Table>) -> Self {
        Seat(table)
    }
}

#[async_trait]
impl Socket for Seat {
    async fn receive(&mut self) -> Result<Option<Message>, NodeError> {
        poll_fn(|cx| self.0.poll_receive(cx)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), NodeError> {
        let length = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        };
        if length > LARGEST {
            let why = format!("a message of {length} bytes, and at most {LARGEST} are sent");
            return Err(NodeError::BadRequest(why));
        }
        // One that nobody waited for to the end goes out first, and whole.
        poll_fn(|cx| self.0.poll_said(cx)).await?;
        self.0.put(message);
        poll_fn(|cx| self.0.poll_said(cx)).await
    }

    async fn close(&mut self, code: u16, why: &str) {
        let why = Cow::Owned(why.to_owned());
        self.0.part(Parting { code, why });
        poll_fn(|cx| self.0.poll_over(cx)).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.part(match std::thread::panicking() {
            true => Parting::of(1011, "the gateway failed on this socket"),
            false => Parting::of(1000, ""),
        });
    }
}

// === impl Table, as the kind sees it ===

impl Table {
    fn poll_receive(&self, cx: &Context<'_>) -> Poll<Result<Option<Message>, NodeError>> {
        let mut state = self.0.lock();
        if let Some(message) = state.incoming.take() {
            let talk = state.talk.take();
            drop(state);
            wake(talk);
            return Poll::Ready(Ok(Some(message)));
        }
        match &state.over {
            Some(Over::Closed) => return Poll::Ready(Ok(None)),
            Some(Over::Failed(why)) => return Poll::Ready(Err(why.clone())),
            None => {}
        }
        state.kind = Some(cx.waker().clone());
        Poll::Pending
    }

    fn put(&self, message: Message) {
        let mut state = self.0.lock();
        state.outgoing = Some(message);
        state.busy = true;
        let talk = state.talk.take();
        drop(state);
        wake(talk);
    }

    /// Whether all is out that the kind said.
    fn poll_said(&self, cx: &Context<'_>) -> Poll<Result<(), NodeError>> {
        let mut state = self.0.lock();
        match &state.over {
            Some(Over::Closed) => {
                let why = NodeError::Broken("the socket is closed".into());
                return Poll::Ready(Err(why));
            }
            Some(Over::Failed(why)) => return Poll::Ready(Err(why.clone())),
            None if !state.busy => return Poll::Ready(Ok(())),
            None => {}
        }
        state.kind = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.over.is_some() {
            return Poll::Ready(());
        }
        state.kind = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The kind ends it, unless it did so before.
    pub(super) fn part(&self, parting: Parting) {
        let mut state = self.0.lock();
        state.parting.get_or_insert(parting);
        let talk = state.talk.take();
        drop(state);
        wake(talk);
    }
}

// === impl Table, as the talk sees it ===

impl Table {
    /// Whether the kind took the message before; the talk is woken when it does.
    pub(super) fn is_clear(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        if state.incoming.is_some() {
            state.talk = Some(cx.waker().clone());
        }
        state.incoming.is_none()
    }

    pub(super) fn deliver(&self, message: Message) {
        let mut state = self.0.lock();
        state.incoming = Some(message);
        let kind = state.kind.take();
        drop(state);
        wake(kind);
    }

    /// What the kind wants next; the talk is woken when that is something.
    pub(super) fn poll_wish(&self, cx: &Context<'_>) -> Poll<Wish> {
        let mut state = self.0.lock();
        if let Some(message) = state.outgoing.take() {
            return Poll::Ready(Wish::Say(message));
        }
        if let Some(parting) = state.parting.clone() {
            return Poll::Ready(Wish::Part(parting));
        }
        state.talk = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The message that the kind wanted to be said is out.
    pub(super) fn said(&self) {
        let mut state = self.0.lock();
        state.busy = false;
        let kind = state.kind.take();
        drop(state);
        wake(kind);
    }

    /// Nothing comes or goes any more, but for what the kind has not taken yet.
    pub(super) fn end(&self, over: Over) {
        let mut state = self.0.lock();
        state.outgoing = None;
        state.over.get_or_insert(over);
        let kind = state.kind.take();
        drop(state);
        wake(kind);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

// === impl Parting ===

impl Parting {
    pub(super) const fn of(code: u16, why: &'static str) -> Self {
        let why = Cow::Borrowed(why);
        Parting { code, why }
    }

    /// Whether a code may stand in a close frame, and means something.
    pub(super) fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999)
    }

    /// What a close frame carries: at most 125 bytes.
    pub(super) fn payload(&self) -> Bytes {
        let code = match Parting::may_be_sent(self.code) {
            true => self.code,
            // A fault of the kind's.
            false => 1011,
        };
        let mut payload = code.to_be_bytes().to_vec();
        let end = self.why.floor_char_boundary(123);
        payload.extend_from_slice(&self.why.as_bytes()[..end]);
        payload.into()
    }
}
