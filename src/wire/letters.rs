//! What was told of a job, or is still to be told, and once more of it.

use super::answer::Answer;
use super::{Call, Wire, unavailable};
use crate::jobs::{Jobs, moment};
use http::StatusCode;
use serde_json::json;
use tabane_api::Refusal;

impl Wire {
    /// `GET /_tabane/jobs/{id}/letters`: the letters about a job, and what became of them.
    pub(super) async fn letters(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let letters = jobs.store().letters(&job.id).await.map_err(unavailable)?;
        let letters: Vec<_> = letters
            .iter()
            .map(|kept| {
                json!({
                    "id": kept.letter.id,
                    "written": moment(kept.written),
                    "tries": kept.tries,
                    "due": kept.due.map(moment),
                    "delivered": kept.delivered.map(moment),
                    "last": kept.last,
                })
            })
            .collect();
        Ok(Answer::json(StatusCode::OK, &json!({"letters": letters})))
    }

    /// `POST /_tabane/jobs/{id}/letters`: all of them are sent once more, whatever became of them.
    pub(super) async fn send_again(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let letters = jobs.store().letters(&job.id).await.map_err(unavailable)?;
        let mut again = 0;
        for kept in &letters {
            let replayed = jobs.store().replay(&kept.letter.id, jobs.now()).await;
            again += usize::from(replayed.map_err(unavailable)?);
        }
        jobs.ring_letters();
        Ok(Answer::json(StatusCode::ACCEPTED, &json!({"again": again})))
    }
}
