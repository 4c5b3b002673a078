//! The kind itself: which part of it answers what.

use crate::clients::Clients;
use crate::config::{Config, KNOWN, Route};
use crate::farm::{Farm, Merged, Node};
use crate::files::Files;
use crate::json::object;
use crate::ledger::{Ledger, NotLookedAt, Phase, Prompt};
use crate::logs::Logs;
use crate::names::Names;
use crate::needs::FilePath;
use crate::route::{Operation, operation};
use crate::shown::Shown;
use crate::{answers, attend, ending, lookup, probe, run, socket};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tabane_api::{
    Ask, Attempt, Body, Caller, Candidate, Content, Done, EndpointId, EndpointView, Found, Host,
    Intent, JobState, JobView, Kind, Need, NodeClient, NodeError, ProbeError, Refusal, Released,
    Report, RunError, Service, Shape, Socket, Stop, Stopped, Terms, Vitals,
};
use tokio::sync::watch;

/// How much a server takes in one request unless told otherwise, bytes.
const MOST: u64 = 100 << 20;

/// How long whoever asks waits at most until what was kept has been read, after a start.
const READY: Duration = Duration::from_secs(30);

/// Many ComfyUI servers as one. A clone is a handle to the same.
#[derive(Clone)]
pub struct Comfyui {
    pub(crate) setup: Arc<Setup>,
    pub(crate) desk: Arc<Desk>,
}

/// What the file says of it.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) names: Names,
}

/// What it remembers, over reloads.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger,
    pub(crate) farm: Farm,
    pub(crate) clients: Clients,
    pub(crate) logs: Logs,
    pub(crate) shown: Shown,
    pub(crate) files: OnceLock<Files>,
    pub(crate) host: OnceLock<Arc<dyn Host>>,
    /// Whether what was kept has been read.
    pub(crate) ready: watch::Sender<bool>,
}

// === impl Comfyui ===

impl Comfyui {
    /// Waits until what was kept has been read.
    pub(crate) async fn ready(&self) -> Result<(), Refusal> {
        let mut ready = self.desk.ready.subscribe();
        let waited = tokio::time::timeout(READY, ready.wait_for(|ready| *ready)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::Overloaded(
                "what was kept is still being read; try again soon".into(),
            )),
        }
    }

    /// Where files are kept.
    pub(crate) fn files(&self) -> Result<&Files, Refusal> {
        self.desk.files.get().ok_or_else(|| {
            Refusal::Internal("the service has no folder for its files; see the log".into())
        })
    }

    /// Whether a file is kept, and so can be brought to a node.
    pub(crate) fn keeps(&self, path: FilePath<'_>) -> bool {
        self.holds(path).is_some()
    }

    /// What a file that is kept holds, by something that changes with it.
    pub(crate) fn holds(&self, path: FilePath<'_>) -> Option<String> {
        self.desk.files.get()?.stamp(path)
    }

    /// The endpoints of the pool, the home endpoint first.
    pub(crate) fn endpoints(&self) -> Vec<EndpointView> {
        let Some(host) = self.desk.host.get() else {
            return Vec::new();
        };
        let mut all = host.endpoints();
        let home = match &self.setup.config.home {
            Some(name) => all.iter().position(|at| *at.name == **name && at.usable),
            None => None,
        };
        let home = home.or_else(|| all.iter().position(|at| at.usable));
        if let Some(home) = home {
            all[..=home].rotate_right(1);
        }
        all
    }

    /// The endpoint whose front end is shown, if any is well.
    pub(crate) fn home(&self) -> Option<EndpointView> {
        self.endpoints().into_iter().find(|at| at.usable)
    }

    /// All nodes as one; `None`: none has said yet what it can do.
    pub(crate) fn merged(&self) -> Option<Arc<Merged>> {
        let order: Vec<EndpointId> = self.endpoints().iter().map(|at| at.id).collect();
        self.desk.farm.merged(&order)
    }

    /// The nodes that are known, the home node first.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let known = self.endpoints();
        let known = known.iter().filter_map(|at| self.desk.farm.get(at.id));
        known.collect()
    }

    /// A client for a node.
    pub(crate) fn client(&self, at: EndpointId) -> Option<Arc<dyn NodeClient>> {
        self.desk.host.get()?.client(at)
    }

    /// Tells all clients how many prompts wait or run.
    pub(crate) fn tell_status(&self) {
        self.desk
            .clients
            .status(self.desk.ledger.remaining() as u64);
    }

    /// Where a path that only custom nodes know leads.
    fn route(&self, path: &str) -> Route {
        let own = self.setup.config.routes.iter();
        let own = own.map(|(known, route)| (known.as_str(), *route));
        let routes = KNOWN.into_iter().chain(own);
        let bare = path.strip_prefix("/api").unwrap_or(path);
        let fits = routes.filter(|(known, _)| {
            let rest = path
                .strip_prefix(known)
                .or_else(|| bare.strip_prefix(known));
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || known.ends_with('/')
            })
        });
        let longest = fits.max_by_key(|(known, _)| known.len());
        longest.map_or(Route::Home, |(_, route)| route)
    }

    /// Whether another prompt of the same client runs, where that counts.
    fn waits_for_its_client(&self, prompt: &Prompt) -> bool {
        self.setup.config.one_running_per_client
            && prompt
                .label
                .client
                .as_ref()
                .is_some_and(|client| self.desk.ledger.runs_for(client, &prompt.id))
    }
}

