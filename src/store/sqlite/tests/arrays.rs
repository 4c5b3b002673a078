//! Many jobs under one parent.

use super::*;
use crate::store::NewArray;

fn array(id: &str, children: u32) -> NewArray {
    let child = |n: u32| NewJob {
        parent: Some((id.into(), n)),
        ..job(&format!("{id}-{n}"))
    };
    NewArray {
        id: id.into(),
        tenant: "studio".into(),
        service: "render".into(),
        accepted: Moment(1),
        tags: vec!["shot=010".into()],
        webhook: Some("http://hook".into()),
        idempotency: Some(Idempotency {
            key: format!("key-of-{id}"),
            fingerprint: [1; 32],
        }),
        jobs: (0..children).map(child).collect(),
    }
}

async fn end(room: &Room, id: &str, state: JobState, at: i64) {
    let attempt = now(room.start(id, "a/any", Moment(at)).await.unwrap()).attempt;
    now(room
        .end(id, attempt, over(state, None), Moment(at))
        .await
        .unwrap());
}

async fn kept(room: &Room, id: &str) -> ArrayRecord {
    room.array(id).await.unwrap().unwrap()
}

async fn letter_ids(room: &Room, about: &str) -> Vec<String> {
    let letters = room.letters(about).await.unwrap();
    letters.into_iter().map(|letter| letter.letter.id).collect()
}

#[tokio::test]
async fn an_array_is_accepted_whole_or_not_at_all() {
    let mut room = Room::new();
    let mut taken = job("taken");
    taken.client_id = Some("mine".into());
    new(room.accept(taken).await.unwrap());
    let mut asked = array("a", 3);
    asked.jobs[0].body = room.blob(b"a scene").await;
    asked.jobs[2].client_id = Some("mine".into());
    assert!(matches!(
        room.accept_array(asked).await.unwrap(),
        ArrayAccepted::OtherRequest
    ));
    // An id that is taken is found while the others are being written.
    let mut asked = array("a", 3);
    asked.jobs[0].body = room.blob(b"a scene").await;
    asked.jobs[2].id = "taken".into();
    assert!(room.accept_array(asked).await.is_err());
    assert!(room.array("a").await.unwrap().is_none());
    assert!(room.find(None, "a-0").await.unwrap().is_none());
    room.close();
    assert_eq!(room.blobs.used(), 0);
}

#[tokio::test]
async fn an_array_that_comes_twice_is_one() {
    let room = Room::new();
    let ArrayAccepted::New(accepted, children) = room.accept_array(array("a", 3)).await.unwrap()
    else {
        panic!("it is not there yet");
    };
    assert_eq!((accepted.counts[0], accepted.ended), (3, None));
    let places: Vec<u32> = children
        .iter()
        .map(|job| job.parent.clone().unwrap().1)
        .collect();
    assert_eq!(places, [0, 1, 2]);
    let mut repeat = array("b", 3);
    repeat.idempotency = array("a", 0).idempotency;
    match room.accept_array(repeat.clone()).await.unwrap() {
        ArrayAccepted::Again(there) => assert_eq!(there.id.as_ref(), "a"),
        other => panic!("{other:?}"),
    }
    repeat.idempotency.as_mut().unwrap().fingerprint = [2; 32];
    assert!(matches!(
        room.accept_array(repeat).await.unwrap(),
        ArrayAccepted::OtherRequest
    ));
}

