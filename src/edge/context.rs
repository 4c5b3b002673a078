use super::cors;
use super::held::Slot;
use super::hold::Body;
use super::pace::Pace;
use crate::config::plan::{LimitsPlan, LogFormat, LogPlan};
use crate::dispatch::{Journey, Lease, LiveService, Upstream, World};
use crate::store::JobId;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tabane_api::Refusal;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NODE: HeaderName = HeaderName::from_static("tabane-node");
const WAIT_MS: HeaderName = HeaderName::from_static("tabane-wait-ms");

/// What the edge knows of one request. Dropped after `logging`, and also when a hook panics or the
/// connection's task is cancelled: whatever must be given back is given back by that.
pub struct Ctx {
    /// Its id: the client's, or made here.
    pub(super) id: HeaderValue,
    pub(super) started: Instant,
    /// What it sees of the configuration, from its head to its end; `None` before the first plan.
    pub(super) world: Option<Arc<World>>,
    /// The service it is for, known even where it was refused before its journey began.
    pub(super) service: Option<Arc<LiveService>>,
    /// The origin of a page that may read the answer.
    pub(super) cors: Option<HeaderValue>,
    /// Who asks, where no journey knows.
    pub(super) tenant: Option<Arc<str>>,
    pub(super) journey: Option<Journey>,
    pub(super) body: Body,
    /// Whether the client was told to send its body (`Expect: 100-continue`).
    pub(super) continued: bool,
    /// Where the client's own session waits while it is wrapped.
    pub(super) slot: Slot,
    pub(super) lease: Option<Lease>,
    /// The endpoint of the last lease, which may have ended by now.
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) attempts: u32,
    /// The job that it became.
    pub(super) job: Option<JobId>,
    /// How long it waited for leases, all attempts together.
    pub(super) wait: Duration,
    pub(super) first_attempt: Option<Instant>,
    pub(super) attempt_started: Option<Instant>,
    pub(super) first_byte: Option<Duration>,
    pub(super) upstream_time: Option<Duration>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Why the gateway gives the request up, until it has said so.
    pub(super) refusal: Option<Refusal>,
    /// The code of the refusal it was answered with.
    pub(super) refused: Option<&'static str>,
    /// The node's answer says that it is busy with something else.
    pub(super) busy: bool,
    /// The node's answer has a status that counts as its failure.
    pub(super) bad_status: bool,
    /// The client left, or its connection broke.
    pub(super) client_gone: bool,
    /// The node broke off after its answer had begun.
    pub(super) broken: bool,
    /// Why the last attempt failed, for the answer when there is no other.
    pub(super) failure: Option<String>,
    pub(super) timed_out: bool,
    pub(super) status: u16,
    /// A way back for the client's next request.
    pub(super) cookie: Option<HeaderValue>,
    /// The kind's notes while it observes the answer.
    pub(super) notes: Extensions,
    pub(super) log: LogPlan,
}

// === impl Ctx ===

impl Ctx {
    pub(super) fn new(world: Option<Arc<World>>, now: Instant) -> Self {
        let quiet = LogPlan {
            format: LogFormat::Auto,
            access: true,
            headers: true,
            request_id: true,
        };
        Ctx {
            id: HeaderValue::from_static(""),
            started: now,
            log: world.as_ref().map_or(quiet, |world| world.plan.log),
            world,
            service: None,
            cors: None,
            tenant: None,
            journey: None,
            body: Body::default(),
            continued: false,
            slot: Slot::default(),
            lease: None,
            upstream: None,
            attempts: 0,
            job: None,
            wait: Duration::ZERO,
            first_attempt: None,
            attempt_started: None,
            first_byte: None,
            upstream_time: None,
            bytes_in: 0,
            bytes_out: 0,
            refusal: None,
            refused: None,
            busy: false,
            bad_status: false,
            client_gone: false,
            broken: false,
            failure: None,
            timed_out: false,
            status: 0,
            cookie: None,
            notes: Extensions::new(),
        }
    }

    /// The bounds of the gateway.
    pub(super) fn limits(&self) -> LimitsPlan {
        self.world
            .as_ref()
            .map_or_else(LimitsPlan::default, |world| world.plan.limits)
    }

    /// The patience with which a body is read.
    pub(super) fn pace(&self) -> Pace {
        let limits = self.limits();
        Pace::new(limits.client_read, limits.client_rate)
    }

    /// Takes the client's request id, or makes one.
    pub(super) fn identify(&mut self, headers: &HeaderMap) {
        let sent = headers.get(&REQUEST_ID).filter(|id| {
            (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        self.id = sent.cloned().unwrap_or_else(make_id);
    }

    /// The id as text.
    pub(super) fn id(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.id.as_bytes())
    }

    /// Puts the gateway's own headers on an answer.
    pub(super) fn sign(&mut self, head: &mut ResponseHeader) -> Result<()> {
        if self.log.request_id {
            head.insert_header(REQUEST_ID, self.id.clone())?;
        }
        if self.log.headers {
            if let Some(upstream) = &self.upstream {
                head.insert_header(NODE, upstream.header.clone())?;
            }
            if self.journey.is_some() {
                head.insert_header(WAIT_MS, HeaderValue::from(self.wait.as_millis() as u64))?;
            }
        }
        if let Some(origin) = &self.cors {
            cors::expose(head, origin)?;
        }
        if let Some(cookie) = self.cookie.take() {
            head.append_header(http::header::SET_COOKIE, cookie)?;
        }
        Ok(())
    }
}

/// Time since an instant, on the clock that tests can pause.
pub(super) trait Elapsed {
    /// How long ago it was.
    fn elapsed_now(self) -> Duration;
}

impl Elapsed for Instant {
    fn elapsed_now(self) -> Duration {
        tokio::time::Instant::now()
            .into_std()
            .saturating_duration_since(self)
    }
}

/// A request id: 8 hex digits of the process, 12 of the request.
fn make_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: once_cell::sync::Lazy<u32> = once_cell::sync::Lazy::new(rand::random);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{:08x}{next:012x}", *PROCESS);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_that_was_sent_is_kept_unless_it_could_do_harm() {
        let id_of = |sent: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(
                    REQUEST_ID,
                    HeaderValue::from_bytes(sent.as_bytes()).unwrap(),
                );
            }
            let mut ctx = Ctx::new(None, Instant::now());
            ctx.identify(&headers);
            ctx.id().into_owned()
        };
        assert_eq!(id_of(Some("abc-123")), "abc-123");
        for odd in [
            None,
            Some("with space"),
            Some(""),
            Some(&*"x".repeat(129)),
            Some("tab\there"),
        ] {
            assert_eq!(id_of(odd).len(), 20, "{odd:?}");
        }
        assert_ne!(id_of(None), id_of(None));
    }
}
