//! What waits and runs.

use super::Call;
use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::ledger::Prompt;
use crate::open;
use crate::stored::Stored;
use std::sync::Arc;
use tabane_api::Refusal;

impl Call<'_> {
    /// `GET /prompt`
    pub(super) fn exec_info(&self) -> Json {
        let remaining = self.kind.desk.ledger.remaining();
        let remaining = Json::integer(i64::try_from(remaining).unwrap_or(i64::MAX));
        object! {"exec_info": object! {"queue_remaining": remaining}}
    }

    /// `GET /queue`
    pub(super) async fn queue(&self) -> Result<Json, Refusal> {
        let (running, waiting) = self.kind.desk.ledger.queue();
        Ok(object! {
            "queue_running": self.tuples(running).await,
            "queue_pending": self.tuples(waiting).await,
        })
    }

    async fn tuples(&self, prompts: Vec<Arc<Prompt>>) -> Vec<Json> {
        let mut all = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            // One that has just ended is not in the queue any more.
            if let Some(stored) = prompt.stored() {
                all.push(self.tuple(&stored));
            }
        }
        all
    }

    /// The five that stand for a prompt.
    pub(super) fn tuple(&self, stored: &Stored) -> Json {
        stored.tuple(stamps(self.kind))
    }

    /// What a prompt was taken in with, whether or not it is over.
    pub(super) async fn stored(&self, prompt: &Prompt) -> Result<Arc<Stored>, Refusal> {
        if let Some(stored) = prompt.stored() {
            return Ok(stored);
        }
        let gone = || Refusal::Gone("the prompt is not kept any more".into());
        let job = prompt.job().ok_or_else(gone)?;
        Ok(Arc::new(open::stored(self.host, &job).await?))
    }
}

/// Whether the nodes stamp on prompts when they came.
pub(super) fn stamps(kind: &Comfyui) -> bool {
    kind.merged().is_none_or(|merged| merged.stamps)
}
