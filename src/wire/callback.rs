//! A backend says that it is done: the address was handed to it with the work, and is good for one attempt.

use super::submit::query;
use super::{Answer, Call, Payload, Wire, small, unavailable};
use crate::jobs::Jobs;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use tabane_api::Refusal;

impl Wire {
    /// `POST /_tabane/callbacks/{job}/{attempt}?token=…`.
    pub(super) async fn callback(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
        job: &str,
        attempt: &str,
    ) -> Result<Answer, Refusal> {
        let unknown = || Refusal::NoSuch("nobody waits for a call here".into());
        let attempt: u32 = attempt.parse().map_err(|_| unknown())?;
        let token = query(call.query, "token").unwrap_or_default();
        if !jobs.is_callback(job, attempt, &token) {
            return Err(unknown());
        }
        let body = small(&call.body).await?;
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.headers_mut() = call.headers.clone();
        if let Ok(uri) = call.path.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        if jobs.call_back(job, attempt, request) {
            return Ok(Answer {
                status: StatusCode::NO_CONTENT,
                headers: HeaderMap::new(),
                body: Payload::Bytes(Bytes::new()),
            });
        }
        let found = jobs.store().find(None, job).await.map_err(unavailable)?;
        match found {
            // It is being taken up again, or as many calls wait as may.
            Some(job) if !job.state.is_over() && job.attempt == attempt => Err(
                Refusal::Overloaded("the attempt does not listen now; call again soon".into()),
            ),
            _ => Err(Refusal::Gone("this attempt is over".into())),
        }
    }
}
