//! A kind that takes work in by itself, and does with it what the work's query says; what it is told and asked is on its
//! desk, for the test to see.

use crate::scene::eventually;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use tabane_api::{
    ANONYMOUS, Ask, Attempt, Body, Caller, Candidate, Content, Done, EndpointId, Host, Intent,
    JobState, JobView, Kind, Need, NodeClient, NodeError, ProbeError, Refusal, Report, RunError,
    Service, Stop, Stopped, Terms, Verdict, Vitals, Work, one_piece,
};
use tokio::sync::watch;

/// The kind `keeper`.
pub(crate) struct Keeper {
    settings: Settings,
    desk: Arc<Desk>,
    /// The tag of the one that it takes over from.
    before: Option<String>,
}

/// Its block.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The name of its desk.
    desk: String,
    /// Means nothing; another one makes another kind.
    #[serde(default)]
    tag: String,
}

/// The service, what was said of the kind before it, and its host.
type Opened = (String, Option<String>, Arc<dyn Host>);

/// All that the keepers of one test share, over reloads and restarts.
#[derive(Default)]
pub(crate) struct Desk {
    /// What each was opened with: its tag, the tag of the one before it, its host.
    opened: Mutex<Vec<Opened>>,
    /// The jobs that changed, as they were told.
    changes: Mutex<Vec<JobView>>,
    /// The attempts that began.
    runs: Mutex<Vec<Run>>,
    /// The attempts that were to be stopped.
    stops: Mutex<Vec<(Arc<str>, Stop)>>,
    /// What endpoints lack for a piece of work.
    lacks: Mutex<BTreeMap<(String, EndpointId), String>>,
    /// What it fails on.
    fails_on: Mutex<BTreeSet<&'static str>>,
    /// What those may go on with who wait for a word.
    words: watch::Sender<BTreeSet<String>>,
}

/// An attempt that began.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) job: Arc<str>,
    pub(crate) number: u32,
    pub(crate) work: Option<Arc<str>>,
    pub(crate) tenant: Arc<str>,
    pub(crate) uri: String,
    pub(crate) body: Bytes,
    pub(crate) handle: Option<Arc<str>>,
    /// The endpoint it is on.
    pub(crate) on: String,
}

static DESKS: LazyLock<Mutex<BTreeMap<String, Arc<Desk>>>> = LazyLock::new(Mutex::default);

/// How a service names its kind: with a desk of this name.
pub(crate) fn kind(desk: &str) -> String {
    format!("{{keeper: {{desk: {desk}}}}}")
}

// === impl Desk ===

impl Desk {
    /// The desk of this name.
    pub(crate) fn of(name: &str) -> Arc<Desk> {
        DESKS.lock().entry(name.to_owned()).or_default().clone()
    }

    /// The host that was given last, once one was.
    pub(crate) async fn host(&self) -> Arc<dyn Host> {
        eventually("the kind is opened", || !self.opened.lock().is_empty()).await;
        self.last_host().unwrap()
    }

    fn last_host(&self) -> Option<Arc<dyn Host>> {
        let opened = self.opened.lock();
        opened.last().map(|(.., host)| host.clone())
    }

    /// By which tags it was opened, and what it took over.
    pub(crate) fn opened(&self) -> Vec<(String, Option<String>)> {
        let opened = self.opened.lock();
        opened
            .iter()
            .map(|(tag, prior, _)| (tag.clone(), prior.clone()))
            .collect()
    }

    /// What was told of a job: its states in their order.
    pub(crate) fn states(&self, job: &str) -> Vec<JobState> {
        self.views(job).iter().map(|view| view.state).collect()
    }

    /// What was told of a job.
    pub(crate) fn views(&self, job: &str) -> Vec<JobView> {
        let changes = self.changes.lock();
        let of_job = changes.iter().filter(|view| &*view.id == job);
        of_job.cloned().collect()
    }

