//! What was answered is there after a crash, and nothing is there by halves.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Says to the child where its store is.
const CHILD: &str = "TABANE_TEST_STORE";

#[tokio::test]
async fn a_log_that_was_cut_off_holds_the_calls_up_to_there_whole() {
    let room = Room::new();
    let count = 12;
    for n in 0..count {
        new(room.accept(job(&format!("job-{n}"))).await.unwrap());
    }
    // As a crash leaves it: nothing of the log is in the database yet.
    let read = |name: &str| fs::read(room.dir.path().join(name)).unwrap();
    let (database, log) = (read("jobs.sqlite"), read("jobs.sqlite-wal"));
    let mut held = Vec::new();
    for cut in (0..=24).map(|part| log.len() * part / 24) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("jobs.sqlite"), &database).unwrap();
        fs::write(dir.path().join("jobs.sqlite-wal"), &log[..cut]).unwrap();
        let blobs = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let store = open(dir.path(), blobs, LARGE).unwrap();
        let found = store.unfinished(0, 99).await.unwrap();
        for (n, job) in found.iter().enumerate() {
            assert_eq!(*job.id, format!("job-{n}"));
            assert_eq!(kinds(&store, &job.id).await, ["queued"]);
            assert!(store.request(&job.id).await.unwrap().is_some());
        }
        new(store.accept(job("after")).await.unwrap());
        held.push(found.len());
    }
    assert!(held.is_sorted(), "{held:?}");
    assert_eq!((held[0], held[24]), (0, count));
    assert!(
        held.iter().any(|held| (1..count).contains(held)),
        "{held:?}"
    );
}

#[test]
fn what_a_killed_gateway_had_answered_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered: BTreeMap<String, String> = BTreeMap::new();
    // Killed, and started again on what the one before left.
    for life in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::sqlite::tests::crash::child",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .env("TABANE_TEST_LIFE", life.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.map(Result::unwrap).filter_map(|line| {
            let (id, state) = line.strip_prefix("answered ")?.split_once(' ')?;
            Some((id.to_owned(), state.to_owned()))
        });
        for (n, (id, state)) in said.enumerate() {
            answered.insert(id, state);
            if n == 60 + 7 * life {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    assert!(answered.len() > 60, "{} jobs were accepted", answered.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let blobs = BlobFiles::open(dir.path(), u64::MAX).unwrap();
        let store = open(dir.path(), blobs.clone(), LARGE).unwrap();
        let order = ["queued", "starting", "succeeded"];
        let place = |word: &str| order.iter().position(|known| *known == word).unwrap();
        for (id, state) in &answered {
            let found = store.find(None, id).await.unwrap().unwrap();
            assert!(
                place(found.state.word()) >= place(state),
                "{id} was {state} and is {}",
                found.state
            );
            assert_eq!(kinds(&store, id).await.len() as u64, found.version);
        }
        // Each row has its body; bodies without a row are found and can be deleted.
        let older = blobs.older().await.unwrap();
        for name in store.orphans(older).await.unwrap() {
            blobs.delete(&name).await.unwrap();
        }
        let all = store
            .list(Filter {
                limit: usize::MAX,
                ..Filter::default()
            })
            .await
            .unwrap();
        let mut bytes = 0;
        for job in all.iter().filter(|job| job.state == JobState::Succeeded) {
            let Some(Kept::Blob(blob)) = store.result(&job.id).await.unwrap() else {
                panic!("its result lies in a blob");
            };
            let body = blobs.open(&blob).await.unwrap().read(0, 99).await.unwrap();
            assert_eq!(body, "a long picture");
            bytes += blob.length;
        }
        assert!(bytes > 0);
        assert_eq!(blobs.used(), bytes);
    });
}

/// The gateway that is killed.
#[test]
#[ignore = "run by `what_a_killed_gateway_had_answered_is_there`"]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let life = std::env::var("TABANE_TEST_LIFE").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dir = Path::new(&dir);
        let blobs = BlobFiles::open(dir, u64::MAX).unwrap();
        let store = open(dir, blobs.clone(), LARGE).unwrap();
        let work = (0..4).map(|lane| {
            let (store, blobs, life) = (store.clone(), blobs.clone(), life.clone());
            tokio::spawn(async move {
                let say = |id: &str, state: &str| {
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "answered {id} {state}").unwrap();
                    out.flush().unwrap();
                };
                for n in 0.. {
                    let id = format!("{life}-{lane}-{n}");
                    new(store.accept(job(&id)).await.unwrap());
                    say(&id, "queued");
                    now(store.start(&id, "a/any", Moment(10)).await.unwrap());
                    say(&id, "starting");
                    let mut writer = blobs.begin().await.unwrap();
                    writer.append("a long picture".into()).await.unwrap();
                    let body = Kept::Blob(writer.finish().await.unwrap());
                    now(store
                        .end(&id, 1, over(JobState::Succeeded, Some(body)), Moment(20))
                        .await
                        .unwrap());
                    say(&id, "succeeded");
                }
            })
        });
        futures::future::join_all(work).await;
    });
}
