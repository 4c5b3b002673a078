//! Taking prompts back: those that wait, and those that run.

use super::Call;
use crate::config::Interrupt;
use crate::json::{Json, object};
use crate::ledger::{Phase, Prompt};
use crate::lookup;
use crate::python;
use crate::reply::{Reply, broken, empty, json, ok};
use futures::future::join_all;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{NodeError, Refusal};
use tokio::time::timeout;

/// How long whoever takes a prompt back waits until its node has heard of it.
const TOLD: Duration = Duration::from_secs(3);

impl Call<'_> {
    /// `POST /queue`: prompts that wait are taken out.
    pub(super) async fn edit_queue(&self) -> Reply {
        let Some(asked) = self.document().await else {
            return Ok(broken());
        };
        let ledger = &self.kind.desk.ledger;
        let mut gone: Vec<Arc<Prompt>> = Vec::new();
        if asked.get("clear").is_some_and(python::is_true) {
            // Nobody clears what others wait for, unless all are one.
            let owner = self.owner();
            let (_, waiting) = ledger.queue();
            let own = |prompt: &Arc<Prompt>| self.may_all() || prompt.label.owner == owner;
            gone.extend(waiting.into_iter().filter(own));
        }
        let ids = asked.get("delete").and_then(Json::list).unwrap_or(&[]);
        gone.extend(ids.iter().filter_map(|id| ledger.get(id.text()?)));
        for prompt in gone {
            if matches!(prompt.phase(), Phase::Waiting) {
                self.take_out(&prompt).await?;
            }
        }
        Ok(empty(StatusCode::OK))
    }

    /// `POST /interrupt`: with an id, only that one, and only if it runs; without, those of the caller that run.
    pub(super) async fn interrupt(&self) -> Reply {
        // No body is as good as an empty one.
        let asked = self.document().await.unwrap_or_default();
        let ledger = &self.kind.desk.ledger;
        let id = asked.get("prompt_id").filter(|id| python::is_true(id));
        let hit: Vec<Arc<Prompt>> = match id {
            Some(id) => id
                .text()
                .and_then(|id| ledger.get(id))
                .into_iter()
                .collect(),
            None => {
                let owner = self.owner();
                let (running, _) = ledger.queue();
                let own = |prompt: &Arc<Prompt>| self.may_all() || prompt.label.owner == owner;
                running.into_iter().filter(own).collect()
            }
        };
        join_all(hit.iter().map(|prompt| self.end(prompt))).await;
        Ok(empty(StatusCode::OK))
    }

    /// `POST /api/jobs/{id}/cancel`
    pub(super) async fn cancel_one(&self, id: &str) -> Reply {
        let cancelled = self.cancel(id).await?;
        Ok(ok(&object! {"cancelled": cancelled}))
    }

    /// `POST /api/jobs/cancel`
    pub(super) async fn cancel_many(&self) -> Reply {
        let wrong = |why: &str| Ok(json(StatusCode::BAD_REQUEST, &object! {"error": why}));
        let Some(asked) = self.document().await else {
            return wrong("Request body must be valid JSON");
        };
        let Some(ids) = asked.get("job_ids").and_then(Json::list) else {
            return wrong("job_ids must be a list");
        };
        let invalid = ids.iter().filter(|id| id.text().is_none());
        let invalid: Vec<String> = invalid.map(python::str).collect();
        if !invalid.is_empty() {
            let told = object! {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid};
            return Ok(json(StatusCode::BAD_REQUEST, &told));
        }
        let mut cancelled = false;
        for id in ids.iter().filter_map(Json::text) {
            cancelled |= self.cancel(id).await?;
        }
        Ok(ok(&object! {"cancelled": cancelled}))
    }

    /// Takes a prompt back, whether it waits or runs. Whether there was something to take back.
    async fn cancel(&self, id: &str) -> Result<bool, Refusal> {
        let Some(prompt) = self.kind.desk.ledger.get(id) else {
            return Ok(false);
        };
        match prompt.phase() {
            Phase::Waiting => {
                self.take_out(&prompt).await?;
                Ok(true)
            }
            Phase::Running { .. } => {
                self.end(&prompt).await;
                Ok(true)
            }
            Phase::Taking | Phase::Over(_) | Phase::Gone => Ok(false),
        }
    }

    /// Takes out a prompt that waits.
    async fn take_out(&self, prompt: &Arc<Prompt>) -> Result<(), Refusal> {
        if let Some(job) = prompt.job() {
            self.host.cancel(&job).await?;
        }
        Ok(())
    }

    /// Ends a prompt that runs: its node says what is left of it. One that the node cannot be told of is taken back all the
    /// same, and the node is told when it can be.
    async fn end(&self, prompt: &Arc<Prompt>) {
        let Some((at, name)) = prompt.runs_at() else {
            return;
        };
        // Whoever runs it looks after what is not there yet.
        prompt.take_back();
        let node = self.kind.desk.farm.get(at);
        let Some(client) = self.kind.client(at) else {
            return;
        };
        let told = timeout(
            TOLD,
            lookup::interrupt(node.as_deref(), &*client, &prompt.id),
        );
        let told = told.await.unwrap_or(Err(NodeError::Timeout));
        if let Err(error) = told {
            tracing::warn!(prompt = %prompt.id, endpoint = %name, %error, "a node cannot be told to interrupt a prompt; it is taken back");
            if let Some(job) = prompt.job()
                && let Err(error) = self.host.cancel(&job).await
            {
                tracing::error!(prompt = %prompt.id, %error, "a prompt cannot be taken back");
            }
        }
    }

    /// Whether what is meant without a name is everybody's.
    fn may_all(&self) -> bool {
        self.kind.setup.config.interrupt == Interrupt::All
    }
}
