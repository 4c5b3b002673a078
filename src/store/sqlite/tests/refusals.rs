//! A store that cannot be trusted is refused, and left as it is.

use super::*;
use rusqlite::Connection;
use std::fs;
use std::path::PathBuf;

const FILE: &str = "jobs.sqlite";

/// A data directory with a store in it that holds some jobs and is closed.
async fn left() -> TempDir {
    let mut room = Room::new();
    for n in 0..200 {
        let mut asked = job(&format!("job-{n}"));
        asked.body = Kept::Row(Bytes::from(vec![b'x'; 600]));
        new(room.accept(asked).await.unwrap());
    }
    room.close();
    room.dir
}

fn refused(dir: &Path) -> String {
    let before = files(dir);
    let blobs = BlobFiles::open(dir, u64::MAX).unwrap();
    let error = open(dir, blobs, LARGE).err().unwrap().to_string();
    assert_eq!(files(dir), before, "it is left as it is");
    error
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let of = |entry: fs::DirEntry| (entry.path(), fs::read(entry.path()).unwrap());
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let ours = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What SQLite makes anew whenever it looks at a database.
        name.starts_with(FILE) && !name.ends_with("-shm")
    };
    let mut all: Vec<_> = entries.filter(ours).map(of).collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_and_left_alone() {
    for (bytes, wants) in [
        (
            &b"drop table jobs; -- a text of some length, so that it could be a page's beginning"[..],
            "not a database",
        ),
        (&b""[..], "not a database of this gateway's"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), bytes).unwrap();
        let error = refused(dir.path());
        assert!(
            error.contains(wants) && error.contains("move it away"),
            "{error}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let foreign = Connection::open(dir.path().join(FILE)).unwrap();
    foreign
        .execute_batch(
            "PRAGMA application_id = 77; CREATE TABLE jobs (id); INSERT INTO jobs VALUES (1)",
        )
        .unwrap();
    drop(foreign);
    let error = refused(dir.path());
    assert!(
        error.contains("not a database of this gateway's"),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let dir = left().await;
    let newer = Connection::open(dir.path().join(FILE)).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let error = refused(dir.path());
    assert!(
        error.contains("has version 99") && error.contains("use a newer tabane"),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_alone() {
    let dir = left().await;
    let path = dir.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    // A database that lost its end, and one with a page of `jobs` overwritten.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = refused(dir.path());
    assert!(
        error.contains("is damaged") || error.contains("malformed"),
        "{error}"
    );
    let database = Connection::open(&path).unwrap();
    drop(database);
    fs::write(&path, &whole).unwrap();
    let database = Connection::open(&path).unwrap();
    let page: u32 = database
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    drop(database);
    let mut broken = whole;
    broken[(page as usize - 1) * 4096..][..64].fill(0xaa);
    fs::write(&path, broken).unwrap();
    let error = refused(dir.path());
    assert!(error.contains("table `jobs` is damaged"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_protected_from_writing_is_refused() {
    let dir = left().await;
    let path = dir.path().join(FILE);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let error = refused(dir.path());
    assert!(error.contains("is read-only"), "{error}");
}

#[tokio::test]
async fn a_log_without_its_database_is_no_reason_to_begin_anew() {
    let dir = left().await;
    fs::rename(dir.path().join(FILE), dir.path().join("jobs.sqlite-wal")).unwrap();
    let error = refused(dir.path());
    assert!(error.contains("without its database"), "{error}");
}

#[tokio::test]
async fn two_gateways_never_share_a_store() {
    let mut room = Room::new();
    new(room.accept(job("a")).await.unwrap());
    let second = open(room.dir.path(), room.blobs.clone(), LARGE);
    let error = second.err().unwrap().to_string();
    assert!(error.contains("another gateway is using"), "{error}");
    new(room.accept(job("b")).await.unwrap());
    room.reopen();
    assert!(room.find(None, "b").await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_that_was_half_made_at_a_crash_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jobs.sqlite-new"), "half a ta").unwrap();
    let blobs = BlobFiles::open(dir.path(), u64::MAX).unwrap();
    let store = open(dir.path(), blobs, LARGE).unwrap();
    new(store.accept(job("a")).await.unwrap());
    assert!(!dir.path().join("jobs.sqlite-new").exists());
}

#[test]
fn an_older_database_takes_the_steps_that_it_lacks_or_none() {
    let steps = [
        "CREATE TABLE a (x); INSERT INTO a VALUES (1)",
        "ALTER TABLE a ADD COLUMN y DEFAULT 2",
        "CREATE TABLE b (z); CREATE TABLE b (z)",
    ];
    let mut database = Connection::open_in_memory().unwrap();
    let path = Path::new("any");
    let version = |database: &Connection| -> i64 {
        database
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap()
    };
    schema::migrate(&mut database, path, &steps[..1]).unwrap();
    schema::migrate(&mut database, path, &steps[..1]).unwrap();
    assert_eq!(version(&database), 1);
    assert!(schema::migrate(&mut database, path, &steps).is_err());
    assert_eq!(
        version(&database),
        1,
        "the second step is undone with the third"
    );
    assert!(database.prepare("SELECT y FROM a").is_err());
    schema::migrate(&mut database, path, &steps[..2]).unwrap();
    let sum: i64 = database
        .query_row("SELECT x + y FROM a", [], |row| row.get(0))
        .unwrap();
    assert_eq!((version(&database), sum), (2, 3));
    let older = schema::migrate(&mut database, path, &steps[..1]);
    assert!(matches!(
        older,
        Err(StoreError::Newer {
            found: 2,
            known: 1,
            ..
        })
    ));
}

#[tokio::test]
async fn jobs_of_an_older_database_are_as_they_were_and_new_ones_keep_all_there_is() {
    for behind in 1..schema::STEPS.len() {
        let mut room = Room::new();
        room.close();
        let path = room.dir.path().join(FILE);
        fs::remove_file(&path).unwrap();
        let mut older = Connection::open(&path).unwrap();
        schema::migrate(&mut older, &path, &schema::STEPS[..behind]).unwrap();
        older
            .execute_batch(
                "INSERT INTO jobs (id, service, tenant, class, size, slots, urgency, vram_mib, labels, state, version,
                    attempt, failures, canceling, method, uri, body_length, accepted, keep_ms, keep_dead_ms, tags, failed_on)
                 VALUES ('old', 'render', 'studio', 'frame', 2.5, 1, 3, 8192, '[]', 'queued', 1,
                    0, 0, 0, 'POST', '/frame', 7, 1, 1000, 9000, '[]', '[]');
                 INSERT INTO requests (job, headers, length, bytes) VALUES (1, x'', 7, x'61207363656e65');",
            )
            .unwrap();
        drop(older);
        room.reopen();
        let found = room.find(None, "old").await.unwrap().unwrap();
        let need = Need {
            size: 2.5,
            vram_mib: 8192,
            tenant: "studio".into(),
            ..Need::of_class("frame")
        };
        assert_eq!(
            (found.need, found.state),
            (need, JobState::Queued),
            "{behind}"
        );
        let request = room.request("old").await.unwrap().unwrap();
        assert!(matches!(request.body, Kept::Row(bytes) if bytes == "a scene"));
        now(room.start("old", "a/any", Moment(10)).await.unwrap());
        new(room.accept(job("new")).await.unwrap());
        // And so it stays.
        room.reopen();
        let found = room.find(None, "new").await.unwrap().unwrap();
        assert_eq!(found.need, job("new").need);
        assert_eq!(room.unfinished(0, 10).await.unwrap().len(), 2, "{behind}");
    }
}
