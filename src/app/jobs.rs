//! What works for jobs: the store, who sends letters, and what a reload changes of them.

use crate::access::Links;
use crate::config::plan::Plan;
use crate::dispatch::Dispatch;
use crate::jobs::Jobs;
use crate::jobs::webhook::{Deliverer, Guard, HttpPost, Secretary, Signer, new_secret};
use crate::store::{BlobFiles, BlobStore, Delivery, JobStore, Moment, SqliteStore, StoreError};
use crate::telemetry::{Events, LetterOutcome, Metrics};
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// Where the gateway keeps secrets of its own.
const SPACE: &str = "gateway";

/// How long a letter's links are good, in milliseconds: as long as the last try may be late, and a day.
const LETTERS_LINKS_MS: i64 = 5 * 24 * 3_600_000;

/// The store of a gateway, and what a reload changes of it.
pub(super) struct Kept {
    pub(super) jobs: Jobs,
    store: Arc<SqliteStore>,
    blobs: Arc<BlobFiles>,
    public_url: Arc<ArcSwap<Option<Arc<str>>>>,
    guard: Arc<ArcSwap<Guard>>,
    signer: Arc<ArcSwap<Signer>>,
    /// Signs letters where the file names no secret.
    own_secret: String,
}

// === impl Kept ===

impl Kept {
    /// Opens what is in `data_dir`, or begins it.
    ///
    /// Errors: the store cannot be trusted; nothing of it was changed.
    pub(super) async fn open(
        data_dir: &Path,
        plan: &Plan,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Result<Kept> {
        let public_url = Arc::new(ArcSwap::from_pointee(plan.public_url.clone()));
        let links: Arc<once_cell::sync::OnceCell<Links>> = Arc::default();
        let address = {
            let (public_url, links) = (public_url.clone(), links.clone());
            Arc::new(move |path: &str| signed(&public_url.load(), links.get(), path))
        };
        let letters = Arc::new(Secretary::new(address));
        let limits = plan.limits;
        let dir = data_dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let blobs = BlobFiles::open(&dir, limits.job_bytes)?;
            let store = SqliteStore::open(&dir, letters, blobs.clone(), limits.database_bytes)?;
            Ok::<_, StoreError>((blobs, store))
        });
        let (blobs, store) = opened.await.context("opening the store")??;
        let secret = secret(&*store, "links", || {
            let bytes: [u8; 32] = rand::random();
            Bytes::copy_from_slice(&bytes)
        });
        let secret = secret.await?;
        let secret: [u8; 32] = (&secret[..])
            .try_into()
            .context("the store's secret for links is not one; its database is damaged")?;
        let own = secret_text(&*store).await?;
        let made = links.get_or_init(|| Links::new(secret)).clone();
        let guard = Arc::new(ArcSwap::from_pointee(guard(plan)?));
        let clock = Arc::new(wall_clock);
        let jobs = Jobs::new(
            store.clone(),
            blobs.clone(),
            made,
            guard.clone(),
            clock,
            metrics,
            events,
        );
        Ok(Kept {
            jobs,
            store,
            blobs,
            public_url,
            guard,
            signer: Arc::new(ArcSwap::from_pointee(signer(plan, &own)?)),
            own_secret: own,
        })
    }

    /// A reload: what the new plan says of letters and bounds counts from now on.
    pub(super) fn follow(&self, plan: &Plan) {
        self.public_url.store(Arc::new(plan.public_url.clone()));
        self.blobs.set_quota(plan.limits.job_bytes);
        self.store.set_limits(plan.limits.database_bytes);
        match guard(plan) {
            Ok(guard) => self.guard.store(Arc::new(guard)),
            Err(error) => tracing::error!(%error, "where letters may go stays as it was"),
        }
        match signer(plan, &self.own_secret) {
            Ok(signer) => self.signer.store(Arc::new(signer)),
            Err(error) => tracing::error!(%error, "the secret of letters stays as it was"),
        }
    }

    /// Starts what works for jobs.
    pub(super) fn start(&self, dispatch: &Dispatch) -> Vec<JoinHandle<()>> {
        let deliverer = Deliverer {
            store: self.store.clone(),
            clock: Arc::new(wall_clock),
            signer: self.signer.clone(),
            guard: self.guard.clone(),
            post: Arc::new(HttpPost::new(self.guard.clone())),
            chance: Arc::new(rand::random::<f64>),
            counted: count_letters(dispatch.metrics()),
        };
        let jobs = self.jobs.clone();
        let written = move || {
            let jobs = jobs.clone();
            async move { jobs.letters_written().await }
        };
        let (dispatch, watch) = (dispatch.clone(), dispatch.clone());
        vec![
            tokio::spawn(async move { dispatch.keep_jobs().await }),
            tokio::spawn(async move { watch.watch_jobs().await }),
            tokio::spawn(deliverer.run(written)),
            tokio::spawn(sweep_orphans(self.store.clone(), self.blobs.clone())),
        ]
    }
}

