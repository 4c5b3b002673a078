//! Lists, compared with what a look at every job gives.

use super::*;
use crate::store::NewArray;

/// Jobs of two tenants, services, classes and tags, in all states, some of an array.
async fn filled(room: &Room) {
    let child = |n: u32| NewJob {
        parent: Some(("array".into(), n)),
        ..job(&format!("child-{n}"))
    };
    let array = NewArray {
        id: "array".into(),
        tenant: "studio".into(),
        service: "render".into(),
        accepted: Moment(1),
        tags: Vec::new(),
        webhook: None,
        idempotency: None,
        jobs: (0..5).map(child).collect(),
    };
    room.accept_array(array).await.unwrap();
    now(room.cancel("child-2", Moment(2)).await.unwrap());
    for n in 0..64 {
        let id = format!("job-{n}");
        let mut asked = job(&id);
        asked.tenant = ["studio", "lab"][n % 2].into();
        asked.service = ["render", "fold"][n / 2 % 2].into();
        asked.need.class = ["frame", "still"][n / 4 % 2].into();
        asked.tags = [vec!["wip".to_owned()], vec![]][n / 8 % 2].clone();
        asked.start_by = Some(Moment(if n % 7 == 6 { 100 } else { 200 }));
        new(room.accept(asked).await.unwrap());
        let start = || room.start(&id, "a/any", Moment(10));
        match n % 8 {
            1 => drop(now(start().await.unwrap())),
            2 => {
                now(start().await.unwrap());
                now(room.running(&id, 1, Moment(11)).await.unwrap());
            }
            3 => drop(now(room.cancel(&id, Moment(11)).await.unwrap())),
            state @ 4..=6 => {
                let state = [JobState::Succeeded, JobState::Failed, JobState::Dead][state - 4];
                now(start().await.unwrap());
                now(room
                    .end(&id, 1, over(state, None), Moment(12))
                    .await
                    .unwrap());
            }
            _ => {}
        }
    }
    assert!(!room.expire(Moment(150), 2).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_list_holds_what_was_asked_for_and_the_newest_first() {
    let room = Room::new();
    filled(&room).await;
    let all = room
        .list(Filter {
            limit: usize::MAX,
            ..Filter::default()
        })
        .await
        .unwrap();
    assert_eq!(all.len(), 69);
    assert!(all.windows(2).all(|pair| pair[0].seq > pair[1].seq));
    let states: BTreeSet<_> = all.iter().map(|job| job.state.word()).collect();
    assert_eq!(states.len(), 8, "there is one of each");
    let some = |word: &str, n: usize| (n == 1).then(|| word.to_owned());
    let mut tried = 0;
    for states in [
        vec![],
        vec![JobState::Queued],
        vec![JobState::Failed, JobState::Dead, JobState::Failed],
    ] {
        for n in 0..96 {
            let filter = Filter {
                tenant: some("studio", n % 2).map(Arc::from),
                service: some("render", n / 2 % 2),
                class: some("frame", n / 4 % 2),
                tag: some("wip", n / 8 % 2),
                parent: some("array", n / 16 % 2).map(Arc::from),
                before: [None, Some(40), Some(4)][n / 32],
                states: states.clone(),
                limit: [3, 99][n % 3 % 2],
            };
            let fits = |job: &&JobRecord| {
                filter
                    .tenant
                    .as_ref()
                    .is_none_or(|tenant| *tenant == job.tenant)
                    && filter
                        .service
                        .as_deref()
                        .is_none_or(|service| *service == *job.service)
                    && filter
                        .class
                        .as_deref()
                        .is_none_or(|class| *class == *job.need.class)
                    && filter.tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
                    && filter.before.is_none_or(|before| job.seq < before)
                    && (states.is_empty() || states.contains(&job.state))
                    && filter.parent.as_ref().is_none_or(|parent| {
                        job.parent
                            .as_ref()
                            .is_some_and(|(array, _)| array == parent)
                    })
            };
            let wanted: Vec<i64> = all
                .iter()
                .filter(fits)
                .take(filter.limit)
                .map(|job| job.seq)
                .collect();
            let found = room.list(filter.clone()).await.unwrap();
            let found: Vec<i64> = found.iter().map(|job| job.seq).collect();
            assert_eq!(found, wanted, "{filter:?}");
            tried += usize::from(!wanted.is_empty());
        }
    }
    assert!(tried > 100, "{tried} lists held something");
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let room = Room::new();
    filled(&room).await;
    let mut filter = Filter {
        tenant: Some("studio".into()),
        limit: 5,
        ..Filter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = room.list(filter.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.seq);
        seen.extend(page.iter().map(|job| job.seq));
        // What is new meanwhile is not among the older.
        new(room
            .accept(job(&format!("new-{}", seen.len())))
            .await
            .unwrap());
    }
    assert_eq!(seen.len(), 37);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]));
}

#[tokio::test]
async fn a_start_reads_what_is_unfinished_in_the_order_of_acceptance() {
    let mut room = Room::new();
    filled(&room).await;
    room.reopen();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = room.unfinished(after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        assert!(page.iter().all(|job| !job.state.is_over()));
        seen.extend(page);
    }
    let census = room.census().await.unwrap();
    let (mut waiting, mut total) = (0, 0);
    for (_, _, _, state, count) in census {
        total += count;
        waiting += if state.is_over() { 0 } else { count };
    }
    assert_eq!((seen.len() as u64, total), (waiting, 69));
    assert!(seen.windows(2).all(|pair| pair[0].seq < pair[1].seq));
}