impl Kind for Comfyui {
    const NAME: &'static str = "comfyui";
    const POLICY: &'static str = "match";
    const KEEPS: bool = true;
    type Config = Config;

    fn new(config: Config, prior: Option<Arc<Self>>) -> Result<Self, String> {
        let desk = match prior {
            Some(prior) => prior.desk.clone(),
            None => Arc::new(Desk {
                ledger: Ledger::default(),
                farm: Farm::default(),
                clients: Clients::default(),
                logs: Logs::default(),
                shown: Shown::default(),
                files: OnceLock::new(),
                host: OnceLock::new(),
                ready: watch::Sender::new(false),
            }),
        };
        let names = Names::new(config.aliases.iter().cloned());
        Ok(Comfyui {
            setup: Arc::new(Setup { config, names }),
            desk,
        })
    }
}

#[async_trait]
impl Service for Comfyui {
    fn classify(&self, ask: &Ask<'_>, _body: Option<&Bytes>) -> Result<Intent, Refusal> {
        let asked = operation(ask.method, ask.path);
        Ok(match asked {
            Operation::Socket => Intent::Socket,
            Operation::Other => match self.route(ask.path) {
                Route::Home => Intent::Pinned(self.home().ok_or_else(nobody)?.id),
                Route::Owner => {
                    let owner = answers::owner(ask.caller, ask.headers);
                    let there = self.desk.ledger.runs_of(&owner);
                    let there = there.or_else(|| Some(self.home()?.id));
                    Intent::Pinned(there.ok_or_else(nobody)?)
                }
                Route::All | Route::First | Route::View => Intent::Own { max: MOST },
            },
            _ => Intent::Own { max: MOST },
        })
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        probe::probe(self, node).await
    }

    /// In the form in which a server says what is wrong with a prompt; clients show its `message`.
    fn refuse(&self, ask: &Ask<'_>, why: &Refusal) -> Shape {
        if operation(ask.method, ask.path) != Operation::Submit {
            return Shape::plain(why);
        }
        let kind = match why {
            Refusal::QueueFull { .. } | Refusal::TenantFull { .. } => "QUEUE_LIMIT",
            other => other.code(),
        };
        let told = object! {
            "error": object! {
                "type": kind,
                "message": why.to_string(),
                "details": "",
                "extra_info": object! {},
            },
            "node_errors": object! {},
        };
        Shape {
            content_type: "application/json",
            body: told.to_string().into(),
            headers: http::HeaderMap::new(),
        }
    }