fn count_letters(metrics: &Arc<Metrics>) -> Arc<dyn Fn(&Delivery) + Send + Sync> {
    let metrics = metrics.clone();
    Arc::new(move |fate| {
        metrics.jobs().letter(match fate {
            Delivery::Delivered => LetterOutcome::Delivered,
            Delivery::Again { .. } => LetterOutcome::Again,
            Delivery::GivenUp { .. } => LetterOutcome::GivenUp,
        })
    })
}

/// Bodies that a crash left without a row are deleted.
async fn sweep_orphans(store: Arc<SqliteStore>, blobs: Arc<BlobFiles>) {
    let sweep = async {
        let mut count = 0;
        let older = blobs.older().await?;
        for some in older.chunks(500) {
            for orphan in store.orphans(some.to_vec()).await? {
                blobs.delete(&orphan).await?;
                count += 1;
            }
        }
        Ok::<_, StoreError>(count)
    };
    match sweep.await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "bodies that a crash left behind are deleted"),
        Err(error) => tracing::warn!(%error, "bodies that a crash left behind cannot be deleted"),
    }
}

fn guard(plan: &Plan) -> Result<Guard> {
    let allow = plan.webhooks.allow.iter().map(|entry| &**entry);
    Guard::new(allow).map_err(|why| anyhow::anyhow!("webhooks.allow: {why}"))
}

fn signer(plan: &Plan, own: &str) -> Result<Signer> {
    let secrets: Vec<&str> = match plan.webhooks.secrets.is_empty() {
        true => vec![own],
        false => plan.webhooks.secrets.iter().map(|s| s.reveal()).collect(),
    };
    Signer::new(secrets).context("webhooks.secret")
}

/// A letter's link: absolute where the file says how, and good without a key for as long as a letter may be late.
fn signed(public_url: &Option<Arc<str>>, links: Option<&Links>, path: &str) -> String {
    let base = public_url.as_deref().unwrap_or_default();
    let scope = path
        .strip_prefix("/_tabane/jobs/")
        .or(path.strip_prefix("/_tabane/arrays/"))
        .and_then(|rest| rest.split('/').next())
        .map(|id| format!("job/{id}"));
    match (links, scope) {
        (Some(links), Some(scope)) => {
            let token = links.sign(&scope, wall_clock().0 + LETTERS_LINKS_MS);
            format!("{base}{path}?token={token}")
        }
        _ => format!("{base}{path}"),
    }
}

/// A secret of the gateway's own, made when there is none yet.
async fn secret(
    store: &dyn JobStore,
    name: &str,
    make: impl FnOnce() -> Bytes,
) -> Result<Bytes, StoreError> {
    if let Some(kept) = store.value(SPACE, name).await? {
        return Ok(kept);
    }
    let made = make();
    store.put_value(SPACE, name, Some(made.clone())).await?;
    Ok(made)
}

async fn secret_text(store: &dyn JobStore) -> Result<String> {
    let secret = secret(store, "webhooks", || new_secret().into()).await?;
    String::from_utf8(secret.to_vec())
        .context("the store's secret for letters is not one; its database is damaged")
}

fn wall_clock() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default().as_millis();
    Moment(i64::try_from(since).unwrap_or(i64::MAX))
}
