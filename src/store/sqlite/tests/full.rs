//! A store without room says so, and works again when there is some.

use super::*;

const SMALL: u64 = 1 << 20;

/// Accepts jobs until there is no room for one more; how many.
async fn fill(room: &Room) -> usize {
    for n in 0.. {
        let mut asked = job(&format!("job-{n}"));
        asked.body = Kept::Row(Bytes::from(vec![b'x'; 8000]));
        match room.accept(asked).await {
            Ok(accepted) => drop(new(accepted)),
            Err(StoreError::Full(why)) => {
                assert!(why.contains("limits.database_bytes"), "{why}");
                return n;
            }
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_full_store_refuses_jobs_and_ends_those_it_has() {
    let mut room = Room::of(SMALL);
    let count = fill(&room).await;
    assert!(count > 20, "{count}");
    let mut refused = job("refused");
    refused.body = room.blob(b"a long scene").await;
    refused.uri = format!("/{}", "x".repeat(8000)).parse().unwrap();
    assert!(matches!(
        room.accept(refused).await,
        Err(StoreError::Full(_))
    ));
    // Reads go on, and so does what was accepted.
    assert!(room.find(None, "job-0").await.unwrap().is_some());
    for n in 0..count {
        let id = format!("job-{n}");
        now(room.start(&id, "a/any", Moment(10)).await.unwrap());
        now(room.running(&id, 1, Moment(11)).await.unwrap());
        let done = over(JobState::Succeeded, Some(Kept::Row("ok".into())));
        now(room.end(&id, 1, done, Moment(12)).await.unwrap());
    }
    assert!(matches!(
        room.accept(job("refused")).await,
        Err(StoreError::Full(_))
    ));
    // What is deleted makes room.
    for n in 0..count / 2 {
        assert!(room.delete(&format!("job-{n}")).await.unwrap());
    }
    new(room.accept(job("later")).await.unwrap());
    room.reopen_with(SMALL);
    new(room.accept(job("after")).await.unwrap());
    assert_eq!(
        room.blobs.used(),
        0,
        "the body of the refused job is not kept"
    );
}

#[tokio::test]
async fn a_database_that_can_grow_no_further_loses_nothing_but_the_call() {
    let mut room = Room::of(SMALL);
    for id in ["first", "second"] {
        room.started(id).await;
    }
    // Together in one transaction: the large ones break it for all.
    let large = |id| {
        let body = Kept::Row(Bytes::from(vec![1; 2 * SMALL as usize]));
        room.end(id, 1, over(JobState::Succeeded, Some(body)), Moment(20))
    };
    let (a, first, b, second) = tokio::join!(
        room.accept(job("a")),
        large("first"),
        room.accept(job("b")),
        large("second"),
    );
    new(a.unwrap());
    new(b.unwrap());
    for refused in [first, second] {
        match refused {
            Err(StoreError::Full(why)) => assert!(why.contains("limits.database_bytes"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kinds(&room, "first").await, ["queued", "started"]);
    let smaller = over(JobState::Dead, None);
    now(room.end("first", 1, smaller, Moment(21)).await.unwrap());
    room.reopen_with(SMALL);
    for (id, state) in [
        ("first", JobState::Dead),
        ("second", JobState::Starting),
        ("a", JobState::Queued),
        ("b", JobState::Queued),
    ] {
        let job = room.find(None, id).await.unwrap().unwrap();
        assert_eq!(job.state, state, "{id}");
    }
}

#[tokio::test]
async fn plugins_values_do_not_take_the_room_of_jobs() {
    let room = Room::of(SMALL);
    let most = Bytes::from(vec![1; SMALL as usize / 16 * 15]);
    let refused = room.put_value("a", "most", Some(most)).await;
    assert!(matches!(refused, Err(StoreError::Full(_))));
    let half = Bytes::from(vec![1; SMALL as usize / 2]);
    room.put_value("a", "half", Some(half)).await.unwrap();
    room.put_value("a", "half", None).await.unwrap();
    new(room.accept(job("a")).await.unwrap());
}

#[tokio::test]
async fn a_larger_limit_makes_room_at_once() {
    let room = Room::of(SMALL);
    let count = fill(&room).await;
    room.set_limits(4 * SMALL);
    let more = Bytes::from(vec![1; 2 * SMALL as usize]);
    room.put_value("a", "large", Some(more)).await.unwrap();
    new(room.accept(job("later")).await.unwrap());
    room.set_limits(SMALL);
    assert!(matches!(
        room.accept(job("refused")).await,
        Err(StoreError::Full(_))
    ));
    let all = room
        .list(Filter {
            limit: usize::MAX,
            ..Filter::default()
        })
        .await
        .unwrap();
    assert_eq!(all.len(), count + 1);
}

#[tokio::test]
async fn a_result_that_could_not_be_written_down_is_there_when_it_is_tried_again() {
    let room = Room::of(SMALL);
    room.started("one").await;
    let long = room.blob(b"a long picture").await;
    // A row too large to be written stands for whatever a disk may have against it.
    let mut ended = over(JobState::Succeeded, Some(long.clone()));
    ended.error = Some("x".repeat(2 * SMALL as usize));
    let refused = room.end("one", 1, ended, Moment(20)).await;
    assert!(refused.is_err());
    let again = over(JobState::Succeeded, Some(long));
    now(room.end("one", 1, again, Moment(21)).await.unwrap());
    let Some(Kept::Blob(kept)) = room.result("one").await.unwrap() else {
        panic!("it is kept apart");
    };
    let stored = room.blobs.open(&kept).await.unwrap();
    assert_eq!(&stored.read(0, 99).await.unwrap()[..], b"a long picture");
}
