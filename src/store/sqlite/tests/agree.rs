//! The store and a plain reading of its rules agree, whatever is asked of them in whatever order.

use super::*;
use crate::cases::tried;
use crate::store::NewArray;
use proptest::collection::vec;
use std::collections::BTreeMap;

/// The rules of a store, on plain values.
#[derive(Default)]
struct Rules {
    seq: i64,
    jobs: BTreeMap<String, Held>,
    array: Option<ArrayRecord>,
    letters: Vec<(String, String, bool)>,
}

struct Held {
    job: JobRecord,
    fingerprint: u8,
    events: Vec<&'static str>,
    attempts: Vec<AttemptRecord>,
    result: Option<Kept>,
}

/// One call: which, of which job, how, and how much later than the one before.
type Call = (u8, usize, u8, i64);

const ALONE: usize = 4;
const CHILDREN: usize = 3;

fn id_of(slot: usize) -> String {
    match slot.checked_sub(ALONE) {
        None => format!("job-{slot}"),
        Some(child) => format!("child-{child}"),
    }
}

fn asked(slot: usize, how: u8, at: Moment) -> NewJob {
    let mut asked = job(&id_of(slot));
    asked.accepted = at;
    asked.webhook = Some("http://hook".into());
    asked.start_by = (how & 1 == 0).then_some(Moment(at.0 + 500));
    if slot < ALONE {
        asked.idempotency = Some(Idempotency {
            key: id_of(slot),
            fingerprint: [how & 2; 32],
        });
    } else {
        asked.parent = Some(("array".into(), (slot - ALONE) as u32));
    }
    asked
}

fn asked_array(how: u8, at: Moment) -> NewArray {
    NewArray {
        id: "array".into(),
        tenant: "studio".into(),
        service: "render".into(),
        accepted: at,
        tags: Vec::new(),
        webhook: Some("http://hook".into()),
        idempotency: Some(Idempotency {
            key: "array".into(),
            fingerprint: [1; 32],
        }),
        jobs: (ALONE..ALONE + CHILDREN)
            .map(|slot| asked(slot, how, at))
            .collect(),
    }
}

impl Rules {
    fn accept(&mut self, new: &NewJob) -> String {
        let fingerprint = new
            .idempotency
            .as_ref()
            .map_or(0, |known| known.fingerprint[0]);
        if let Some(held) = self.jobs.get(&*new.id) {
            return match held.fingerprint == fingerprint {
                true => format!("again {:?}", held.job),
                false => "other".into(),
            };
        }
        self.seq += 1;
        let job = JobRecord {
            seq: self.seq,
            id: new.id.clone(),
            client_id: None,
            parent: new.parent.clone(),
            service: new.service.clone(),
            tenant: new.tenant.clone(),
            need: tabane_api::Need {
                tenant: new.tenant.clone(),
                ..new.need.clone()
            },
            state: JobState::Queued,
            version: 0,
            attempt: 0,
            failures: 0,
            canceling: false,
            method: new.method.clone(),
            uri: new.uri.clone(),
            body_length: 7,
            accepted: new.accepted,
            started: None,
            ended: None,
            start_by: new.start_by,
            timeout_ms: new.timeout_ms,
            not_before: None,
            keep_until: None,
            tags: new.tags.clone(),
            webhook: new.webhook.clone(),
            result: None,
            error: None,
            progress: None,
            progress_text: None,
            failed_on: Vec::new(),
        };
        let held = Held {
            job,
            fingerprint,
            events: Vec::new(),
            attempts: Vec::new(),
            result: None,
        };
        self.jobs.insert(new.id.to_string(), held);
        self.made(&new.id, "queued", new.accepted)
    }

    fn accept_array(&mut self, new: &NewArray) -> String {
        if self.array.is_some() {
            return format!("again {:?}", self.counted());
        }
        self.array = Some(ArrayRecord {
            id: new.id.clone(),
            tenant: new.tenant.clone(),
            service: new.service.clone(),
            accepted: new.accepted,
            ended: None,
            tags: Vec::new(),
            webhook: new.webhook.clone(),
            counts: [0; 8],
            endings: 0,
        });
        let children: Vec<String> = new.jobs.iter().map(|job| self.accept(job)).collect();
        format!("{:?} {children:?}", self.counted())
    }

    fn counted(&self) -> Option<ArrayRecord> {
        let mut array = self.array.clone()?;
        for (count, state) in array.counts.iter_mut().zip(JobState::ALL) {
            *count = self.children().filter(|job| job.state == state).count() as u32;
        }
        Some(array)
    }

