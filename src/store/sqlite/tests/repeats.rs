//! A request that comes twice is one job.

use super::*;

fn keyed(id: &str, key: &str, fingerprint: u8) -> NewJob {
    let mut asked = job(id);
    asked.idempotency = Some(Idempotency {
        key: key.into(),
        fingerprint: [fingerprint; 32],
    });
    asked
}

#[tokio::test]
async fn the_same_request_under_a_key_is_the_same_job() {
    let mut room = Room::new();
    new(room.accept(keyed("a", "k", 1)).await.unwrap());
    now(room.start("a", "a/any", Moment(10)).await.unwrap());
    let mut repeat = keyed("b", "k", 1);
    repeat.body = room.blob(b"a scene").await;
    let Accepted::Again(there) = room.accept(repeat).await.unwrap() else {
        panic!("it was taken for another");
    };
    assert_eq!((there.id.as_ref(), there.state), ("a", JobState::Starting));
    let mut other = keyed("c", "k", 2);
    other.body = room.blob(b"another scene").await;
    assert!(matches!(
        room.accept(other).await.unwrap(),
        Accepted::OtherRequest
    ));
    let mut elsewhere = keyed("d", "k", 2);
    elsewhere.tenant = "another".into();
    new(room.accept(elsewhere).await.unwrap());
    room.close();
    assert_eq!(room.blobs.used(), 0, "the bodies of repeats are not kept");
}

#[tokio::test]
async fn a_clients_own_id_names_one_job_of_its_tenant() {
    let room = Room::new();
    let named = |id: &str, fingerprint: u8| {
        let mut asked = keyed(id, &format!("key-of-{id}"), fingerprint);
        asked.client_id = Some("mine".into());
        asked
    };
    new(room.accept(named("a", 1)).await.unwrap());
    assert!(matches!(
        room.accept(named("b", 1)).await.unwrap(),
        Accepted::Again(_)
    ));
    assert!(matches!(
        room.accept(named("c", 2)).await.unwrap(),
        Accepted::OtherRequest
    ));
    let mut unsaid = named("d", 1);
    unsaid.idempotency = None;
    assert!(matches!(
        room.accept(unsaid).await.unwrap(),
        Accepted::Again(_)
    ));
    let mut elsewhere = named("e", 2);
    elsewhere.tenant = "another".into();
    new(room.accept(elsewhere).await.unwrap());
    for (tenant, id, found) in [
        (Some("studio"), "mine", Some("a")),
        (Some("another"), "mine", Some("e")),
        (Some("studio"), "a", Some("a")),
        (Some("another"), "a", None),
        (None, "a", Some("a")),
        (None, "mine", Some("e")),
    ] {
        let there = room.find(tenant, id).await.unwrap();
        assert_eq!(
            there.as_ref().map(|job| job.id.as_ref()),
            found,
            "{tenant:?} {id}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_32_that_ask_at_once_under_one_key_one_is_new() {
    let room = Room::new();
    let store = room.store.clone().unwrap();
    let asked = (0..32).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let fingerprint = u8::from(n % 2 == 0);
            store
                .accept(keyed(&format!("job-{n}"), "k", fingerprint))
                .await
                .unwrap()
        })
    });
    let mut counts = [0; 3];
    for outcome in futures::future::join_all(asked).await {
        counts[match outcome.unwrap() {
            Accepted::New(_) => 0,
            Accepted::Again(_) => 1,
            Accepted::OtherRequest => 2,
        }] += 1;
    }
    assert_eq!(counts, [1, 15, 16]);
    drop(store);
    let all = room
        .list(Filter {
            limit: 99,
            ..Filter::default()
        })
        .await
        .unwrap();
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn an_id_that_is_taken_is_an_error_and_no_second_job() {
    let room = Room::new();
    new(room.accept(job("a")).await.unwrap());
    let error = room.accept(job("a")).await.unwrap_err().to_string();
    assert!(error.contains("cannot accept a job"), "{error}");
}
