//! A request becomes a job: it is on disk before it is answered.

use super::ask::Wishes;
use super::change::to_its_end;
use super::collect::Wait;
use super::{Answer, Call, Who, Wire, base, unavailable};
use crate::config::plan::JobsPlan;
use crate::dispatch::{Journey, LiveService, World};
use crate::jobs::{self, AcceptError, Jobs, new_id, not_accepted};
use crate::store::{Accepted, Idempotency, JobRecord, Kept, NewJob, Spooled};
use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Ask, Content, Need, Refusal, Work};

/// A request's body as the edge holds it.
#[derive(Clone)]
pub enum HeldBody {
    /// In memory.
    Memory(Bytes),
    /// On disk, without a name.
    Disk(Arc<Spooled>),
}

/// A request that becomes a job.
pub struct Submission<'a> {
    /// The world that it read.
    pub world: &'a Arc<World>,
    /// Who asks, for which service, and what it needs.
    pub journey: &'a Journey,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers, less what is between two neighbours only and the caller's key.
    pub headers: HeaderMap,
    /// Its body.
    pub body: HeldBody,
    /// The id that the client chose.
    pub client_id: Option<Arc<str>>,
}

/// A job that was taken in, and how its client wants to hear of it.
pub struct Submitted {
    /// The job.
    pub job: JobRecord,
    /// How long the client waits for its end; `None`: not at all.
    pub wait: Option<Duration>,
    /// Nobody but this request can rely on it.
    pub is_own: bool,
}

// === impl Wire ===

impl Wire {
    /// Takes a request in. It is on disk when this returns.
    ///
    /// Errors: a header makes no sense, as many wait as may, its key is that of another request, or it cannot be kept.
    pub async fn submit(&self, asked: Submission<'_>) -> Result<Submitted, Refusal> {
        let jobs = self.jobs()?;
        if self.dispatch.is_closing() {
            return Err(Refusal::ShuttingDown);
        }
        let service = &asked.journey.service;
        let wishes = Wishes::read(&asked.headers, jobs)?;
        let new = self.new_job(jobs, service, &asked, &wishes).await?;
        let (job, is_new) = match self
            .keep_new(jobs, new, &asked.body, &service.plan.jobs)
            .await?
        {
            Ok(Accepted::New(job)) => (job, true),
            Ok(Accepted::Again(job)) => (job, false),
            Ok(Accepted::OtherRequest) => {
                let what = match asked.client_id {
                    Some(id) => format!("there is a job `{id}` of another request"),
                    None => "this `Idempotency-Key` was used for another request".into(),
                };
                return Err(Refusal::Unprocessable(what));
            }
            Err(error) => {
                let tenant = &asked.journey.caller.tenant;
                return Err(not_accepted(error, &service.plan.name, tenant));
            }
        };
        Ok(Submitted {
            job,
            wait: wishes.prefer.wait,
            // Under a key it may be somebody else's too, or this client's that comes again.
            is_own: is_new && wishes.idempotency_key.is_none(),
        })
    }

    /// Takes a job in and has it wait for a node. Once begun it is done, whether or not its client stays: a job on disk
    /// that waits for nothing would only be found at the next start.
    ///
    /// Errors: the gateway goes down.
    async fn keep_new(
        &self,
        jobs: &Jobs,
        mut new: NewJob,
        body: &HeldBody,
        plan: &JobsPlan,
    ) -> Result<Result<Accepted, AcceptError>, Refusal> {
        let (dispatch, jobs, plan) = (self.dispatch.clone(), jobs.clone(), plan.clone());
        let body = body.clone();
        let taken_in = to_its_end(async move {
            new.body = keep(&jobs, &body).await?;
            let accepted = jobs.accept(new, &plan).await;
            if let Ok(Accepted::New(job)) = &accepted {
                dispatch.enqueue(job);
            }
            Ok(accepted)
        });
        taken_in.await?
    }

    /// What a client that sent a request is answered: the job's result, if it waits and that comes in time; else 202.
    pub async fn accepted(
        &self,
        world: &Arc<World>,
        submitted: Submitted,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let jobs = self.jobs()?;
        let Submitted { mut job, wait, .. } = submitted;
        if let Some(wait) = wait {
            job = self.until(jobs, job, wait, Wait::Over).await?;
            if job.state.is_over() {
                return self.result_of(jobs, &job, headers).await;
            }
        }
        self.accepted_document(jobs, world, &job, wait).await
    }

    /// The client of a job left while it waited for its end, and the service says that nobody wants it then.
    pub async fn abandon(&self, job: JobRecord) {
        if let Ok(jobs) = self.jobs()
            && !job.state.is_over()
            && let Err(error) = self.cancel(jobs, job).await
        {
            tracing::warn!(%error, "a job whose client left cannot be canceled");
        }
    }

    async fn new_job(
        &self,
        jobs: &Jobs,
        service: &LiveService,
        asked: &Submission<'_>,
        wishes: &Wishes,
    ) -> Result<NewJob, Refusal> {
        let body = asked.body.content();
        let idempotency = match (&asked.client_id, &wishes.idempotency_key) {
            (None, None) => None,
            (client_id, key) => {
                let target = asked.uri.to_string();
                let print = jobs::fingerprint(asked.method.as_str(), &target, &body).await;
                let fingerprint = print.map_err(|error| {
                    Refusal::Internal(format!("the body cannot be read back: {error}"))
                })?;
                let key = match (client_id, key) {
                    (Some(id), _) => format!("PUT {id}"),
                    (None, key) => format!(
                        "{} {}",
                        service.plan.name,
                        key.as_deref().unwrap_or_default()
                    ),
                };
                Some(Idempotency { key, fingerprint })
            }
        };
        let new = self.draft(
            jobs,
            asked.journey,
            asked.method.clone(),
            asked.uri.clone(),
            asked.headers.clone(),
            wishes,
        );
        self.dispatch.could_ever(asked.journey)?;
        Ok(NewJob {
            client_id: asked.client_id.clone(),
            idempotency,
            ..new
        })
    }