    fn children(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs
            .values()
            .map(|held| &held.job)
            .filter(|job| job.parent.is_some())
    }

    /// A change has a version, an event and a letter; an array ends with its last job.
    fn made(&mut self, id: &str, kind: &'static str, at: Moment) -> String {
        let held = self.jobs.get_mut(id).unwrap();
        held.job.version += 1;
        held.events.push(kind);
        let letter = format!("{id}.{}", held.job.version);
        self.post(id, letter);
        let held = self.jobs.get_mut(id).unwrap();
        let keep = |job: &JobRecord| {
            at.0 + if job.state == JobState::Dead {
                9000
            } else {
                1000
            }
        };
        if held.job.state.is_over() {
            held.job.ended = Some(at);
            if held.job.parent.is_none() {
                held.job.keep_until = Some(Moment(keep(&held.job)));
            } else if self.children().all(|job| job.state.is_over()) {
                let array = self.array.as_mut().unwrap();
                array.ended = Some(at);
                array.endings += 1;
                let letter = format!("array.{}", array.endings);
                self.post("array", letter);
                for held in self
                    .jobs
                    .values_mut()
                    .filter(|held| held.job.parent.is_some())
                {
                    held.job.keep_until = Some(Moment(keep(&held.job)));
                }
            }
        }
        format!("{:?}", self.jobs[id].job)
    }

    /// Ids are used again here once a job is deleted; a letter of an id that is there is not written again.
    fn post(&mut self, about: &str, id: String) {
        if self.letters.iter().all(|letter| letter.1 != id) {
            self.letters.push((about.to_owned(), id, true));
        }
    }

    fn start(&mut self, id: &str, endpoint: &str, at: Moment) -> Option<String> {
        let held = self.jobs.get_mut(id)?;
        let late = held.job.start_by.is_some_and(|by| by <= at);
        if held.job.state != JobState::Queued || held.job.not_before > Some(at) || late {
            return None;
        }
        held.job.state = JobState::Starting;
        held.job.attempt += 1;
        (held.job.started, held.job.not_before, held.job.error) = (Some(at), None, None);
        held.attempts.push(AttemptRecord {
            number: held.job.attempt,
            endpoint: endpoint.into(),
            started: at,
            ended: None,
            outcome: None,
            error: None,
            submitting: false,
            handle: None,
        });
        Some(self.made(id, "started", at))
    }

    /// The job and its latest attempt, if this is it and it is at work.
    fn at_work(&mut self, id: &str, attempt: u32) -> Option<&mut Held> {
        let held = self.jobs.get_mut(id)?;
        let at_work = [JobState::Starting, JobState::Running].contains(&held.job.state);
        (at_work && held.job.attempt == attempt).then_some(held)
    }

    fn submitting(&mut self, id: &str, attempt: u32) -> Option<String> {
        let held = self.at_work(id, attempt)?;
        held.attempts.last_mut().unwrap().submitting = true;
        Some(format!("{:?}", held.job))
    }

    fn runs(&mut self, id: &str, attempt: u32, handle: Option<&str>, at: Moment) -> Option<String> {
        let held = self.at_work(id, attempt)?;
        if let Some(handle) = handle {
            held.attempts.last_mut().unwrap().handle = Some(handle.into());
        }
        if held.job.state == JobState::Running {
            return Some(format!("{:?}", held.job));
        }
        held.job.state = JobState::Running;
        Some(self.made(id, "running", at))
    }

    fn progress(
        &mut self,
        id: &str,
        attempt: u32,
        fraction: f64,
        log: bool,
        at: Moment,
    ) -> Option<String> {
        let held = self.at_work(id, attempt)?;
        (held.job.progress, held.job.progress_text) = (Some(fraction), Some("tiles".into()));
        match log {
            true => Some(self.made(id, "log", at)),
            false => Some(format!("{:?}", held.job)),
        }
    }

