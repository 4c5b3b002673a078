//! What is said to a client while a node is silent.

use super::admit::{self, Stop};
use super::context::{Ctx, REQUEST_ID};
use super::cors;
use crate::dispatch::Journey;
use bytes::Bytes;
use http::{Extensions, HeaderValue, StatusCode, Version, header};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use std::time::Duration;
use tabane_api::{KeepAlive, Refusal};
use tokio::time::{Instant, sleep_until};

/// So long nothing is said before a node's own head, unless more often is wanted: until then its status passes untouched.
const QUIET: Duration = Duration::from_secs(10);

/// What was said to a client whose answer may take long.
pub(super) struct Speech {
    id: Option<HeaderValue>,
    cors: Option<HeaderValue>,
    /// HTTP/1.0 knows no answers whose length is not known while their connection lasts.
    can: bool,
    begun: bool,
    /// As what the answer was announced, where it was by us.
    announced: Option<&'static str>,
    /// When something was said last.
    last: Instant,
    /// How long a node may be silent in the middle of its answer.
    every: Option<Duration>,
    /// When the request came.
    since: Instant,
}

// === impl Speech ===

impl Speech {
    pub(super) fn new(session: &Session, ctx: &Ctx) -> Self {
        let now = Instant::now();
        Speech {
            id: ctx.log.request_id.then(|| ctx.id.clone()),
            cors: ctx.cors.clone(),
            can: session.req_header().version > Version::HTTP_10,
            begun: false,
            announced: None,
            last: now,
            every: None,
            since: now,
        }
    }

    /// Whether the answer has begun, with words of the gateway's.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether a node's answer can go on where words of ours began: it is of the type that was announced, and not compressed.
    pub(super) fn goes_on_with(&self, head: &ResponseHeader) -> bool {
        let Some(announced) = self.announced else {
            return true;
        };
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let bare = |kind: &str| {
            kind.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_lowercase()
        };
        let plain = text(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        plain && text(header::CONTENT_TYPE).is_some_and(|kind| bare(kind) == bare(announced))
    }

    /// A node's answer has begun, in which it may be silent for so long.
    pub(super) fn starts(&mut self, every: Option<Duration>) {
        self.begun = true;
        self.every = every;
        self.last = Instant::now();
    }

    /// Something was said by a node.
    pub(super) fn heard(&mut self) {
        self.last = Instant::now();
    }

    /// When something is to be said in a node's stead; `None`: never.
    pub(super) fn silent_until(&self) -> Option<Instant> {
        self.every.map(|every| self.last + every)
    }

    /// Does something that may take long: watches whether the client is there, and speaks where its kind has a word for it.
    ///
    /// Errors: the client left.
    pub(super) async fn meanwhile<T>(
        &mut self,
        session: &mut Session,
        journey: &Journey,
        notes: &Extensions,
        work: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        loop {
            let due = self.due(journey, notes);
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                error = admit::gone(session, true) => return Err(Stop::Gone(error)),
                word = speaks(&due) => self.speak(session, word).await.map_err(Stop::Gone)?,
            }
        }
    }

    /// When something is to be said next, and what.
    pub(super) fn due(
        &self,
        journey: &Journey,
        notes: &Extensions,
    ) -> Option<(Instant, KeepAlive)> {
        let word = journey.keep_alive(notes).filter(|_| self.can)?;
        let at = match self.begun {
            true => self.last + word.every,
            false => self.since + QUIET.min(word.every),
        };
        Some((at, word))
    }

    /// Says it, with a head before it if there was none.
    pub(super) async fn speak(&mut self, session: &mut Session, word: KeepAlive) -> Result<()> {
        if !self.begun {
            self.begun = true;
            self.announced = Some(word.content_type);
            let head = self.head(session.req_header().version, word.content_type)?;
            session.write_response_header(Box::new(head), false).await?;
        }
        self.last = Instant::now();
        session.write_response_body(Some(word.says), false).await
    }

    fn head(&self, version: Version, content_type: &'static str) -> Result<ResponseHeader> {
        let mut head = ResponseHeader::build(StatusCode::OK, Some(6))?;
        head.insert_header(header::CONTENT_TYPE, content_type)?;
        head.insert_header(header::CACHE_CONTROL, "no-cache")?;
        if version == Version::HTTP_11 {
            head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
        if let Some(id) = &self.id {
            head.insert_header(REQUEST_ID, id.clone())?;
        }
        if let Some(origin) = &self.cors {
            cors::expose(&mut head, origin)?;
        }
        Ok(head)
    }

    /// Ends an answer that has begun and goes no further: with a word of its kind's, or by cutting it off.
    pub(super) async fn breaks(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        why: &Refusal,
    ) -> Result<(), Stop> {
        let journey = ctx.journey.as_ref();
        let word: Option<Bytes> = journey.and_then(|journey| journey.broken(why, &ctx.notes));
        let Some(word) = word else {
            let error = pingora::Error::explain(
                pingora::ErrorType::ConnectionClosed,
                "the answer broke off",
            );
            return Err(Stop::Cut(error));
        };
        let told = async {
            session.write_response_body(Some(word), false).await?;
            session.write_response_body(None, true).await
        };
        told.await.map_err(Stop::Gone)
    }
}

/// Resolves when something is to be said; never where there is nothing to say.
async fn speaks(due: &Option<(Instant, KeepAlive)>) -> KeepAlive {
    match due {
        Some((at, word)) => {
            sleep_until(*at).await;
            word.clone()
        }
        None => std::future::pending().await,
    }
}