#[tokio::test]
async fn an_array_is_over_with_the_last_of_its_jobs_and_again_after_a_retry() {
    let mut room = Room::new();
    room.accept_array(array("a", 3)).await.unwrap();
    end(&room, "a-0", JobState::Succeeded, 10).await;
    end(&room, "a-1", JobState::Failed, 20).await;
    let open = kept(&room, "a").await;
    assert_eq!((open.ended, open.endings), (None, 0));
    assert_eq!(open.counts, [1, 0, 0, 1, 1, 0, 0, 0]);
    assert!(letter_ids(&room, "a").await.is_empty());
    now(room.cancel("a-2", Moment(30)).await.unwrap());
    let ended = kept(&room, "a").await;
    assert_eq!((ended.ended, ended.endings), (Some(Moment(30)), 1));
    assert_eq!(ended.counts, [0, 0, 0, 1, 1, 1, 0, 0]);
    assert_eq!(letter_ids(&room, "a").await, ["a.1"]);
    now(room.retry("a-1", Moment(40)).await.unwrap());
    now(room.retry("a-2", Moment(40)).await.unwrap());
    assert_eq!(kept(&room, "a").await.ended, None);
    end(&room, "a-2", JobState::Succeeded, 50).await;
    assert_eq!(kept(&room, "a").await.endings, 1);
    end(&room, "a-1", JobState::Succeeded, 60).await;
    room.reopen();
    let ended = kept(&room, "a").await;
    assert_eq!((ended.ended, ended.endings), (Some(Moment(60)), 2));
    assert_eq!(letter_ids(&room, "a").await, ["a.1", "a.2"]);
}

#[tokio::test]
async fn an_array_is_over_when_its_last_jobs_expire_together() {
    let room = Room::new();
    let mut asked = array("a", 3);
    for job in &mut asked.jobs {
        job.start_by = Some(Moment(50));
    }
    room.accept_array(asked).await.unwrap();
    assert_eq!(room.expire(Moment(50), 2).await.unwrap().len(), 2);
    assert_eq!(kept(&room, "a").await.endings, 0);
    assert_eq!(room.expire(Moment(51), 2).await.unwrap().len(), 1);
    let ended = kept(&room, "a").await;
    assert_eq!((ended.ended, ended.endings), (Some(Moment(51)), 1));
}

#[tokio::test]
async fn jobs_of_an_array_are_kept_from_its_end_on() {
    let room = Room::new();
    room.accept_array(array("a", 3)).await.unwrap();
    end(&room, "a-0", JobState::Succeeded, 10).await;
    end(&room, "a-1", JobState::Dead, 20).await;
    let early = room.find(None, "a-0").await.unwrap().unwrap();
    assert_eq!(early.keep_until, None);
    assert_eq!(room.sweep(Moment(5000), 9).await.unwrap(), 0);
    end(&room, "a-2", JobState::Succeeded, 6000).await;
    for (id, until) in [("a-0", 7000), ("a-1", 15000), ("a-2", 7000)] {
        let job = room.find(None, id).await.unwrap().unwrap();
        assert_eq!(job.keep_until, Some(Moment(until)), "{id}");
    }
    now(room.retry("a-1", Moment(6500)).await.unwrap());
    assert_eq!(
        room.sweep(Moment(9000), 9).await.unwrap(),
        0,
        "one of them waits again"
    );
    end(&room, "a-1", JobState::Dead, 9000).await;
    assert_eq!(room.sweep(Moment(10_000), 9).await.unwrap(), 2);
    assert_eq!(kept(&room, "a").await.counts, [0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(
        room.sweep(Moment(18_000), 9).await.unwrap(),
        2,
        "the last job, and the array"
    );
    assert!(room.array("a").await.unwrap().is_none());
}

#[tokio::test]
async fn an_array_is_deleted_with_its_jobs_and_only_when_all_are_over() {
    let mut room = Room::new();
    let mut asked = array("a", 2);
    asked.jobs[0].body = room.blob(b"a scene").await;
    room.accept_array(asked).await.unwrap();
    end(&room, "a-0", JobState::Succeeded, 10).await;
    assert!(!room.delete_array("a").await.unwrap());
    assert!(!room.delete_array("b").await.unwrap());
    end(&room, "a-1", JobState::Succeeded, 10).await;
    assert!(room.delete_array("a").await.unwrap());
    assert!(room.array("a").await.unwrap().is_none());
    assert!(room.find(None, "a-1").await.unwrap().is_none());
    assert!(letter_ids(&room, "a").await.is_empty());
    room.accept_array(array("a", 1)).await.unwrap();
    now(room.cancel("a-0", Moment(1)).await.unwrap());
    assert!(room.delete("a-0").await.unwrap());
    assert!(
        room.array("a").await.unwrap().is_none(),
        "it goes with its last job"
    );
    room.close();
    assert_eq!(room.blobs.used(), 0);
}
