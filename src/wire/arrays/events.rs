//! What happens to an array, as it happens: how many of its jobs are over, told when that changes.
//!
//! Its events are of the moment and have no numbers: whoever comes again is told how it stands then. What happened to
//! one of its jobs is told by that job's own events.

use super::{LOOK, arrays_base};
use crate::dispatch::Dispatch;
use crate::jobs::{Following, Jobs, array_document};
use crate::store::JobId;
use crate::wire::answer::Answer;
use crate::wire::events::{SILENCE, passing, told_live};
use crate::wire::{Call, Wire};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tabane_api::Refusal;
use tokio::time::{Instant, sleep_until};

/// Someone who is told.
struct Told {
    jobs: Jobs,
    dispatch: Dispatch,
    array: JobId,
    following: Following,
    /// What links begin with.
    base: String,
    /// How many were over when it was told last.
    done: Option<u64>,
    /// Something may have changed.
    look: bool,
    look_at: Instant,
    over: bool,
    silent_at: Instant,
}

impl Wire {
    /// `GET /_tabane/arrays/{id}/events`.
    pub(super) async fn array_events(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let array = self.find_array(jobs, call, id).await?;
        let now = Instant::now();
        let told = Told {
            following: jobs.follow(&array.id),
            jobs: jobs.clone(),
            dispatch: self.dispatch.clone(),
            array: array.id,
            base: arrays_base(call.world),
            done: None,
            look: true,
            look_at: now,
            over: false,
            silent_at: now + SILENCE,
        };
        Ok(told_live(stream::unfold(told, Told::next)))
    }
}

// === impl Told ===

impl Told {
    /// The next thing to say; `None` when the last job is over.
    async fn next(mut self) -> Option<(Bytes, Told)> {
        loop {
            if self.over || self.dispatch.is_closing() {
                return None;
            }
            let said = tokio::select! {
                () = sleep_until(self.look_at), if self.look => self.look_again().await?,
                _ = self.following.next() => {
                    self.look = true;
                    None
                }
                () = sleep_until(self.silent_at) => Some(Bytes::from_static(b":\n\n")),
            };
            if let Some(said) = said {
                self.silent_at = Instant::now() + SILENCE;
                return Some((said, self));
            }
        }
    }

    /// What is to be said of how the array stands now; `None` at the end of it all.
    async fn look_again(&mut self) -> Option<Option<Bytes>> {
        self.look = false;
        let array = match self.jobs.store().array(&self.array).await {
            Ok(array) => array?,
            Err(error) => {
                tracing::error!(array = %self.array, %error, "cannot read how an array stands");
                return None;
            }
        };
        self.look_at = Instant::now() + LOOK;
        let document = array_document(&array, &self.base);
        self.over = array.ended.is_some();
        let done = document["done"].as_u64();
        let data = said(&document);
        if self.over {
            return Some(Some(passing("finished", &data)));
        }
        let changed = done != self.done;
        self.done = done;
        Some(changed.then(|| passing("progress", &data)))
    }
}

/// What an event says.
fn said(document: &Value) -> Value {
    json!({
        "state": document["state"],
        "done": document["done"],
        "total": document["total"],
        "counts": document["counts"],
        "fraction": document["progress"]["fraction"],
        "text": document["progress"]["text"],
    })
}
