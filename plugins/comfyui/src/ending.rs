//! A prompt is over: its history is complete, and whoever follows it hears so, in the order in which a server says it.

use crate::entry::{Entry, Summary};
use crate::frames::Frame;
use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::ledger::{Outcome, Phase, Prompt, Verdict};
use std::sync::Arc;
use tabane_api::{EndpointId, JobState, JobView};

/// A prompt's job is over.
pub fn over(kind: &Comfyui, prompt: &Arc<Prompt>, job: &JobView) {
    if !prompt.is_open() {
        return;
    }
    let refused = matches!(&*prompt.verdict.borrow(), Some(Verdict::Refused(_)));
    let never_ran = job.state == JobState::Canceled && job.attempt == 0;
    if never_ran || (refused && prompt.awaits(false)) {
        forget(kind, prompt, &job.id);
        kind.tell_status();
        return;
    }
    let (summary, word) = match prompt.outcome().filter(|_| job.has_result) {
        Some(Outcome { summary, word }) => (summary, word),
        None => {
            let entry = entry_without(prompt, job);
            let word = entry.last_word();
            (Arc::new(entry.summary_of_made()), word)
        }
    };
    if !kind
        .desk
        .ledger
        .over(prompt, ended_at(job, &summary), summary)
    {
        return;
    }
    // A node that could not be told is told when it can be.
    for at in prompt.leaves() {
        strays(kind, prompt, at);
    }
    let client = prompt.label.client.as_deref();
    if let (Some(client), Some(word)) = (client, word) {
        kind.desk.clients.send(client, word);
    }
    kind.tell_status();
    if let Some(client) = client {
        kind.desk.clients.send(client, Frame::end(&prompt.id));
    }
    trim(kind);
    collected(kind, &job.id);
    if kind.setup.config.one_running_per_client
        && let Some(host) = kind.desk.host.get().cloned()
    {
        // Not within the change of a job: whoever waits is looked at under the gateway's lock.
        tokio::spawn(async move { host.changed() });
    }
}

/// Which names its outputs got need not be known any more: nobody will collect them again.
fn collected(kind: &Comfyui, job: &Arc<str>) {
    let (Some(files), job) = (kind.desk.files.get().cloned(), job.clone()) else {
        return;
    };
    tokio::spawn(async move {
        if let Err(error) = files.forget(&job).await {
            tracing::warn!(%job, %error, "cannot forget which names the outputs of a job got");
        }
    });
}

/// Nobody follows a prompt at this endpoint any more.
pub fn strays(kind: &Comfyui, prompt: &Prompt, at: EndpointId) {
    if let Some(node) = kind.desk.farm.get(at) {
        node.strays.add(&prompt.id);
    }
}

/// The place of a job among those that are over: when its node was through with it, else when it was over.
pub fn ended_at(job: &JobView, summary: &Summary) -> (i64, i64) {
    let at = summary.through_ms.or(job.ended_ms);
    (at.unwrap_or_default(), job.seq)
}

/// The entry of a prompt that ended without a node's word.
pub fn entry_without(prompt: &Prompt, job: &JobView) -> Entry {
    let timestamp = Json::integer(job.ended_ms.unwrap_or_default());
    if job.state == JobState::Canceled {
        let data = object! {
            "prompt_id": &*prompt.id,
            "node_id": "",
            "node_type": "",
            "executed": Json::List(Vec::new()),
            "timestamp": timestamp,
        };
        return Entry::ended("execution_interrupted", data);
    }
    let kind = match job.state {
        JobState::Expired => "Expired",
        JobState::Failed => "Refused",
        _ => "NodeLost",
    };
    let why = job
        .error
        .clone()
        .unwrap_or_else(|| "no node could execute it".into());
    // Without a node's id front ends show it as the service's own.
    let data = object! {
        "prompt_id": &*prompt.id,
        "node_id": "",
        "node_type": "",
        "executed": Json::List(Vec::new()),
        "exception_message": why,
        "exception_type": kind,
        "traceback": Json::List(Vec::new()),
        "current_inputs": object! {},
        "current_outputs": Json::List(Vec::new()),
        "timestamp": timestamp,
    };
    Entry::ended("execution_error", data)
}

/// A prompt, and its job with it, is nobody's business any more.
pub fn forget(kind: &Comfyui, prompt: &Arc<Prompt>, job: &Arc<str>) {
    kind.desk.ledger.forget(prompt);
    let (Some(host), job) = (kind.desk.host.get().cloned(), job.clone()) else {
        return;
    };
    tokio::spawn(async move {
        if let Err(error) = host.forget(&job).await {
            tracing::warn!(%job, %error, "cannot forget a prompt that nobody needs");
        }
    });
}

/// The history holds as much as it may.
pub fn trim(kind: &Comfyui) {
    let too_old = kind.desk.ledger.too_old(kind.setup.config.history.max);
    for prompt in too_old {
        match prompt.job() {
            Some(job) => forget(kind, &prompt, &job),
            None => kind.desk.ledger.forget(&prompt),
        }
    }
}

/// What came of a prompt, as far as lists say it.
pub fn summary(prompt: &Prompt) -> Option<Arc<Summary>> {
    match prompt.phase() {
        Phase::Over(summary) => Some(summary),
        _ => None,
    }
}