    /// The job that a request becomes, its body not kept yet.
    pub(super) fn draft(
        &self,
        jobs: &Jobs,
        journey: &Journey,
        method: Method,
        uri: Uri,
        mut headers: HeaderMap,
        wishes: &Wishes,
    ) -> NewJob {
        let plan = &journey.service.plan.jobs;
        let need = Need {
            urgency: journey.job_urgency(&headers),
            key: None,
            ..journey.need().clone()
        };
        Wishes::strip(&mut headers);
        for name in [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::EXPECT,
        ] {
            headers.remove(name);
        }
        NewJob {
            id: new_id(jobs.now()),
            client_id: None,
            parent: None,
            service: journey.service.plan.name.clone(),
            tenant: journey.caller.tenant.clone(),
            need,
            method,
            uri,
            headers,
            body: Kept::Row(Bytes::new()),
            accepted: jobs.now(),
            start_by: wishes
                .start_by
                .or_else(|| Some(jobs.now().after(plan.start_by?))),
            timeout_ms: wishes.timeout_ms,
            keep_ms: millis(plan.keep),
            keep_dead_ms: millis(plan.keep_dead),
            tags: wishes.tags.clone(),
            webhook: wishes.webhook.clone(),
            idempotency: None,
        }
    }

    /// `PUT /_tabane/jobs/{client-id}?service=S&path=P[&method=M]`.
    pub(super) async fn put(&self, call: &Call<'_>, id: &str) -> Result<Answer, Refusal> {
        let Who::Tenant(caller) = &call.who else {
            return Err(match &call.who {
                Who::Nobody(why) => why.clone(),
                _ => Refusal::Forbidden("jobs are submitted by tenants".into()),
            });
        };
        if !Work::is_name(id) {
            return Err(Refusal::BadRequest(
                "an id has 1 to 128 letters, digits, `.`, `_`, `~` or `-`, and is no ULID".into(),
            ));
        }
        let service = query(call.query, "service").ok_or_else(|| {
            Refusal::BadRequest("say which service: `?service=NAME&path=/…`".into())
        })?;
        let path = query(call.query, "path").unwrap_or_else(|| "/".into());
        let method = match query(call.query, "method") {
            None => Method::POST,
            Some(text) => text
                .to_ascii_uppercase()
                .parse()
                .map_err(|_| Refusal::BadRequest(format!("`{text}` is no method")))?,
        };
        let uri: Uri = match path.parse() {
            Ok(uri) if path.starts_with('/') => uri,
            _ => return Err(Refusal::BadRequest(format!("`path={path}` is no path"))),
        };
        let submitted = self
            .submit_to(call, caller.clone(), &service, method, uri, Some(id.into()))
            .await?;
        self.accepted(call.world, submitted, call.headers).await
    }

    async fn submit_to(
        &self,
        call: &Call<'_>,
        caller: tabane_api::Caller,
        service: &str,
        method: Method,
        uri: Uri,
        client_id: Option<Arc<str>>,
    ) -> Result<Submitted, Refusal> {
        let mut headers = call.headers.clone();
        headers.remove(header::HOST);
        let body = match &call.body {
            HeldBody::Memory(bytes) => bytes.clone(),
            // Too long to say what it needs.
            HeldBody::Disk(_) => Bytes::new(),
        };
        let ask = Ask {
            method: &method,
            path: uri.path(),
            query: uri.query(),
            headers: &headers,
            caller: &caller,
        };
        let journey = self.dispatch.journey_to(call.world, service, &ask, &body)?;
        let asked = Submission {
            world: call.world,
            journey: &journey,
            method,
            uri,
            headers,
            body: call.body.clone(),
            client_id,
        };
        self.submit(asked).await
    }
}

/// A value of a query, its percent signs read.
pub(super) fn query(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(query?.as_bytes());
    let mut found = pairs.filter(|(key, _)| key == name);
    found.next().map(|(_, value)| value.into_owned())
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

// === impl HeldBody ===

impl HeldBody {
    /// To be read.
    pub fn content(&self) -> Content {
        match self {
            HeldBody::Memory(bytes) => Content::Bytes(bytes.clone()),
            HeldBody::Disk(spooled) => Content::Stored(spooled.clone()),
        }
    }
}

impl Default for HeldBody {
    fn default() -> Self {
        HeldBody::Memory(Bytes::new())
    }
}

/// What links to jobs begin with.
pub(super) fn jobs_base(world: &World) -> String {
    base(world, "jobs")
}

async fn keep(jobs: &Jobs, body: &HeldBody) -> Result<Kept, Refusal> {
    let kept = match body {
        HeldBody::Memory(bytes) => jobs.keep(bytes.clone()).await,
        HeldBody::Disk(spooled) => jobs.adopt(spooled).await,
    };
    kept.map_err(unavailable)
}
