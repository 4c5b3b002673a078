//! What follows when a prompt is over on its node: what it made is collected, what was not heard is told, and its entry goes
//! into the store.

use super::{OnNode, now_ms};
use crate::clock;
use crate::entry::{Entry, Status};
use crate::json::{Json, object};
use crate::ledger::Outcome;
use http::Response;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Done, RunError, Verdict as Judged, one_piece};
use tokio::time::{Instant, sleep, timeout_at};

/// How long the node's word is waited for when its history has it already: its events may be slower.
const LATE: Duration = Duration::from_secs(3);

/// How often an output that its node does not give is asked for, and how long until it is again.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_millis(500);

impl OnNode<'_> {
    /// It is over, and this is what the node's history says of it.
    pub(super) async fn ended(&mut self, mut entry: Entry) -> Result<Done, RunError> {
        if !entry.success {
            self.report.untypical();
        }
        self.freed();
        self.prompt.is_off(self.node.id);
        self.hear_out().await;
        if let Some(why) = out_of_memory(&entry)
            && !self.prompt.was_taken_back()
        {
            self.node.forgets();
            return Err(RunError::OutOfMemory(why));
        }
        let mut untold = Vec::new();
        for (node, made) in &mut entry.outputs {
            match self.made.get(node) {
                Some(kept) => *made = kept.clone(),
                None => {
                    *made = self.collect(made).await?;
                    untold.push((node.clone(), made.clone()));
                }
            }
        }
        // Nobody heard of them, since the node's events did not come.
        for (node, made) in untold {
            self.tell(entry.executed(&self.prompt.id, &node, &made));
        }
        if entry.success {
            self.node.computed(&self.prompt.signatures());
        }
        self.done(entry)
    }

    /// Hears what the node said before its history was complete; what is on its way yet is waited for, where its events come.
    async fn hear_out(&mut self) {
        let until = Instant::now() + LATE;
        while self.hears && self.word.is_none() && self.node.line.is_open() {
            match timeout_at(until, self.inbox.recv()).await {
                Ok(Some(frame)) => {
                    self.hear(frame).await;
                }
                _ => {
                    self.node.line.open_anew();
                    break;
                }
            }
        }
        while let Ok(frame) = self.inbox.try_recv() {
            self.hear(frame).await;
        }
    }

    /// Takes what a node of the prompt made off the node. A disk that is slow to wake, or a network that stutters, is no reason to
    /// make it again.
    async fn collect(&mut self, made: &Json) -> Result<Json, RunError> {
        let mut tries = 1;
        loop {
            let mut kept = made.clone();
            match self.outputs.keep(&mut kept).await {
                Ok(()) => return Ok(kept),
                Err(RunError::Node(_)) if tries < TRIES => {
                    tries += 1;
                    sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// It was taken back, and no node says so.
    pub(super) fn interrupted(&mut self) -> Result<Done, RunError> {
        let data = object! {
            "prompt_id": &*self.prompt.id,
            "node_id": "",
            "node_type": "",
            "executed": Json::List(Vec::new()),
            "timestamp": now_ms(),
        };
        self.word = None;
        self.report.untypical();
        self.done(Entry::ended("execution_interrupted", data))
    }

    /// The node is through with it: the next one may have its slot.
    pub(super) fn freed(&self) {
        self.report.freed();
        self.prompt.is_through(clock::now_ms());
    }

    pub(super) fn done(&mut self, mut entry: Entry) -> Result<Done, RunError> {
        entry.through_ms = self.prompt.through_ms();
        let summary = entry.summary();
        let verdict = match summary.status {
            Status::Completed => Judged::Succeeded,
            Status::Failed => Judged::Failed,
            Status::Cancelled => Judged::Canceled,
        };
        let written = entry.written(self.prompt.label.written());
        // Nobody heard the node's word where its events did not come.
        let word = self.word.take().or_else(|| entry.last_word());
        self.prompt.ends_with(Outcome {
            summary: Arc::new(summary),
            word,
        });
        self.is_done = true;
        let mut response = Response::new(one_piece(written.into()));
        let json = http::HeaderValue::from_static("application/json");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, json);
        Ok(Done { verdict, response })
    }
}

/// What a node said of a prompt for which its card was too small.
fn out_of_memory(entry: &Entry) -> Option<String> {
    let error = entry.message("execution_error")?;
    let text = |key| error.get(key).and_then(Json::text).unwrap_or_default();
    let (kind, message) = (text("exception_type"), text("exception_message"));
    is_out_of_memory(kind, message).then(|| message.trim().to_owned())
}

fn is_out_of_memory(kind: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    kind.ends_with("OutOfMemoryError")
        || message.contains("out of memory")
        || message.contains("allocation on device")
}
