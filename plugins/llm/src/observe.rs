//! What is learned and counted of an answer that goes by.

use crate::call::{Call, Placed};
use crate::ids::Sought;
use crate::kind::Llm;
use crate::learn::Sample;
use crate::stream::{Account, Follow};
use http::{Extensions, HeaderMap, StatusCode, header};
use memchr::memmem;
use std::time::{Duration, Instant};
use tabane_api::{Need, OutOfMemory, Seen, Usage};

/// So much of an error is kept, to see whether it says that the card is too small.
const ERROR_MOST: usize = 4096;
/// From so many tokens on, the time between them says something.
const STEPS_LEAST: u64 = 4;

/// An answer that goes by: a note of the gateway's.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// `None`: it is over.
    follow: Option<Follow>,
    streams: bool,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Its id, where somebody may ask for it.
    sought: Option<Sought>,
    within_line: bool,
    /// Its beginning, where it is an error.
    error: Option<Vec<u8>>,
}

/// Looks at a piece of an answer.
pub(crate) fn observe(
    kind: &Llm,
    need: &Need,
    seen: Seen<'_>,
    notes: &mut Extensions,
    now: Instant,
) {
    let Some(call) = need.own.get::<Call>() else {
        return;
    };
    if let Seen::Head(status, headers) = seen {
        notes.insert(Watch::new(call, status, headers));
        return;
    }
    let Some(watch) = notes.get_mut::<Watch>() else {
        return;
    };
    match seen {
        Seen::Head(..) => {}
        Seen::Bytes(bytes) => watch.bytes(kind, call, bytes, now),
        Seen::End | Seen::Broken => {
            let whole = matches!(seen, Seen::End);
            if watch.is_out_of_memory() {
                notes.insert(OutOfMemory);
            } else if let Some(usage) = watch.over(kind, need, call, whole, now) {
                notes.insert(usage);
            }
        }
    }
}

// === impl Watch ===

impl Watch {
    fn new(call: &Call, status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_well = status.is_success();
        let follow = Follow::new(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
        Watch {
            streams: is_well && follow.streams(),
            follow: is_well.then_some(follow),
            first: None,
            last: None,
            sought: (is_well && call.request.is_kept).then(Sought::default),
            within_line: false,
            error: (!is_well).then(Vec::new),
        }
    }

    /// Whether it comes token by token.
    pub(crate) fn streams(&self) -> bool {
        self.streams
    }

    /// Whether something can be said now that is no part of it.
    pub(crate) fn may_be_interrupted(&self) -> bool {
        let within = match &self.follow {
            Some(follow) => follow.is_within_line(),
            None => self.within_line,
        };
        self.streams && !within
    }

    fn bytes(&mut self, kind: &Llm, call: &Call, bytes: &[u8], now: Instant) {
        if let Some(error) = &mut self.error {
            let room = ERROR_MOST.saturating_sub(error.len()).min(bytes.len());
            error.extend_from_slice(&bytes[..room]);
        }
        if let Some(found) = self.sought.as_mut().and_then(|sought| sought.feed(bytes)) {
            self.sought = None;
            if let (Some(id), Some(placed)) = (found, &*call.placed.lock()) {
                kind.desk.ids.made(&id, &placed.node.name);
            }
        }
        let Some(follow) = &mut self.follow else {
            return;
        };
        let step = follow.feed(bytes);
        if step.tokens > 0 {
            self.last = Some(now);
            if step.first {
                self.first = Some(now);
            }
            heard(call, step.first, now);
        }
    }

    fn is_out_of_memory(&self) -> bool {
        let Some(error) = &self.error else {
            return false;
        };
        let lower = error.to_ascii_lowercase();
        let words: [&[u8]; 3] = [b"out of memory", b"outofmemory", b"failed to allocate"];
        words
            .iter()
            .any(|word| memmem::find(&lower, word).is_some())
    }

    /// It is over, or broke off: what it used.
    fn over(
        &mut self,
        kind: &Llm,
        need: &Need,
        call: &Call,
        whole: bool,
        now: Instant,
    ) -> Option<Usage> {
        let follow = self.follow.take()?;
        self.within_line = follow.is_within_line();
        if whole && self.first.is_none() {
            // It came at once; what was read for it is read.
            heard(call, true, now);
        }
        let account = follow.end();
        let placed = call.placed.lock().clone()?;
        let times = Times::of(self, &placed, &account, now);
        let made = account.tokens();
        let read = account
            .usage
            .prompt
            .unwrap_or(match call.request.route.generates() {
                true => call.tokens.round() as u64,
                false => 0,
            });
        if let Some(admitted) = &mut *call.request.admitted.lock() {
            admitted.used(read.saturating_add(made));
        }
        if call.request.route.generates() {
            let sample = sample(need, call, &placed, &account, times, whole);
            kind.desk.learned.write().add(&sample);
        }
        Some(Usage {
            model: call.model.clone(),
            read,
            cached: account.usage.cached,
            made,
            first: times.first_s.and_then(span),
            each: times.step_s.and_then(span),
        })
    }
}

fn heard(call: &Call, is_first: bool, now: Instant) {
    let node = call.placed.lock().as_ref().map(|p| p.node.clone());
    if let Some(node) = node {
        node.heard(call, is_first, now);
    }
}

fn span(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long it took, seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    first_s: Option<f64>,
    step_s: Option<f64>,
    total_s: f64,
}

// === impl Times ===

impl Times {
    /// What was seen goes before what the engine says: that is how long it took for whoever waits. What came at once is as the
    /// engine says.
    fn of(watch: &Watch, placed: &Placed, account: &Account, now: Instant) -> Self {
        let since = |at: Instant| at.saturating_duration_since(placed.since).as_secs_f64();
        let said = &account.timings;
        let made = account.tokens();
        let step_s = match (watch.first, watch.last) {
            (Some(first), Some(last)) if made >= STEPS_LEAST && last > first => {
                let took = last.saturating_duration_since(first).as_secs_f64();
                Some(took / (made - 1) as f64)
            }
            _ => None,
        };
        let said_step = match (said.decode_s, said.decode_tokens) {
            (Some(decode_s), Some(tokens)) if tokens >= STEPS_LEAST => {
                Some(decode_s / tokens as f64)
            }
            _ => None,
        };
        let said_first = said.prompt_s.map(|s| s + said.load_s.unwrap_or(0.0));
        Times {
            first_s: watch.first.map(since).or(said_first),
            step_s: said_step.or(step_s).filter(|step_s| *step_s > 0.0),
            total_s: since(now),
        }
    }
}

fn sample<'a>(
    need: &'a Need,
    call: &'a Call,
    placed: &'a Placed,
    account: &Account,
    times: Times,
    whole: bool,
) -> Sample<'a> {
    let request = &call.request;
    let says_prompt = account.usage.prompt.is_some();
    Sample {
        endpoint: &placed.node.name,
        model: &call.model,
        tenant: &need.tenant,
        prompt: account.usage.prompt.unwrap_or(call.tokens.round() as u64),
        prompt_bytes: match says_prompt && request.is_text {
            true => request.prompt_bytes,
            false => 0,
        },
        cached: account.usage.cached.unwrap_or(placed.hit),
        ahead: placed.ahead,
        running: placed.running,
        queued: placed.queued,
        cold: placed.cold,
        first_s: times.first_s,
        step_s: times.step_s,
        total_s: whole.then_some(times.total_s),
        made: account.tokens(),
        whole: whole && account.whole,
    }
}

#[cfg(test)]
mod tests;
