//! Work that was taken is followed to its end: by asking, by being called, or by both.

use crate::node::{Document, exchange, is_missing, may_pass};
use crate::protocol::{Protocol, Question, ResultAt};
use crate::reading::{Standing, Told};
use crate::submit::whole;
use crate::template::{Words, on_this_node};
use bytes::Bytes;
use http::{Request, Response, header};
use std::pin::pin;
use std::time::Duration;
use tabane_api::{
    Attempt, Content, Done, NodeClient, NodeError, Pieces, Report, RunError, Verdict,
};
use tokio::time::{Instant, sleep, sleep_until};

/// Work that a server has taken.
pub(crate) struct Work<'a> {
    pub(crate) protocol: &'a Protocol,
    pub(crate) node: &'a dyn NodeClient,
    pub(crate) words: Words,
}

/// What an answer about the work was good for.
enum Heard {
    /// It says where the work stands.
    Standing(Standing, Document),
    /// Nothing, this time.
    Nothing(RunError),
}

/// Pauses between questions. They grow by a tenth, so that the end of the work is noticed late by a tenth of its time
/// at most, however long it takes.
struct Pace {
    next: Duration,
    most: Duration,
}

/// How long nothing good has been heard.
struct Silence {
    since: Option<Instant>,
    most: Duration,
}

// === impl Work ===

impl<'a> Work<'a> {
    /// The work of this attempt, which the server calls `handle`.
    pub(crate) fn new(
        protocol: &'a Protocol,
        attempt: &Attempt,
        handle: &str,
        node: &'a dyn NodeClient,
    ) -> Self {
        Work {
            protocol,
            node,
            words: Words::new(attempt, Some(handle)),
        }
    }

    /// Waits for the end, and gives what came of it. `first`: how long until it is asked for.
    pub(crate) async fn to_its_end(
        &self,
        first: Duration,
        report: &dyn Report,
    ) -> Result<Done, RunError> {
        let (standing, document) = self.follow(first, report).await?;
        if standing == Standing::Done {
            return self.result(document).await;
        }
        match self.protocol.signs.out_of_memory(&document.json) {
            Some(said) => Err(RunError::OutOfMemory(said)),
            None => Ok(whole(Verdict::Failed, document.answer)),
        }
    }

    async fn follow(
        &self,
        first: Duration,
        report: &dyn Report,
    ) -> Result<(Standing, Document), RunError> {
        let signs = &self.protocol.signs;
        let mut told = Told::default();
        let mut pace = Pace::new(self.protocol.every);
        let mut silence = Silence::new(self.protocol.lost_after);
        let mut ask_at = Instant::now() + first;
        // One future for as long as nobody calls: a call that comes while the server is asked is not missed.
        let mut called = pin!(report.called_back());
        loop {
            let heard = tokio::select! {
                call = &mut called, if self.protocol.calls => {
                    called.set(report.called_back());
                    let document = Document::of_call(call);
                    let Ok(standing) = signs.standing(&document.json) else {
                        // Whatever it is, it is not about the state.
                        continue;
                    };
                    Heard::Standing(standing, document)
                }
                (heard, wait) = async {
                    sleep_until(ask_at).await;
                    self.ask().await
                }, if self.protocol.status.is_some() => {
                    ask_at = Instant::now() + pace.next(wait);
                    heard
                }
                else => return Err(RunError::Impossible(format!(
                    "`{}` has no way to know when the work ends", self.protocol.key
                ))),
            };
            match heard {
                Heard::Standing(standing, document) => {
                    silence.broken();
                    signs.tell(&document.json, &mut told, report);
                    if standing != Standing::Going {
                        return Ok((standing, document));
                    }
                }
                Heard::Nothing(why) if silence.is_too_long() => return Err(why),
                Heard::Nothing(_) => {}
            }
        }
    }

    /// Asks how far the work is; with it, how long the server wants to be left alone.
    async fn ask(&self) -> (Heard, Option<Duration>) {
        let Some(status) = &self.protocol.status else {
            return (Heard::Nothing(self.lost("nobody can be asked")), None);
        };
        let answer = match self.send(status).await {
            Ok(answer) => answer,
            Err(error) => return (Heard::Nothing(error.into()), None),
        };
        let wait = retry_after(&answer);
        let nothing = |why: &str| {
            let asked = format!("{} {}", status.method, self.protocol.key);
            Heard::Nothing(self.lost(&format!("{asked}.status: {why}")))
        };
        if !answer.status().is_success() {
            return (
                nothing(&format!("the server answered {}", answer.status())),
                wait,
            );
        }
        let heard = Document::of(answer).and_then(|document| {
            let standing = self.protocol.signs.standing(&document.json)?;
            Ok(Heard::Standing(standing, document))
        });
        (
            heard.unwrap_or_else(|why| nothing(&format!("of the answer: {why}"))),
            wait,
        )
    }

