//! A WebSocket that ends in the gateway: between its stream and the kind that speaks on it.
//!
//! The talk is a future of its own beside the kind's, so that pings are sent and answered whatever the kind is busy with. It
//! reads on only when the kind took what came before, and the kind waits while the other end takes no more.

use super::frames;
use super::line::Line;
use super::messages::{Heard, Messages};
use super::seat::{Over, Parting, Seat, Table, Wish};
use bytes::{Buf, Bytes};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tabane_api::{Message, NodeError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// The largest message that a kind may send, bytes.
pub(super) const LARGEST: usize = 256 << 20;

/// How long a message that is on its way may still take when the talk ends.
const LAST_MESSAGE: Duration = Duration::from_secs(5);

/// How long the other end may take to read that the talk is over.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How much is read at once, bytes. It is read into the stack: a socket that says nothing holds no buffer.
const READ: usize = 16 << 10;

const GATEWAY_ENDS: Parting =
    Parting::of(1012, "the gateway lets go of this socket; connect again");
const SILENT: Parting = Parting::of(1001, "nothing was heard for too long");

/// How a talk is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// After so long without a sign of life the other end is pinged; `None`: it is not.
    pub(super) ping: Option<Duration>,
    /// After so long without a sign of life it is gone.
    pub(super) silence: Duration,
    /// The longest message that is taken, bytes.
    pub(super) longest: usize,
}

/// What a talk was worth, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// A WebSocket under way.
pub(super) struct Talk<S> {
    line: Line<S>,
    messages: Messages,
    /// Came, and waits until the kind took what came before.
    rest: Bytes,
    table: Arc<Table>,
    rules: Rules,
    /// A message of the kind's is on its way.
    speaking: bool,
    /// What the last ping wants to be answered with.
    pong: Option<Bytes>,
    pinged: Instant,
}

/// Why a talk ends.
enum Why {
    /// The other end closed it, and wants to be answered.
    TheyClosed(Bytes),
    /// The kind closes it, or let go of it.
    KindCloses(Parting),
    /// The gateway ends it.
    GatewayEnds,
    /// What the other end says cannot be taken.
    Refused(Parting),
    /// The other end gave no sign of life.
    Silent,
    /// The other end takes nothing any more.
    Stuck,
    Broke(String),
}

