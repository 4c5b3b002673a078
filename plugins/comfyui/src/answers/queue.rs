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
        let stamps = stamps(self.kind);
        let tuples = |prompts: Vec<Arc<Prompt>>| -> Vec<Json> {
            // One that has just ended is not in the queue any more.
            let stored = prompts.iter().filter_map(|prompt| prompt.stored());
            stored.map(|stored| stored.tuple(stamps)).collect()
        };
        let (running, waiting) = self.kind.desk.ledger.queue();
        Ok(object! {
            "queue_running": tuples(running),
            "queue_pending": tuples(waiting),
        })
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