    /// Waits until a job was told to be in this state.
    pub(crate) async fn until_told(&self, job: &str, state: JobState) -> JobView {
        let told = || self.views(job).into_iter().find(|view| view.state == state);
        eventually(&format!("{job} is told to be {state}"), || told().is_some()).await;
        told().unwrap()
    }

    /// The attempts that began.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.runs.lock().clone()
    }

    /// Waits until an attempt at this piece of work began.
    pub(crate) async fn until_runs(&self, work: &str) -> Run {
        let run = || {
            let runs = self.runs.lock();
            let mut of_work = runs.iter().filter(|run| run.work.as_deref() == Some(work));
            of_work.next_back().cloned()
        };
        eventually(&format!("{work} is at work"), || run().is_some()).await;
        run().unwrap()
    }

    /// The attempts that were to be stopped.
    pub(crate) fn stops(&self) -> Vec<(Arc<str>, Stop)> {
        self.stops.lock().clone()
    }

    /// An endpoint lacks something for a piece of work, or nothing any more.
    pub(crate) fn lacks(&self, work: &str, at: EndpointId, what: Option<&str>) {
        let key = (work.to_owned(), at);
        match what {
            Some(what) => self.lacks.lock().insert(key, what.to_owned()),
            None => self.lacks.lock().remove(&key),
        };
    }

    /// Whether it fails on this call.
    pub(crate) fn fails_on(&self, call: &'static str, fails: bool) {
        match fails {
            true => self.fails_on.lock().insert(call),
            false => self.fails_on.lock().remove(call),
        };
    }

    /// Whoever waits for this word goes on.
    pub(crate) fn say(&self, word: &str) {
        self.words.send_modify(|words| {
            words.insert(word.to_owned());
        });
    }

    async fn said(&self, word: &str) {
        let mut words = self.words.subscribe();
        let _ = words.wait_for(|words| words.contains(word)).await;
    }

    fn may_fail(&self, call: &'static str) {
        let fails = self.fails_on.lock().contains(call);
        assert!(!fails, "as the test wants it");
    }
}

impl Kind for Keeper {
    const NAME: &'static str = "keeper";
    const KEEPS: bool = true;
    type Config = Settings;

    fn new(settings: Settings, prior: Option<Arc<Self>>) -> Result<Self, String> {
        Ok(Keeper {
            desk: Desk::of(&settings.desk),
            before: prior.map(|prior| prior.settings.tag.clone()),
            settings,
        })
    }
}

#[async_trait]
impl Service for Keeper {
    fn classify(&self, ask: &Ask<'_>, _body: Option<&Bytes>) -> Result<Intent, Refusal> {
        self.desk.may_fail("classify");
        // As careless as a kind can be that keeps its host.
        if let Some(host) = self.desk.last_host() {
            host.endpoints();
        }
        match ask.path {
            "/own" => Ok(Intent::Own { max: 1 << 20 }),
            path => Ok(Intent::Forward(Need {
                work: ask.query_value("work").map(Into::into),
                ..Need::of_class(path)
            })),
        }
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        let asked = Request::get("/health").body(Bytes::new())?;
        match node.send(asked).await?.status() {
            status if status.is_success() => Ok(Vitals::default()),
            status => Err(ProbeError::Unhealthy(status.to_string())),
        }
    }

    async fn open(&self, host: &Arc<dyn Host>) {
        let tag = self.settings.tag.clone();
        let opened = (tag, self.before.clone(), host.clone());
        self.desk.opened.lock().push(opened);
        self.desk.may_fail("open");
    }

    /// Takes in what is sent, with the query as what is done with it, for whoever asks.
    async fn answer(
        &self,
        request: Request<Content>,
        caller: &Caller,
        host: &Arc<dyn Host>,
    ) -> Result<Response<Body>, Refusal> {
        let (head, content) = request.into_parts();
        let body = content.to_bytes(1 << 20).await.unwrap();
        let work = Work {
            caller: caller.clone(),
            uri: head.uri,
            body,
            ..work("sent")
        };
        let job = host.submit(work).await?;
        Ok(Response::new(job.id.to_string().into_bytes().into()))
    }

