//! One job, from its acceptance to its deletion.

use super::*;

#[tokio::test]
async fn a_job_that_was_accepted_is_there_after_a_restart() {
    let mut room = Room::new();
    let accepted = new(room.accept(job("a")).await.unwrap());
    assert_eq!(
        (accepted.state, accepted.version, accepted.attempt),
        (JobState::Queued, 1, 0)
    );
    room.reopen();
    let found = room.find(Some("studio"), "a").await.unwrap().unwrap();
    assert_eq!(format!("{found:?}"), format!("{accepted:?}"));
    assert_eq!(found.need, job("a").need);
    let request = room.request("a").await.unwrap().unwrap();
    assert_eq!(
        (request.headers, request.body),
        (job("a").headers, job("a").body)
    );
    assert_eq!(kinds(&room, "a").await, ["queued"]);
}

#[tokio::test]
async fn a_job_goes_its_way_with_an_event_for_each_step() {
    let room = Room::new();
    let started = room.started("a").await;
    assert_eq!((started.state, started.attempt), (JobState::Starting, 1));
    assert_eq!(started.started, Some(Moment(10)));
    now(room.submitting("a", 1).await.unwrap());
    let runs = now(room.handle("a", 1, "their-7", Moment(11)).await.unwrap());
    assert_eq!((runs.state, runs.version), (JobState::Running, 3));
    // Heard twice, it is no news.
    assert_eq!(
        now(room.running("a", 1, Moment(12)).await.unwrap()).version,
        3
    );
    let seen = now(room
        .progress("a", 1, Some(0.5), Some("half".into()), vec![], Moment(13))
        .await
        .unwrap());
    assert_eq!((seen.version, seen.progress), (3, Some(0.5)));
    let log = vec!["tile 1".to_owned(), "tile \"2\"".to_owned()];
    let seen = now(room
        .progress("a", 1, Some(0.75), None, log, Moment(14))
        .await
        .unwrap());
    assert_eq!(
        (seen.version, seen.progress, seen.progress_text),
        (4, Some(0.75), None)
    );
    let body = Kept::Row(Bytes::from_static(b"a picture"));
    let done = over(JobState::Succeeded, Some(body.clone()));
    let done = now(room.end("a", 1, done, Moment(20)).await.unwrap());
    assert_eq!(
        (done.state, done.ended, done.keep_until),
        (JobState::Succeeded, Some(Moment(20)), Some(Moment(1020)))
    );
    let found = room.find(None, "a").await.unwrap().unwrap();
    assert_eq!(format!("{found:?}"), format!("{done:?}"));
    assert_eq!(found.result.unwrap().headers["x-made-by"], "a node");
    assert_eq!(room.result("a").await.unwrap(), Some(body));
    assert_eq!(
        kinds(&room, "a").await,
        ["queued", "started", "running", "log", "finished"]
    );
    let attempts = room.attempts("a").await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].submitting);
    assert_eq!(attempts[0].handle.as_deref(), Some("their-7"));
    assert_eq!(attempts[0].outcome.as_deref(), Some("ended"));
    assert_eq!(attempts[0].ended, Some(Moment(20)));
}

#[tokio::test]
async fn a_stale_attempt_changes_nothing() {
    let mut room = Room::new();
    room.started("a").await;
    now(room
        .end("a", 1, again(None, true), Moment(20))
        .await
        .unwrap());
    let before = now(room.start("a", "b/any", Moment(30)).await.unwrap());
    assert_eq!(before.attempt, 2);
    let late = over(
        JobState::Succeeded,
        Some(room.blob(b"a late picture").await),
    );
    stale(room.submitting("a", 1).await);
    stale(room.handle("a", 1, "their-1", Moment(31)).await);
    stale(room.running("a", 1, Moment(31)).await);
    stale(
        room.progress("a", 1, Some(0.1), None, vec!["x".into()], Moment(31))
            .await,
    );
    stale(room.end("a", 1, late, Moment(31)).await);
    stale(room.end("a", 1, again(None, true), Moment(31)).await);
    stale(room.end("a", 3, again(None, true), Moment(31)).await);
    room.reopen();
    let after = room.find(None, "a").await.unwrap().unwrap();
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    assert_eq!(room.result("a").await.unwrap(), None);
    assert_eq!(room.blobs.used(), 0, "the late result is not kept");
    assert_eq!(
        kinds(&room, "a").await,
        ["queued", "started", "retry", "started"]
    );
}