    /// What came of work that is done. It is streamed, unless the last document is the result.
    async fn result(&self, document: Document) -> Result<Done, RunError> {
        let request = match &self.protocol.result {
            ResultAt::Document => return Ok(whole(Verdict::Succeeded, document.answer)),
            ResultAt::Asked(question) => question.request(&self.words),
            ResultAt::Address(at) => {
                let address = at.text(&document.json).and_then(|url| on_this_node(&url));
                address
                    .and_then(|path| Request::get(path).body(Bytes::new()).ok())
                    .ok_or_else(|| format!("the server gave no address at `{at}`"))
            }
        };
        let request =
            request.map_err(|why| self.lost(&format!("{}.result: {why}", self.protocol.key)))?;
        let mut pace = Pace::new(self.protocol.every);
        let mut silence = Silence::new(self.protocol.lost_after);
        loop {
            let asked = self.node.stream(request.clone().map(Content::from)).await;
            let why: RunError = match asked {
                Ok(answer) if !may_pass(answer.status()) => return Ok(judged(answer)),
                Ok(answer) => self.lost(&format!(
                    "{}.result: the server answered {}",
                    self.protocol.key,
                    answer.status()
                )),
                Err(error @ NodeError::BadRequest(_)) => return Err(error.into()),
                Err(error) => error.into(),
            };
            if silence.is_too_long() {
                return Err(why);
            }
            sleep(pace.next(None)).await;
        }
    }

    /// Tells the server to stop, and waits until it has; `false`: nobody can say.
    pub(crate) async fn stop(&self, patience: Duration) -> Result<bool, NodeError> {
        let Some(cancel) = &self.protocol.cancel else {
            return Ok(false);
        };
        let until = Instant::now() + patience;
        let answer = self.send(cancel).await?;
        if is_missing(answer.status()) {
            return Ok(true);
        }
        let Some(status) = &self.protocol.status else {
            return Ok(false);
        };
        // Whatever it said to that, its state is what counts: work may have ended by itself in the meantime.
        let mut pace = Pace::new((
            self.protocol.every.0.min(Duration::from_secs(1)),
            Duration::from_secs(2),
        ));
        while Instant::now() < until {
            match self.send(status).await {
                Ok(answer) if is_missing(answer.status()) => return Ok(true),
                Ok(answer) if answer.status().is_success() => {
                    let standing = Document::of(answer)
                        .and_then(|document| self.protocol.signs.standing(&document.json));
                    if standing.is_ok_and(|standing| standing != Standing::Going) {
                        return Ok(true);
                    }
                }
                _ => {}
            }
            sleep(pace.next(None)).await;
        }
        Ok(false)
    }

    async fn send(&self, question: &Question) -> Result<Response<Bytes>, NodeError> {
        let request = question
            .request(&self.words)
            .map_err(NodeError::BadRequest)?;
        exchange(self.node, request).await
    }

    fn lost(&self, why: &str) -> RunError {
        RunError::Lost(format!("{}: {why}", self.node.name()))
    }
}

/// An answer to the question for the result: one below 400 is the result, any other says why there is none.
fn judged(response: Response<Pieces>) -> Done {
    let verdict = match response.status().as_u16() < 400 {
        true => Verdict::Succeeded,
        false => Verdict::Failed,
    };
    Done { verdict, response }
}

fn retry_after<T>(answer: &Response<T>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

// === impl Pace ===

impl Pace {
    fn new((next, most): (Duration, Duration)) -> Self {
        Pace { next, most }
    }

    /// The pause from now on; `asked`: what the server asks for, which counts up to the longest pause.
    fn next(&mut self, asked: Option<Duration>) -> Duration {
        let pause = self.next.max(asked.unwrap_or_default()).min(self.most);
        self.next = (self.next + self.next / 10).min(self.most);
        pause
    }
}

// === impl Silence ===

impl Silence {
    fn new(most: Duration) -> Self {
        Silence { since: None, most }
    }

    fn broken(&mut self) {
        self.since = None;
    }

    /// Counts one more time that nothing was heard.
    fn is_too_long(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        since.elapsed() >= self.most
    }
}