    async fn open(&self, host: &Arc<dyn Host>) {
        crate::open::open(self, host).await;
    }

    async fn answer(
        &self,
        request: Request<Content>,
        caller: &Caller,
        host: &Arc<dyn Host>,
    ) -> Result<Response<Body>, Refusal> {
        let route = self.route(request.uri().path());
        answers::answer(self, request, caller, host, route).await
    }

    async fn socket(
        &self,
        request: Request<()>,
        caller: &Caller,
        socket: Box<dyn Socket>,
        _host: &Arc<dyn Host>,
    ) {
        socket::serve(self, request, caller, socket).await;
    }

    async fn attend(&self, at: EndpointView, node: Arc<dyn NodeClient>, host: &Arc<dyn Host>) {
        attend::attend(self, at, node, host).await;
    }

    fn lacks(&self, need: &Need, at: EndpointId) -> Option<String> {
        let prompt = self.desk.ledger.get(need.work.as_deref()?)?;
        if self.waits_for_its_client(&prompt) {
            return Some("would run a second job of its client's".into());
        }
        match prompt.lacks(at) {
            Ok(lacks) => lacks.map(|lacks| lacks.to_string()),
            Err(NotLookedAt) => Some("has not said yet what it can do".into()),
        }
    }

    fn terms(&self, need: &Need, at: &Candidate<'_>, _vitals: &Vitals, learned: Terms) -> Terms {
        let node = self.desk.farm.get(at.id);
        let (Some(node), Some(work)) = (node, need.work.as_deref()) else {
            return learned;
        };
        let share = self
            .desk
            .ledger
            .get(work)
            .map_or(0.0, |prompt| node.share(&prompt.signatures()));
        // What others put there is done first. Its slot is taken meanwhile.
        let foreign = node.foreign() as f64;
        Terms {
            switch_s: learned.switch_s + foreign * learned.run_s,
            run_s: learned.run_s * worth(share),
            load_s: if share >= 1.0 { 0.0 } else { learned.load_s },
            ..learned
        }
    }

    fn job_changed(&self, job: &JobView) {
        let Some(prompt) = self.prompt_of(job) else {
            return;
        };
        match job.state {
            JobState::Queued if !prompt.is_open() => {
                let (kind, job) = (self.clone(), job.id.clone());
                tokio::spawn(async move { crate::open::reopen(&kind, &prompt, &job).await });
            }
            JobState::Queued => {
                prompt.stands(Phase::Waiting);
                if job.attempt == 0 {
                    self.tell_status();
                }
            }
            // It is told by whoever runs it, who knows where.
            JobState::Starting | JobState::Running => {}
            _ => ending::over(self, &prompt, job),
        }
    }

    async fn run(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        report: &dyn Report,
    ) -> Result<Done, RunError> {
        run::run(self, attempt, node, report).await
    }

    async fn find(&self, attempt: &Attempt, node: &dyn NodeClient) -> Result<Found, NodeError> {
        lookup::find(attempt, node).await
    }

    async fn cancel(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        _why: Stop,
    ) -> Result<Stopped, NodeError> {
        lookup::cancel(self, attempt, node).await
    }

    async fn release(&self, node: &dyn NodeClient) -> Result<Released, NodeError> {
        probe::release(node).await
    }
}

/// How much of its time a prompt takes where so much of it was computed before: what is left is mostly what is new, and that
/// is the sampler more often than not.
fn worth(share: f64) -> f64 {
    match share >= 1.0 {
        true => 0.02,
        false => 1.0 - 0.1 * share,
    }
}

/// No node is well.
fn nobody() -> Refusal {
    Refusal::NodeFailed("no ComfyUI node of this service can be reached now".into())
}

impl Comfyui {
    /// The prompt that a job is of.
    fn prompt_of(&self, job: &JobView) -> Option<Arc<Prompt>> {
        self.desk.ledger.get(job.need.work.as_deref()?)
    }
}