#[tokio::test]
async fn an_attempt_that_ended_says_no_more_while_its_job_waits() {
    let room = Room::new();
    room.started("a").await;
    now(room
        .end("a", 1, again(None, true), Moment(20))
        .await
        .unwrap());
    stale(room.end("a", 1, again(None, true), Moment(21)).await);
    stale(room.running("a", 1, Moment(21)).await);
    stale(room.handle("a", 1, "their-1", Moment(21)).await);
    let job = room.find(None, "a").await.unwrap().unwrap();
    assert_eq!((job.state, job.failures), (JobState::Queued, 1));
}

#[tokio::test]
async fn a_job_that_is_over_stays_as_it_is() {
    let room = Room::new();
    for (id, state) in [
        ("s", JobState::Succeeded),
        ("f", JobState::Failed),
        ("c", JobState::Canceled),
        ("d", JobState::Dead),
    ] {
        room.started(id).await;
        let ended = now(room
            .end(id, 1, over(state, None), Moment(20))
            .await
            .unwrap());
        assert_eq!(ended.state, state);
        stale(room.start(id, "a/any", Moment(30)).await);
        stale(room.submitting(id, 1).await);
        stale(room.handle(id, 1, "h", Moment(30)).await);
        stale(room.running(id, 1, Moment(30)).await);
        stale(
            room.progress(id, 1, None, None, vec!["x".into()], Moment(30))
                .await,
        );
        stale(
            room.end(id, 1, over(JobState::Succeeded, None), Moment(30))
                .await,
        );
        stale(room.cancel(id, Moment(30)).await);
        stale(
            room.patch(
                id,
                Patch {
                    urgency: Some(1),
                    ..Patch::default()
                },
                Moment(30),
            )
            .await,
        );
        let after = room.find(None, id).await.unwrap().unwrap();
        assert_eq!(format!("{after:?}"), format!("{ended:?}"));
    }
    stale(room.retry("s", Moment(30)).await);
}

