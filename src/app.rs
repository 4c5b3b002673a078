//! Puts the house together and hands the rooms what they need.

mod jobs;

use crate::admin;
use crate::config::{self, Loaded, Problem};
use crate::dispatch::{Dispatch, Means, listener_keys};
use crate::edge::{Front, NodeHttp, look_after};
use crate::reload::{Install, Read, Reloader, Trigger};
use crate::store::{Marks, Spool};
use crate::telemetry::{EdgeGauge, Event, Events, Metrics};
use anyhow::{Result, anyhow};
use futures::FutureExt;
use jobs::Kept;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Kind, PolicyKind, Registry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A gateway that is being put together: which kinds and policies it knows.
#[derive(Clone)]
pub struct App {
    registry: Registry,
}

/// A gateway with tabane's own policies and no kind yet.
///
/// A gateway of one's own is a main of one line:
/// `tabane::app().with(tabane_standard::registry()).kind::<MyRenderer>().policy::<MyPolicy>().main()`.
pub fn app() -> App {
    App {
        registry: crate::schedule::register(Registry::default()),
    }
}

/// Where a gateway's configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, watched for changes.
    File(PathBuf),
    /// A text that does not change (`tabane quick`).
    Text(String),
}

/// A gateway that runs. Dropped without [`Gateway::shutdown`], it stops at once.
pub struct Gateway {
    dispatch: Dispatch,
    front: Arc<Front>,
    reloader: Arc<Reloader>,
    admin: Option<SocketAddr>,
    closing: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

// === impl App ===

impl App {
    /// Adds all kinds and policies of a registry.
    #[must_use]
    pub fn with(mut self, registry: Registry) -> Self {
        self.registry = self.registry.merge(registry);
        self
    }

    /// Adds a kind.
    #[must_use]
    pub fn kind<K: Kind>(mut self) -> Self {
        self.registry = self.registry.kind::<K>();
        self
    }

    /// Adds a policy.
    #[must_use]
    pub fn policy<P: PolicyKind>(mut self) -> Self {
        self.registry = self.registry.policy::<P>();
        self
    }

    /// The kinds and policies it knows.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Reads a configuration.
    ///
    /// Errors: every problem of all files.
    pub fn load(&self, source: &Source) -> Result<Loaded, Vec<Problem>> {
        let env = |name: &str| std::env::var(name).ok();
        match source {
            Source::File(path) => config::load(path, &self.registry, &env),
            Source::Text(text) => config::load_text("command line", text, &self.registry, &env),
        }
    }

    /// Starts a gateway on the current runtime. When this returns, its listeners accept.
    ///
    /// Errors: a port is taken, the store cannot be trusted, a kind refuses its block.
    pub async fn start(&self, source: Source, loaded: Loaded) -> Result<Gateway> {
        let metrics = Arc::new(Metrics::new());
        let events = Events::new();
        let clients = Arc::new(NodeHttp::default());
        let plan = &loaded.plan;
        let marks = Marks::open(plan.data_dir.as_deref())?;
        let kept = match plan.data_dir.as_deref() {
            Some(dir) => Some(Arc::new(
                Kept::open(dir, plan, metrics.clone(), events.clone()).await?,
            )),
            None => None,
        };
        let spool = plan.data_dir.as_deref().map(Spool::open).transpose()?;
        let dispatch = Dispatch::new(Means {
            metrics: metrics.clone(),
            events: events.clone(),
            marks,
            clients: clients.clone(),
        });
        let front = Arc::new(Front::new(dispatch.clone(), spool));
        if let Some(kept) = &kept {
            dispatch.run_jobs(kept.jobs.clone());
        }

        // Ports before the plan: one that is taken is the commonest reason not to start.
        let taken = |(address, error): (SocketAddr, std::io::Error)| {
            anyhow!("cannot listen on {address}: {error}")
        };
        let admin_listener = match &plan.admin {
            Some(admin) => Some(
                admin::bind(admin.address)
                    .await
                    .map_err(|error| taken((admin.address, error)))?,
            ),
            None => None,
        };
        let prepared = front
            .listeners
            .prepare(listener_keys(&plan.listeners))
            .map_err(taken)?;
        let world = dispatch
            .install(plan.clone())
            .map_err(|problems| anyhow!("{}", problems.join("\n")))?;
        // Before anything is granted: what nodes work on already holds its slots.
        let taken_up = dispatch.resume_jobs().await?;
        if taken_up > 0 {
            tracing::info!(jobs = taken_up, "jobs that are not over are taken up");
        }
        front
            .listeners
            .apply(prepared, listener_keys(&plan.listeners));

        let reloader = Arc::new(Reloader::new(
            self.reader(source.clone()),
            installer(&dispatch, &front, kept.clone()),
            &loaded,
            world.generation,
            metrics,
            events,
        ));
        let (closing, closed) = watch::channel(false);
        let mut tasks = vec![
            tokio::spawn({
                let dispatch = dispatch.clone();
                async move { dispatch.keep_time().await }
            }),
            tokio::spawn(look_after(dispatch.clone(), clients)),
        ];
        tasks.extend(kept.iter().flat_map(|kept| kept.start(&dispatch)));
        if matches!(source, Source::File(_)) {
            tasks.push(tokio::spawn(reloader.clone().watch()));
        }
        let admin = admin_listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = admin_listener {
            let means = admin::Means {
                dispatch: dispatch.clone(),
                reload: reload_handle(&reloader),
                gauges: gauges(&front),
            };
            tasks.push(tokio::spawn(async move {
                if let Err(error) = admin::serve(listener, means, closed).await {
                    tracing::error!(%error, "the admin listener ended");
                }
            }));
        }
        Ok(Gateway {
            dispatch,
            front,
            reloader,
            admin,
            closing,
            tasks,
        })
    }

