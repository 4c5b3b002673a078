//! What the store promises, tried on a database on disk.

mod agree;
mod arrays;
mod changes;
mod crash;
mod full;
mod letters;
mod lists;
mod refusals;
mod repeats;

use super::*;
use crate::store::{BlobFiles, Idempotency, Letter, Next, ResultHead};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::collections::BTreeSet;
use tabane_api::Need;
use tempfile::TempDir;

/// A store with its bodies, in a folder of its own.
struct Room {
    dir: TempDir,
    blobs: Arc<BlobFiles>,
    store: Option<Arc<SqliteStore>>,
}

/// A letter for each change of a job that has a webhook, and for each end of an array that has one.
struct Telling;

const LARGE: u64 = 1 << 30;

impl Room {
    fn new() -> Room {
        Room::of(LARGE)
    }

    fn of(database_bytes: u64) -> Room {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let mut room = Room {
            dir,
            blobs,
            store: None,
        };
        room.reopen_with(database_bytes);
        room
    }

    fn reopen(&mut self) {
        self.reopen_with(LARGE);
    }

    fn reopen_with(&mut self, database_bytes: u64) {
        self.close();
        self.store = Some(open(self.dir.path(), self.blobs.clone(), database_bytes).unwrap());
    }

    /// All that was handed in is written, and what is nobody's is deleted.
    fn close(&mut self) {
        drop(self.store.take());
    }

    async fn blob(&self, bytes: &'static [u8]) -> Kept {
        let mut writer = self.blobs.begin().await.unwrap();
        writer.append(Bytes::from_static(bytes)).await.unwrap();
        Kept::Blob(writer.finish().await.unwrap())
    }

    /// Accepts a job, and runs it on an endpoint.
    async fn started(&self, id: &str) -> JobRecord {
        new(self.accept(job(id)).await.unwrap());
        now(self.start(id, "a/any", Moment(10)).await.unwrap())
    }
}

impl std::ops::Deref for Room {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }
}

impl Letters for Telling {
    fn of_job(&self, job: &JobRecord) -> Vec<Letter> {
        assert!(!job.tags.iter().any(|tag| tag == "panic"), "as it was told");
        let about = (&job.id, &job.tenant);
        letter(
            about,
            &job.webhook,
            format!("{}.{}", job.id, job.version),
            job.state.word(),
        )
    }

    fn of_array(&self, array: &ArrayRecord) -> Vec<Letter> {
        let about = (&array.id, &array.tenant);
        letter(
            about,
            &array.webhook,
            format!("{}.{}", array.id, array.endings),
            "over",
        )
    }
}

fn letter(
    (about, tenant): (&Arc<str>, &Arc<str>),
    url: &Option<Arc<str>>,
    id: String,
    payload: &str,
) -> Vec<Letter> {
    let letter = |url: &Arc<str>| Letter {
        id,
        about: about.clone(),
        tenant: tenant.clone(),
        url: url.clone(),
        payload: payload.into(),
    };
    url.as_ref().map(letter).into_iter().collect()
}

fn open(
    dir: &Path,
    blobs: Arc<BlobFiles>,
    database_bytes: u64,
) -> Result<Arc<SqliteStore>, StoreError> {
    SqliteStore::open(dir, Arc::new(Telling), blobs, database_bytes)
}

fn job(id: &str) -> NewJob {
    let mut headers = HeaderMap::new();
    headers.append("content-type", HeaderValue::from_static("text/plain"));
    headers.append(
        "x-name",
        HeaderValue::from_bytes(b"\xe6\x9d\x9f\xff").unwrap(),
    );
    NewJob {
        id: id.into(),
        client_id: None,
        parent: None,
        service: "render".into(),
        tenant: "studio".into(),
        need: Need {
            size: 2.5,
            vram_mib: 8192,
            labels: vec![("os".into(), "linux".into())],
            key: Some(u64::MAX - 1),
            model: Some("xl".into()),
            interactive: true,
            tenant: "studio".into(),
            work: Some("prompt-1".into()),
            ..Need::of_class("frame")
        },
        method: Method::POST,
        uri: "/frame?n=1".parse().unwrap(),
        headers,
        body: Kept::Row(Bytes::from_static(b"a scene")),
        accepted: Moment(1),
        start_by: None,
        timeout_ms: Some(5000),
        keep_ms: 1000,
        keep_dead_ms: 9000,
        tags: vec!["shot=010".into(), "wip".into()],
        webhook: None,
        idempotency: None,
    }
}

fn over(state: JobState, body: Option<Kept>) -> Ended {
    let mut headers = HeaderMap::new();
    headers.append("x-made-by", HeaderValue::from_static("a node"));
    let result = body.map(|body| {
        let head = ResultHead {
            status: StatusCode::OK,
            headers,
            length: rows::columns(&body).length as u64,
        };
        (head, body)
    });
    Ended {
        outcome: "ended",
        error: (state != JobState::Succeeded).then(|| "it said no".into()),
        next: Next::Over(state, result),
    }
}

fn again(not_before: Option<i64>, counts: bool) -> Ended {
    Ended {
        outcome: "lost",
        error: Some("the node went away".into()),
        next: Next::Again {
            not_before: not_before.map(Moment),
            counts,
        },
    }
}

#[track_caller]
fn new(accepted: Accepted) -> JobRecord {
    match accepted {
        Accepted::New(job) => job,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn now(changed: Changed) -> JobRecord {
    match changed {
        Changed::Now(job) => *job,
        Changed::Stale => panic!("it was stale"),
    }
}

#[track_caller]
fn stale(changed: Result<Changed, StoreError>) {
    match changed.unwrap() {
        Changed::Stale => {}
        Changed::Now(job) => panic!("it changed: {job:?}"),
    }
}

async fn kinds(store: &SqliteStore, id: &str) -> Vec<String> {
    let events = store.events(id, 0, usize::MAX).await.unwrap();
    let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
    let job = store.find(None, id).await.unwrap().unwrap();
    let gapless: Vec<u64> = (1..=job.version).collect();
    assert_eq!(versions, gapless, "each version has its event");
    events.into_iter().map(|event| event.kind).collect()
}