#[tokio::test]
async fn nothing_is_done_to_a_job_that_is_not_there() {
    let room = Room::new();
    stale(room.start("no", "a/any", Moment(1)).await);
    stale(room.submitting("no", 0).await);
    stale(room.running("no", 0, Moment(1)).await);
    stale(room.end("no", 0, again(None, true), Moment(1)).await);
    stale(room.cancel("no", Moment(1)).await);
    stale(room.retry("no", Moment(1)).await);
    stale(room.patch("no", Patch::default(), Moment(1)).await);
    assert!(!room.delete("no").await.unwrap());
    assert!(room.find(None, "no").await.unwrap().is_none());
    assert!(room.request("no").await.unwrap().is_none());
    assert!(room.events("no", 0, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_attempt_does_not_end_in_a_state_that_leads_on() {
    let room = Room::new();
    room.started("a").await;
    for state in [JobState::Queued, JobState::Starting, JobState::Running] {
        stale(room.end("a", 1, over(state, None), Moment(20)).await);
    }
}

#[tokio::test]
async fn a_job_waits_for_its_next_attempt_and_remembers_who_failed_it() {
    let room = Room::new();
    room.started("a").await;
    let waits = now(room
        .end("a", 1, again(Some(50), true), Moment(20))
        .await
        .unwrap());
    assert_eq!((waits.failures, waits.not_before), (1, Some(Moment(50))));
    assert_eq!(waits.error.as_deref(), Some("the node went away"));
    assert_eq!(waits.failed_on, ["a/any".into()]);
    stale(room.start("a", "b/any", Moment(49)).await);
    let second = now(room.start("a", "b/any", Moment(50)).await.unwrap());
    assert_eq!(
        (second.attempt, second.not_before, second.error),
        (2, None, None)
    );
    // A node that was busy is no failure.
    let waits = now(room
        .end("a", 2, again(None, false), Moment(60))
        .await
        .unwrap());
    assert_eq!((waits.failures, waits.failed_on.len()), (1, 1));
    now(room.start("a", "a/any", Moment(70)).await.unwrap());
    let waits = now(room
        .end("a", 3, again(None, true), Moment(80))
        .await
        .unwrap());
    assert_eq!(
        (waits.failures, waits.failed_on.len()),
        (2, 1),
        "named once"
    );
}

#[tokio::test]
async fn a_canceled_jobs_late_result_leaves_nothing() {
    let mut room = Room::new();
    room.started("a").await;
    let marked = now(room.cancel("a", Moment(15)).await.unwrap());
    assert!(marked.canceling);
    assert_eq!(marked.state, JobState::Starting);
    stale(room.cancel("a", Moment(16)).await);
    let ended = now(room
        .end("a", 1, again(Some(99), true), Moment(20))
        .await
        .unwrap());
    assert_eq!((ended.state, ended.canceling), (JobState::Canceled, false));
    assert_eq!(ended.keep_until, Some(Moment(1020)));
    let late = over(
        JobState::Succeeded,
        Some(room.blob(b"a late picture").await),
    );
    stale(room.end("a", 1, late, Moment(21)).await);
    assert_eq!(
        kinds(&room, "a").await,
        ["queued", "started", "canceling", "finished"]
    );
    room.close();
    assert_eq!(room.blobs.used(), 0);
}

#[tokio::test]
async fn a_job_that_waits_is_canceled_at_once() {
    let room = Room::new();
    new(room.accept(job("a")).await.unwrap());
    let canceled = now(room.cancel("a", Moment(5)).await.unwrap());
    assert_eq!(
        (canceled.state, canceled.ended),
        (JobState::Canceled, Some(Moment(5)))
    );
    stale(room.start("a", "a/any", Moment(6)).await);
    assert_eq!(kinds(&room, "a").await, ["queued", "finished"]);
}

#[tokio::test]
async fn a_job_that_waits_can_be_given_up_and_retried_and_one_at_work_cannot_be() {
    let room = Room::new();
    new(room.accept(job("a")).await.unwrap());
    let dead = now(room.give_up("a", "nobody has it", Moment(5)).await.unwrap());
    assert_eq!(
        (dead.state, dead.ended, dead.error.as_deref(), dead.attempt),
        (JobState::Dead, Some(Moment(5)), Some("nobody has it"), 0)
    );
    assert!(dead.keep_until.is_some());
    stale(room.give_up("a", "again", Moment(6)).await);
    stale(room.start("a", "a/any", Moment(6)).await);
    let retried = now(room.retry("a", Moment(7)).await.unwrap());
    assert_eq!((retried.state, retried.error), (JobState::Queued, None));
    now(room.start("a", "a/any", Moment(8)).await.unwrap());
    stale(room.give_up("a", "at work", Moment(9)).await);
    stale(room.give_up("no", "who", Moment(9)).await);
    let all = ["queued", "finished", "queued", "started"];
    assert_eq!(kinds(&room, "a").await, all);
}

#[tokio::test]
async fn a_job_that_is_retried_begins_anew_and_keeps_its_attempts() {
    let mut room = Room::new();
    let mut asked = job("a");
    asked.start_by = Some(Moment(25));
    new(room.accept(asked).await.unwrap());
    now(room.start("a", "a/any", Moment(10)).await.unwrap());
    now(room
        .end("a", 1, again(None, true), Moment(11))
        .await
        .unwrap());
    now(room.start("a", "a/any", Moment(12)).await.unwrap());
    let failed = over(JobState::Failed, Some(room.blob(b"what it said").await));
    now(room.end("a", 2, failed, Moment(20)).await.unwrap());
    assert_eq!(room.blobs.used(), 12);
    let waits = now(room.retry("a", Moment(30)).await.unwrap());
    assert_eq!(
        (waits.state, waits.failures, waits.attempt),
        (JobState::Queued, 0, 2)
    );
    assert!(waits.failed_on.is_empty() && waits.error.is_none() && waits.result.is_none());
    assert_eq!((waits.ended, waits.keep_until), (None, None));
    assert_eq!(
        waits.start_by, None,
        "a deadline that passed would end it at once"
    );
    assert_eq!(room.result("a").await.unwrap(), None);
    let third = now(room.start("a", "a/any", Moment(31)).await.unwrap());
    assert_eq!(third.attempt, 3);
    room.close();
    assert_eq!(room.blobs.used(), 0, "its result is dropped");
}

#[tokio::test]
async fn only_a_job_that_waits_can_be_changed() {
    let room = Room::new();
    new(room.accept(job("a")).await.unwrap());
    let patch = Patch {
        urgency: Some(1),
        start_by: Some(Some(Moment(90))),
    };
    let changed = now(room.patch("a", patch, Moment(5)).await.unwrap());
    assert_eq!(
        (changed.need.urgency.value(), changed.start_by),
        (1, Some(Moment(90)))
    );
    let patch = Patch {
        urgency: None,
        start_by: Some(None),
    };
    let changed = now(room.patch("a", patch, Moment(6)).await.unwrap());
    assert_eq!((changed.need.urgency.value(), changed.start_by), (1, None));
    now(room.start("a", "a/any", Moment(7)).await.unwrap());
    stale(room.patch("a", patch, Moment(8)).await);
    assert_eq!(
        kinds(&room, "a").await,
        ["queued", "priority", "priority", "started"]
    );
}

#[tokio::test]
async fn a_job_is_deleted_with_its_bodies_and_only_when_it_is_over() {
    let mut room = Room::new();
    let mut asked = job("a");
    asked.body = room.blob(b"a long scene").await;
    asked.idempotency = Some(Idempotency {
        key: "k".into(),
        fingerprint: [1; 32],
    });
    asked.webhook = Some("http://hook".into());
    new(room.accept(asked.clone()).await.unwrap());
    assert!(!room.delete("a").await.unwrap());
    now(room.start("a", "a/any", Moment(10)).await.unwrap());
    assert!(!room.delete("a").await.unwrap());
    let done = over(
        JobState::Succeeded,
        Some(room.blob(b"a long picture").await),
    );
    now(room.end("a", 1, done, Moment(20)).await.unwrap());
    assert_eq!(room.blobs.used(), 26);
    assert!(room.delete("a").await.unwrap());
    assert!(!room.delete("a").await.unwrap());
    assert!(room.find(None, "a").await.unwrap().is_none());
    assert!(room.attempts("a").await.unwrap().is_empty());
    assert!(room.letters("a").await.unwrap().is_empty());
    room.reopen();
    assert_eq!(room.blobs.used(), 0);
    // Its key is free again, and its number is not.
    asked.body = Kept::Row(Bytes::new());
    assert_eq!(new(room.accept(asked).await.unwrap()).seq, 2);
}

#[tokio::test]
async fn a_job_that_did_not_start_in_time_expires() {
    let room = Room::new();
    for (id, start_by) in [
        ("first", Some(50)),
        ("late", Some(51)),
        ("later", Some(60)),
        ("any", None),
        ("at-work", Some(50)),
    ] {
        let mut asked = job(id);
        asked.start_by = start_by.map(Moment);
        new(room.accept(asked).await.unwrap());
    }
    now(room.start("at-work", "a/any", Moment(10)).await.unwrap());
    stale(room.start("late", "a/any", Moment(51)).await);
    assert!(room.expire(Moment(49), 9).await.unwrap().is_empty());
    assert_eq!(room.expire(Moment(50), 9).await.unwrap().len(), 1);
    assert_eq!(
        room.expire(Moment(99), 1).await.unwrap()[0].id.as_ref(),
        "late"
    );
    let expired = room.expire(Moment(99), 9).await.unwrap();
    assert_eq!(expired.len(), 1);
    assert_eq!(
        (
            expired[0].id.as_ref(),
            expired[0].state,
            expired[0].keep_until
        ),
        ("later", JobState::Expired, Some(Moment(1099)))
    );
    assert!(expired[0].error.is_some());
    assert_eq!(kinds(&room, "late").await, ["queued", "finished"]);
}

#[tokio::test]
async fn what_was_kept_long_enough_is_swept_and_dead_jobs_are_kept_longer() {
    let mut room = Room::new();
    for (id, state) in [
        ("s", JobState::Succeeded),
        ("d", JobState::Dead),
        ("f", JobState::Failed),
    ] {
        room.started(id).await;
        let body = room.blob(b"picture").await;
        now(room
            .end(id, 1, over(state, Some(body)), Moment(20))
            .await
            .unwrap());
    }
    new(room.accept(job("waits")).await.unwrap());
    assert_eq!(room.sweep(Moment(1019), 9).await.unwrap(), 0);
    assert_eq!(room.sweep(Moment(1020), 1).await.unwrap(), 1);
    assert_eq!(room.sweep(Moment(1020), 9).await.unwrap(), 1);
    assert!(room.find(None, "d").await.unwrap().is_some());
    assert_eq!(room.sweep(Moment(9020), 9).await.unwrap(), 1);
    assert!(room.find(None, "waits").await.unwrap().is_some());
    room.close();
    assert_eq!(room.blobs.used(), 0);
}

#[tokio::test]
async fn blobs_that_a_crash_left_are_told_from_those_that_rows_name() {
    let room = Room::new();
    let name = |kept: &Kept| rows::blob_of(kept).unwrap().name.to_string();
    let (body, result, lost) = (
        room.blob(b"a").await,
        room.blob(b"b").await,
        room.blob(b"c").await,
    );
    let names = vec![name(&body), name(&lost), name(&result)];
    let mut asked = job("a");
    asked.body = body;
    new(room.accept(asked).await.unwrap());
    now(room.start("a", "a/any", Moment(10)).await.unwrap());
    now(room
        .end("a", 1, over(JobState::Succeeded, Some(result)), Moment(20))
        .await
        .unwrap());
    assert_eq!(room.orphans(names).await.unwrap(), [name(&lost)]);
}

#[tokio::test]
async fn a_call_that_panics_leaves_nothing_and_the_next_one_works() {
    let mut room = Room::new();
    let mut asked = job("a");
    asked.tags = vec!["panic".into()];
    asked.body = room.blob(b"a scene").await;
    let (bad, good) = tokio::join!(room.accept(asked), room.accept(job("b")));
    assert!(bad.unwrap_err().to_string().contains("panicked"));
    new(good.unwrap());
    new(room.accept(job("c")).await.unwrap());
    assert!(room.find(None, "a").await.unwrap().is_none());
    room.reopen();
    assert_eq!(room.blobs.used(), 0);
    assert_eq!(
        room.list(Filter {
            limit: 9,
            ..Filter::default()
        })
        .await
        .unwrap()
        .len(),
        2
    );
}

#[tokio::test]
async fn plugins_values_and_learned_times_are_kept() {
    let mut room = Room::new();
    for (space, key, value) in [
        ("a", "x/1", "1"),
        ("a", "x/2", "2"),
        ("a", "y", "3"),
        ("b", "x/1", "4"),
    ] {
        room.put_value(space, key, Some(value.into()))
            .await
            .unwrap();
    }
    room.put_value("a", "x/1", Some("5".into())).await.unwrap();
    room.put_value("a", "y", None).await.unwrap();
    let time = |endpoint: &str, value: &str| LearnedTime {
        key: ("s".into(), "c".into(), endpoint.into()),
        value: value.into(),
    };
    room.learn(vec![time("e1", "1"), time("e2", "2")])
        .await
        .unwrap();
    room.learn(vec![time("e1", "3")]).await.unwrap();
    room.reopen();
    assert_eq!(room.value("a", "x/1").await.unwrap(), Some("5".into()));
    assert_eq!(room.value("a", "y").await.unwrap(), None);
    let found = room.values("a", "x/", 9).await.unwrap();
    assert_eq!(
        found,
        [
            ("x/1".to_owned(), "5".into()),
            ("x/2".to_owned(), "2".into())
        ]
    );
    assert_eq!(room.values("a", "", 1).await.unwrap().len(), 1);
    assert!(room.values("a", "x/3", 9).await.unwrap().is_empty());
    assert_eq!(
        room.learned().await.unwrap(),
        [time("e1", "3"), time("e2", "2")]
    );
}

#[tokio::test]
async fn what_was_used_is_added_up_and_kept_for_as_long_as_is_said() {
    let mut room = Room::new();
    let row = |day: &str, model: &str, requests| UsageRow {
        day: day.into(),
        service: "s".into(),
        tenant: "t".into(),
        model: model.into(),
        node: "n".into(),
        requests,
        read: 10 * requests,
        cached: requests,
        made: 2 * requests,
    };
    let rows = vec![row("2025-01-01", "a", 7), row("2026-01-31", "a", 1)];
    room.add_usage(rows).await.unwrap();
    let rows = vec![row("2026-01-31", "a", 2), row("2026-02-01", "b", 1)];
    room.add_usage(rows).await.unwrap();
    room.reopen();
    let read = async |from: &str, to: &str| room.usage(from.into(), to.into()).await.unwrap();
    assert_eq!(
        read("2026-01-01", "2026-12-31").await,
        [row("2026-01-31", "a", 3), row("2026-02-01", "b", 1)]
    );
    assert_eq!(read("2026-02-01", "2026-02-01").await.len(), 1);
    assert_eq!(read("2025-01-01", "2025-12-31").await.len(), 1);
    room.add_usage(vec![row("2026-03-01", "a", 1)])
        .await
        .unwrap();
    let left = room.usage("2025-01-01".into(), "2025-12-31".into()).await;
    assert_eq!(left.unwrap(), []);
}