    fn lacks(&self, need: &Need, at: EndpointId) -> Option<String> {
        self.desk.may_fail("lacks");
        let key = (need.work.as_deref()?.to_owned(), at);
        self.desk.lacks.lock().get(&key).cloned()
    }

    fn terms(&self, _need: &Need, _at: &Candidate<'_>, _vitals: &Vitals, learned: Terms) -> Terms {
        self.desk.may_fail("terms");
        learned
    }

    fn job_changed(&self, job: &JobView) {
        self.desk.changes.lock().push(job.clone());
        // Whoever changes a job holds nothing that this needs.
        if let Some(host) = self.desk.last_host() {
            host.endpoints();
            host.changed();
        }
        self.desk.may_fail("job_changed");
    }

    async fn run(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        report: &dyn Report,
    ) -> Result<Done, RunError> {
        let body = attempt.body.to_bytes(16 << 20).await.unwrap();
        self.desk.runs.lock().push(Run {
            job: attempt.job.clone(),
            number: attempt.number,
            work: attempt.need.work.clone(),
            tenant: attempt.tenant.clone(),
            uri: attempt.uri.to_string(),
            body: body.clone(),
            handle: attempt.handle.clone(),
            on: node.name().to_owned(),
        });
        let mut result = one_piece(body);
        let mut verdict = Verdict::Succeeded;
        for step in attempt.uri.query().unwrap_or_default().split(',') {
            match step.split_once(':').unwrap_or((step, "")) {
                ("wait", word) => self.desk.said(word).await,
                // Once only.
                ("again", word) if attempt.number > 1 => self.desk.say(word),
                ("again", _) => return Err(RunError::Lost("as the test wants it".into())),
                ("handle", handle) if attempt.handle.is_none() => {
                    report.submitting().await?;
                    report.handle(handle).await?;
                }
                ("freed", _) => report.freed(),
                ("untypical", _) => report.untypical(),
                ("oom", _) => return Err(RunError::OutOfMemory("as the test wants it".into())),
                ("impossible", _) => return Err(RunError::Impossible("of no use".into())),
                ("panic", _) => panic!("as the test wants it"),
                ("failed", _) => verdict = Verdict::Failed,
                ("canceled", _) => verdict = Verdict::Canceled,
                // What came of it is there when this word is said.
                ("later", word) => {
                    let (desk, word) = (self.desk.clone(), word.to_owned());
                    let waits = async move {
                        desk.said(&word).await;
                        Ok(Bytes::new())
                    };
                    result = futures::stream::once(waits).chain(result).boxed();
                }
                _ => {}
            }
        }
        let mut response = Response::new(result);
        *response.status_mut() = StatusCode::CREATED;
        Ok(Done { verdict, response })
    }

    async fn cancel(
        &self,
        attempt: &Attempt,
        _node: &dyn NodeClient,
        why: Stop,
    ) -> Result<Stopped, NodeError> {
        self.desk.stops.lock().push((attempt.job.clone(), why));
        Ok(Stopped::Idle)
    }
}

/// A piece of work of this name and class, for nobody in particular.
pub(crate) fn work(name: &str) -> Work {
    Work {
        name: None,
        caller: Caller {
            tenant: ANONYMOUS.into(),
            address: [127, 0, 0, 1].into(),
        },
        need: Need {
            work: Some(name.into()),
            ..Need::of_class("keep")
        },
        uri: "/keep".parse().unwrap(),
        body: Bytes::new(),
        keep: None,
    }
}

/// The same, with what is done with it.
pub(crate) fn doing(name: &str, steps: &str) -> Work {
    Work {
        uri: format!("/keep?{steps}").parse().unwrap(),
        ..work(name)
    }
}
