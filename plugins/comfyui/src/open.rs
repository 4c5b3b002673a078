//! A gateway that comes back takes up what was kept: prompts that wait or run, and the history.

use crate::attend;
use crate::clock::now_ms;
use crate::config::History;
use crate::ending;
use crate::entry::Entry;
use crate::files::Files;
use crate::frames::Frame;
use crate::json::Json;
use crate::kind::Comfyui;
use crate::ledger::{Label, Phase, Prompt};
use crate::needs::Folder;
use crate::stored::Stored;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Content, Host, JobState, JobView, Refusal};
use tokio::time::sleep;

/// How many jobs are read at once.
const PAGE: usize = 500;

/// What ended so long before the start, milliseconds, may not have been heard of: as long as a client that is away is waited for.
const JUST: i64 = 60_000;

/// The largest prompt that is read back, bytes.
const MOST: usize = 256 << 20;

/// How often what is too old is looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// Takes up what was kept. A second call, after a reload, does nothing.
pub async fn open(kind: &Comfyui, host: &Arc<dyn Host>) {
    if kind.desk.host.set(host.clone()).is_err() {
        return;
    }
    if let Err(error) = files(kind, host.folder()).await {
        tracing::error!(service = host.service(), %error,
            "the folder of this service cannot be used; uploads and outputs cannot be kept until the gateway is restarted");
    }
    let mut tries = 0_u32;
    while let Err(error) = take_up(kind, host).await {
        tries += 1;
        tracing::error!(service = host.service(), %error, "what was kept cannot be read; trying again");
        sleep(Duration::from_secs(u64::from(tries.min(10)))).await;
    }
    tell_ends(kind, host).await;
    ending::trim(kind);
    kind.desk.ready.send_replace(true);
    // Nodes that said meanwhile what they can do were not held against what was still being read.
    for node in kind.nodes() {
        attend::look_again(kind, &node).await;
    }
    sweep(kind).await;
}

async fn files(kind: &Comfyui, folder: Option<PathBuf>) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the file names no `data_dir`");
    let folder = folder.ok_or_else(missing)?;
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        Files::open(folder)
    });
    let files = opened.await.map_err(io::Error::other)??;
    let _ = kind.desk.files.set(files);
    Ok(())
}

/// A prompt that was over waits again: somebody had its job retried.
pub async fn reopen(kind: &Comfyui, prompt: &Arc<Prompt>, job: &str) {
    let Some(host) = kind.desk.host.get() else {
        return;
    };
    match stored(host, job).await {
        Ok(stored) => kind.desk.ledger.reopen(prompt, stored),
        Err(error) => {
            tracing::error!(prompt = %prompt.id, %error, "a prompt that is to run again cannot be read");
            return;
        }
    }
    kind.tell_status();
    for node in kind.nodes() {
        attend::look_again(kind, &node).await;
    }
}

