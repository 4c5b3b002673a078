//! The outbox.

use super::*;

fn told(id: &str, url: &str) -> NewJob {
    let mut asked = job(id);
    asked.webhook = Some(url.into());
    asked
}

async fn due(room: &Room, at: i64) -> Vec<String> {
    let letters = room.due_letters(Moment(at), 99).await.unwrap();
    letters.into_iter().map(|letter| letter.letter.id).collect()
}

async fn deliver(room: &Room, letter: &str, outcome: Delivery, at: i64) {
    room.delivery(letter, outcome, Moment(at)).await.unwrap();
}

fn later(at: i64) -> Delivery {
    Delivery::Again {
        due: Moment(at),
        why: "answered 503".into(),
    }
}

#[tokio::test]
async fn letters_are_written_with_the_change_and_are_there_after_a_restart() {
    let mut room = Room::new();
    new(room.accept(told("a", "http://hook")).await.unwrap());
    new(room.accept(job("quiet")).await.unwrap());
    now(room.start("a", "a/any", Moment(10)).await.unwrap());
    stale(room.start("a", "a/any", Moment(11)).await);
    room.reopen();
    let letters = room.letters("a").await.unwrap();
    let ids: Vec<&str> = letters.iter().map(|letter| &*letter.letter.id).collect();
    assert_eq!(ids, ["a.1", "a.2"]);
    assert_eq!(
        (
            &*letters[1].letter.payload,
            letters[1].written,
            letters[1].tries
        ),
        ("starting", Moment(10), 0)
    );
    let gauge = room.gauge().await.unwrap();
    assert_eq!((gauge.letters, gauge.oldest_letter), (2, Some(Moment(1))));
    assert!(gauge.database_bytes > 0);
}

#[tokio::test]
async fn letters_about_one_job_go_out_one_after_the_other() {
    let room = Room::new();
    new(room.accept(told("a", "http://hook")).await.unwrap());
    now(room.cancel("a", Moment(5)).await.unwrap());
    new(room.accept(told("b", "http://hook")).await.unwrap());
    assert_eq!(due(&room, 0).await, [""; 0]);
    assert_eq!(due(&room, 9).await, ["a.1", "b.1"]);
    deliver(&room, "a.1", later(50), 10).await;
    assert_eq!(
        due(&room, 49).await,
        ["b.1"],
        "the second does not overtake the first"
    );
    assert_eq!(due(&room, 50).await, ["b.1", "a.1"]);
    // One that is written while another waits stands behind it.
    now(room.retry("a", Moment(20)).await.unwrap());
    assert_eq!(room.letters("a").await.unwrap()[2].due, Some(Moment(50)));
    deliver(&room, "a.1", Delivery::Delivered, 51).await;
    assert_eq!(due(&room, 51).await, ["b.1", "a.2"]);
    deliver(
        &room,
        "a.2",
        Delivery::GivenUp {
            why: "answered 410".into(),
        },
        52,
    )
    .await;
    assert_eq!(due(&room, 52).await, ["b.1", "a.3"]);
    let letters = room.letters("a").await.unwrap();
    assert_eq!(
        (letters[0].delivered, letters[0].tries),
        (Some(Moment(51)), 2)
    );
    assert_eq!(
        (letters[1].delivered, letters[1].last.as_deref()),
        (None, Some("answered 410"))
    );
    assert_eq!(room.due_letters(Moment(52), 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_letter_is_replayed_as_if_it_had_never_been_tried() {
    let room = Room::new();
    new(room.accept(told("a", "http://hook")).await.unwrap());
    deliver(&room, "a.1", Delivery::GivenUp { why: "gone".into() }, 10).await;
    assert!(due(&room, 99).await.is_empty());
    assert!(room.replay("a.1", Moment(20)).await.unwrap());
    assert!(!room.replay("no", Moment(20)).await.unwrap());
    assert_eq!(due(&room, 20).await, ["a.1"]);
    assert_eq!(room.letters("a").await.unwrap()[0].tries, 0);
}

#[tokio::test]
async fn letters_to_an_address_that_is_gone_are_given_up() {
    let room = Room::new();
    new(room.accept(told("a", "http://gone")).await.unwrap());
    new(room.accept(told("b", "http://there")).await.unwrap());
    assert_eq!(
        room.give_up_letters("http://gone", "answered 410")
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        room.give_up_letters("http://gone", "answered 410")
            .await
            .unwrap(),
        0
    );
    // A try that was under way does not bring it back.
    deliver(&room, "a.1", later(10), 5).await;
    assert_eq!(due(&room, 99).await, ["b.1"]);
}

#[tokio::test]
async fn a_letter_that_waits_outlives_its_job_and_then_goes() {
    let room = Room::new();
    for id in ["a", "b"] {
        new(room.accept(told(id, "http://hook")).await.unwrap());
        now(room.cancel(id, Moment(5)).await.unwrap());
        deliver(&room, &format!("{id}.1"), Delivery::Delivered, 6).await;
    }
    assert_eq!(room.sweep(Moment(5000), 9).await.unwrap(), 2);
    assert_eq!(due(&room, 5000).await, ["a.2", "b.2"]);
    deliver(&room, "a.2", later(6000), 5000).await;
    assert_eq!(room.letters("a").await.unwrap().len(), 1);
    deliver(&room, "a.2", Delivery::Delivered, 6000).await;
    assert!(room.letters("a").await.unwrap().is_empty());
    assert_eq!(
        room.give_up_letters("http://hook", "answered 410")
            .await
            .unwrap(),
        1
    );
    assert!(room.letters("b").await.unwrap().is_empty());
    assert_eq!(room.gauge().await.unwrap().letters, 0);
}