    fn end(&mut self, id: &str, attempt: u32, ended: &Ended, at: Moment) -> Option<String> {
        let held = self.at_work(id, attempt)?;
        let last = held.attempts.last_mut().unwrap();
        (last.ended, last.outcome, last.error) =
            (Some(at), Some(ended.outcome.into()), ended.error.clone());
        held.job.error = ended.error.clone();
        match &ended.next {
            Next::Over(state, result) => {
                held.job.state = *state;
                held.job.result = result.as_ref().map(|(head, _)| head.clone());
                held.result = result.as_ref().map(|(_, body)| body.clone());
            }
            Next::Again { not_before, counts } => {
                if *counts {
                    held.job.failures += 1;
                    if !held.job.failed_on.contains(&last.endpoint) {
                        held.job.failed_on.push(last.endpoint.clone());
                    }
                }
                (held.job.progress, held.job.progress_text) = (None, None);
                if !held.job.canceling {
                    (held.job.state, held.job.not_before) = (JobState::Queued, *not_before);
                    return Some(self.made(id, "retry", at));
                }
                held.job.state = JobState::Canceled;
            }
        }
        held.job.canceling = false;
        Some(self.made(id, "finished", at))
    }

    fn cancel(&mut self, id: &str, at: Moment) -> Option<String> {
        let job = &mut self.jobs.get_mut(id)?.job;
        if job.state == JobState::Queued {
            job.state = JobState::Canceled;
            return Some(self.made(id, "finished", at));
        }
        if job.state.is_over() || job.canceling {
            return None;
        }
        job.canceling = true;
        Some(self.made(id, "canceling", at))
    }

    fn give_up(&mut self, id: &str, why: &str, at: Moment) -> Option<String> {
        let job = &mut self.jobs.get_mut(id)?.job;
        if job.state != JobState::Queued {
            return None;
        }
        (job.state, job.error) = (JobState::Dead, Some(why.to_owned()));
        Some(self.made(id, "finished", at))
    }

    fn retry(&mut self, id: &str, at: Moment) -> Option<String> {
        let held = self.jobs.get_mut(id)?;
        let job = &mut held.job;
        if !job.state.is_over() || job.state == JobState::Succeeded {
            return None;
        }
        (job.state, job.failures, job.failed_on) = (JobState::Queued, 0, Vec::new());
        (job.ended, job.keep_until, job.error, job.result) = (None, None, None, None);
        (job.progress, job.progress_text) = (None, None);
        job.start_by = job.start_by.filter(|by| *by > at);
        held.result = None;
        if job.parent.is_some() {
            self.array.as_mut().unwrap().ended = None;
            for held in self
                .jobs
                .values_mut()
                .filter(|held| held.job.parent.is_some())
            {
                held.job.keep_until = None;
            }
        }
        Some(self.made(id, "queued", at))
    }

    fn patch(&mut self, id: &str, patch: Patch, at: Moment) -> Option<String> {
        let job = &mut self.jobs.get_mut(id)?.job;
        if job.state != JobState::Queued {
            return None;
        }
        if let Some(urgency) = patch.urgency {
            job.need.urgency = tabane_api::Urgency::new(urgency);
        }
        job.start_by = patch.start_by.unwrap_or(job.start_by);
        Some(self.made(id, "priority", at))
    }

    /// A job goes, and its array with the last. Letters that wait stay if it was time that took them.
    fn remove(&mut self, id: &str, by_time: bool) -> usize {
        let child = self.jobs.remove(id).unwrap().job.parent.is_some();
        self.letters
            .retain(|(about, _, waits)| about != id || (by_time && *waits));
        if !child || self.children().next().is_some() {
            return 1;
        }
        self.array = None;
        self.letters
            .retain(|(about, _, waits)| about != "array" || (by_time && *waits));
        2
    }

    fn delete(&mut self, id: &str) -> bool {
        let over = self
            .jobs
            .get(id)
            .is_some_and(|held| held.job.state.is_over());
        if over {
            self.remove(id, false);
        }
        over
    }

    fn expire(&mut self, at: Moment) -> Vec<String> {
        let late = |held: &&Held| {
            held.job.state == JobState::Queued && held.job.start_by.is_some_and(|by| by <= at)
        };
        let mut late: Vec<_> = self.jobs.values().filter(late).collect();
        late.sort_by_key(|held| (held.job.start_by, held.job.seq));
        let ids: Vec<String> = late.iter().map(|held| held.job.id.to_string()).collect();
        for id in &ids {
            let job = &mut self.jobs.get_mut(id).unwrap().job;
            job.state = JobState::Expired;
            job.error = Some("it had not started by the time that it was given for that".into());
            self.made(id, "finished", at);
        }
        ids
    }

