//! What happens to a job, as it happens (server-sent events, HTML 9.2).
//!
//! Events that change the job are kept and numbered by its version: whoever comes back with `Last-Event-ID` gets all
//! that it missed, also after a restart of the gateway. Progress, places in the queue and log lines on their way are
//! told without a number: they are of the moment.

use super::answer::{Answer, Payload};
use super::submit::query;
use super::{Call, Wire};
use crate::dispatch::Dispatch;
use crate::jobs::{Following, Jobs, Note, moment};
use crate::store::{JobEvent, JobRecord};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tabane_api::Refusal;
use tokio::time::{Instant, sleep_until};

/// How long nothing is said until a comment is: servers between cut what is silent for a minute.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// How often who waits is told its place.
const PLACES: Duration = Duration::from_secs(5);

/// How many events are read at once.
const PAGE: usize = 200;

/// Someone who is told.
struct Told {
    jobs: Jobs,
    dispatch: Dispatch,
    job: JobRecord,
    following: Following,
    /// The last kept event that was told.
    last: u64,
    ready: VecDeque<Bytes>,
    /// Kept events may be waiting in the store.
    look: bool,
    over: bool,
    place: Option<usize>,
    place_at: Instant,
    silent_at: Instant,
}

impl Wire {
    /// `GET /_tabane/jobs/{id}/events`.
    pub(super) async fn events(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let header = call.headers.get("last-event-id");
        let last = header.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let last = last.or_else(|| query(call.query, "last_event_id"));
        let last = last.and_then(|id| id.parse().ok()).unwrap_or(0);
        let now = Instant::now();
        let told = Told {
            following: jobs.follow(&job.id),
            jobs: jobs.clone(),
            dispatch: self.dispatch.clone(),
            job,
            last,
            ready: VecDeque::new(),
            look: true,
            over: false,
            place: None,
            place_at: now,
            silent_at: now + SILENCE,
        };
        Ok(told_live(stream::unfold(told, Told::next)))
    }
}

/// An answer of events as they happen.
pub(super) fn told_live(events: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    let mut answer = Answer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Payload::Live(Box::pin(events.map(Ok))),
    };
    answer.set(header::CONTENT_TYPE, "text/event-stream");
    answer.set(header::CACHE_CONTROL, "no-cache");
    // nginx in front would gather what should be seen at once.
    answer.set(HeaderName::from_static("x-accel-buffering"), "no");
    answer
}

// === impl Told ===

impl Told {
    /// The next thing to say; `None` at the job's end.
    async fn next(mut self) -> Option<(Bytes, Told)> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                self.silent_at = Instant::now() + SILENCE;
                return Some((said, self));
            }
            if self.look {
                self.read().await;
                continue;
            }
            if self.over || self.dispatch.is_closing() {
                return None;
            }
            tokio::select! {
                note = self.following.next() => self.note(note),
                () = sleep_until(self.place_at) => self.tell_place(),
                () = sleep_until(self.silent_at) => self.ready.push_back(Bytes::from_static(b":\n\n")),
            }
        }
    }

    /// Reads what is kept and was not told.
    async fn read(&mut self) {
        match self
            .jobs
            .store()
            .events(&self.job.id, self.last, PAGE)
            .await
        {
            Ok(events) => {
                self.look = events.len() == PAGE;
                for event in events {
                    self.last = event.version;
                    self.over = event.kind == "finished";
                    self.ready.push_back(kept(&event));
                }
                // Deleted, or told all there is of one that is over.
                if !self.look && self.ready.is_empty() && self.job.state.is_over() {
                    self.over = true;
                }
            }
            Err(error) => {
                tracing::error!(job = %self.job.id, %error, "cannot read what happened to a job");
                (self.look, self.over) = (false, true);
            }
        }
    }

    fn note(&mut self, note: Option<Note>) {
        match note {
            None => self.look = true,
            Some(Note::Changed(job)) => {
                self.job = (*job).clone();
                self.look = true;
            }
            Some(Note::Progress(progress)) => {
                let data = json!({"fraction": progress.fraction, "text": progress.text});
                self.ready.push_back(passing("progress", &data));
            }
            Some(Note::Log(line)) => {
                self.ready.push_back(passing("log", &json!({"line": line})));
            }
            Some(Note::Child) => {}
        }
    }

    fn tell_place(&mut self) {
        self.place_at = Instant::now() + PLACES;
        let standing = self.dispatch.standing(&self.job);
        if standing.position.is_some() && standing.position != self.place {
            self.place = standing.position;
            let eta = standing
                .eta_s
                .map(|(p50, p90)| json!({"p50": p50, "p90": p90}));
            let data = json!({"position": standing.position, "eta_s": eta});
            self.ready.push_back(passing("position", &data));
        }
    }
}

/// A kept event as it is sent.
fn kept(event: &JobEvent) -> Bytes {
    let mut data: Value = serde_json::from_str(&event.data).unwrap_or_else(|_| json!({}));
    if let Value::Object(data) = &mut data {
        data.insert("at".into(), json!(moment(event.at)));
    }
    format!(
        "id: {}\nevent: {}\ndata: {data}\n\n",
        event.version, event.kind
    )
    .into()
}

/// An event of the moment.
pub(super) fn passing(kind: &str, data: &Value) -> Bytes {
    format!("event: {kind}\ndata: {data}\n\n").into()
}