async fn take_up(kind: &Comfyui, host: &Arc<dyn Host>) -> Result<(), Refusal> {
    let mut before = None;
    loop {
        let page = host.jobs(before, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        before = Some(last.seq);
        for job in &page {
            if let Err(error) = one(kind, host, job).await {
                tracing::warn!(job = %job.id, %error, "a prompt that was kept cannot be read; it is left out");
            }
        }
    }
}

async fn one(kind: &Comfyui, host: &Arc<dyn Host>, job: &JobView) -> Result<(), Refusal> {
    let Some(id) = job.need.work.clone() else {
        return Ok(());
    };
    let prompt = match job.state.is_over() {
        false => {
            let stored = stored(host, &job.id).await?;
            let phase = Phase::Waiting;
            kind.desk.ledger.put(Prompt::new(stored, Vec::new(), phase))
        }
        true => {
            let label = label(host, job).await?;
            kind.desk
                .ledger
                .put(Prompt::labelled(id, label, Phase::Waiting))
        }
    };
    // `Err`: somebody submitted it meanwhile.
    let Ok(prompt) = prompt else { return Ok(()) };
    prompt.is_job(&job.id);
    if !job.state.is_over() {
        return Ok(());
    }
    if job.state == JobState::Canceled && job.attempt == 0 {
        ending::forget(kind, &prompt, &job.id);
        return Ok(());
    }
    let summary = match job.has_result {
        true => entry(host, &job.id).await?.summary(),
        false => ending::entry_without(&prompt, job).summary_of_made(),
    };
    let at = ending::ended_at(job, &summary);
    kind.desk.ledger.over(&prompt, at, Arc::new(summary));
    Ok(())
}

/// Whoever was connected as the gateway went down may not have heard of what ended then, and hears of it when they come back.
/// One who had heard of it hears it again: that they had is not known.
async fn tell_ends(kind: &Comfyui, host: &Arc<dyn Host>) {
    let since = now_ms() - JUST;
    for prompt in kind.desk.ledger.past_since(since) {
        let (Some(client), Some(job)) = (prompt.label.client.as_deref(), prompt.job()) else {
            continue;
        };
        let made = ending::summary(&prompt).and_then(|summary| summary.made.clone());
        let entry = match made {
            Some(made) => *made,
            None => match entry(host, &job).await {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::warn!(prompt = %prompt.id, %error, "how a prompt ended cannot be read");
                    continue;
                }
            },
        };
        let executed = entry.outputs.iter();
        let executed = executed.map(|(node, made)| entry.executed(&prompt.id, node, made));
        let frames = executed.chain(entry.last_word());
        for frame in frames.chain([Frame::end(&prompt.id)]) {
            kind.desk.clients.send(client, frame);
        }
    }
}

/// What a prompt was taken in with.
pub async fn stored(host: &Arc<dyn Host>, job: &str) -> Result<Stored, Refusal> {
    let bytes = read(host.request(job).await?).await?;
    Stored::read(&bytes).map_err(|error| Refusal::Internal(error.to_string()))
}

/// What came of a prompt.
pub async fn entry(host: &Arc<dyn Host>, job: &str) -> Result<Entry, Refusal> {
    Ok(Entry::of(&result(host, job).await?))
}

async fn result(host: &Arc<dyn Host>, job: &str) -> Result<Json, Refusal> {
    let bytes = read(host.result(job).await?).await?;
    Json::read(&bytes).map_err(|error| Refusal::Internal(error.to_string()))
}

async fn label(host: &Arc<dyn Host>, job: &JobView) -> Result<Label, Refusal> {
    if job.has_result
        && let Some(label) = result(host, &job.id).await?.get("label")
    {
        return Ok(Label::read(label));
    }
    Ok(stored(host, &job.id).await?.label())
}

async fn read(content: Option<Content>) -> Result<bytes::Bytes, Refusal> {
    let content = content.ok_or_else(|| Refusal::Gone("it is not kept any more".into()))?;
    let bytes = content.to_bytes(MOST).await;
    bytes.map_err(|error| Refusal::Internal(error.to_string()))
}

/// Removes files that are older than they are kept, for ever.
async fn sweep(kind: &Comfyui) {
    let Some(files) = kind.desk.files.get() else {
        return;
    };
    loop {
        let History { temp, output, .. } = kind.setup.config.history;
        let temp = Some((Folder::Temp, temp.0));
        let output = output.map(|span| (Folder::Output, span.0));
        for (folder, age) in temp.into_iter().chain(output) {
            match files.remove_older(folder, age).await {
                Ok(removed) if removed.files > 0 => {
                    let (files, bytes) = (removed.files, removed.bytes);
                    tracing::info!(
                        folder = folder.name(),
                        files,
                        bytes,
                        "files that are too old were removed"
                    );
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(folder = folder.name(), %error, "cannot remove old files");
                }
            }
        }
        sleep(SWEEP).await;
    }
}