// === impl Talk ===

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// A talk with a client whose handshake was answered, and the kind's seat at it.
    pub(super) fn with_client(stream: S, rules: Rules) -> (Self, Seat) {
        Talk::over(Line::new(stream, false), Bytes::new(), rules, true)
    }

    /// A talk with a server that answered our handshake, and the kind's seat at it; `rest` came behind the answer.
    pub(super) fn with_server(stream: S, rest: Bytes, rules: Rules) -> (Self, Seat) {
        Talk::over(Line::new(stream, true), rest, rules, false)
    }

    fn over(line: Line<S>, rest: Bytes, rules: Rules, masked: bool) -> (Self, Seat) {
        let table = Arc::<Table>::default();
        let seat = Seat::at(table.clone());
        let talk = Talk {
            line,
            messages: Messages::new(masked, rules.longest),
            rest,
            table,
            rules,
            speaking: false,
            pong: None,
            pinged: Instant::now(),
        };
        (talk, seat)
    }

    /// What lies between it and the kind.
    pub(super) fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    /// Holds the talk until one of both ends it, or `over` resolves: the gateway lets go of it.
    pub(super) async fn run(mut self, over: impl Future<Output = ()>) -> Carried {
        let mut over = pin!(over);
        let mut alarm = pin!(sleep_until(self.due()));
        let why = poll_fn(|cx| {
            if over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Why::GatewayEnds);
            }
            self.poll(cx, alarm.as_mut())
        });
        let why = why.await;
        self.table.end(why.for_kind());
        self.part(why).await;
        Carried {
            received: self.line.received,
            sent: self.line.sent,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, alarm: Pin<&mut Sleep>) -> Poll<Why> {
        if let Poll::Ready(why) = self.poll_alarm(cx, alarm) {
            return Poll::Ready(why);
        }
        if let Poll::Ready(why) = self.poll_say(cx) {
            return Poll::Ready(why);
        }
        if let Poll::Ready(why) = self.poll_hear(cx) {
            return Poll::Ready(why);
        }
        match self.pong {
            Some(_) => self.poll_say(cx),
            None => Poll::Pending,
        }
    }

    /// When there may be something to do though nothing happens.
    fn due(&self) -> Instant {
        let alive = self.line.alive;
        let ping = self.rules.ping.map(|ping| alive.max(self.pinged) + ping);
        let gone = alive + self.rules.silence;
        ping.map_or(gone, |ping| ping.min(gone))
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<Why> {
        loop {
            ready!(alarm.as_mut().poll(cx));
            let now = Instant::now();
            if !self.table.is_clear(cx) {
                // It is the kind that keeps us from hearing.
                self.line.alive = now;
            }
            let line = &mut self.line;
            if now >= line.alive + self.rules.silence {
                return Poll::Ready(Why::Silent);
            }
            if let Some(ping) = self.rules.ping
                && now >= line.alive.max(self.pinged) + ping
            {
                self.pinged = now;
                // A message that is on its way asks as much.
                if !self.speaking {
                    line.say(frames::PING, Bytes::new());
                }
            }
            alarm.as_mut().reset(self.due());
        }
    }

    /// Says what the kind wants to be said.
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<Why> {
        loop {
            if let Err(error) = ready!(self.line.poll_out(cx)) {
                return Poll::Ready(Why::of(&error));
            }
            if std::mem::take(&mut self.speaking) {
                self.table.said();
            }
            if let Some(payload) = self.pong.take() {
                self.line.say(frames::PONG, payload);
                continue;
            }
            match ready!(self.table.poll_wish(cx)) {
                Wish::Say(message) => {
                    self.speaking = true;
                    match message {
                        Message::Text(text) => self.line.say(frames::TEXT, text.into()),
                        Message::Binary(bytes) => self.line.say(frames::BINARY, bytes),
                    }
                }
                Wish::Part(parting) => return Poll::Ready(Why::KindCloses(parting)),
            }
        }
    }

    /// Hears the other end, as far as the kind listens.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Why> {
        while self.table.is_clear(cx) {
            if !self.rest.is_empty() {
                let mut rest = std::mem::take(&mut self.rest);
                match self.hear(&rest) {
                    Ok(heard) => rest.advance(heard),
                    Err(why) => return Poll::Ready(why),
                }
                if !rest.is_empty() {
                    self.rest = rest;
                }
                continue;
            }
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut buf = ReadBuf::uninit(&mut space);
            match ready!(self.line.poll_read(cx, &mut buf)) {
                Ok(0) => {
                    return Poll::Ready(Why::Broke("the other end left without a word".into()));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Why::of(&error)),
            }
            match self.hear(buf.filled()) {
                Ok(heard) => self.rest = Bytes::copy_from_slice(&buf.filled()[heard..]),
                Err(why) => return Poll::Ready(why),
            }
        }
        Poll::Pending
    }

    /// Takes bytes in to the end of a message, which the kind gets; how many.
    fn hear(&mut self, bytes: &[u8]) -> Result<usize, Why> {
        let mut taken = 0;
        while taken < bytes.len() {
            let (more, heard) = self.messages.take(&bytes[taken..]).map_err(Why::Refused)?;
            taken += more;
            match heard {
                Some(Heard::Message(message)) => {
                    self.table.deliver(message);
                    break;
                }
                // Only the last one has to be answered (RFC 6455, 5.5.3).
                Some(Heard::Ping(payload)) => self.pong = Some(payload),
                Some(Heard::Pong) | None => {}
                Some(Heard::Close(answer)) => return Err(Why::TheyClosed(answer)),
            }
        }
        Ok(taken)
    }

    /// Says the last word, and waits a moment for the other end to read it.
    async fn part(&mut self, why: Why) {
        let (word, wants_answer) = match &why {
            Why::TheyClosed(answer) => (answer.clone(), false),
            Why::KindCloses(parting) | Why::Refused(parting) => (parting.payload(), true),
            Why::GatewayEnds => (GATEWAY_ENDS.payload(), true),
            Why::Silent => (SILENT.payload(), true),
            Why::Stuck | Why::Broke(_) => return,
        };
        // Nothing can be said in the middle of a message.
        let out = timeout(LAST_MESSAGE, poll_fn(|cx| self.line.poll_out(cx)));
        if !matches!(out.await, Ok(Ok(()))) {
            return;
        }
        self.line.say(frames::CLOSE, word);
        let understood = !matches!(why, Why::Refused(_));
        let over = async {
            if poll_fn(|cx| self.line.poll_out(cx)).await.is_err() {
                return;
            }
            // Its answer, or its end; closing before would break the connection under the word.
            while wants_answer && !poll_fn(|cx| self.poll_drop(cx, understood)).await {}
            let _ = poll_fn(|cx| self.line.poll_shutdown(cx)).await;
        };
        let _ = timeout(LAST_WORD, over).await;
    }

    /// Passes over what still comes; whether that was the end.
    fn poll_drop(&mut self, cx: &mut Context<'_>, understood: bool) -> Poll<bool> {
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut buf = ReadBuf::uninit(&mut space);
        let rest = std::mem::take(&mut self.rest);
        let mut bytes = match rest.is_empty() {
            true => match ready!(self.line.poll_read(cx, &mut buf)) {
                Ok(1..) => buf.filled(),
                _ => return Poll::Ready(true),
            },
            false => &rest,
        };
        while understood && !bytes.is_empty() {
            match self.messages.take(bytes) {
                Ok((_, Some(Heard::Close(_)))) | Err(_) => return Poll::Ready(true),
                Ok((taken, _)) => bytes = &bytes[taken..],
            }
        }
        Poll::Ready(false)
    }
}

// === impl Why ===

impl Why {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Why::Stuck,
            _ => Why::Broke(error.to_string()),
        }
    }

    /// What its kind hears.
    fn for_kind(&self) -> Over {
        Over::Failed(match self {
            Why::TheyClosed(_) | Why::KindCloses(_) => return Over::Closed,
            Why::GatewayEnds => NodeError::Broken("the gateway lets go of this socket".into()),
            Why::Refused(parting) => NodeError::Broken(parting.why.clone().into_owned()),
            Why::Silent | Why::Stuck => NodeError::Timeout,
            Why::Broke(why) => NodeError::Broken(why.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
