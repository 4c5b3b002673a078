//! What a kind may use of the gateway, for its service.

use super::world::{LiveService, World};
use super::{Dispatch, Shared};
use crate::config::plan::{JobsPlan, Priority};
use crate::jobs::{self, Jobs, new_id, not_accepted, unavailable};
use crate::store::{Accepted, Changed, Filter, JobRecord, Kept, Moment, NewJob};
use async_trait::async_trait;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, header};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tabane_api::{
    Content, EndpointId, EndpointView, Host, JobView, Need, NodeClient, Refusal, Urgency, Work,
};

/// A service by its name: whatever world is there when it is asked.
struct KindHost {
    /// A kind may keep its host; the gateway must be able to end all the same.
    shared: Weak<Shared>,
    service: Arc<str>,
}

// === impl Dispatch ===

impl Dispatch {
    /// What the kind of this service may use.
    pub fn host(&self, service: &Arc<str>) -> Arc<dyn Host> {
        self.0.host(service)
    }

    /// An endpoint as its kind sees it; `None` when it is gone.
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointView> {
        let core = self.0.core.lock();
        core.rooms.fleet.get(id).map(|endpoint| endpoint.view())
    }

    /// Kinds that are new in a world take up what they kept, in the background.
    pub(super) fn open_kinds(&self, world: &World, prior: Option<&World>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for service in &world.services {
            let before = prior.and_then(|prior| prior.service(&service.plan.name));
            if before.is_some_and(|before| Arc::ptr_eq(&before.kind, &service.kind)) {
                continue;
            }
            let (kind, host) = (service.kind.clone(), self.host(&service.plan.name));
            runtime.spawn(async move {
                let opened = AssertUnwindSafe(kind.open(&host)).catch_unwind();
                if opened.await.is_err() {
                    tracing::error!(
                        service = host.service(),
                        "the kind of this service panicked as it was opened"
                    );
                }
            });
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn host(self: &Arc<Self>, service: &Arc<str>) -> Arc<dyn Host> {
        Arc::new(KindHost {
            shared: Arc::downgrade(self),
            service: service.clone(),
        })
    }

    /// Tells a job's kind that it changed.
    pub(super) fn job_changed(&self, job: &JobRecord) {
        let world = Option::clone(&self.world.load());
        if let Some(service) = world.and_then(|world| world.service(&job.service).cloned()) {
            // A panic of a kind's must not undo what is on disk.
            let told = AssertUnwindSafe(|| service.kind.job_changed(&view(job)));
            if catch_unwind(told).is_err() {
                tracing::error!(service = %job.service, job = %job.id, "the kind of this service panicked over a change of a job");
            }
        }
    }

    fn jobs(&self) -> Result<Jobs, Refusal> {
        let runner = self.runner.get();
        runner.map(|runner| runner.jobs.clone()).ok_or_else(|| {
            Refusal::NoSuch("this gateway keeps no jobs: its file names no `data_dir`".into())
        })
    }
}

// === impl KindHost ===

impl KindHost {
    /// The gateway, and the service as it is now.
    fn now(&self) -> Result<(Arc<Shared>, Arc<LiveService>), Refusal> {
        let shared = self.shared.upgrade().ok_or(Refusal::ShuttingDown)?;
        let world = Option::clone(&shared.world.load());
        let service = world.and_then(|world| world.service(&self.service).cloned());
        let gone = || Refusal::NoSuch(format!("there is no service `{}` now", self.service));
        Ok((shared, service.ok_or_else(gone)?))
    }

    /// A job of this service.
    async fn find(&self, jobs: &Jobs, job: &str) -> Result<Option<JobRecord>, Refusal> {
        let found = jobs.store().find(None, job).await.map_err(unavailable)?;
        Ok(found.filter(|found| found.service == self.service))
    }

    fn draft(jobs: &Jobs, service: &LiveService, work: Work, body: Kept) -> NewJob {
        let plan = &service.plan.jobs;
        let need = Need {
            tenant: work.caller.tenant.clone(),
            interactive: service.plan.interactive,
            urgency: urgency(plan, service.plan.priority, work.need.urgency),
            key: None,
            ..work.need
        };
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        NewJob {
            id: new_id(jobs.now()),
            client_id: work.name,
            parent: None,
            service: service.plan.name.clone(),
            tenant: work.caller.tenant,
            need,
            method: Method::POST,
            uri: work.uri,
            headers,
            body,
            accepted: jobs.now(),
            start_by: plan.start_by.map(|wait| jobs.now().after(wait)),
            timeout_ms: None,
            keep_ms: millis(work.keep.unwrap_or(plan.keep)),
            keep_dead_ms: millis(work.keep.unwrap_or(plan.keep_dead)),
            tags: Vec::new(),
            webhook: None,
            idempotency: None,
        }
    }
}

#[async_trait]
impl Host for KindHost {
    fn service(&self) -> &str {
        &self.service
    }

    fn endpoints(&self) -> Vec<EndpointView> {
        let Ok((shared, service)) = self.now() else {
            return Vec::new();
        };
        let core = shared.core.lock();
        let members = core.rooms.pools.members(service.pool).iter();
        members
            .filter_map(|(id, _)| core.rooms.fleet.get(*id))
            .map(|endpoint| endpoint.view())
            .collect()
    }

    fn client(&self, endpoint: EndpointId) -> Option<Arc<dyn NodeClient>> {
        let shared = self.shared.upgrade()?;
        let upstream = shared.core.lock().upstreams.get(&endpoint).cloned()?;
        Some(shared.means.clients.client(&upstream))
    }

    fn changed(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.turn(|core, now, out| {
                core.rooms.rebar(now);
                core.match_waiting(now, out);
            });
        }
    }

    fn folder(&self) -> Option<PathBuf> {
        let shared = self.shared.upgrade()?;
        let world = Option::clone(&shared.world.load())?;
        let data_dir = world.plan.data_dir.as_deref()?;
        Some(data_dir.join("services").join(&*self.service))
    }

    async fn submit(&self, work: Work) -> Result<JobView, Refusal> {
        let (shared, service) = self.now()?;
        let jobs = shared.jobs()?;
        if shared.closing.load(std::sync::atomic::Ordering::Acquire) {
            return Err(Refusal::ShuttingDown);
        }
        if let Some(name) = work.name.as_deref().filter(|name| !Work::is_name(name)) {
            let why = format!("no job can be known by the name `{name}`");
            return Err(Refusal::BadRequest(why));
        }
        let tenant = work.caller.tenant.clone();
        // Done to its end, whether or not whoever asked stays: a job on disk that waits for nothing would only be found at
        // the next start.
        let taken_in = tokio::spawn(async move {
            let body = jobs.keep(work.body.clone()).await.map_err(unavailable)?;
            let new = KindHost::draft(&jobs, &service, work, body);
            match jobs.accept(new, &service.plan.jobs).await {
                Ok(Accepted::New(job)) => {
                    shared.enqueue(&job);
                    Ok(job)
                }
                Ok(Accepted::Again(job)) if job.service == service.plan.name => Ok(job),
                Ok(Accepted::Again(_) | Accepted::OtherRequest) => {
                    Err(Refusal::Conflict("there is other work of this name".into()))
                }
                Err(error) => Err(not_accepted(error, &service.plan.name, &tenant)),
            }
        });
        let job = taken_in.await.map_err(|_| Refusal::ShuttingDown)??;
        Ok(view(&job))
    }

    async fn cancel(&self, job: &str) -> Result<Option<JobView>, Refusal> {
        let (shared, _) = self.now()?;
        let jobs = shared.jobs()?;
        let Some(found) = self.find(&jobs, job).await? else {
            return Ok(None);
        };
        let (id, all) = (found.id.clone(), jobs.clone());
        let canceled = tokio::spawn(async move {
            let canceled = all.cancel(&id).await;
            shared.withdraw(&id);
            canceled
        });
        let canceled = canceled.await.map_err(|_| Refusal::ShuttingDown)?;
        match canceled.map_err(unavailable)? {
            Changed::Now(job) => Ok(Some(view(&job))),
            Changed::Stale => Ok(self.find(&jobs, &found.id).await?.as_ref().map(view)),
        }
    }

    async fn forget(&self, job: &str) -> Result<(), Refusal> {
        let (shared, _) = self.now()?;
        let jobs = shared.jobs()?;
        if let Some(found) = self.find(&jobs, job).await? {
            let deleted = jobs.store().delete(&found.id).await.map_err(unavailable)?;
            // Two may forget the same at the same time.
            if !deleted && self.find(&jobs, &found.id).await?.is_some() {
                return Err(Refusal::Conflict(format!("the job `{job}` is not over")));
            }
        }
        Ok(())
    }

    async fn jobs(&self, before: Option<i64>, limit: usize) -> Result<Vec<JobView>, Refusal> {
        let (shared, _) = self.now()?;
        let filter = Filter {
            service: Some(self.service.to_string()),
            before,
            limit,
            ..Filter::default()
        };
        let jobs = shared.jobs()?.store().list(filter).await;
        Ok(jobs.map_err(unavailable)?.iter().map(view).collect())
    }

    async fn request(&self, job: &str) -> Result<Option<Content>, Refusal> {
        let jobs = self.now()?.0.jobs()?;
        let Some(found) = self.find(&jobs, job).await? else {
            return Ok(None);
        };
        let request = jobs.store().request(&found.id).await.map_err(unavailable)?;
        match request {
            Some(request) => Ok(Some(
                jobs.content(&request.body).await.map_err(unavailable)?,
            )),
            None => Ok(None),
        }
    }

    async fn result(&self, job: &str) -> Result<Option<Content>, Refusal> {
        let jobs = self.now()?.0.jobs()?;
        let Some(found) = self.find(&jobs, job).await? else {
            return Ok(None);
        };
        let result = jobs.store().result(&found.id).await.map_err(unavailable)?;
        match result {
            Some(kept) => Ok(Some(jobs.content(&kept).await.map_err(unavailable)?)),
            None => Ok(None),
        }
    }
}

/// The urgency of work: the file says what is usual, and its kind how far from that it is.
fn urgency(plan: &JobsPlan, service: Priority, own: Urgency) -> Urgency {
    match plan.priority.unwrap_or(service) {
        Priority::Fixed(usual) => {
            let shifted = usual.value() + own.value();
            Urgency::new(shifted.saturating_sub(Urgency::default().value()))
        }
        Priority::Header => jobs::priority(plan, service, own),
    }
}

fn view(job: &JobRecord) -> JobView {
    let ms = |moment: Option<Moment>| moment.map(|moment| moment.0);
    JobView {
        id: job.id.clone(),
        name: job.client_id.clone(),
        seq: job.seq,
        tenant: job.tenant.clone(),
        state: job.state,
        canceling: job.canceling,
        need: job.need.clone(),
        attempt: job.attempt,
        accepted_ms: job.accepted.0,
        started_ms: ms(job.started),
        ended_ms: ms(job.ended),
        has_result: job.result.is_some(),
        error: job.error.clone(),
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