    fn reader(&self, source: Source) -> Read {
        let app = self.clone();
        Box::new(move || app.load(&source))
    }
}

/// Ports first, then the one swap, then the doors: a port that is taken leaves everything as it was.
fn installer(dispatch: &Dispatch, front: &Arc<Front>, kept: Option<Arc<Kept>>) -> Install {
    let (dispatch, front, runtime) = (
        dispatch.clone(),
        front.clone(),
        tokio::runtime::Handle::current(),
    );
    Box::new(move |plan| {
        let _in_runtime = runtime.enter();
        let keys: Vec<_> = listener_keys(&plan.listeners).collect();
        let prepared = front.listeners.prepare(keys.iter().copied());
        let prepared = prepared.map_err(|(address, error)| {
            vec![Problem::whole(
                "listen",
                format!("cannot listen on {address}: {error}"),
            )]
        })?;
        let whole = |why: String| Problem::whole("services", why);
        let world = dispatch
            .install(plan)
            .map_err(|problems| problems.into_iter().map(whole).collect::<Vec<_>>())?;
        front.listeners.apply(prepared, keys.into_iter());
        if let Some(kept) = &kept {
            kept.follow(&world.plan);
        }
        Ok(world.generation)
    })
}

fn reload_handle(reloader: &Arc<Reloader>) -> admin::Reload {
    let reloader = reloader.clone();
    Arc::new(move || {
        let reloader = reloader.clone();
        async move { reloader.reload(Trigger::Operator).await }.boxed()
    })
}

fn gauges(front: &Arc<Front>) -> Arc<dyn Fn() -> EdgeGauge + Send + Sync> {
    let front = front.clone();
    Arc::new(move || front.gauge())
}

// === impl Gateway ===

impl Gateway {
    /// Where clients connect: the bound addresses, port 0 resolved.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.front.listeners.addresses()
    }

    /// Where the operator connects.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Nodes, services, queue.
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// Reads the files again.
    ///
    /// Errors: every problem of all files; the old configuration stays.
    pub async fn reload(&self, trigger: Trigger) -> Result<config::Applied, Vec<Problem>> {
        self.reloader.reload(trigger).await
    }

    /// Goes down in order: not ready, no new work, requests at work may end within `grace`.
    pub async fn shutdown(mut self, grace: Duration) {
        self.dispatch.close();
        self.dispatch.events().send(Event::ShuttingDown);
        self.front.listeners.close().await;
        if !self.ended_within(grace).await {
            let (requests, connections) = self.left();
            let what = "the time to go down is over; requests at work and sockets are ended";
            tracing::warn!(requests, connections, "{what}");
            // Whoever listens is told before the process ends.
            self.dispatch.let_go();
            self.ended_within(LAST_WORDS).await;
        }
        self.dispatch.write_times().await;
        self.closing.send_replace(true);
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Gateway {
    /// Requests at work, and connections of clients.
    fn left(&self) -> (usize, usize) {
        let connections = self.front.listeners.connections();
        (self.dispatch.at_work(), connections)
    }

    async fn ended_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while self.left() != (0, 0) {
            if Instant::now() >= deadline {
                return false;
            }
            if self.dispatch.at_work() == 0 {
                self.dispatch.silence();
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// How long clients may take to read that the gateway goes down.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The path of the configuration when nobody names one.
pub fn default_path() -> &'static Path {
    Path::new("conf/tabane.yaml")
}
