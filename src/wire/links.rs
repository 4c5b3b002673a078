//! Links that need no key: for browsers, which should not hold one, and for letters.

use super::answer::Answer;
use super::ask::span;
use super::submit::jobs_base;
use super::{Call, Wire, small};
use crate::jobs::{Jobs, moment};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tabane_api::Refusal;

/// How long a link is good unless the client says otherwise, and at most.
const USUAL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    expires_in: Option<String>,
}

impl Wire {
    /// `POST /_tabane/jobs/{id}/links`.
    pub(super) async fn links(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        id: &str,
    ) -> Result<Answer, Refusal> {
        let job = self.find(jobs, call, id).await?;
        let body = small(&call.body).await?;
        let wanted: Wanted = match body.is_empty() {
            true => Wanted::default(),
            false => serde_json::from_slice(&body).map_err(|error| {
                Refusal::BadRequest(format!("send `{{\"expires_in\": \"1h\"}}`: {error}"))
            })?,
        };
        let good_for = match wanted.expires_in {
            None => USUAL,
            Some(text) => span(&text)
                .filter(|span| !span.is_zero() && *span <= LONGEST)
                .ok_or_else(|| {
                    Refusal::BadRequest(format!(
                        "`expires_in`: `{text}` is no duration of at most 7 days; write `1h`"
                    ))
                })?,
        };
        let expires = jobs.now().after(good_for);
        let token = jobs.sign_job(&job.id, expires);
        let path = format!("{}/{}", jobs_base(call.world), job.id);
        let document = json!({
            "expires": moment(expires),
            "links": {
                "self": format!("{path}?token={token}"),
                "result": format!("{path}/result?token={token}"),
                "events": format!("{path}/events?token={token}"),
                "log": format!("{path}/log?token={token}"),
            },
        });
        Ok(Answer::json(StatusCode::OK, &document))
    }
}