    fn sweep(&mut self, at: Moment) -> usize {
        let old = |held: &&Held| held.job.keep_until.is_some_and(|until| until <= at);
        let old: Vec<String> = self
            .jobs
            .values()
            .filter(old)
            .map(|held| held.job.id.to_string())
            .collect();
        old.iter().map(|id| self.remove(id, true)).sum()
    }

    fn deliver_all(&mut self) {
        let gone = |about: &str| match about {
            "array" => self.array.is_none(),
            id => !self.jobs.contains_key(id),
        };
        let gone: Vec<bool> = self
            .letters
            .iter()
            .map(|(about, _, _)| gone(about))
            .collect();
        let mut gone = gone.into_iter();
        self.letters.retain_mut(|(_, _, waits)| {
            let outlived = gone.next().unwrap() && *waits;
            *waits = false;
            !outlived
        });
    }
}

fn word(changed: Changed) -> Option<String> {
    match changed {
        Changed::Now(job) => Some(format!("{job:?}")),
        Changed::Stale => None,
    }
}

/// One call on both.
async fn call(room: &mut Room, rules: &mut Rules, (which, slot, how, _): Call, at: Moment) {
    let id = &id_of(slot);
    let endpoint = ["a/any", "b/any"][usize::from(how) % 2];
    // Mostly the latest attempt, sometimes the one before.
    let latest = rules.jobs.get(id).map_or(0, |held| held.job.attempt);
    let attempt = latest.saturating_sub(u32::from(how % 4 == 3));
    match which {
        0 | 1 if slot < ALONE => {
            let new = asked(slot, how, at);
            let wanted = rules.accept(&new);
            let found = match room.accept(new).await.unwrap() {
                Accepted::New(job) => format!("{job:?}"),
                Accepted::Again(job) => format!("again {job:?}"),
                Accepted::OtherRequest => "other".into(),
            };
            assert_eq!(found, wanted);
        }
        // Some of its jobs may be deleted; then it is asked for again once all are.
        0 | 1 => {
            let new = asked_array(how, at);
            let wanted = rules.accept_array(&new);
            let found = match room.accept_array(new).await.unwrap() {
                ArrayAccepted::New(array, jobs) => {
                    let jobs: Vec<String> = jobs.iter().map(|job| format!("{job:?}")).collect();
                    format!("{:?} {jobs:?}", Some(array))
                }
                ArrayAccepted::Again(array) => format!("again {:?}", Some(array)),
                ArrayAccepted::OtherRequest => "other".into(),
            };
            assert_eq!(found, wanted);
        }
        2..=4 => {
            let wanted = rules.start(id, endpoint, at);
            assert_eq!(word(room.start(id, endpoint, at).await.unwrap()), wanted);
        }
        5 => {
            let wanted = rules.submitting(id, attempt);
            assert_eq!(word(room.submitting(id, attempt).await.unwrap()), wanted);
        }
        6 => {
            let wanted = rules.runs(id, attempt, Some("theirs"), at);
            assert_eq!(
                word(room.handle(id, attempt, "theirs", at).await.unwrap()),
                wanted
            );
        }
        7 => {
            let wanted = rules.runs(id, attempt, None, at);
            assert_eq!(word(room.running(id, attempt, at).await.unwrap()), wanted);
        }
        8 => {
            let fraction = f64::from(how) / 8.0;
            let log = vec!["a line".to_owned(); usize::from(how % 3)];
            let wanted = rules.progress(id, attempt, fraction, !log.is_empty(), at);
            let found = room.progress(id, attempt, Some(fraction), Some("tiles".into()), log, at);
            assert_eq!(word(found.await.unwrap()), wanted);
        }
        9..=12 => {
            let ended = match how {
                0 => over(
                    JobState::Succeeded,
                    Some(room.blob(b"a long picture").await),
                ),
                1 => over(JobState::Failed, Some(room.blob(b"what it said").await)),
                2 => over(JobState::Dead, None),
                4 => over(JobState::Succeeded, Some(Kept::Row("a picture".into()))),
                3 | 5 => again(Some(at.0 + 60), true),
                6 => again(None, false),
                _ => over(
                    JobState::Succeeded,
                    Some(room.blob(b"a late picture").await),
                ),
            };
            let wanted = rules.end(id, attempt, &ended, at);
            assert_eq!(
                word(room.end(id, attempt, ended, at).await.unwrap()),
                wanted
            );
        }
        13 if how % 3 == 0 => {
            let wanted = rules.give_up(id, "hopeless", at);
            let found = room.give_up(id, "hopeless", at).await.unwrap();
            assert_eq!(word(found), wanted);
        }
        13 => {
            let wanted = rules.cancel(id, at);
            assert_eq!(word(room.cancel(id, at).await.unwrap()), wanted);
        }
        14 => {
            let wanted = rules.retry(id, at);
            assert_eq!(word(room.retry(id, at).await.unwrap()), wanted);
        }
        15 => {
            let patch = Patch {
                urgency: (how & 1 == 0).then_some(how),
                start_by: (how & 2 == 0).then_some((how & 4 == 0).then_some(Moment(at.0 + 300))),
            };
            let wanted = rules.patch(id, patch, at);
            assert_eq!(word(room.patch(id, patch, at).await.unwrap()), wanted);
        }
        16 => assert_eq!(room.delete(id).await.unwrap(), rules.delete(id)),
        17 => {
            let expired = room.expire(at, 99).await.unwrap();
            let expired: Vec<String> = expired.iter().map(|job| job.id.to_string()).collect();
            assert_eq!(expired, rules.expire(at));
        }
        18 => assert_eq!(room.sweep(at, 99).await.unwrap(), rules.sweep(at)),
        19 => {
            loop {
                let due = room.due_letters(Moment(i64::MAX), 99).await.unwrap();
                for letter in &due {
                    room.delivery(&letter.letter.id, Delivery::Delivered, at)
                        .await
                        .unwrap();
                }
                if due.is_empty() {
                    break;
                }
            }
            rules.deliver_all();
        }
        _ => {
            room.reopen();
            same(room, rules).await;
        }
    }
}

/// All that can be read is as the rules say.
async fn same(room: &Room, rules: &Rules) {
    let mut wanted: Vec<&Held> = rules.jobs.values().collect();
    wanted.sort_by_key(|held| held.job.seq);
    let mut found = room
        .list(Filter {
            limit: 99,
            ..Filter::default()
        })
        .await
        .unwrap();
    found.reverse();
    let records: Vec<&JobRecord> = wanted.iter().map(|held| &held.job).collect();
    assert_eq!(format!("{found:?}"), format!("{records:?}"));
    let unfinished = room.unfinished(0, 99).await.unwrap();
    let open: Vec<&&JobRecord> = records.iter().filter(|job| !job.state.is_over()).collect();
    assert_eq!(format!("{unfinished:?}"), format!("{open:?}"));
    assert_eq!(
        format!("{:?}", room.array("array").await.unwrap()),
        format!("{:?}", rules.counted())
    );
    let mut bodies = 0;
    for held in wanted {
        assert_eq!(kinds(room, &held.job.id).await, held.events);
        let attempts = room.attempts(&held.job.id).await.unwrap();
        assert_eq!(format!("{attempts:?}"), format!("{:?}", held.attempts));
        assert_eq!(room.result(&held.job.id).await.unwrap(), held.result);
        bodies += held
            .result
            .as_ref()
            .and_then(rows::blob_of)
            .map_or(0, |blob| blob.length);
    }
    for about in (0..ALONE + CHILDREN).map(id_of).chain(["array".to_owned()]) {
        let letters = room.letters(&about).await.unwrap();
        let letters = letters.iter().map(|letter| {
            (
                about.clone(),
                letter.letter.id.clone(),
                letter.due.is_some(),
            )
        });
        let wanted: Vec<_> = rules
            .letters
            .iter()
            .filter(|letter| letter.0 == about)
            .cloned()
            .collect();
        assert_eq!(letters.collect::<Vec<_>>(), wanted);
    }
    // What was freed before the store was closed is gone.
    assert_eq!(room.blobs.used(), bodies);
}

#[test]
fn whatever_is_asked_the_store_keeps_to_its_rules() {
    let calls = vec((0u8..21, 0..ALONE + CHILDREN, 0u8..8, 0i64..200), 40..120);
    let mut heard = std::cell::Cell::new(0);
    tried(24, calls, |calls| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut room, mut rules, mut at) = (Room::new(), Rules::default(), 0);
            for one in calls {
                at += one.3;
                call(&mut room, &mut rules, one, Moment(at)).await;
            }
            room.reopen();
            same(&room, &rules).await;
            let kinds: usize = rules.jobs.values().map(|held| held.events.len()).sum();
            heard.set(heard.get() + kinds);
        });
    });
    assert!(
        *heard.get_mut() > 200,
        "{heard:?} changes were compared at the end"
    );
}
